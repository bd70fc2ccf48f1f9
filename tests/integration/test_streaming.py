"""Streams flow as fast as their slower end, and arrive as they are written."""

import asyncio
import hashlib

import pytest

from stickyproxy.core.settings import Settings, TimeSettings

from .harness import CHUNKED, Peer, Stage, request, response, settles, soon

pytestmark = pytest.mark.both_loops

MB = 1 << 20
BLOCK = bytes(range(256)) * 256  # 64 KiB
SMALL = 16 * 1024
"""Size of a receive buffer, so that the kernel does not swallow what a test wants to see stalled."""

ENOUGH = 32 * MB
"""More than all buffers of the kernel between two sockets hold (`tcp_wmem` allows 4 MB, `tcp_rmem` 32 MB a socket)."""


class Pump:
    """Sends blocks as fast as they are taken; `sent` counts bytes."""

    def __init__(self, peer: Peer, total: int) -> None:
        self.sent = 0
        self.digest = hashlib.blake2b()
        self.task = asyncio.ensure_future(self._run(peer, total))

    async def _run(self, peer: Peer, total: int) -> None:
        while self.sent < total:
            block = BLOCK[: min(len(BLOCK), total - self.sent)]
            peer.send(block)
            self.digest.update(block)
            self.sent += len(block)
            await peer.writer.drain()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def swallow(peer: Peer, total: int) -> str:
    """Read so many bytes; give their digest."""
    digest = hashlib.blake2b()
    left = total
    while left:
        piece = await soon(peer.reader.read(min(left, 1 << 18)))
        assert piece, f"ended with {left} bytes to come"
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("framing", ["length", "close"])
async def test_64_mb_come_down_unchanged(stage: Stage, framing: str) -> None:
    total = 64 * MB
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", f"Content-Length: {total}" if framing == "length" else "Close: 1"))
    pump = Pump(upstream, total)
    await client.head()
    assert await soon(swallow(client, total), bound_s=60) == pump.digest.hexdigest()
    await pump.task
    if framing == "close":
        upstream.close()
        assert await client.rest() == b""


