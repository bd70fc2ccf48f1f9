"""Real WebSockets, by the websockets library at both ends, do not notice the proxy."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stickyproxy.core.backends import Backend
from stickyproxy.core.values import Address

from .harness import Running, Stage, soon

Handler = Callable[[ServerConnection], Awaitable[None]]
BIG = 20 * 1024 * 1024


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def through(
    stage: Stage, handler: Handler, *, deflate: bool = True, **more: object
) -> AsyncIterator[tuple[ClientConnection, Running]]:
    """Open a WebSocket through the proxy."""
    compression = "deflate" if deflate else None
    async with serve(handler, "127.0.0.1", 0, compression=compression, max_size=BIG, **more) as server:  # type: ignore[arg-type]
        port = next(iter(server.sockets)).getsockname()[1]
        running = await stage.proxy(Backend.at(Address("127.0.0.1", port)))
        url = f"ws://127.0.0.1:{running.address.port}/chat?x=1"
        async with connect(url, compression=compression, max_size=BIG, proxy=None) as client:
            yield client, running
    await running.quiet()


@pytest.mark.parametrize("deflate", [False, True])
async def test_messages_pass_both_ways(stage: Stage, deflate: bool) -> None:
    async with through(stage, echo, deflate=deflate) as (client, _):
        assert client.response is not None
        assert ("Sec-WebSocket-Extensions" in client.response.headers) is deflate
        for message in ("text", "ä€😀", b"\x00\xff", "", b"", "x" * 70_000):
            await client.send(message)
            assert await soon(client.recv()) == message


@pytest.mark.parametrize("deflate", [False, True])
async def test_messages_of_10_mb_pass_unchanged(stage: Stage, deflate: bool) -> None:
    message = random.Random(1).randbytes(10 * 1024 * 1024)
    async with through(stage, echo, deflate=deflate) as (client, _):
        await soon(client.send(message))
        assert await soon(client.recv()) == message


async def test_fragments_pass_as_they_are_sent(stage: Stage) -> None:
    got: asyncio.Queue[str] = asyncio.Queue()

    async def listen(socket: ServerConnection) -> None:
        async for fragment in socket.recv_streaming():
            got.put_nowait(str(fragment))

    sending: asyncio.Queue[str | None] = asyncio.Queue()

    async def fragments() -> AsyncIterator[str]:
        while (fragment := await sending.get()) is not None:
            yield fragment

    async with through(stage, listen) as (client, _):
        task = asyncio.ensure_future(client.send(fragments()))
        for fragment in ("one", "two", "three"):
            sending.put_nowait(fragment)
            while await soon(got.get()) != fragment:
                pass  # an empty first frame may stand before it
        sending.put_nowait(None)
        await soon(task)


async def test_pings_are_answered_from_end_to_end(stage: Stage) -> None:
    async def ping(socket: ServerConnection) -> None:
        await soon(await socket.ping(b"from the backend"))
        await socket.send("ponged")
        await socket.wait_closed()

    async with through(stage, ping) as (client, _):
        await soon(await client.ping(b"from the client"))
        assert await soon(client.recv()) == "ponged"


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going away"), (4321, "of our own")])
@pytest.mark.parametrize("side", ["client", "backend"])
async def test_close_codes_pass(stage: Stage, side: str, code: int, reason: str) -> None:
    seen: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def handler(socket: ServerConnection) -> None:
        if side == "backend":
            await socket.close(code, reason)
        await socket.wait_closed()
        seen.put_nowait((socket.close_code, socket.close_reason))

    async with through(stage, handler) as (client, _):
        if side == "client":
            await soon(client.close(code, reason))
        else:
            with pytest.raises(ConnectionClosed):
                await soon(client.recv())
        assert (client.close_code, client.close_reason) == (code, reason)
        assert await soon(seen.get()) == (code, reason)


async def test_a_refused_handshake_is_the_backends_answer(stage: Stage) -> None:
    def refuse(socket: ServerConnection, request: object) -> object:
        return socket.respond(403, "not you\n")

    with pytest.raises(InvalidStatus) as caught:
        async with through(stage, echo, process_request=refuse):
            pass
    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b"not you\n"


async def test_a_hundred_sockets_at_once_keep_their_messages_apart(stage: Stage) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        running = await stage.proxy(Backend.at(Address("127.0.0.1", port)))
        url = f"ws://127.0.0.1:{running.address.port}/"

        async def talk(name: int) -> None:
            async with connect(url, proxy=None) as client:
                for number in range(10):
                    await client.send(f"{name}:{number}")
                    assert await client.recv() == f"{name}:{number}"

        await soon(asyncio.gather(*map(talk, range(100))), bound_s=60)
        assert running.proxy.counters.tunnels == 100
        await running.quiet()
