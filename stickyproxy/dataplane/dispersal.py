"""Close many tunnels politely: one after another, evenly spread, idle users first, each between two messages.

Laws: a tunnel costs nothing of this before it is to be closed; nothing is closed in the middle of a message while there
is time to wait for its end; at the deadline all that is left is closed.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from random import Random

from stickyproxy.core.frames import FrameTracker
from stickyproxy.dataplane.tunnel import Leg, Tunnel

QUIET_S = 0.25
"""Seconds without a byte after which a stream whose frames are not followed counts as standing between messages. Peers
send a frame at once and whole, so what follows such a gap is a frame's start, from where it is followed exactly."""

SHORTEST_STEP_S = 0.02
"""Between two looks at what can be closed; where tunnels must go faster than that, several go at a time."""

FLUSH_SHARE = 0.05
"""Share of the time that is left at its end for what is still to be written."""


class Watch:
    """What is learned of one tunnel between the call for its end and its end; times are the event loop's.

    `used`: when the client last sent more than a heartbeat, or when the watch began.
    """

    __slots__ = ("_client", "_server", "tunnel", "used")

    @classmethod
    def of(cls, tunnel: Tunnel, clock: Callable[[], float]) -> "Watch":
        """Give the watch of a tunnel, which begins unless somebody watches already: two would blind each other."""
        if tunnel.witness is not None:
            tunnel.witness()  # first, since what it tells may make somebody watch
        leg = tunnel.downstream
        return leg.watch if isinstance(leg, _WatchedLeg) else cls(tunnel, clock)

    def __init__(self, tunnel: Tunnel, clock: Callable[[], float]) -> None:
        self.tunnel = tunnel
        self.used = clock()
        self._client = _Direction(masked=True, now=self.used)
        self._server = _Direction(masked=False, now=self.used)

        def watched(leg: Leg) -> Leg:
            if leg is tunnel.downstream:
                return _WatchedLeg(leg, self, self._client_sent, clock)
            return _WatchedLeg(leg, self, self._server.feed, clock)

        tunnel.replace_legs(watched)

    def _client_sent(self, data: bytes, now: float) -> None:
        if self._client.feed(data, now):
            self.used = now

    def between(self, now: float, *, delivered: bool = True) -> bool:
        """Say whether both directions stand between two messages.

        delivered: only if the peers have also acknowledged all of them; else it is enough that the kernel has them,
        since where messages are more frequent than a round trip takes, some are always on their way.
        """
        if not (self._client.between(now) and self._server.between(now)):
            return False
        return not self.tunnel.unwritten if delivered else self.tunnel.at_rest


class _Direction:
    """One direction of a watched tunnel: by quiet at first, exact from the first bytes on that are surely frames.

    That is what follows a gap, or what was read at once and is whole frames from its first byte to its last: streams
    that never pause are followed too, and in the middle of a frame bytes do not look like that by chance.
    """

    __slots__ = ("_last", "_masked", "_tracker")

    def __init__(self, *, masked: bool, now: float) -> None:
        self._masked = masked
        self._last = now
        self._tracker: FrameTracker | None = None

    def feed(self, data: bytes, now: float) -> bool:
        """Take what has been sent; say whether it was more than heartbeats."""
        tracker, gap = self._tracker, now - self._last >= QUIET_S
        self._last = now
        if tracker is None or tracker.lost:
            tracker = FrameTracker(masked=self._masked)
            tracker.feed(data)
            if not (gap or tracker.between):
                return True
            self._tracker, before = tracker, 0
        else:
            before = tracker.messages
            tracker.feed(data)
        return tracker.lost or tracker.messages > before or not tracker.between

    def between(self, now: float) -> bool:
        """Say whether it stands between two messages, as far as can be told."""
        if self._tracker is None or self._tracker.lost:
            return now - self._last >= QUIET_S
        return self._tracker.between


class _WatchedLeg(Leg):
    """A tunnel's leg that shows what passes."""

    __slots__ = ("_clock", "_sent", "watch")

    def __init__(
        self, leg: Leg, watch: Watch, sent: Callable[[bytes, float], object], clock: Callable[[], float]
    ) -> None:
        super().__init__(leg.transport, leg.tunnel)
        self.ended = leg.ended
        self.watch = watch
        self._sent = sent
        self._clock = clock

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and show them."""
        super().data_received(data)
        self._sent(data, self._clock())


class Dispersal:
    """Closes a set of tunnels within `span_s` seconds from `start` on.

    part: closes one, or leaves it and is asked again. idle_s: tunnels whose users were active within so many seconds
    are left alone for the first three quarters of the time. Watching may begin before `start`, and tunnels may join
    after it.
    """

    ACTIVE_SHARE = 0.75

    def __init__(
        self, loop: asyncio.AbstractEventLoop, random: Random, part: Callable[[Tunnel], None], *, idle_s: float = 0.0
    ) -> None:
        self._loop = loop
        self._random = random
        self._part = part
        self._idle_s = idle_s
        self._watches: dict[Tunnel, Watch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._began = self._end = 0.0
        self._running = False

    def watch(self, tunnels: Iterable[Tunnel]) -> None:
        """Begin to watch tunnels that are to be closed; those that are watched already stay as they are."""
        for tunnel in tunnels:
            if tunnel not in self._watches and tunnel.open:
                self._watches[tunnel] = Watch.of(tunnel, self._loop.time)
        if self._running and self._timer is None and self._watches:
            self._timer = self._loop.call_later(QUIET_S, self._step)

    def start(self, span_s: float) -> None:
        """Close all that is watched within a time."""
        self.stop()
        self._running = True
        self._began = self._loop.time()
        self._end = self._began + span_s * (1 - FLUSH_SHARE)
        self._step()

    def stop(self) -> None:
        """Close no more; idempotent."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        now = self._loop.time()
        self._timer = None
        self._watches = {tunnel: watch for tunnel, watch in self._watches.items() if tunnel.open}
        if not self._watches:
            return
        left_s = self._end - now
        if left_s <= 0:
            for tunnel in list(self._watches):
                self._part(tunnel)
            return
        early = now - self._began < self.ACTIVE_SHARE * (self._end - self._began)
        share_s = left_s / len(self._watches)
        count = math.ceil(SHORTEST_STEP_S / share_s)
        leavers = self._leavers(now, count, early=early)
        for tunnel in leavers:
            self._part(tunnel)
        if not any(tunnel.open for tunnel in self._watches):
            return  # whoever joins begins anew
        wait_s = min(left_s, share_s * count * self._random.uniform(0.8, 1.2) if leavers else QUIET_S)
        self._timer = self._loop.call_later(wait_s, self._step)

    def _leavers(self, now: float, count: int, *, early: bool) -> list[Tunnel]:
        """Give up to `count` tunnels that can be closed now, those that have been idle longest first.

        early: there is still time to wait for users who are active, and for acknowledgements.
        """
        leavers: list[Tunnel] = []
        for watch in sorted(self._watches.values(), key=lambda watch: watch.used):
            if len(leavers) == count or (early and now - watch.used < self._idle_s):
                break
            if watch.between(now, delivered=early):
                leavers.append(watch.tunnel)
        return leavers
