"""What a page's socket needs so that it can outlive its browser's connection: what was sent and not surely received.

Sources: Engine.IO 4 and Socket.IO 5; `nicegui.py`, `outbox.py` and `static/nicegui.js` of NiceGUI 2.24 to 3.18, whose
pages number what they get (`_id`) and drop what they have had already.

Laws: what a browser may not have received is kept whole and in order, or it is known that something is missing; a page
is handed over only to the document that it was taken from.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from stickyproxy.core.messages import read_text, text_frame

PATIENCE_S: Final = 1.0
"""How long a browser may take to answer a heartbeat before it is answered in its place: below the 2 s after which
NiceGUI gives a socket up (its ping_timeout, `max(reconnect_timeout * 0.4, 2)`), with as much again for a busy machine.
Being answered for costs a browser that is only slow nothing."""

OVERHEAD_BYTES: Final = 64
"""Of memory for each message that is kept."""

HEARTBEAT: Final = b"\x81\x012"
"""A server's frame with Engine.IO's ping."""

PONG: Final = b"\x81\x81\x00\x00\x00\x003"
"""A client's frame with Engine.IO's answer to a ping; masked, by a key that changes nothing."""

DIALOGUE_S: Final = 10.0
"""For a browser that comes back to say whose it is: what a request's head may take."""

LONGEST_SENT_BYTES: Final = 1 << 20
"""A browser's longest message that is held until it is whole, and the most that one which comes back may send before it
has said whose it is: NiceGUI takes no longer one (python-engineio's `max_http_buffer_size`, 1,000,000 bytes)."""

_LONGEST_PACKET: Final = 4096
_NUMBERED = re.compile(rb"[?&]next_message_id=")
_ID = rb"[0-9A-Za-z-]{1,64}"  # a UUID, made by the page
_DOCUMENT, _TAB = (re.compile(rb"[?&]%b=(%b)(?:&|\Z)" % (name, _ID)) for name in (b"document_id", b"tab_id"))
_SAID_DOCUMENT, _SAID_TAB = (re.compile(rb'"%b":"(%b)"' % (name, _ID)) for name in (b"document_id", b"tab_id"))
_SAYS_WHO = re.compile(rb'42([0-9]*)\["handshake",')
_OPENS = re.compile(rb'0(\{"sid":")[^"\\]*(".*\})\Z', re.S)
_GREETINGS: Final = (b"0{", b"40", b"43")
_GREETING_COUNT: Final = 16

_PACE: Final = 32
"""Messages that a browser is sent at once between two heartbeats; a page renders so many in far less than the 6 s for
which it waits for one, even on a slow phone."""

_SERVER_STATELESS, _CLIENT_STATELESS = b"server_no_context_takeover", b"client_no_context_takeover"
_DEFLATE = b"permessage-deflate; %b; %b" % (_SERVER_STATELESS, _CLIENT_STATELESS)
_BROWSERS_OFFER: Final = frozenset((_SERVER_STATELESS, _CLIENT_STATELESS, b"client_max_window_bits"))
"""Parameters, without values, that change nothing about a message being read by itself: browsers offer none or the last
one; values of window sizes, which none offers, would have to be agreed on with whoever comes back, too."""

_WEBKITS: Final = b"x-webkit-deflate-frame"
"""The compression of older Safaris, which is no standard and is taken off."""

_OFFER = re.compile(rb"\r\nsec-websocket-extensions:([^\r]*)", re.I)
_STATELESS = re.compile(
    rb"(?=.*%b(?:[ \t;]|\Z))(?=.*%b(?:[ \t;]|\Z))\r\n[a-z-]+:[ \t]*permessage-deflate[ \t]*(?:;[^,\r]*)?"
    % (_SERVER_STATELESS, _CLIENT_STATELESS),
    re.S,
)


class Release(Enum):
    """Why the backend's side of a page that was parked is kept no longer."""

    TIMEOUT = "timeout"  # the browser did not come back in time
    RELOADED = "reloaded"  # its tab shows another page by now
    MEMORY = "memory"  # too much was sent to it meanwhile, or to all together
    PAGES = "pages"  # too many were parked
    BACKEND = "backend"  # the app ended it, or is gone
    DRAIN = "drain"  # its backend, or this proxy, is to be left


class Who(NamedTuple):
    """What a page's socket says of the document and the tab that opened it; empty where it has not said so yet."""

    document: bytes
    tab: bytes


