"""Nobody can hold a connection by doing nothing, and nobody who does something is cut off.

Time is the subject of this module: where a test lets time pass, it is the time it speaks of.
"""

import asyncio

import pytest

from stickyproxy.core.settings import Settings, TimeSettings

from .harness import CHUNKED, Clock, Peer, Stage, eventually, hello, request, response, soon
from .test_streaming import MB, SMALL, Pump

pytestmark = pytest.mark.both_loops


def times(**seconds: float) -> Settings:
    return Settings(times=TimeSettings(sweep_s=0.02, **seconds))


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r"])
async def test_a_head_that_does_not_end_is_a_408(stage: Stage, start: bytes) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=times(head_s=0.1))
    client = await running.client()
    client.send(start)
    message = await client.message()
    assert (message.status, message.reason, message.get("connection")) == (408, "head-timeout", "close")
    client.half_close()
    assert await client.rest() == b""
    assert backend.connections == 0


async def test_a_head_that_drips_gets_no_more_time(stage: Stage) -> None:
    running = await stage.proxy(settings=times(head_s=0.2))
    client = await running.client()
    client.send(b"GET / HTTP/1.1\r\nX-Drip: ")

    async def drip() -> None:
        while True:
            client.send(b"a")
            await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drip())
    message = await client.message()
    dripping.cancel()
    assert (message.status, message.reason) == (408, "head-timeout")


async def test_a_slow_second_request_is_a_408_too(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=times(head_s=0.1))
    client = await running.client()
    client.send(request() + b"GET /second")
    assert (await client.message()).status == 200
    assert (await client.message()).reason == "head-timeout"


@pytest.mark.parametrize("asked_before", [False, True])
async def test_a_silent_connection_is_closed_without_a_word(stage: Stage, asked_before: bool) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=times(idle_s=60.0))
    clock = Clock(running)
    client = await running.client()
    await running.downstream()
    if asked_before:
        client.send(request())
        await client.message()
    clock.moves(61.0)
    assert await client.rest() == b""
    await running.quiet()
    assert not +running.proxy.counters.faults


async def test_a_connection_that_is_used_is_not_idle(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=times(idle_s=60.0))
    clock = Clock(running)
    client = await running.client()
    for _ in range(6):
        client.send(request())
        assert (await client.message()).status == 200
        await clock.passes(59.0)
    await clock.passes(2.0)
    assert await client.rest() == b"", "and when it is not used it is"


@pytest.mark.parametrize("kind", ["Content-Length: 10", CHUNKED])
async def test_a_body_that_stops_is_a_408(stage: Stage, kind: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=times(body_s=60.0))
    clock = Clock(running)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", kind) + b"5\r\n")
    upstream = await backend.accepted()
    await upstream.head()
    clock.moves(61.0)
    message = await client.message()
    assert (message.status, message.reason, message.get("connection")) == (408, "body-timeout", "close")
    await upstream.gone()
    client.half_close()
    assert await client.rest() == b""


async def test_a_body_that_comes_slowly_is_not_cut_off(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=times(body_s=60.0))
    clock = Clock(running)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", "Content-Length: 80000"))
    upstream = await backend.accepted()
    await upstream.head()
    for _ in range(8):
        client.send(bytes(10_000))
        await upstream.exactly(10_000)
        await clock.passes(59.0)
    upstream.send(response())
    assert (await client.message()).status == 200


async def test_an_answer_may_take_longer_than_a_body(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=times(body_s=10.0, head_s=10.0, idle_s=10.0, response_s=60.0))
    clock = Clock(running)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", body=b"x"))
    upstream = await backend.accepted()
    await upstream.head()
    await clock.passes(59.0)
    upstream.send(response(body=b"at last"))
    assert (await client.message()).body == b"at last"


