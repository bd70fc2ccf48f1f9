"""Tunnels over transports and a clock that only remember: when each is closed, and what it stood in the middle of."""

import asyncio
import heapq
import time
from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest

from stickyproxy.core.balance import Load
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.dispersal import FLUSH_SHARE, QUIET_S, Dispersal, Watch
from stickyproxy.dataplane.tunnel import Leg, Tunnel

SPAN_S = 20.0
END_S = SPAN_S * (1 - FLUSH_SHARE)


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop's clock and timers; `run` lets time pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Timer, Callable[[], object]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Timer:
        timer = Timer()
        self._count += 1
        heapq.heappush(self._due, (self.now + delay_s, self._count, timer, call))
        return timer

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled for _, _, timer, _ in self._due)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            at, _, timer, call = heapq.heappop(self._due)
            if not timer.cancelled:
                self.now = at
                call()
        self.now = end


class Wire(asyncio.Transport):
    """One leg's transport; `unwritten` bytes are still in its buffer, `unacknowledged` ones in the kernel's."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.unwritten = self.unacknowledged = 0
        self.sent = b""
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unwritten

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport here has no socket: what its peer has not acknowledged is what it says itself."""
    monkeypatch.setattr("stickyproxy.dataplane.tunnel.unsent_bytes", lambda wire: wire.unwritten + wire.unacknowledged)


class Owner:
    def tunnel_stalled(self, tunnel: Tunnel) -> None: ...

    def tunnel_side_ended(self, tunnel: Tunnel, error: Exception | None, *, client: bool) -> None: ...

    def tunnel_closing(self, tunnel: Tunnel) -> None: ...

    def tunnel_ended(self, tunnel: Tunnel) -> None: ...


def client_frame(size: int) -> bytes:
    assert size < 126
    return bytes((0x82, 0x80 | size)) + bytes(4 + size)


def server_frame(size: int) -> bytes:
    assert size < 126
    return bytes((0x82, size)) + bytes(size)


PONG = client_frame(1)
CLICK = client_frame(100)
UPDATE = server_frame(100)


class Pair:
    """A tunnel and what its two peers do."""

    def __init__(self) -> None:
        self.client, self.server = Wire(), Wire()
        self.tunnel = Tunnel(self.client, self.server, Load(0.0), Owner())

    def from_client(self, data: bytes) -> None:
        self.client.protocol.data_received(data)

    def from_server(self, data: bytes) -> None:
        self.server.protocol.data_received(data)

    def end(self) -> None:
        for wire in (self.client, self.server):
            wire.closed = True
            wire.protocol.connection_lost(None)


class Room:
    """Tunnels, a dispersal over them, and when it closed each."""

    def __init__(self, count: int, *, idle_s: float = 0.0) -> None:
        self.loop = Loop()
        self.pairs = [Pair() for _ in range(count)]
        self.closed: dict[Tunnel, float] = {}
        self.parts = 0
        self.dispersal = Dispersal(cast(Any, self.loop), Random(1), self._part, idle_s=idle_s)

    def _part(self, tunnel: Tunnel) -> None:
        self.parts += 1
        self.closed[tunnel] = self.loop.now - 1000.0
        tunnel.close(End.SHUTDOWN)

    def watch(self, *, settled: bool = True) -> None:
        """Watch all; settled: for so long that those who are quiet count as such, at time 0."""
        self.loop.now -= QUIET_S if settled else 0.0
        self.dispersal.watch(pair.tunnel for pair in self.pairs)
        self.loop.now += QUIET_S if settled else 0.0

    def at(self, pair: Pair) -> float:
        return self.closed[pair.tunnel]


@pytest.mark.parametrize("count", [1, 2, 10, 100, 1000, 5000])
def test_tunnels_are_closed_evenly_over_the_time(count: int) -> None:
    room = Room(count)
    room.watch()
    room.dispersal.start(SPAN_S)
    room.loop.run(SPAN_S)
    times = sorted(room.closed.values())
    assert len(times) == room.parts == count
    assert times[-1] <= END_S
    seconds = [0] * int(SPAN_S)
    for at in times:
        seconds[int(at)] += 1
    assert max(seconds) <= max(2, 1.3 * count / END_S), "no second holds much more than its even share"
    assert room.loop.timers == 0


