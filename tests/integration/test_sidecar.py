"""Beside the app in its pod: new sessions stay, pinned ones pass, and the app is looked at without being touched."""

import asyncio
import logging
import socket
from dataclasses import replace

import pytest

from stickyproxy.core.backends import Backend, Phase, Secrets
from stickyproxy.core.settings import Settings, SidecarSettings, TimeSettings
from stickyproxy.core.sidecar import AppLife, judge_signs
from stickyproxy.core.values import Address
from stickyproxy.dataplane import sidecar as module

from .command import Command, command, reserved
from .harness import QUICK, Message, Peer, RawBackend, Running, Stage, eventually, hello, named, request, response, soon
from .test_command import refused
from .test_tunnel import ASK, SWITCH

STUCK_AFTER_S = 0.2


def pinned(backend: RawBackend) -> str:
    return f"Cookie: stickyproxy={Secrets().tokens(str(backend.address))[0].decode()}"


def beside(local: RawBackend, *others: RawBackend) -> list[str]:
    """Give the arguments of a sidecar of `local`."""
    listed = [part for b in (local, *others) for part in ("--backend", str(b.address))]
    return [*listed, "--local-backend", str(local.address)]


async def becomes(running: Command, target: str, status: int) -> Message:
    """Ask the admin port until its answer has a status; give it."""
    async with asyncio.timeout(20):
        while True:
            answer = await running.look(target)
            if answer.status == status:
                return answer


async def sidecar(
    stage: Stage,
    local: RawBackend,
    *others: RawBackend,
    times: TimeSettings = QUICK,
    stuck_after_s: float = STUCK_AFTER_S,
) -> Running:
    settings = Settings(times=times, sidecar=SidecarSettings(local.address, stuck_after_s))
    return await stage.proxy(local, *others, settings=settings)


def life(running: Running) -> AppLife:
    sidecar = running.proxy.sidecar
    assert sidecar is not None
    return judge_signs(sidecar._local, [sidecar.signs()], sidecar._stuck_after_s)


# Where sessions go.


async def test_new_sessions_go_to_the_local_app_and_pinned_ones_to_their_own(stage: Stage) -> None:
    one, two, three = [await stage.backend(named(name)) for name in ("one", "two", "three")]
    async with command(*beside(two, one, three)) as running:
        answers = [await running.ask(request()) for _ in range(10)]
        assert {a.body for a in answers} == {b"two"}
        assert {a.token for a in answers} == {Secrets().tokens(str(two.address))[0].decode()}
        for backend, name in ((one, b"one"), (two, b"two"), (three, b"three")):
            answer = await running.ask(request("GET / HTTP/1.1", pinned(backend)))
            assert (answer.body, answer.token) == (name, None)
        ready = (await running.look("/readyz")).body.decode()
        assert f"\napp {two.address}: listens; it is backend {two.address}\n" in ready


async def test_a_cookie_of_one_sidecar_means_the_same_in_the_other(stage: Stage) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    async with command(*beside(one, two)) as first, command(*beside(two, one)) as second:
        for running, other, name in ((first, second, b"one"), (second, first, b"two")):
            answer = await running.ask(request())
            assert answer.body == name
            for asked in (other, running):
                again = await asked.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={answer.token}"))
                assert (again.body, again.token) == (name, None)


async def test_the_local_address_stands_for_the_listed_one_and_the_token_does_not_change(stage: Stage) -> None:
    """Listed at one address of this machine, reached at another, as pod address and loopback are."""
    local, other = await stage.backend(named("local")), await stage.backend(named("other"))
    listed = f"127.0.0.2:{local.address.port}"  # nobody listens there
    arguments = ["--backend", listed, "--backend", str(other.address), "--local-backend", str(local.address)]
    async with command(*arguments) as running:
        answer = await running.ask(request())
        assert (answer.body, answer.token) == (b"local", Secrets().tokens(listed)[0].decode())
        again = await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={answer.token}"))
        assert (again.body, again.token) == (b"local", None)


