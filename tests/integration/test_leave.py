"""The proxy leaves: served on for a while, then tunnels go one by one, between two messages, and lose nothing."""

import asyncio
import signal
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.dispersal import QUIET_S, Dispersal, Watch

from .command import command
from .harness import Peer, Running, Stage, eventually, hello, request, settles, soon, turns
from .test_command import tunnel_through
from .test_streaming import MB, SMALL, Pump
from .test_tunnel import open_tunnel

CLICK = bytes((0x82, 0x80 | 100)) + bytes(104)
UPDATE = bytes((0x82, 100)) + bytes(100)
PONG = bytes((0x81, 0x81)) + bytes(5)


def watch(running: Running) -> list[Watch]:
    return [Watch.of(tunnel, running.proxy.time) for tunnel in running.proxy.tunnels]


# The delay.


async def test_during_the_delay_all_are_served_and_told_to_come_back_elsewhere(stage: Stage) -> None:
    app, sockets = await stage.backend(hello), await stage.backend()
    running = await stage.proxy(app, sockets)
    kept = await running.client()
    kept.send(request("GET / HTTP/1.1", running.cookie(app)))
    assert (await kept.message()).get("connection") is None
    leaving = asyncio.ensure_future(running.proxy.leave(1.0, 60.0))
    await turns(3)
    assert not running.proxy.health().ready
    for client in (kept, await running.client()):
        client.send(request("GET / HTTP/1.1", running.cookie(app)))
        message = await client.message()
        assert (message.status, message.body, message.get("connection")) == (200, b"hello", "close")
        assert await client.rest() == b""
    running.apply(sockets.at())  # so that the next one goes there
    client, upstream = await open_tunnel(running, sockets)
    client.send(CLICK)
    assert await upstream.exactly(len(CLICK)) == CLICK
    assert not leaving.done()
    assert await client.rest() == b"", "closed when the delay is over, long before the time-out"
    client.close()
    upstream.close()
    await soon(leaving)
    with pytest.raises(ConnectionError):
        await running.client()


async def test_the_real_command_serves_on_then_closes_and_ends(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address), "--shutdown-delay", "700ms") as running:
        assert (await running.ask(request())).get("connection") is None
        running.send(signal.SIGTERM)
        line = await running.says("draining: ")
        assert "0.7 s more" in line
        message = await running.ask(request())
        assert (message.status, message.get("connection")) == (200, "close")
        assert (await running.look("/readyz")).status == 503
        assert await running.ends() == 0
        with pytest.raises(ConnectionError):
            await running.client()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once_whatever_it_interrupts(
    stage: Stage, first: signal.Signals, second: signal.Signals
) -> None:
    """SIGTERM is interrupted in its delay, SIGINT, which has none, in its drain."""
    backend = await stage.backend()
    arguments = ("--backend", str(backend.address), "--shutdown-delay", "600s", "--drain-timeout", "600s")
    async with command(*arguments) as running:
        client, upstream = await tunnel_through(running, backend)
        client.send(CLICK[:50])
        await upstream.exactly(50)
        running.send(first)
        await running.says("draining: ")
        running.send(second)
        assert await running.ends() == 0
        assert "Traceback" not in "".join(running.log)
        await client.gone()
        await upstream.gone()


async def test_sigint_has_no_delay(stage: Stage) -> None:
    """A person at a keyboard waits for no load balancer."""
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address), "--shutdown-delay", "600s") as running:
        running.send(signal.SIGINT)
        assert "for 0 s more" in await running.says("draining: ")
        assert await running.ends() == 0


# Tunnels.


@pytest.mark.parametrize("side", ["client", "backend"])
async def test_a_tunnel_is_closed_when_its_message_has_ended(stage: Stage, side: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend)
    sender, receiver, message = (client, upstream, CLICK) if side == "client" else (upstream, client, UPDATE)
    leaving = asyncio.ensure_future(running.proxy.leave(0.0, 8.0))
    await eventually(lambda: not running.proxy.admission.acceptors, "drains")
    sender.send(message)
    assert await receiver.exactly(len(message)) == message
    sender.send(message[:10])
    assert await receiver.exactly(10) == message[:10]
    with pytest.raises(TimeoutError):  # longer than any gap that is taken for an end
        await asyncio.wait_for(receiver.reader.read(1), 4 * QUIET_S)
    begun = running.proxy.time()
    sender.send(message[10:])
    assert await receiver.rest() == message[10:]
    assert running.proxy.time() - begun < 5.0, "not only at the end of the time"
    for peer in (client, upstream):
        assert await peer.rest() == b""
        peer.close()
    await soon(leaving)