def test_a_thousand_tunnels_cost_little_time() -> None:
    room = Room(1000)
    begun = time.process_time()
    room.watch()
    room.dispersal.start(SPAN_S)
    room.loop.run(SPAN_S)
    assert time.process_time() - begun < 5.0, "it took some 0.7 s when this was written"
    assert room.parts == 1000


def test_idle_users_go_first_and_the_one_who_was_active_last_goes_last() -> None:
    room = Room(20)
    room.watch()
    for pair in room.pairs[:10]:
        pair.from_client(CLICK)
    room.loop.now += 1.0
    room.pairs[0].from_client(CLICK)
    room.loop.now += QUIET_S
    room.dispersal.start(SPAN_S)
    room.loop.run(SPAN_S)
    order = sorted(room.pairs, key=room.at)
    assert set(order[:10]) == set(room.pairs[10:])
    assert order[-1] is room.pairs[0]


def test_heartbeats_and_updates_make_nobody_active() -> None:
    room = Room(2)
    beating, still = room.pairs
    room.watch()
    room.loop.now += 1.0
    still.from_client(CLICK)
    room.loop.now += 1.0
    beating.from_client(PONG)
    beating.from_server(UPDATE)
    room.loop.now += QUIET_S
    room.dispersal.start(SPAN_S)
    room.loop.run(SPAN_S)
    assert room.at(beating) < room.at(still)


def test_active_users_are_left_alone_for_three_quarters_of_the_time() -> None:
    room = Room(10, idle_s=5.0)
    active, idle = room.pairs[:5], room.pairs[5:]
    room.watch()
    room.loop.now += 5.0
    for pair in active:
        pair.from_client(CLICK)
    room.dispersal.start(SPAN_S)
    start = room.loop.now - 1000.0
    for _ in range(200):
        room.loop.run(0.1)
        for pair in active:
            if pair.tunnel.open:
                pair.from_client(CLICK)
    assert all(room.at(pair) - start < 0.75 * END_S for pair in idle)
    assert all(room.at(pair) - start >= 0.75 * END_S - 0.01 for pair in active)
    assert all(room.at(pair) - start < END_S for pair in active), "by the clock, not at once at the end"
    assert len({room.at(pair) for pair in active}) == 5


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("cut", [1, 2, 5, 60])
def test_nothing_is_closed_in_the_middle_of_a_message(side: str, cut: int) -> None:
    """Even if its peer pauses for long, once the stream is known."""
    room = Room(3)
    held = room.pairs[1]
    send, message = (held.from_client, CLICK) if side == "client" else (held.from_server, UPDATE)
    room.watch()
    send(message)
    send(message[:cut])
    room.dispersal.start(SPAN_S)
    room.loop.run(10 * QUIET_S)
    send(message[cut : cut + 1])
    room.loop.run(SPAN_S / 2)
    assert held.tunnel not in room.closed
    assert len(room.closed) == 2, "the others do not wait for it"
    send(message[cut + 1 :])
    room.loop.run(4.0)
    assert room.at(held) < END_S - 1.0, "and it goes when its message has ended"


def test_between_two_fragments_is_in_the_middle_of_a_message() -> None:
    room = Room(1)
    (pair,) = room.pairs
    room.watch()
    pair.from_client(bytes((0x01, 0x81)) + bytes(5))
    room.dispersal.start(SPAN_S)
    room.loop.run(SPAN_S / 2)
    assert not room.closed
    pair.from_client(bytes((0x80, 0x81)) + bytes(5))
    room.loop.run(2 * QUIET_S)
    assert room.closed


