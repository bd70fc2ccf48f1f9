"""Pages, browsers that go and come as they like, and apps that push: nothing is lost, doubled, leaked or left over."""

import asyncio
import heapq
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stickyproxy.core.balance import Load
from stickyproxy.core.counters import Counters
from stickyproxy.core.frames import CONTROL
from stickyproxy.core.messages import Cutter, unmask
from stickyproxy.core.parking import OVERHEAD_BYTES, Tail, Who
from stickyproxy.core.reopening import pack
from stickyproxy.core.settings import ParkingSettings, Settings
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.buffered import Buffered
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.parking import PATIENCE_S, Parking
from stickyproxy.dataplane.tunnel import Tunnel
from tests.fakes.websocket import BINARY, CONTINUATION, KEY, PING, TEXT, close, frame

OPENED = b'0{"sid":"x","upgrades":[]}'
CONNECTED = b'40{"sid":"y"}'
UPDATE = re.compile(rb"update (\d+)")
PARK_S = 20.0
PAGE_BYTES = 4000


def frames(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Give first byte and payload of each frame."""
    at = 0
    while at < len(message):
        length, head = message[at + 1] & 0x7F, 2
        if length >= 126:
            head = 4 if length == 126 else 10
            length = int.from_bytes(message[at + 2 : at + head], "big")
        key = b""
        if message[at + 1] & 0x80:
            key = message[at + head : at + head + 4]
            head += 4
        payload = message[at + head : at + head + length]
        yield message[at], unmask(payload, key) if key else payload
        at += head + length


def text_of(message: bytes) -> bytes:
    """Give a message's content, without control frames between its frames."""
    return b"".join(payload for first, payload in frames(message) if not first & CONTROL)


# What may not have been received, against a list.


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 300).map(lambda size: ("keep", size)),
            st.sampled_from([("ping", 0), ("answer", 0), ("drop", 0), ("rewind", 0), ("hold", 0)]),
        ),
        max_size=60,
    )
)
def test_a_tail_is_what_was_sent_since_the_last_answer(steps: list[tuple[str, int]]) -> None:
    tail, total = Tail(), 0
    ping = frame(b"2")
    kept: list[bytes] = []  # the model: everything since the oldest heartbeat that is not answered, or from the start
    owed: list[int | None] = []  # heartbeats to be answered: their positions among all messages, None for dropped ones
    sent, gap, useless, number = 0, False, False, 0
    for step, size in steps:
        if step == "keep":
            number += 1
            unit = frame(b"%d:" % number + bytes(size))
            total += tail.keep(unit)
            if not useless:
                kept.append(unit)
        elif step == "ping":
            total += tail.keep_ping(ping)
            kept.append(ping)
            owed.append(0)
            useless = False
        elif step == "answer":
            total -= tail.acknowledge()
            if owed and owed.pop(0) is not None:
                count = kept.index(ping) + 1
                del kept[:count]
                sent, gap = max(0, sent - count), False
        elif step == "drop":
            total -= tail.drop()
            kept, owed, sent, gap, useless = [], [None for _ in owed], 0, True, True
        elif step == "hold":
            sent = tail.sent = len(tail.units)
        elif not gap:
            total -= tail.rewind()
            kept, owed, sent = [unit for unit in kept if unit != ping], [], 0
        assert tail.units == kept
        assert (tail.gap, tail.sent) == (gap, sent)
        assert tail.size == total == sum(len(unit) + OVERHEAD_BYTES for unit in kept)
        assert tail.idle is not bool(kept or gap or owed)


# Everything together, without sockets and without time.


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop's clock and calls."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: object) -> Timer:
        self._count += 1
        heapq.heappush(self._due, (self.now + delay_s, self._count, lambda: call(*arguments)))
        return Timer()

    def call_soon(self, call: Callable[..., object], *arguments: object) -> Timer:
        return self.call_later(0.0, call, *arguments)

    def run(self, seconds: float = 0.0) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            at, _, call = heapq.heappop(self._due)
            self.now = max(self.now, at)
            call()
        self.now = end


