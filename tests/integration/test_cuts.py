"""Whoever is cut off at any byte of a socket's whole life, or of requests in a row: nothing stays, and all goes on.

`test_vanish.py` cuts single requests and responses; here are WebSockets from their handshake to their Close frames,
with and without a page of NiceGUI, requests behind one another, and floods.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .harness import BOUND_S, Peer, RawBackend, Running, Stage, eventually, hello, request, response, soon, turns

PAGE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"

SOCKETS = {
    "any": "/socket",
    "nicegui": f"/_nicegui_ws/socket.io/?client_id={PAGE}&implicit_handshake=true&EIO=4&transport=websocket",
}
"""Targets: of a socket of which nothing is known, and of a page's, whose handshake is read as it passes."""

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
MASK = b"\0\0\0\0"


def upgrade(target: str) -> bytes:
    return request(
        f"GET {target} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )  # fmt: skip


def said(text: bytes) -> bytes:
    """Build a server's frame."""
    return b"\x81%c%b" % (len(text), text)


def told(text: bytes) -> bytes:
    """Build a client's frame."""
    return b"\x81%c%b%b" % (0x80 | len(text), MASK, text)


FROM_BACKEND = said(b'0{"sid":"x"}') + said(b'40{"sid":"y"}') + said(b'42["update",1]') + b"\x88\x02\x03\xe8"
FROM_CLIENT = told(b"40") + told(b'42["click",1]') + b"\x88\x82" + MASK + b"\x03\xe9"


async def is_empty(running: Running, tasks: int) -> None:
    """See that nothing is left: no connection, tunnel, pooled connection in use, or task."""
    await running.quiet()
    assert running.proxy.counters.open_connections == 0
    await eventually(lambda: running.idle <= 1, "no connection is in use")
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "all tasks end")


@contextmanager
def counted_tasks() -> Iterator[int]:
    """Give the number of tasks now, and see that it is the same in the end."""
    before = len(asyncio.all_tasks())
    yield before
    assert len(asyncio.all_tasks()) <= before


async def works(running: Running, backend: RawBackend) -> None:
    """Ask for something, of a backend that the test speaks for."""
    client = await running.client()
    client.send(request("GET /works HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", "Connection: close", body=b"works"))
    upstream.close()
    assert (await client.message()).body == b"works"
    client.close()


