"""Ask a page's backend for another socket in its absent browser's name, and see that nothing is missing or doubled.

Sources: Engine.IO 4 and Socket.IO 5; `nicegui.py`, `client.py` and `outbox.py` of NiceGUI 2.24 to 3.18, which send
again what was missed within the last 9 s, numbered (`_id`) without gaps, to the document that names its next number.

Laws: the app is asked with what its page said, but for the number; what it sends twice is kept once; where something
is missing, or may be, that is told.
"""

import re
import zlib
from collections.abc import Sequence
from enum import Enum
from typing import Final

from stickyproxy.core.faults import HeadError
from stickyproxy.core.messages import CLOSE, CONTROL, accept_key, client_frame, read_text
from stickyproxy.core.parking import PONG, agree_stateless, read_extensions
from stickyproxy.core.request import drop_fields
from stickyproxy.core.response import parse_response_head

BEGIN_S: Final = 2.5
"""For attempts to begin: NiceGUI keeps a page for 3 s (its reconnect_timeout) after its socket's end."""

RETRY_S: Final = 0.25
"""Between two of them."""

ANSWER_S: Final = 10.0
"""For a backend to answer one that is connected: it may stand still again, and its own clock with it."""

PAUSE_S: Final = 1.0
"""Between two sockets of one page, so that an app which closes each of them at once is not asked on and on."""

UNKNOWN: Final = -1
"""In the place of a message's number."""

_LONGEST_BYTES: Final = 4 << 20
"""Of a message whose number is read; to inflate more would hold everybody up."""

_LOOKED_AT: Final = 64
"""Messages among which one with a number is looked for."""

_NUMBER = re.compile(rb'"_id":\s*([0-9]{1,15})\s*\}\s*\]\Z')  # it is put in last, whatever else a message holds
_NEXT_IN_QUERY = re.compile(rb"([?&]next_message_id=)([0-9]{1,15})(?=[& ])")
_NEXT_IN_EVENT = re.compile(rb'("next_message_id":\s*)([0-9]{1,15})')
_HANDSHAKE = re.compile(rb"42([0-9]+)\[")
_WEBSOCKET_FIELDS: Final = (b"sec-websocket-key",)
_LONGEST_GREETING: Final = 4096
_CONNECT: Final = b"40"


def read_number(unit: bytes) -> int | None:
    """Read the number of a message of the app's; None where it has none, UNKNOWN where it cannot be read."""
    text = read_text(unit, _LONGEST_BYTES)
    if text is None:
        return UNKNOWN
    found = _NUMBER.search(text)
    return int(found[1]) if found else None


def next_number(units: Sequence[bytes], before: int) -> int:
    """Give the number of the message that follows some; before: of what follows the messages before them."""
    for unit in reversed(units[-_LOOKED_AT:]):
        number = read_number(unit)
        if number is not None:
            return number + 1 if number != UNKNOWN else UNKNOWN
    return before if len(units) <= _LOOKED_AT else UNKNOWN


def read_next_number(said: bytes) -> int:
    """Read which message a page asks for next, by its socket's target or its handshake; UNKNOWN where it says none."""
    found = _NEXT_IN_EVENT.search(said) or _NEXT_IN_QUERY.search(said + b" ")
    return int(found[2]) if found else UNKNOWN


class Asked:
    """How a page asked for its socket, to be asked once more: in few bytes, as every open page has one.

    head: of its request. `number`: which message it wanted first, by its query. `handshake`: the event by which it said
    who it is, for NiceGUI before 3.6; empty where the query does.
    """

    __slots__ = ("_head", "handshake", "number")

    def __init__(self, head: bytes) -> None:
        self._head = zlib.compress(head[:-4], 1)
        self.handshake = b""
        self.number = read_next_number(head[: head.index(b"\r\n")])

    def request(self, number: int, key: bytes) -> bytes:
        """Build the request; number: of the message to begin with; key: a new `Sec-WebSocket-Key`."""
        line, _, fields = zlib.decompress(self._head).partition(b"\r\n")
        line = _NEXT_IN_QUERY.sub(rb"\g<1>%d" % number, line)
        fields = drop_fields(b"\r\n" + fields, _WEBSOCKET_FIELDS)
        return b"%b%b\r\nSec-WebSocket-Key: %b\r\n\r\n" % (line, fields, key)

    def event(self, number: int) -> bytes:
        """Give the handshake's packet; number: as in `request`."""
        return _NEXT_IN_EVENT.sub(rb"\g<1>%d" % number, self.handshake)


def is_accepted(head: bytes, key: bytes, extensions: bytes) -> bool:
    """Judge a backend's answer to the request: it must accept it, with the extensions that were agreed on before.

    head: to its empty line inclusive. extensions: the line, as a browser was given it.
    """
    try:
        answer = parse_response_head(head, b"GET")
    except HeadError:
        return False
    if answer.status != 101 or answer.upgrade != b"websocket":
        return False
    accepted = re.search(rb"\r\nsec-websocket-accept:[ \t]*([^\r]*?)[ \t]*\r\n", head, re.I)
    if accepted is None or accepted[1] != accept_key(key):
        return False
    return read_extensions(agree_stateless(head)).lower() == extensions.lower()


class Progress(Enum):
    """How far the page's new socket has come."""

    ASKED = "asked"
    OPEN = "open"
    REFUSED = "refused"  # the app does not know the page any more, or wants no socket


class Redialogue:
    """Greets the backend in the browser's place, up to where its page is connected.

    handshake: the event to say who it is by, where the query has not. `came`: what the app has sent that is for the
    browser.
    """

    __slots__ = ("_handshake", "_number", "came", "progress")

    def __init__(self, handshake: bytes) -> None:
        self._handshake = handshake
        number = _HANDSHAKE.match(handshake)
        self._number = number[1] if number else b""
        self.progress = Progress.ASKED
        self.came: list[bytes] = []

    def feed(self, unit: bytes) -> bytes:
        """Take a whole message, or a control frame, of the app's; give what it is answered, as frames."""
        if self.progress is Progress.OPEN:
            self.came.append(unit)
            return b""
        if unit[0] & CONTROL:
            if unit[0] == CLOSE:
                self.progress = Progress.REFUSED
            return b""
        packet = read_text(unit, _LONGEST_GREETING) or b""
        if packet[:2] == b"0{":
            return client_frame(_CONNECT)
        if packet == b"2":
            return PONG
        if packet[:2] == b"40":
            if self._handshake:
                return client_frame(self._handshake)
            self.progress = Progress.OPEN
        elif packet[:2] in (b"44", b"41") or packet == b"1":
            self.progress = Progress.REFUSED
        elif self._number and packet.startswith(b"43%b[" % self._number):
            self.progress = Progress.OPEN if packet.endswith(b"[true]") else Progress.REFUSED
        else:
            self.came.append(unit)
        return b""


class Fit(Enum):
    """How a message on a page's new socket goes on from what is kept of the one before."""

    NEXT = "next"  # the one that was to come
    AGAIN = "again"  # it is kept already
    APART = "apart"  # it has no number, as what an app sends past NiceGUI
    GAP = "gap"  # something between is missing, or may be


def fit(unit: bytes, number: int) -> Fit:
    """Judge a message; number: of the one that is to come next. What follows that one is in the app's own order."""
    found = read_number(unit)
    if found is None:
        return Fit.APART
    if found == number:
        return Fit.NEXT
    return Fit.AGAIN if found != UNKNOWN and found < number else Fit.GAP
