"""What a NiceGUI page says on its socket and what it is told: Engine.IO 4 and Socket.IO 5, without any I/O.

Sources: the protocols' documents (socketio/engine.io-protocol, socketio/socket.io-protocol); NiceGUI's
`static/nicegui.js` (the handshake, `_id` of messages) and `nicegui.py` (`_on_connect`, `_on_handshake`) of 1.4 to 3.18.
"""

import json
from dataclasses import dataclass, field
from typing import Final

from stickyproxy.tools.verify.document import NiceguiPage
from stickyproxy.tools.verify.seen import Outcome

SEPARATOR: Final = "\x1e"
"""Between the packets of a poll (Engine.IO 4, payload)."""

PING, PONG, CLOSE, CONNECT, DISCONNECT = "2", "3", "1", "40", "41"
PROBE_EVENT: Final = '42["stickyproxy-verify"]'
"""An event that no NiceGUI knows: python-socketio drops it without a word, so it costs the app nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What an Engine.IO server says first."""

    sid: str
    ping_interval_s: float
    ping_timeout_s: float


def parse_open(packet: str) -> Opened | None:
    """Read an Engine.IO open packet; None where it is none."""
    if not packet.startswith("0{"):
        return None
    try:
        said = json.loads(packet[1:])
        return Opened(str(said["sid"]), said["pingInterval"] / 1000, said["pingTimeout"] / 1000)
    except (ValueError, KeyError, TypeError):
        return None


def split_payload(text: str) -> list[str]:
    """Split the answer to a poll into its packets."""
    return text.split(SEPARATOR) if text else []


@dataclass(slots=True)
class Speaker:
    """One page's side of a Socket.IO conversation: `on_packet` for each packet that comes gives what is to be sent.

    `outcome` is None until the handshake is decided; `ended` once the server said that it is over.
    """

    page: NiceguiPage
    opened: Opened | None = None
    outcome: Outcome | None = None
    ended: bool = False
    said: str = ""
    """In what words the server refused."""
    _shaken: bool = field(default=False)

    def on_packet(self, packet: str) -> list[str]:
        """Read one packet."""
        if packet == PING:
            return [PONG]
        if (opened := parse_open(packet)) is not None:
            self.opened = opened
            return [CONNECT]
        if packet.startswith("44"):
            self._refuse(packet[2:])
        elif packet.startswith(CONNECT):
            if self.page.asks_implicitly:
                self.outcome = self.outcome or Outcome.ACCEPTED
            elif not self._shaken:
                self._shaken = True
                return ["420" + json.dumps(["handshake", self.page.socket_query()])]
        elif packet.startswith("430"):
            if packet == "430[true]":
                self.outcome = self.outcome or Outcome.ACCEPTED
            elif packet == "430[false]":
                self._refuse('{"message": "handshake: false"}')
        elif packet.startswith("42"):
            self._on_event(packet[2:])
        elif packet == CLOSE or packet.startswith(DISCONNECT):
            self.ended = True
        return []

    def _refuse(self, body: str) -> None:
        self.outcome = self.outcome or Outcome.REFUSED
        try:
            self.said = str(json.loads(body)["message"])[:80]
        except (ValueError, KeyError, TypeError):
            self.said = body[:80]

    def _on_event(self, body: str) -> None:
        """Count a message of NiceGUI's, as its page does, so that a reconnect asks for the next one."""
        try:
            content = json.loads(body)[1]
            number = content["_id"]
        except (ValueError, LookupError, TypeError):
            return
        if isinstance(number, int):
            self.page.next_message_id = max(self.page.next_message_id, number + 1)
