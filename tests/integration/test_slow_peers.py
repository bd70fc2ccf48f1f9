"""Who is slow holds a bounded part of memory and time, who is overloaded is left alone, and others notice nothing."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stickyproxy.core.limits import Limit
from stickyproxy.core.settings import LimitSettings, Settings, TimeSettings
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.pool import RECOUNT_S

from .harness import QUICK, Clock, Peer, RawBackend, Running, Stage, eventually, hello, named, request, response
from .test_streaming import MB, SMALL, Pump
from .test_tunnel import tunnel

pytestmark = pytest.mark.both_loops


def limited(*, body_s: float = 60.0, tunnel_idle_s: float = 0.0, **limits: Any) -> Settings:
    times = replace(QUICK, body_s=body_s, tunnel_idle_s=tunnel_idle_s)
    return Settings(times=times, limits=LimitSettings(**limits))


def hits(running: Running, limit: Limit) -> int:
    return running.proxy.counters.limits[limit]


# Bytes that wait, of all together.


async def slow_reader(running: Running, backend: RawBackend) -> tuple[Peer, Pump]:
    """Give a client that takes nothing of a large answer, and who sends it."""
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", f"Content-Length: {64 * MB}"))
    return client, Pump(upstream, 64 * MB)


async def test_slow_readers_hold_no_more_than_they_may_and_the_first_are_dropped(stage: Stage) -> None:
    most = 300_000  # more than one can hold
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(buffered_bytes=most))
    waiting, pumps = running.proxy.buffered, []
    while not hits(running, Limit.BUFFERED):
        assert len(pumps) < 200, "so many hold next to nothing"
        _, pump = await slow_reader(running, backend)
        pumps.append(pump)
        await eventually(lambda: len(waiting) + hits(running, Limit.BUFFERED) >= len(pumps), "it stalls, or others do")
        assert waiting.total <= most
    await stage.clients[0].gone()
    await eventually(lambda: len(running.downstreams) == len(pumps) - hits(running, Limit.BUFFERED), "the others stay")
    for pump in pumps:
        await pump.stop()


async def test_what_has_been_taken_counts_no_more(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(body=bytes(16 * MB)))
    await eventually(lambda: running.proxy.buffered.total, "the client is slow")
    assert len((await client.message()).body) == 16 * MB
    assert (running.proxy.buffered.total, len(running.proxy.buffered)) == (0, 0)


async def test_beginnings_of_heads_count_too(stage: Stage) -> None:
    running = await stage.proxy(settings=limited(buffered_bytes=100_000))
    begun = b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Fat: " + b"x" * 30_000
    clients = []
    for _ in range(5):
        clients.append(await running.client())
        clients[-1].send(begun)
    await eventually(lambda: hits(running, Limit.BUFFERED) == 2, "two are too many")
    for client in clients[:2]:
        await client.gone()
    assert 90_000 <= running.proxy.buffered.total <= 100_000
    clients[2].send(b"\r\n\r\n")
    assert (await clients[2].message()).status == 503
    assert running.proxy.buffered.total < 70_000


async def test_bodies_that_wait_for_a_slow_backend_count_too(stage: Stage) -> None:
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend, settings=limited(buffered_bytes=1000))
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {64 * MB}"))
    pump = Pump(client, 64 * MB)
    upstream = await backend.accepted()
    await upstream.gone()
    assert hits(running, Limit.BUFFERED) == 1
    await pump.stop()


async def test_who_was_slow_to_take_an_interim_response_is_told_of_the_time_out_all_the_same(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    clock = Clock(running)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert (await client.head()).status == 103
    downstream = await running.downstream()
    downstream.pause_writing()
    downstream.resume_writing()
    clock.moves(running.proxy.times.response_s + 1)
    message = await client.message()
    assert (message.status, message.reason) == (504, "response-timeout")


async def test_tunnels_whose_bytes_wait_count_too_until_they_flow(stage: Stage) -> None:
    _, running, client, upstream = await tunnel(stage, receive_buffer=SMALL)
    pump = Pump(upstream, 16 * MB)
    await eventually(lambda: running.proxy.buffered.total, "the client is slow")
    left = 16 * MB
    while left:
        left -= len(await client.exactly(min(left, 65536)))
    await eventually(lambda: not running.proxy.buffered.total, "all has been taken")
    await pump.stop()


async def test_a_tunnel_whose_bytes_wait_is_dropped_where_it_is_too_much(stage: Stage) -> None:
    _, running, client, upstream = await tunnel(stage, receive_buffer=SMALL, settings=limited(buffered_bytes=1000))
    pump = Pump(upstream, 64 * MB)
    await upstream.gone()
    assert hits(running, Limit.BUFFERED) == 1
    assert running.proxy.counters.tunnel_ends[End.IDLE.value] == 1
    client.reset()
    await pump.stop()


# Rates.


async def drip(peer: Peer, data: bytes, pause_s: float) -> None:
    while True:
        peer.send(data)
        await asyncio.sleep(pause_s)


async def test_a_body_that_drips_is_a_408_though_bytes_never_cease(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(body_s=0.3, body_rate=10_000))
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {MB}"))
    upstream = await backend.accepted()
    await upstream.head()
    dripping = asyncio.ensure_future(drip(client, b"x", 0.02))
    message = await client.message()
    dripping.cancel()
    assert (message.status, message.reason) == (408, "body-timeout")
    assert hits(running, Limit.RATE) == 1


async def test_a_body_may_drip_where_any_rate_will_do(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(body_s=60.0, body_rate=0))
    clock = Clock(running)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", "Content-Length: 8"))
    upstream = await backend.accepted()
    await upstream.head()
    for _ in range(8):
        client.send(b"x")
        assert await upstream.exactly(1) == b"x"
        await clock.passes(59.0)
    upstream.send(response())
    assert (await client.message()).status == 200


async def test_what_comes_with_the_head_is_part_of_the_first_stretch(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", "Content-Length: 100") + b"x" * 40)
    upstream = await backend.accepted()
    await upstream.head()
    await upstream.exactly(40)
    exchange = (await running.downstream()).exchange
    assert exchange is not None
    assert exchange.body_bytes == 40
    client.send(b"x" * 20)
    await upstream.exactly(20)
    assert exchange.body_bytes == 60


async def test_each_stretch_of_a_body_is_judged_by_itself(stage: Stage) -> None:
    """What came fast at first is no credit for dripping later."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(body_s=0.3, body_rate=10_000))
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {MB}") + bytes(100_000))
    upstream = await backend.accepted()
    await upstream.head()
    await upstream.exactly(100_000)
    dripping = asyncio.ensure_future(drip(client, b"x", 0.02))
    assert (await client.message()).status == 408
    dripping.cancel()


