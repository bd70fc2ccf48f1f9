"""Find the end of a body in the bytes of a connection (RFC 9112 sections 6 and 7).

A body reader is fed bytes and gives back what to pass on and how much it took; what it did not take belongs to the next
message. Chunks are read strictly and written plainly: extensions go, sizes are bare hexadecimal digits.
"""

import re
from typing import Protocol

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*((?:;[\t -~\x80-\xff]*)?)\r\n")
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\Z")

MAX_LINE_BYTES = 4096
"""Longest line of a chunk size with its extension, and longest trailer section."""

_FORBIDDEN_TRAILERS = frozenset(
    (b"transfer-encoding", b"content-length", b"host", b"connection", b"cookie", b"set-cookie", b"authorization",
     b"trailer", b"te", b"upgrade", b"content-encoding", b"content-type", b"content-range", b"cache-control",
     b"expect", b"forwarded", b"x-real-ip", b"keep-alive", b"proxy-connection")
)  # fmt: skip
"""Fields that must not be merged from a trailer (RFC 9110 section 6.5.1); X-Forwarded-* likewise."""


class BadBodyError(Exception):
    """A body whose end cannot be told safely; close the connection it came from."""


class BodyReader(Protocol):
    """Reads one body; `done` turns true with its last byte, and what comes then is not its."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take what belongs to the body: the bytes to pass on, and the count of bytes taken."""
        ...


class LengthReader:
    """Reads a body of known length (bytes)."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take up to what is left of the body."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data, size
        taken = self.left
        self.left = 0
        self.done = True
        return (data if size == taken else data[:taken]), taken


class UntilCloseReader:
    """Reads a body that ends with the connection, so never by itself."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take everything."""
        return data, len(data)


class ChunkedReader:
    """Reads a chunked body and passes it on chunked, or, with `plain`, as bare content (for HTTP/1.0 clients).

    feed raises BadBodyError at the first byte that is not valid chunking. Only an unfinished line is ever held.
    """

    __slots__ = ("_held", "_left", "_plain", "_trailer", "done")

    def __init__(self, *, plain: bool = False) -> None:
        self.done = False
        self._plain = plain
        self._left = 0  # content bytes of the current chunk still to come, and 2 more for its CRLF
        self._held = b""  # the start of a line whose end has not come
        self._trailer = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take what belongs to the body; a chunk is passed on as it comes, not held until it is whole."""
        before = len(self._held)
        if before:
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        at = 0
        size = len(data)
        while at < size and not self.done:
            if self._left:
                at = self._content(data, at, out)
            elif self._trailer:
                at = self._trailers(data, at, out)
            else:
                at = self._size_line(data, at, out)
            if self._held:
                break
        return (out[0] if len(out) == 1 else b"".join(out)), at - before

    def _content(self, data: bytes, at: int, out: list[bytes]) -> int:
        left = self._left
        end = min(at + left, len(data))
        crlf_at = at + left - 2  # where the chunk's CRLF begins; before `at` when half of it has been read
        if end > crlf_at and data[max(crlf_at, at) : end] != b"\r\n"[max(at - crlf_at, 0) : end - crlf_at]:
            raise BadBodyError("expected CRLF behind a chunk")
        self._left = left - (end - at)
        if not self._plain:
            out.append(data if at == 0 and end == len(data) else data[at:end])
        elif at < crlf_at:
            out.append(data[at : min(end, crlf_at)])
        return end

    def _size_line(self, data: bytes, at: int, out: list[bytes]) -> int:
        match = _SIZE_LINE.match(data, at)
        if not match:
            return self._hold(data, at)
        if match.end() - at > MAX_LINE_BYTES:
            raise BadBodyError("a chunk's size line is too long")
        size = int(match[1], 16)
        if size:
            self._left = size + 2
            if not self._plain:
                out.append(b"%x\r\n" % size)
        else:
            self._trailer = True
        return match.end()

    def _trailers(self, data: bytes, at: int, out: list[bytes]) -> int:
        if data.startswith(b"\r\n", at):
            end, section = at + 2, b""
        else:
            found = data.find(b"\r\n\r\n", at)
            if found < 0:
                return self._hold(data, at)
            end, section = found + 4, data[at:found]
            if end - at > MAX_LINE_BYTES:
                raise BadBodyError("a trailer section is too long")
        kept = [line for line in section.split(b"\r\n") if line and _keep_trailer(line)]
        self.done = True
        if not self._plain:
            out.append(b"0\r\n" + b"".join(line + b"\r\n" for line in kept) + b"\r\n")
        return end

    def _hold(self, data: bytes, at: int) -> int:
        """Keep an unfinished line (or trailer section) for the next feed, if it can still become a good one."""
        held = data[at:]
        if len(held) > MAX_LINE_BYTES:
            raise BadBodyError("a chunk's size line or trailer section is too long")
        if not self._trailer and not re.match(rb"[0-9A-Fa-f]{1,15}[ \t]*(;[\t -~\x80-\xff]*)?\r?\Z", held):
            raise BadBodyError("expected a chunk size")
        self._held = held
        return len(data)


def _keep_trailer(line: bytes) -> bool:
    if not _FIELD_LINE.match(line):
        raise BadBodyError("expected a header line in the trailer section")
    name = line.partition(b":")[0].lower().replace(b"_", b"-")  # CGI-like servers read both alike
    return name not in _FORBIDDEN_TRAILERS and not name.startswith(b"x-forwarded-")


def body_reader(length: int, *, plain: bool = False) -> BodyReader:
    """Give the reader for a head's `length`: bytes, CHUNKED (-1) or UNTIL_CLOSE (-2)."""
    if length >= 0:
        return LengthReader(length)
    return ChunkedReader(plain=plain) if length == -1 else UntilCloseReader()
