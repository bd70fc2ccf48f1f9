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
from stickyproxy.core.frames import CONTROL
from stickyproxy.core.messages import CLOSE, accept_key, client_frame, read_text
from stickyproxy.core.parking import PONG, Who, agree_stateless, read_extensions, read_handshake, read_who
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
_LINE: Final = b"GET /?next_message_id=&document_id=%b&tab_id=%b HTTP/1.1\r\n\r\n"
_RENEWED: Final = (b"sec-websocket-key",)

_MOST_BYTES: Final = 4096
"""For a request that is kept: cookies of some kilobytes find room, and nobody can fill the memory by longer ones."""

_LEVEL: Final = 1  # the others make it hardly smaller

_USUAL: Final = (
    b'42["handshake",{"client_id":"","document_id":"","tab_id":"","old_tab_id":null,"next_message_id":0}]'
    b"Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nUser-Agent: "
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    b"Mobile/15E148 Safari/604.1 (Macintosh; Intel Mac OS X 10_15_7) (X11; Linux x86_64; rv:140.0) Gecko/20100101 "
    b"Firefox/140.0 Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile "
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 "
    b"Edg/140.0.0.0\r\nGET /_nicegui_ws/socket.io/?client_id=&next_message_id=0&implicit_handshake=true&document_id=&"
    b"tab_id=&old_tab_id=null&EIO=4&transport=websocket HTTP/1.1\r\nSec-WebSocket-Extensions: permessage-deflate; "
    b"server_no_context_takeover; client_no_context_takeover; client_max_window_bits\r\nHost: \r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nOrigin: https://\r\nSec-WebSocket-Version: 13\r\nSec-Fetch-Dest: empty\r\n"
    b"Sec-Fetch-Mode: websocket\r\nSec-Fetch-Site: same-origin\r\nCookie: session=eyJpZCI6IC\r\n"
    b"X-Forwarded-For: 10.0.\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: \r\nX-Real-IP: \r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
"""What such requests are made of, so that only the rest takes memory."""

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


def pack(head: bytes, event: bytes = b"") -> bytes:
    """Keep how a page asked for its socket in few bytes, as each open page has to.

    head: of its request, to the empty line inclusive. event: the packet by which it said who it is, for NiceGUI before
    3.6, where the query does not. Of a request that is too long only that is kept, and nobody can ask by it again.
    """
    packed = _deflate(drop_fields(head, _RENEWED) + event)
    if len(packed) <= _MOST_BYTES:
        return packed
    return _deflate(_LINE % (read_who(head.split(b" ", 2)[1]) or Who(b"", b"")) + event)


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, _USUAL)
    return packer.compress(data) + packer.flush()


def unpack(asked: bytes) -> tuple[bytes, bytes]:
    """Give head and event again; what a new request has anew is left out."""
    unpacker = zlib.decompressobj(-15, _USUAL)
    head, end, event = unpacker.decompress(asked).partition(b"\r\n\r\n")
    return head + end, event


def can_ask(asked: bytes) -> bool:
    """Say whether the whole request is kept."""
    return unpack(asked)[0].count(b"\r\n") > _LINE.count(b"\r\n")


def with_event(asked: bytes, event: bytes) -> bytes:
    """Keep the event, too, by which an older page has said who it is."""
    return pack(unpack(asked)[0], event)


def who_asked(asked: bytes) -> Who:
    """Say whose socket was asked for, as far as its page has said it."""
    head, event = unpack(asked)
    said = read_handshake(event)
    return said[1] if said is not None else read_who(head.split(b" ", 2)[1]) or Who(b"", b"")


def number_asked(asked: bytes) -> int:
    """Say which message the page asked for; UNKNOWN where it has not."""
    head, event = unpack(asked)
    return read_next_number(event or head.partition(b"\r\n")[0])


def ask_again(asked: bytes, number: int, key: bytes) -> tuple[bytes, bytes]:
    """Build the request for another socket, and the event to say there; empty where it is none.

    number: of the message to begin with. key: a new `Sec-WebSocket-Key`.
    """
    head, event = unpack(asked)
    line, _, fields = head[:-4].partition(b"\r\n")
    line = _NEXT_IN_QUERY.sub(rb"\g<1>%d" % number, line)
    request = b"%b\r\n%b\r\nSec-WebSocket-Key: %b\r\n\r\n" % (line, fields, key)
    return request, _NEXT_IN_EVENT.sub(rb"\g<1>%d" % number, event)


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
