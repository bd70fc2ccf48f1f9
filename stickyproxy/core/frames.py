"""Follow WebSocket frames (RFC 6455 section 5.2) in one direction of a stream, to know when it stands between messages.

Law: it reads lengths only, never content; a stream that turns out not to be what was assumed is said to be lost.
"""

_CONTINUATION = 0x0
_CONTROL = frozenset((0x8, 0x9, 0xA))
_OPCODES = frozenset((_CONTINUATION, 0x1, 0x2)) | _CONTROL

HEARTBEAT_BYTES = 8
"""Most payload bytes of a heartbeat: Engine.IO's ping and pong are one character, a few bytes when deflated. What is
larger was caused by somebody, or acknowledges what the server has pushed."""


class FrameTracker:
    """Follows one direction; must be given the stream from the start of a frame on.

    masked: whether the sender masks, as clients must and servers must not (RFC 6455 section 5.1). `lost` turns true,
    for good, with the first byte that cannot be a frame's; `messages` counts data frames larger than a heartbeat.
    """

    __slots__ = ("_head", "_in_message", "_left", "_masked", "lost", "messages")

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = b""  # of a frame that has begun to come in
        self._left = 0  # bytes of the current frame's payload that have not come
        self._in_message: bool | None = None  # a fragmented message has begun and not ended; None: no data frame yet
        self.lost = False
        self.messages = 0

    @property
    def between(self) -> bool:
        """Say whether the stream stands between two messages; False where it is lost."""
        return not (self._left or self._head or self._in_message or self.lost)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        at, end = 0, len(data)
        while at < end and not self.lost:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            head = self._head + data[at : at + 14 - len(self._head)]
            size = self._read_head(head)
            if size:
                at += size - len(self._head)
                self._head = b""
            else:
                self._head = head
                return

    def _read_head(self, head: bytes) -> int:
        """Read a frame's head; give its size, or 0 where it has not come in whole."""
        first = head[0]
        opcode, final = first & 0x0F, first & 0x80
        if first & 0x30 or opcode not in _OPCODES or (opcode in _CONTROL and not final):
            self.lost = True
        # A message must end before the next begins (section 5.4); where it was followed from, one may have been open.
        if self._in_message is not None and opcode not in _CONTROL:
            self.lost |= self._in_message is not (opcode == _CONTINUATION)
        if len(head) < 2:
            return 0
        length = head[1] & 0x7F
        if bool(head[1] & 0x80) is not self._masked or (opcode in _CONTROL and length > 125):
            self.lost = True
        if length == 127 and len(head) > 2 and head[2] & 0x80:  # 63 bits at the most
            self.lost = True
        extended = {126: 2, 127: 8}.get(length, 0)
        size = 2 + extended + (4 if self._masked else 0)
        if self.lost or len(head) < size:
            return 0
        if extended:
            length = int.from_bytes(head[2 : 2 + extended], "big")
        self._left = length
        if opcode not in _CONTROL:
            self._in_message = not final
            self.messages += length > HEARTBEAT_BYTES
        return size
