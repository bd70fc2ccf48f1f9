"""Who comes back to a parked page, by which connection, and what becomes of who only says so."""

from dataclasses import replace

import pytest

from stickyproxy.core.settings import LimitSettings
from tests.fakes.websocket import KEY, client, close, frame

from .harness import Peer, Stage, eventually, request, turns
from .parking import (
    CONNECTED,
    DEFLATE,
    OPENED,
    PARKING,
    SEC_KEY,
    End,
    Name,
    Page,
    beat,
    click,
    open_page,
    open_socket,
    update,
)  # fmt: skip
from .test_parking import BOTH, IMPLICIT, one

POLL = request(f"GET {IMPLICIT.target('polling')} HTTP/1.1")

pytestmark = pytest.mark.both_loops


async def parked(stage: Stage, name: Name = IMPLICIT, **more: str) -> Page:
    """Park a page for which one update is kept."""
    page = await one(stage, name, **more)
    await beat(page)
    page.browser.peer.reset()
    await page.parked()
    page.app.say(update(0))
    await eventually(lambda: page.parking.kept_bytes, "an update is kept")
    return page


async def over(page: Page, *browsers: End) -> None:
    """End everything."""
    for browser in browsers:
        browser.peer.close()
    await page.ends()


@BOTH
@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_a_return_in_pieces_or_all_at_once_is_a_return(stage: Stage, name: Name, size: int) -> None:
    page = await parked(stage, name)
    data = name.ask() + client(b"40") + client(click(1)) + (b"" if name.implicit else client(name.handshake(1)))
    data += client(click(2)) + client(click(3))
    peer = await page.running.client()
    for at in range(0, len(data), size):
        peer.send(data[at : at + size])
        if size < 1000:
            await turns(1)
    await peer.head()
    browser = End(peer, masks=True)
    opened, connected = await browser.hear(), await browser.hear()
    assert (opened[:8], connected[:9]) == (OPENED[:8], CONNECTED[:9])
    assert opened != OPENED
    assert connected != CONNECTED
    if not name.implicit:
        await browser.hears(b"431[true]")
    await browser.hears(update(0))
    await page.app.hears(click(1), click(2), click(3))
    assert not page.running.proxy.buffered.total
    await beat(page, browser)
    browser.peer.reset()
    await page.parked()
    await over(page)


@BOTH
async def test_who_is_back_before_its_loss_was_noticed_takes_over(stage: Stage, name: Name) -> None:
    page = await one(stage, name)
    await beat(page)
    page.app.say(update(0))
    await page.browser.hears(update(0))
    browser = await page.back()
    await browser.hears(update(0))
    await page.browser.peer.gone()
    await beat(page, browser)
    page.settled()
    browser.peer.reset()
    await page.parked()
    await over(page)


async def test_of_two_that_come_back_at_once_the_second_has_the_page(stage: Stage) -> None:
    page = await parked(stage)
    peers = [await page.running.client() for _ in range(2)]
    for peer in peers:
        peer.send(IMPLICIT.ask())
        await peer.head()
    first, second = (End(peer, masks=True) for peer in peers)
    for browser in (first, second):
        assert (await browser.hear())[:2] == b"0{"
    first.say(b"40")
    assert (await first.hear())[:2] == b"40"
    await first.hears(update(0))
    first.say(click(1))
    await page.app.hears(click(1))
    second.say(b"40")
    assert (await second.hear())[:2] == b"40"
    await second.hears(update(0))
    await first.peer.gone()
    second.say(click(2))
    await page.app.hears(click(2))
    await beat(page, second)
    page.settled()
    second.peer.reset()
    await page.parked()
    await over(page)


async def test_a_page_that_ends_while_its_browser_comes_back_ends_that_too(stage: Stage) -> None:
    page = await parked(stage)
    peer = await page.running.client()
    peer.send(IMPLICIT.ask())
    await peer.head()
    browser = End(peer, masks=True)
    await browser.hear()
    page.app.leaves()
    await page.released("backend")
    browser.say(b"40")
    assert (await browser.hear())[:2] == b"40"
    assert await peer.gone()
    await page.running.quiet()
    page.empty()


@pytest.mark.parametrize(
    "rest", [close(key=KEY), close(1001, key=KEY), client(click(1)) + close(key=KEY)], ids=["close", "1001", "click"]
)
async def test_who_is_back_and_closes_with_the_same_words_leaves_the_page_parked(stage: Stage, rest: bytes) -> None:
    page = await parked(stage)
    peer = await page.running.client()
    peer.send(IMPLICIT.ask() + client(b"40") + rest)
    await peer.gone()
    await eventually(lambda: not page.running.downstreams, "the connection has ended")
    await page.parked()
    assert page.running.proxy.admission.places.taken == 0
    page.settled()
    browser = await page.back()
    await browser.hears(update(0))
    browser.peer.reset()
    await page.parked()
    await over(page)