class Wire(asyncio.Transport):
    """A transport whose peer takes everything at once, or nothing; `taken` is called with what it takes."""

    def __init__(self, loop: Loop, taken: Callable[[bytes], None]) -> None:
        super().__init__()
        self.protocol: Any = None
        self.reads = True
        self.stuck = False
        self.lost = False
        self._loop = loop
        self._taken = taken
        self._closing = False
        self._buffer = b""
        self._paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        if self.lost:
            return
        if self.stuck:
            self._buffer += data
            if data and not self._paused:
                self._paused = True
                self.protocol.pause_writing()
        elif data:
            self._taken(bytes(data))

    def flow(self) -> None:
        """Let the peer take what there is, and what comes."""
        self.stuck = False
        data, self._buffer = self._buffer, b""
        if data and not self.lost:
            self._taken(data)
        if self._paused:
            self._paused = False
            if not self.lost:
                self.protocol.resume_writing()
        if self._closing:
            self._lose(None)

    def write_eof(self) -> None:
        self.close()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def pause_reading(self) -> None:
        assert not self.lost
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.lost
        self.reads = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._lose(None)

    def abort(self) -> None:
        self._closing = True
        self._buffer = b""
        self._lose(None)

    def break_off(self, error: Exception) -> None:
        """Be reset by the peer."""
        self._closing = True
        self._buffer = b""
        self._lose(error)

    def end(self) -> None:
        """Hear the peer's end."""
        if not self._closing and not self.protocol.eof_received():
            self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self._loop.call_soon(lambda: self.protocol.connection_lost(error))


class World:
    """What a proxy is to its tunnels and its parking."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.settings = Settings(parking=ParkingSettings(PARK_S, PAGE_BYTES, 2 * PAGE_BYTES, 2))
        self.counters = Counters()
        self.watched_tunnels: dict[Tunnel, tuple[float, int]] = {}
        self.buffered = Buffered(1 << 30, lambda: None)
        self.tunnels: list[ParkableTunnel] = []
        self.places = 0
        self.ended: list[Tunnel] = []
        self.drains = self
        self.parking = Parking(cast(Any, self))

    def time(self) -> float:
        return self.loop.now

    def opened(self, tunnel: Tunnel) -> None:
        assert tunnel in self.tunnels

    def leave_place(self, place: bytes | None) -> None:
        assert place is None
        self.places -= 1
        assert self.places >= 0

    def tunnel_stalled(self, tunnel: Tunnel) -> None:
        self.watched_tunnels[tunnel] = (self.time() + 60, 0)
        self.buffered.hold(tunnel, tunnel.waiting_bytes)

    def tunnel_flows(self, tunnel: Tunnel) -> None:
        self.buffered.hold(tunnel, tunnel.waiting_bytes)

    def tunnel_side_ended(self, tunnel: Tunnel, error: Exception | None, *, client: bool) -> None:
        tunnel.end = End.CLIENT if client else End.BACKEND

    def tunnel_closing(self, tunnel: Tunnel) -> None:
        assert tunnel in self.tunnels

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        assert tunnel not in self.ended
        self.ended.append(tunnel)
        self.tunnels.remove(cast(ParkableTunnel, tunnel))
        self.watched_tunnels.pop(tunnel, None)
        self.buffered.hold(tunnel, 0)
        if tunnel.seated:
            self.leave_place(tunnel.place)


class Connection:
    """A browser's connection: what it sends goes in pieces, what comes is read when it likes."""

    def __init__(self, world: World, hears: Callable[[bytes], None]) -> None:
        self.wire = Wire(world.loop, self._taken)
        self.out = b""  # sent, and not yet come to the proxy
        self.unread: list[bytes] = []
        self.unanswered = 0
        self.next = 0  # the first update that has not come here
        self._cutter = Cutter(masked=False, most=1 << 30)
        self._hears = hears

    def _taken(self, data: bytes) -> None:
        for message, whole in self._cutter.feed(data):
            assert whole
            self.unread.append(message)
            if (said := UPDATE.match(text_of(message))) is not None:
                assert int(said[1]) == self.next or not self.next, "by one connection all come once, in order"
                self.next = int(said[1]) + 1

    def read(self) -> None:
        """Read all that has come."""
        unread, self.unread = self.unread, []
        for message in unread:
            text = text_of(message)
            if message[0] & CONTROL:
                continue
            if text == b"2":
                self.unanswered += 1
            else:
                self._hears(text)


