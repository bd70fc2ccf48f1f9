"""Cut a WebSocket's stream into whole messages, and read the short ones (RFC 6455 section 5, RFC 7692).

Laws: every byte comes out again, in order, unless its message never ends; what cannot be followed comes out as it came;
what is read is read without any other message, so streams that carry a compressor's context on are not read.
"""

import base64
import hashlib
import zlib
from typing import Final

from stickyproxy.core.frames import CONTROL, NO_FRAME, frame_end

CLOSE: Final = 0x88
PING: Final = 0x89
"""First bytes of Close and Ping frames."""

LONG_MESSAGES: Final = frozenset((0x81, 0x82, 0xC1, 0xC2))
"""First bytes of frames that are a whole message."""

_WHOLE: Final = LONG_MESSAGES | {0x88, 0x89, 0x8A}
"""Those, and the first bytes of control frames."""

_SHORT_BYTES: Final = 8
"""Most payload bytes of a packet that is read wherever it stands: `2`, `3` and `41`, deflated or not."""

LONGEST_SHORT: Final = 6 + _SHORT_BYTES
"""Bytes of the longest frame, masked or not, that such a packet can be."""

_COMPRESSED: Final = 0x40
_DEFLATE_END: Final = b"\x00\x00\xff\xff"

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

_Piece = tuple[bytes, bool]


def accept_key(key: bytes) -> bytes:
    """Give what a server answers a client's key with (RFC 6455 section 4.2.2); the digest is no secret."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def is_message(data: bytes, *, masked: bool) -> bool:
    """Say whether bytes are exactly one frame that is a whole message or a control frame; True for nearly all reads."""
    size = len(data)
    if size < 2 or data[0] not in _WHOLE or bool(data[1] & 0x80) is not masked:
        return False
    length = data[1] & 0x7F
    head = 6 if masked else 2
    if length < 126:
        return size == head + length
    return length == 126 and not data[0] & CONTROL and size == head + 2 + int.from_bytes(data[2:4], "big")


def short_text(frame: bytes) -> bytes:
    """Read a frame of one short text message; empty for everything else. frame: whole, masked or not."""
    head = 6 if frame[1] & 0x80 else 2
    if len(frame) > head + _SHORT_BYTES or frame[0] & ~_COMPRESSED != 0x81:
        return b""
    return read_text(frame, 64) or b""


def read_text(frame: bytes, most: int) -> bytes | None:
    """Read a text message of one frame; None for everything else, and for what is longer than `most` bytes.

    What is long is not even unmasked or inflated, as everybody may send it.
    """
    if frame[0] & ~_COMPRESSED != 0x81 or len(frame) > 2 * most + 64:
        return None
    length, at = frame[1] & 0x7F, 2
    if length >= 126:
        at = 4 if length == 126 else 10
    payload = frame[at:]
    if frame[1] & 0x80:
        payload = unmask(payload[4:], payload[:4])
    if not frame[0] & _COMPRESSED:
        return payload if len(payload) <= most else None
    inflater = zlib.decompressobj(-15)
    try:
        text = inflater.decompress(payload + _DEFLATE_END, most + 1)
    except zlib.error:
        return None
    return text if len(text) <= most else None


def unmask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask a payload (RFC 6455 section 5.3)."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def text_frame(text: bytes) -> bytes:
    """Build a server's frame of a text message of up to 65,535 bytes."""
    size = len(text)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + text


def client_frame(text: bytes) -> bytes:
    """Build a client's frame of a text message of up to 65,535 bytes; masked, by a key that changes nothing."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + text


def pong_frame(ping: bytes) -> bytes:
    """Build a client's answer to a server's Ping frame; masked, by a key that changes nothing."""
    return bytes((0x8A, 0x80 | ping[1])) + bytes(4) + ping[2:]


def close_code(frame: bytes) -> int:
    """Read the status code of a whole Close frame; 0 where it has none."""
    payload = frame[2:]
    if frame[1] & 0x80:
        payload = unmask(payload[4:], payload[:4])
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 0


class Cutter:
    """Cuts one direction of a stream into messages, each with all its frames, and control frames between them.

    masked: whether the sender masks. most: bytes of the longest message that is held until it is whole; a longer one
    comes out in pieces. Must be given the stream from a message's start on. `lost` turns true, for good, with the first
    byte that cannot be a frame's: all comes out as it came from then on.
    """

    __slots__ = ("_held", "_left", "_masked", "_most", "_needed", "_open", "_scanned", "lost", "passing")

    def __init__(self, *, masked: bool, most: int) -> None:
        self._masked = masked
        self._most = most
        self._held = bytearray()
        self._needed = 0  # bytes to be held before it is worth looking again
        self._scanned = 0  # held bytes that are whole frames of a message that has not ended
        self._open = False  # a fragmented message has begun and not ended
        self._left = 0  # bytes of the frame that is being passed on in pieces
        self.passing = False  # a message is being passed on in pieces
        self.lost = False

    @property
    def idle(self) -> bool:
        """Say whether the stream stands between two messages, and nothing is held."""
        return not (self._held or self.passing or self.lost)

    @property
    def held_bytes(self) -> int:
        """Count the bytes that are held."""
        return len(self._held)

    def give_up(self) -> bytes:
        """Follow no longer; give what was held."""
        held = bytes(self._held)
        self._held = bytearray()
        self.lost = True
        return held

    def feed(self, data: bytes) -> list[_Piece]:
        """Take the next bytes; give what can go on: bytes, and whether they are a whole message or control frame."""
        if self.lost:
            return [(data, False)]
        self._held += data
        return self._cut() if len(self._held) >= self._needed else []

    def _cut(self) -> list[_Piece]:
        out: list[_Piece] = []
        while self._held and not self.lost:
            if self._left:
                out.append((self._take(min(self._left, len(self._held))), False))
                self._left -= len(out[-1][0])
                if not self._left:
                    self.passing = self._open
                continue
            if not self._step(out):
                break
        if self.lost and self._held:
            out.append((self._take(len(self._held)), False))
        return out

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        self._scanned = self._needed = 0
        return taken

    def _step(self, out: list[_Piece]) -> bool:
        """Read one frame; False where it has not come in whole."""
        held, at = self._held, self._scanned
        end = self._frame_end(at)
        if self.lost:
            return False
        if end == 0:
            self._needed = len(held) + 1
            return False
        control = bool(held[at] & CONTROL)
        if end > len(held) and (end > self._most or self.passing):
            if not control:
                self._open = not held[at] & 0x80
            self.passing = True
            self._left = end
            return True
        if end > len(held):
            self._needed = end
            return False
        if control:
            if at or self.passing:  # between the frames of a message
                if held[at] == CLOSE:
                    self.lost = True
                    return False
                self._scanned = end
            else:
                out.append((self._take(end), True))
                return True
        else:
            self._open = not held[at] & 0x80
            self._scanned = end
        if self.passing:
            out.append((self._take(end), False))
            self.passing = self._open
        elif not self._open:
            out.append((self._take(end), True))
        elif end > self._most:
            self.passing = True
            out.append((self._take(end), False))
        return True

    def _frame_end(self, at: int) -> int:
        """Find where the frame ends that begins at a position; 0 where its head has not come in whole."""
        held = self._held
        if at == len(held):
            return 0
        end, first = frame_end(held, at, masked=self._masked), held[at]
        if first & CONTROL:
            odd = first & _COMPRESSED
        else:
            continues = not first & 0x0F
            odd = continues is not self._open or (continues and first & _COMPRESSED)
        if end == NO_FRAME or odd:
            self.lost = True
            return 0
        return end
