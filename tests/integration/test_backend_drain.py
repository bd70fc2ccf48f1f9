"""A backend drains by order: nothing new goes there, what lives there stays, and whoever waits hears of its end."""

import asyncio
from uuid import UUID, uuid4

import pytest

from stickyproxy.core.affinity import HashKey, KeySource
from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.settings import AffinitySettings, Settings
from stickyproxy.core.status import Remaining
from stickyproxy.dataplane import drains
from stickyproxy.dataplane.dispersal import QUIET_S

from .harness import QUICK, Peer, RawBackend, Running, Stage, eventually, named, request, soon, turns
from .test_tunnel import ASK, SWITCH

NAVIGATE = ("Sec-Fetch-Mode: navigate", "Accept: text/html")
LONG_S = 60.0
EMPTY = Remaining(0, 0, 0)
ACCEPTED = b"".join(bytes((0x81, len(text))) + text for text in (b'0{"sid":"x","upgrades":[]}', b'40{"sid":"y"}'))
"""How NiceGUI accepts a page's socket that shakes hands implicitly."""
CLICK = bytes((0x82, 0x80 | 100)) + bytes(104)


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page whose socket has just ended counts as gone at once, not as one that may come back."""
    monkeypatch.setattr(drains, "LOADING_S", 0.0)


def identity(backend: RawBackend) -> str:
    return backend.at().identity


def socket_request(page: UUID, *lines: str) -> bytes:
    target = f"/_nicegui_ws/socket.io/?client_id={page}&implicit_handshake=true&EIO=4&transport=websocket"
    return request(
        f"GET {target} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", *lines
    )


async def page_tunnel(
    running: Running, backend: RawBackend, page: UUID | None = None, *lines: str
) -> tuple[Peer, Peer]:
    """Open a page's socket, which a cookie leads to a backend, and hold both ends."""
    client = await running.client()
    client.send(socket_request(page or uuid4(), *(lines or (running.cookie(backend),))))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH + ACCEPTED)
    assert (await client.head()).status == 101
    assert await client.exactly(len(ACCEPTED)) == ACCEPTED
    return client, upstream


async def two(stage: Stage, settings: Settings | None = None) -> tuple[Running, RawBackend, RawBackend]:
    """Put a proxy before two backends that name themselves."""
    a, b = await stage.backend(named("a")), await stage.backend(named("b"))
    return await stage.proxy(a, b, settings=settings), a, b


async def test_nothing_new_goes_there_and_it_is_taken_back(stage: Stage) -> None:
    running, a, _ = await two(stage)
    running.proxy.drains.drain(identity(a))
    running.proxy.drains.drain(identity(a))
    assert {(await running.ask(request())).body for _ in range(10)} == {b"b"}
    assert running.proxy.drains.ordered(identity(a))
    running.proxy.drains.undrain(identity(a))
    running.proxy.drains.undrain(identity(a))
    assert not running.proxy.drains.ordered(identity(a))
    assert {(await running.ask(request())).body for _ in range(20)} == {b"a", b"b"}


async def test_a_new_document_moves_and_all_else_stays(stage: Stage) -> None:
    running, a, b = await two(stage)
    running.proxy.drains.drain(identity(a))
    cookie = running.cookie(a)
    assert (await running.ask(request("GET /data HTTP/1.1", cookie))).body == b"a"
    moved = await running.ask(request("GET / HTTP/1.1", cookie, *NAVIGATE))
    assert moved.body == b"b"
    assert f"Cookie: stickyproxy={moved.token}" == running.cookie(b)
    assert running.proxy.counters.moved["draining"] == 1