async def test_64_mb_come_down_chunked_unchanged(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", CHUNKED))
    sent, read = hashlib.blake2b(), hashlib.blake2b()

    async def write() -> None:
        for number in range(1024):
            size = len(BLOCK) - number  # chunks that never fit the reads
            sent.update(BLOCK[:size])
            upstream.send(b"%x\r\n%b\r\n" % (size, BLOCK[:size]))
            await upstream.writer.drain()
        upstream.send(b"0\r\n\r\n")

    writing = asyncio.ensure_future(write())
    await client.head()
    while size := int(await soon(client.reader.readuntil(b"\r\n")), 16):
        read.update(await client.exactly(size))
        await client.exactly(2)
    await client.exactly(2)
    await writing
    assert read.digest() == sent.digest()
    assert running.idle == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_64_mb_go_up_unchanged(stage: Stage, framing: str) -> None:
    total = 64 * MB
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    if framing == "length":
        client.send(request("POST / HTTP/1.1", f"Content-Length: {total}"))
    else:
        client.send(request("POST / HTTP/1.1", CHUNKED) + b"%x\r\n" % total)
    pump = Pump(client, total)
    upstream = await backend.accepted()
    await upstream.head()
    if framing == "chunked":
        assert await upstream.exactly(9) == b"4000000\r\n"
    assert await soon(swallow(upstream, total), bound_s=60) == pump.digest.hexdigest()
    await pump.task
    if framing == "chunked":
        client.send(b"\r\n0\r\n\r\n")
        assert await upstream.exactly(7) == b"\r\n0\r\n\r\n"
    upstream.send(response(body=b"got it"))
    assert (await client.message()).body == b"got it"
    assert running.idle == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_client_that_does_not_read_stalls_the_backend_and_memory_stays_bounded(
    stage: Stage, framing: str
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    kind = {"length": f"Content-Length: {64 * MB}", "chunked": CHUNKED, "close": "Close: 1"}[framing]
    upstream.send(response("200 OK", kind) + (b"%x\r\n" % (64 * MB) if framing == "chunked" else b""))
    pump = Pump(upstream, 64 * MB)
    downstream = await running.stalls()
    assert await settles(lambda: pump.sent) < ENOUGH, "the backend must be stalled"
    assert downstream.transport.get_write_buffer_size() < MB
    await client.head()
    if framing == "chunked":
        await soon(client.reader.readuntil(b"\r\n"))
    assert await soon(swallow(client, 64 * MB), bound_s=60)
    assert await soon(pump.task) is None
    assert downstream.transport.get_write_buffer_size() < MB


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_backend_that_does_not_read_stalls_the_client_and_memory_stays_bounded(
    stage: Stage, framing: str
) -> None:
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend)
    client = await running.client()
    total = 64 * MB
    kind = f"Content-Length: {total}" if framing == "length" else CHUNKED
    client.send(request("POST / HTTP/1.1", kind) + (b"%x\r\n" % total if framing == "chunked" else b""))
    pump = Pump(client, total)
    upstream = await backend.accepted()
    assert await settles(lambda: pump.sent) < ENOUGH, "the client must be stalled"
    exchange = (await running.downstream())._exchange
    assert exchange is not None
    assert exchange.upstream is not None
    assert exchange.upstream.transport.get_write_buffer_size() < MB
    await upstream.head()
    if framing == "chunked":
        await soon(upstream.reader.readuntil(b"\r\n"))
    assert await soon(swallow(upstream, total), bound_s=60)
    await soon(pump.task)


async def test_an_upload_is_not_read_before_there_is_a_backend_for_it(stage: Stage) -> None:
    """While the proxy holds the request for a paused backend, it must not pile up the body."""
    backend = await stage.backend()
    await backend.stop_listening()
    from stickyproxy.core.backends import Phase

    running = await stage.proxy(backend.at(Phase.PAUSED))
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {64 * MB}"))
    pump = Pump(client, 64 * MB)
    assert await settles(lambda: pump.sent) < ENOUGH
    exchange = (await running.downstream())._exchange
    assert exchange is not None
    assert len(exchange._unsent) < MB
    await backend.start()
    running.apply(backend.at())
    upstream = await backend.accepted()
    await upstream.head()
    assert await soon(swallow(upstream, 64 * MB), bound_s=60)
    await soon(pump.task)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("size", [10_000, 60_000, 200_000, 3 * MB])
async def test_a_client_that_pipelines_and_does_not_read_stalls_everything(
    stage: Stage, size: int, close: bool
) -> None:
    lines = ["Connection: close"] if close else []
    backend = await stage.backend(lambda _: response("200 OK", *lines, body=bytes(size)))
    running = await stage.proxy(backend)
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    count = ENOUGH // size
    client.send(request() * count)
    served = await settles(lambda: len(backend.requests))
    assert served < count, "the client's silence must stop the work"
    downstream = await running.downstream()
    assert downstream.transport.get_write_buffer_size() < 2 * MB
    for _ in range(min(count, served + 10)):
        assert len((await client.message()).body) == size
    client.reset()
    await running.quiet()


async def test_one_stalled_client_does_not_hold_up_another(stage: Stage) -> None:
    backend = await stage.backend(lambda asked: response(body=bytes(64 * MB if asked.target == "/big" else 1)))
    running = await stage.proxy(backend)
    slow = await running.client(receive_buffer=SMALL, limit=SMALL)
    slow.send(request("GET /big HTTP/1.1"))
    await running.stalls()
    for _ in range(10):
        assert (await running.ask(request())).status == 200


async def test_events_arrive_before_the_backend_writes_the_next(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=Settings(times=TimeSettings(sweep_s=0.05, body_s=0.1)))
    client = await running.client()
    client.send(request("GET /events HTTP/1.1", "Accept: text/event-stream"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", "Content-Type: text/event-stream", CHUNKED))
    assert (await client.head()).get("content-type") == "text/event-stream"
    for number in range(5):
        event = b"data: %d\n\n" % number
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        upstream.send(chunk)
        assert await client.exactly(len(chunk)) == chunk
    # Between two events any time may pass, more than is allowed to a body that does not come: time is the subject here.
    await asyncio.sleep(0.3)
    upstream.send(b"0\r\n\r\n")
    assert await client.exactly(5) == b"0\r\n\r\n"


async def test_close_delimited_events_arrive_as_they_are_written(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET /events HTTP/1.0"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", "Close: 1"))
    await client.head()
    for number in range(5):
        upstream.send(b"%d" % number)
        assert await client.exactly(1) == b"%d" % number
    upstream.close()
    assert await client.rest() == b""


async def test_a_long_poll_is_answered_when_the_backend_answers(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    poller = await running.client()
    poller.send(request("GET /poll HTTP/1.1"))
    polled = await backend.accepted()
    await polled.head()
    pusher = await running.client()
    pusher.send(request("POST /push HTTP/1.1", body=b"event"))
    pushed = await backend.accepted()
    await pushed.head()
    event = await pushed.exactly(5)
    pushed.send(response())
    assert (await pusher.message()).status == 200
    polled.send(response(body=event))
    assert (await poller.message()).body == b"event"
