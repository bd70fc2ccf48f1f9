"""How a backend receives a page's socket: it shakes hands, or it refuses, because it does not have the page.

A wrong backend accepts the WebSocket all the same (101) and refuses in one of the first packets, so those are read:
WebSocket frames (RFC 6455 section 5.2, RFC 7692) with packets of Engine.IO 4 and Socket.IO 5. Sources: `nicegui.py`
(`_on_connect`, `_on_handshake`) and `static/nicegui.js` (`connect_error`) of NiceGUI 1.4 to 3.18.

Laws: every byte goes on, in order and untouched, but for the one refusal that the page would not understand; what
cannot be read is no refusal; as soon as the outcome is known nothing is read any more.
"""

import re
import zlib
from enum import Enum
from typing import Final

_MAX_MESSAGE_BYTES: Final = 4096
"""Longest message that is read: of a handshake's packets none is longer than some 200 bytes."""

_MAX_MESSAGES: Final = 16
"""So many of the first messages are read; events that an app sends may come between a handshake's packets."""

_TEXT: Final = 0x1
_CONTROL: Final = 0x8
_COMPRESSED: Final = 0x40

_ACKNOWLEDGED = re.compile(rb"43[0-9]*\[(true|false)\]\Z")
_CONNECTED: Final = b"40"
_REFUSED: Final = b"44{"
_SEPARATOR: Final = b"\x1e"
_REFUSAL = re.compile(rb'44\{"message":"(?:Connection rejected by server|Implicit handshake failed|timeout)"\}')

_KNOWS_REFUSALS: Final = (3, 7)
"""From this version of NiceGUI on, a page reloads when it is refused; pages of older ones know only time-outs."""

_REFUSAL_NOW: Final = b'44{"message":"Implicit handshake failed"}'
_REFUSAL_ONCE: Final = b'44{"message":"timeout"}'


class Outcome(Enum):
    """What became of a handshake."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # it could not be read


def understood(refusal: bytes, version: bytes) -> bytes:
    """Give a Socket.IO refusal in the words on which a page reloads; as it is where it is none of NiceGUI's.

    version: NiceGUI's that built the page; empty where that is not known, so that the page is taken to be as old as
    the backend that refuses.
    """
    if not _REFUSAL.fullmatch(refusal):
        return refusal
    numbers = [int(number) for number in re.findall(rb"[0-9]+", version)[:2]]
    if numbers:
        return _REFUSAL_NOW if tuple(numbers) >= _KNOWS_REFUSALS else _REFUSAL_ONCE
    return refusal if refusal == _REFUSAL_NOW else _REFUSAL_ONCE


def read_poll(payload: bytes, *, implicit: bool, version: bytes) -> tuple[Outcome, bytes]:
    """Read the whole answer to a poll; give what it says of the handshake, and what is to be passed on in its place.

    The packets of an answer stand apart by record separators (Engine.IO 4). What is passed on is as long as what came:
    a refusal in other words is filled up with spaces, which JSON allows.
    """
    packets = payload.split(_SEPARATOR)
    outcome = Outcome.PENDING
    for number, packet in enumerate(packets):
        packet_says = _outcome(packet, implicit=implicit)
        if packet_says is Outcome.REFUSED:
            told = understood(packet, version)
            if len(told) <= len(packet):  # as all of NiceGUI's are but one, which no known version sends
                packets[number] = told[:-1].ljust(len(packet) - 1) + told[-1:]
        if packet_says is not Outcome.PENDING:
            outcome = packet_says
    return outcome, _SEPARATOR.join(packets)


def _outcome(packet: bytes, *, implicit: bool) -> Outcome:
    """Say what one packet says of the handshake."""
    if packet.startswith(_REFUSED):
        return Outcome.REFUSED
    if implicit:
        return Outcome.ACCEPTED if packet.startswith(_CONNECTED) else Outcome.PENDING
    if answer := _ACKNOWLEDGED.match(packet):
        return Outcome.ACCEPTED if answer[1] == b"true" else Outcome.REFUSED
    return Outcome.PENDING


class Handshake:
    """Reads what a backend says first on a page's WebSocket, until the `outcome` is known.

    implicit: the page asks for its handshake in the socket's query (since 3.6), so that the connection's own answer
    is the outcome; older pages ask by an event and get an acknowledgement. version: as for `understood`.
    """

    __slots__ = ("_held", "_implicit", "_inflater", "_messages", "_version", "outcome")

    def __init__(self, *, implicit: bool, version: bytes) -> None:
        self.outcome = Outcome.PENDING
        self._implicit = implicit
        self._version = version
        self._held = b""
        self._messages = 0
        self._inflater: zlib._Decompress | None = None  # made when it is needed: it takes 40 KB

    def feed(self, data: bytes) -> bytes:
        """Read a piece; give back what is to be passed on, which is all but a frame that has not come in whole."""
        if self.outcome is not Outcome.PENDING:
            return data
        data, at = self._held + data, 0
        out = []
        while (end := self._frame_end(data, at)) <= len(data):
            outcome, frame = self._read_frame(data[at:end]) if end > at else (Outcome.UNKNOWN, b"")
            out.append(frame)
            at = end
            if outcome is not Outcome.PENDING:
                self.outcome = outcome
                self._held, self._inflater = b"", None
                return b"".join((*out, data[at:]))
        self._held = data[at:]
        return b"".join(out)

    def end(self) -> bytes:
        """Give what was held back, at the connection's end."""
        held, self._held = self._held, b""
        if self.outcome is Outcome.PENDING:
            self.outcome = Outcome.UNKNOWN
        return held

    def _frame_end(self, data: bytes, at: int) -> int:
        """Find the end of the frame at a position, which is the position itself where the frame is not to be read."""
        if at + 2 > len(data):
            return at + 2
        length, head = data[at + 1], 2
        if length == 126:
            if at + 4 > len(data):
                return at + 4
            length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        if length > _MAX_MESSAGE_BYTES or data[at + 1] > 126:  # longer, or masked, which a server's are not
            return at
        return at + head + length

    def _read_frame(self, frame: bytes) -> tuple[Outcome, bytes]:
        """Read a whole frame; give the outcome and what is to be passed on in the frame's place."""
        first, payload = frame[0], frame[4 if frame[1] == 126 else 2 :]
        if first & _CONTROL:
            return Outcome.PENDING, frame
        self._messages += 1
        message = self._message(first, payload) if first & ~_COMPRESSED == 0x80 | _TEXT else None
        if message is None or self._messages > _MAX_MESSAGES:
            return Outcome.UNKNOWN, frame
        outcome = _outcome(message, implicit=self._implicit)
        told = understood(message, self._version) if outcome is Outcome.REFUSED else message
        if told != message:  # a sender need not compress every message (RFC 7692 section 6)
            frame = bytes((0x80 | _TEXT, len(told))) + told
        return outcome, frame

    def _message(self, first: int, payload: bytes) -> bytes | None:
        """Decode a message; None where that cannot be done."""
        if not first & _COMPRESSED:
            return payload
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-15)
        try:
            message = self._inflater.decompress(payload + b"\x00\x00\xff\xff", _MAX_MESSAGE_BYTES)
        except zlib.error:
            return None
        return message if not self._inflater.unconsumed_tail else None
