"""A backend that fails gets no new sessions for a while, keeps its own, and is found by traffic alone."""

import asyncio
import socket

import pytest

from stickyproxy.core.affinity import parse_hash_key
from stickyproxy.core.backends import Backend
from stickyproxy.core.ejection import Record
from stickyproxy.core.settings import AffinitySettings, FailureSettings, Settings, TimeSettings
from stickyproxy.core.values import Address

from .harness import QUICK, RawBackend, Running, Stage, eventually, named, request, response
from .test_tunnel import ASK, SWITCH

LONG = FailureSettings(eject_s=600, eject_longest_s=10_000)
"""Ejected is ejected until a test says that the time is over."""

NAVIGATE = "Sec-Fetch-Mode: navigate"

Deaf = tuple[Address, list[socket.socket]]


def settings(*, times: TimeSettings = QUICK, failures: FailureSettings = LONG, hold_s: float = 3.0) -> Settings:
    return Settings(times=times, failures=failures, affinity=AffinitySettings(hold_s=hold_s, slow_start_s=0))


async def trio(stage: Stage, used: Settings | None = None) -> tuple[Running, list[RawBackend]]:
    backends = [await stage.backend(named(f"b{n}")) for n in range(3)]
    return await stage.proxy(*backends, settings=used or settings()), backends


async def news(running: Running, count: int) -> list[bytes]:
    """Give who answers so many new sessions, one after another."""
    messages = [await running.ask(request()) for _ in range(count)]
    assert {m.status for m in messages} == {200}, "nobody sees an error"
    return [m.body for m in messages]


def record(running: Running, backend: RawBackend | Backend) -> Record:
    identity = (backend.at() if isinstance(backend, RawBackend) else backend).identity
    return running.proxy.failures.ejections.records[identity]


def pass_time(running: Running, backend: RawBackend | Backend) -> None:
    """Behave as if a backend's time out were over."""
    record(running, backend).until = running.proxy.time()


async def eject(running: Running, backend: RawBackend) -> None:
    """Let a backend refuse until it is ejected."""
    before = running.proxy.counters.ejections
    await backend.stop_listening()
    for pool in running.proxy.pools.values():
        pool.close_idle(float("inf"))
    for _ in range(100):
        await news(running, 1)
        if running.proxy.counters.ejections > before:
            return
    raise AssertionError("never ejected")


async def test_a_refusing_backend_gets_no_new_sessions_after_three_failures(stage: Stage) -> None:
    running, backends = await trio(stage)
    await backends[0].stop_listening()
    assert set(await news(running, 40)) == {b"b1", b"b2"}
    counters = running.proxy.counters
    assert +counters.failures == {"refused": 3}, "it was tried three times and never again"
    assert (counters.ejections, counters.returns) == (1, 0)


async def test_an_ejected_backend_keeps_its_pins_when_it_listens_again(stage: Stage) -> None:
    running, backends = await trio(stage)
    await eject(running, backends[0])
    await backends[0].start()
    for _ in range(3):
        kept = await running.ask(request("GET / HTTP/1.1", running.cookie(backends[0]), NAVIGATE))
        assert (kept.body, kept.token) == (b"b0", None)
    assert b"b0" not in await news(running, 9), "new sessions wait for its time to be over"


