"""Judge a response's head and find in it what a proxy must know.

Laws: llhttp judges the grammar strictly; a response whose end two readers could see at different places is refused, so
that no backend can put words into the mouth of another (RFC 9112 section 11.1); the framing that leaves is the one we
read; the same bytes are judged once, whatever their Date.
"""

import re
from typing import Final, NoReturn

import httptools

from stickyproxy.core.faults import BAD_RESPONSE, HeadError
from stickyproxy.core.nicegui import PAGE_MARKER
from stickyproxy.core.request import ALIASES, CHUNKED, drop_fields

UNTIL_CLOSE: Final = -2
"""The `length` of a body that ends with the connection."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*)?\r\n")

_OK = b"HTTP/1.1 200 OK\r\n"
"""What nearly all answers begin with: to compare costs a third of a match."""

_SEEN = re.compile(
    rb"\r\n(content[-_]length|transfer[-_]encoding|connection|cache-control|keep-alive|proxy-connection|te|upgrade|x-nicegui-content)"
    rb":([^\r]*)"
)

_LASTING = re.compile(rb"(?:s-maxage|max-age)=\"?0*[1-9]")

_NEVER_NOMINATED = frozenset((b"content-length", b"transfer-encoding", b"set-cookie"))

_DATE = re.compile(rb"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT\r\n")
"""The preferred form of a date (RFC 9110 section 5.6.7) and the end of its line."""

_DATE_LINE_BYTES = len(b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT")


class ResponseHead:
    """What was found in one response's head.

    `length` is the body's: bytes, CHUNKED or UNTIL_CLOSE. `kept` are the status line and the header lines to send
    downstream, without hop-by-hop fields but with the framing, and without the last line's CRLF; None where that is
    the head as it came. `control` is what Cache-Control says, in lower case, `page` that the body is a NiceGUI page,
    `chunked` that the head says so (also where there is no body, as for HEAD).
    """

    __slots__ = ("chunked", "close", "control", "kept", "length", "page", "status", "upgrade")

    def __init__(self, status: int, length: int) -> None:
        self.status = status
        self.length = length
        self.kept: bytes | None = None
        self.close = False
        self.control = b""
        self.upgrade = b""
        self.page = False
        self.chunked = False

    @property
    def shared(self) -> bool:
        """Say whether caches between here and the browser may store the response for a time (RFC 9111 section 3).

        Read out of the header only when asked, since nobody asks where a pin is kept.
        """
        said = self.control
        if not said or b"no-store" in said or b"private" in said:
            return False
        return b"public" in said or bool(_LASTING.search(said))


class ResponseReader:
    """Reads the heads of responses, and remembers what it found in those that nothing was cut out of.

    An app's answers differ in little but their Date: a script's, an icon's, a poll's. What stands in a Date line of
    the preferred form bears on nothing else, so a head without it is looked up first. heads, head_bytes: how many are
    remembered, up to which length; then it begins anew, since what is in use comes back at once.
    """

    __slots__ = ("_date", "_found", "_head_bytes", "_heads")

    def __init__(self, heads: int = 256, head_bytes: int = 1024) -> None:
        self._heads = heads
        self._head_bytes = head_bytes
        self._date = b""  # the last that was good, which serves for a second
        self._found: dict[bytes, ResponseHead] = {}

    def parse_head(self, raw: bytes, method: bytes) -> ResponseHead:
        """Parse as `parse_response_head` does; what it gives is shared by all heads alike, and must not be changed."""
        at = raw.find(b"\r\ndate: ")
        if at < 0:
            at = raw.find(b"\r\nDate: ")
        key = raw
        if at >= 0:
            end = at + _DATE_LINE_BYTES
            date = raw[at + 8 : end + 2]
            if date != self._date and _DATE.fullmatch(date):
                self._date = date
            if date == self._date:
                key = raw[:at] + raw[end:]
        head = self._found.get(key)
        if head is not None and method != b"HEAD":
            return head
        head = parse_response_head(raw, method)
        if head.kept is None and method != b"HEAD" and not head.page and len(key) <= self._head_bytes:
            if len(self._found) >= self._heads:
                self._found.clear()
            self._found[key] = head
        return head


def parse_response_head(raw: bytes, method: bytes) -> ResponseHead:
    """Parse one whole head, status line to empty line inclusive, of an answer to `method`.

    Raises HeadError where it is malformed or ambiguous; the backend's connection must then be closed.
    """
    status, minor = 200, True
    if raw[: len(_OK)] != _OK:
        line = _STATUS_LINE.match(raw)
        if not line:
            _refuse()
        status = int(line[2])
        minor = line[1] != b"0"
    try:
        httptools.HttpResponseParser(None).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # a 101: llhttp stops where the head ends
    except httptools.HttpParserError:
        _refuse()
    head = ResponseHead(status, UNTIL_CLOSE)
    low = raw.lower()
    cut = not minor
    connection = b""
    framings = 0
    for name, written in _SEEN.findall(low):
        value = written.strip(b" \t")
        if name == b"content-length":
            framings += 1
            if len(value) > 18 or not value.isdigit():
                _refuse()
            head.length = int(value)
            cut = cut or (value[0] == 48 and value != b"0")  # "0": leading zeros are not passed on
        elif name == b"cache-control":
            head.control += b"," + written  # several lines count as one (RFC 9110 section 5.2)
        elif name == b"x-nicegui-content":
            head.page = value == PAGE_MARKER
        elif name == b"transfer-encoding":
            framings += 1
            if value != b"chunked" or not minor:
                _refuse()
            head.length = CHUNKED
            head.chunked = True
            at = low.find(b"\r\ntransfer-encoding: chunked\r") + 21
            cut = cut or written != b" chunked" or raw[at : at + 7] != b"chunked"  # as we write it, so it leaves
        elif name in ALIASES:
            _refuse()
        else:
            cut = True
            if name == b"connection":
                connection = connection + b"," + value if connection else value
            elif name == b"upgrade":
                head.upgrade = value
    if framings > 1:
        _refuse()
    if cut:
        head.kept = _cut(raw, low, minor)
        head.close = not minor
        if connection:
            _read_connection(head, connection, minor)
    if status < 200 or status == 204:
        if framings:  # RFC 9112 section 6.1, RFC 9110 section 8.6: these have neither a body nor a length of one
            head.kept = drop_fields(head.kept or raw[:-4], (b"content-length", b"transfer-encoding"))
        head.length = 0
    elif method == b"HEAD" or status == 304:
        head.length = 0  # its Content-Length, where there is one, speaks of the body that GET would bring
    return head


def _cut(raw: bytes, low: bytes, minor: bool) -> bytes:
    """Cut out what must not go on, and write the version and an odd Content-Length anew."""
    # Whoever passes a message on states its own version (RFC 9110 section 2.5).
    kept: list[bytes] = [] if minor else [b"HTTP/1.1"]
    keep_from = 0 if minor else 8
    for match in _SEEN.finditer(low):
        if match[1] in (b"cache-control", b"x-nicegui-content"):
            continue
        start, end = match.span()
        kept.append(raw[keep_from:start])
        if match[1] == b"content-length":
            kept.append(b"\r\nContent-Length: %d" % int(match[2]))
        elif match[1] == b"transfer-encoding":
            kept.append(b"\r\nTransfer-Encoding: chunked")
        keep_from = end
    kept.append(raw[keep_from:-4])
    return b"".join(kept)


def _read_connection(head: ResponseHead, connection: bytes, minor: bool) -> None:
    options = {option.strip(b" \t") for option in connection.split(b",")}
    head.close = b"close" in options or not (minor or b"keep-alive" in options)
    if nominated := options - {b"", b"close", b"keep-alive", b"upgrade"}:
        if nominated & _NEVER_NOMINATED:
            _refuse()
        head.kept = drop_fields(head.kept or b"", nominated)


def _refuse() -> NoReturn:
    raise HeadError(BAD_RESPONSE)