def test_a_stream_that_never_pauses_is_followed_from_whole_frames_on() -> None:
    """As of an app that sends an update many times a second: its pages would else all be closed at the end at once."""
    room = Room(40)
    room.watch(settled=False)
    room.dispersal.start(SPAN_S)
    for _ in range(int(SPAN_S / 0.05)):
        for pair in room.pairs:
            if pair.tunnel.open:
                pair.from_server(UPDATE)
        room.loop.run(0.05)
    times = sorted(room.closed.values())
    assert len(times) == 40
    assert times[20] < 0.6 * SPAN_S
    assert len([at for at in times if at >= END_S - 0.01]) <= 2


def test_half_a_frame_in_an_endless_stream_holds_the_tunnel() -> None:
    room = Room(1)
    (pair,) = room.pairs
    room.watch(settled=False)
    room.dispersal.start(SPAN_S)
    pair.from_server(UPDATE)
    pair.from_server(UPDATE[:50])
    room.loop.run(SPAN_S / 2)
    assert not room.closed
    pair.from_server(UPDATE[50:])
    room.loop.run(2 * QUIET_S)
    assert room.closed


def test_bytes_within_a_frame_are_not_taken_for_one() -> None:
    """The watch begins in the middle of a large message of text."""
    room = Room(1)
    (pair,) = room.pairs
    room.watch(settled=False)
    room.dispersal.start(SPAN_S)
    for _ in range(100):
        room.loop.run(0.1)
        pair.from_server(b"@BAll of this is text that is inside one frame. " * 20)
        assert not room.closed


def test_a_stream_that_is_no_websocket_is_closed_when_it_is_quiet() -> None:
    room = Room(1)
    (pair,) = room.pairs
    room.watch(settled=False)
    room.dispersal.start(SPAN_S)
    for _ in range(50):
        pair.from_server(b"SSH-2.0 of another protocol")
        room.loop.run(0.1)
    assert not room.closed
    room.loop.run(3 * QUIET_S)
    assert room.closed


def test_what_the_peer_has_not_taken_is_waited_for_until_the_end() -> None:
    room = Room(2)
    stalled, other = room.pairs
    stalled.client.unwritten = 100
    room.watch()
    room.dispersal.start(SPAN_S)
    room.loop.run(END_S - 0.1)
    assert list(room.closed) == [other.tunnel]
    room.loop.run(0.2)
    assert room.at(stalled) == pytest.approx(END_S)


def test_a_stalled_reader_that_has_caught_up_is_closed() -> None:
    room = Room(1)
    (pair,) = room.pairs
    pair.client.unwritten = 100
    room.watch()
    room.dispersal.start(SPAN_S)
    room.loop.run(5.0)
    assert not room.closed
    pair.client.unwritten = 0
    room.loop.run(2 * QUIET_S)
    assert room.closed


def test_acknowledgements_are_waited_for_only_while_there_is_time() -> None:
    """Where messages are more frequent than a round trip takes, some are always on their way."""
    room = Room(4)
    for pair in room.pairs:
        pair.client.unacknowledged = 100
    room.watch()
    room.dispersal.start(SPAN_S)
    room.loop.run(SPAN_S)
    times = sorted(room.closed.values())
    assert times[0] >= Dispersal.ACTIVE_SHARE * END_S
    assert times[-1] < END_S, "spread over what is left, not all at the end"


def test_at_the_end_all_that_is_left_is_closed() -> None:
    room = Room(5)
    room.watch()
    for pair in room.pairs:
        pair.from_client(CLICK[:9])
    room.dispersal.start(SPAN_S)
    room.loop.run(END_S - 0.1)
    assert not room.closed
    room.loop.run(0.2)
    assert [room.at(pair) for pair in room.pairs] == [pytest.approx(END_S)] * 5
    assert room.loop.timers == 0


def test_without_time_all_is_closed_at_once() -> None:
    room = Room(5)
    room.watch()
    room.dispersal.start(0.0)
    assert room.parts == 5
    assert room.loop.timers == 0


def test_tunnels_that_end_by_themselves_are_not_closed_and_leave_their_time_to_the_others() -> None:
    room = Room(100)
    room.watch()
    room.dispersal.start(SPAN_S)
    for pair in room.pairs[:60]:
        if pair.tunnel.open:
            pair.end()
    before = room.parts
    room.loop.run(SPAN_S)
    assert room.parts - before == len([pair for pair in room.pairs[60:] if pair.tunnel in room.closed]) == 100 - 60
    assert max(room.closed.values()) > 0.9 * END_S


