"""An app that closes a parked page's socket and goes on is asked for another one, unless it has meant to."""

from collections.abc import Callable

import pytest

from stickyproxy.core.backends import Phase
from stickyproxy.core.messages import accept_key
from stickyproxy.core.settings import Settings

from .harness import Message, Stage, eventually, response, turns
from .parking import (
    DEFLATE,
    PARKING,
    RECONNECTED,
    REOPENED,
    End,
    Name,
    Page,
    beat,
    click,
    open_page,
    switch,
    update,
)
from .test_parking import BOTH, EXPLICIT, IMPLICIT, one
from .test_parking_limits import LITTLE, large, outgrows, pushed

pytestmark = pytest.mark.both_loops

REFUSED = b'44{"message":"Implicit handshake failed"}'


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a browser for silent at once, and give a backend little time."""
    monkeypatch.setattr("stickyproxy.dataplane.parking.PATIENCE_S", 0.01)
    monkeypatch.setattr("stickyproxy.dataplane.reopening.BEGIN_S", 0.1)
    monkeypatch.setattr("stickyproxy.dataplane.reopening.RETRY_S", 0.02)
    monkeypatch.setattr("stickyproxy.dataplane.reopening.ANSWER_S", 0.1)
    monkeypatch.setattr("stickyproxy.dataplane.reopening.PAUSE_S", 0.01)


def closes(page: Page, how: str = "closes") -> None:
    """Let the app close the page's socket, as one does that has stood still."""
    if how == "closes":
        page.app.close_frame(1000)
    elif how == "ends":
        page.app.peer.close()
    else:
        page.app.peer.reset()


async def parked(stage: Stage, name: Name = IMPLICIT, *, settings: Settings | None = None, **more: str) -> Page:
    """Park a page that has two updates, one of them acknowledged, and is sent a third."""
    if settings is None:
        page = await one(stage, name, **more)
    else:
        backend = await stage.backend()
        page = await open_page(await stage.proxy(backend, settings=settings), backend, name, **more)
    page.app.say(update(0))
    await page.browser.hears(update(0))
    await beat(page)
    page.app.say(update(1))
    await page.browser.hears(update(1))
    page.browser.peer.reset()
    await page.parked()
    page.app.say(update(2))
    await eventually(lambda: page.tunnel.tail is not None and len(page.tunnel.tail.units) == 2, "both are kept")
    return page


def accepting(asked: Message) -> bytes:
    """Build the answer by which an app accepts a socket."""
    return switch(accept=accept_key((asked.get("sec-websocket-key") or "").encode()).decode())


def outcomes(page: Page) -> tuple[int, int]:
    """Give how often another socket was kept, and how often there was none."""
    counted = page.running.proxy.counters.parked_reopened
    return counted["kept"], counted["failed"]


async def returns(page: Page, *texts: bytes) -> None:
    """Come back, find these very messages and a page that works, and end."""
    browser = await page.back(extensions=DEFLATE if page.app.compressed else "")
    await browser.hears(*texts)
    browser.say(click(1))
    await page.app.hears(click(1))
    await beat(page, browser)
    page.app.say(update(9))
    await browser.hears(update(9))
    browser.close_frame(1001)
    await page.app.hear_control()
    browser.peer.close()
    await page.ends()


# What is kept.


@BOTH
@pytest.mark.parametrize("how", ["closes", "ends", "is reset"])
async def test_a_parked_page_goes_on_by_another_socket(stage: Stage, name: Name, how: str) -> None:
    page = await parked(stage, name)
    before, since = page.app, page.tunnel.away_since
    closes(page, how)
    asked = await page.reopened(3, update(3))
    if how == "closes":
        assert (await before.hear_control())[0] == 0x88
        assert await before.peer.gone()
    assert asked.target == page.asked.target.replace("next_message_id=0", "next_message_id=3")
    ours = ("sec-websocket-key",)
    assert [f for f in asked.fields if f[0] not in ours] == [f for f in page.asked.fields if f[0] not in ours]
    assert asked.get("sec-websocket-key") != page.asked.get("sec-websocket-key")
    assert (page.tunnel.away_since, list(page.parking.away)) == (since, [page.tunnel])
    assert outcomes(page) == (1, 0)
    await returns(page, update(1), update(2), update(3))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["closes", "ends", "is reset"])
