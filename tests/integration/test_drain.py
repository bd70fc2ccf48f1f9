"""Draining: no new work, running work finishes, and the end comes in time."""

import asyncio

import pytest

from stickyproxy.core.backends import Phase

from .harness import CHUNKED, Peer, Running, Stage, eventually, hello, request, response, soon, turns
from .test_tunnel import open_tunnel

pytestmark = pytest.mark.both_loops

LONG_S = 60.0
"""Longer than any wait in these tests: what ends before has not waited for the time-out."""


def drain(running: Running, timeout_s: float = LONG_S) -> "asyncio.Task[None]":
    return asyncio.ensure_future(running.proxy.drain(timeout_s))


async def running_exchange(stage: Stage) -> tuple[Running, Peer, Peer]:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    return running, client, upstream


async def test_with_nothing_to_do_it_is_over_at_once(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    await soon(drain(running))


async def test_idle_connections_are_closed_at_once(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    fresh, used = await running.client(), await running.client()
    used.send(request())
    await used.message()
    await eventually(lambda: len(running.downstreams) == 2, "both are accepted")
    draining = drain(running)
    assert await fresh.rest() == b""
    assert await used.rest() == b""
    await soon(draining)


async def test_no_new_connection_is_accepted(stage: Stage) -> None:
    running, client, upstream = await running_exchange(stage)
    draining = drain(running)
    await turns(3)
    with pytest.raises(ConnectionError):
        await running.ask(request())
    upstream.send(response())
    await client.message()
    await soon(draining)


async def test_a_running_exchange_finishes_and_says_that_it_is_the_last(stage: Stage) -> None:
    running, client, upstream = await running_exchange(stage)
    draining = drain(running)
    await turns()
    upstream.send(response(body=b"finished"))
    message = await client.message()
    assert (message.body, message.get("connection")) == (b"finished", "close")
    assert await client.rest() == b""
    await soon(draining)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_response_that_had_begun_finishes_and_its_connection_is_closed(stage: Stage, framing: str) -> None:
    """Its head went out before, without a word of closing; the drain must still not wait for the idle time."""
    running, client, upstream = await running_exchange(stage)
    upstream.send(response("200 OK", "Content-Length: 4" if framing == "length" else CHUNKED))
    await client.head()
    draining = drain(running)
    await turns()
    upstream.send(b"done" if framing == "length" else b"4\r\ndone\r\n0\r\n\r\n")
    assert b"done" in await client.rest()
    await soon(draining)


async def test_a_request_that_is_half_there_is_still_served(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    client = await running.client()
    data = request()
    client.send(data[:10])
    await eventually(lambda: running.half_heads, "the first half is there")
    draining = drain(running)
    await turns()
    client.send(data[10:])
    message = await client.message()
    assert (message.body, message.get("connection")) == (b"hello", "close")
    assert await client.rest() == b""
    await soon(draining)


async def test_pipelined_requests_behind_the_running_one_are_left_to_another_proxy(stage: Stage) -> None:
    running, client, upstream = await running_exchange(stage)
    client.send(request("GET /next HTTP/1.1"))
    await turns()
    draining = drain(running)
    await turns()
    upstream.send(response(body=b"finished"))
    message = await client.message()
    assert (message.body, message.get("connection")) == (b"finished", "close")
    assert await client.rest() == b""
    await soon(draining)


async def test_a_probe_hears_that_the_proxy_goes(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    client = await running.client()
    data = request("GET / HTTP/1.1", "User-Agent: kube-probe/1.33")
    client.send(data[:10])
    await eventually(lambda: running.half_heads, "the first half is there")
    draining = drain(running)
    await turns()
    client.send(data[10:])
    message = await client.message()
    assert (message.status, message.get("connection")) == (503, "close")
    assert message.body == b"not ready: draining, 1 of 1 backends usable\n"
    assert await client.rest() == b""
    await soon(draining)


async def test_tunnels_are_closed_evenly_over_the_time(stage: Stage) -> None:
    """So that not every browser reconnects in the same moment."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    ends = [await open_tunnel(running, backend) for _ in range(4)]
    loop = asyncio.get_running_loop()
    start = loop.time()
    closed: list[float] = []

    async def watch(client: Peer, upstream: Peer) -> None:
        assert await client.rest() == b""
        closed.append(loop.time() - start)
        client.close()
        upstream.close()

    watching = asyncio.gather(*(watch(*end) for end in ends))
    await soon(drain(running, 1.0))
    await soon(watching)
    closed.sort()
    for index, at in enumerate(closed):
        assert index * 0.25 - 0.02 <= at
    assert closed[0] < 0.9, "not only at the end of the time, when all that is left is dropped"
    await running.quiet()


async def test_what_was_sent_through_a_tunnel_arrives_before_its_end(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend)
    upstream.send(bytes(1 << 20))
    assert await client.exactly(1) == b"\0"
    await eventually(lambda: upstream.writer.transport.get_write_buffer_size() == 0, "all is sent")
    await turns()
    draining = drain(running)
    assert len(await client.rest()) > 0
    client.close()
    upstream.close()
    await soon(draining)


async def test_what_a_client_sends_before_it_hears_of_the_end_arrives(stage: Stage) -> None:
    """A click that is on its way while the proxy closes: NiceGUI sends none again."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend)
    draining = drain(running, 5.0)
    assert await client.rest() == b""
    upstream.send(b"\x81\x01x")  # nobody is there to take it
    client.send(b"a click that was on its way")
    assert await upstream.exactly(27) == b"a click that was on its way"
    client.close()
    assert await upstream.rest() == b""
    upstream.close()
    await soon(draining)
    await running.quiet()


async def test_a_client_that_does_not_react_to_the_end_is_let_go(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend)
    draining = drain(running)
    assert await client.rest() == b""
    assert await upstream.rest() == b""
    await soon(draining)
    client.close()
    upstream.close()
    await running.quiet()


async def test_what_does_not_end_is_dropped_at_the_time_out(stage: Stage) -> None:
    running, client, upstream = await running_exchange(stage)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await soon(drain(running, 0.3))
    assert 0.25 < loop.time() - start < 5
    assert not await client.gone() or client.reader.at_eof()
    await upstream.gone()
    assert not running.downstreams


async def test_a_tunnel_that_does_not_close_is_dropped_at_the_time_out(stage: Stage) -> None:
    from .test_streaming import MB, SMALL, Pump

    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_tunnel(running, backend, receive_buffer=SMALL)
    pump = Pump(upstream, 64 * MB)
    await turns(1000)
    await soon(drain(running, 0.3))
    assert not running.proxy.tunnels
    await pump.stop()
    client.close()


async def test_a_held_request_ends_with_the_drain(stage: Stage) -> None:
    backend = await stage.backend(hello)
    await backend.stop_listening()
    running = await stage.proxy(backend.at(Phase.PAUSED))
    client = await running.client()
    client.send(request())
    await eventually(lambda: running.proxy.counters.dials, "it is dialled")
    await soon(drain(running, 0.2))
    await client.gone()


async def test_a_tunnel_that_opens_during_the_drain_is_closed_with_it(stage: Stage) -> None:
    from .test_tunnel import ASK, SWITCH

    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    draining = drain(running, 0.5)
    await turns()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    assert await client.gone() is not None
    client.close()
    upstream.close()
    await soon(draining)
    await running.quiet()


async def test_pooled_connections_are_closed(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    await running.ask(request())
    await soon(drain(running))
    await eventually(lambda: backend.peers[0].reader.at_eof(), "the backend sees the end")


async def test_closing_twice_does_no_harm(stage: Stage) -> None:
    running, _, _ = await running_exchange(stage)
    await soon(running.proxy.close())
    await soon(running.proxy.close())
    await soon(drain(running))


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.READY])
async def test_what_a_backend_that_goes_has_not_accepted_any_more_goes_to_another(stage: Stage, phase: Phase) -> None:
    """Its server has stopped listening: the kernel resets what waited to be accepted, and refuses what comes next.

    From a backend that is to stay, such an end may be the request's own doing, so nobody else gets it.
    """
    going, other = await stage.backend(), await stage.backend(hello)
    running = await stage.proxy(going.at(phase), other)
    client = await running.client()
    client.send(request("GET / HTTP/1.1", running.cookie(going)))
    upstream = await going.accepted()
    await going.stop_listening()
    upstream.reset()
    message = await client.message()
    if phase is Phase.DRAINING:
        assert (message.status, message.body) == (200, b"hello")
    else:
        assert (message.status, message.reason) == (502, "closed-early")
