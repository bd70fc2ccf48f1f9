import pytest

from stickyproxy.core.counters import Counters
from stickyproxy.core.faults import BAD_RESPONSE, HeadError
from stickyproxy.core.request import CHUNKED
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead, ResponseReader, parse_response_head


def raw_head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


def parse(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    return parse_response_head(raw_head(*lines, start=start), method)


def sent(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> list[bytes]:
    """Give the lines that go on: the head as it came, where nothing else is said."""
    head = parse(*lines, start=start, method=method)
    return (b"\r\n".join([start, *lines]) if head.kept is None else head.kept).split(b"\r\n")


# Where the body ends (RFC 9112 section 6.3).


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], UNTIL_CLOSE),
        ([b"Content-Length: 5"], 5),
        ([b"content-length:\t5 "], 5),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 999999999999999999"], 10**18 - 1),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"transfer-encoding:CHUNKED\t"], CHUNKED),
    ],
)
def test_the_body_ends_where_its_framing_says(lines: list[bytes], length: int) -> None:
    head = parse(*lines)
    assert (head.status, head.length, head.close) == (200, length, False)
    assert head.kept in (None, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")  # an odd way to write it is not kept
    assert (head.kept is None) == (lines != [b"transfer-encoding:CHUNKED\t"])


@pytest.mark.parametrize("line", [b"Content_Length: 5", b"content_length:5", b"Transfer_Encoding: chunked"])
def test_framing_under_a_name_that_only_some_servers_read_is_refused(line: bytes) -> None:
    with pytest.raises(HeadError):
        parse(line)


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    ("start", "method"),
    [
        (b"HTTP/1.1 100 Continue", b"POST"),
        (b"HTTP/1.1 103 Early Hints", b"GET"),
        (b"HTTP/1.1 204 No Content", b"GET"),
    ],
)
def test_a_status_that_allows_neither_body_nor_length_goes_on_without_them(
    start: bytes, method: bytes, framing: bytes
) -> None:
    # RFC 9112 section 6.1 and RFC 9110 section 8.6.
    head = parse(b"A: 1", framing, b"B: 2", start=start, method=method)
    assert head.length == 0
    assert head.kept == start + b"\r\nA: 1\r\nB: 2"


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    ("start", "method"),
    [(b"HTTP/1.1 304 Not Modified", b"GET"), (b"HTTP/1.1 200 OK", b"HEAD"), (b"HTTP/1.1 404 No", b"HEAD")],
)
def test_an_answer_without_a_body_may_tell_the_length_of_the_one_that_get_would_bring(
    start: bytes, method: bytes, framing: bytes
) -> None:
    # RFC 9110 section 8.6: in answers to HEAD and in 304.
    assert parse(framing, start=start, method=method).length == 0
    assert sent(framing, start=start, method=method) == [start, framing]


def test_204_and_304_without_framing_have_no_body() -> None:
    for status in (b"204", b"304"):
        assert parse(start=b"HTTP/1.1 " + status + b" x").length == 0


def test_a_body_of_205_is_read_by_its_framing() -> None:
    assert parse(b"Content-Length: 3", start=b"HTTP/1.1 205 Reset Content").length == 3


def test_leading_zeros_of_a_length_are_not_passed_on() -> None:
    assert sent(b"A: 1", b"Content-Length: 007", b"B: 2") == [
        b"HTTP/1.1 200 OK",
        b"A: 1",
        b"Content-Length: 7",
        b"B: 2",
    ]
    assert sent(b"Content-Length: 00")[1:] == [b"Content-Length: 0"]


# The version and the connection.


@pytest.mark.parametrize(
    ("version", "lines", "close"),
    [
        (b"1.1", [], False),
        (b"1.1", [b"Connection: close"], True),
        (b"1.1", [b"connection:x , CLOSE"], True),
        (b"1.1", [b"Connection: keep-alive", b"Connection: close"], True),
        (b"1.1", [b"Connection: keep-alive"], False),
        (b"1.0", [], True),
        (b"1.0", [b"Connection: keep-alive"], False),
        (b"1.0", [b"Connection: keep-alive, close"], True),
        (b"1.0", [b"Connection: x"], True),
    ],
)
def test_the_connection_persists_by_the_rules_of_its_version(version: bytes, lines: list[bytes], close: bool) -> None:
    # RFC 9112 section 9.3.
    assert parse(b"Content-Length: 0", *lines, start=b"HTTP/" + version + b" 200 OK").close is close


def test_an_http_1_0_response_is_passed_on_as_1_1() -> None:
    assert sent(b"Content-Length: 1", b"A: b", start=b"HTTP/1.0 200 Fine") == [
        b"HTTP/1.1 200 Fine",
        b"Content-Length: 1",
        b"A: b",
    ]