async def test_who_does_not_say_who_it_is_in_time_is_closed_and_the_page_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.returning.DIALOGUE_S", 0.05)
    page = await parked(stage)
    peer = await page.running.client()
    peer.send(IMPLICIT.ask())
    await peer.head()
    assert await peer.gone()
    await page.parked()
    await over(page)


@pytest.mark.parametrize("how", ["resets", "closes", "close frame", "garbage"])
async def test_who_leaves_in_the_middle_of_its_return_leaves_the_page_parked(stage: Stage, how: str) -> None:
    page = await parked(stage)
    peer = await page.running.client()
    peer.send(IMPLICIT.ask())
    await peer.head()
    browser = End(peer, masks=True)
    await browser.hear()
    match how:
        case "resets":
            peer.reset()
        case "closes":
            peer.close()
        case "close frame":
            browser.close_frame(1001)
            await peer.gone()
        case _:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            await peer.gone()
    await eventually(lambda: not page.running.downstreams, "it has ended")
    await page.parked()
    again = await page.back()
    await again.hears(update(0))
    again.peer.reset()
    await page.parked()
    await over(page)


# Who is not the one that left.


async def goes_to_the_app(page: Page, ask: bytes) -> Peer:
    """See that a request goes to the app as without parking, and the page stays parked."""
    peer = await page.running.client()
    peer.send(ask)
    app = await page.backend.accepted()
    assert (await app.head()).raw.startswith(ask.split(b"\r\n")[0])
    assert len(page.parking.away) == 1
    app.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert (await peer.head()).status == 403
    app.close()
    return peer


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (replace(IMPLICIT, document="d-2"), {}),
        (replace(IMPLICIT, document="D-1"), {}),
        (replace(IMPLICIT, page="ffff"), {}),
        (replace(IMPLICIT, numbered=False), {}),
        (IMPLICIT, {"key": ""}),
        (IMPLICIT, {"key": "dGhlIHNhbXBsZSBub25jZQ"}),
        (IMPLICIT, {"key": SEC_KEY + "x"}),
        (IMPLICIT, {"version": "12"}),
        (IMPLICIT, {"version": ""}),
    ],
)
async def test_a_request_that_is_no_return_goes_to_the_app(stage: Stage, name: Name, lines: dict[str, str]) -> None:
    page = await parked(stage)
    peer = await goes_to_the_app(page, name.ask(page.running.cookie(page.backend), **lines))
    peer.close()
    await over(page)


async def test_a_newer_pages_socket_without_a_document_goes_to_the_app(stage: Stage) -> None:
    page = await parked(stage)
    ask = IMPLICIT.ask().replace(b"&document_id=d-1", b"")
    peer = await goes_to_the_app(page, ask)
    peer.close()
    await over(page)


@pytest.mark.parametrize("offer", ["x-webkit-deflate-frame", "permessage-deflate; server_max_window_bits=9"])
async def test_who_cannot_read_what_is_compressed_goes_to_the_app(stage: Stage, offer: str) -> None:
    page = await parked(stage, offer="permessage-deflate; client_max_window_bits", agreed=DEFLATE)
    peer = await goes_to_the_app(page, IMPLICIT.ask(extensions=offer))
    peer.close()
    await over(page)


async def test_an_older_page_of_another_document_is_refused_and_nothing_is_touched(stage: Stage) -> None:
    name = Name(implicit=False)
    page = await parked(stage, name)
    stranger = replace(name, document="d-2")
    peer = await page.running.client()
    peer.send(stranger.ask() + client(b"40") + client(click(1)) + client(stranger.handshake(3)))
    await peer.head()
    browser = End(peer, masks=True)
    await browser.hear()
    await browser.hear()
    await browser.hears(b"433[false]")
    assert await peer.rest() == b""
    await page.parked()
    browser = await page.back()
    await browser.hears(update(0))
    browser.say(click(2))
    await page.app.hears(click(2))
    browser.peer.reset()
    await page.parked()
    await over(page)


# By polling.


async def test_who_comes_back_by_polling_is_told_to_come_by_a_socket_three_times(stage: Stage) -> None:
    page = await parked(stage)
    for _ in range(3):
        answer = await page.running.ask(POLL)
        assert (answer.status, answer.reason) == (503, "come-by-socket")
    browser = await page.back()
    await browser.hears(update(0))
    browser.peer.reset()
    await page.parked()
    assert (await page.running.ask(POLL)).status == 503, "it has shown that it can"
    await over(page)