class Page:
    """A page: its app's end, its browser, and what each has said."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = b"page-%d" % number
        self.who = Who(b"document-%d" % number, b"tab-%d" % number)
        self.pushed = 0  # updates that the app has said
        self.come = 0  # of them, those that have come to the proxy in whole
        self.next = 0  # the first that the browser has not had
        self.pings: list[float] = []  # times at which they came to the proxy
        self.pongs = 0
        self.excused_to = 0.0  # the last time at which it was seen that it cannot be parked
        self.clicks = 0
        self.whole_clicks = 0  # that came to the proxy in whole
        self.heard_clicks = 0
        self.app_out = b""
        self._marks: list[tuple[int, str]] = []  # what ends where in the app's stream
        self._app_at = 0
        self._said = 0
        self._click_marks: list[int] = []  # where clicks end in the stream of the connection
        self._cutter = Cutter(masked=True, most=1 << 30)
        self.load = Load(world.time())
        self.upstream = Wire(world.loop, self._app_taken)
        self.connection: Connection | None = self.connect()
        self.tunnel = ParkableTunnel(self.connection.wire, self.upstream, self.load, cast(Any, world), websocket=True)
        query = b"next_message_id=none&document_id=%b&tab_id=%b" % self.who
        self.tunnel.prepare(world.parking, b"", pack(b"GET /?%b HTTP/1.1\r\n\r\n" % query))
        world.tunnels.append(self.tunnel)
        world.places += 1
        self.say(frame(OPENED) + frame(CONNECTED), "greeting")
        self.app_flush(1 << 30)
        self.tunnel.page = self.name
        world.parking.accepted(self.tunnel)

    def connect(self) -> Connection:
        self._click_marks = []
        return Connection(self.world, self._hears)

    @property
    def over(self) -> bool:
        return self.tunnel in self.world.ended

    # The app.

    def say(self, data: bytes, what: str) -> None:
        self.app_out += data
        self._said += len(data)
        self._marks.append((self._said, what))

    def app_flush(self, count: int) -> None:
        """Let so many bytes of the app's come to the proxy, if it reads."""
        if not self.upstream.reads or self.upstream.is_closing() or not (count and self.app_out):
            return
        data, self.app_out = self.app_out[:count], self.app_out[count:]
        self._app_at += len(data)
        while self._marks and self._marks[0][0] <= self._app_at:
            what = self._marks.pop(0)[1]
            self.come += what == "update"
            if what == "ping":
                self.pings.append(self.world.time())
        self.upstream.protocol.data_received(data)

    def _app_taken(self, data: bytes) -> None:
        for message, whole in self._cutter.feed(data):
            assert whole
            if message[0] & CONTROL:
                continue
            text = text_of(message)
            if text == b"3":
                self.pongs += 1
            else:
                assert text.rstrip(b"\0") == b"click %d" % self.heard_clicks, "in order, each once"
                self.heard_clicks += 1

    # The browser.

    def _hears(self, text: bytes) -> None:
        if (said := UPDATE.match(text)) is not None:
            number = int(said[1])
            assert number <= self.next, "nothing is missing"
            self.next = max(self.next, number + 1)

    def click(self, message: bytes) -> None:
        assert self.connection is not None
        self.connection.out += message
        self._click_marks.append(len(self.connection.out))
        self.clicks += 1

    def browser_flush(self, count: int) -> None:
        connection = self.connection
        if connection is None or not connection.wire.reads or connection.wire.is_closing():
            return
        if not (count and connection.out):
            return
        data, connection.out = connection.out[:count], connection.out[count:]
        self._click_marks = [mark - len(data) for mark in self._click_marks]
        self.whole_clicks += sum(1 for mark in self._click_marks if mark <= 0)
        self._click_marks = [mark for mark in self._click_marks if mark > 0]
        connection.wire.protocol.data_received(data)

    def disconnected(self) -> None:
        """Forget a connection; clicks that have not come whole are gone with it."""
        self.connection = None
        self.clicks = self.whole_clicks
        self._click_marks = []