@pytest.mark.parametrize(
    "line",
    [b"Connection: close", b"Keep-Alive: timeout=5", b"Proxy-Connection: close", b"TE: x", b"Upgrade: h2,h2c"],
)
def test_a_hop_by_hop_field_is_cut(line: bytes) -> None:
    assert sent(b"A: 1", line, b"Content-Length: 0", line) == [b"HTTP/1.1 200 OK", b"A: 1", b"Content-Length: 0"]


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([b"Connection: X-A", b"X-A: 1", b"X-B: 2"], [b"X-B: 2"]),
        ([b"X-A: 1", b"x-b: 2", b"Connection: close, x-B ,", b"X-C: 3"], [b"X-A: 1", b"X-C: 3"]),
        ([b"Connection: X-A", b"X-A: 1", b"Connection: X-C", b"X-C: 3"], []),
    ],
)
def test_a_field_that_connection_nominates_is_cut(lines: list[bytes], kept: list[bytes]) -> None:
    assert sent(*lines)[1:] == kept


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 OK"])
def test_no_nomination_can_strike_out_the_status_line(start: bytes) -> None:
    # Or the client would read a header line as the status line.
    raw = raw_head(b"Connection: " + start, b"Connection: HTTP/1.1 200 OK", b"X: y", start=start)
    try:
        head = parse_response_head(raw, b"GET")
    except HeadError:
        return  # refusing what is no field name is right, too
    assert (head.kept or raw).startswith(b"HTTP/1.1 20")


@pytest.mark.parametrize(
    "line",
    [
        b"Set-Cookie: a=b; Path=/",
        b"X-Obs: caf\xe9",
        b"Server:  odd \t spacing ",
        b"X-Connection: close",
        b"Content-Encoding: gzip",
        b"Cache-Control: no-store",
        b"Trailer: X-Sum",
        b'Alt-Svc: h3=":443"',
        b"Empty:",
    ],
)
def test_everything_else_passes_byte_for_byte(line: bytes) -> None:
    assert parse(line, b"Content-Length: 0").kept is None
    assert sent(b"Connection: close", line, b"Content-Length: 01") == [
        b"HTTP/1.1 200 OK",
        line,
        b"Content-Length: 1",
    ]


def test_a_switch_of_protocols_names_the_protocol_and_has_no_body() -> None:
    head = parse(
        b"Upgrade: WebSocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: x",
        start=b"HTTP/1.1 101 Switching Protocols",
    )
    assert (head.status, head.length, head.upgrade.lower()) == (101, 0, b"websocket")
    assert head.kept == b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x"


# Caches.


@pytest.mark.parametrize(
    ("lines", "shared"),
    [
        ([b"Cache-Control: public, max-age=31536000, immutable"], True),
        ([b"cache-control:PUBLIC"], True),
        ([b"Cache-Control: max-age=1", b"Cache-Control: public"], True),
        ([b"Cache-Control: public", b"Cache-Control: max-age=1"], True),
        ([b"Cache-Control: s-maxage=60"], True),  # RFC 9111 section 5.2.2.10
        ([], False),
        ([b"Cache-Control: no-store"], False),
        ([b"Cache-Control: private, max-age=60"], False),
        ([b"X-Cache-Control: public"], False),
    ],
)
def test_a_response_that_shared_caches_may_store_is_told(lines: list[bytes], shared: bool) -> None:
    assert parse(*lines).shared is shared


@pytest.mark.parametrize(
    ("lines", "page"),
    [
        ([b"X-NiceGUI-Content: page"], True),
        ([b"x-nicegui-content:\tpage "], True),
        ([b"X-NiceGUI-Content: other"], False),
        ([b"X-NiceGUI-Contents: page"], False),
        ([b"Content-Type: text/html"], False),
    ],
)
def test_a_page_of_nicegui_is_known_and_its_mark_passes(lines: list[bytes], page: bool) -> None:
    assert parse(*lines).page is page
    assert sent(b"Connection: close", *lines)[1:] == lines


# What is refused.

