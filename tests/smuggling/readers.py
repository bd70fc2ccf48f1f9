"""Readers of HTTP/1.1 streams, strict and lenient ones, by which the judge tells what others would read.

Laws: a stream is safe only if all of them read the same in it; the lenient ones follow what servers have been seen to
do (bare line feeds end lines, white space before a colon is dropped, a number is read as far as it goes), each in the
way that sees most in a stream; none of them imports anything of stickyproxy.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import h11
import httptools

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%b) (/[!-~]*|\*) HTTP/1\.1\Z" % TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t -~\x80-\xff]*\Z|HTTP/1\.1 ([1-5][0-9][0-9])\Z")
_FIELD = re.compile(rb"(%b):[ \t]*([!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*\Z" % TOKEN)
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}\r\n")


class UnreadableError(Exception):
    """A stream that a reader refuses; the text says what it found."""


@dataclass(frozen=True)
class Read:
    """One message as a reader read it. `start`: method and target, or the status; `whole`: it has come to its end."""

    start: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool = True

    @property
    def key(self) -> tuple[tuple[str, ...], bytes, bool]:
        """Give what all readers must agree on."""
        return self.start, self.body, self.whole

    def all(self, name: str) -> list[str]:
        """Give all values of a field, by its lower-case name."""
        return [value for key, value in self.fields if key == name]


def strict(stream: bytes, answers_to: Sequence[str] | None = None, *, ended: bool = False) -> list[Read]:
    """Read a whole stream by the letter of RFC 9112; UnreadableError at the first thing that is not so.

    answers_to: None for requests; else the methods that the responses answer, in order. ended: the stream has ended,
    which ends a body without length.
    """
    found: list[Read] = []
    methods = list(answers_to or ())
    at = 0
    while at < len(stream):
        end = stream.find(b"\r\n\r\n", at)
        if end < 0:
            found.append(Read(("?",), (), b"", whole=False))
            break
        start, fields = _strict_head(stream[at:end], answers=answers_to is not None)
        at = end + 4
        names = dict(fields)
        framing = [(n, v) for n, v in fields if n in ("content-length", "transfer-encoding")]
        if len(framing) > 1:
            raise UnreadableError(f"{len(framing)} framings: {framing}")
        if answers_to is None:
            if [n for n, _ in fields].count("host") != 1:
                raise UnreadableError("not exactly one Host")
            until_close = bodiless = False
        else:
            status = int(start[0])
            method = methods[0] if methods else "GET"
            if status >= 200 and methods:
                methods.pop(0)
            bodiless = status < 200 or status in (204, 304) or method == "HEAD"
            if framing and (status < 200 or status == 204):
                raise UnreadableError(f"a {status} with {framing}")
            until_close = not framing and not bodiless
        if bodiless:
            body, whole = b"", True
        elif until_close:
            body, whole = stream[at:], ended
            at = len(stream)
        elif "transfer-encoding" in names:
            if names["transfer-encoding"] != "chunked":
                raise UnreadableError(f"Transfer-Encoding: {names['transfer-encoding']}")
            body, at, whole = _strict_chunks(stream, at)
        else:
            length = names.get("content-length", "0")
            if not re.fullmatch("0|[1-9][0-9]*", length):
                raise UnreadableError(f"Content-Length: {length}")
            body = stream[at : at + int(length)]
            whole = len(body) == int(length)
            at += len(body)
        found.append(Read(start, fields, body, whole))
    return found


def _strict_head(head: bytes, *, answers: bool) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    line, *lines = head.split(b"\r\n")
    match = (_STATUS_LINE if answers else _REQUEST_LINE).match(line)
    if not match:
        raise UnreadableError(f"a first line {line!r}")
    fields = []
    for field in lines:
        parts = _FIELD.match(field)
        if not parts:
            raise UnreadableError(f"a header line {field!r}")
        fields.append((parts[1].decode().lower(), (parts[2] or b"").decode("latin-1")))
    return tuple(group.decode() for group in match.groups() if group is not None), tuple(fields)


def _strict_chunks(stream: bytes, at: int) -> tuple[bytes, int, bool]:
    body = b""
    while True:
        size = _SIZE.match(stream, at)
        if not size:
            if re.match(rb"[0-9A-Fa-f]{0,15}\r?\Z", stream[at:]):
                return body, len(stream), False
            raise UnreadableError(f"a chunk size {stream[at : at + 20]!r}")
        at = size.end()
        count = int(size[0], 16)
        if not count:
            break
        body += stream[at : at + count]
        at += count
        if at + 2 > len(stream):
            return body, len(stream), False
        if stream[at : at + 2] != b"\r\n":
            raise UnreadableError("a chunk without CRLF")
        at += 2
    while True:
        end = stream.find(b"\r\n", at)
        if end < 0:
            return body, len(stream), False
        line, at = stream[at:end], end + 2
        if not line:
            return body, at, True
        if not _FIELD.match(line):
            raise UnreadableError(f"a trailer {line!r}")


Preference = Literal["chunked", "first-length", "last-length"]
"""Which framing a lenient reader takes where there are several."""


def lenient(stream: bytes, prefer: Preference) -> list[Read]:
    """Read requests as the most careless servers do; never refuses, so that nothing hidden stays hidden.

    Any of CRLF, LF and CR ends a line; two ends in a row end a head; folded lines are joined; names lose white space
    and control characters and `_` counts as `-`; any Transfer-Encoding in which `chunked` stands is chunked.
    """
    found: list[Read] = []
    at = 0
    while at < len(stream):
        if stream[at : at + 1] in (b"\r", b"\n"):
            at += 1
            continue
        line, at, _ = _careless_line(stream, at)
        words = line.split()
        fields: list[tuple[str, str]] = []
        ended = False
        while at < len(stream):
            line, at, terminated = _careless_line(stream, at)
            if not line:
                ended = terminated
                break
            if line[:1] in b" \t" and fields:
                fields[-1] = (fields[-1][0], fields[-1][1] + " " + line.strip().decode("latin-1"))
                continue
            name, _, value = line.partition(b":")
            plain = re.sub(rb"[\x00-\x20\x7f-\xff]", b"", name).lower().replace(b"_", b"-")
            fields.append((plain.decode(), value.strip(b" \t\x0b\x0c\0").decode("latin-1")))
        start = tuple(word.decode("latin-1") for word in words[:2])
        if not ended:
            found.append(Read(start, tuple(fields), b"", whole=False))
            break
        lengths = [v for n, v in fields if n == "content-length"]
        chunked = any(n == "transfer-encoding" and "chunked" in v.lower() for n, v in fields)
        if chunked and (prefer == "chunked" or not lengths):
            body, at, whole = _careless_chunks(stream, at)
        elif lengths:
            length = _careless_number(lengths[0 if prefer == "first-length" else -1])
            body = stream[at : at + length]
            at, whole = at + len(body), len(body) == length
        else:
            body, whole = b"", True
        found.append(Read(start, tuple(fields), body, whole))
    return found


def _careless_line(stream: bytes, at: int) -> tuple[bytes, int, bool]:
    end = re.compile(rb"\r\n|\n|\r").search(stream, at)
    return (stream[at : end.start()], end.end(), True) if end else (stream[at:], len(stream), False)


def _careless_number(text: str) -> int:
    match = re.match(r"\s*[+]?([0-9]+)", text)
    return int(match[1]) if match else 0


def _careless_chunks(stream: bytes, at: int) -> tuple[bytes, int, bool]:
    body = b""
    while at < len(stream):
        line, at, terminated = _careless_line(stream, at)
        digits = re.match(rb"\s*(?:0[xX])?([0-9A-Fa-f]+)", line)
        count = int(digits[1], 16) if digits else 0
        if not terminated:
            break
        if not count:
            while at < len(stream):
                line, at, terminated = _careless_line(stream, at)
                if not line and terminated:
                    return body, at, True
            break
        body += stream[at : at + count]
        at += count
        for end in (b"\r", b"\n"):
            if stream[at : at + 1] == end:
                at += 1
    return body, len(stream), False


def by_h11(stream: bytes) -> list[Read]:
    """Read requests with h11; UnreadableError where it refuses."""
    found: list[Read] = []
    while stream:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(stream)
        try:
            request = connection.next_event()
            if request is h11.NEED_DATA:
                found.append(Read(("?",), (), b"", whole=False))
                break
            assert isinstance(request, h11.Request), request
            start = (request.method.decode(), request.target.decode("latin-1"))
            fields = tuple((n.decode(), v.decode("latin-1")) for n, v in request.headers)
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError as error:
            raise UnreadableError(f"h11: {error}") from None
        whole = isinstance(event, h11.EndOfMessage)
        found.append(Read(start, fields, body, whole))
        stream = connection.trailing_data[0] if whole else b""
    return found


class _Gatherer:
    """Takes llhttp's callbacks."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None
        self._begin()

    def _begin(self) -> None:
        self.target = b""
        self.fields: list[tuple[str, str]] = []
        self.body = b""
        self.open = False

    def on_message_begin(self) -> None:
        self._begin()
        self.open = True

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self._add(whole=True)

    def _add(self, *, whole: bool) -> None:
        if isinstance(self.parser, httptools.HttpRequestParser):
            start: tuple[str, ...] = (self.parser.get_method().decode(), self.target.decode("latin-1"))
        else:
            assert self.parser is not None
            start = (str(self.parser.get_status_code()),)
        self.found.append(Read(start, tuple(self.fields), self.body, whole))
        self.open = False

    def finish(self) -> list[Read]:
        if self.open:
            self._add(whole=False)
        return self.found


