"""Judge a request's head and find in it what a proxy must know.

Laws: llhttp judges the grammar strictly, and what it lets pass but two readers could read in two ways is refused here;
nothing rebuilds a list of headers: what must go is cut out of the judged bytes; the same bytes are judged once.

Sources: RFC 9112 (messages), RFC 9110 (semantics), RFC 9110 section 7.6.1 (hop-by-hop fields).
"""

import re
from collections.abc import Iterable
from typing import Final, NoReturn

import httptools

from stickyproxy.core.cookies import split_cookie
from stickyproxy.core.faults import Fault, HeadError

CHUNKED: Final = -1
"""The `length` of a body whose end is told by its chunks."""

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods that can be sent twice with the effect of once (RFC 9110 section 9.2.2)."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%-]+(?::[0-9]*)?\Z|\[[0-9A-Fa-f:.%A-Za-z_~-]+\](?::[0-9]*)?\Z")
_HTTP_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]\Z")
_REQUEST_LINE_START = re.compile(rb"[!#$%&'*+\-.^_`|~\w]{1,32}( [^ \r\n]*( (H(T(T(P(/[^\r\n]*)?)?)?)?)?)?)?\r?\Z", re.A)

# The header lines a proxy must see, searched in the lower-cased head; everything else passes unread.
_SEEN = (
    rb"\r\n(host|connection|cookie|content[-_]length|transfer[-_]encoding|upgrade|te|keep-alive|proxy-connection"
    rb"|http2-settings|forwarded|x[-_]real[-_]ip|x[-_]forwarded[-_][^:\r]*|user-agent(?=:[ \t]*(?:%b))%b):([^\r]*)"
)

_ORIGIN_FORM = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")

ALIASES = frozenset((b"content_length", b"transfer_encoding"))
"""Names that CGI-like servers read as framing, and nobody else: the two would see another end of the message."""

_HASH = ord("#")  # as a number, which is found in bytes much sooner than bytes in bytes

_PAST_OUR_EYES = (b"h2", b"http/", b"tls/")
"""Beginnings of protocols that would carry requests through a tunnel where this proxy cannot see them."""

_KNOWN_OPTIONS = frozenset(
    (b"", b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b"proxy-connection", b"transfer-encoding")
)

_NEVER_NOMINATED = frozenset((b"host", b"content-length", b"cookie", b"authorization"))


