"""What is fuzzed: functions of bytes that raise AssertionError where a law of a parser is broken.

Laws: nothing but a refusal is ever raised; what is accepted, all readers of `tests/smuggling/readers.py` read alike;
however the bytes are cut, the same comes out.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

from smuggling.corpus import REQUESTS, RESPONSES
from smuggling.readers import REQUEST_READERS, UnreadableError, strict

from stickyproxy.core.faults import HeadError
from stickyproxy.core.forwarded import TrustedProxies, client_address, relayed_lines
from stickyproxy.core.frames import FrameTracker
from stickyproxy.core.framing import BadBodyError, ChunkedReader
from stickyproxy.core.handshake import Handshake, read_poll
from stickyproxy.core.request import CHUNKED, RequestHead, RequestReader, looks_like_head, parse_repeat
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead, ResponseReader, parse_response_head
from stickyproxy.core.values import PRIVATE_NETWORKS

from .kept import kept

_READER = RequestReader("stickyproxy", ("kube-probe/",))
_TRUSTED = TrustedProxies(PRIVATE_NETWORKS)
_LONGEST_BODY = 1000


def _head_in(data: bytes) -> bytes:
    """Cut bytes to what the data plane takes for one head."""
    while data.startswith(b"\r\n"):
        data = data[2:]
    data += b"\r\n\r\n"
    return data[: data.find(b"\r\n\r\n") + 4]


def _parse_request(raw: bytes) -> RequestHead | None:
    try:
        return _READER.parse_head(raw)
    except HeadError:
        return None


def request_head(data: bytes) -> None:
    """A request's head, and whether all readers see one request in what goes upstream."""
    looks_like_head(data)
    raw = _head_in(data)
    head = _parse_request(raw)
    if head is None:
        return
    fields = head.fields
    again = parse_repeat(raw, fields)
    assert again is None or (again.line, again.method, again.target) == (head.line, head.method, head.target)
    for name in (b"accept", b"cookie", b"sec-fetch-mode"):
        fields.value(name)
    said = fields.said or []
    forwarded = relayed_lines(said, b"10.0.0.1", fields.host or b"x", _TRUSTED, https=False)
    assert client_address(said, b"10.0.0.1", _TRUSTED)
    if fields.length > _LONGEST_BODY:
        return
    body = b"3\r\nabc\r\n0\r\n\r\n" if fields.length == CHUNKED else b"x" * fields.length
    host = b"" if fields.host else b"\r\nHost: x"
    for lines in (fields.kept, fields.kept + forwarded):
        sent = head.line + host + lines + b"\r\n\r\n" + body
        stream = sent + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
        for name, read in REQUEST_READERS.items():
            try:
                found = read(stream)
            except UnreadableError as error:
                raise AssertionError(f"{name} cannot read {stream!r}: {error}") from error
            starts = [message.start for message in found]
            wanted = [(head.method.decode(), head.target.decode("latin-1")), ("GET", "/next")]
            assert starts == wanted, f"{name} reads {starts} in {stream!r}"


_METHODS = (b"GET", b"HEAD", b"POST")

_REMEMBERING = ResponseReader()
"""Lives through the whole run, so that each head meets what others have left."""


def _remembered(raw: bytes, method: bytes) -> ResponseHead | None:
    try:
        return _REMEMBERING.parse_head(raw, method)
    except HeadError:
        return None


def response_head(data: bytes) -> None:
    """A response's head, and whether a strict reader sees one answer in what goes downstream."""
    method = _METHODS[data[0] % 3] if data else b"GET"
    raw = _head_in(data[1:])
    remembered = _remembered(raw, method)
    try:
        head = parse_response_head(raw, method)
    except HeadError:
        assert remembered is None, f"{raw!r} is refused, but not where others came before"
        return
    assert remembered is not None, f"{raw!r} is refused only where others came before"
    for name in ResponseHead.__slots__:
        assert getattr(remembered, name) == getattr(head, name), f"{name} of {raw!r} depends on what came before"
    sent = (raw[:-4] if head.kept is None else head.kept) + b"\r\n\r\n"
    if head.length > _LONGEST_BODY or head.status == 101:
        return
    body = {CHUNKED: b"3\r\nabc\r\n0\r\n\r\n", UNTIL_CLOSE: b"abc"}.get(head.length, b"x" * head.length)
    behind = b"" if head.length == UNTIL_CLOSE else b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"
    try:
        found = strict(sent + body + behind, [method.decode(), "GET"], ended=True)
    except UnreadableError as error:
        raise AssertionError(f"cannot be read: {sent + body!r}: {error}") from error
    assert [m.start for m in found] == [(str(head.status),)] + ([("299",)] if behind else []), sent
    again = parse_response_head(sent, method)
    assert (again.status, again.length) == (head.status, head.length)


