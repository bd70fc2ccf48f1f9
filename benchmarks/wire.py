"""Hold the bytes that cross the wire, for the load generator and the backends alike.

Everything is built once and ahead of time, so that neither side of the proxy spends CPU on making messages.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
STATUS_OK: Final = b"HTTP/1.1 200"
STATUS_SWITCHING: Final = b"HTTP/1.1 101"

SMALL_BODY_BYTES: Final = 200
LARGE_BODY_BYTES: Final = 300_000
WS_PAYLOAD_BYTES: Final = 200

SMALL_PATH: Final = "/small"
VARIED_PATH: Final = "/varied"
LARGE_PATH: Final = "/large"
WS_PATH_PREFIX: Final = "/_nicegui_ws/"

VARIED_ANSWERS: Final = 1000
"""So many answers of ``/varied`` differ in their header lines before they come again."""

REQUEST_HEADERS: Final = 17
"""Header lines of a measured request: what Chromium sends with a reload."""

_USER_AGENT: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"
)
_OTHER_COOKIE: Final = (
    "session=eyJpZCI6ICI2ZjBmYzJkYi0xYzQ2LTRlYjEtYjQ1Ni0wZTQ0ZDI3M2FkYzYifQ==.aGk1bA.Zk3zq0m5Y1nJ8kT2hVw7sQxR4bE"
)
"""The cookie of the app itself (the shape of Starlette's SessionMiddleware), which every proxy has to carry along."""

_WS_KEY: Final = base64.b64encode(bytes(range(16))).decode()
_WS_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_WS_PAYLOAD: Final = (b"stickyproxy benchmark " * 10)[:WS_PAYLOAD_BYTES]
WS_CLIENT_FRAME: Final = (
    b"\x81" + bytes([0x80 | 126]) + WS_PAYLOAD_BYTES.to_bytes(2, "big") + b"\x00\x00\x00\x00" + _WS_PAYLOAD
)
"""A masked text frame of 200 bytes (RFC 6455, 5.2); the mask is zero, so that an echo need not compute it."""
WS_CLIENT_HEAD_BYTES: Final = 8
WS_SERVER_HEAD: Final = b"\x81" + bytes([126]) + WS_PAYLOAD_BYTES.to_bytes(2, "big")
WS_SERVER_FRAME: Final = WS_SERVER_HEAD + _WS_PAYLOAD

WS_OPENING: Final = (
    b'0{"sid":"benchmarkbenchmark00","upgrades":[],"pingTimeout":2000,"pingInterval":4000,"maxPayload":1000000}'
)
WS_GREETING: Final = b"\x81" + bytes([len(WS_OPENING)]) + WS_OPENING
"""What a NiceGUI app says first (Engine.IO 4)."""
WS_CONNECT: Final = b"\x81\x82\x00\x00\x00\x0040"
_CONNECTED: Final = b'40{"sid":"benchmarkbenchmark00"}'
WS_CONNECTED: Final = b"\x81" + bytes([len(_CONNECTED)]) + _CONNECTED
"""By which page and app greet each other then (Socket.IO 5)."""
WS_HEARTBEAT: Final = b"\x81\x012"
WS_HEARTBEAT_ANSWER: Final = b"\x81\x81\x00\x00\x00\x003"


def request(path: str, port: int, sticky_cookie: str, referer: str = "/") -> bytes:
    """Build a GET with exactly ``REQUEST_HEADERS`` header lines.

    ``sticky_cookie`` is the ``name=value`` by which the proxy pins the browser; an empty one is left out, and only the
    app's own cookie is sent. ``referer`` is the path of the page that asks.
    """
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "keep-alive",
        "Cache-Control": "max-age=0",
        "sec-ch-ua": '"Not)A;Brand";v="8", "Chromium";v="138", "Google Chrome";v="138"',
        "sec-ch-ua-mobile": "?0",
        "sec-ch-ua-platform": '"Linux"',
        "DNT": "1",
        "Upgrade-Insecure-Requests": "1",
        "User-Agent": _USER_AGENT,
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
        "Referer": f"http://127.0.0.1:{port}{referer}",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": "en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
        "Cookie": _cookies(sticky_cookie),
    }
    if len(headers) != REQUEST_HEADERS:
        raise AssertionError(f"{len(headers)} headers, not {REQUEST_HEADERS}")
    return _head(f"GET {path} HTTP/1.1", headers)


def ws_handshake(port: int, sticky_cookie: str) -> bytes:
    """Build an opening handshake (RFC 6455, 4.1) for a NiceGUI page of its own, with fresh random ids."""
    query = (
        f"client_id={uuid.uuid4()}&next_message_id=0&implicit_handshake=true&document_id={uuid.uuid4()}"
        f"&tab_id={uuid.uuid4()}&EIO=4&transport=websocket"
    )
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Pragma": "no-cache",
        "Cache-Control": "no-cache",
        "User-Agent": _USER_AGENT,
        "Upgrade": "websocket",
        "Origin": f"http://127.0.0.1:{port}",
        "Sec-WebSocket-Version": "13",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": "en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
        "Cookie": _cookies(sticky_cookie),
        "Sec-WebSocket-Key": _WS_KEY,
    }
    return _head(f"GET {WS_PATH_PREFIX}socket.io/?{query} HTTP/1.1", headers)


def response(body: bytes, date: str, etag: str = "") -> bytes:
    """Build a whole 200 response with the headers uvicorn sends; ``date`` is an IMF-fixdate."""
    headers = {
        "date": date,
        "server": "uvicorn",
        "content-length": str(len(body)),
        "content-type": "text/html; charset=utf-8",
    }
    if etag:
        headers["etag"] = f'"{etag}"'
    return _head("HTTP/1.1 200 OK", headers) + body


def ws_accept(handshake: bytes) -> bytes:
    """Answer an opening handshake (RFC 6455, 4.2.2); raises ``ValueError`` when it has no key."""
    for line in handshake.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            accept = base64.b64encode(hashlib.sha1(value.strip() + _WS_GUID, usedforsecurity=False).digest())
            headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept.decode()}
            return _head("HTTP/1.1 101 Switching Protocols", headers)
    raise ValueError("a WebSocket handshake without Sec-WebSocket-Key")


def backend_body(index: int, size: int) -> bytes:
    """Fill a body of ``size`` bytes that begins with the backend's index."""
    return f"<p>backend={index}</p>".encode().ljust(size, b".")


def backend_of(body: bytes) -> int:
    """Read the backend's index out of a body; raises ``ValueError`` when no backend wrote it."""
    mark, _, rest = body.partition(b"=")
    if mark != b"<p>backend":
        raise ValueError(f"not the body of a backend: {body[:40]!r}")
    return int(rest.partition(b"<")[0])


def _cookies(sticky_cookie: str) -> str:
    return f"{_OTHER_COOKIE}; {sticky_cookie}" if sticky_cookie else _OTHER_COOKIE


def _head(start_line: str, headers: dict[str, str]) -> bytes:
    lines = [start_line, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("ascii") + HEAD_END
