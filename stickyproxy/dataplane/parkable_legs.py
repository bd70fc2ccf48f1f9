"""The legs of a tunnel whose browser may go and come back: they cut what comes into messages and pass these on.

Laws: a message goes on when it is whole, or in pieces where it is too long to be held; one of some length costs no more
than being looked at from outside; what a leg does not understand goes on as it came, and the tunnel is told.
"""

import asyncio
from typing import TYPE_CHECKING, ClassVar

from stickyproxy.core.messages import LONG_MESSAGES, LONGEST_SHORT, Cutter, is_message
from stickyproxy.core.parking import LONGEST_SENT_BYTES, Tail
from stickyproxy.dataplane.tunnel import Leg, Tunnel

if TYPE_CHECKING:
    from stickyproxy.dataplane.parkable import ParkableTunnel

_LONGEST_GREETING = 4096
"""By such messages older pages say who they are."""


class ParkableLeg(Leg):
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
        """Give the size up to which a message is held until it is whole: a small one, where others may stream."""
        return LONGEST_SENT_BYTES if self.tunnel.page else _LONGEST_GREETING

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


class ClientLeg(ParkableLeg):
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


class BackendLeg(ParkableLeg):
    """The backend's, which outlives the browser's.

    `tail`: where messages that are not short are kept as they go straight through; None where they do not. `stalled`:
    the backend takes nothing for now.
    """

    __slots__ = ("stalled", "tail")
    masked = False

    def __init__(self, transport: asyncio.Transport, tunnel: Tunnel) -> None:
        super().__init__(transport, tunnel)
        self.stalled = False
        self.tail: Tail | None = None

    def data_received(self, data: bytes) -> None:
        """Pass messages on, each as soon as it is whole."""
        size, tail = len(data), self.tail
        self.received_bytes += size
        if tail is not None and size > LONGEST_SHORT and data[0] in LONG_MESSAGES:  # as nearly all, so it stands here
            length = data[1]
            if length + 2 == size if length < 126 else length == 126 and size == 4 + (data[2] << 8 | data[3]):
                tail.units.append(data)
                self.other.transport.write(data)
                if self.received_bytes > tail.count_at:
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
        """End with the backend where nobody is there to be told, unless it gives another socket."""
        if self.tunnel.away_since and self.tunnel.reopen():
            return False
        if self.tunnel.departed:
            self.ended = True
            return False
        if self.tunnel.away_since:  # and would not hear of it
            self.ended = True
            self.tunnel.side_ended(self)
            self.tunnel.parking.backend_lost(self.tunnel)
            self.other.transport.abort()
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
        """End the tunnel, unless the backend gives another socket."""
        if self.tunnel.away_since and self.tunnel.reopen():
            return
        if self.tunnel.departed:
            self.tunnel.backend_lost(exc)
            return
        if self.tunnel.away_since:
            self.tunnel.parking.backend_lost(self.tunnel)
        super().connection_lost(exc)
