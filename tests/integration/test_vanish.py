"""Whoever vanishes, wherever in an exchange: nothing is left behind, and the next request works."""

import asyncio
import socket

import pytest

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.values import Address

from .harness import (
    CHUNKED,
    Message,
    RawBackend,
    Running,
    Stage,
    chunked,
    eventually,
    hello,
    request,
    response,
    soon,
    turns,
)

REQUESTS = {
    "get": request("GET /a HTTP/1.1", "Cookie: a=b"),
    "length": request("POST /a HTTP/1.1", body=b"0123456789"),
    "chunked": request("POST /a HTTP/1.1", CHUNKED, body=chunked(b"01234", b"56789", trailers=["X-A: 1"])),
    "upgrade": request("GET /a HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", body=b""),
}

RESPONSES = {
    "length": response(body=b"0123456789"),
    "chunked": response("200 OK", CHUNKED, body=chunked(b"01234", b"56789", trailers=["X-A: 1"])),
    "close": response("200 OK", "Close: 1", body=b"0123456789"),
    "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(body=b"x"),
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc",
}


async def works(running: Running, backend: RawBackend) -> None:
    """See that a request still works, and that at most the pool's connections are open."""
    await running.quiet()
    message = await running.ask(request("GET /works HTTP/1.1"))
    assert message.status == 200
    await running.quiet()
    assert running.proxy.counters.open_connections == 0
    await eventually(lambda: running.idle <= 1, "no connection is left in use")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_client_may_vanish_at_each_byte_of_its_request(stage: Stage, kind: str, how: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    data = REQUESTS[kind]
    for length in range(len(data) + 1):
        client = await running.client()
        client.send(data[:length])
        if length % 3 == 0:
            await turns(10)  # so that the proxy has acted on what came, for some of the cuts
        getattr(client, how)()
        if length % 10 == 0:
            await works(running, backend)
        client.drop()
    await works(running, backend)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", RESPONSES)
async def test_a_client_may_vanish_at_each_byte_of_the_response(stage: Stage, kind: str, how: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    data = RESPONSES[kind]
    for length in range(len(data) + 1):
        client = await running.client()
        client.send(REQUESTS["upgrade" if kind == "switch" else "get"])
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(data[:length])
        await turns(length % 5)
        getattr(client, how)()
        if how == "reset" and kind != "switch" and length < len(data):
            await upstream.gone()  # a mere end may be a half-close: then the answer is still wanted
        upstream.send(data[length:])
        upstream.close()
        client.drop()
        await running.quiet()
    assert running.proxy.counters.open_connections == 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", RESPONSES)
async def test_a_backend_may_vanish_at_each_byte_of_its_response(stage: Stage, kind: str, how: str) -> None:
    cut = 0
    data = RESPONSES[kind]
    backend = await stage.backend()
    running = await stage.proxy(backend)
    for cut in range(len(data)):
        client = await running.client()
        client.send(REQUESTS["upgrade" if kind == "switch" else "get"])
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(data[:cut])
        await upstream.flush()
        if cut % 2:
            await turns(5)
        getattr(upstream, how)()
        try:
            message: Message | None = await client.final() if kind != "switch" else await client.message()
        except (asyncio.IncompleteReadError, ConnectionError):
            message = None
        head_end = data.rindex(b"\r\n\r\n") + 4 if kind != "chunked" else data.index(b"\r\n\r\n") + 4
        if message is not None and kind != "close" and (kind != "switch" or cut < head_end):
            assert (message.status, message.reason) == (502, "closed-early"), cut
        if message is None:
            assert cut >= head_end, "without a head the client is told what happened"
        client.close()
        await running.quiet()
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(body=b"works"))
    assert (await client.message()).body == b"works"


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["get", "length", "chunked"])
async def test_a_backend_may_vanish_at_each_byte_of_the_request(stage: Stage, kind: str, how: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    data = REQUESTS[kind]
    arrives = len(request("GET /a HTTP/1.1", "Cookie: a=b")) + 150
    for length in range(0, arrives, 7):
        client = await running.client()
        client.send(data)
        upstream = await backend.accepted()
        upstream.reader._limit = 1 << 17  # type: ignore[attr-defined]
        read = await soon(upstream.reader.read(length)) if length else b""
        assert len(read) <= length
        getattr(upstream, how)()
        message = await client.message()
        assert (message.status, message.reason) == (502, "closed-early")
        client.close()
        await running.quiet()


async def test_a_client_that_vanishes_while_its_backend_is_dialled_leaves_no_attempt_behind(stage: Stage) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    filler = socket.create_connection(listener.getsockname())
    try:
        running = await stage.proxy(Backend.at(Address(*listener.getsockname())))
        before = len(asyncio.all_tasks())
        client = await running.client()
        client.send(request())
        await eventually(lambda: running.proxy.counters.dials, "it is dialled")
        assert len(asyncio.all_tasks()) == before + 1
        client.reset()
        await running.quiet()
        await eventually(lambda: len(asyncio.all_tasks()) == before, "the attempt ends")
    finally:
        filler.close()
        listener.close()


async def test_a_client_that_vanishes_while_its_request_is_held_leaves_nothing_behind(stage: Stage) -> None:
    backend = await stage.backend(hello)
    await backend.stop_listening()
    running = await stage.proxy(backend.at(Phase.PAUSED))
    before = len(asyncio.all_tasks())
    client = await running.client()
    client.send(request())
    await eventually(lambda: running.proxy.counters.dials, "it is dialled")
    client.reset()
    await running.quiet()
    await eventually(lambda: len(asyncio.all_tasks()) == before, "the attempt ends")


async def test_a_backend_that_accepts_and_resets_at_once_never_hangs_a_request(stage: Stage) -> None:
    """The connection may be lost between its making and the first write."""
    backend = await stage.backend()
    running = await stage.proxy(backend)

    async def slam() -> None:
        while True:
            (await backend._queue.get()).reset()

    slamming = asyncio.ensure_future(slam())
    for _ in range(50):
        message = await running.ask(request())
        assert (message.status, message.reason) == (502, "closed-early")
    slamming.cancel()
    await asyncio.gather(slamming, return_exceptions=True)
    await running.quiet()


async def test_a_backend_that_speaks_first_never_hangs_a_request(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)

    async def greet() -> None:
        while True:
            (await backend._queue.get()).send(b"220 mail.test ESMTP\r\n")

    greeting = asyncio.ensure_future(greet())
    for _ in range(50):
        assert (await running.ask(request())).status == 502
    greeting.cancel()
    await asyncio.gather(greeting, return_exceptions=True)
    await running.quiet()
