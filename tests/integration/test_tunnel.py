"""After `101 Switching Protocols` bytes, ends and backpressure pass both ways untouched."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from stickyproxy.core.settings import Settings, TimeSettings
from stickyproxy.core.tunnels import End

from .harness import (
    CHUNKED,
    QUICK,
    Clock,
    Peer,
    RawBackend,
    Running,
    Stage,
    eventually,
    hello,
    request,
    response,
    settles,
    soon,
    turns,
)
from .test_streaming import BLOCK, ENOUGH, MB, SMALL, Pump, swallow

pytestmark = pytest.mark.both_loops

ASK = request(
    "GET /socket HTTP/1.1", "Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-App: 1\r\n\r\n"


async def tunnel(
    stage: Stage, *, receive_buffer: int = 0, settings: Settings | None = None
) -> tuple[RawBackend, Running, Peer, Peer]:
    """Open a tunnel: the client's end and the backend's."""
    backend = await stage.backend(receive_buffer=receive_buffer)
    running = await stage.proxy(backend, settings=settings)
    client, upstream = await open_tunnel(running, backend, receive_buffer=receive_buffer)
    return backend, running, client, upstream


async def open_tunnel(running: Running, backend: RawBackend, *, receive_buffer: int = 0) -> tuple[Peer, Peer]:
    client = await running.client(receive_buffer=receive_buffer, limit=receive_buffer or 1 << 17)
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    return client, upstream


def load(running: Running, backend: RawBackend) -> int:
    return running.proxy.balancer.loads[backend.at().identity].tunnels


async def test_both_heads_pass_with_what_an_upgrade_needs(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    head = await upstream.head()
    assert (head.get("upgrade"), head.get("connection")) == ("WebSocket", "Upgrade")
    assert head.get("sec-websocket-version") == "13"
    upstream.send(SWITCH)
    answer = await client.head()
    assert answer.status == 101
    assert (answer.get("upgrade"), answer.get("connection")) == ("websocket", "Upgrade")
    assert answer.get("x-app") == "1"
    assert answer.token is not None, "the socket may be the first request of a session"


async def test_bytes_pass_both_ways_as_they_are_written(stage: Stage) -> None:
    _, _, client, upstream = await tunnel(stage)
    for number in range(50):
        data = b"\x00\xff%d" % number
        client.send(data)
        assert await upstream.exactly(len(data)) == data
        upstream.send(data[::-1])
        assert await client.exactly(len(data)) == data[::-1]


async def test_bytes_behind_both_heads_are_delivered(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK + b"early bytes")
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH + b"first words")
    assert await upstream.exactly(11) == b"early bytes"
    await client.head()
    assert await client.exactly(11) == b"first words"
    client.send(b"more")
    assert await upstream.exactly(4) == b"more"


@pytest.mark.parametrize("size", [300_000, 3 * MB])
async def test_many_bytes_behind_both_heads_are_delivered(stage: Stage, size: int) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK + bytes(size))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH + bytes(size))
    await client.head()
    assert await client.exactly(size) == bytes(size)
    assert await upstream.exactly(size) == bytes(size)


async def test_early_bytes_that_a_backend_does_not_take_hold_up_those_that_follow(stage: Stage) -> None:
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.writer.transport.pause_reading()  # type: ignore[attr-defined]
    downstream = await running.downstream()
    assert downstream.exchange is not None
    assert downstream.exchange.upstream is not None
    kernel = downstream.exchange.upstream.transport.get_extra_info("socket")
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    client.send(BLOCK * 4)
    await eventually(lambda: running.proxy.buffered.total >= len(BLOCK), "they are held")
    upstream.send(SWITCH)
    await client.head()
    (tunnel,) = running.proxy.tunnels
    assert tunnel in running.proxy.watched_tunnels
    assert running.proxy.buffered.total == tunnel.waiting_bytes > 0
    pump = Pump(client, ENOUGH)
    await settles(lambda: pump.sent)
    assert tunnel.waiting_bytes < MB
    assert pump.sent < ENOUGH
    await pump.stop()


async def test_first_words_that_a_client_does_not_take_are_waited_for_like_all_others(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=Settings(times=TimeSettings(sweep_s=0.05, body_s=0.2)))
    client = await running.client(receive_buffer=1, limit=1)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    kernel = (await running.downstream()).transport.get_extra_info("socket")
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    upstream.send(SWITCH + bytes(60_000))
    await eventually(lambda: running.proxy.tunnels, "it opens")
    (tunnel,) = running.proxy.tunnels
    assert running.proxy.buffered.total == tunnel.waiting_bytes > 0
    await upstream.gone()
    assert running.proxy.counters.tunnel_ends[End.IDLE.value] == 1


async def test_an_upgrade_split_at_every_byte_opens_a_tunnel(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    for byte in ASK + b"ab":
        client.send(bytes((byte,)))
        await turns(2)
    upstream = await backend.accepted()
    await upstream.head()
    for byte in SWITCH + b"cd":
        upstream.send(bytes((byte,)))
        await turns(2)
    await client.head()
    assert await client.exactly(2) == b"cd"
    assert await upstream.exactly(2) == b"ab"


async def test_an_upgrade_works_on_a_connection_that_served_requests_before(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET /page HTTP/1.1") + ASK + b"x")
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(body=b"page"))
    assert (await client.message()).body == b"page"
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    assert await upstream.exactly(1) == b"x"


async def test_other_protocols_than_websocket_are_tunnelled(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET / HTTP/1.1", "Connection: upgrade", "Upgrade: tcp, other/2"))
    upstream = await backend.accepted()
    assert (await upstream.head()).get("upgrade") == "tcp, other/2"
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: Other/2\r\n\r\nhi")
    assert (await client.head()).status == 101
    assert await client.exactly(2) == b"hi"


@pytest.mark.parametrize("protocol", ["h2c", "websocket, h2c"])
async def test_http_2_is_not_offered_to_the_backend(stage: Stage, protocol: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    message = await running.ask(
        request("GET / HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAA")
    )
    assert message.body == b"hello"
    assert backend.requests[0].get("upgrade") is None
    assert backend.requests[0].get("http2-settings") is None


@pytest.mark.parametrize("answer", ["400 Bad Request", "200 OK", "404 Not Found"])
async def test_a_declined_upgrade_is_an_ordinary_answer_and_bytes_behind_are_the_next_request(
    stage: Stage, answer: str
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK + request("GET /next HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(answer, "Connection: Upgrade", "Upgrade: websocket", body=b"no"))
    message = await client.message()
    assert (message.start, message.body) == (f"HTTP/1.1 {answer}", b"no")
    assert message.get("upgrade") is None
    assert (await upstream.head()).target == "/next"
    upstream.send(response(body=b"next"))
    assert (await client.message()).body == b"next"
    assert load(running, backend) == 0


@pytest.mark.parametrize(
    ("ask", "switch"),
    [
        (request(), SWITCH),
        (request("GET / HTTP/1.1", "Upgrade: websocket"), SWITCH),
        (request("GET / HTTP/1.0", "Connection: Upgrade", "Upgrade: websocket"), SWITCH),
        (request("POST / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", body=b"x"), SWITCH),
        (ASK, SWITCH.replace(b"Upgrade: websocket", b"Upgrade: other")),
        (ASK, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ],
    ids=["unasked", "no-connection", "1.0", "with-body", "other-protocol", "no-protocol"],
)
async def test_a_101_that_was_not_asked_for_is_a_502(stage: Stage, ask: bytes, switch: bytes) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ask)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(switch + b"evil")
    message = await client.message()
    assert (message.status, message.reason) == (502, "bad-response")
    await upstream.gone()
    assert load(running, backend) == 0
    assert running.idle == 0


@pytest.mark.parametrize("by", ["client", "backend"])
async def test_a_half_close_passes_and_the_other_side_can_still_write(stage: Stage, by: str) -> None:
    backend, running, client, upstream = await tunnel(stage)
    ending, other = (client, upstream) if by == "client" else (upstream, client)
    ending.send(b"last")
    ending.half_close()
    assert await other.rest() == b"last"
    other.send(b"and then " + BLOCK)
    assert await ending.exactly(9 + len(BLOCK)) == b"and then " + BLOCK
    assert load(running, backend) == 1
    other.close()
    assert await ending.rest() == b""
    await running.quiet()


@pytest.mark.parametrize("said", [b"all there is", b""], ids=["with bytes", "without"])
@pytest.mark.parametrize("end", [Peer.close, Peer.half_close])
async def test_a_half_close_before_the_101_passes(stage: Stage, said: bytes, end: Callable[[Peer], None]) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK + said)
    client.half_close()
    upstream = await backend.accepted()
    await upstream.head()
    await turns()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    assert await upstream.rest() == said
    upstream.send(b"answer")
    end(upstream)
    assert await client.rest() == b"answer"
    await running.quiet()


async def test_a_backend_that_ends_right_behind_its_101_ends_the_tunnel_with_all_it_said(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH + b"bye")
    upstream.close()
    assert (await client.head()).status == 101
    assert await client.rest() == b"bye"
    client.close()
    await running.quiet()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("side", ["client", "backend"])
async def test_the_loss_of_one_leg_ends_the_other_and_counts_the_tunnel_down(stage: Stage, side: str, how: str) -> None:
    backend, running, client, upstream = await tunnel(stage)
    assert load(running, backend) == 1
    lost, other = (client, upstream) if side == "client" else (upstream, client)
    getattr(lost, how)()
    await other.gone()
    other.close()
    await running.quiet()
    assert load(running, backend) == 0
    assert running.proxy.counters.tunnels == 1
    assert running.proxy.counters.open_connections == 0


async def test_what_one_side_sent_before_it_closed_reaches_a_slow_other_side(stage: Stage) -> None:
    _, running, client, upstream = await tunnel(stage, receive_buffer=SMALL)
    upstream.send(bytes(8 * MB))
    upstream.close()
    await eventually(lambda: running.proxy.tunnels, "the tunnel is open")
    assert len(await client.rest()) == 8 * MB
    client.close()
    await running.quiet()


IMPATIENT = Settings(times=TimeSettings(sweep_s=0.05, body_s=0.2))


async def test_a_leg_that_cannot_be_flushed_is_dropped_in_time(stage: Stage) -> None:
    backend, running, _, upstream = await tunnel(stage, receive_buffer=SMALL, settings=IMPATIENT)
    (open_one,) = running.proxy.tunnels
    assert open_one.downstream is not None
    outgoing = open_one.downstream.transport
    for _ in range(ENOUGH // 8192):
        upstream.send(bytes(8192))
        await turns(5)
        if outgoing.get_write_buffer_size():
            break
    upstream.reset()
    await running.quiet()
    assert load(running, backend) == 0


async def test_a_tunnel_that_is_always_full_and_always_moves_is_not_dropped(stage: Stage) -> None:
    """A download of an hour through a tunnel may have something to write at every look, and yet nothing is stuck."""
    patience = Settings(times=TimeSettings(sweep_s=0.05, body_s=0.5))
    _, _, client, upstream = await tunnel(stage, receive_buffer=SMALL, settings=patience)
    pump = Pump(upstream, 64 * MB)
    for _ in range(300):
        await client.exactly(65536)
        await asyncio.sleep(0.004)  # in all more than twice the limit: time is the subject here
    await pump.stop()


async def test_a_tunnel_whose_backend_goes_while_the_client_takes_nothing_ends_in_time(stage: Stage) -> None:
    """The leg to the backend is not read while the client's is full, so only a deadline can notice the end."""
    backend, running, _, upstream = await tunnel(stage, receive_buffer=SMALL, settings=IMPATIENT)
    pump = Pump(upstream, 64 * MB)
    await settles(lambda: pump.sent)
    await pump.stop()
    upstream.reset()
    await running.quiet()
    assert load(running, backend) == 0