async def test_a_page_whose_browser_is_only_silent_goes_on_by_another_socket(stage: Stage, how: str) -> None:
    page = await one(stage)
    page.app.say(update(0), b"2")
    await page.browser.hears(update(0), b"2")
    await page.app.hears(b"3")
    await page.away()
    closes(page, how)
    await page.reopened(1, update(1))
    assert await page.browser.hear_control() == (0x88, b""), "upon which the browser comes back, if it is there"
    await returns(page, update(0), update(1))


async def test_compressed_messages_are_kept_and_counted_on(stage: Stage) -> None:
    page = await parked(stage, offer=DEFLATE, agreed=DEFLATE)
    closes(page)
    await page.reopened(3, update(3))
    await returns(page, update(1), update(2), update(3))


async def test_a_page_that_was_sent_nothing_since_its_last_heartbeat_knows_where_it_stands(stage: Stage) -> None:
    page = await one(stage)
    page.app.say(update(0), update(1))
    await page.browser.hears(update(0), update(1))
    await beat(page)
    await beat(page)
    page.browser.peer.reset()
    await page.parked()
    closes(page)
    await page.reopened(2, update(2))
    await returns(page, update(2))


@BOTH
async def test_a_page_that_was_never_sent_anything_asks_for_what_it_said_at_first(stage: Stage, name: Name) -> None:
    page = await one(stage, name)
    page.browser.peer.reset()
    await page.parked()
    closes(page)
    await page.reopened(0, update(0))
    await returns(page, update(0))