sizes = st.sampled_from([0, 1, 20, 100, 500, 3000, 6000])
pieces = st.sampled_from([*[1 << 30] * 6, 0, 1, 3, 7, 100, 1000])
which = st.sampled_from([*[0] * 10, 1, 2])
rarely = st.sampled_from([False, False, False, True])


class Parked(RuleBasedStateMachine):
    """Three pages, places for two that are parked, and memory for two."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("stickyproxy.dataplane.parkable_legs.LONGEST_SENT_BYTES", 1000)
        self.patch.setattr("stickyproxy.dataplane.tunnel.unsent_bytes", lambda wire: wire.get_write_buffer_size())
        self.world = World()
        self.pages: list[Page] = []
        self.count = 0

    @initialize()
    def open_all(self) -> None:
        for _ in range(3):
            self.pages.append(self._new())

    def _new(self) -> Page:
        self.count += 1
        return Page(self.world, self.count)

    # The apps.

    @rule(which=which, size=sizes, fragments=st.integers(1, 3), count=pieces)
    def app_pushes(self, which: int, size: int, fragments: int, count: int) -> None:
        page = self.pages[which]
        text = b"update %d " % page.pushed + bytes(size)
        page.pushed += 1
        if fragments == 1:
            page.say(frame(text), "update")
        else:
            parts = [text[: size // 2], *[b""] * (fragments - 2), text[size // 2 :]]
            said = frame(parts[0], TEXT, final=False) + frame(b"", PING)
            said += b"".join(frame(part, CONTINUATION, final=False) for part in parts[1:-1])
            page.say(said + frame(parts[-1], CONTINUATION), "update")
        page.app_flush(count)
        self.world.loop.run()

    @rule(which=which, count=pieces)
    def app_pings(self, which: int, count: int) -> None:
        self.pages[which].say(frame(b"2"), "ping")
        self.pages[which].app_flush(count)
        self.world.loop.run()

    @rule(which=which, count=pieces)
    def app_pings_the_socket(self, which: int, count: int) -> None:
        self.pages[which].say(frame(b"x", PING), "socket's ping")
        self.pages[which].app_flush(count)
        self.world.loop.run()

    @rule(which=which, count=pieces)
    def app_sends(self, which: int, count: int) -> None:
        self.pages[which].app_flush(count)
        self.world.loop.run()

    @rule(which=which, stuck=st.booleans())
    def app_takes(self, which: int, stuck: bool) -> None:
        wire = self.pages[which].upstream
        if stuck:
            wire.stuck = not wire.lost
        else:
            wire.flow()
        self.world.loop.run()

    @rule(which=which, polite=st.booleans(), wanted=rarely)
    def app_ends(self, which: int, polite: bool, wanted: bool) -> None:
        page = self.pages[which]
        if page.upstream.is_closing() or not wanted:
            return
        if polite and not page.app_out:
            page.say(close(1000), "close")
            page.app_flush(1 << 30)
        page.upstream.break_off(ConnectionResetError())
        self.world.loop.run()

    # The browsers.

    @rule(which=which, fragmented=st.booleans(), size=sizes, count=pieces)
    def user_clicks(self, which: int, fragmented: bool, size: int, count: int) -> None:
        page = self.pages[which]
        if page.connection is not None:
            text, opcode = b"click %d" % page.clicks + bytes(size), BINARY if size % 3 else TEXT
            if fragmented:
                page.click(frame(text[:3], opcode, final=False, key=KEY) + frame(text[3:], CONTINUATION, key=KEY))
            else:
                page.click(frame(text, opcode, key=KEY))
            page.browser_flush(count)
            self.world.loop.run()

    @rule(which=which, count=pieces)
    def browser_sends(self, which: int, count: int) -> None:
        self.pages[which].browser_flush(count)
        self.world.loop.run()

    @rule(which=which)
    def browser_reads(self, which: int) -> None:
        if (connection := self.pages[which].connection) is not None:
            connection.read()

    @rule(which=which)
    def browser_answers(self, which: int) -> None:
        page = self.pages[which]
        if (connection := page.connection) is not None:
            connection.read()
            connection.out += frame(b"3", key=KEY) * connection.unanswered
            connection.unanswered = 0
            page.browser_flush(1 << 30)
            self.world.loop.run()

    @rule(which=which, stuck=st.booleans())
    def browser_takes(self, which: int, stuck: bool) -> None:
        if (connection := self.pages[which].connection) is not None:
            if stuck:
                connection.wire.stuck = not connection.wire.lost
            else:
                connection.wire.flow()
            self.world.loop.run()

    @rule(which=which, how=st.sampled_from([*["reset", "end", "close"] * 3, "bye"]))
    def browser_goes(self, which: int, how: str) -> None:
        page = self.pages[which]
        connection = page.connection
        if connection is None:
            return
        if not connection.wire.is_closing():
            if how == "reset":
                connection.wire.break_off(ConnectionResetError())
            elif how == "end":
                connection.wire.end()
            elif connection.wire.reads:
                page.browser_flush(1 << 30)
                if not connection.wire.is_closing():
                    connection.wire.protocol.data_received(close(1001 if how == "bye" else None, key=KEY))
        connection.wire.flow()
        connection.wire.break_off(ConnectionResetError())
        page.disconnected()
        self.world.loop.run()

    @rule(which=which, clicks=st.integers(0, 2), early=rarely)
    def browser_comes_back(self, which: int, clicks: int, early: bool) -> None:
        page = self.pages[which]
        if page.connection is not None and not early:
            return
        target = b"/_nicegui_ws/socket.io/?next_message_id=0&implicit_handshake=true&document_id=" + page.who.document
        tunnel = self.world.parking.find(page.name, target, b"")
        if tunnel is None:
            return
        assert tunnel is page.tunnel
        page.disconnected()
        connection = page.connection = page.connect()
        waiting = []
        for _ in range(clicks):
            waiting.append(frame(b"click %d" % page.clicks, key=KEY))
            page.clicks += 1
            page.whole_clicks += 1
        self.world.places += 1
        tunnel.join(connection.wire, waiting, None)
        tunnel.place = None
        self.world.loop.run()

    @rule(which=which, answers=st.booleans())
    def browser_is_silent_for_a_while(self, which: int, answers: bool) -> None:
        self.app_pings(which, 1 << 30)
        self.time_passes(PATIENCE_S + 0.1)
        if answers:
            self.browser_answers(which)

    @rule(which=which, size=sizes, goes=st.booleans())
    def browser_is_slow_for_a_while(self, which: int, size: int, goes: bool) -> None:
        self.browser_takes(which, True)
        self.app_pushes(which, size, 1, 1 << 30)
        self.app_pings(which, 1 << 30)
        if goes:
            self.browser_goes(which, "reset")
        else:
            self.browser_takes(which, False)

    # Time, and the proxy.

    @rule(seconds=st.sampled_from([0.0, 0.5, PATIENCE_S + 0.1, 5.0, PARK_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.world.loop.run(seconds)
        self.world.parking.expire(self.world.time())
        self.world.loop.run()

    @rule(which=which)
    def proxy_drops_a_slow_one(self, which: int) -> None:
        page = self.pages[which]
        if page.tunnel in self.world.tunnels and page.tunnel in self.world.watched_tunnels:
            page.tunnel.drop()
            self.world.loop.run()

    @rule(which=which, wanted=rarely)
    def page_is_moved(self, which: int, wanted: bool) -> None:
        page = self.pages[which]
        if wanted and page.tunnel in self.world.tunnels and page.tunnel.open:
            page.tunnel.replace_legs(lambda leg: type(page.tunnel).__mro__[1].client_leg(leg.transport, page.tunnel))

    @precondition(lambda self: any(page.over for page in self.pages))
    @rule()
    def new_pages_open(self) -> None:
        self.pages = [self._new() if page.over else page for page in self.pages]

    # What is always so.

    @invariant()
    def books_agree(self) -> None:
        world = self.world
        parking, counters = world.parking, world.counters
        live = world.tunnels
        assert parking.kept_bytes == sum(tunnel.tail.size for tunnel in live if tunnel.tail is not None)
        gone = sum(counters.parked_returns.values()) + sum(counters.parked_releases.values())
        assert counters.parked == gone + len(parking.away)
        assert len(parking.away) <= 2
        assert set(parking.away) <= set(live)
        assert set(parking._pages.values()) <= set(live)
        assert set(parking._tabs.values()) <= set(parking.away)
        for tunnel in live:
            assert (tunnel in parking.away) == bool(tunnel.away_since) or (
                tunnel.upstream is None or tunnel.upstream.transport.is_closing()
            )
            if tunnel.departed and tunnel.upstream is not None and not tunnel.upstream.transport.is_closing():
                assert tunnel in parking.away
        assert world.places == sum(1 for tunnel in live if tunnel.seated)
        assert world.buffered.total == sum(world.buffered._held.values())
        assert set(world.buffered._held) <= set(live)
        assert set(world.watched_tunnels) <= set(live)

    @invariant()
    def nothing_is_missing(self) -> None:
        for page in self.pages:
            connection, tunnel = page.connection, page.tunnel
            if connection is None or connection.wire.is_closing() or page.upstream.is_closing():
                continue
            if tunnel.downstream is None or tunnel.downstream.transport is not connection.wire or connection.wire.stuck:
                continue
            assert max(page.next, connection.next) == page.come

    @invariant()
    def apps_hear_whole_clicks_and_one_answer_for_each_heartbeat(self) -> None:
        for page in self.pages:
            assert page.pongs <= len(page.pings) or not page.tunnel.followed, "moved, it is on its own"
            if page.upstream.is_closing() or page.upstream.stuck:
                continue
            assert page.heard_clicks == page.whole_clicks
            tunnel = page.tunnel
            if not tunnel.can_park:
                page.excused_to = self.world.time()
            if tunnel.departed or (tunnel.can_park and tunnel.away_since):
                assert page.pongs == len(page.pings), "at once"
            elif tunnel.can_park:
                late_before = self.world.time() - PATIENCE_S - 0.1
                assert not [at for at in page.pings[page.pongs :] if page.excused_to < at < late_before]

    def teardown(self) -> None:
        world = self.world
        for page in self.pages:
            page.upstream.flow()
            if page.connection is not None:
                page.connection.wire.flow()
                page.connection.wire.break_off(ConnectionResetError())
        world.loop.run()
        world.loop.run(PARK_S + 1)
        for _ in range(3):
            world.parking.expire(world.time())
            world.loop.run(1)
        for page in self.pages:
            page.upstream.break_off(ConnectionResetError())
        world.loop.run(120)
        parking = world.parking
        assert (parking.kept_bytes, parking.away, parking._pages, parking._tabs) == (0, {}, {}, {})
        assert (world.tunnels, world.places, world.buffered.total, len(world.buffered)) == ([], 0, 0, 0)
        assert not world.watched_tunnels
        assert len(world.ended) == self.count
        assert all(page.load.tunnels == 0 for page in self.pages)
        self.patch.undo()


Parked.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
test_pages_and_their_browsers = Parked.TestCase


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.booleans(), sizes, st.integers(1, 3)), max_size=12),
    st.lists(st.integers(0, 30_000), max_size=20),
    st.booleans(),
)
def test_a_stream_cut_anywhere_comes_out_as_its_messages(
    said: list[tuple[bool, int, int]], cuts: list[int], masked: bool
) -> None:
    key = KEY if masked else None
    messages = []
    for control, size, fragments in said:
        if control:
            messages.append(frame(bytes(min(size, 125)), PING, key=key))
            continue
        parts = [frame(bytes(size), TEXT if not at else CONTINUATION, final=at == fragments - 1, key=key)
                 for at in range(fragments)]  # fmt: skip
        messages.append(b"".join(parts))
    data = b"".join(messages)
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    cutter = Cutter(masked=masked, most=1 << 20)
    out = [piece for a, b in pairwise(bounds) for piece in cutter.feed(data[a:b])]
    assert out == [(message, True) for message in messages]
    assert cutter.idle


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=10), st.booleans(), st.integers(0, 40))
def test_whatever_comes_goes_on_in_order_unless_it_is_half_a_message(
    data: bytes, cuts: list[int], masked: bool, most: int
) -> None:
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    cutter = Cutter(masked=masked, most=most)
    out = b"".join(piece for a, b in pairwise(bounds) for piece, _ in cutter.feed(data[a:b]))
    assert out + cutter.give_up() == data