async def test_sessions_move_when_the_local_app_refuses_and_readiness_says_why(stage: Stage) -> None:
    local, other = await stage.backend(named("local")), await stage.backend(named("other"))
    async with command(*beside(local, other)) as running:
        assert (await running.ask(request("GET / HTTP/1.1", "Connection: close"))).body == b"local"
        await becomes(running, "/readyz", 200)
        await local.stop_listening()
        for peer in local.peers:
            peer.drop()
        moved = await running.ask(request("POST / HTTP/1.1", pinned(local), body=b"x"))
        assert (moved.body, moved.token) == (b"other", Secrets().tokens(str(other.address))[0].decode())
        assert (await running.ask(request())).body == b"other"
        port = local.address.port
        unready = await becomes(running, "/readyz", 503)
        assert unready.body.startswith(b"not ready: the app does not listen on port %d any more\n" % port)
        assert f"\napp {local.address}: does not listen any more; ".encode() in unready.body
        await local.start()
        await becomes(running, "/readyz", 200)
        assert (await running.ask(request())).body == b"local"


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.DRAINING])
async def test_a_local_app_that_is_not_ready_keeps_what_it_has_and_gets_nothing_new(stage: Stage, phase: Phase) -> None:
    local, other = await stage.backend(named("local")), await stage.backend(named("other"))
    running = await sidecar(stage, local, other)
    assert (await running.ask(request())).body == b"local"
    running.apply(local.at(phase), other.at())
    assert (await running.ask(request())).body == b"other"
    assert (await running.ask(request("GET / HTTP/1.1", running.cookie(local)))).body == b"local"
    running.apply(local.at(), other.at())
    assert (await running.ask(request())).body == b"local"