class RequestFields:
    """What was found in one request's header lines.

    `raw` is the block they stand in, from the CRLF behind the request line to the empty line inclusive. `length` is the
    body's: bytes, or CHUNKED. `kept` are the lines to send upstream, each behind a CRLF: without hop-by-hop fields,
    without our cookie and without `X-Forwarded-*` and the like, which stand in `said` (names in lower case; None where
    the client says nothing). `upgrade` is the value of a valid Upgrade, or empty. `upstream` is for the caller: all
    that follows the request line upstream.
    """

    __slots__ = (
        "close", "host", "kept", "length", "probe", "raw", "said", "tokens", "upgrade", "upstream",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.kept = b""
        self.upstream = b""
        self.host = b""
        self.length = 0
        self.close = False
        self.upgrade = b""
        self.probe = False
        self.tokens: list[bytes] = []
        self.said: list[tuple[bytes, bytes]] | None = None

    def value(self, name: bytes) -> bytes | None:
        """Give a field's value (the first line's, without white space around it), by its lower-case name."""
        at = self.raw.lower().find(b"\r\n" + name + b":")
        if at < 0:
            return None
        start = at + len(name) + 3
        return self.raw[start : self.raw.index(b"\r\n", start)].strip(b" \t")


class RequestHead:
    """One request's head: `line` is the request line to send upstream, in origin form and without its CRLF."""

    __slots__ = ("fields", "line", "method", "minor", "target")

    def __init__(self, line: bytes, method: bytes, target: bytes, minor: int, fields: RequestFields) -> None:
        self.line = line
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields

    @property
    def replayable(self) -> bool:
        """Say whether the request can be sent a second time: idempotent and without a body."""
        return self.method in IDEMPOTENT and self.fields.length == 0

    @property
    def navigation(self) -> bool:
        """Say whether a browser asks for a new document, so that a person will look at the answer.

        Fetch Metadata tells (Sec-Fetch-Mode: navigate); browsers without it name text/html in Accept.
        """
        if self.method != b"GET" or self.fields.upgrade:
            return False
        mode = self.fields.value(b"sec-fetch-mode")
        if mode is not None:
            return mode.lower() == b"navigate"
        return b"text/html" in (self.fields.value(b"accept") or b"").lower()


class RequestReader:
    """Reads request heads by one set of rules; holds no state between heads.

    cookie: name of the cookie to take out. probers: beginnings of the User-Agent of health probes.
    max_headers: most header lines in a head.
    """

    __slots__ = ("_cookie", "_max_headers", "_seen")

    def __init__(self, cookie: str, probers: Iterable[str] = (), max_headers: int = 128) -> None:
        self._cookie = cookie.encode()
        self._max_headers = max_headers
        agents = b"|".join(re.escape(p.lower().encode()) for p in probers)
        # With no prober the alternative must match nothing at all: (?!) never does.
        self._seen = re.compile(_SEEN % (agents, b"" if agents else b"(?!)"))

    def parse_head(self, raw: bytes) -> RequestHead:
        """Parse one whole head, request line to empty line inclusive; HeadError says what is wrong with it."""
        line_end = raw.index(b"\r\n")
        words = raw[:line_end].split(b" ")
        # llhttp would skip line breaks before the method; they were taken off before, and only as whole CRLFs.
        if len(words) != 3 or not words[1] or not raw[:1].isalpha():
            _refuse("bad-request-line", "Expected METHOD TARGET HTTP/1.1 in the request's first line.")
        method, target, version = words
        if version == b"HTTP/1.1":
            minor = 1
        elif version == b"HTTP/1.0":
            minor = 0
        else:
            _refuse_version(version)
        try:
            httptools.HttpRequestParser(None).feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # a CONNECT or an Upgrade: llhttp stops where the head ends
        except httptools.HttpParserInvalidMethodError:
            _refuse("unknown-method", "The request's method is not one this proxy passes on.", 501)
        except httptools.HttpParserError as error:
            _refuse("bad-head", f"The request's head is not valid HTTP/1.1: {error}.")
        if method == b"CONNECT" or method == b"PRI":
            _refuse("unknown-method", "This proxy opens no tunnels by CONNECT and speaks HTTP/1.1 only.", 501)
        fields = self._parse_fields(raw[line_end:], minor)
        if not target.startswith(b"/"):
            target = _origin_form(method, target, fields.host)
        if _HASH in target:
            _refuse("bad-target", "Expected no fragment (#...) in the request's target.")
        return RequestHead(b"%b %b HTTP/1.1" % (method, target), method, target, minor, fields)

    def _parse_fields(self, raw: bytes, minor: int) -> RequestFields:
        """Find what matters in a block of header lines that llhttp has judged."""
        if raw.count(b"\n") - 2 > self._max_headers:
            _refuse("too-many-headers", f"Expected at most {self._max_headers} header lines.", 431)
        fields = RequestFields(raw)
        keep_from = 0
        kept: list[bytes] = []
        hosts = framings = 0
        connection = upgrade = b""
        for match in self._seen.finditer(raw.lower()):
            name = match[1]
            start, end = match.span()
            if name == b"host":
                hosts += 1
                fields.host = raw[match.start(2) : end].strip(b" \t")
                continue
            if name == b"user-agent":
                fields.probe = True
                continue
            value = match[2].strip(b" \t")
            if name == b"cookie":
                written = raw[match.start(2) : end]
                if written.find(self._cookie) < 0:  # `in` is slower: bytes try it as a number first
                    continue
                left, taken = split_cookie(written, self._cookie)
                if not taken:
                    continue
                fields.tokens += taken
                kept.append(raw[keep_from:start])
                if left:
                    kept.append(b"\r\nCookie: " + left)
                keep_from = end
                continue
            kept.append(raw[keep_from:start])
            keep_from = end
            if name == b"connection":
                connection = connection + b"," + value if connection else value
            elif name == b"content-length":
                framings += 1
                fields.length = _parse_length(value)
                kept.append(b"\r\nContent-Length: %d" % fields.length)  # as we read it, whatever zeros led it
            elif name == b"transfer-encoding":
                framings += 1
                if value != b"chunked" or minor == 0:
                    _refuse("bad-transfer-encoding", "Expected Transfer-Encoding: chunked alone, in HTTP/1.1.")
                fields.length = CHUNKED
                kept.append(b"\r\nTransfer-Encoding: chunked")
            elif name == b"upgrade":
                upgrade = upgrade + b"," + value if upgrade else raw[match.start(2) : end].strip(b" \t")
            elif name in ALIASES:
                _refuse("bad-length", f"Expected no header {name.decode()}, which some servers read with a hyphen.")
            elif name[0] in b"xf":
                if fields.said is None:
                    fields.said = []
                fields.said.append((name, raw[match.start(2) : end].strip(b" \t")))
        kept.append(raw[keep_from:-4])
        fields.kept = b"".join(kept)
        if framings > 1:  # llhttp refuses this too; it is the one mistake that must never pass
            _refuse("bad-length", "Expected one Content-Length or one Transfer-Encoding, found several.")
        if hosts != 1 and (hosts or minor):
            _refuse("bad-host", f"Expected exactly one Host header, found {hosts}.")
        if hosts and not _HOST.match(fields.host):
            _refuse("bad-host", "Expected HOST or HOST:PORT in the Host header.")
        if minor == 0:
            # A proxy must not keep connections of HTTP/1.0 clients open (RFC 9112 section 9.3).
            fields.close = True
        if connection not in (b"", b"keep-alive"):
            _read_connection(fields, connection, upgrade if minor else b"")
        return fields


def _read_connection(fields: RequestFields, connection: bytes, upgrade: bytes) -> None:
    options = {option.strip(b" \t") for option in connection.split(b",")}
    fields.close = fields.close or b"close" in options
    # An Upgrade with a body has no agreed meaning, one in HTTP/1.0 must be ignored (RFC 9110 section 7.8), and HTTP
    # under another name would pass unseen: such a request goes on as an ordinary one.
    if upgrade and b"upgrade" in options and fields.length == 0:
        wanted = (protocol.strip(b" \t").lower() for protocol in upgrade.split(b","))
        fields.upgrade = b"" if any(p.startswith(_PAST_OUR_EYES) for p in wanted) else upgrade
    nominated = options - _KNOWN_OPTIONS
    if nominated:
        if nominated & _NEVER_NOMINATED:
            _refuse("bad-connection", "The Connection header names a field that is not hop-by-hop.")
        # X-Forwarded-* are no longer among the lines, so that none can be struck out by being named here.
        fields.kept = drop_fields(fields.kept, nominated)


def parse_repeat(data: bytes, fields: RequestFields) -> RequestHead | None:
    """Parse bytes that are exactly one head whose header lines were judged before, in an HTTP/1.1 request.

    Browsers repeat their header lines byte for byte, for all scripts of a page for instance; then only the request line
    is left to read. None where the bytes are anything else, which says nothing about them.
    """
    if data.endswith(fields.raw):
        line = _ORIGIN_FORM.match(data)
        if line and line.end() + len(fields.raw) == len(data):
            return RequestHead(line[0], line[1], line[2], 1, fields)
    return None


def looks_like_head(start: bytes) -> bool:
    """Say whether bytes with no end of head yet can still become a request that we understand.

    Bare line feeds, HTTP/0.9, TLS and binary noise are told apart at the first line instead of at the time-out.
    """
    line, newline, _ = start.partition(b"\n")
    if not newline:
        return bool(_REQUEST_LINE_START.match(line)) or line in (b"", b"\r")
    words = line.split(b" ")
    return line.endswith(b"\r") and len(words) == 3 and words[2].startswith(b"HTTP/")


def drop_fields(fields: bytes, names: Iterable[bytes]) -> bytes:
    """Cut the lines of some fields (lower-case names) out of header lines that each stand behind a CRLF.

    What stands before the first CRLF (a status line, or nothing) always stays.
    """
    unwanted = set(names)
    first, *lines = fields.split(b"\r\n")
    return b"\r\n".join((first, *(line for line in lines if line.partition(b":")[0].lower() not in unwanted)))


def _parse_length(value: bytes) -> int:
    # 10**18 bytes are more than any body; beyond it readers overflow in different ways.
    if len(value) > 18 or not value.isdigit():
        _refuse("bad-length", "Expected one Content-Length of 1 to 18 digits.")
    return int(value)


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    """Turn an absolute-form target into origin form (RFC 9112 section 3.2.2)."""
    if target == b"*":
        if method != b"OPTIONS":
            _refuse("bad-target", "The target * goes with OPTIONS only.")
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        _refuse("bad-target", "Expected a target that begins with / or http://.")
    cut = re.search(rb"[/?#]", rest)
    authority, path = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, b"")
    # The target's authority replaces Host, by the RFC; two that differ are an attack or a mistake.
    if authority.lower() != host.lower():
        _refuse("bad-host", "The host in the request's target differs from the Host header.")
    if not path and method == b"OPTIONS":
        return b"*"  # RFC 9112 section 3.2.4: asks about the server as a whole
    return path if path.startswith(b"/") else b"/" + path


def _refuse_version(version: bytes) -> NoReturn:
    if _HTTP_VERSION.match(version) and not version.startswith(b"HTTP/1"):
        _refuse("bad-version", "This proxy speaks HTTP/1.1 and HTTP/1.0 only.", 505)
    _refuse("bad-request-line", "Expected METHOD TARGET HTTP/1.1 in the request's first line.")


def _refuse(reason: str, text: str, status: int = 400) -> NoReturn:
    raise HeadError(Fault(status, reason, text))
