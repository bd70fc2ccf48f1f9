"""A tunnel whose browser may go and come back: the backend's leg is kept meanwhile, and everything it sends.

Laws: only whole messages go on in either direction, so that a leg can end between any two of them; what a browser may
not have received is sent again to the one that comes back, whose page drops what it has had (core/parking.py); a
browser that is silent is answered for, never cut; who said good-bye is not waited for.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from stickyproxy.core.messages import (
    CLOSE,
    CONTROL,
    LONG_MESSAGES,
    LONGEST_SHORT,
    PING,
    Cutter,
    close_code,
    is_message,
    pong_frame,
    read_text,
    short_text,
)
from stickyproxy.core.parking import PONG, Release, Tail, Who, read_handshake, read_opening
from stickyproxy.core.tunnels import End, read_close
from stickyproxy.dataplane.tunnel import LINGER_S, Leg, Tunnel

if TYPE_CHECKING:
    from stickyproxy.dataplane.parking import Parking

_GOING_AWAY = 1001
"""The status code with which browsers close the sockets of a page that is left, reloaded or closed (RFC 6455 section
7.4.1). Engine.IO's own close, when it misses its heartbeats, has none."""

_PING, _PONG, _DISCONNECT = b"2", b"3", b"41"
_PONG_FRAME = 0x8A
_CLOSED = b"\x88\x00"
_LONGEST_GREETING = 4096
_UNCOUNTED_BYTES = 4096
"""Of messages that went straight through, before they are counted as kept."""

_LONGEST_HELD_BYTES = 1 << 20
"""A client's message is held until it is whole up to NiceGUI's longest (max_http_buffer_size)."""


class _ParkableLeg(Leg):
    """A leg that passes whole messages on; `cutter`: while the stream does not stand between two of them."""

    __slots__ = ("cutter",)

    tunnel: "ParkableTunnel"
    masked: ClassVar[bool]

    def __init__(self, transport: asyncio.Transport, tunnel: Tunnel) -> None:
        super().__init__(transport, tunnel)
        self.cutter: Cutter | None = None

    def _take(self, data: bytes) -> None:
        """Pass messages on, each as soon as it is whole."""
        if self.cutter is None and is_message(data, masked=self.masked):
            self.sent(data, whole=True)
        else:
            self._cut(data)
        if not self.tunnel.followed:
            self.tunnel.become_plain()

    def _cut(self, data: bytes) -> None:
        cutter = self.cutter
        if cutter is None:
            cutter = self.cutter = Cutter(masked=self.masked, most=self.longest_bytes)
        pieces = cutter.feed(data)
        if cutter.lost:
            self.tunnel.followed = False
        self.tunnel.review()
        for piece, whole in pieces:
            self.sent(piece, whole=whole)
        if cutter.idle:
            self.cutter = None
            self.tunnel.review()
        self.tunnel.holds()

    @property
    def longest_bytes(self) -> int:
        """Give the size up to which a message is held until it is whole: only a page's, as others stream."""
        return _LONGEST_HELD_BYTES if self.tunnel.page else 0

    def sent(self, piece: bytes, *, whole: bool) -> None:
        """Take a message, or a piece of one that cannot be held."""
        raise NotImplementedError

    @property
    def between(self) -> bool:
        """Say whether what has been passed on ends with a message."""
        return self.cutter is None or not (self.cutter.passing or self.cutter.lost)

    @property
    def held_bytes(self) -> int:
        """Count the bytes of a message that is not whole yet."""
        return self.cutter.held_bytes if self.cutter is not None else 0

    def flush(self) -> None:
        """Pass on what is held; whoever takes over moves all that comes."""
        if self.cutter is not None and (held := self.cutter.give_up()):
            self.sent(held, whole=False)


