"""A tunnel whose backend may close its socket while the browser is away, and give another (see reopening.py).

Laws: nobody is asked for a socket who has closed one on purpose, or is about to go; by the new one comes what follows
what is kept, each message once, or the page is let go; how long the browser has been away counts from its going.
"""

import asyncio

from stickyproxy.core.messages import Cutter
from stickyproxy.core.parking import Release
from stickyproxy.core.reopening import UNKNOWN, Fit, can_ask, fit, next_number
from stickyproxy.core.tunnels import LEAVING_CODES, End
from stickyproxy.dataplane.keeping import Keeping
from stickyproxy.dataplane.parkable_legs import BackendLeg, ClientLeg

_CLOSED, _CLIENT_CLOSED = b"\x88\x00", b"\x88\x80\x00\x00\x00\x00"


class Reopenable(Keeping):
    """A tunnel that can go on by another leg of its backend's; `extensions`: the line that was agreed on."""

    __slots__ = ("_ping", "extensions")

    extensions: bytes

    # What `ParkableTunnel` says.

    @property
    def outlives_legs(self) -> bool:
        """Say whether all is known that is needed to go on by another leg, and that is wanted."""
        raise NotImplementedError

    @property
    def can_park(self) -> bool:
        """Say whether the browser's leg may end without the backend's."""
        raise NotImplementedError

    def depart(self) -> None:
        """Let the browser's leg go, and keep the backend's."""
        raise NotImplementedError

    # Legs that go.

    def see_off(self, leg: ClientLeg) -> None:
        """Let the browser's leg go, with a Close frame if it takes one; it can come back by another."""
        waits = leg.transport.get_write_buffer_size() > 0  # nobody takes it any more, and it shall not stay in memory
        if not waits:
            leg.transport.write(_CLOSED)
        self.depart()
        if waits:
            leg.transport.abort()
        else:
            leg.transport.close()
            self.parking.drop_soon(leg.transport)

    def backend_lost(self, error: Exception | None) -> None:
        """End a tunnel whose browser is away."""
        upstream = self.upstream
        if upstream is None:
            return
        self._take_off(upstream)
        self._end_alone(error)

    def _take_off(self, upstream: BackendLeg) -> None:
        """Be without the backend's leg."""
        received, sent = self._lost_bytes
        self._lost_bytes = received, sent + upstream.received_bytes
        self.upstream = None

    def _end_alone(self, error: Exception | None = None) -> None:
        """End where no leg is left."""
        if self.end is None:
            self.end = End.BACKEND if error is None and self.said is not None else End.BACKEND_GONE
        self.parking.backend_lost(self)
        self.load.tunnels -= 1
        self._owner.tunnel_closing(self)
        self._owner.tunnel_ended(self)

    # Another leg of the backend's.

    @property
    def reopens(self) -> bool:
        """Say whether the backend is being asked for another socket."""
        return self.reopening is not None and self.reopening.running

    def reopen(self) -> bool:
        """Ask the backend, which ends its leg, for another in the absent browser's name; say whether."""
        upstream = self.upstream
        if not self.away_since or upstream is None or not self.outlives_legs:
            return False
        leaves = self.said is not None and (self.said.by_client or self.said.code in LEAVING_CODES)
        number = next_number(self.tail.units if self.tail is not None else (), self.number)
        if leaves or number == UNKNOWN or not (self.parking.may_reopen(self) and can_ask(self.asked)):
            return False
        if self.downstream is not None:
            self.see_off(self.downstream)
        self._take_off(upstream)
        transport = upstream.transport
        if not transport.is_closing():
            transport.set_protocol(asyncio.Protocol())
            if self.said is not None:
                transport.write(_CLIENT_CLOSED)
            transport.close()
            self.parking.drop_soon(transport)
        self._ping, self._reading_paused = b"", False
        self.parking.reopen(self, number)
        return True

    def reopened(self, transport: asyncio.Transport, cutter: Cutter | None, came: list[bytes]) -> None:
        """Go on by another leg; came: what it has brought. cutter: what holds the beginning of the next message."""
        self.said = None
        upstream = self.upstream = BackendLeg(transport, self)
        upstream.cutter, upstream.received_bytes = cutter, sum(map(len, came))
        transport.set_protocol(upstream)
        for unit in came:
            if self.upstream is upstream and self.end is None:
                upstream.sent(unit, whole=True)

    def not_reopened(self) -> None:
        """End, since the backend has given no other leg."""
        self._end_alone()

    def _goes_on(self, piece: bytes) -> bool:
        """Say whether a message of a new leg is new; where one before it is missing, let the page go."""
        assert self.reopening is not None
        found = fit(piece, self.reopening.number)
        if found in (Fit.NEXT, Fit.GAP):
            self.reopening.settled = True
            self.review()
        if found is Fit.GAP:
            self.parking.let_go(self, Release.BACKEND)
        return found is not Fit.AGAIN and self.end is None

    @property
    def can_return(self) -> bool:
        """Say whether a browser may come back: to what is there, or as soon as the backend's new socket is."""
        return self.can_park or self.reopens

    def close(self, end: End) -> None:
        """Close what is there, and wait for no other leg."""
        super().close(end)
        self._wait_no_more()

    def abort(self, end: End) -> None:
        """Drop what is there, and wait for no other leg."""
        super().abort(end)
        self._wait_no_more()

    def _wait_no_more(self) -> None:
        if self.reopening is not None and self.reopening.running:
            self.reopening.cancel()
            self._end_alone()
