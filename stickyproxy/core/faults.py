"""Why the proxy answers by itself, and the answers it gives.

Every such answer is small, says what happened in words, and carries the reason as one token in `X-Stickyproxy-Reason`.
"""

from dataclasses import dataclass
from html import escape

PHRASES = {
    200: "OK",
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

REASON_HEADER = "X-Stickyproxy-Reason"


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason to answer instead of a backend: status code, token of the reason, and a sentence for a person.

    retry_s: after so many seconds a browser shall try the same address again by itself; 0: it shall not.
    """

    status: int
    reason: str
    text: str
    retry_s: int = 0


class HeadError(Exception):
    """A head that must not be passed on; the connection it came from is closed after the answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


NO_BACKEND = Fault(503, "no-backend", "No replica of this app is known at the moment. It may be starting.", 2)
OUT_OF_RESOURCES = Fault(503, "out-of-resources", "The proxy has run out of connections.", 5)
RELOAD_LOOP = Fault(
    503,
    "reload-loop",
    "This page has reloaded many times in a few seconds without getting a connection, so it is held here for a while. "
    "Its WebSocket does not reach the replica that built it: something before this proxy may mix several "
    "proxies with different secrets, cookies may be blocked (see --page-token), or the app fails as it connects.",
    20,
)
CONNECT_REFUSED = Fault(
    502, "connect-refused", "No replica of this app accepts connections at the moment. It may be starting.", 2
)
CONNECT_TIMEOUT = Fault(504, "connect-timeout", "No replica of this app answered the connection in time.", 2)
TOO_MANY_PENDING = Fault(
    503, "too-many-pending", "The replica of this page has too many unanswered requests. It may be overloaded.", 5
)
COME_BY_SOCKET = Fault(
    503, "come-by-socket", "This page is parked, and can be taken up by a WebSocket only; its browser tries one next."
)
CLOSED_EARLY = Fault(502, "closed-early", "The app closed the connection before it answered.")
BAD_RESPONSE = Fault(502, "bad-response", "The app answered with something that is not valid HTTP/1.1.")
RESPONSE_TIMEOUT = Fault(504, "response-timeout", "The app did not begin to answer in time.")
HEAD_TIMEOUT = Fault(408, "head-timeout", "The request's headers did not arrive in time.")
BODY_TIMEOUT = Fault(408, "body-timeout", "The request's body did not arrive in time.")
PLAIN_ON_TLS = Fault(400, "plain-http", "This port speaks HTTPS, and a plain HTTP request came: use https://.")
BACKEND_TLS = Fault(
    502, "backend-tls", "No replica of this app could be reached by TLS; /readyz and the proxy's log say what is wrong."
)
BAD_BODY = Fault(400, "bad-chunk", "The request's body is not validly chunked (RFC 9112 section 7.1).")

REASONS = (
    *(f.reason for f in (NO_BACKEND, OUT_OF_RESOURCES, RELOAD_LOOP, CONNECT_REFUSED, CONNECT_TIMEOUT, CLOSED_EARLY)),
    *(f.reason for f in (BAD_RESPONSE, RESPONSE_TIMEOUT, HEAD_TIMEOUT, BODY_TIMEOUT, BAD_BODY)),
    COME_BY_SOCKET.reason, TOO_MANY_PENDING.reason, PLAIN_ON_TLS.reason, BACKEND_TLS.reason,
    "broken-off", "head-too-large", "too-many-headers", "unknown-method", "bad-connection", "bad-head", "bad-host",
    "bad-length", "bad-request-line", "bad-target", "bad-transfer-encoding", "bad-version",
)  # fmt: skip
"""All reasons, those of malformed requests among them; `broken-off` is no answer, but the end of one in its middle."""

# A script keeps the address's fragment, which a refresh by the page's head loses.
_RETRY = """<script>setTimeout(() => location.reload(), {seconds} * 1000)</script>
<noscript><meta http-equiv="refresh" content="{seconds}"></noscript>
"""

_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{status} {phrase}</title>
<style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34rem;
padding:0 1rem}}small{{opacity:.7}}</style></head>
<body><h1>{phrase}</h1><p>{text}</p>{again}<p><small>stickyproxy: {status} {reason}</small></p></body></html>
"""


def answer(fault: Fault, *, html: bool = False, close: bool = False, head_only: bool = False) -> bytes:
    """Build a whole response for a fault.

    html: for a person's navigation, else `text/plain`. close: say that the connection ends with it. head_only: the
    request was a HEAD, so leave the body out but keep its Content-Length (RFC 9110 section 9.3.2).
    """
    phrase = PHRASES[fault.status]
    if html:
        body = _HTML.format(
            status=fault.status,
            phrase=phrase,
            text=escape(fault.text),
            reason=escape(fault.reason),
            refresh=_RETRY.format(seconds=fault.retry_s) if fault.retry_s else "",
            again=f"<p>This page tries again by itself every {fault.retry_s} seconds.</p>" if fault.retry_s else "",
        ).encode()
    else:
        body = f"{fault.text}\n".encode()
    return respond(
        fault.status,
        body,
        content_type="text/html" if html else "text/plain",
        extra=f"{REASON_HEADER}: {fault.reason}\r\n" + (f"Retry-After: {fault.retry_s}\r\n" if fault.retry_s else ""),
        close=close,
        head_only=head_only,
    )


def respond(
    status: int, body: bytes, *, content_type: str, extra: str = "", close: bool = False, head_only: bool = False
) -> bytes:
    """Build a whole response that no cache may keep; `extra` is header lines, each with its CRLF."""
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\n"
        f"Content-Type: {content_type}; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        f"{extra}{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n"
    ).encode("ascii")
    return head if head_only else head + body