async def stalled(stage: Stage, settings: Settings, *, line: str = "X: 1") -> tuple[Peer, Pump, Peer]:
    """Give a client that takes nothing of a big answer, with the backend's end."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=settings)
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request("GET / HTTP/1.1", line))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", f"Content-Length: {64 * MB}"))
    return client, Pump(upstream, 64 * MB), upstream


async def test_a_client_that_takes_nothing_is_dropped_with_its_backend_connection(stage: Stage) -> None:
    _, pump, upstream = await stalled(stage, times(body_s=0.2))
    await upstream.gone()
    await pump.stop()
    await stage.proxies[0].quiet()


async def test_a_client_that_reads_slowly_is_not_dropped(stage: Stage) -> None:
    """64 KiB every 30 ms are some 2 MB/s: no half second goes by without bytes taken."""
    client, pump, _ = await stalled(stage, times(body_s=0.5))
    await client.head()
    got = 0
    for _ in range(100):
        got += len(await client.exactly(65536))
        await asyncio.sleep(0.03)
    assert got == 100 * 65536
    await pump.stop()


@pytest.mark.parametrize("line", ["Connection: close", "Connection: keep-alive"])
async def test_a_client_that_does_not_take_its_last_answer_is_dropped(stage: Stage, line: str) -> None:
    backend = await stage.backend(lambda _: response(body=bytes(200_000)))
    running = await stage.proxy(backend, settings=times(body_s=0.2, idle_s=0.2))
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request() * 200 + request("GET / HTTP/1.1", line))
    await running.quiet()
    client.reset()


async def test_a_client_that_takes_nothing_is_dropped_though_its_upload_ended_meanwhile(stage: Stage) -> None:
    """The end of the request's body must not lift the deadline of the response's."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=times(body_s=0.5))
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request("POST / HTTP/1.1", "Content-Length: 10") + b"12345")
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", f"Content-Length: {64 * MB}"))
    pump = Pump(upstream, 64 * MB)
    await running.stalls()
    client.send(b"67890")
    assert (await upstream.exactly(10)) == b"1234567890"
    await running.quiet()
    await upstream.gone()
    await pump.stop()


# Lingering: who still sends must be able to read why nobody listens.


async def test_a_client_in_the_middle_of_a_big_body_can_read_a_refusal_by_the_backend(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {64 * MB}"))
    pump = Pump(client, 64 * MB)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("413 Content Too Large", "Connection: close", body=b"too big"))
    await upstream.flush()
    upstream.half_close()
    await soon(pump.task)  # as most clients do: the whole body first
    message = await client.message()
    assert (message.status, message.body) == (413, b"too big")
    client.half_close()
    assert await client.rest() == b""


@pytest.mark.parametrize("why", ["no-backend", "bad-length"])
async def test_a_client_in_the_middle_of_a_big_body_can_read_a_refusal_by_the_proxy(stage: Stage, why: str) -> None:
    running = await stage.proxy()
    client = await running.client()
    length = f"Content-Length: {'x' if why == 'bad-length' else 64 * MB}"
    client.send(request("POST / HTTP/1.1", length))
    pump = Pump(client, 32 * MB)
    await soon(pump.task)
    message = await client.message()
    assert message.status == (503 if why == "no-backend" else 400)
    client.half_close()
    assert await client.rest() == b""


async def test_lingering_has_an_end(stage: Stage) -> None:
    running = await stage.proxy(settings=times(linger_s=0.2))
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {1 << 40}"))
    assert (await client.message()).status == 503
    pump = Pump(client, 1 << 40)
    await running.quiet()
    await pump.stop()


async def test_a_held_request_is_bound_by_the_hold_alone(stage: Stage) -> None:
    from stickyproxy.core.backends import Phase
    from stickyproxy.core.settings import AffinitySettings

    backend = await stage.backend(hello)
    await backend.stop_listening()
    short = TimeSettings(sweep_s=0.02, head_s=10.0, body_s=10.0, idle_s=10.0, response_s=10.0)
    running = await stage.proxy(
        backend.at(Phase.PAUSED), settings=Settings(times=short, affinity=AffinitySettings(hold_s=60.0))
    )
    clock = Clock(running)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", body=b"patient"))
    await eventually(lambda: running.proxy.counters.dials, "it is tried")
    await clock.passes(40.0)
    await backend.start()
    running.apply(backend.at())
    assert (await client.message()).status == 200
    assert backend.requests[0].body == b"patient"