CUTS: dict[str, Callable[[Peer], None]] = {
    "close": Peer.close,
    "reset": Peer.reset,
    "half-close": Peer.half_close,
}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("target", SOCKETS)
async def test_a_client_may_be_cut_at_each_byte_of_what_it_sends_on_a_socket(
    stage: Stage, target: str, how: str
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    with counted_tasks() as tasks:
        for length in range(len(FROM_CLIENT) + 1):
            client = await running.client()
            client.send(upgrade(SOCKETS[target]) + FROM_CLIENT[:length])
            upstream = await backend.accepted()
            await upstream.head()
            upstream.send(SWITCH + FROM_BACKEND[: -len(b"\x88\x02\x03\xe8")])
            assert await upstream.exactly(length) == FROM_CLIENT[:length], "what was sent arrives"
            CUTS[how](client)
            if how == "half-close":
                assert await upstream.rest() == b"", "the half-close arrives"
                upstream.close()
                await client.gone()
            else:
                await upstream.gone()
                upstream.close()
            client.drop()
            await is_empty(running, tasks)
        await works(running, backend)
        await is_empty(running, tasks)
    assert sum(running.proxy.counters.tunnel_ends.values()) == len(FROM_CLIENT) + 1, "each ended once"


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("target", SOCKETS)
async def test_a_backend_may_be_cut_at_each_byte_of_what_it_sends_on_a_socket(
    stage: Stage, target: str, how: str
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    with counted_tasks() as tasks:
        for length in range(len(FROM_BACKEND) + 1):
            client = await running.client()
            client.send(upgrade(SOCKETS[target]) + FROM_CLIENT[:10])
            upstream = await backend.accepted()
            await upstream.head()
            upstream.send(SWITCH + FROM_BACKEND[:length])
            assert (await client.head()).status == 101
            await upstream.exactly(10)
            if how != "reset":  # which may overtake what was sent
                CUTS[how](upstream)
                assert await client.rest() == FROM_BACKEND[:length], "what was sent arrives, and then the end"
            else:
                await upstream.flush()
                await turns(length % 7)
                CUTS[how](upstream)
                await client.gone()
            client.close()
            await upstream.gone()
            upstream.drop()
            await is_empty(running, tasks)
        await works(running, backend)
        await is_empty(running, tasks)
    assert sum(running.proxy.counters.tunnel_ends.values()) == len(FROM_BACKEND) + 1, "each ended once"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_both_sides_may_be_cut_at_the_same_moment(stage: Stage, how: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    with counted_tasks() as tasks:
        for length in range(0, len(FROM_CLIENT), 3):
            client = await running.client()
            client.send(upgrade(SOCKETS["nicegui"]) + FROM_CLIENT[:length])
            upstream = await backend.accepted()
            await upstream.head()
            upstream.send(SWITCH + FROM_BACKEND[:length])
            await turns(length % 4)
            CUTS[how](client)
            CUTS[how](upstream)
            upstream.drop()
            client.drop()
            await is_empty(running, tasks)
        await works(running, backend)


IN_A_ROW = (
    request("GET /one HTTP/1.1")
    + request("POST /two HTTP/1.1", body=b"0123456789")
    + request("GET /three HTTP/1.1", "Connection: close")
)


@pytest.mark.parametrize("how", CUTS)
async def test_a_client_may_be_cut_at_each_byte_of_requests_in_a_row(stage: Stage, how: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    # An idle connection to a backend whose handler is a task: that one stays.
    assert (await running.ask(request())).status == 200
    await running.quiet()
    for length in range(len(IN_A_ROW) + 1):
        client = await running.client()
        client.send(IN_A_ROW[:length])
        if length % 3 == 0:
            await turns(10)
        CUTS[how](client)
        if how == "half-close":
            await client.gone()
        client.drop()
        if length % 10 == 0:
            await running.quiet()
            assert (await running.ask(request("GET /works HTTP/1.1"))).status == 200
    await running.quiet()
    assert running.proxy.counters.open_connections == 0
    await eventually(lambda: running.idle <= 3, "no connection is in use")


# Floods.


async def flood(peer: Peer, piece: bytes) -> None:
    """Send without end; somebody has to put one to it."""
    end = time.monotonic() + BOUND_S
    try:
        while time.monotonic() < end:
            peer.send(piece)
            await peer.flush()
    except ConnectionError:
        return
    pytest.fail("nobody stopped it")


async def test_a_backend_that_floods_a_client_that_has_gone_is_stopped(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    for switch in (False, True):
        client = await running.client()
        client.send(upgrade("/socket") if switch else request())
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(SWITCH if switch else response("200 OK", "Close: 1"))
        await client.head()
        client.reset()
        await flood(upstream, b"f" * 65536)
        await running.quiet()
    await works(running, backend)


async def test_a_client_that_floods_a_backend_that_has_gone_is_stopped(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    for switch in (False, True):
        client = await running.client()
        client.send(upgrade("/socket") if switch else request("POST / HTTP/1.1", "Transfer-Encoding: chunked"))
        upstream = await backend.accepted()
        await upstream.head()
        if switch:
            upstream.send(SWITCH)
            await client.head()
        upstream.reset()
        await flood(client, b"8000\r\n" + b"f" * 0x8000 + b"\r\n")
        client.drop()
        await running.quiet()
    await works(running, backend)


async def test_a_flood_of_bytes_behind_a_whole_response_reaches_nobody_and_costs_no_memory(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(body=b"wanted") + b"f" * (4 << 20))
    assert (await client.message()).body == b"wanted"
    assert not await upstream.gone(), "it is cut off with what it still had to say"
    upstream.drop()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(body=b"next"))
    assert (await client.message()).body == b"next"
    client.close()
    await running.quiet()


@pytest.mark.parametrize("says", [b"", b"GET / HTTP/1.1\r\nHost: a", b"\x16\x03\x01", request()])
async def test_a_storm_of_connections_that_go_at_once_leaves_nothing(stage: Stage, says: bytes) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    for _ in range(10):
        clients = await asyncio.gather(*(running.client() for _ in range(50)))
        for number, client in enumerate(clients):
            if says:
                client.send(says)
            client.reset() if number % 2 else client.close()
    await eventually(lambda: running.proxy.counters.connections >= 250, "they come")
    await running.quiet()
    assert (await running.ask(request())).status == 200
    await running.quiet()
    assert running.proxy.counters.open_connections == 0


# Clocks.


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0, -1e9])
async def test_a_jump_of_the_wall_clock_is_nobodys_deadline(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    tunnel = await running.client()
    tunnel.send(upgrade(SOCKETS["nicegui"]))
    socket = await backend.accepted()
    await socket.head()
    socket.send(SWITCH + said(b'0{"sid":"x"}') + said(b'40{"sid":"y"}'))
    await tunnel.head()
    half = await running.client()
    half.send(request("POST / HTTP/1.1", "Content-Length: 10") + b"01234")
    upload = await backend.accepted()
    await upload.head()

    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + jump_s))
    monkeypatch.setattr(time, "time_ns", lambda: max(0, real_ns() + int(jump_s * 1e9)))
    swept = asyncio.get_running_loop().time() + 4 * running.proxy.times.sweep_s
    await eventually(lambda: asyncio.get_running_loop().time() > swept, "all deadlines were looked at")

    half.send(b"56789")
    assert await upload.exactly(10) == b"0123456789"
    upload.send(response(body=b"whole"))
    assert (await half.message()).body == b"whole"
    tunnel.send(told(b"still"))
    assert await soon(socket.exactly(len(told(b"still")))) == told(b"still")
    assert running.proxy.counters.faults.total() == 0
    tunnel.close()
    half.close()
    socket.close()
    await running.quiet()
