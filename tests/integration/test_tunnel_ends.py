"""Why a socket ended, whether its page came back, and whether it is lost: all of it is counted, once."""

import asyncio
import os
import signal
from collections import Counter

import pytest

from stickyproxy.core.backends import Phase
from stickyproxy.core.settings import Settings, TimeSettings

from .harness import Clock, Peer, RawBackend, Running, Stage, eventually, hello, request, response, soon
from .test_streaming import MB, SMALL
from .test_tunnel import tunnel
from .workers import children, client_at, metrics, told, workers

OPENED = b'\x81\x0d40{"sid":"x"}'
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + OPENED
NORMAL, RESTART = b"\x88\x02\x03\xe8", b"\x88\x02\x03\xf4"  # 1000, 1012
GOING = b"\x88\x82\x00\x00\x00\x00\x03\xe9"  # a browser's 1001
SOON_LOST = Settings(times=TimeSettings(sweep_s=0.05, lost_s=0.3))


def socket_of(page: str, cookie: str = "") -> bytes:
    return request(
        f"GET /_nicegui_ws/socket.io/?client_id={page}&implicit_handshake=true&EIO=4&transport=websocket HTTP/1.1",
        "Connection: Upgrade", "Upgrade: websocket", *([cookie] if cookie else []),
    )  # fmt: skip


async def accept(client: Peer, backend: RawBackend) -> Peer:
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    assert await client.exactly(len(OPENED)) == OPENED
    return upstream


async def open_page(running: Running, backend: RawBackend, page: str = "page") -> tuple[Peer, Peer]:
    """Open a page's socket on a backend: the client's end and the backend's."""
    client = await running.client()
    client.send(socket_of(page, running.cookie(backend)))
    return client, await accept(client, backend)


async def leave(client: Peer, upstream: Peer) -> None:
    """End a socket by the client's side."""
    client.close()
    await upstream.gone()
    upstream.close()


async def ended(running: Running) -> dict[str, int]:
    """Give the reasons, when no tunnel is left."""
    await eventually(lambda: not running.proxy.tunnels, "all tunnels end")
    return +running.proxy.counters.tunnel_ends