def _pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """Take the places of cuts from the first bytes; give the rest whole and in pieces."""
    count, rest = (data[0] % 8, data[1:]) if data else (0, b"")
    cuts, rest = rest[:count], rest[count:]
    places = sorted({0, len(rest), *(cut * len(rest) // 256 for cut in cuts)})
    return rest, [rest[a:b] for a, b in pairwise(places)]


def _chunked(parts: list[bytes], *, plain: bool) -> tuple[bytes, int, bool] | None:
    reader, out, taken = ChunkedReader(plain=plain), b"", 0
    try:
        for part in parts:
            passed_on, count = reader.feed(part)
            assert 0 <= count <= len(part)
            out, taken = out + passed_on, taken + count
            if reader.done:
                break
            assert count == len(part)
    except BadBodyError:
        return None
    return out, taken, reader.done


def chunks(data: bytes) -> None:
    """A chunked body in any pieces."""
    whole, parts = _pieces(data)
    single = [whole[at : at + 1] for at in range(min(len(whole), 200))]
    for plain in (False, True):
        read = _chunked([whole], plain=plain)
        assert _chunked(parts, plain=plain) == read
        if len(whole) <= 200:
            assert _chunked(single, plain=plain) == read
    passed, content = _chunked([whole], plain=False), _chunked([whole], plain=True)
    assert (passed is None) == (content is None)
    if passed is None or content is None or not passed[2]:
        return
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for name, read_all in REQUEST_READERS.items():
        found = read_all(head + passed[0] + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [m.start for m in found] == [("POST", "/"), ("GET", "/next")], name
        assert found[0].body == content[0], name


def frames(data: bytes) -> None:
    """WebSocket frames in any pieces: the tracker of both directions, and the reader of handshakes."""
    whole, parts = _pieces(data)
    for masked in (False, True):
        states = []
        for cut in ([whole], parts, [whole[at : at + 1] for at in range(len(whole))]):
            tracker = FrameTracker(masked=masked)
            for part in cut:
                tracker.feed(part)
            states.append((tracker.lost, tracker.lost or tracker.between, tracker.lost or tracker.messages))
        assert states[0] == states[1] == states[2], states
    for implicit in (False, True):
        for version in (b"", b"3.6.0", b"3.18.0"):
            assert _shaken([whole], implicit, version) == _shaken(parts, implicit, version)
        _, told = read_poll(whole, implicit=implicit, version=b"3.6.0")
        assert len(told) == len(whole)


def _shaken(parts: list[bytes], implicit: bool, version: bytes) -> tuple[object, bytes]:
    handshake, out = Handshake(implicit=implicit, version=version), b""
    for part in parts:
        out += handshake.feed(part)
    return handshake.outcome, out


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request_head": request_head, "response_head": response_head, "chunks": chunks, "frames": frames,
}  # fmt: skip
"""By the name that the command line knows."""


WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b": ", b" ", b"\t", b",", b";", b"\r\n ", b"HTTP/1.1",
    b"HTTP/1.0", b"GET /",
    b"POST ", b"OPTIONS *", b"http://", b"Host: x", b"Content-Length: 3", b"Content_Length: 3",
    b"Transfer-Encoding: chunked", b"chunked", b"identity", b"Connection: ", b"close", b"keep-alive", b"upgrade",
    b"Upgrade: websocket", b"h2c", b"TE: trailers", b"Cookie: stickyproxy=", b"X-Forwarded-For: ", b"X_Real_IP: ",
    b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT", b"\r\nDate: Mon, 07 Nov 1994 08:49:38 GMT",
    b"Forwarded: ", b"Keep-Alive: 1", b"HTTP2-Settings: x", b"Cache-Control: public, max-age=1", b"Set-Cookie: a=b",
    b"X-NiceGUI-Content: page", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff", b"\x81\x7e\x01\x00",
    b"\x89\0", b"\x88\x02",
    b'44{"message":"timeout"}', b"43[true]", b"40{", b" 200 OK", b" 101 ", b" 204 ", b" 304 ",
)  # fmt: skip
"""What inputs are put together of, besides what the seeds hold."""


def dictionary() -> str:
    """Write the words as libFuzzer reads them."""
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS)


def seeds(name: str) -> Iterator[bytes]:
    """Give the inputs to begin with: those of the corpus that fit, and those that fuzzing has found worth keeping."""
    if name == "request_head":
        yield from (case.raw for case in REQUESTS if len(case.raw) < 2000)
    elif name == "response_head":
        yield from (b"\0" + case.raw for case in RESPONSES if len(case.raw) < 2000)
    elif name == "chunks":
        yield from (
            b"\x03\x20\x60\xa0" + case.raw.partition(b"\r\n\r\n")[2]
            for case in (*REQUESTS, *RESPONSES)
            if case.category == "chunks" and len(case.raw) < 2000
        )
    else:
        yield from (
            b"\x02\x40\x90\x81\x02hi", b"\0\x81\x85\0\0\0\0hello", b"\0\x89\0\x8a\0\x88\x02\x03\xe8",
            b"\x01\x08\x01\x02hi\x80\x02ho",
            b"\0\x82\x7e\x01\x00" + b"x" * 256, b"\0\x82\x7f" + bytes(6) + b"\x01\x00" + b"x" * 256,
            b'\0\x81\x2944{"message":"Implicit handshake failed"}', b"\0\x81\x0243[true]", b"\0\x81\x02" + b"40",
        )  # fmt: skip
    yield from kept(name)
