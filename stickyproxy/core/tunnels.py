"""Why a tunnel ended, decided once: by whoever ended it, or else by which side ended first and what it said before.

Laws: the first reason that is given stays; of two sides that end, the one that said so first (by a WebSocket's Close
frame), or else ended first, is the one that ended it.
"""

from enum import Enum
from typing import NamedTuple

VANISHED_S = 5.0
"""A client that has sent nothing for so long when the app closes its socket has vanished: NiceGUI's page answers a
heartbeat every 4 s, and the app gives up 2 s after one without an answer."""

_CLOSE = 0x88
LEAVING_CODES = frozenset({1001, 1012})
"""Going away, service restart (RFC 6455 section 7.4.1, IANA's registry): what servers say as they end."""


class End(Enum):
    """Why a tunnel ended."""

    CLIENT = "client"  # the browser closed it, or has vanished
    BACKEND = "backend"  # the app closed it, and lives on
    BACKEND_GONE = "backend_gone"  # the replica ends, has crashed, or is gone
    DRAIN = "drain"  # it was to move to another backend
    IDLE = "idle"  # one side took no bytes for too long
    SHUTDOWN = "shutdown"  # the proxy left
    ERROR = "error"  # the network or the proxy failed


NEVER_LOST = frozenset({End.CLIENT, End.SHUTDOWN})
"""Ends after which a page that does not come back is not lost: its user left, or it comes back by another proxy."""


class Close(NamedTuple):
    """A Close frame: who sent it, and its status code (0: none was given, or a client's, which nobody asks for)."""

    by_client: bool
    code: int


def read_close(data: bytes, *, by_client: bool) -> Close | None:
    """Read a Close frame that stands alone in a piece of a stream, as it is sent; None for everything else.

    Its head cannot be compressed or split (RFC 6455 section 5.5).
    """
    if len(data) < 2 or data[0] != _CLOSE:
        return None
    masked, length = data[1] & 0x80, data[1] & 0x7F
    if bool(masked) is not by_client or length > 125 or len(data) != 2 + (4 if masked else 0) + length:
        return None
    return Close(by_client, int.from_bytes(data[2:4], "big") if length >= 2 and not masked else 0)


def judge(
    error: Exception | None, close: Close | None, *, client: bool, websocket: bool, gone: bool, client_silent_s: float
) -> End:
    """Name the end of a tunnel one of whose sides has ended by itself.

    error: what the transport says, None for a clean end. close: the first Close frame that was seen. client: it was the
    client's side. gone: the backend is no longer listed, is about to go, or refuses connections. client_silent_s:
    seconds since the client last sent anything.
    """
    if close is not None:
        client = close.by_client
    # A reset or a broken pipe is how people and processes leave too; all else (no route, keep-alive unanswered) is the
    # network's failure.
    failed = error is not None and not isinstance(error, ConnectionError)
    if client:
        return End.ERROR if failed and close is None else End.CLIENT
    if gone or (close is not None and close.code in LEAVING_CODES):
        return End.BACKEND_GONE
    if failed:
        return End.ERROR
    if close is None and websocket:  # cut without a word, as a process that is killed does
        return End.BACKEND_GONE
    return End.CLIENT if client_silent_s >= VANISHED_S else End.BACKEND