async def test_where_no_backend_is_of_this_machine_sessions_are_balanced_and_that_is_said(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    local, one, two = [await stage.backend(named(name)) for name in ("local", "one", "two")]
    settings = Settings(times=QUICK, sidecar=SidecarSettings(local.address))
    running = await stage.proxy(one, two, settings=settings)
    running.apply(one.at(), two.at())
    assert {(await running.ask(request())).body for _ in range(4)} == {b"one", b"two"}
    (said,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert said.startswith("expected a listed backend with an address of this machine")
    assert life(running).alive


async def test_a_local_address_of_another_machine_is_refused() -> None:
    line = await refused("run", "--backend", "127.0.0.1:1", "--local-backend", "192.0.2.1:8000")
    assert "--local-backend: expected an address of this machine, such as 127.0.0.1:8000, found 192.0.2.1:8000" in line


async def test_the_local_app_is_drained_by_the_address_that_discovery_lists(stage: Stage) -> None:
    """A preStop hook knows its pod's address, not at which its sidecar reaches it."""
    local, other = await stage.backend(named("local")), await stage.backend(named("other"))
    listed = f"127.0.0.2:{local.address.port}"
    arguments = ["--backend", listed, "--backend", str(other.address), "--local-backend", str(local.address)]
    async with command(*arguments) as running:
        assert (await running.ask(request())).body == b"local"
        assert (await running.look("/drain?backend=127.0.0.2&wait=0")).status != 404
        assert (await running.ask(request())).body == b"other"
        assert (await running.look("/undrain?backend=127.0.0.2")).status == 200
        assert (await running.ask(request())).body == b"local"


# Whether the app listens.


async def test_it_is_ready_when_the_app_begins_to_listen_and_never_touches_its_socket(stage: Stage) -> None:
    local = RawBackend(hello)
    stage.backends.append(local)
    with reserved() as address:
        local.address = address
        async with command(*beside(local)) as running:
            unready = await running.look("/readyz")
            assert unready.status == 503
            assert unready.body.startswith(b"not ready: the app does not listen on port %d yet\n" % address.port)
            assert f"\napp {address}: does not listen yet; it is backend {address}\n".encode() in unready.body
            probe = await running.ask(request("GET / HTTP/1.1", "User-Agent: kube-probe/1.33"))
            assert (probe.status, b"127.0.0.1" in probe.body) == (503, False)
            not_alive = await running.look("/app/livez")
            assert (not_alive.status, not_alive.body) == (
                503,
                f"not alive: the app does not listen on {address}\n".encode(),
            )
            assert (await running.look("/livez")).status == 200
            await local.start()
            assert (await becomes(running, "/readyz", 200)).body.startswith(b"ready: 1 of 1 backends usable\n")
            assert (await running.look("/app/livez")).status == 200
            assert local.connections == 0


async def test_a_machine_that_does_not_show_its_sockets_is_no_hindrance_and_is_told_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "find_listener", lambda marks: None)
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    running = await sidecar(stage, await stage.backend(hello))
    for _ in range(3):
        assert running.proxy.health().ready
        assert life(running).alive
    assert running.proxy.sidecar is not None
    assert "cannot tell whether it listens" in running.proxy.sidecar.line()
    (said,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert said.startswith("expected /proc/net/tcp")


# Whether the app is alive.


async def waiting(running: Running, local: RawBackend, data: bytes | None = None) -> tuple[Peer, Peer]:
    """Send a request that the app has read and does not answer; give client and backend."""
    client = await running.client()
    client.send(request() if data is None else data)
    upstream = await local.accepted()
    await upstream.head()
    return client, upstream


async def passes(running: Running, seconds: float) -> None:
    """Judge the app again and again, for so long: it must be alive all the time."""
    end = running.proxy.time() + seconds
    while running.proxy.time() < end:
        assert life(running).alive
        await asyncio.sleep(0)


async def test_app_livez_needs_a_sidecar(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address)) as running:
        answer = await running.look("/app/livez")
        assert answer.status == 404
        assert b"--local-backend" in answer.body


async def test_app_livez_tells_an_app_that_is_stuck_from_one_that_answers_again(stage: Stage) -> None:
    local = await stage.backend()
    async with command(*beside(local), "--app-stuck-after", "200ms") as running:
        assert (await running.look("/app/livez")).status == 200
        clients = [await running.client() for _ in range(3)]
        for client in clients:
            client.send(request())
        upstreams = [await local.accepted() for _ in clients]
        for upstream in upstreams:
            await upstream.head()
        stuck = await becomes(running, "/app/livez", 503)
        assert b"has left a request without a first byte for" in stuck.body
        assert b", 2 more wait, " in stuck.body
        assert (await running.look("/readyz")).status == 200  # it listens; its pages are still there
        assert (await running.look("/livez")).status == 200
        for upstream in upstreams[:2]:
            upstream.send(response(body=b"late"))
        alive = await becomes(running, "/app/livez", 200)
        assert alive.body.startswith(b"alive: 1 requests wait for a first byte")
        assert {(await client.message()).body for client in clients if client is not clients[2]} <= {b"late"}
        await running.says("/app/livez: not alive")
        await running.says("/app/livez: alive")


async def test_one_slow_request_is_a_slow_request(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    await waiting(running, local)
    await passes(running, 3 * STUCK_AFTER_S)


async def test_an_app_that_answers_others_is_only_slow(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    for _ in range(2):
        await waiting(running, local)
    client, upstream = await waiting(running, local)
    end = running.proxy.time() + 4 * STUCK_AFTER_S
    while running.proxy.time() < end:
        upstream.send(response(body=b"quick"))
        assert (await client.message()).body == b"quick"
        assert life(running).alive
        client.send(request())
        await upstream.head()
    await eventually(lambda: not life(running).alive, "it answers nothing any more")


async def test_an_app_that_talks_to_a_page_is_only_slow(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    client, upstream = await waiting(running, local, ASK)
    upstream.send(SWITCH)
    await client.head()
    for _ in range(2):
        await waiting(running, local)
    end = running.proxy.time() + 4 * STUCK_AFTER_S
    while running.proxy.time() < end:
        upstream.send(b"2")
        await client.exactly(1)
        assert life(running).alive
    await eventually(lambda: not life(running).alive, "it says nothing any more")
    client.send(b"3")  # what the client says is no sign of the app's life
    assert await upstream.exactly(1) == b"3"
    assert not life(running).alive


POLL = "GET /_nicegui_ws/socket.io/?client_id=1&EIO=4&transport=polling&sid=2 HTTP/1.1"


@pytest.mark.parametrize(
    "data",
    [ASK, request(POLL), request("GET /socket.io/?EIO=4&transport=polling HTTP/1.1")],
    ids=["upgrade", "poll", "another app's poll"],
)
async def test_what_may_rightly_wait_long_does_not_count(stage: Stage, data: bytes) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    for _ in range(2):
        await waiting(running, local, data)
    await passes(running, 3 * STUCK_AFTER_S)


async def test_an_upload_that_is_still_coming_does_not_count(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    upload = request("POST / HTTP/1.1", "Content-Length: 10") + b"12345"
    clients = [(await waiting(running, local, upload))[0] for _ in range(2)]
    await passes(running, 3 * STUCK_AFTER_S)
    for client in clients:
        client.send(b"67890")
    await eventually(lambda: not life(running).alive, "both have come in whole and wait")


async def test_what_waits_for_another_pod_does_not_count(stage: Stage) -> None:
    local, other = await stage.backend(), await stage.backend()
    running = await sidecar(stage, local, other)
    for _ in range(3):
        await waiting(running, other, request("GET / HTTP/1.1", running.cookie(other)))
    await passes(running, 3 * STUCK_AFTER_S)


async def test_an_answer_that_has_begun_does_not_wait(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    for _ in range(2):
        client, upstream = await waiting(running, local)
        upstream.send(response("200 OK", "Content-Length: 5"))
        await client.head()
    await passes(running, 3 * STUCK_AFTER_S)


async def test_an_app_that_does_not_even_accept_is_stuck(stage: Stage) -> None:
    """As one whose event loop is blocked: the kernel connects and acknowledges for it, which is no sign of life."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        local = Address(*server.getsockname())
        settings = Settings(times=QUICK, sidecar=SidecarSettings(local, STUCK_AFTER_S))
        running = await stage.proxy(Backend.at(local), settings=settings)
        (await running.client()).send(request())
        await passes(running, 2 * STUCK_AFTER_S)

        async def one_more_is_not_alive() -> bool:
            (await running.client()).send(request())
            return not life(running).alive

        async with asyncio.timeout(10):
            while not await one_more_is_not_alive():
                pass  # each connects anew


async def test_an_answer_is_remembered_when_its_connection_is_closed(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local, times=replace(QUICK, upstream_idle_s=0.1))
    assert running.proxy.sidecar is not None
    client, upstream = await waiting(running, local)
    assert running.proxy.sidecar._silence_s(running.proxy.time()) == float("inf")
    upstream.send(response(body=b"answer"))
    await client.message()
    await eventually(lambda: not running.idle, "the idle connection is closed")
    assert running.proxy.sidecar._silence_s(running.proxy.time()) < 10


async def test_a_closed_tab_still_waits(stage: Stage) -> None:
    """Who gives up on an app that is stuck must not make it look alive."""
    local = await stage.backend()
    running = await sidecar(stage, local)
    for _ in range(2):
        client, _ = await waiting(running, local)
        client.half_close()
    await eventually(lambda: not life(running).alive, "both wait")


async def test_an_app_that_was_stuck_when_nobody_asked_is_judged_by_what_is_now(stage: Stage) -> None:
    local = await stage.backend()
    running = await sidecar(stage, local)
    pairs = [await waiting(running, local) for _ in range(2)]
    await eventually(lambda: not life(running).alive, "both wait")
    for client, upstream in pairs:
        upstream.send(response(body=b"late"))
        await soon(client.message())
    assert life(running) == (True, "alive: 0 requests wait for a first byte, the longest 0 s")