async def test_an_answer_that_is_taken_in_drips_is_given_up(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(body_s=0.4, body_rate=10 * MB))
    client, pump = await slow_reader(running, backend)
    await running.stalls()

    async def sip() -> None:
        for _ in range(10_000):
            if not await client.reader.read(2048):
                return
            await asyncio.sleep(0.01)

    sipping = asyncio.ensure_future(sip())
    await running.quiet()
    assert hits(running, Limit.RATE) == 1
    sipping.cancel()
    await asyncio.gather(sipping, return_exceptions=True)
    await pump.stop()


# Tunnels without a byte.


async def test_a_tunnel_without_a_byte_ends_after_its_time(stage: Stage) -> None:
    _, running, client, upstream = await tunnel(stage, settings=limited(tunnel_idle_s=0.3))
    assert await client.rest() == b""
    assert await upstream.rest() == b""
    assert running.proxy.counters.tunnel_ends[End.IDLE.value] == 1


@pytest.mark.parametrize("side", ["client", "backend"])
async def test_a_tunnel_in_which_one_side_speaks_stays(stage: Stage, side: str) -> None:
    _, running, client, upstream = await tunnel(stage, settings=limited(tunnel_idle_s=0.5))
    sender, receiver = (client, upstream) if side == "client" else (upstream, client)
    for _ in range(12):
        sender.send(b"beat")
        assert await receiver.exactly(4) == b"beat"
        await asyncio.sleep(0.1)
    assert len(running.proxy.tunnels) == 1
    assert await receiver.rest() == b"", "and ends when it is silent"


async def test_tunnels_stay_for_ever_by_default() -> None:
    assert TimeSettings().tunnel_idle_s == 0


# Requests of a connection.


async def test_a_connection_ends_with_the_answer_to_its_last_request(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=limited(requests=3))
    client = await running.client()
    for last in (False, False, True):
        client.send(request())
        assert ((await client.message()).get("connection") == "close") is last
    assert await client.rest() == b""
    assert hits(running, Limit.REQUESTS) == 1


async def test_a_connection_may_carry_any_number_of_requests(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=limited(requests=0))
    client = await running.client()
    for _ in range(5):
        client.send(request())
        assert (await client.message()).get("connection") is None


# Requests that wait for a backend.


async def waiting(running: Running, backend: RawBackend, *fields: str, target: str = "/") -> tuple[Peer, Peer]:
    client = await running.client()
    client.send(request(f"GET {target} HTTP/1.1", *fields))
    upstream = await backend.accepted()
    await upstream.head()
    return client, upstream


async def test_one_request_too_many_for_a_backend_is_told_so_where_it_has_its_page_there(stage: Stage) -> None:
    stuck, other = await stage.backend(), await stage.backend(named("other"))
    running = await stage.proxy(stuck, other, settings=limited(pending=2))
    pin = running.cookie(stuck)
    _, first = await waiting(running, stuck, pin)
    await waiting(running, stuck, pin)
    message = await running.ask(request("GET / HTTP/1.1", pin))
    assert (message.status, message.reason, message.get("retry-after")) == (503, "too-many-pending", "5")
    assert hits(running, Limit.PENDING) == 1
    first.send(response(body=b"done"))
    await asyncio.sleep(2 * RECOUNT_S[0])  # a count is good for so long
    client = await running.client()
    client.send(request("GET / HTTP/1.1", pin))
    assert (await first.head()).start == "GET / HTTP/1.1"
    first.send(response(body=b"again"))
    assert (await client.message()).body == b"again"


async def test_new_sessions_go_to_another_backend_then(stage: Stage) -> None:
    stuck, other = await stage.backend(), await stage.backend(named("other"))
    running = await stage.proxy(stuck, other, settings=limited(pending=1))
    await waiting(running, stuck, running.cookie(stuck))
    for _ in range(6):
        assert (await running.ask(request())).body == b"other"


async def test_sockets_and_long_polls_are_no_requests_that_wait(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(pending=1))
    await waiting(running, backend, target="/_nicegui_ws/socket.io/?EIO=4&transport=polling&sid=a")
    await waiting(running, backend, "Connection: Upgrade", "Upgrade: websocket")
    await waiting(running, backend)
    await waiting(running, backend, "Connection: Upgrade", "Upgrade: websocket")
    assert (await running.ask(request())).reason == "too-many-pending"


async def test_requests_whose_answer_is_under_way_do_not_wait(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(pending=1))
    for _ in range(4):
        _, upstream = await waiting(running, backend)
        upstream.send(response("200 OK", "Content-Length: 10", body=b"half"))
        await asyncio.sleep(2 * RECOUNT_S[0])
    assert not hits(running, Limit.PENDING)