REFUSED = {
    # RFC 9112 section 4.
    "no version": raw_head(start=b"200 OK"),
    "another protocol": raw_head(start=b"ICY 200 OK"),
    "HTTP/2": raw_head(start=b"HTTP/2 200 OK"),
    "HTTP/0.9": raw_head(start=b"HTTP/0.9 200 OK"),
    "HTTP/1.2": raw_head(start=b"HTTP/1.2 200 OK"),
    "lower case": raw_head(start=b"http/1.1 200 OK"),
    "space in front": raw_head(start=b" HTTP/1.1 200 OK"),
    "empty line in front": b"\r\n" + raw_head(),
    "two spaces": raw_head(start=b"HTTP/1.1  200 OK"),
    "tab": raw_head(start=b"HTTP/1.1\t200 OK"),
    "no status": raw_head(start=b"HTTP/1.1"),
    "status of two digits": raw_head(start=b"HTTP/1.1 20 OK"),
    "status of four digits": raw_head(start=b"HTTP/1.1 2000 OK"),
    "status with a sign": raw_head(start=b"HTTP/1.1 +20 OK"),
    "status below 100": raw_head(start=b"HTTP/1.1 099 OK"),
    "status in other digits": raw_head(start="HTTP/1.1 \u0662\u0660\u0660 OK".encode()),
    "letters behind the status": raw_head(start=b"HTTP/1.1 200OK"),
    "bare CR in the reason": raw_head(start=b"HTTP/1.1 200 O\rK"),
    "bare LF in the reason": raw_head(start=b"HTTP/1.1 200 O\nK: x"),
    "NUL in the reason": raw_head(start=b"HTTP/1.1 200 O\0K"),
    "escape in the reason": raw_head(start=b"HTTP/1.1 200 \x1b[31m"),
    # RFC 9112 sections 2.2, 5.1, 5.2; RFC 9110 section 5.5.
    "bare CR": raw_head(b"A: b\rc"),
    "bare LF": raw_head(b"A: b\nc: d"),
    "bare LF that hides a cookie": raw_head(b"A: b\nSet-Cookie: c=d"),
    "NUL": raw_head(b"A: b\0"),
    "obs-fold": raw_head(b"A: b", b" c"),
    "space before the colon": raw_head(b"A : b"),
    "space before the colon of Content-Length": raw_head(b"Content-Length : 5"),
    "empty name": raw_head(b": b"),
    "no colon": raw_head(b"A"),
    # RFC 9112 section 6.3.
    "two lengths": raw_head(b"Content-Length: 5", b"Content-Length: 6"),
    "two equal lengths": raw_head(b"Content-Length: 5", b"content-length: 5"),
    "list of lengths": raw_head(b"Content-Length: 5, 5"),
    "signed length": raw_head(b"Content-Length: +5"),
    "negative length": raw_head(b"Content-Length: -1"),
    "empty length": raw_head(b"Content-Length:"),
    "hexadecimal length": raw_head(b"Content-Length: 0x5"),
    "length with a vertical tab": raw_head(b"Content-Length: 5\x0b"),
    "length of 10**18": raw_head(b"Content-Length: 1000000000000000000"),
    "length over all digits": raw_head(b"Content-Length: " + b"9" * 5000),
    "length and chunked": raw_head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunked and length": raw_head(b"Transfer-Encoding: chunked", b"A: b", b"Content-Length: 5"),
    "two codings": raw_head(b"Transfer-Encoding: gzip, chunked"),
    "codings in two lines": raw_head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked not last": raw_head(b"Transfer-Encoding: chunked, gzip"),
    "another coding": raw_head(b"Transfer-Encoding: gzip"),
    "identity": raw_head(b"Transfer-Encoding: identity"),
    "empty coding": raw_head(b"Transfer-Encoding:"),
    "xchunked": raw_head(b"Transfer-Encoding: xchunked"),
    "chunked with a parameter": raw_head(b"Transfer-Encoding: chunked;x"),
    "chunked with a vertical tab": raw_head(b"Transfer-Encoding: \x0bchunked"),
    "chunked in HTTP/1.0": raw_head(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK"),
    "two lengths of a 204": raw_head(b"Content-Length: 5", b"Content-Length: 6", start=b"HTTP/1.1 204 x"),
    # What the nomination would strike out is not the connection's.
    "nominated length": raw_head(b"Connection: content-length", b"Content-Length: 5"),
    "nominated coding": raw_head(b"Connection: close, Transfer-Encoding", b"Transfer-Encoding: chunked"),
    "nominated Set-Cookie": raw_head(b"Connection: Set-Cookie", b"Set-Cookie: a=b"),
    # RFC 9110 section 15: the first digit is 1 to 5.
    "status of class 6": raw_head(b"Content-Length: 0", start=b"HTTP/1.1 600 x"),
    "status of class 9": raw_head(b"Content-Length: 0", start=b"HTTP/1.1 999 x"),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_a_response_that_two_readers_could_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        parse_response_head(raw, b"GET")
    assert caught.value.fault is BAD_RESPONSE


def test_every_status_that_is_accepted_has_a_counter() -> None:
    counters = Counters()
    for status in range(200, 1000):
        try:
            head = parse(b"Content-Length: 0", start=b"HTTP/1.1 %d x" % status)
        except HeadError:
            assert status >= 600
        else:
            counters.count_own(head.status)
    assert counters.responses[2:] == [100, 100, 100, 100]


@pytest.mark.parametrize("other", [b"X: chunked", b"TE+: chunked"])
@pytest.mark.parametrize("written", [b" chunkeD", b"chunked", b"  chunked", b" chunked "])
def test_chunked_leaves_in_plain_letters_whatever_else_says_so(written: bytes, other: bytes) -> None:
    for lines in ([b"Transfer-Encoding:" + written, other], [other, b"Transfer-Encoding:" + written]):
        assert b"Transfer-Encoding: chunked" in sent(*lines)


# What is remembered.

NOW, LATER = b"date: Sat, 28 Nov 2026 15:00:00 GMT", b"date: Sat, 28 Nov 2026 15:00:01 GMT"


@pytest.mark.parametrize("name", [b"date", b"Date"])
@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 404 Not Found"])
def test_heads_that_differ_only_in_their_date_are_judged_once(start: bytes, name: bytes) -> None:
    reader = ResponseReader()
    now, later = (name + line[4:] for line in (NOW, LATER))
    first = reader.parse_head(raw_head(now, b"content-length: 5", b"etag: x", start=start), b"GET")
    assert reader.parse_head(raw_head(later, b"content-length: 5", b"etag: x", start=start), b"POST") is first
    assert reader.parse_head(raw_head(b"content-length: 5", b"etag: x", start=start), b"GET") is first
    for other in ([later, b"content-length: 6", b"etag: x"], [later, b"content-length: 5", b"etag: y"]):
        assert reader.parse_head(raw_head(*other, start=start), b"GET") is not first
    assert first.status == int(start.split()[1])


def test_a_date_that_is_none_is_no_reason_to_look_a_head_up() -> None:
    reader = ResponseReader()
    good = reader.parse_head(raw_head(NOW, b"content-length: 5"), b"GET")
    odd = [
        NOW.replace(b"GMT", b"UTC"), NOW[:-1] + b"\t", NOW + b" ", b"date: soon", b"date: " + b"x" * 29,
        NOW.replace(b"date: ", b"date:  ")[:-1],
    ]  # fmt: skip
    for line in odd:
        head = reader.parse_head(raw_head(line, b"content-length: 5"), b"GET")
        assert head is not good
        assert head.length == 5
    for bad in (b"\n", b"\r", b"\0"):
        with pytest.raises(HeadError):
            reader.parse_head(raw_head(NOW[:20] + bad + NOW[21:], b"content-length: 5"), b"GET")


@pytest.mark.parametrize("behind", [b"\r\n folded", b"\r\n\tfolded", b"\n", b"\rx: y"])
def test_what_is_wrong_behind_a_date_is_refused_though_its_like_is_known(behind: bytes) -> None:
    reader = ResponseReader()
    reader.parse_head(raw_head(b"server: x", LATER, b"content-length: 5"), b"GET")
    reader.parse_head(raw_head(b"server: x", NOW, b"content-length: 5"), b"GET")
    with pytest.raises(HeadError):
        reader.parse_head(raw_head(b"server: x", NOW + behind, b"content-length: 5"), b"GET")


def test_the_answer_to_head_is_neither_remembered_nor_found() -> None:
    reader = ResponseReader()
    raw = raw_head(NOW, b"content-length: 5")
    assert [reader.parse_head(raw, method).length for method in (b"HEAD", b"GET", b"HEAD", b"GET")] == [0, 5, 0, 5]


@pytest.mark.parametrize("line", [b"Connection: keep-alive", b"Content-Length: 05", b"X-NiceGUI-Content: page"])
def test_what_is_cut_and_pages_are_read_anew(line: bytes) -> None:
    reader = ResponseReader()
    heads = [reader.parse_head(raw_head(date, line), b"GET") for date in (NOW, LATER)]
    assert heads[0] is not heads[1]
    for head, date in zip(heads, (NOW, LATER), strict=True):
        assert head.page or date in (head.kept or b"").split(b"\r\n")


def test_so_many_heads_of_such_a_length_are_remembered_and_no_more() -> None:
    reader = ResponseReader(heads=3, head_bytes=60)

    def known(*lines: bytes) -> bool:
        return reader.parse_head(raw_head(*lines), b"GET") is reader.parse_head(raw_head(*lines), b"GET")

    long = b"etag: " + b"x" * (60 - len(raw_head(b"etag: ")))
    assert known(NOW, long)
    assert not known(NOW, long + b"x")
    heads = [reader.parse_head(raw_head(b"etag: %d" % number), b"GET") for number in range(10)]
    again = [reader.parse_head(raw_head(b"etag: %d" % number), b"GET") for number in (9, 8, 7, 6)]
    assert [a is b for a, b in zip(again, reversed(heads), strict=False)].count(True) <= 3
    assert again[0] is heads[9]