async def test_who_can_only_poll_goes_on_as_without_parking(stage: Stage) -> None:
    page = await parked(stage)
    for _ in range(3):
        await page.running.ask(POLL)
    peer = await page.running.client()
    peer.send(POLL)
    app = await page.backend.accepted()
    await app.head()
    assert await page.app.peer.gone(), "or the app would keep two sockets of one page"
    await page.released("reloaded")
    app.close()
    peer.close()
    await over(page)


@pytest.mark.parametrize(
    "name", [replace(IMPLICIT, document="d-2"), replace(IMPLICIT, page="ffff"), replace(IMPLICIT, numbered=False)]
)
async def test_others_may_poll(stage: Stage, name: Name) -> None:
    page = await parked(stage)
    poll = request(f"GET {name.target('polling')} HTTP/1.1", page.running.cookie(page.backend))
    peer = await goes_to_the_app(page, poll)
    peer.close()
    await over(page)


async def test_a_session_that_polls_is_not_held_up(stage: Stage) -> None:
    page = await parked(stage)
    poll = request(f"GET {IMPLICIT.target('polling')}&sid=x HTTP/1.1", page.running.cookie(page.backend))
    peer = await goes_to_the_app(page, poll)
    peer.close()
    await over(page)


# Where nothing is parked.


