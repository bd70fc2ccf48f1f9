"""Judge a response's head and find in it what a proxy must know.

Laws: llhttp judges the grammar strictly; a response whose end two readers could see at different places is refused, so
that no backend can put words into the mouth of another (RFC 9112 section 11.1); the framing that leaves is the one we
read.
"""

import re
from typing import Final, NoReturn

import httptools

from stickyproxy.core.faults import BAD_RESPONSE, HeadError
from stickyproxy.core.request import CHUNKED, drop_fields

UNTIL_CLOSE: Final = -2
"""The `length` of a body that ends with the connection."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n]*)?\Z")

_SEEN = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|cache-control|keep-alive|proxy-connection|te|upgrade):([^\r]*)"
)

_NEVER_NOMINATED = frozenset((b"content-length", b"transfer-encoding", b"set-cookie"))


class ResponseHead:
    """What was found in one response's head.

    `length` is the body's: bytes, CHUNKED or UNTIL_CLOSE. `fields` are the status line and the header lines to send
    downstream, without hop-by-hop fields and without the last line's CRLF; framing lines are as we read them. `shared`
    says that caches between here and the browser may store it.
    """

    __slots__ = ("close", "fields", "length", "shared", "status", "upgrade")

    def __init__(self, status: int) -> None:
        self.status = status
        self.length = UNTIL_CLOSE
        self.fields = b""
        self.close = False
        self.shared = False
        self.upgrade = b""


def parse_response_head(raw: bytes, method: bytes) -> ResponseHead:
    """Parse one whole head, status line to empty line inclusive, of an answer to `method`.

    Raises HeadError where it is malformed or ambiguous; the backend's connection must then be closed.
    """
    line_end = raw.index(b"\r\n")
    line = _STATUS_LINE.match(raw[:line_end])
    if not line:
        _refuse()
    try:
        httptools.HttpResponseParser(None).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # a 101: llhttp stops where the head ends
    except httptools.HttpParserError:
        _refuse()
    head = ResponseHead(int(line[2]))
    minor = line[1] != b"0"
    # Whoever passes a message on states its own version (RFC 9110 section 2.5).
    kept: list[bytes] = [] if minor else [b"HTTP/1.1"]
    keep_from = 0 if minor else 8
    connection = b""
    length = UNTIL_CLOSE
    framings = 0
    for match in _SEEN.finditer(raw.lower()):
        name = match[1]
        if name == b"cache-control":
            head.shared = head.shared or b"public" in match[2] or b"s-maxage" in match[2]
            continue
        start, end = match.span()
        value = match[2].strip(b" \t")
        if name == b"content-length":
            framings += 1
            if len(value) > 18 or not value.isdigit():
                _refuse()
            length = int(value)
            if value[0] != 48 or value == b"0":  # "0": a number with leading zeros is written anew
                continue
            kept.append(raw[keep_from:start] + b"\r\nContent-Length: %d" % length)
            keep_from = end
            continue
        kept.append(raw[keep_from:start])
        keep_from = end
        if name == b"transfer-encoding":
            framings += 1
            if value != b"chunked" or not minor:
                _refuse()
            length = CHUNKED
        elif name == b"connection":
            connection = connection + b"," + value if connection else value
        elif name == b"upgrade":
            head.upgrade = raw[match.start(2) : end].strip(b" \t")
    kept.append(raw[keep_from:-4])
    head.fields = b"".join(kept) if len(kept) > 1 else kept[0]
    if framings > 1:
        _refuse()
    if connection:
        options = {option.strip(b" \t") for option in connection.split(b",")}
        head.close = b"close" in options or not (minor or b"keep-alive" in options)
        if nominated := options - {b"", b"close", b"keep-alive", b"upgrade"}:
            if nominated & _NEVER_NOMINATED:
                _refuse()
            head.fields = drop_fields(head.fields, nominated)
    else:
        head.close = not minor
    if head.status < 200 or head.status == 204:
        # RFC 9112 section 6.1 and RFC 9110 section 8.6: these have neither a body nor a length of one.
        if framings:
            head.fields = drop_fields(head.fields, (b"content-length",))
        head.length = 0
    elif method == b"HEAD" or head.status == 304:
        head.length = 0  # its Content-Length, where there is one, speaks of the body that GET would bring
    else:
        head.length = length
    return head


def _refuse() -> NoReturn:
    raise HeadError(BAD_RESPONSE)
