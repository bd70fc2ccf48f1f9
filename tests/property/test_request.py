"""What is read in a request's head, beside what h11 reads in it: the backend must not see another request."""

import h11
from hypothesis import assume, example, given
from hypothesis import strategies as st

from stickyproxy.core.faults import HeadError
from stickyproxy.core.request import CHUNKED, RequestFields, RequestHead, RequestReader, looks_like_head, parse_repeat

from .heads import HEADS, LINES, tidy_heads

READER = RequestReader("stickyproxy", ("kube-probe/",))

HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"http2-settings")


def parse(raw: bytes) -> RequestHead | None:
    try:
        return READER.parse_head(raw)
    except HeadError:
        return None


def everything(head: RequestHead) -> list[object]:
    """Give all attributes of a head, to compare two."""
    fields = head.fields
    found = [getattr(fields, name) for name in RequestFields.__slots__]
    return [head.line, head.method, head.target, head.minor, head.replayable, head.navigation, *found]


def body_of(length: int) -> bytes:
    return b"3\r\nabc\r\n0\r\n\r\n" if length == CHUNKED else b"x" * length


class Heard:
    """One request as h11 reads it, its body included; ValueError where it does not accept it."""

    def __init__(self, raw: bytes, body: bytes) -> None:
        server = h11.Connection(h11.SERVER)
        server.receive_data(raw + body + b"NEXT")
        try:
            request = server.next_event()
            assert isinstance(request, h11.Request)
            self.body = b""
            while isinstance(event := server.next_event(), h11.Data):
                self.body += event.data
        except h11.RemoteProtocolError as error:
            raise ValueError(str(error)) from None
        assert isinstance(event, h11.EndOfMessage), event
        self.request = request
        self.names = [name for name, _ in request.headers]
        self.values = dict(request.headers)
        self.behind = server.trailing_data[0]


@given(HEADS)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 3\r\n\r\n")
def test_what_is_accepted_h11_reads_alike(raw: bytes) -> None:
    head = parse(raw)
    assume(head is not None)
    assert head is not None
    assume(head.fields.length < 1000)
    heard = Heard(raw, body_of(head.fields.length))
    assert heard.request.method == head.method
    assert heard.request.http_version == b"1.%d" % head.minor
    # One difference is meant: a target in absolute form goes on in origin form (RFC 9112 section 3.2.2).
    if heard.request.target != head.target:
        assert heard.request.target.lower().startswith((b"http://", b"https://"))
        assert heard.request.target.endswith(head.target) or head.target in (b"*", b"/") or head.target[:2] == b"/?"
    assert heard.values.get(b"host", b"") == head.fields.host
    assert heard.behind == b"NEXT", "the body ends at the same byte"
    assert heard.body == (b"abc" if head.fields.length == CHUNKED else body_of(head.fields.length))


@given(HEADS)
def test_what_goes_upstream_is_one_request_without_anything_that_is_ours(raw: bytes) -> None:
    head = parse(raw)
    assume(head is not None)
    assert head is not None
    assume(head.fields.length < 1000)
    fields = head.fields
    host = b"" if fields.host else b"\r\nHost: backend"
    heard = Heard(head.line + host + fields.kept + b"\r\n\r\n", body_of(fields.length))
    assert (heard.request.method, heard.request.target) == (head.method, head.target)
    assert heard.request.http_version == b"1.1"
    assert heard.behind == b"NEXT"
    assert heard.names.count(b"host") == 1
    assert heard.names.count(b"content-length") + heard.names.count(b"transfer-encoding") <= 1
    assert not set(heard.names) & set(HOP_BY_HOP)
    for name in heard.names:
        dashed = name.replace(b"_", b"-")
        assert not dashed.startswith(b"x-forwarded-")
        assert dashed not in (b"x-real-ip", b"forwarded")
    for name, value in heard.request.headers:
        if name == b"cookie":
            assert b"stickyproxy" not in [pair.partition(b"=")[0].strip() for pair in value.split(b";")]


@given(HEADS)
def test_what_goes_upstream_is_read_again_alike(raw: bytes) -> None:
    head = parse(raw)
    assume(head is not None)
    assert head is not None
    assume(head.fields.host)
    again = parse(head.line + head.fields.kept + b"\r\n\r\n")
    assert again is not None, "or a second proxy of ours would refuse what the first lets pass"
    assert (again.line, again.fields.length, again.fields.host) == (head.line, head.fields.length, head.fields.host)
    assert again.fields.kept == head.fields.kept
    assert (again.fields.tokens, again.fields.said, again.fields.close) == ([], None, False)


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    end = data.find(b"\r\n\r\n")
    parse((data if end < 0 else data[:end]) + b"\r\n\r\n")


@given(tidy_heads(), st.integers(0, 10**6))
def test_every_beginning_of_a_head_is_waited_for(raw: bytes, at: int) -> None:
    assume(parse(raw) is not None)
    line_end = raw.index(b"\r\n") + 2
    assert looks_like_head(raw[: at % line_end])
    assert looks_like_head(raw[: at % len(raw)])


@given(HEADS, st.integers(0, 10**6))
def test_what_is_given_up_early_would_have_been_refused(raw: bytes, at: int) -> None:
    if not looks_like_head(raw[: at % len(raw)]):
        assert parse(raw) is None


# Repeats.


LINE_STARTS = [b"GET /a HTTP/1.1", b"HEAD /b?c HTTP/1.1", b"POST / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /# HTTP/1.1",
               b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b"FOO / HTTP/1.1", b"PURGE / HTTP/1.1",
               b"GET http://app.example/ HTTP/1.1", b"GET /\xe9 HTTP/1.1", b"GET /\t HTTP/1.1", b"CONNECT / HTTP/1.1",
               b"\r\nGET / HTTP/1.1", b"\nGET / HTTP/1.1", b"GET /\r\nX: y HTTP/1.1", b""]  # fmt: skip

BLOCKS = st.lists(LINES, max_size=3).map(
    lambda lines: b"\r\n" + b"".join(line + b"\r\n" for line in [b"Host: app.example", *lines]) + b"\r\n"
)


@given(
    st.lists(BLOCKS, min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from(LINE_STARTS), st.integers(0, 1)), min_size=1, max_size=8),
)
def test_a_repeat_is_exactly_what_it_would_be_if_judged_anew(
    blocks: list[bytes], requests: list[tuple[bytes, int]]
) -> None:
    remembered: RequestFields | None = None
    for line, index in requests:
        raw = line + blocks[index % len(blocks)]
        judged = parse(raw) if raw.index(b"\r\n") else None
        repeat = None if remembered is None else parse_repeat(raw, remembered)
        if repeat is not None:
            assert judged is not None, "no repeat is accepted that would be refused alone"
            assert everything(repeat) == everything(judged)
            assert repeat.fields is remembered
        elif judged is not None and judged.minor:
            remembered = judged.fields


@given(tidy_heads(), st.binary(min_size=1, max_size=40))
def test_no_line_of_any_bytes_makes_a_repeat_that_would_be_refused_alone(raw: bytes, line: bytes) -> None:
    head = parse(raw)
    assume(head is not None and head.minor == 1)
    assert head is not None
    for start in (line, b"GET /" + line + b" HTTP/1.1", b"GET " + line + b" HTTP/1.1"):
        data = start + head.fields.raw
        repeat = parse_repeat(data, head.fields)
        if repeat is not None:
            alone = parse(data)
            assert alone is not None
            assert everything(repeat) == everything(alone)