@pytest.mark.parametrize("side", ["client", "backend"])
async def test_a_side_that_does_not_read_stalls_the_other_and_memory_stays_bounded(stage: Stage, side: str) -> None:
    _, running, client, upstream = await tunnel(stage, receive_buffer=SMALL)
    (open_one,) = running.proxy.tunnels
    assert open_one.downstream is not None
    assert open_one.upstream is not None
    leg = open_one.downstream if side == "client" else open_one.upstream
    reader, writer = (client, upstream) if side == "client" else (upstream, client)
    pump = Pump(writer, 64 * MB)
    assert await settles(lambda: pump.sent) < ENOUGH
    assert leg.transport.get_write_buffer_size() < MB
    writer_got = b"still flows"
    reader.send(writer_got)
    assert await writer.exactly(len(writer_got)) == writer_got
    assert await soon(swallow(reader, 64 * MB), bound_s=60) == pump.digest.hexdigest()
    await soon(pump.task)


async def test_64_mb_through_a_tunnel_both_ways_at_once_are_unchanged(stage: Stage) -> None:
    _, _, client, upstream = await tunnel(stage)
    down, up = Pump(upstream, 64 * MB), Pump(client, 64 * MB)
    got_down, got_up = await soon(asyncio.gather(swallow(client, 64 * MB), swallow(upstream, 64 * MB)), bound_s=60)
    await asyncio.gather(down.task, up.task)
    assert (got_down, got_up) == (down.digest.hexdigest(), up.digest.hexdigest())


