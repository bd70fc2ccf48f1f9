"""What a tunnel keeps of what its backend has sent, and what it holds back from a browser that takes no more for now.

Laws: what is kept is counted soon and bounded; past a bound a page that is away is let go, and one that is there loses
what was kept, or its backend is read no more until its browser takes what waits.
"""

from typing import TYPE_CHECKING

from stickyproxy.core.parking import Release, Tail, Who
from stickyproxy.core.reopening import UNKNOWN, number_asked, who_asked
from stickyproxy.dataplane.parkable_legs import BackendLeg, ClientLeg, ParkableLeg
from stickyproxy.dataplane.tunnel import Tunnel

if TYPE_CHECKING:
    from stickyproxy.dataplane.parking import Parking
    from stickyproxy.dataplane.reopening import Reopening

_UNCOUNTED_BYTES = 4096
"""Of messages that went straight through, before they are counted as kept."""


class Keeping(Tunnel):
    """A tunnel that keeps what its browser may not have received.

    `asked`: how its socket was asked for (`pack`), which says whose it is; `identified`: it does so by now. `tail`:
    what is kept; None where it is nothing. `opening`: of its Engine.IO session (`read_opening`), None until it has
    come. `followed`: what passes is understood. `away_since`: when the browser was found to be away, 0 while it is
    there. `departed`: its leg has ended. `parking` is told of what is kept. `number`: of the app's message that follows
    those which the browser has acknowledged, or all that are kept; UNKNOWN where some went by that were not kept.
    `reopening`: the way to another socket of the backend's, if there has ever been one.
    """

    __slots__ = (
        "_flowing", "_reading_paused", "asked", "away_since", "departed", "followed", "identified", "number", "opening",
        "parking", "reopening", "tail",
    )  # fmt: skip

    upstream: BackendLeg | None
    downstream: ClientLeg | None

    def begin_keeping(self, parking: "Parking", asked: bytes) -> None:
        """Begin; called before anything has passed."""
        self.parking = parking
        self.said_who(asked)
        self.opening: bytes | None = None
        self.tail: Tail | None = Tail(fresh=True)
        self.away_since = 0.0
        self.departed = False
        self.followed = True
        self.reopening: Reopening | None = None
        self._flowing = True  # what comes is given to the browser's connection at once
        self._reading_paused = False  # of the backend's leg

    def said_who(self, asked: bytes) -> None:
        """Take in what the page has said of itself."""
        self.asked = asked
        self.identified = bool(self.who.document)
        self.number = number_asked(asked)

    @property
    def who(self) -> Who:
        """Give the document and the tab that the socket belongs to, as far as it is known; not for every message."""
        return who_asked(self.asked)

    def review(self) -> None:
        """Judge anew which messages can go straight through; called whenever that may have changed."""
        downstream, upstream, tail = self.downstream, self.upstream, self.tail
        if type(downstream) is ClientLeg:
            downstream.through = self.followed and self.identified and downstream.cutter is None
        if type(upstream) is BackendLeg:
            swift = self.followed and self._flowing and self.opening is not None and upstream.cutter is None
            swift = swift and tail is not None and not tail.useless and not self.departed
            swift = swift and (self.reopening is None or self.reopening.settled)
            if tail is not None and swift and upstream.tail is None:
                tail.count_at = upstream.received_bytes + _UNCOUNTED_BYTES
            upstream.tail = tail if swift else None

    def count(self) -> None:
        """Count what went straight through."""
        if self.tail is not None and self.upstream is not None:
            self.parking.kept_bytes += self.tail.count()
            self.tail.count_at = self.upstream.received_bytes + _UNCOUNTED_BYTES
        self.limit()

    def limit(self) -> None:
        """Keep less if it is too much."""
        if self.tail is not None and self.tail.size > self.parking.page_bytes:
            self.keep_less()
        elif self.parking.kept_bytes > self.parking.total_bytes:
            self.parking.make_room(self)
        self.review()

    def _lose(self, piece: bytes) -> None:
        """Pass on what cannot be kept: until the next heartbeat is answered, a browser that goes is not waited for."""
        tail = self.tail
        if tail is None:
            tail = self.tail = Tail()
        leg = self.downstream
        self.parking.let_go(self, Release.MEMORY)
        if leg is None:
            return
        self._send_rest()
        self._forget_tail(tail)
        self.review()
        leg.transport.write(piece)
        if not self._flowing:
            self._pause_reading()

    def keep_less(self) -> None:
        """Keep less: too much has come for this page, or for all together, since its browser last answered."""
        self.parking.let_go(self, Release.MEMORY)
        if self.departed:
            return
        if self._flowing:
            if self.tail is not None:
                self._forget_tail(self.tail)
        else:
            self._pause_reading()

    def _forget_tail(self, tail: Tail) -> None:
        """Keep nothing of what has come, whatever its numbers are."""
        self.parking.kept_bytes -= tail.drop()
        self.number = UNKNOWN

    def stay(self) -> None:
        """Be as without parking until the browser answers a heartbeat."""
        self.away_since = 0.0
        tail = self.tail
        if tail is not None and self._flowing:
            self._forget_tail(tail)
        elif tail is not None:
            tail.gap = True
        self.review()

    def hold_back(self) -> None:
        """Keep what comes; the browser's connection takes no more for now."""
        self._flowing = False
        if self.tail is None:
            self.tail = Tail()
        self.tail.sent = len(self.tail.units)
        self.review()
        self.stalled()

    def _send_rest(self) -> None:
        """Send what was kept for a connection that takes no more, since something must come behind it."""
        tail, leg = self.tail, self.downstream
        if not self._flowing and tail is not None and leg is not None:
            leg.transport.write(b"".join(tail.units[tail.sent :]))
            tail.sent = len(tail.units)

    def flow(self) -> None:
        """Send what was kept meanwhile, and what comes from now on at once."""
        tail, leg = self.tail, self.downstream
        self._flowing = True
        if tail is not None and leg is not None and (units := tail.units[tail.sent :]):
            leg.transport.write(b"".join(units))
        if self._flowing:  # else it has been held back again by now
            self._forget_idle_tail()
            self._resume_reading()
        self.holds()

    def _pause_reading(self) -> None:
        upstream = self.upstream
        if upstream is not None and not self._reading_paused and not upstream.transport.is_closing():
            self._reading_paused = True
            upstream.transport.pause_reading()
            self.stalled()

    def _resume_reading(self) -> None:
        if self._reading_paused and self.upstream is not None and not self.upstream.transport.is_closing():
            self._reading_paused = False
            self.upstream.transport.resume_reading()
            self.flows()

    def _forget_idle_tail(self) -> None:
        if self.tail is not None and self.tail.idle and self._flowing:
            self.tail = None
        self.review()

    def holds(self) -> None:
        """Tell how much waits in memory that is not counted as kept."""
        self.flows()

    @property
    def waiting_bytes(self) -> int:
        """Count the bytes that wait here for either side, but for those that are kept."""
        held = sum(leg.held_bytes for leg in (self.upstream, self.downstream) if isinstance(leg, ParkableLeg))
        return held + super().waiting_bytes
