"""What is read in a response's head, beside what h11 reads in what we pass on: the client must not see another one."""

import h11
from hypothesis import assume, given
from hypothesis import strategies as st

from stickyproxy.core.faults import HeadError
from stickyproxy.core.request import CHUNKED
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead, ResponseReader, parse_response_head

from .heads import FRAMING_LINES, LINES, mutations, whole

STATUSES = [b"200 OK", b"200", b"200 ", b"404 Not Found", b"204 No Content", b"304 Not Modified", b"205 Reset",
            b"301 Ol\xe9", b"500 x", b"103 Early Hints", b"100 Continue", b"599 x", b"099 x", b"2000 x",
            b"20 x"]  # fmt: skip

RESPONSE_LINES = [b"Set-Cookie: a=b", b"Cache-Control: public, max-age=5", b"Cache-Control: no-store",
                  b"Connection: set-cookie", b"Connection: content-length", b"Connection: transfer-encoding",
                  b"Connection: HTTP/1.1 200 OK"]  # fmt: skip


@st.composite
def built_heads(draw: st.DrawFn, *, tidy: bool) -> bytes:
    """Draw heads; `tidy`: with one good framing at the most, and nothing nominated that must not be."""
    version = draw(st.sampled_from([b"HTTP/1.1"] * 4 + [b"HTTP/1.0"] * tidy + [b"HTTP/2.0"] * (not tidy)))
    status = draw(st.sampled_from(STATUSES[:-3] if tidy else STATUSES))
    lines = draw(
        st.lists(st.one_of(LINES, st.sampled_from(RESPONSE_LINES[:3] if tidy else RESPONSE_LINES)), max_size=5)
    )
    good = FRAMING_LINES[:3] + FRAMING_LINES[7:9] * (version == b"HTTP/1.1")
    framing = draw(st.lists(st.sampled_from(good if tidy else FRAMING_LINES), max_size=1 if tidy else 2))
    return whole(b"\r\n".join([version + b" " + status, *draw(st.permutations([*lines, *framing])), b"", b""]))


TIDY = built_heads(tidy=True)
HEADS = st.one_of(TIDY, built_heads(tidy=False), TIDY.flatmap(mutations).map(whole))


def parse(raw: bytes, method: bytes) -> ResponseHead | None:
    try:
        return parse_response_head(raw, method)
    except HeadError:
        return None


def passed_on(raw: bytes, head: ResponseHead) -> bytes:
    return (raw[:-4] if head.kept is None else head.kept) + b"\r\n\r\n"


def body_of(length: int) -> bytes:
    return b"3\r\nabc\r\n0\r\n\r\n" if length == CHUNKED else b"xyz" if length == UNTIL_CLOSE else b"x" * length


@given(HEADS, st.sampled_from([b"GET", b"HEAD", b"POST"]))
def test_what_is_passed_on_h11_reads_alike(raw: bytes, method: bytes) -> None:
    head = parse(raw, method)
    assume(head is not None)
    assert head is not None
    assume(head.length < 1000 and head.status != 101)
    client = h11.Connection(h11.CLIENT)
    length = [("Content-Length", "0")] if method == b"POST" else []
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a"), *length]))
    client.send(h11.EndOfMessage())
    body = body_of(head.length)
    client.receive_data(passed_on(raw, head) + body + (b"" if head.length == UNTIL_CLOSE else b"NEXT"))
    response = client.next_event()
    assert isinstance(response, h11.Response | h11.InformationalResponse)
    assert (response.status_code, response.http_version) == (head.status, b"1.1")
    names = [name for name, _ in response.headers]
    assert not set(names) & {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    if head.status < 200:
        assert client.trailing_data[0] == b"NEXT"
        return
    if head.length == UNTIL_CLOSE:
        client.receive_data(b"")
    content = b""
    while isinstance(event := client.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert content == (b"abc" if head.length == CHUNKED else body)
    if head.length != UNTIL_CLOSE:
        assert client.trailing_data[0] == b"NEXT", "the body ends at the same byte"


@given(HEADS, st.sampled_from([b"GET", b"HEAD"]))
def test_what_is_passed_on_is_read_again_alike(raw: bytes, method: bytes) -> None:
    head = parse(raw, method)
    assume(head is not None)
    assert head is not None
    assume(head.status != 101)
    again = parse(passed_on(raw, head), method)
    assert again is not None
    assert (again.status, again.length, again.close) == (head.status, head.length, False)
    assert passed_on(passed_on(raw, head), again) == passed_on(raw, head)


@given(HEADS)
def test_a_cookie_of_the_app_is_never_lost(raw: bytes) -> None:
    head = parse(raw, b"GET")
    assume(head is not None)
    assert head is not None
    assert passed_on(raw, head).lower().count(b"\r\nset-cookie:") == raw.lower().count(b"\r\nset-cookie:")


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200"]))
def test_any_bytes_are_parsed_or_refused(data: bytes, start: bytes) -> None:
    parse(whole(start + data), b"GET")


DATES = st.sampled_from(
    [
        b"date: Sat, 28 Nov 2026 15:00:00 GMT",
        b"Date: Sat, 28 Nov 2026 15:00:01 GMT",
        b"date: Sun, 29 Nov 2026 15:00:01 GMT",
        b"date: Sun, 29 Nov 2026 15:00:01 GMT\r\n folded",
        b"date: Sun, 29 Nov 2026 15:00:01 GM\n",
        b"DATE: now",
        b"date: \0",
    ]
)


READER = ResponseReader(heads=40)
"""One for all examples, so that each meets what others have left."""


@given(HEADS, st.lists(st.tuples(DATES, st.integers(0, 7), st.sampled_from([b"GET", b"HEAD", b"POST"])), min_size=2))
def test_what_was_read_before_changes_nothing(raw: bytes, dates: list[tuple[bytes, int, bytes]]) -> None:
    """Read a head again and again, with well-formed and other Date lines at any places."""
    for date, at, method in dates:
        lines = raw.split(b"\r\n")
        lines.insert(at, date)
        dated = whole(b"\r\n".join(lines))
        expected = parse(dated, method)
        try:
            found = READER.parse_head(dated, method)
        except HeadError:
            found = None
        if expected is None or found is None:
            assert found is expected
        else:
            assert all(getattr(found, name) == getattr(expected, name) for name in ResponseHead.__slots__)