async def test_when_its_time_is_over_one_session_tries_it_and_brings_it_back(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    running, backends = await trio(stage)
    with caplog.at_level("INFO", "stickyproxy"):
        await eject(running, backends[0])
        await backends[0].start()
        pass_time(running, backends[0])
        assert set(await news(running, 12)) == {b"b0", b"b1", b"b2"}
    assert (running.proxy.counters.ejections, running.proxy.counters.returns) == (1, 1)
    load = running.proxy.balancer.loads[backends[0].at().identity]
    assert load.warming > load.since, "it begins slowly, like a new one"
    said = [r.getMessage() for r in caplog.records if "new sessions" in r.getMessage()]
    assert len(said) == 2
    assert "3 failures in a row (connection refused)" in said[0]
    assert f"does the app listen on {backends[0].address}" in said[0]
    assert "gets new sessions again" in said[1]


async def test_only_one_session_tries_a_returning_backend(stage: Stage) -> None:
    backends = [await stage.backend(named("b0")), await stage.backend(), await stage.backend(named("b2"))]
    running = await stage.proxy(*backends, settings=settings())
    silent = backends[1]
    await eject(running, silent)
    await silent.start()
    pass_time(running, silent)
    clients = [await running.client() for _ in range(12)]
    for client in clients:
        client.send(request())
    trial = await silent.accepted()
    await trial.head()
    await eventually(lambda: len(backends[0].requests) + len(backends[2].requests) >= 11, "all others go elsewhere")
    assert silent.connections == 1
    trial.send(response(body=b"b1"))
    assert sorted([(await client.message()).body for client in clients]).count(b"b1") == 1


async def test_a_backend_that_flaps_is_out_for_longer_each_time(stage: Stage) -> None:
    running, backends = await trio(stage)
    times = []
    for _ in range(3):
        await eject(running, backends[0])
        times.append(record(running, backends[0]).until - running.proxy.time())
        await backends[0].start()
        pass_time(running, backends[0])
        back = running.proxy.counters.returns
        assert b"b0" in await news(running, 12)
        assert running.proxy.counters.returns == back + 1
    assert times[0] < 601
    assert times[1] > 1.4 * times[0]
    assert times[2] > 1.4 * times[1]


async def test_a_trial_that_fails_is_served_by_another(stage: Stage) -> None:
    running, backends = await trio(stage)
    await eject(running, backends[0])
    pass_time(running, backends[0])
    assert set(await news(running, 12)) == {b"b1", b"b2"}
    assert running.proxy.counters.ejections == 2
    assert +running.proxy.counters.failures == {"refused": 4}


async def test_a_hanging_backend_gets_no_new_sessions_after_three_failures(stage: Stage, deaf: Deaf) -> None:
    alive = await stage.backend(named("alive"))
    times = TimeSettings(connect_s=0.1, sweep_s=0.05)
    running = await stage.proxy(Backend.at(deaf[0]), alive, settings=settings(times=times))
    assert set(await news(running, 20)) == {b"alive"}
    assert +running.proxy.counters.failures == {"timeout": 3}


async def slam(backend: RawBackend) -> None:
    """Take requests and close instead of answering."""
    while True:
        peer = await backend._queue.get()
        await peer.head()
        peer.close()


async def test_a_backend_that_closes_instead_of_answering_gets_no_new_sessions(stage: Stage) -> None:
    rude, alive = await stage.backend(), await stage.backend(named("alive"))
    running = await stage.proxy(rude, alive, settings=settings())
    slamming = asyncio.ensure_future(slam(rude))
    messages = [await running.ask(request()) for _ in range(20)]
    slamming.cancel()
    await asyncio.gather(slamming, return_exceptions=True)
    assert [m.reason for m in messages if m.status != 200] == ["closed-early"] * 3
    assert +running.proxy.counters.failures == {"closed": 3}
    assert rude.connections == 3, "what may have been processed is not sent again"


async def test_a_backend_that_does_not_begin_to_answer_gets_no_new_sessions(stage: Stage) -> None:
    silent, alive = await stage.backend(), await stage.backend(named("alive"))
    times = TimeSettings(response_s=0.1, sweep_s=0.05)
    running = await stage.proxy(silent, alive, settings=settings(times=times))
    messages = [await running.ask(request()) for _ in range(20)]
    assert [m.reason for m in messages if m.status != 200] == ["response-timeout"] * 3
    assert +running.proxy.counters.failures == {"silent": 3}


async def test_an_answer_that_has_begun_is_no_failure(stage: Stage) -> None:
    backend, alive = await stage.backend(), await stage.backend(named("alive"))
    running = await stage.proxy(backend, alive, settings=settings())
    for _ in range(4):
        client = await running.client()
        client.send(request("GET / HTTP/1.1", running.cookie(backend)))
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(b"HTTP/1.1 200")
        await upstream.flush()
        upstream.close()
        assert (await client.message()).reason == "closed-early"
    assert +running.proxy.counters.failures == {}


async def test_an_answer_of_any_status_is_none_either(stage: Stage) -> None:
    broken = await stage.backend(lambda _: response("500 Internal Server Error"))
    running = await stage.proxy(broken, await stage.backend(named("alive")), settings=settings())
    for _ in range(12):
        await running.ask(request())
    assert +running.proxy.counters.failures == {}


async def test_two_failures_and_a_response_leave_nothing_behind(stage: Stage) -> None:
    running, backends = await trio(stage)
    for _ in range(4):
        await backends[0].stop_listening()
        for pool in running.proxy.pools.values():
            pool.close_idle(float("inf"))
        for _ in range(2):
            await running.ask(request("GET / HTTP/1.1", running.cookie(backends[0])))
        await backends[0].start()
        back = await running.ask(request("GET / HTTP/1.1", running.cookie(backends[0])))
        assert back.body == b"b0"
    assert +running.proxy.counters.failures == {"refused": 8}
    assert running.proxy.counters.ejections == 0
    assert running.proxy.failures.ejections.records == {}


async def test_a_socket_that_opens_is_an_answer_too(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=settings())
    await backend.stop_listening()
    assert (await running.ask(request())).status == 502
    await backend.start()
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    assert running.proxy.failures.ejections.records == {}


async def test_when_all_fail_the_answer_says_so_and_the_first_that_is_back_serves_at_once(stage: Stage) -> None:
    running, backends = await trio(stage)
    for backend in backends:
        await backend.stop_listening()
    for _ in range(10):
        message = await running.ask(request())
        assert (message.status, message.reason) == (502, "connect-refused")
    assert running.proxy.counters.ejections == 2
    for backend in backends:
        await backend.start()
        assert (await running.ask(request())).status == 200
        await backend.stop_listening()
        for pool in running.proxy.pools.values():
            pool.close_idle(float("inf"))


async def test_a_backend_with_another_identity_begins_healthy(stage: Stage) -> None:
    running, backends = await trio(stage)
    await eject(running, backends[0])
    await backends[0].start()
    again = Backend("another pod", backends[0].address)
    running.apply(again, backends[1].at(), backends[2].at())
    assert b"b0" in await news(running, 9)


async def test_a_hashed_key_goes_where_it_leads_and_the_log_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    affinity = AffinitySettings(hash_key=parse_hash_key("header:X-User"))
    running, backends = await trio(stage, Settings(times=QUICK, failures=LONG, affinity=affinity))
    users = {(await running.ask(request("GET / HTTP/1.1", f"X-User: u{n}"))).body: n for n in range(30)}
    await eject(running, backends[0])
    await backends[0].start()
    assert (await running.ask(request("GET / HTTP/1.1", f"X-User: u{users[b'b0']}"))).body == b"b0"
    assert "gets no new sessions without a hash key for" in caplog.text


async def test_a_backend_whose_name_cannot_be_one_fails_too(stage: Stage) -> None:
    nowhere = Backend.at(Address("a" * 64, 80))
    running = await stage.proxy(nowhere, await stage.backend(named("alive")), settings=settings())
    assert set(await news(running, 12)) == {b"alive"}
    assert +running.proxy.counters.failures == {"unreachable": 3}


async def test_zero_never_ejects(stage: Stage) -> None:
    running, backends = await trio(stage, settings(failures=FailureSettings(eject_after=0)))
    await backends[0].stop_listening()
    await news(running, 40)
    assert running.proxy.counters.ejections == 0
    assert running.proxy.counters.failures["refused"] > 10


async def test_backends_that_do_not_fail_cost_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running, _ = await trio(stage)
    failures = running.proxy.failures
    for name in ("failed", "answered"):
        monkeypatch.setattr(failures, name, lambda *_: pytest.fail("nothing has failed"))
    client = await running.client()
    client.send(request())
    cookie = f"Cookie: stickyproxy={(await client.message()).token}"
    for _ in range(50):
        client.send(request("GET / HTTP/1.1", cookie))
        assert (await client.message()).status == 200
    assert (running.proxy.counters.dials, running.idle) == (1, 1)
    assert failures.ejections.records == {}


# --hold for a backend whose connection attempt hangs.

FOREVER = TimeSettings(connect_s=600, sweep_s=0.05)


async def half_deaf(stage: Stage, deaf: Deaf, used: Settings) -> tuple[Running, RawBackend, str]:
    alive, hanging = await stage.backend(named("alive")), Backend.at(deaf[0])
    running = await stage.proxy(hanging, alive, settings=used)
    return running, alive, f"Cookie: stickyproxy={running.proxy.snapshot.token_of(hanging).decode()}"


async def test_a_navigation_to_a_hanging_backend_moves_after_the_hold(stage: Stage, deaf: Deaf) -> None:
    running, _, cookie = await half_deaf(stage, deaf, settings(times=FOREVER, hold_s=0.2))
    before = running.proxy.time()
    message = await running.ask(request("GET / HTTP/1.1", cookie, NAVIGATE))
    assert running.proxy.time() - before >= 0.19
    assert message.body == b"alive"
    assert message.token is not None
    assert running.counters == {"new": 0, "kept": 0, "timeout": 1}


async def test_a_socket_to_a_hanging_backend_moves_after_the_hold(stage: Stage, deaf: Deaf) -> None:
    running, alive, cookie = await half_deaf(stage, deaf, settings(times=FOREVER, hold_s=0.2))
    message = await running.ask(request("GET /s HTTP/1.1", cookie, "Connection: Upgrade", "Upgrade: websocket"))
    assert message.body == b"alive"
    assert alive.requests[0].get("upgrade") == "websocket"


@pytest.mark.parametrize(
    ("hold_s", "fields"), [(0.05, ()), (0.0, (NAVIGATE,)), (600.0, (NAVIGATE,))], ids=["asset", "no-hold", "long-hold"]
)
async def test_everything_else_waits_for_the_connect_timeout(
    stage: Stage, deaf: Deaf, hold_s: float, fields: tuple[str, ...]
) -> None:
    times = TimeSettings(connect_s=0.4, sweep_s=0.05)
    running, _, cookie = await half_deaf(stage, deaf, settings(times=times, hold_s=hold_s))
    before = running.proxy.time()
    message = await running.ask(request("GET / HTTP/1.1", cookie, *fields))
    assert running.proxy.time() - before >= 0.39
    assert message.body == b"alive"


async def test_with_nowhere_to_move_to_a_navigation_waits_for_the_connect_timeout(stage: Stage, deaf: Deaf) -> None:
    times = TimeSettings(connect_s=0.4, sweep_s=0.05)
    running = await stage.proxy(Backend.at(deaf[0]), settings=settings(times=times, hold_s=0.05))
    before = running.proxy.time()
    message = await running.ask(request("GET / HTTP/1.1", NAVIGATE))
    assert running.proxy.time() - before >= 0.39
    assert message.reason == "connect-timeout"


async def test_a_navigation_to_a_refusing_backend_moves_at_once(stage: Stage) -> None:
    running, backends = await trio(stage, settings(times=FOREVER, hold_s=600))
    await backends[0].stop_listening()
    message = await running.ask(request("GET / HTTP/1.1", running.cookie(backends[0]), NAVIGATE))
    assert message.body in (b"b1", b"b2")


# Retries.


async def dying_pool(
    stage: Stage, count: int, failures: FailureSettings
) -> tuple[Running, list[str | None], RawBackend]:
    """Let so many requests go by pooled connections that die under them; give the reasons of their answers."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=settings(failures=failures))
    clients = [await running.client() for _ in range(count)]
    for client in clients:
        client.send(request())
    upstreams = [await backend.accepted() for _ in clients]
    for upstream in upstreams:
        await upstream.head()
        upstream.send(response())
    for client in clients:
        await client.message()
    for client in clients:
        client.send(request())
    for upstream in upstreams:
        await upstream.head()
    for upstream in upstreams:
        upstream.close()
    await eventually(
        lambda: running.proxy.counters.retries + running.proxy.counters.retries_denied == count, "all are decided"
    )
    for _ in range(running.proxy.counters.retries):
        fresh = await backend.accepted()
        await fresh.head()
        fresh.send(response())
    return running, [(await client.message()).reason for client in clients], backend


async def test_within_the_budget_every_dying_connection_is_made_up_for(stage: Stage) -> None:
    running, reasons, backend = await dying_pool(stage, 5, FailureSettings(retry_share=0.0, retry_floor=5))
    assert reasons == [None] * 5
    assert (running.proxy.counters.retries, running.proxy.counters.retries_denied) == (5, 0)
    assert backend.connections == 10


async def test_beyond_the_budget_the_answer_is_honest_and_the_app_is_left_alone(stage: Stage) -> None:
    running, reasons, backend = await dying_pool(stage, 5, FailureSettings(retry_share=0.0, retry_floor=2))
    assert sorted(map(str, reasons)) == ["None", "None", "closed-early", "closed-early", "closed-early"]
    assert (running.proxy.counters.retries, running.proxy.counters.retries_denied) == (2, 3)
    assert backend.connections == 7


async def test_the_sweep_makes_room_for_a_share_of_the_requests(stage: Stage) -> None:
    backend = await stage.backend(named("b"))
    running = await stage.proxy(backend, settings=settings(failures=FailureSettings(retry_share=0.5, retry_floor=0)))
    failures = running.proxy.failures
    failures.sweep(running.proxy.time())
    assert not failures.may_retry()
    for _ in range(4):
        await running.ask(request())
    failures.sweep(running.proxy.time())
    assert [failures.may_retry() for _ in range(3)] == [True, True, False]
