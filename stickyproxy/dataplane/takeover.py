"""A browser's way back to its parked page: its WebSocket is accepted, and it is greeted, in the backend's place.

Law: nothing of the page is touched before the browser has said that it is the one which left it.
"""

import re
from random import Random

from stickyproxy.core.messages import CLOSE, Cutter, accept_key
from stickyproxy.core.nicegui import asks_implicitly
from stickyproxy.core.parking import LONGEST_SENT_BYTES, Dialogue, Step, Who, read_extensions
from stickyproxy.core.request import RequestHead
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.parking import Parking

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


class Takeover:
    """The return of one browser to `tunnel`; `waiting`: what it has sent that is for the backend."""

    def __init__(self, tunnel: ParkableTunnel, head: RequestHead, key: bytes, sid: bytes) -> None:
        self.tunnel = tunnel
        self._key = key
        self._sid = sid
        self._cutter = Cutter(masked=True, most=LONGEST_SENT_BYTES)
        self._dialogue = Dialogue(implicit=asks_implicitly(head.target), is_ours=self._is_ours)

    @classmethod
    def of(cls, parking: Parking, page: bytes, head: RequestHead, random: Random) -> "Takeover | None":
        """Give the return that a request to open a page's socket is; None where it is none, or no sound request."""
        fields = head.fields
        key = fields.value(b"sec-websocket-key") or b""
        if fields.value(b"sec-websocket-version") != b"13" or not _KEY.fullmatch(key):
            return None
        tunnel = parking.find(page, head.target, read_extensions(fields.upstream))
        return cls(tunnel, head, key, b"%020x" % random.getrandbits(80)) if tunnel is not None else None

    def _is_ours(self, who: Who) -> bool:
        return who.document == self.tunnel.who.document

    def greeting(self, cookie: bytes) -> bytes:
        """Build the answer to the request, and what is sent behind it; cookie: a line for its head."""
        assert self.tunnel.opening is not None
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b%b%b\r\n\r\n%b"
        ) % (
            accept_key(self._key),
            self.tunnel.extensions,
            cookie,
            Dialogue.greeting(self.tunnel.opening, self._sid),
        )

    @property
    def waiting(self) -> list[bytes]:
        """Give what the browser has sent that is for the backend, in order."""
        return self._dialogue.waiting

    @property
    def waiting_bytes(self) -> int:
        """Count the memory for what it has sent."""
        return self._dialogue.waiting_bytes + self._cutter.held_bytes

    @property
    def rest(self) -> Cutter | None:
        """Give what holds the beginning of the browser's next message."""
        return None if self._cutter.idle else self._cutter

    def feed(self, data: bytes) -> tuple[Step, bytes]:
        """Take bytes of the browser's; say how far it has come, and what it is answered."""
        answers: list[bytes] = []
        for unit, whole in self._cutter.feed(data):
            if not whole or unit[0] == CLOSE:  # it leaves again, without having been there
                return Step.STRANGER, b"".join(answers)
            answers.append(self._dialogue.feed(unit, self._sid))
        return self._dialogue.step, b"".join(answers)