async def test_a_client_that_goes_ended_it(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    for leave in (Peer.close, Peer.reset, Peer.half_close):
        client, upstream = await open_page(running, backend)
        leave(client)
        await upstream.gone()
        upstream.close()
    assert await ended(running) == {"client": 3}


async def test_a_browser_that_says_goodbye_ended_it_though_the_app_closes_first(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_page(running, backend)
    client.send(GOING)
    assert await upstream.exactly(len(GOING)) == GOING
    upstream.send(NORMAL)
    upstream.close()
    await client.gone()
    client.close()
    assert await ended(running) == {"client": 1}


async def test_an_app_that_says_goodbye_ended_it_though_the_browser_closes_first(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_page(running, backend)
    upstream.send(NORMAL)
    assert await client.exactly(len(NORMAL)) == NORMAL
    await leave(client, upstream)
    assert await ended(running) == {"backend": 1}


@pytest.mark.parametrize("how", ["restarts", "is killed", "is reset", "is about to go", "is no longer listed"])
async def test_a_backend_that_goes_is_told_from_one_that_closes(stage: Stage, how: str) -> None:
    backend, other = await stage.backend(), await stage.backend(hello)
    running = await stage.proxy(backend, other)
    client, upstream = await open_page(running, backend)
    if how == "is about to go":
        running.apply(backend.at(Phase.DRAINING), other.at())
    elif how == "is no longer listed":
        running.apply(other.at())
    if how == "restarts":
        upstream.send(RESTART)
    elif "is" in how and how not in ("is killed", "is reset"):
        upstream.send(NORMAL)
    (upstream.reset if how == "is reset" else upstream.close)()
    await client.gone()
    client.close()
    assert await ended(running) == {"backend_gone": 1}


async def test_an_ordered_drain_does_not_blame_the_backend_for_a_socket_that_the_app_closes(stage: Stage) -> None:
    backend, other = await stage.backend(), await stage.backend(hello)
    running = await stage.proxy(backend, other)
    client, upstream = await open_page(running, backend)
    running.proxy.drains.drain(backend.at().identity)
    upstream.send(NORMAL)
    upstream.close()
    await client.gone()
    client.close()
    assert await ended(running) == {"backend": 1}


async def test_a_drain_that_moves_pages_says_so(stage: Stage) -> None:
    backend, other = await stage.backend(), await stage.backend(hello)
    running = await stage.proxy(backend, other)
    client, _ = await open_page(running, backend)
    identity = backend.at().identity
    running.proxy.drains.drain(identity)
    waits = asyncio.ensure_future(running.proxy.drains.wait(identity, 2.0, 0.0))
    await client.gone()
    client.close()
    await soon(waits)
    assert await ended(running) == {"drain": 1}


async def test_a_side_that_takes_nothing_is_idle(stage: Stage) -> None:
    times = TimeSettings(sweep_s=0.05, body_s=0.3)
    _, running, _, upstream = await tunnel(stage, receive_buffer=SMALL, settings=Settings(times=times))
    upstream.send(bytes(64 * MB))  # to a client that does not read
    assert await ended(running) == {"idle": 1}


async def test_a_proxy_that_leaves_says_shutdown(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    parted, _ = await open_page(running, backend, "a")
    leaves = asyncio.ensure_future(running.proxy.drain(1.0))
    await parted.gone()
    parted.close()
    await soon(leaves)
    assert await ended(running) == {"shutdown": 1}


async def test_bytes_of_tunnels_are_counted_while_they_are_open_and_after(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await open_page(running, backend)
    before = running.proxy.counters.received_bytes, running.proxy.counters.sent_bytes
    client.send(b"x" * 1000)
    await upstream.exactly(1000)
    upstream.send(b"y" * 5000)
    await client.exactly(5000)
    for _ in range(2):
        counters = running.proxy.report().counters
        assert (counters.tunnel_received_bytes, counters.tunnel_sent_bytes) in (
            (1000, 5000), (1000, 5000 + len(OPENED)),  # where the app's first frame came behind the head's piece
        )  # fmt: skip
        client.close()
        upstream.close()
        await ended(running)
    counters = running.proxy.counters
    assert (counters.received_bytes, counters.sent_bytes) == before, "those of tunnels are counted apart"


# Whether pages come back.


def back(running: Running) -> dict[tuple[bool, bool], int]:
    return +running.proxy.counters.reconnects


async def cut(running: Running, backend: RawBackend, page: str = "page") -> None:
    """Open a page's socket and lose it as by a crash."""
    client, upstream = await open_page(running, backend, page)
    upstream.close()
    await client.gone()
    client.close()
    await ended(running)


async def test_a_page_that_comes_back_to_its_backend_is_counted_with_its_gap(stage: Stage) -> None:
    backend, other = await stage.backend(), await stage.backend()
    running = await stage.proxy(backend, other)
    await cut(running, backend)
    client, _ = await open_page(running, backend)
    counters = running.proxy.counters
    assert back(running) == {(True, True): 1}
    assert counters.gaps.total == 1
    assert 0 < counters.gaps.sum_s < 3
    client.close()


async def test_a_page_whose_backend_is_gone_comes_back_to_another(stage: Stage) -> None:
    backend, other = await stage.backend(), await stage.backend()
    running = await stage.proxy(backend, other)
    clock = Clock(running)
    await cut(running, backend)
    running.apply(other.at())
    client = await running.client()
    client.send(socket_of("page", running.cookie(other)))
    upstream = await accept(client, other)
    assert back(running) == {(False, True): 1}
    client.close()
    await upstream.gone()
    clock.moves(running.proxy.times.lost_s + 1)
    await eventually(lambda: not len(running.proxy.absences), "it is given up, since its user left")
    assert not +running.proxy.counters.lost


async def test_a_reconnect_too_late_for_nicegui_is_told_apart(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    clock, late = running.proxy.time, 0.0
    running.proxy.time = lambda: clock() + late
    await cut(running, backend)
    late = 3.5
    client, _ = await open_page(running, backend)
    assert back(running) == {(True, False): 1}
    client.close()


@pytest.mark.parametrize(
    "target",
    ["/_nicegui_ws/socket.io/?client_id=page&sid=1&transport=polling", "/app/_nicegui/client/page/upload/1"],
)
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
async def test_any_request_of_a_page_that_is_answered_brings_it_back(stage: Stage, target: str, status: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    await cut(running, backend)
    client = await running.client()
    client.send(request(f"GET {target} HTTP/1.1", running.cookie(backend)))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(status, body=b"2"))
    assert (await client.message()).status == int(status[:3])
    assert back(running) == {(True, True): 1}


async def test_a_request_that_no_backend_answers_brings_nobody_back(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    await cut(running, backend)
    await backend.stop_listening()
    assert (await running.ask(socket_of("page", running.cookie(backend)))).status == 502
    assert not back(running)
    assert len(running.proxy.absences) == 1


async def test_who_opens_a_second_socket_before_the_first_ends_was_never_away(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    first = await open_page(running, backend)
    second = await open_page(running, backend)
    await leave(*first)
    await eventually(lambda: len(running.proxy.tunnels) == 1, "the first one ends")
    assert not len(running.proxy.absences)
    assert not back(running)
    await leave(*second)


async def test_pages_that_stay_away_are_lost_by_the_reason_of_their_sockets_end(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=SOON_LOST)
    await cut(running, backend, "killed")
    client, upstream = await open_page(running, backend, "closed")
    upstream.send(NORMAL)
    upstream.close()
    await client.gone()
    client.close()
    await leave(*await open_page(running, backend, "left"))
    await ended(running)
    await eventually(lambda: running.proxy.counters.lost.total() == 2, "two are lost")
    await eventually(lambda: not len(running.proxy.absences), "nobody is waited for")
    assert +running.proxy.counters.lost == {"backend_gone": 1, "backend": 1}
    assert not back(running)


async def test_pages_that_are_counted_and_given_up_leave_nothing_behind(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=SOON_LOST)
    for number in range(20):
        await cut(running, backend, f"page-{number}")
    await eventually(lambda: running.proxy.counters.lost.total() == 20, "all are lost")
    assert not len(running.proxy.absences)


# Workers.


async def test_a_page_that_comes_back_by_another_worker_is_back_and_not_lost(stage: Stage) -> None:
    backend = await stage.backend()
    async with workers("--backend", str(backend.address)) as running:
        one, two = children(running.process.pid)
        for here, there in ((one, two), (two, one)):
            client = await client_at(running, here)
            client.send(socket_of("page"))
            upstream = await accept(client, backend)
            await told(running)
            upstream.close()
            await client.gone()
            client.close()
            again = await client_at(running, there)
            await told(running)  # which takes less than the half second that NiceGUI's client waits at least
            again.send(socket_of("page"))
            upstream = await accept(again, backend)
            again.close()
            await upstream.gone()
            upstream.close()
        await until_counted(running, "stickyproxy_tunnels_closed_total{reason=client}", 2)
        scraped = await metrics(running)
        assert scraped["stickyproxy_reconnects_total{backend=same}{in_time=yes}"] >= 2
        assert scraped["stickyproxy_tunnels_closed_total{reason=backend_gone}"] == 2
        assert scraped["stickyproxy_reconnect_gap_seconds_count"] == sum(
            value for name, value in scraped.items() if name.startswith("stickyproxy_reconnects_total")
        )
        assert sum(value for name, value in scraped.items() if name.startswith("stickyproxy_pages_lost_total")) == 0


async def test_sockets_of_a_worker_that_is_killed_ended_by_an_error(stage: Stage) -> None:
    backend = await stage.backend()
    async with workers("--backend", str(backend.address)) as running:
        one, _ = children(running.process.pid)
        client = await client_at(running, one)
        client.send(socket_of("page"))
        await accept(client, backend)
        await told(running)
        os.kill(one, signal.SIGKILL)
        await client.gone()
        await running.says("it is replaced")
        await until_counted(running, "stickyproxy_tunnels_closed_total{reason=error}", 1)
        scraped = await metrics(running)
        ends = {n: v for n, v in scraped.items() if n.startswith("stickyproxy_tunnels_closed_total") and v}
        assert ends == {"stickyproxy_tunnels_closed_total{reason=error}": 1}


async def test_what_each_worker_counts_of_a_backend_adds_up(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address)) as running:
        for pid in children(running.process.pid) * 3:
            client = await client_at(running, pid)
            client.send(request())
            assert (await client.message()).body == b"hello"
        scraped = await metrics(running)
        assert scraped[f"stickyproxy_backend_requests_total{{backend={backend.address}}}"] == 6
        assert scraped["stickyproxy_requests_total{class=2xx}{pin=new}"] == 6
        assert scraped["stickyproxy_request_seconds_count"] == 6
        one, _ = children(running.process.pid)
        os.kill(one, signal.SIGKILL)
        await running.says("it is replaced")
        scraped = await metrics(running)
        assert scraped[f"stickyproxy_backend_requests_total{{backend={backend.address}}}"] == 6, "none is forgotten"


async def until_counted(running: object, name: str, count: int) -> None:
    """Scrape until a counter has come to a number."""
    seen: Counter[str] = Counter()
    for _ in range(200):
        seen = Counter(await metrics(running))  # type: ignore[arg-type]
        if seen[name] == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is {seen[name]}, not {count}")