def by_llhttp(stream: bytes) -> list[Read]:
    """Read requests with llhttp and all of its leniencies on; UnreadableError where even so it refuses."""
    gatherer = _Gatherer()
    parser = httptools.HttpRequestParser(gatherer)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_chunked_length=True, lenient_keep_alive=True, lenient_transfer_encoding=True,
        lenient_version=True, lenient_data_after_close=True, lenient_optional_lf_after_cr=True,
        lenient_optional_cr_before_lf=True, lenient_optional_crlf_after_chunk=True, lenient_spaces_after_chunk_size=True,
    )  # fmt: skip
    gatherer.parser = parser
    try:
        parser.feed_data(stream)
    except httptools.HttpParserUpgrade as upgrade:
        rest = stream[upgrade.args[0] :]
        return [*gatherer.finish(), *(by_llhttp(rest) if rest else [])]
    except httptools.HttpParserError as error:
        raise UnreadableError(f"llhttp: {error}") from None
    return gatherer.finish()


REQUEST_READERS: dict[str, Callable[[bytes], list[Read]]] = {
    "strict": strict,
    "h11": by_h11,
    "llhttp": by_llhttp,
    "careless, chunks first": lambda stream: lenient(stream, "chunked"),
    "careless, first length": lambda stream: lenient(stream, "first-length"),
    "careless, last length": lambda stream: lenient(stream, "last-length"),
}
"""Who reads what the backend received."""