async def test_what_an_app_sends_again_is_kept_once(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    await page.reopened(3, update(1), update(2), b'42["mine",{}]', update(3), update(4))
    await returns(page, update(1), update(2), b'42["mine",{}]', update(3), update(4))


async def test_what_comes_before_the_page_is_connected_is_kept_too(stage: Stage) -> None:
    page = await parked(stage, EXPLICIT)
    closes(page)
    asked, page.app = await page.asked_again()
    page.accept(asked)
    await page.app.hears(b"40")
    page.app.say(RECONNECTED)
    await page.app.hears(page.name.handshake(0, 3))
    page.app.say(update(3), b"430[true]", update(4))
    await returns(page, update(1), update(2), update(3), update(4))


@pytest.mark.parametrize("size", [1, 7])
async def test_the_new_socket_may_begin_in_pieces(stage: Stage, size: int) -> None:
    page = await parked(stage)
    closes(page)
    asked, page.app = await page.asked_again()
    accept = accept_key((asked.get("sec-websocket-key") or "").encode()).decode()
    parts = [
        switch(accept=accept),
        *(page.app.frame(text, 1) for text in (REOPENED, RECONNECTED, update(3), update(4))),
    ]
    data = b"".join(parts)
    for at in range(0, len(data), size):
        page.app.peer.send(data[at : at + size])
        await turns(1)
    await page.app.hears(b"40")
    await returns(page, update(1), update(2), update(3), update(4))


async def test_heartbeats_on_the_new_socket_are_answered(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    await page.reopened(3)
    page.app.say(b"2")
    await page.app.hears(b"3")
    page.app.peer.send(page.app.frame(b"are you there?", 0x9))
    assert await page.app.hear_control() == (0x8A, b"are you there?")
    page.app.say(update(3))
    await returns(page, update(1), update(2), update(3))


@pytest.mark.usefixtures("hasty")
async def test_an_app_that_stands_still_again_and_again_is_asked_again(stage: Stage) -> None:
    page = await parked(stage)
    for number in range(3, 6):
        closes(page)
        await page.reopened(number, update(number))
        await eventually(lambda: page.tunnel.reopening and page.tunnel.reopening.settled, "it has come")
    closes(page)
    await page.reopened(6)
    closes(page)
    await page.reopened(6, update(6))
    assert outcomes(page) == (5, 0)
    await returns(page, *map(update, range(1, 7)))


async def test_an_app_that_closes_each_new_socket_is_not_asked_at_once(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    await page.reopened(3)
    closes(page)
    await eventually(lambda: page.tunnel.reopens, "it has closed")
    await turns(1000)
    assert page.backend.connections == 2
    await page.reopened(3, update(3))
    await returns(page, update(1), update(2), update(3))


async def test_a_browser_may_be_back_before_anything_has_come_by_the_new_socket(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    await page.reopened(3)
    browser = await page.back()
    await browser.hears(update(1), update(2))
    page.app.say(update(2), update(3))
    await browser.hears(update(3))
    assert page.tunnel.upstream is not None
    await eventually(lambda: page.tunnel.upstream.tail is not None, "messages go straight through again")
    browser.peer.reset()
    await page.parked()
    await returns(page, update(1), update(2), update(3))


# Browsers that come back meanwhile.


@BOTH
async def test_who_comes_back_meanwhile_waits_for_the_new_socket(stage: Stage, name: Name) -> None:
    page = await parked(stage, name)
    closes(page)
    asked, app = await page.asked_again()
    browser = await page.back(said=(click(1),))
    browser.say(click(2))
    await turns()
    page.app = app
    page.accept(asked)
    await app.hears(b"40")
    app.say(RECONNECTED)
    if not name.implicit:
        await app.hears(name.handshake(0, 3))
        app.say(b"430[true]")
    app.say(update(3))
    await browser.hears(update(1), update(2), update(3))
    await app.hears(click(1), click(2))
    await beat(page, browser)
    page.settled()
    browser.peer.reset()
    await page.parked()
    await page.ends()


@pytest.mark.usefixtures("hasty")
async def test_who_comes_back_meanwhile_is_sent_away_if_there_is_no_new_socket(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    _, app = await page.asked_again()
    browser = await page.back()
    await page.backend.stop_listening()
    app.peer.close()
    await page.released("backend")
    assert await browser.peer.gone()
    browser.peer.close()
    await page.running.quiet()
    page.empty()


async def test_who_comes_back_meanwhile_and_leaves_again_changes_nothing(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    asked, app = await page.asked_again()
    browser = await page.back()
    browser.peer.reset()
    await eventually(lambda: not page.running.downstreams, "it has gone")
    page.app = app
    app.peer.send(accepting(asked))
    app.say(REOPENED, RECONNECTED, update(3))
    await app.hears(b"40")
    await eventually(lambda: not page.tunnel.reopens, "it has another socket")
    assert list(page.parking.away) == [page.tunnel]
    await returns(page, update(1), update(2), update(3))


async def test_a_stranger_who_comes_meanwhile_gets_nothing_that_was_kept(stage: Stage) -> None:
    page = await parked(stage, EXPLICIT)
    closes(page)
    _, app = await page.asked_again()
    peer = await page.running.client()
    peer.send(EXPLICIT.ask())
    await peer.head()
    stranger = End(peer, masks=True)
    await stranger.hear()
    stranger.say(b"40")
    assert (await stranger.hear())[:2] == b"40"
    stranger.say(Name(document="guess", implicit=False).handshake(0))
    await stranger.hears(b"430[false]")
    assert await peer.gone()
    peer.close()
    app.peer.close()
    await page.backend.stop_listening()
    await page.released("backend")
    await page.running.quiet()
    page.empty()


# What ends it.


async def begun(stage: Stage, settings: Settings | None = None) -> tuple[Page, End]:
    """Let a parked page's app be asked for another socket, which it does not answer."""
    page = await parked(stage, settings=settings)
    closes(page)
    _, app = await page.asked_again()
    return page, app


async def gone(page: Page, app: End, reason: str, failed: int) -> None:
    """See that a page was let go, and its new socket dropped."""
    await page.released(reason)
    await app.peer.gone()
    assert outcomes(page) == (0, failed)
    await page.running.quiet()
    page.empty()
    assert not page.running.proxy.pools[page.backend.at().identity].upstreams


async def test_the_time_of_a_page_is_over_counted_from_its_going(stage: Stage) -> None:
    page, app = await begun(stage)
    over = page.tunnel.away_since + page.parking.settings.park_s
    page.parking.expire(over - 1)
    await turns()
    assert page.tunnel.reopens
    page.parking.expire(over + 1)
    await gone(page, app, "timeout", 0)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_proxy_that_leaves_waits_for_no_new_socket(stage: Stage, kept: bool) -> None:
    page, app = await begun(stage)
    if kept:
        page.running.proxy.announce()
        await gone(page, app, "drain", 0)
    else:
        await page.running.proxy.close()
        await gone(page, app, "backend", 0)


async def test_a_backend_that_is_emptied_meanwhile_is_waited_for_no_more(stage: Stage) -> None:
    page, app = await begun(stage)
    page.parking.leave(page.backend.at().identity)
    await gone(page, app, "drain", 0)


async def test_a_new_page_of_the_tab_ends_it(stage: Stage) -> None:
    page, app = await begun(stage)
    new = await open_page(page.running, page.backend, Name("c0de", "d-2", "t-1"))
    await page.released("reloaded")
    await app.peer.gone()
    await beat(new)
    new.browser.peer.reset()
    await new.parked()
    await new.ends()


async def test_too_much_on_the_new_socket_is_too_much(stage: Stage) -> None:
    page = await parked(stage, settings=LITTLE)
    closes(page)
    await page.reopened(3)
    await outgrows(page, lambda number: pushed(number + 3))


async def test_too_much_before_the_page_is_connected_is_too_much(stage: Stage) -> None:
    page = await parked(stage, EXPLICIT, settings=LITTLE)
    closes(page)
    asked, app = await page.asked_again()
    app.peer.send(accepting(asked))
    app.say(REOPENED, RECONNECTED, *map(large, range(3, 64)))
    await gone(page, app, "backend", 1)


@pytest.mark.parametrize("texts", [(update(4),), (update(3), update(4)), (b"x" * 5,)], ids=["gap", "none", "apart"])
async def test_a_page_that_misses_something_is_let_go(stage: Stage, texts: tuple[bytes, ...]) -> None:
    """NiceGUI's history was too short: it sends what it has, and tells the page to reload."""
    page = await parked(stage)
    closes(page)
    await page.reopened(3, *texts)
    if texts[0] == update(4):
        await page.released("backend")
        assert await page.app.peer.gone()
        page.app.peer.close()
        await page.running.quiet()
        page.empty()
    else:
        await returns(page, update(1), update(2), *texts)


@BOTH
@pytest.mark.parametrize("word", [REFUSED, b"41", b"1"])
async def test_an_app_that_does_not_know_the_page_any_more_is_asked_once(stage: Stage, name: Name, word: bytes) -> None:
    page = await parked(stage, name)
    closes(page)
    asked, app = await page.asked_again()
    app.peer.send(accepting(asked))
    app.say(REOPENED)
    await app.hears(b"40")
    app.say(word)
    await gone(page, app, "backend", 1)
    assert page.backend.connections == 2


async def test_an_older_app_that_does_not_know_the_page_any_more_is_asked_once(stage: Stage) -> None:
    page = await parked(stage, EXPLICIT)
    closes(page)
    asked, app = await page.asked_again()
    app.peer.send(accepting(asked))
    app.say(REOPENED, RECONNECTED)
    await app.hears(b"40", page.name.handshake(0, 3))
    app.say(b"430[false]")
    await gone(page, app, "backend", 1)
    assert page.backend.connections == 2


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "answers",
    [
        lambda _: response("503 Service Unavailable"),
        lambda _: response("404 Not Found"),
        lambda _: switch(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        lambda key: switch(DEFLATE, accept_key(key.encode()).decode()),
        lambda _: b"nonsense\r\n\r\n",
        lambda _: b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * (1 << 17),
        lambda _: b"",
    ],
    ids=["503", "404", "key", "extensions", "nonsense", "endless", "silence"],
)
async def test_an_app_that_gives_no_socket_is_asked_for_a_while(stage: Stage, answers: Callable[[str], bytes]) -> None:
    page = await parked(stage)
    closes(page)
    connections = 0
    while outcomes(page) == (0, 0):
        if page.backend.connections > connections + 1:
            asked, app = await page.asked_again()
            connections += 1
            app.peer.send(answers(asked.get("sec-websocket-key") or ""))
        await turns(1)
    assert connections >= 1
    await page.released("backend")
    await page.running.quiet()
    page.empty()


@pytest.mark.usefixtures("hasty")
async def test_an_app_that_drops_the_first_attempts_may_take_a_later_one(stage: Stage) -> None:
    page = await parked(stage)
    closes(page)
    for _ in range(2):
        _, app = await page.asked_again()
        app.peer.reset()
    await page.reopened(3, update(3))
    assert outcomes(page) == (1, 0)
    await returns(page, update(1), update(2), update(3))


async def test_an_app_that_has_died_is_asked_once(stage: Stage) -> None:
    page = await parked(stage)
    await page.backend.stop_listening()
    dials = page.running.proxy.counters.dials
    page.app.peer.reset()
    await page.released("backend")
    assert outcomes(page) == (0, 1)
    assert page.running.proxy.counters.dials == dials + 1
    assert page.running.proxy.counters.tunnel_ends["backend_gone"] == 1
    await page.running.quiet()
    page.empty()


# Who is not asked.


async def not_asked(page: Page) -> None:
    """See that a page is let go without its app being asked for anything."""
    page.app.peer.close()
    await page.released("backend")
    await page.running.quiet()
    page.empty()
    assert (outcomes(page), page.backend.connections) == ((0, 0), 1)


@pytest.mark.parametrize("word", [b"41", b"1"])
@pytest.mark.parametrize("how", ["closes", "ends"])
async def test_an_app_that_disconnects_a_page_on_purpose_is_not_asked(stage: Stage, word: bytes, how: str) -> None:
    page = await parked(stage)
    page.app.say(word)
    closes(page, how)
    await not_asked(page)


@pytest.mark.parametrize("code", [1001, 1012])
async def test_an_app_that_is_about_to_end_is_not_asked(stage: Stage, code: int) -> None:
    page = await parked(stage)
    page.app.close_frame(code)
    await not_asked(page)


@pytest.mark.parametrize("how", ["is draining", "is ordered to drain", "is gone"])
async def test_a_backend_that_is_to_be_left_is_not_asked(stage: Stage, how: str) -> None:
    page = await parked(stage)
    identity, other = page.backend.at().identity, await stage.backend()
    match how:
        case "is draining":
            page.running.apply(page.backend.at(Phase.DRAINING), other.at())
        case "is ordered to drain":
            page.running.proxy.drains.drain(identity)
        case _:
            page.running.apply(other.at())
    closes(page)
    await not_asked(page)


async def test_a_backend_that_is_only_not_ready_is_asked(stage: Stage) -> None:
    """One whose event loop stands still does not answer its probes either."""
    page = await parked(stage)
    page.running.apply(page.backend.at(Phase.PAUSED))
    closes(page)
    await page.reopened(3, update(3))
    await returns(page, update(1), update(2), update(3))


async def test_a_page_that_is_not_known_to_have_everything_is_let_go(stage: Stage) -> None:
    """It was sent too much at once, of which nothing was kept, and nothing since."""
    backend = await stage.backend()
    page = await open_page(await stage.proxy(backend, settings=LITTLE), backend)
    for number in range(30):
        page.app.say(large(number))
        await page.browser.hears(large(number))
    await beat(page)
    page.browser.peer.reset()
    await page.parked()
    closes(page)
    await not_asked(page)


async def test_an_app_is_not_asked_by_a_request_that_was_too_long_to_be_kept(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    noise = "".join(f"{number * number % 251:02x}{number}" for number in range(4000))
    page = await open_page(running, backend, IMPLICIT, running.cookie(backend), f"X-Noise: {noise}")
    page.app.say(update(0))
    await page.browser.hears(update(0))
    page.browser.peer.reset()
    await page.parked()
    browser = await page.back()
    await browser.hears(update(0))
    browser.peer.reset()
    await page.parked()
    closes(page)
    await not_asked(page)


async def test_an_app_that_closes_on_a_browser_that_is_there_is_not_asked(stage: Stage) -> None:
    page = await one(stage)
    await beat(page)
    closes(page)
    assert await page.browser.hear_control() == (0x88, (1000).to_bytes(2, "big"))
    page.browser.close_frame(1000)
    page.app.peer.close()
    page.browser.peer.close()
    await page.running.quiet()
    page.empty()
    assert (outcomes(page), page.backend.connections) == ((0, 0), 1)