@pytest.mark.parametrize(
    "target",
    [
        replace(IMPLICIT, numbered=False).target(),
        "/_nicegui_ws/socket.io/?EIO=4&transport=websocket&next_message_id=0&document_id=d",
        "/socket.io/?client_id=0a1b&next_message_id=0&document_id=d&EIO=4&transport=websocket",
        "/_stcore/stream?client_id=0a1b&next_message_id=0&document_id=d",
        IMPLICIT.target() + "&sid=abc",
    ],
    ids=["1.4", "no page", "socket.io", "streamlit", "upgraded"],
)
async def test_what_is_no_page_of_nicegui_2_or_later_is_never_parked(stage: Stage, target: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    ask = request(f"GET {target} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")
    opened = await open_socket(running, backend, ask)
    opened.app.say(OPENED, CONNECTED, update(0))
    await opened.browser.hears(OPENED, CONNECTED, update(0))
    await opened.ends()
    assert running.proxy.counters.parked == 0
    await running.quiet()


async def test_a_page_that_its_app_has_not_accepted_is_not_parked(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    for refusal in (b"", OPENED, OPENED + b"\x1e"):
        opened = await open_socket(running, backend, IMPLICIT.ask(), behind=frame(refusal) if refusal else b"")
        await opened.ends()
        await running.quiet()
    assert running.proxy.counters.parked == 0
    assert running.proxy.parking is not None
    assert running.proxy.parking.kept_bytes == 0


async def test_a_page_that_its_app_refuses_is_not_parked(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    opened = await open_socket(running, backend, IMPLICIT.ask())
    opened.app.say(OPENED, b'44{"message":"Implicit handshake failed"}')
    await opened.browser.hears(OPENED)
    await opened.browser.hear()
    await opened.ends()
    await running.quiet()
    assert running.proxy.counters.parked == 0


async def test_a_socket_that_opens_in_no_way_we_know_is_passed_on_and_not_parked(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    opened = await open_socket(running, backend, IMPLICIT.ask())
    opened.app.say(b"hello", b"2", CONNECTED, update(0))
    await opened.browser.hears(b"hello", b"2", CONNECTED, update(0))
    opened.browser.say(b"3")
    await opened.app.hears(b"3")
    await opened.ends()
    await running.quiet()
    assert running.proxy.counters.parked == 0


# What it costs.


async def test_a_parked_page_takes_no_place(stage: Stage) -> None:
    backend = await stage.backend()
    settings = replace(PARKING, limits=LimitSettings(connections=1, connections_per_client=1))
    running = await stage.proxy(backend, settings=settings)
    pages = []
    for number in range(3):
        page = await open_page(running, backend, Name(page=f"{number}", document=f"d{number}", tab=f"t{number}"))
        assert running.proxy.admission.places.taken == 1
        page.browser.peer.reset()
        await page.parked(number + 1)
        assert running.proxy.admission.places.taken == 0
        pages.append(page)
    for page in pages:
        browser = await page.back()
        assert running.proxy.admission.places.taken == 1
        browser.peer.reset()
        await page.parked(3)
    for page in pages:
        page.app.leaves()
    await running.quiet()
    pages[0].empty()


@BOTH
@pytest.mark.parametrize("size", [6, 60_000])
async def test_what_a_returning_browser_sends_before_it_is_known_is_counted_and_bounded(
    stage: Stage, name: Name, size: int
) -> None:
    page = await parked(stage, name)
    peer = await page.running.client()
    peer.send(name.ask())
    await peer.head()
    unit = client(b"x" * (size - 6))
    counters, buffered = page.running.proxy.counters, page.running.proxy.buffered
    most = 0
    for _ in range(1000):
        before = counters.received_bytes
        peer.send(unit * (12_000 // size or 1))
        await eventually(
            lambda before=before: counters.received_bytes > before or not page.running.downstreams, "it is read"
        )
        most = max(most, buffered.total)
        if not page.running.downstreams:
            break
    assert 900 << 10 < most <= 1100 << 10
    await eventually(lambda: not page.running.downstreams, "it is closed")
    assert page.running.proxy.buffered.total == 0
    await page.parked()
    await over(page)


async def test_half_a_frame_of_a_returning_browser_is_counted(stage: Stage) -> None:
    page = await parked(stage)
    peer = await page.running.client()
    peer.send(IMPLICIT.ask() + frame(bytes(500_000), key=KEY)[:400_000])
    await peer.head()
    await eventually(lambda: page.running.proxy.buffered.total >= 400_000, "it is counted")
    peer.reset()
    await eventually(lambda: not page.running.downstreams, "it is gone")
    assert page.running.proxy.buffered.total == 0
    await over(page)


async def test_half_a_frame_comes_on_with_who_is_back(stage: Stage) -> None:
    page = await parked(stage)
    long = client(click(7) + b" " * 100_000)
    peer = await page.running.client()
    peer.send(IMPLICIT.ask() + client(b"40") + long[:5000])
    await peer.head()
    browser = End(peer, masks=True)
    for _ in range(2):
        await browser.hear()
    await browser.hears(update(0))
    peer.send(long[5000:])
    assert await page.app.peer.exactly(len(long)) == long
    assert page.running.proxy.buffered.total == 0
    peer.reset()
    await page.parked()
    await over(page)


# What a stranger can do who knows a page's client id, and no more.


async def test_a_stranger_who_knows_the_page_but_not_its_document_gets_nothing_that_was_kept(stage: Stage) -> None:
    """What the app itself makes of it is the app's matter: to NiceGUI a client id is all that is needed."""
    page = await parked(stage)
    stranger = replace(IMPLICIT, document="guess", tab="guess")
    opened = await open_socket(page.running, page.backend, stranger.ask(page.running.cookie(page.backend)))
    app, browser = opened.app, opened.browser
    app.say(OPENED, CONNECTED, b'42["said by the app"]')
    await browser.hears(OPENED, CONNECTED, b'42["said by the app"]')
    assert await page.app.peer.gone(), "accepted by the app it is the page's socket, and the one before is let go"
    await page.released("reloaded")
    page.app.peer.close()
    browser.close_frame(1001)
    await app.hear_control()
    await over(replace(page, app=app), browser)


async def test_guesses_of_an_older_pages_document_end_their_connections(stage: Stage) -> None:
    name = Name(implicit=False)
    page = await parked(stage, name)
    for number in range(20):
        peer = await page.running.client()
        guess = replace(name, document=f"guess-{number}")
        peer.send(guess.ask() + client(b"40") + client(guess.handshake(1)) + client(name.handshake(2)))
        await peer.head()
        browser = End(peer, masks=True)
        await browser.hear()
        await browser.hear()
        await browser.hears(b"431[false]")
        assert await peer.rest() == b"", "one guess for each connection"
        await eventually(lambda: not page.running.downstreams, "it is closed")
    await page.parked()
    assert page.running.proxy.buffered.total == 0
    browser = await page.back()
    await browser.hears(update(0))
    browser.peer.reset()
    await page.parked()
    await over(page)


async def test_bytes_that_are_no_frames_reach_an_app_only_as_they_would_without_parking(stage: Stage) -> None:
    page = await one(stage)
    noise = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
    page.browser.say(click(1))
    page.browser.peer.send(noise)
    await page.app.hears(click(1))
    assert await page.app.peer.exactly(len(noise)) == noise
    page.browser.peer.reset()
    assert await page.app.peer.gone() in (True, False), "a stream that cannot be followed is not parked"
    page.app.peer.close()
    await page.running.quiet()
    page.empty()


async def test_a_page_that_has_much_to_catch_up_with_is_paced_by_heartbeats(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    page = await open_page(running, backend)
    page.browser.peer.reset()
    await page.parked()
    updates = [update(number) for number in range(100)]
    page.app.say(*updates)
    await eventually(lambda: page.parking.kept_bytes > sum(map(len, updates)), "all is kept")
    browser = await page.back()
    for start in range(0, 96, 32):
        await browser.hears(*updates[start : start + 32], b"2")
    await browser.hears(*updates[96:])
    kept_bytes = page.parking.kept_bytes
    browser.say(b"3")
    await eventually(lambda: page.parking.kept_bytes < kept_bytes, "so much of it has come")
    browser.say(b"3", b"3", click(1))
    await page.app.hears(click(1))  # but not the answers, for which it has not asked
    await beat(page, browser)
    page.settled()
