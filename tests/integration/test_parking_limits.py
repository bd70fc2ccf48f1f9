"""What parking costs is bounded: slow browsers, slow apps, many pages, much that is pushed; and nothing stalls."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from stickyproxy.core.limits import Limit
from stickyproxy.core.settings import Settings, TimeSettings
from stickyproxy.dataplane.dispersal import Watch
from tests.fakes.websocket import KEY, PING, PONG, client, frame, server

from .harness import QUICK, Stage, eventually, settles, soon, turns
from .parking import PARKING, End, Name, Page, beat, click, open_page, open_socket, parking, update
from .test_parking import IMPLICIT, one
from .test_streaming import ENOUGH, MB, SMALL

TEXT_BYTES = 50_000
PAGE_BYTES = 1 << 20

pytestmark = pytest.mark.both_loops


class Pusher:
    """An app that pushes as fast as it is taken; `count`: messages that were given to the kernel, or nearly."""

    def __init__(self, end: End, build: Callable[[int], bytes], count: int) -> None:
        self.count = 0
        self.task = asyncio.ensure_future(self._run(end, build, count))

    async def _run(self, end: End, build: Callable[[int], bytes], count: int) -> None:
        for number in range(count):
            end.peer.send(build(number))
            self.count += 1
            await end.peer.writer.drain()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def large(number: int) -> bytes:
    return update(number, "x" * TEXT_BYTES)


def pushed(number: int) -> bytes:
    return server(large(number))


LITTLE = parking(page_bytes=PAGE_BYTES)


async def slow(stage: Stage, settings: Settings = LITTLE, name: Name = IMPLICIT) -> Page:
    """Open a page whose browser takes little at a time."""
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend, settings=settings)
    page = await open_page(running, backend, name, receive_buffer=SMALL)
    await beat(page)
    return page


async def stall(page: Page) -> int:
    """Push until the browser's connection takes no more; give the number of messages."""
    for number in range(ENOUGH // TEXT_BYTES):
        moved = page.tunnel.moved_bytes[1]
        page.app.say(large(number))
        await eventually(lambda moved=moved: page.tunnel.moved_bytes[1] >= moved + TEXT_BYTES, "it has come")
        if not page.tunnel._flowing:
            return number + 1
    raise AssertionError("the kernel took everything")


def waits(page: Page) -> int:
    """Give the bytes that wait in memory for either side, kept ones included."""
    return page.tunnel.waiting_bytes + page.parking.kept_bytes


async def leave(page: Page, *browsers: End) -> None:
    for browser in (*browsers, page.browser):
        browser.peer.reset()
    page.app.leaves()
    await page.running.quiet()
    page.empty()


# Slow browsers.


async def test_a_browser_that_takes_nothing_holds_its_app_up_and_gets_everything_in_order(stage: Stage) -> None:
    page = await slow(stage)
    total = 64 * MB // TEXT_BYTES
    pusher = Pusher(page.app, pushed, total)
    assert await settles(lambda: pusher.count) < ENOUGH // TEXT_BYTES
    assert waits(page) < PAGE_BYTES + 2 * MB
    page.browser.say(click(1))
    await page.app.hears(click(1))

    async def read() -> None:
        for number in range(total):
            await page.browser.hears(large(number))

    await soon(read(), bound_s=60)
    await pusher.task
    await beat(page)
    assert page.parking.kept_bytes == 0
    await leave(page)


@pytest.mark.parametrize("kind", ["not NiceGUI's", "longer than can be kept"])
async def test_what_cannot_be_kept_waits_in_its_app_and_not_in_memory(stage: Stage, kind: str) -> None:
    backend = await stage.backend(receive_buffer=SMALL)
    running = await stage.proxy(backend, settings=parking(page_bytes=PAGE_BYTES))
    opened = await open_socket(running, backend, IMPLICIT.ask(), receive_buffer=SMALL)
    app, browser = opened.app, opened.browser
    if kind == "not NiceGUI's":
        app.say(b"something else")
        await browser.hears(b"something else")
        count, build = 64 * MB // TEXT_BYTES, pushed
    else:
        app.say(b'0{"sid":"x","more":1}', b'40{"sid":"y"}')
        await browser.hears(b'0{"sid":"x","more":1}', b'40{"sid":"y"}')
        count, build = 6, lambda number: server(bytes((number + 48,)) * (10 * MB))
    pusher = Pusher(app, build, count)
    (tunnel,) = running.proxy.tunnels
    assert tunnel.downstream is not None
    transport = tunnel.downstream.transport
    await eventually(lambda: transport.get_write_buffer_size(), "the browser is slow")
    await settles(lambda: app.peer.writer.transport.get_write_buffer_size())
    assert tunnel.waiting_bytes + (running.proxy.parking.kept_bytes if running.proxy.parking else 0) < 3 * MB
    expected = b"".join(map(build, range(count)))
    assert await soon(browser.peer.exactly(len(expected)), bound_s=60) == expected
    await pusher.task
    browser.peer.close()
    app.peer.close()
    await running.quiet()


async def test_a_slow_browser_whose_page_is_moved_holds_its_app_up_still(stage: Stage) -> None:
    page = await slow(stage)
    total = 64 * MB // TEXT_BYTES
    pusher = Pusher(page.app, pushed, total)
    await settles(lambda: pusher.count)
    Watch.of(page.tunnel, asyncio.get_running_loop().time)
    assert page.parking.kept_bytes == 0
    assert await settles(lambda: pusher.count) < ENOUGH // TEXT_BYTES
    assert waits(page) < PAGE_BYTES + 2 * MB

    async def read() -> None:
        for number in range(total):
            await page.browser.hears(large(number))

    await soon(read(), bound_s=60)
    await pusher.task
    page.browser.peer.close()
    page.app.peer.close()
    await page.running.quiet()
    page.empty()


async def test_a_browser_that_takes_nothing_for_long_is_cut_off_and_its_page_parked(stage: Stage) -> None:
    settings = replace(parking(page_bytes=ENOUGH), times=TimeSettings(sweep_s=0.02, body_s=0.1))
    page = await slow(stage, settings)
    count = await stall(page)
    await page.parked()
    assert page.running.proxy.admission.places.taken == 0
    page.running.proxy.times = QUICK
    browser = await page.back()
    await browser.catches_up(*map(large, range(count)))
    await beat(page, browser)
    await leave(page, browser)


async def test_a_slow_browser_that_closes_leaves_nothing_in_memory(stage: Stage) -> None:
    """Else each return of a browser that takes nothing would cost what is kept for it once more."""
    page = await slow(stage, parking(page_bytes=ENOUGH))
    await stall(page)
    assert page.tunnel.downstream is not None
    transport = page.tunnel.downstream.transport
    page.browser.close_frame()
    await page.parked()
    await eventually(lambda: not transport.get_write_buffer_size(), "it is gone at once")
    assert page.running.proxy.buffered.total == 0
    await leave(page)


async def test_a_browser_that_closes_and_never_ends_is_dropped(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.parking.LINGER_S", 0.01)
    page = await one(stage)
    page.browser.close_frame()
    await page.parked()
    assert await page.browser.hear_control() == (0x88, b"")
    assert await page.browser.peer.gone() in (True, False)
    await leave(page)


class Another:
    """Somebody else whose bytes wait."""

    dropped = False

    def drop(self) -> None:
        self.dropped = True


async def test_too_much_that_waits_cuts_a_slow_browser_off_and_parks_its_page(stage: Stage) -> None:
    page = await slow(stage, parking(page_bytes=ENOUGH))
    count = await stall(page)
    buffered, another = page.running.proxy.buffered, Another()
    assert buffered.total > 0
    buffered.hold(another, page.running.proxy.settings.limits.buffered_bytes)
    assert not another.dropped
    buffered.hold(another, 0)
    await page.parked()
    assert page.running.proxy.counters.limits[Limit.BUFFERED] == 1
    browser = await page.back()
    await browser.catches_up(*map(large, range(count)))
    await leave(page, browser)


async def test_what_a_slow_browser_gets_before_its_app_closes_comes_once(stage: Stage) -> None:
    page = await slow(stage, parking(page_bytes=ENOUGH))
    count = await stall(page)
    page.app.say(large(count), large(count + 1))
    page.app.close_frame(1000)
    page.app.peer.close()
    await page.browser.hears(*map(large, range(count + 2)))
    assert await page.browser.hear_control() == (0x88, (1000).to_bytes(2, "big"))
    assert await page.browser.peer.rest() == b""
    page.browser.peer.close()
    await page.running.quiet()
    page.empty()


# Slow apps.


async def test_who_comes_back_to_an_app_that_takes_nothing_is_held_up(stage: Stage) -> None:
    page = await slow(stage)
    flood = client(b"x" * TEXT_BYTES)
    pusher = Pusher(page.browser, lambda _: flood, 64 * MB // TEXT_BYTES)
    assert await settles(lambda: pusher.count) < ENOUGH // TEXT_BYTES
    await pusher.stop()
    browser = await page.back()
    pusher = Pusher(browser, lambda _: flood, 64 * MB // TEXT_BYTES)
    assert await settles(lambda: pusher.count) < ENOUGH // TEXT_BYTES
    assert waits(page) < 2 * MB
    assert page.running.proxy.buffered.total == page.tunnel.waiting_bytes > 0
    await pusher.stop()
    await leave(page, browser)


async def test_an_app_that_takes_nothing_ends_its_page_in_time(stage: Stage) -> None:
    settings = replace(PARKING, times=TimeSettings(sweep_s=0.02, body_s=0.1))
    page = await slow(stage, settings)
    pusher = Pusher(page.browser, lambda _: client(b"x" * TEXT_BYTES), 64 * MB // TEXT_BYTES)
    await page.running.quiet()
    await pusher.stop()
    page.empty()
    assert page.running.proxy.counters.tunnel_ends["idle"] == 1


# What is kept.


async def outgrows(page: Page, build: Callable[[int], bytes]) -> None:
    """Send messages to a parked page until it is let go for them, with all that was kept."""
    pusher = Pusher(page.app, build, 64)
    await page.released("memory")
    await page.running.quiet()
    page.empty()
    await pusher.stop()
    page.app.peer.close()


async def test_a_parked_page_that_is_sent_too_much_is_let_go(stage: Stage) -> None:
    page = await slow(stage)
    page.browser.peer.reset()
    await page.parked()
    await outgrows(page, pushed)


async def test_a_parked_page_that_is_sent_one_message_too_long_is_let_go(stage: Stage) -> None:
    page = await slow(stage)
    page.browser.peer.reset()
    await page.parked()
    page.app.say(b"x" * (4 * MB))
    await page.released("memory")
    await page.running.quiet()
    page.empty()


async def test_who_has_been_sent_too_much_since_its_last_heartbeat_is_not_waited_for_until_the_next(
    stage: Stage,
) -> None:
    page = await slow(stage)
    for number in range(30):
        page.app.say(large(number))
        await page.browser.hears(large(number))
    assert page.parking.kept_bytes < PAGE_BYTES
    assert not page.tunnel.can_park
    await beat(page)
    assert page.tunnel.can_park
    page.app.say(large(30))
    await page.browser.hears(large(30))
    page.browser.peer.reset()
    await page.parked()
    browser = await page.back()
    await browser.hears(large(30))
    for number in range(31, 61):
        page.app.say(large(number))
        await browser.hears(large(number))
    browser.peer.reset()
    assert await page.app.peer.gone()
    assert page.running.proxy.counters.parked == 1
    page.app.peer.close()
    await page.running.quiet()
    page.empty()


async def several(stage: Stage, count: int, settings: Settings) -> list[Page]:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=settings)
    names = [Name(page=f"{number}", document=f"d{number}", tab=f"t{number}") for number in range(count)]
    return [await open_page(running, backend, name) for name in names]


async def end_all(pages: list[Page]) -> None:
    for page in pages:
        page.browser.peer.close()
        page.app.leaves()
    await pages[0].running.quiet()
    pages[0].empty()


async def test_who_has_been_away_longest_makes_room_in_number(stage: Stage) -> None:
    pages = await several(stage, 4, parking(pages=2))
    for page in pages:
        page.browser.peer.reset()
        await eventually(
            lambda page=page: page.running.proxy.counters.parked == int(page.name.page) + 1, "it is parked"
        )
    assert [tunnel.page for tunnel in pages[0].parking.away] == [b"2", b"3"]
    for page in pages[:2]:
        assert await page.app.peer.gone()
    await pages[0].released("pages", 2)
    await end_all(pages)


async def test_who_has_been_away_longest_makes_room_in_memory(stage: Stage) -> None:
    pages = await several(stage, 3, parking(total_bytes=4 * TEXT_BYTES + 1000))
    for page in pages[:2]:
        page.browser.peer.reset()
        await eventually(
            lambda page=page: page.running.proxy.counters.parked == int(page.name.page) + 1, "it is parked"
        )
        page.app.say(large(0))
        await eventually(
            lambda page=page: page.parking.kept_bytes > (int(page.name.page) + 1) * TEXT_BYTES, "it is kept"
        )
    present = pages[2]
    for number in range(3):
        present.app.say(large(number))
        await present.browser.hears(large(number))
    assert await pages[0].app.peer.gone()
    await pages[0].released("memory")
    assert pages[0].parking.kept_bytes <= 4 * TEXT_BYTES + 1000
    for number in range(3, 10):
        present.app.say(large(number))
        await present.browser.hears(large(number))
    await pages[0].released("memory", 2)
    assert pages[0].parking.kept_bytes <= 4 * TEXT_BYTES + 1000
    await end_all(pages)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser that does not answer at once is thought to be away."""
    monkeypatch.setattr("stickyproxy.dataplane.parking.PATIENCE_S", 0.01)


@pytest.mark.usefixtures("hasty")
async def test_who_was_let_go_while_only_silent_is_not_parked_anew_before_it_answers(stage: Stage) -> None:
    silent, parked = await several(stage, 2, parking(pages=1))
    silent.app.say(b"2")
    await silent.app.hears(b"3")
    await silent.away()
    parked.browser.peer.reset()
    await silent.released("pages")
    await parked.parked()
    silent.app.say(b"2", b"2", b"2")
    await silent.browser.hears(b"2", b"2", b"2", b"2")
    await turns(1000)
    assert [tunnel.page for tunnel in silent.parking.away] == [b"1"]
    silent.browser.say(b"3", b"3", b"3", b"3")
    await silent.app.hears(b"3", b"3", b"3")
    silent.app.say(b"2")
    await silent.app.hears(b"3")
    await silent.released("pages", 2)
    assert [tunnel.page for tunnel in silent.parking.away] == [b"0"]
    await end_all([silent, parked])


# Heartbeats.


async def heartbeats(page: Page, count: int) -> None:
    """See that an app has got so many answers, and not one more."""
    for _ in range(count):
        assert await page.app.hear() == b"3"
    page.browser.say(click(99))
    await page.app.hears(click(99))


@pytest.mark.usefixtures("hasty")
async def test_who_is_silent_is_answered_for_and_its_late_answers_are_not_passed_on(stage: Stage) -> None:
    page = await one(stage)
    await beat(page)
    for number in range(3):
        page.app.say(b"2", update(number))
        await page.app.hears(b"3")
    await page.away()
    await page.browser.hears(b"2", update(0), b"2", update(1), b"2", update(2))
    page.browser.say(b"3", b"3", b"3")
    await eventually(lambda: not page.parking.away, "it is back")
    await heartbeats(page, 0)
    assert page.running.proxy.counters.parked_returns == {"new": 0, "old": 1}
    await beat(page)
    assert page.parking.kept_bytes == 0
    await leave(page)


@pytest.mark.usefixtures("hasty")
async def test_a_late_answer_is_not_taken_for_that_to_the_next_heartbeat(stage: Stage) -> None:
    page = await one(stage)
    page.app.say(b"2")
    await page.app.hears(b"3")
    page.app.say(b"2")
    await page.app.hears(b"3")
    page.browser.say(b"3")
    await eventually(lambda: not page.parking.away, "it is back, with one answer that it still owes")
    page.app.say(b"2")
    page.browser.say(b"3")
    await page.app.hears(b"3")
    assert page.parking.away, "which is not the answer to the third one"
    await leave(page)


@pytest.mark.usefixtures("hasty")
async def test_nothing_is_said_for_a_browser_in_the_middle_of_what_it_says(stage: Stage) -> None:
    page = await one(stage)
    page.app.say(b"2")
    await page.app.hears(b"3")
    await page.away()
    long = page.browser.frame(bytes(2 * MB), 0x2)
    page.browser.peer.send(long[: 3 * MB // 2])
    assert await page.app.peer.exactly(MB) == long[:MB]
    assert not page.parking.away, "it is there, as it speaks"
    page.app.peer.send(frame(b"", PING) + server(b"2"))
    await page.browser.hears(b"2")
    assert await page.browser.hear_control() == (0x89, b"")
    await page.browser.hears(b"2")
    page.browser.peer.send(long[3 * MB // 2 :])
    assert await page.app.peer.exactly(MB + 14) == long[MB:]
    page.browser.say(b"3", b"3")
    await page.app.hears(b"3")
    await leave(page)


@pytest.mark.usefixtures("hasty")
async def test_a_silent_browser_that_comes_back_by_a_new_connection_has_nothing_doubled(stage: Stage) -> None:
    page = await one(stage)
    await beat(page)
    page.app.say(update(0), b"2", update(1))
    await page.app.hears(b"3")
    page.app.say(b"2", update(2))
    await page.app.hears(b"3")
    page.browser.close_frame()
    await page.parked()
    browser = await page.back(said=(click(1),))
    await browser.hears(update(0), update(1), update(2))
    await page.app.hears(click(1))
    await beat(page, browser)
    page.settled()
    await leave(page, browser)


@pytest.mark.usefixtures("hasty")
async def test_a_silent_browser_that_says_good_bye_is_back_and_gone(stage: Stage) -> None:
    page = await one(stage)
    page.app.say(b"2")
    await page.app.hears(b"3")
    page.browser.close_frame(1001)
    assert (await page.app.hear_control())[0] == 0x88
    assert page.running.proxy.counters.parked_returns == {"new": 0, "old": 1}
    await leave(page)


@pytest.mark.usefixtures("hasty")
async def test_a_silent_browser_whose_app_closes_is_let_go(stage: Stage) -> None:
    page = await one(stage)
    page.app.say(b"2")
    await page.app.hears(b"3")
    page.app.say(b"41")
    page.app.close_frame(1000)
    page.app.peer.close()
    await page.browser.hears(b"2", b"41")
    assert (await page.browser.hear_control())[0] == 0x88
    page.browser.peer.close()
    await page.running.quiet()
    await page.released("backend")
    page.empty()


async def test_the_sockets_own_pings_are_answered_while_nobody_is_there(stage: Stage) -> None:
    page = await one(stage)
    page.app.peer.send(frame(b"one", PING))
    assert await page.browser.hear_control() == (0x89, b"one")
    page.browser.peer.send(frame(b"one", PONG, key=KEY))
    assert await page.app.hear_control() == (0x8A, b"one")
    page.app.peer.send(frame(b"two", PING))
    assert await page.browser.hear_control() == (0x89, b"two")
    page.browser.peer.reset()
    assert await page.app.hear_control() == (0x8A, b"two")
    await page.parked()
    page.app.peer.send(frame(b"three", PING) + server(b"2") + frame(b"", PONG))
    assert await page.app.hear_control() == (0x8A, b"three")
    await page.app.hears(b"3")
    browser = await page.back()
    page.app.peer.send(frame(b"four", PING))
    assert await browser.hear_control() == (0x89, b"four")
    await leave(page, browser)


@pytest.mark.usefixtures("hasty")
async def test_the_sockets_own_pings_are_answered_for_who_is_silent(stage: Stage) -> None:
    page = await one(stage)
    page.app.peer.send(frame(b"one", PING) + server(b"2"))
    await page.app.hears(b"3")
    assert await page.app.hear_control() == (0x8A, b"one")
    page.app.peer.send(frame(b"two", PING))
    assert await page.app.hear_control() == (0x8A, b"two")
    await leave(page)


async def test_an_app_that_says_much_and_a_browser_that_only_answers_hold_nobody_up(stage: Stage) -> None:
    """32,000 answers to nothing, while 20,000 messages are kept, would have taken half a minute of the event loop."""
    page = await one(stage)
    messages = [update(number) for number in range(20_000)]
    page.app.say(*messages)
    await page.browser.hears(*messages)
    page.browser.peer.send(client(b"3") * 32_000)
    page.browser.say(click(1))
    for _ in range(32_000):
        await page.app.hears(b"3")
    await page.app.hears(click(1))
    await leave(page)
