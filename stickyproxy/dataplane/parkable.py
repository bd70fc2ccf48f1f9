"""A tunnel whose browser may go and come back: the backend's leg is kept meanwhile, and everything it sends.

Laws: only whole messages go on in either direction, so that a leg can end between any two of them; what a browser may
not have received is sent again to the one that comes back, whose page drops what it has had (core/parking.py); a
browser that is silent is answered for, never cut; who said good-bye is not waited for.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from stickyproxy.core.frames import CONTROL
from stickyproxy.core.messages import CLOSE, PING, Cutter, close_code, pong_frame, read_text, short_text
from stickyproxy.core.parking import PONG, Release, Tail, read_handshake, read_opening
from stickyproxy.core.reopening import next_number, with_event
from stickyproxy.core.tunnels import read_close
from stickyproxy.dataplane.parkable_legs import BackendLeg, ClientLeg, ParkableLeg
from stickyproxy.dataplane.reopenable import Reopenable
from stickyproxy.dataplane.tunnel import Leg

if TYPE_CHECKING:
    from stickyproxy.dataplane.parking import Parking

_GOING_AWAY = 1001
"""The status code with which browsers close the sockets of a page that is left, reloaded or closed (RFC 6455 section
7.4.1). Engine.IO's own close, when it misses its heartbeats, has none."""

_PING, _PONG, _DISCONNECT, _END = b"2", b"3", b"41", b"1"
_PONG_FRAME = 0x8A
_LONGEST_GREETING = 4096