def test_one_that_ends_last_leaves_no_timer() -> None:
    room = Room(1)
    room.pairs[0].client.unwritten = 1
    room.watch()
    room.dispersal.start(SPAN_S)
    room.pairs[0].end()
    room.loop.run(SPAN_S)
    assert room.loop.timers == 0
    assert room.parts == 0


def test_one_that_joins_late_is_closed_too() -> None:
    room = Room(0)
    room.dispersal.start(SPAN_S)
    assert room.loop.timers == 0
    room.loop.run(5.0)
    late = Pair()
    room.dispersal.watch((late.tunnel,))
    room.loop.run(SPAN_S - 5.0)
    assert 5.0 < room.at(late) < 7.0


def test_what_is_not_open_is_not_watched() -> None:
    room = Room(1)
    (pair,) = room.pairs
    pair.client.closed = True
    legs = pair.client.protocol, pair.server.protocol
    room.watch()
    assert (pair.client.protocol, pair.server.protocol) == legs
    room.dispersal.start(SPAN_S)
    assert room.loop.timers == 0


def test_a_tunnel_costs_nothing_before_it_is_watched() -> None:
    room = Room(1)
    (pair,) = room.pairs
    assert type(pair.client.protocol) is type(pair.server.protocol) is Leg
    assert room.loop.timers == 0
    room.watch()
    assert type(pair.client.protocol) is not Leg
    assert room.loop.timers == 0, "watching needs no timer"


def test_stopped_it_closes_no_more() -> None:
    room = Room(10)
    room.watch()
    room.dispersal.start(SPAN_S)
    room.loop.run(5.0)
    before = room.parts
    room.dispersal.stop()
    room.dispersal.stop()
    room.loop.run(SPAN_S)
    room.dispersal.watch((Pair().tunnel,))
    assert room.parts == before
    assert room.loop.timers == 0


def test_started_again_it_keeps_one_pace() -> None:
    room = Room(10)
    room.watch()
    room.dispersal.start(SPAN_S)
    room.dispersal.start(SPAN_S)
    assert room.loop.timers == 1


def test_two_who_watch_one_tunnel_do_not_blind_each_other() -> None:
    """A backend's pages are moved, and then the proxy itself leaves."""
    room = Room(1)
    (pair,) = room.pairs
    room.watch()
    parted: list[Tunnel] = []
    second = Dispersal(cast(Any, room.loop), Random(2), parted.append)
    second.watch((pair.tunnel,))
    pair.from_client(CLICK[:10])
    room.dispersal.start(SPAN_S)
    second.start(SPAN_S)
    room.loop.run(SPAN_S / 2)
    assert not room.closed
    assert not parted
    assert Watch.of(pair.tunnel, room.loop.time) is Watch.of(pair.tunnel, room.loop.time)


def test_a_tunnel_that_is_left_is_asked_for_again() -> None:
    """Its reconnect would come back; by and by it might not."""
    loop = Loop()
    pair = Pair()
    asked: list[float] = []
    dispersal = Dispersal(cast(Any, loop), Random(1), lambda _: asked.append(loop.now))
    dispersal.watch((pair.tunnel,))
    dispersal.start(SPAN_S)
    loop.run(SPAN_S)
    assert 1 < len(asked) < 1 + SPAN_S / QUIET_S * 100, "bounded"
    assert loop.timers == 0


@pytest.mark.parametrize("side", ["client", "server"])
def test_what_passes_is_passed_on_as_it_came(side: str) -> None:
    room = Room(1)
    (pair,) = room.pairs
    room.watch()
    pieces = [bytes((number,)) * number for number in range(1, 200)]
    for piece in pieces:
        (pair.from_client if side == "client" else pair.from_server)(piece)
    assert (pair.server if side == "client" else pair.client).sent == b"".join(pieces)