def read_who(target: bytes) -> Who | None:
    """Read a socket's target; None where its page does not number what it gets, as before NiceGUI 2.

    Before 3.6 the document is not in the query; `read_handshake` tells then.
    """
    if not _NUMBERED.search(target):
        return None
    document, tab = _DOCUMENT.search(target), _TAB.search(target)
    return Who(document[1] if document else b"", tab[1] if tab else b"")


def read_handshake(packet: bytes) -> tuple[bytes, Who] | None:
    """Read the event by which a page says who it is; give the number of its acknowledgement too. None: another."""
    event = _SAYS_WHO.match(packet)
    if event is None:
        return None
    document, tab = _SAID_DOCUMENT.search(packet), _SAID_TAB.search(packet)
    return event[1], Who(document[1] if document else b"", tab[1] if tab else b"")


def read_opening(packet: bytes) -> bytes | None:
    """Read Engine.IO's first packet; give it with a `%b` in the place of its session id. None: another packet."""
    found = _OPENS.match(packet)
    return b"0%b%%b%b" % (found[1], found[2].replace(b"%", b"%%")) if found else None


def offer_stateless(head: bytes) -> bytes | None:
    """Let a request's head offer compression only with messages that can be read each by itself (RFC 7692 section 7.1).

    head: its lines behind the first. Where it offers nothing it stays as it is. None where it offers what no browser
    does, another extension or conditions of which something would be lost: such a socket cannot be parked.
    """
    lines = _OFFER.findall(head)
    if not lines:
        return head
    deflate, bits = False, b""
    for offer in b",".join(lines).lower().split(b","):
        name, *parameters = (part.strip(b" \t") for part in offer.split(b";"))
        if name == b"permessage-deflate" and _BROWSERS_OFFER.issuperset(parameters):
            deflate = True
            bits = b"; client_max_window_bits" if b"client_max_window_bits" in parameters else bits
        elif name not in (b"", _WEBKITS):
            return None
    head = _OFFER.sub(b"", head)
    return b"\r\nSec-WebSocket-Extensions: %b%b%b" % (_DEFLATE, bits, head) if deflate else head


def agree_stateless(head: bytes) -> bytes:
    """Let a response's head demand of the browser, too, that its messages can be read each by itself.

    A server may do so whatever it was offered (RFC 7692 section 7.1.1.2), and what keeps no context can be read by one
    that would. head: its lines, the first one among them.
    """
    extensions = read_extensions(head)
    low = extensions.lower()
    if _CLIENT_STATELESS in low or not is_stateless(b"%b; %b" % (low, _CLIENT_STATELESS)) or not low:
        return head
    return head.replace(extensions, b"%b; %b" % (extensions, _CLIENT_STATELESS), 1)


def read_extensions(head: bytes) -> bytes:
    """Read from a response's head, or a request's, its lines of extensions; empty where there are none."""
    return b"".join(found[0] for found in _OFFER.finditer(head))


def is_stateless(extensions: bytes) -> bool:
    """Say whether by these extensions, agreed on, every message can be read by itself: by one at the most."""
    return not extensions or _STATELESS.fullmatch(extensions.lower()) is not None