async def test_a_tunnel_that_opens_in_the_drain_is_closed_between_its_messages(stage: Stage) -> None:
    from .test_tunnel import ASK, SWITCH

    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    leaving = asyncio.ensure_future(running.proxy.drain(60.0))
    await turns()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    assert await client.rest() == b"", "cleanly, and long before the time-out"
    client.close()
    upstream.close()
    await soon(leaving)


async def test_a_half_closed_tunnel_is_watched_and_closed(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend)
    client.half_close()
    assert await upstream.rest() == b""
    watch(running)
    upstream.send(UPDATE)
    assert await client.exactly(len(UPDATE)) == UPDATE
    upstream.half_close()
    assert await client.rest() == b""
    client.close()
    upstream.close()
    await running.quiet()


async def test_a_stalled_reader_gets_all_that_was_sent_before_its_end(stage: Stage) -> None:
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend, receive_buffer=SMALL)
    total = 8 * MB
    pump = Pump(upstream, total)
    await settles(lambda: pump.sent)
    leaving = asyncio.ensure_future(running.proxy.drain(30.0))
    assert len(await client.exactly(total)) == total
    assert await client.rest() == b""
    await pump.stop()
    client.close()
    upstream.close()
    await soon(leaving)


async def test_backpressure_outlives_the_change_of_legs(stage: Stage) -> None:
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend, receive_buffer=SMALL)
    pump = Pump(upstream, 64 * MB)
    held = await settles(lambda: pump.sent)
    assert held < 48 * MB, "the backend is stalled"
    watch(running)
    assert await settles(lambda: pump.sent) == held, "and stays so"
    (tunnel,) = running.proxy.tunnels
    assert tunnel.downstream is not None
    assert tunnel.downstream.transport.get_write_buffer_size() < MB
    assert len(await client.exactly(64 * MB)) == 64 * MB, "and goes on when the client reads"
    await pump.stop()
    client.close()
    upstream.close()
    await running.quiet()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.sampled_from([1, 7, 4096, 200_000]), min_size=1, max_size=12),
    changes=st.sets(st.integers(0, 11), max_size=4),
    steps=st.integers(0, 5),
)
def test_bytes_in_flight_are_neither_lost_nor_reordered_by_the_change_of_legs(
    sizes: list[int], changes: set[int], steps: int
) -> None:
    async def play() -> None:
        stage = Stage()
        try:
            backend = await stage.backend()
            running = await stage.proxy(backend)
            client, upstream = await open_tunnel(running, backend)
            up = [bytes((65 + number,)) * size for number, size in enumerate(sizes)]
            down = [piece.lower() for piece in up]
            reading = asyncio.gather(client.exactly(len(b"".join(down))), upstream.exactly(len(b"".join(up))))
            for number, (this, that) in enumerate(zip(up, down, strict=True)):
                client.send(this)
                upstream.send(that)
                await turns(steps)
                if number in changes:
                    (tunnel,) = running.proxy.tunnels
                    Watch(tunnel, running.proxy.time)  # even over legs that were changed before
            assert await soon(reading) == [b"".join(down), b"".join(up)]
        finally:
            await stage.close()
        stage.judge()

    asyncio.run(play())


async def test_many_tunnels_are_closed_cleanly_and_spread_over_their_time(stage: Stage) -> None:
    """A thousand are in the unit tests."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    ends: list[tuple[Peer, Peer]] = [await open_tunnel(running, backend) for _ in range(150)]
    leaving = asyncio.ensure_future(running.proxy.leave(0.0, 3.0))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    closed: list[float] = []

    async def follow(client: Peer, upstream: Peer) -> None:
        assert await client.rest() == b"", "cleanly"
        closed.append(loop.time() - begun)
        client.close()
        upstream.close()

    await soon(asyncio.gather(*(follow(*end) for end in ends)))
    await soon(leaving)
    thirds = Counter(min(int(at), 2) for at in closed)
    assert max(thirds.values()) < 100, thirds


async def test_a_dispersal_by_order_and_the_end_of_the_proxy_share_their_watch(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend)
    (before,) = watch(running)
    other = Dispersal(running.proxy.loop, running.proxy.random, lambda tunnel: tunnel.close(End.SHUTDOWN))
    other.watch(running.proxy.tunnels)
    assert watch(running) == [before]
    client.send(PONG)
    assert await upstream.exactly(len(PONG)) == PONG
    client.close()
    upstream.close()
    await running.quiet()