class ParkableTunnel(Reopenable):
    """The tunnel of a NiceGUI page's socket with `--park`."""

    __slots__ = ("_awaited", "_goodbye", "_owed")

    client_leg = ClientLeg
    backend_leg = BackendLeg

    def prepare(self, parking: "Parking", extensions: bytes, asked: bytes) -> None:
        """Begin; called before anything has passed."""
        self.begin_keeping(parking, asked)
        self.extensions = parking.share(extensions)
        self._awaited = 0  # answers of the browser's to heartbeats
        self._owed = 0  # heartbeats that were answered for the browser, whose answers may still come
        self._goodbye = False
        self._ping = b""  # of the WebSocket itself, that the browser has not answered

    # What the browser sends.

    def take_held(self, data: bytes) -> None:
        """Take what the browser sent behind the request, which is counted with it."""
        if (leg := self.downstream) is not None:
            leg.received_bytes -= len(data)
            leg.data_received(data)

    def client_sent(self, piece: bytes, *, whole: bool) -> None:
        """Pass a message on, unless it is for the proxy."""
        upstream = self.upstream
        if upstream is None or upstream.transport.is_closing():
            return
        if whole:
            if piece[0] & CONTROL:
                if piece[0] == CLOSE:
                    self._client_closes(piece)
                    return
                if piece[0] == _PONG_FRAME:
                    self._ping = b""
            elif text := short_text(piece):
                if text == _PONG:
                    self._answered(piece)
                    return
                self._goodbye |= text == _DISCONNECT
            elif not self.identified and self.opening is not None:
                packet = read_text(piece, _LONGEST_GREETING) or b""
                if read_handshake(packet) is not None:
                    self.said_who(with_event(self.asked, packet))
                    self.review()
        else:  # whoever is in the middle of a message is there, and must not be spoken for
            self._heard()
        upstream.transport.write(piece)

    def _answered(self, pong: bytes) -> None:
        """Take the browser's answer to a heartbeat."""
        if self.tail is not None:
            self.number = next_number(self.tail.units, self.number)
            self.parking.kept_bytes -= self.tail.acknowledge()
            self._forget_idle_tail()
        if self._owed:
            self._owed -= 1
        else:
            self._awaited = max(0, self._awaited - 1)
            if self.upstream is not None:
                self.upstream.transport.write(pong)
        self._heard()

    def _heard(self) -> None:
        """Hear that a browser which was thought to be away is there."""
        if since := self.away_since:
            self.away_since = 0.0
            self.parking.came_back(self, since, joined=False)

    def _client_closes(self, frame: bytes) -> None:
        """Take the browser's Close frame: a good-bye, or the word of a page that means to come back."""
        if close_code(frame) == _GOING_AWAY:
            self._goodbye = True
        if self.downstream is None or self._goodbye or not self.can_park:
            self._goodbye = True
            self._heard()
            if self.said is None:
                self.said = read_close(frame, by_client=True)
            if self.upstream is not None:
                self.upstream.transport.write(frame)
            return
        self.see_off(self.downstream)

    # What the backend sends.

    def backend_sent(self, piece: bytes, *, whole: bool) -> None:
        """Give a message to the browser, and keep it until it has surely come there."""
        leg = self.downstream
        if not whole:
            self._lose(piece)
            return
        if piece[0] & CONTROL:
            self._backend_controls(piece)
            return
        if self.opening is None:
            opening = read_opening(read_text(piece, _LONGEST_GREETING) or b"")
            self.opening = self.parking.share(opening) if opening is not None else None
            self.followed &= self.opening is not None
        if not self.followed:
            self._lose(piece)
            return
        if self.reopening is not None and not self.reopening.settled and not self._goes_on(piece):
            return
        tail = self.tail
        if tail is None:
            tail = self.tail = Tail()
        text = short_text(piece)
        if text != _PING:
            self._goodbye |= text in (_DISCONNECT, _END)
            size = tail.keep(piece, unsent=not self._flowing)
        elif self.departed:
            self._answer()
            return
        else:
            size = tail.keep_ping(piece)
            if self.away_since:
                self._answer()
                self._owed += 1
            elif self.page:
                self._awaited += 1
                self.parking.expect_answer(self)
        self.parking.kept_bytes += size
        if leg is not None and self._flowing:
            leg.transport.write(piece)
        self.limit()

    def _backend_controls(self, frame: bytes) -> None:
        """Pass a control frame on; a ping that no browser is there to answer is answered here (RFC 6455 section 5.5.2).

        uvicorn sends one every 20 s and gives up 20 s later (ws_ping_interval, ws_ping_timeout).
        """
        leg = self.downstream
        if frame[0] == CLOSE and self.said is None:
            self.said = read_close(frame, by_client=False)
            if self.reopen():
                return
        if frame[0] == PING:
            self._ping = frame
            if self.away_since:
                self._answer_ping()
        if leg is not None:
            if frame[0] == CLOSE:
                self._send_rest()
            leg.transport.write(frame)

    def _answer_ping(self) -> None:
        """Answer the WebSocket's own last ping in the browser's place."""
        upstream, ping = self.upstream, self._ping
        if ping and upstream is not None and not upstream.transport.is_closing():
            self._ping = b""
            upstream.transport.write(pong_frame(ping))

    @property
    def at_rest(self) -> bool:
        """Say whether all legs that are there take what comes."""
        if self.departed:
            upstream = self.upstream
            return self.reopens if upstream is None else not upstream.transport.get_write_buffer_size()
        return super().at_rest

    # Going and coming back.

    @property
    def seated(self) -> bool:
        """Say whether there is a client, who has a place."""
        return not self.departed

    @property
    def can_park(self) -> bool:
        """Say whether the browser's leg may end without the backend's."""
        upstream = self.upstream
        return (
            self.outlives_legs
            and self.said is None
            and type(upstream) is BackendLeg
            and not upstream.ended
            and not upstream.transport.is_closing()
        )

    @property
    def outlives_legs(self) -> bool:
        """Say whether it is a page that wants its socket, and all is known that it needs to go on by another one."""
        downstream = self.downstream
        return (
            self.parking.open
            and self.followed
            and bool(self.page)
            and self.identified
            and self.end is None
            and not self._goodbye
            and (downstream is None or downstream.between)
            and (self.tail is None or not self.tail.gap)
        )

    def overdue(self) -> None:
        """Hear that a heartbeat has not been answered for a while: answer for the browser, which may be away."""
        if not self._awaited or self.downstream is None or not self.can_park:
            return
        self._owed += self._awaited
        self._answer_awaited()
        self._answer_ping()
        self.away_since = self.parking.time()
        self.parking.went(self)

    def _answer(self, count: int = 1) -> None:
        """Answer heartbeats in the browser's place."""
        if count and self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.write(PONG * count)

    def _answer_awaited(self) -> None:
        awaited, self._awaited = self._awaited, 0
        self._answer(awaited)

    def depart(self) -> None:
        """Let the browser's leg go, and keep the backend's."""
        leg = self.downstream
        if leg is None:
            return
        received, sent = self._lost_bytes
        self._lost_bytes = received + leg.received_bytes, sent
        self.downstream = None
        self.departed = True
        if self.upstream is not None:
            del self.upstream.other
        del leg.other
        leg.cutter = None
        leg.through = False
        self._answer_awaited()
        self._answer_ping()
        self._owed = 0
        self._flowing = False
        self.review()
        if self.tail is not None:
            self.parking.kept_bytes -= self.tail.rewind()
        self._resume_reading()
        self.parking.left(self)
        if not self.away_since:
            self.away_since = self.parking.time()
            self.parking.went(self)

    def join(self, transport: asyncio.Transport, waiting: list[bytes], cutter: Cutter | None) -> None:
        """Let a browser that is back take over.

        waiting: what it has sent already, for the backend; cutter: what holds the beginning of its next message.
        """
        if (old := self.downstream) is not None:
            self.depart()
            old.transport.abort()
        upstream = self.upstream
        assert upstream is not None
        leg = self.downstream = ClientLeg(transport, self)
        leg.cutter = cutter
        leg.other, upstream.other = upstream, leg
        transport.set_protocol(leg)
        if upstream.stalled:
            transport.pause_reading()
        self.departed = False
        since, self.away_since = self.away_since, 0.0
        for unit in waiting:
            self.client_sent(unit, whole=True)
        if self.tail is not None:
            self.parking.kept_bytes -= self.tail.size
            self._owed += self.tail.pace()
            self.parking.kept_bytes += self.tail.size
        self.flow()
        self.parking.came_back(self, since, joined=True)

    def leg_lost(self, leg: Leg) -> None:
        """Release what a lost leg frees."""
        super().leg_lost(leg)
        if self.downstream is None and self.upstream is None:
            self.parking.backend_lost(self)

    # Ends.

    def replace_legs(self, replace: Callable[[Leg], Leg]) -> None:
        """Let other legs take over, which know nothing of parking: this page is about to leave its backend."""
        if self.departed:
            return
        stalled = not self._flowing
        self._settle()
        super().replace_legs(replace)
        if stalled and self.downstream is not None:  # of which its transport tells only once
            self.downstream.pause_writing()

    def become_plain(self) -> None:
        """Be a tunnel like any other, since this turns out to be no page's socket, or is none any more."""
        if self.witness is None and type(self.upstream) is BackendLeg:
            self.replace_legs(lambda leg: Leg(leg.transport, self))

    def _settle(self) -> None:
        """Hold nothing back any more."""
        self.parking.let_go(self, Release.DRAIN)
        self.followed = False
        self.review()
        if self.witness is not None:
            self.witness()
        leg, tail = self.downstream, self.tail
        if leg is not None and tail is not None:
            if not self._flowing:
                self._send_rest()
                self._pause_reading()  # until the browser takes that, as with every tunnel
            self.parking.kept_bytes -= tail.drop()
        for side in (self.upstream, self.downstream):
            if isinstance(side, ParkableLeg):
                side.flush()
        self.parking.forget(self)

    def drop(self) -> None:
        """Give up a browser that is slow; its page can still come back, unless it is the backend that is slow."""
        upstream, downstream = self.upstream, self.downstream
        if downstream is not None and upstream is not None and self.can_park and not upstream.stalled:
            downstream.transport.abort()
        else:
            super().drop()
