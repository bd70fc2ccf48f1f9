"""One line that tells the story of a request, as text or JSON; docs/access-log.md describes it for its readers.

Laws: no line holds a secret: of a query only that there was one, of NiceGUI's paths neither a client id nor the name of
a file that a page registered, and nothing of cookies; no client can break a line or forge one: whatever is not plain
ASCII is escaped, blanks too, and lengths are bounded.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

HIDDEN: Final = "…"
"""Stands in the place of what is left out."""

LONGEST_TARGET: Final = 768
"""Characters of a path that are shown; with them a line stays below the 4096 bytes that pipes take as one."""

_LONGEST_NAME: Final = 128

_SECRETS = re.compile(
    rb"(?<=/_nicegui/client/)[^/]+"
    rb"|(?<=/_nicegui/auto/).+"
    rb"|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
)
_UNSAFE = re.compile(rb"[^!#-\[\]-~]")  # all but visible ASCII, and quote and backslash, which escape
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-|\Z)")


class LogFormat(Enum):
    """How the access log is written."""

    OFF = "off"
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is told of one request; texts are safe already (`safe`, `safe_path`), and empty where there is none.

    `at`: unix time in seconds at which it came. `end`: `done`, `cache`, `client`, `broken-off`, the reason of an answer
    of the proxy's own, or (`tunnel`) that of a tunnel. Times in seconds since it came, None for what never happened.
    Bytes are the client's side.
    """

    at: float
    client: str
    method: str
    path: str
    status: int
    pin: str
    cause: str
    backend: str
    end: str
    connect_s: float | None
    first_byte_s: float | None
    total_s: float
    received_bytes: int
    sent_bytes: int
    trace: str = ""
    tunnel: bool = False


def safe(text: bytes, longest: int = _LONGEST_NAME) -> str:
    """Make a text of somebody else's fit for one word of a line: bounded, and all but visible ASCII escaped."""
    cut = len(text) > longest
    shown = _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], text[:longest]).decode("ascii")
    return shown + HIDDEN if cut else shown


def safe_path(target: bytes) -> str:
    """Make a target fit for a line: its path without secrets, and `?…` for a query."""
    path, mark, _ = target.partition(b"?")
    pieces, at = [], 0
    for found in _SECRETS.finditer(path):
        pieces.append(path[at : found.start()])
        at = found.end()
    pieces.append(path[at:])
    shown = HIDDEN.join(safe(piece, LONGEST_TARGET) for piece in pieces)
    if len(shown) > LONGEST_TARGET:
        shown = shown[:LONGEST_TARGET] + HIDDEN
    return f"{shown}?{HIDDEN}" if mark else shown


def read_trace(value: bytes | None) -> str:
    """Read the trace id of a `traceparent` (W3C Trace Context, section 3.2); empty where none is valid."""
    found = _TRACE.match(value.strip()) if value is not None else None
    if found is None or found[1] == b"0" * 32 or found[0].startswith(b"ff"):
        return ""
    return found[1].decode("ascii")


def text_line(entry: Entry) -> bytes:
    """Give a line of words that stand apart by one blank each; `-` for what there is not."""
    pin = f"{entry.pin}:{entry.cause}" if entry.cause else entry.pin
    times = "/".join(_ms(seconds) for seconds in (entry.connect_s, entry.first_byte_s, entry.total_s))
    words = (
        _time(entry.at), entry.client, entry.method, entry.path, str(entry.status or "-"), pin, entry.backend,
        entry.end, times, f"{entry.received_bytes}/{entry.sent_bytes}", entry.trace,
    )  # fmt: skip
    return f"{' '.join(word or '-' for word in words)}\n".encode()


def json_line(entry: Entry) -> bytes:
    """Give a line that is a JSON object, always with the same keys; null for what there is not."""
    found: dict[str, str | int | float | bool | None] = {
        "time": _time(entry.at),
        "client": entry.client or None,
        "method": entry.method or None,
        "path": entry.path or None,
        "status": entry.status or None,
        "pin": entry.pin or None,
        "cause": entry.cause or None,
        "backend": entry.backend or None,
        "end": entry.end,
        "tunnel": entry.tunnel,
        "connect_ms": _rounded_ms(entry.connect_s),
        "first_byte_ms": _rounded_ms(entry.first_byte_s),
        "total_ms": _rounded_ms(entry.total_s),
        "received_bytes": entry.received_bytes,
        "sent_bytes": entry.sent_bytes,
        "trace_id": entry.trace or None,
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}.{int(at * 1000) % 1000:03}Z"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def _rounded_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