async def test_known_pages_and_sockets_with_cookies_still_reach_it(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend(named("b"))
    running = await stage.proxy(a, b)
    page = uuid4()
    ends = [await page_tunnel(running, a, page)]
    running.proxy.drains.drain(identity(a))
    ends.append(await page_tunnel(running, a, page, "X-No-Cookie: 1"))  # it is known
    ends.append(await page_tunnel(running, a))  # it has a cookie
    for client, upstream in ends:
        client.close()
        upstream.close()
    await running.quiet()


async def test_the_order_outlives_snapshots_and_is_forgotten_with_the_backend(stage: Stage) -> None:
    running, a, b = await two(stage)
    proxy = running.proxy
    proxy.drains.drain(identity(a))
    for _ in range(3):
        running.apply(a.at(), b.at())
        assert proxy.snapshot.by_identity[identity(a)].phase is Phase.DRAINING
    running.apply(a.at(Phase.PAUSED), b.at())
    assert proxy.snapshot.by_identity[identity(a)].phase is Phase.DRAINING, "flapping takes no order back"
    running.apply(b.at())
    assert not proxy.drains.ordered(identity(a))
    running.apply(a.at(), b.at())
    assert proxy.snapshot.by_identity[identity(a)].phase is Phase.READY, "another one at its address"


async def test_undrained_what_discovery_says_counts_again(stage: Stage) -> None:
    running, a, b = await two(stage)
    running.proxy.drains.drain(identity(a))
    running.apply(a.at(Phase.PAUSED), b.at())
    running.proxy.drains.undrain(identity(a))
    assert running.proxy.snapshot.by_identity[identity(a)].phase is Phase.PAUSED


async def test_if_every_backend_drains_they_still_serve(stage: Stage) -> None:
    running, a, b = await two(stage)
    for backend in (a, b):
        running.proxy.drains.drain(identity(backend))
    assert {(await running.ask(request())).body for _ in range(20)} == {b"a", b"b"}
    kept = await running.ask(request("GET / HTTP/1.1", running.cookie(a), *NAVIGATE))
    assert (kept.body, kept.token) == (b"a", None)


async def test_the_only_backend_still_serves_and_its_pages_are_left_alone(stage: Stage) -> None:
    """Moved they would only come back, again and again."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await page_tunnel(running, backend)
    running.proxy.drains.drain(identity(backend))
    left = await soon(running.proxy.drains.wait(identity(backend), 2 * QUIET_S, 0.0))
    assert (left.pages, left.tunnels) == (1, 1)
    client.send(CLICK)
    assert await upstream.exactly(len(CLICK)) == CLICK
    client.close()
    upstream.close()
    await running.quiet()


# Waiting.


async def test_with_nothing_open_nobody_waits(stage: Stage) -> None:
    running, a, _ = await two(stage)
    assert await soon(running.proxy.drains.wait(identity(a), LONG_S)) == EMPTY
    assert await soon(running.proxy.drains.wait("no such backend", LONG_S)) == EMPTY


async def test_who_waits_hears_at_once_of_the_end_of_the_last_tunnel(stage: Stage) -> None:
    """By the event: the sweep, which looks too, is a minute away."""
    settings = Settings(times=type(QUICK)(sweep_s=LONG_S))
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=settings)
    ends = []
    for _ in range(2):
        client = await running.client()
        client.send(ASK)
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(SWITCH)
        await client.head()
        ends.append((client, upstream))
    waits = [asyncio.ensure_future(running.proxy.drains.wait(identity(backend), LONG_S)) for _ in range(3)]
    for client, upstream in ends:
        await turns(20)
        assert not any(wait.done() for wait in waits)
        client.close()
        upstream.close()
    assert await soon(asyncio.gather(*waits)) == [EMPTY] * 3
    await running.quiet()


async def test_a_running_request_is_waited_for(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    left = await soon(running.proxy.drains.wait(identity(backend), 0.2))
    assert left == Remaining(0, 0, 1)
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(backend), LONG_S))
    await turns(20)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await client.message()
    assert await soon(wait) == EMPTY


async def test_at_the_end_of_its_time_it_tells_what_is_left(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await page_tunnel(running, backend)
    assert await soon(running.proxy.drains.wait(identity(backend), 0.2)) == Remaining(1, 1, 0)
    client.close()
    upstream.close()
    await running.quiet()
    assert running.proxy.drains.remaining(identity(backend)) == Remaining(1, 0, 0), "it may be reconnecting"


async def test_a_page_whose_tab_was_closed_is_gone_after_a_while(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "LOADING_S", 0.3)
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client, upstream = await page_tunnel(running, backend)
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(backend), LONG_S))
    client.close()
    upstream.close()
    assert await soon(wait) == EMPTY


# Moving.


async def test_moved_pages_reconnect_elsewhere_idle_ones_first(stage: Stage, no_loading: None) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    active, idle = uuid4(), uuid4()
    ends = {page: await page_tunnel(running, a, page) for page in (active, idle)}
    running.proxy.drains.drain(identity(a))
    loop = asyncio.get_running_loop()
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(a), 6.0, 2.0))
    closed: dict[UUID, float] = {}

    async def follow(page: UUID) -> None:
        client, upstream = ends[page]
        assert await client.rest() == b""
        closed[page] = loop.time()
        client.close()
        upstream.close()

    async def work() -> None:
        while not ends[active][0].reader.at_eof():
            ends[active][0].send(CLICK)
            await asyncio.wait([following[0]], timeout=0.3)

    following = [asyncio.ensure_future(follow(page)) for page in (active, idle)]
    await soon(work())
    await soon(asyncio.gather(*following))
    assert await soon(wait) == EMPTY
    assert closed[idle] < closed[active]
    for page in (active, idle):
        client, upstream = await page_tunnel(running, b, page, running.cookie(a))
        client.close()
        upstream.close()
    await running.quiet()


async def test_one_whose_handshake_ends_while_others_are_moved_is_moved_too(stage: Stage, no_loading: None) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    first = await page_tunnel(running, a)
    late = await running.client()
    late.send(socket_request(uuid4(), running.cookie(a)))
    late_upstream = await a.accepted()
    await late_upstream.head()
    running.proxy.drains.drain(identity(a))
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(a), 4.0, 0.0))
    late_upstream.send(SWITCH + ACCEPTED)
    assert (await late.head()).status == 101
    assert await late.exactly(len(ACCEPTED)) == ACCEPTED
    for client, upstream in (first, (late, late_upstream)):
        assert await client.rest() == b""
        client.close()
        upstream.close()
    assert await soon(wait) == EMPTY


async def test_one_that_comes_while_others_are_moved_opens_its_socket_elsewhere(stage: Stage, no_loading: None) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    client, upstream = await page_tunnel(running, a)
    running.proxy.drains.drain(identity(a))
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(a), 4.0, 0.0))
    late = await running.client()
    late.send(socket_request(uuid4(), running.cookie(a)))
    assert (await (await b.accepted()).head()).target.startswith("/_nicegui_ws/")
    late.close()
    assert await client.rest() == b""
    client.close()
    upstream.close()
    assert await soon(wait) == EMPTY


async def test_the_refusals_of_pages_that_were_moved_are_no_reload_loop(stage: Stage, no_loading: None) -> None:
    """Of twenty people in one office, none is told that their page reloads for ever."""
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    proxy, visitor = running.proxy, (b"127.0.0.1", b"/")
    refused = b'44{"message":"Implicit handshake failed"}'
    for page in (uuid4() for _ in range(20)):
        proxy.pages.learn(str(page).encode(), identity(a), proxy.time(), visitor)
        proxy.pages.move(str(page).encode(), identity(a))
        client = await running.client()
        client.send(socket_request(page, running.cookie(b)))
        upstream = await b.accepted()
        await upstream.head()
        upstream.send(SWITCH + ACCEPTED[: ACCEPTED.index(b"40") - 2] + bytes((0x81, len(refused))) + refused)
        await client.head()
        await soon(client.reader.readuntil(refused))
        client.close()
        upstream.close()
    assert not proxy.reloads.loops(visitor, proxy.time())
    await running.quiet()


async def test_a_socket_of_no_page_is_left_alone(stage: Stage) -> None:
    """Its reconnect would come back by its cookie."""
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    client = await running.client()
    client.send(ASK.replace(b"\r\nHost", f"\r\n{running.cookie(a)}\r\nHost".encode(), 1))
    upstream = await a.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    await client.head()
    running.proxy.drains.drain(identity(a))
    assert await soon(running.proxy.drains.wait(identity(a), 2 * QUIET_S, 0.0)) == Remaining(0, 1, 0)
    client.close()
    upstream.close()
    await running.quiet()


async def test_by_hash_pages_are_left_alone(stage: Stage) -> None:
    """A key leads back whatever the phase."""
    hashing = AffinitySettings(hash_key=HashKey(KeySource.HEADER, b"x-user"))
    a = await stage.backend()
    running = await stage.proxy(a, settings=Settings(times=QUICK, affinity=hashing))
    client, upstream = await page_tunnel(running, a, None, "X-User: somebody")
    running.apply(a.at(), Backend.at((await stage.backend()).address))
    running.proxy.drains.drain(identity(a))
    left = await soon(running.proxy.drains.wait(identity(a), 2 * QUIET_S, 0.0))
    assert left.tunnels == 1
    client.close()
    upstream.close()
    await running.quiet()


async def test_a_page_that_lives_elsewhere_by_now_is_not_sent_away_from_there(stage: Stage, no_loading: None) -> None:
    """A half-dead tunnel may outlive its page's move."""
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    page = uuid4()
    old = await page_tunnel(running, a, page)
    running.proxy.pages.learn(str(page).encode(), identity(b), running.proxy.time())
    running.proxy.drains.drain(identity(a))
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(a), LONG_S, 0.0))
    assert await old[0].rest() == b""
    for peer in old:
        peer.close()
    await soon(wait)
    found = running.proxy.pages.find(str(page).encode())
    assert found is not None
    assert found.identity == identity(b)


async def test_who_waits_no_more_moves_no_more(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    client, upstream = await page_tunnel(running, a)
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(a), LONG_S, 0.0))
    await turns(3)
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 3 * QUIET_S)
    assert not running.proxy.drains._waiting
    assert not running.proxy.drains._movers
    client.close()
    upstream.close()
    await running.quiet()


async def test_a_move_waits_for_the_end_of_a_message(stage: Stage, no_loading: None) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    client, upstream = await page_tunnel(running, a)
    wait = asyncio.ensure_future(running.proxy.drains.wait(identity(a), LONG_S, 0.0))
    await eventually(lambda: running.proxy.drains._movers, "it has begun")
    client.send(CLICK)
    assert await upstream.exactly(len(CLICK)) == CLICK
    client.send(CLICK[:50])
    assert await upstream.exactly(50) == CLICK[:50]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 3 * QUIET_S)
    client.send(CLICK[50:])
    assert await upstream.rest() == CLICK[50:]
    assert await client.rest() == b""
    client.close()
    upstream.close()
    assert await soon(wait) == EMPTY


def test_remaining_is_empty_only_when_all_is_gone() -> None:
    assert EMPTY.empty
    assert not any(Remaining(*(int(at == i) for i in range(3))).empty for at in range(3))