async def test_a_tunnel_is_bound_by_no_deadline(stage: Stage) -> None:
    """Sockets are silent for as long as they like: the times of requests do not apply."""
    times = TimeSettings(sweep_s=0.02)
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=Settings(times=times))
    clock = Clock(running)
    client, upstream = await open_tunnel(running, backend)
    longest_s = max(times.head_s, times.body_s, times.idle_s, times.response_s, times.upstream_idle_s)
    await clock.passes(2 * longest_s)
    client.send(b"still here")
    assert await upstream.exactly(10) == b"still here"


async def test_tunnels_count_for_the_backend_that_carries_them(stage: Stage) -> None:
    one, two = await stage.backend(), await stage.backend()
    running = await stage.proxy(one, two)
    ends = []
    for backend in (one, one, two):
        client = await running.client()
        client.send(ASK.replace(b"\r\n\r\n", b"\r\n" + running.cookie(backend).encode() + b"\r\n\r\n"))
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(SWITCH)
        head = await client.head()
        assert (head.status, head.token) == (101, None)
        ends.append((client, upstream))
    assert (load(running, one), load(running, two)) == (2, 1)
    for end in ends[0]:
        end.close()
    await eventually(lambda: load(running, one) == 1, "the first tunnel is counted down")
    assert load(running, two) == 1


async def test_a_tunnel_outlives_its_backend_in_the_list_and_the_count_outlives_both(stage: Stage) -> None:
    backend, running, client, upstream = await tunnel(stage, settings=Settings(times=QUICK))
    other = await stage.backend(hello)
    running.apply(other.at())
    client.send(b"still")
    assert await upstream.exactly(5) == b"still"
    running.apply(backend.at(), other.at())
    assert load(running, backend) == 1, "a backend that comes back still carries its old tunnels"
    client.close()
    await upstream.gone()
    upstream.close()
    await running.quiet()
    assert load(running, backend) == 0


async def test_an_upgrade_with_a_chunked_body_is_an_ordinary_request(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    message = await running.ask(
        request("POST / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", CHUNKED, body=b"0\r\n\r\n")
    )
    assert message.body == b"hello"
    assert backend.requests[0].get("upgrade") is None


async def test_a_socket_gets_a_connection_on_which_nothing_was_asked_before(stage: Stage) -> None:
    """uvicorn closes it after 5 s where the exchange before ends there only when the socket is open."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    first = await running.client()
    first.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response())
    await first.message()
    client, _ = await open_tunnel(running, backend)
    assert backend.connections == 2
    client.close()
