"""Follow WebSocket frames (RFC 6455 section 5.2) in one direction of a stream, to know when it stands between messages.

Law: it reads lengths only, never content; a stream that turns out not to be what was assumed is said to be lost.
"""

from typing import Final

CONTROL: Final = 0x08
"""Is set in the first byte of every control frame, and of no other frame."""

NO_FRAME: Final = -1
"""In the place of a frame's end: these bytes cannot be a frame's."""

_FINAL, _MASK = 0x80, 0x80
_RESERVED: Final = 0x30  # RSV2 and RSV3, which no extension in use gives a meaning
_FIRST: Final = frozenset(
    first
    for first in range(256)
    if not first & _RESERVED
    and first & 0x0F in (0x0, 0x1, 0x2, 0x8, 0x9, 0xA)
    and (first & _FINAL or not first & CONTROL)
)
"""First bytes that a frame can have."""

HEARTBEAT_BYTES = 8
"""Most payload bytes of a heartbeat: Engine.IO's ping and pong are one character, a few bytes when deflated. What is
larger was caused by somebody, or acknowledges what the server has pushed."""


def frame_end(data: bytes | bytearray, at: int, *, masked: bool) -> int:
    """Find where the frame ends whose head begins at a position, which may be behind the data's end.

    0 where the head has not come in whole; NO_FRAME where it cannot be a head, as far as it is there. masked: whether
    the sender masks, as clients must and servers must not (RFC 6455 section 5.1).
    """
    there = len(data) - at
    if there < 2:
        return 0 if not there or data[at] in _FIRST else NO_FRAME
    first, second = data[at], data[at + 1]
    length = second & 0x7F
    if first not in _FIRST or (second >= _MASK) is not masked or (length > 125 and first & CONTROL):
        return NO_FRAME
    head = at + (6 if masked else 2)
    if length > 125:
        more = 2 if length == 126 else 8
        if length == 127 and there > 2 and data[at + 2] & 0x80:  # 63 bits at the most
            return NO_FRAME
        head += more
        length = int.from_bytes(data[at + 2 : at + 2 + more], "big")
    return head + length if head <= len(data) else 0


class FrameTracker:
    """Follows one direction; must be given the stream from the start of a frame on.

    masked: whether the sender masks. `lost` turns true, for good, with the first byte that cannot be a frame's;
    `messages` counts data frames larger than a heartbeat.
    """

    __slots__ = ("_head", "_in_message", "_left", "_masked", "lost", "messages")

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = b""  # of a frame that has begun to come in
        self._left = 0  # bytes of the current frame that have not come, but for its head
        self._in_message: bool | None = None  # a fragmented message has begun and not ended; None: no data frame yet
        self.lost = False
        self.messages = 0

    @property
    def between(self) -> bool:
        """Say whether the stream stands between two messages; False where it is lost."""
        return not (self._left or self._head or self._in_message or self.lost)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        at = self._left
        if self._head:
            data = self._head + data
            self._head = b""
        size = len(data)
        while at < size and not self.lost:
            end = frame_end(data, at, masked=self._masked)
            first = data[at]
            if end == NO_FRAME or not self._follows(first):
                self.lost = True
            elif end == 0:
                self._head = data[at:]
                at = size
            else:
                if not first & CONTROL:
                    self._in_message = first < _FINAL
                    self.messages += data[at + 1] & 0x7F > HEARTBEAT_BYTES
                at = end
        self._left = at - size if at > size else 0

    def _follows(self, first: int) -> bool:
        """Say whether a frame may come here: a message must end before the next begins (RFC 6455 section 5.4).

        Where the stream was followed from, one may have been open.
        """
        return self._in_message is None or bool(first & CONTROL) or self._in_message is (first & 0x0F == 0)