class Tail:
    """What has been sent to a browser, or is to be sent, since it last answered a heartbeat.

    `units`: whole messages, heartbeats among them, to which who is in a hurry may append, while that is not `useless`,
    if `count` is called when more than `count_at` bytes have come. `sent`: so many of them were given to the connection
    that is there; kept only while that takes nothing. `gap`: something before them is missing, until a heartbeat among
    them has been answered; before the next heartbeat it is `useless` to keep anything. `size`: bytes of memory, as
    counted.
    """

    __slots__ = (
        "_counted", "_fresh", "_ping", "_pings", "_unmatched", "count_at", "gap", "sent", "size", "units", "useless",
    )  # fmt: skip

    def __init__(self, *, fresh: bool = False) -> None:
        self.units: list[bytes] = []
        self.sent = 0
        self.size = 0
        self.gap = False
        self.useless = False
        self.count_at = 0  # received bytes at which whoever appends is to have it counted
        self._counted = 0  # so many of the units are in `size`
        self._ping = b""
        self._pings = 0  # heartbeats among the units, which all stand there in the first one's bytes
        self._unmatched = 0  # heartbeats that the browser has yet to answer, of those that are here no more
        self._fresh = fresh  # the greetings of a new socket may be among them

    def count(self) -> int:
        """Count what has been appended; give the bytes that it takes."""
        new = self.units[self._counted :]
        self._counted += len(new)
        more = sum(map(len, new)) + len(new) * OVERHEAD_BYTES
        self.size += more
        return more

    def keep(self, unit: bytes, *, unsent: bool = False) -> int:
        """Add a message; give the bytes that it takes. One that is of no use is left out, unless it is `unsent`."""
        if self.useless and not unsent:
            return 0
        self.units.append(unit)
        return self.count()

    def keep_ping(self, unit: bytes) -> int:
        """Add a heartbeat."""
        self._ping = self._ping or unit
        self._pings += 1
        self.useless = False
        return self.keep(self._ping)

    def acknowledge(self) -> int:
        """Hear that a heartbeat was answered: what was sent before it has been received. Give the bytes it frees."""
        if self._unmatched:
            self._unmatched -= 1
            return 0
        if not self._pings:  # an answer to nothing
            return 0
        self._pings -= 1
        more, count = self.count(), self.units.index(self._ping) + 1
        freed = sum(map(len, self.units[:count])) + count * OVERHEAD_BYTES
        del self.units[:count]
        self._counted -= count
        self.sent = max(0, self.sent - count)
        self.size -= freed
        self.gap = self._fresh = False
        return freed - more

    def drop(self) -> int:
        """Keep nothing of what has been sent so far; give the bytes it frees."""
        self._unmatched += self._pings
        self._pings = 0
        freed, self.size = self.size, 0
        self.units.clear()
        self.sent = self._counted = 0
        self.gap = self.useless = True
        return freed

    def rewind(self) -> int:
        """Make ready for another connection, which has been sent nothing; give the bytes it frees."""
        before = self.size
        units = [unit for unit in self.units if unit != self._ping]
        if self._fresh:
            first = [unit for unit in units[:_GREETING_COUNT] if not _is_greeting(unit)]
            units[:_GREETING_COUNT] = first
            self._fresh = False
        self.units[:] = units
        self.size = self.sent = self._counted = self._unmatched = self._pings = 0
        self.count()
        return before - self.size

    def pace(self) -> int:
        """Put heartbeats between the messages for a browser that is back, after `rewind`; give their number.

        A page that has much to catch up with works on it for seconds, and takes the silence of heartbeats, which stand
        behind all that, for the end of its connection. Its answers tell how far it has come, too.
        """
        units, paced = self.units, []
        for number, unit in enumerate(units, 1):
            paced.append(unit)
            if not number % _PACE:
                paced.append(HEARTBEAT)
        self._pings = len(paced) - len(units)
        self._ping = HEARTBEAT
        units[:] = paced
        self.size = self._counted = 0
        self.count()
        return self._pings

    @property
    def idle(self) -> bool:
        """Say whether it knows nothing."""
        return not (self.units or self.gap or self._unmatched)


def _is_greeting(unit: bytes) -> bool:
    return (read_text(unit, _LONGEST_PACKET) or b"").startswith(_GREETINGS)


class Step(Enum):
    """How far a returning browser's dialogue has come."""

    OPEN = "open"
    RETURNED = "returned"
    STRANGER = "stranger"  # it is another document


class Dialogue:
    """Greets a browser that comes back in the backend's place, until it can be joined to what was kept.

    opening: `read_opening`'s. implicit: the socket's query has said who it is. is_ours: judges who says to be back.
    `waiting` holds what it sent that is for the backend, in order; `waiting_bytes` of memory.
    """

    __slots__ = ("_connected", "_implicit", "_is_ours", "step", "waiting", "waiting_bytes")

    def __init__(self, *, implicit: bool, is_ours: Callable[[Who], bool]) -> None:
        self._implicit = implicit
        self._is_ours = is_ours
        self.step = Step.OPEN
        self.waiting: list[bytes] = []
        self.waiting_bytes = 0
        self._connected = False

    @staticmethod
    def greeting(opening: bytes, sid: bytes) -> bytes:
        """Give what is sent first."""
        return text_frame(opening % sid)

    def feed(self, unit: bytes, sid: bytes) -> bytes:
        """Take a whole message of the browser's; give what it is answered."""
        packet = (read_text(unit, _LONGEST_PACKET) or b"") if self.step is Step.OPEN else b""
        if packet[:2] == b"40" and not self._connected:
            self._connected = True
            if self._implicit:
                self.step = Step.RETURNED
            return text_frame(b'40{"sid":"%b"}' % sid)
        if self._connected and (said := read_handshake(packet)):
            number, who = said
            ours = self._is_ours(who)
            self.step = Step.RETURNED if ours else Step.STRANGER
            return text_frame(b"43%b[%b]" % (number, b"true" if ours else b"false"))
        self.waiting_bytes += len(unit) + OVERHEAD_BYTES
        if self.waiting_bytes > LONGEST_SENT_BYTES:
            self.step = Step.STRANGER
        self.waiting.append(unit)
        return b""