class _ClientLeg(_ParkableLeg):
    """The browser's; one that has been replaced is heard no more.

    `through`: messages that are not short go straight through; nothing here has to know what they say.
    """

    __slots__ = ("through",)
    masked = True

    def __init__(self, transport: asyncio.Transport, tunnel: Tunnel) -> None:
        super().__init__(transport, tunnel)
        self.through = False

    def data_received(self, data: bytes) -> None:
        """Pass messages on, each as soon as it is whole."""
        size = len(data)
        self.received_bytes += size
        if self.through and size > LONGEST_SHORT and data[0] in LONG_MESSAGES:  # as nearly all, so it stands here
            length = data[1] - 0x80
            if length + 6 == size if length < 126 else length == 126 and size == 8 + (data[2] << 8 | data[3]):
                self.other.transport.write(data)
                return
        self._take(data)

    @property
    def current(self) -> bool:
        """Say whether it is the tunnel's leg."""
        return self.tunnel.downstream is self

    def sent(self, piece: bytes, *, whole: bool) -> None:
        """Take a message of the browser's."""
        if self.current:
            self.tunnel.client_sent(piece, whole=whole)

    def eof_received(self) -> bool:
        """Take the end of the stream for the end of the connection, as a WebSocket has no use for half of one."""
        if self.current and self.tunnel.can_park:
            return False
        return super().eof_received() if self.current else False

    def pause_writing(self) -> None:
        """Keep what comes from now on: the browser takes no more for now."""
        if self.current:
            self.tunnel.hold_back()

    def resume_writing(self) -> None:
        """Send on what was kept meanwhile."""
        if self.current:
            self.tunnel.flow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Park the page, or end the tunnel."""
        if not self.current:
            return
        if self.tunnel.can_park:
            self.tunnel.depart()
        else:
            super().connection_lost(exc)


class _BackendLeg(_ParkableLeg):
    """The backend's, which outlives the browser's.

    `units`: the tail's, where messages that are not short are kept and go straight through; else None. `uncounted_to`:
    the received bytes at which they are counted. `stalled`: the backend takes nothing for now.
    """

    __slots__ = ("stalled", "uncounted_to", "units")
    masked = False

    def __init__(self, transport: asyncio.Transport, tunnel: Tunnel) -> None:
        super().__init__(transport, tunnel)
        self.stalled = False
        self.units: list[bytes] | None = None
        self.uncounted_to = 0

    def data_received(self, data: bytes) -> None:
        """Pass messages on, each as soon as it is whole."""
        size, units = len(data), self.units
        self.received_bytes += size
        if units is not None and size > LONGEST_SHORT and data[0] in LONG_MESSAGES:  # as nearly all, so it stands here
            length = data[1]
            if length + 2 == size if length < 126 else length == 126 and size == 4 + (data[2] << 8 | data[3]):
                units.append(data)
                self.other.transport.write(data)
                if self.received_bytes > self.uncounted_to:
                    self.tunnel.count()
                return
        self._take(data)

    @property
    def longest_bytes(self) -> int:
        """Give the size up to which a message can be kept."""
        return self.tunnel.parking.page_bytes

    def sent(self, piece: bytes, *, whole: bool) -> None:
        """Take a message of the backend's."""
        self.tunnel.backend_sent(piece, whole=whole)

    def eof_received(self) -> bool:
        """End with the backend where nobody is there to be told."""
        if self.tunnel.departed:
            self.ended = True
            return False
        return super().eof_received()

    def pause_writing(self) -> None:
        """Stop reading from the browser, if there is one."""
        self.stalled = True
        if not self.tunnel.departed:
            super().pause_writing()

    def resume_writing(self) -> None:
        """Go on reading from the browser, if there is one."""
        self.stalled = False
        if not self.tunnel.departed:
            super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the tunnel."""
        if self.tunnel.departed:
            self.tunnel.backend_lost(exc)
        else:
            super().connection_lost(exc)


class ParkableTunnel(Tunnel):
    """The tunnel of a NiceGUI page's socket with `--park`.

    `who`: the document and the tab that it belongs to, as far as it is known. `opening`: of its Engine.IO session
    (`read_opening`), None until it has come. `extensions`: the line that was agreed on. `tail`: what the browser may
    not have received; None where that is nothing. `away_since`: when the browser was found to be away, 0 while it is
    there. `departed`: its leg has ended. `refused_polls`: times it tried to come back by polling.
    """

    __slots__ = (
        "_awaiting", "_flowing", "_goodbye", "_owed", "_ping", "_reading_paused", "away_since", "departed",
        "extensions", "followed", "opening", "parking", "refused_polls", "tail", "who",
    )  # fmt: skip

    client_leg = _ClientLeg
    backend_leg = _BackendLeg
    upstream: _BackendLeg | None
    downstream: _ClientLeg | None

    def prepare(self, parking: "Parking", who: Who, extensions: bytes) -> None:
        """Begin; called before anything has passed."""
        self.parking = parking
        self.who = who
        self.extensions = extensions
        self.opening: bytes | None = None
        self.tail: Tail | None = Tail(fresh=True)
        self.away_since = 0.0
        self.departed = False
        self.refused_polls = 0
        self.followed = True  # what passes is understood
        self._awaiting = False  # the browser's answer to the last heartbeat
        self._owed = 0  # heartbeats that were answered for the browser, whose answers may still come
        self._flowing = True  # what comes is given to the browser's connection at once
        self._goodbye = False
        self._ping = b""  # of the WebSocket itself, that the browser has not answered
        self._reading_paused = False  # of the backend's leg

    def review(self) -> None:
        """Judge anew which messages can go straight through; called whenever that may have changed."""
        downstream, upstream, tail = self.downstream, self.upstream, self.tail
        if type(downstream) is _ClientLeg:
            downstream.through = self.followed and bool(self.who.document) and downstream.cutter is None
        if type(upstream) is _BackendLeg:
            swift = self.followed and self._flowing and self.opening is not None and upstream.cutter is None
            units = tail.units if tail is not None and swift and not tail.useless and not self.departed else None
            if units is not None and upstream.units is None:
                upstream.uncounted_to = upstream.received_bytes + _UNCOUNTED_BYTES
            upstream.units = units

    def count(self) -> None:
        """Count what went straight through."""
        if self.tail is not None and self.upstream is not None:
            self.parking.kept_bytes += self.tail.count()
            self.upstream.uncounted_to = self.upstream.received_bytes + _UNCOUNTED_BYTES
        self.limit()

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
            elif not self.who.document and self.opening is not None:
                said = read_handshake(read_text(piece, _LONGEST_GREETING) or b"")
                if said is not None:
                    self.who = said[1]
                    self.review()
        upstream.transport.write(piece)

    def _answered(self, pong: bytes) -> None:
        """Take the browser's answer to a heartbeat."""
        if self.tail is not None:
            self.parking.kept_bytes -= self.tail.acknowledge()
            self._forget_idle_tail()
        if self._owed:
            self._owed -= 1
        else:
            self._awaiting = False
            if self.upstream is not None:
                self.upstream.transport.write(pong)
        self._heard()

    def _heard(self) -> None:
        """Hear that a browser which was thought to be away is there."""
        if since := self.away_since:
            self.away_since = 0.0
            self.parking.came_back(self, since, joined=False)

    def _forget_idle_tail(self) -> None:
        if self.tail is not None and self.tail.idle and self._flowing:
            self.tail = None
        self.review()

    def _client_closes(self, frame: bytes) -> None:
        """Take the browser's Close frame: a good-bye, or the word of a page that means to come back."""
        if close_code(frame) == _GOING_AWAY:
            self._goodbye = True
        leg = self.downstream
        if leg is None or self._goodbye or not self.can_park:
            self._goodbye = True
            self._heard()
            if self.said is None:
                self.said = read_close(frame, by_client=True)
            if self.upstream is not None:
                self.upstream.transport.write(frame)
            return
        waits = leg.transport.get_write_buffer_size() > 0  # nobody takes it any more, and it shall not stay in memory
        if not waits:
            leg.transport.write(_CLOSED)
        self.depart()
        if waits:
            leg.transport.abort()
        else:
            leg.transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, leg.transport.abort)

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
            self.opening = self.parking.share(read_opening(read_text(piece, _LONGEST_GREETING) or b""))
            self.followed &= self.opening is not None
        if not self.followed:
            self._lose(piece)
            return
        tail = self.tail
        if tail is None:
            tail = self.tail = Tail()
        if short_text(piece) != _PING:
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
                self._awaiting = True
                self.parking.expect_answer(self)
        self.parking.kept_bytes += size
        if leg is not None and self._flowing:
            leg.transport.write(piece)
        self.limit()

    def limit(self) -> None:
        """Keep less if it is too much."""
        if self.tail is not None and self.tail.size > self.parking.page_bytes:
            self.keep_less()
        elif self.parking.kept_bytes > self.parking.total_bytes:
            self.parking.make_room(self)
        self.review()

    def _backend_controls(self, frame: bytes) -> None:
        """Pass a control frame on; a ping that no browser is there to answer is answered here (RFC 6455 section 5.5.2).

        uvicorn sends one every 20 s and gives up 20 s later (ws_ping_interval, ws_ping_timeout).
        """
        leg = self.downstream
        if frame[0] == CLOSE and self.said is None:
            self.said = read_close(frame, by_client=False)
        if frame[0] == PING:
            self._ping = frame
            if self.away_since:
                self._answer_ping()
        if leg is not None:
            if frame[0] == CLOSE and not self._flowing:  # what was kept for it comes first
                self.flow()
            leg.transport.write(frame)

    def _answer_ping(self) -> None:
        """Answer the WebSocket's own last ping in the browser's place."""
        upstream, ping = self.upstream, self._ping
        if ping and upstream is not None and not upstream.transport.is_closing():
            self._ping = b""
            upstream.transport.write(pong_frame(ping))

    def _lose(self, piece: bytes) -> None:
        """Pass on what cannot be kept: until the next heartbeat is answered, a browser that goes is not waited for."""
        tail = self.tail
        if tail is None:
            tail = self.tail = Tail()
        leg = self.downstream
        self.parking.let_go(self, Release.MEMORY)
        if leg is None:
            return
        if not self._flowing:  # what was kept for it comes first
            leg.transport.write(b"".join(tail.units[tail.sent :]))
            tail.sent = len(tail.units)
        self.parking.kept_bytes -= tail.drop()
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
                self.parking.kept_bytes -= self.tail.drop()
        else:
            self._pause_reading()

    def stay(self) -> None:
        """Be as without parking until the browser answers a heartbeat."""
        self.away_since = 0.0
        tail = self.tail
        if tail is not None and self._flowing:
            self.parking.kept_bytes -= tail.drop()
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

    def holds(self) -> None:
        """Tell how much waits in memory that is not counted as kept."""
        self.flows()

    @property
    def waiting_bytes(self) -> int:
        """Count the bytes that wait here for either side, but for those that are kept."""
        held = sum(leg.held_bytes for leg in (self.upstream, self.downstream) if isinstance(leg, _ParkableLeg))
        return held + super().waiting_bytes

    @property
    def at_rest(self) -> bool:
        """Say whether all legs that are there take what comes."""
        if self.departed:
            return self.upstream is not None and not self.upstream.transport.get_write_buffer_size()
        return super().at_rest

    # Going and coming back.

    @property
    def seated(self) -> bool:
        """Say whether there is a client, who has a place."""
        return not self.departed

    @property
    def can_park(self) -> bool:
        """Say whether the browser's leg may end without the backend's."""
        upstream, downstream = self.upstream, self.downstream
        return (
            self.parking.open
            and self.followed
            and bool(self.page and self.who.document)
            and self.end is None
            and not self._goodbye
            and self.said is None
            and type(upstream) is _BackendLeg
            and not upstream.ended
            and not upstream.transport.is_closing()
            and (downstream is None or downstream.between)
            and (self.tail is None or not self.tail.gap)
        )

    def overdue(self) -> None:
        """Hear that a heartbeat has not been answered for a while: answer for the browser, which may be away."""
        if not self._awaiting or self.downstream is None or not self.can_park:
            return
        self._awaiting = False
        self._owed += 1
        self._answer()
        self._answer_ping()
        self.away_since = self.parking.time()
        self.parking.went(self)

    def _answer(self) -> None:
        """Answer a heartbeat in the browser's place."""
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.write(PONG)

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
        if self._awaiting:
            self._awaiting = False
            self._answer()
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
        leg = self.downstream = _ClientLeg(transport, self)
        leg.cutter = cutter
        leg.other, upstream.other = upstream, leg
        transport.set_protocol(leg)
        if upstream.stalled:
            transport.pause_reading()
        self.departed = False
        self.refused_polls = 0
        since, self.away_since = self.away_since, 0.0
        for unit in waiting:
            self.client_sent(unit, whole=True)
        self.flow()
        self.parking.came_back(self, since, joined=True)

    def leg_lost(self, leg: Leg) -> None:
        """Release what a lost leg frees."""
        super().leg_lost(leg)
        if self.downstream is None and self.upstream is None:
            self.parking.backend_lost(self)

    def backend_lost(self, error: Exception | None) -> None:
        """End a tunnel whose browser is away."""
        upstream = self.upstream
        if upstream is None:
            return
        received, sent = self._lost_bytes
        self._lost_bytes = received, sent + upstream.received_bytes
        self.upstream = None
        if self.end is None:
            self.end = End.BACKEND if error is None and self.said is not None else End.BACKEND_GONE
        self.parking.backend_lost(self)
        self.load.tunnels -= 1
        self._owner.tunnel_closing(self)
        self._owner.tunnel_ended(self)

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
        if self.witness is None and type(self.upstream) is _BackendLeg:
            self.replace_legs(lambda leg: Leg(leg.transport, self))

    def _settle(self) -> None:
        """Hold nothing back any more."""
        self.followed = False
        self.review()
        if self.witness is not None:
            self.witness()
        leg, tail = self.downstream, self.tail
        if leg is not None and tail is not None:
            if not self._flowing:
                leg.transport.write(b"".join(tail.units[tail.sent :]))
                self._pause_reading()  # until the browser takes that, as with every tunnel
            self.parking.kept_bytes -= tail.drop()
        for side in (self.upstream, self.downstream):
            if isinstance(side, _ParkableLeg):
                side.flush()
        self.parking.forget(self)

    def drop(self) -> None:
        """Give up a browser that is slow; its page can still come back, unless it is the backend that is slow."""
        upstream, downstream = self.upstream, self.downstream
        if downstream is not None and upstream is not None and self.can_park and not upstream.stalled:
            downstream.transport.abort()
        else:
            super().drop()
