import pytest

from stickyproxy.core.faults import Fault, HeadError
from stickyproxy.core.request import (
    CHUNKED,
    RequestFields,
    RequestHead,
    RequestReader,
    drop_fields,
    looks_like_head,
    parse_repeat,
)

READER = RequestReader("stickyproxy", ("kube-probe/", "Edge Health Probe"), max_headers=20)

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]


def raw_head(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: app.example") -> bytes:
    """Build a head of one Host (unless it is empty) and some more lines."""
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def parse(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: app.example") -> RequestHead:
    return READER.parse_head(raw_head(*lines, start=start, host=host))


def fields_of(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestFields:
    return parse(*lines, start=start).fields


def kept_lines(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> list[bytes]:
    """Give the lines that go on, without the Host line that `raw_head` puts first."""
    first, host, *kept = fields_of(*lines, start=start).kept.split(b"\r\n")
    assert first == b"", "every line stands behind a CRLF"
    assert host == b"Host: app.example"
    return kept


def refusal(raw: bytes) -> Fault:
    with pytest.raises(HeadError) as caught:
        READER.parse_head(raw)
    return caught.value.fault


# What is understood.


def test_a_plain_head_is_read_and_passes_byte_for_byte() -> None:
    head = parse(b"Accept: */*", start=b"GET /page?x=1 HTTP/1.1")
    fields = head.fields
    assert (head.line, head.method, head.target, head.minor) == (b"GET /page?x=1 HTTP/1.1", b"GET", b"/page?x=1", 1)
    assert fields.raw == b"\r\nHost: app.example\r\nAccept: */*\r\n\r\n"
    assert fields.kept == b"\r\nHost: app.example\r\nAccept: */*"
    assert fields.host == b"app.example"
    assert (fields.length, fields.close, fields.upgrade, fields.tokens, fields.said) == (0, False, b"", [], None)
    assert not fields.probe


@pytest.mark.parametrize("method", [*METHODS, b"PROPFIND", b"TRACE", b"M-SEARCH"])
def test_every_method_that_httptools_knows_goes_on_as_it_is(method: bytes) -> None:
    head = parse(start=method + b" /x HTTP/1.1")
    assert (head.method, head.line) == (method, method + b" /x HTTP/1.1")


@pytest.mark.parametrize(
    ("written", "host", "target"),
    [  # RFC 9112 section 3.2.2: a server must accept the absolute form; upstream goes the origin form
        (b"http://app.example/a?b", b"app.example", b"/a?b"),
        (b"http://app.example", b"app.example", b"/"),
        (b"http://app.example?q=/", b"app.example", b"/?q=/"),
        (b"HTTPS://APP.example/", b"app.EXAMPLE", b"/"),
        (b"http://app.example:8080/x", b"app.example:8080", b"/x"),
        (b"http://[::1]:80/x", b"[::1]:80", b"/x"),
        (b"http://app.example//x", b"app.example", b"//x"),
        (b"http://app.example/http://other/", b"app.example", b"/http://other/"),
    ],
)
def test_an_absolute_form_target_goes_on_in_origin_form(written: bytes, host: bytes, target: bytes) -> None:
    head = parse(start=b"GET " + written + b" HTTP/1.1", host=b"Host: " + host)
    assert (head.target, head.line) == (target, b"GET " + target + b" HTTP/1.1")


def test_options_may_ask_about_the_server_as_a_whole() -> None:
    assert parse(start=b"OPTIONS * HTTP/1.1").line == b"OPTIONS * HTTP/1.1"


def test_options_of_an_absolute_form_without_a_path_ask_about_the_server_as_a_whole() -> None:
    # RFC 9112 section 3.2.4: the last proxy MUST send "*" where the URI has an empty path and no query.
    assert parse(start=b"OPTIONS http://app.example HTTP/1.1").line == b"OPTIONS * HTTP/1.1"


def test_an_http_1_0_request_is_passed_on_as_1_1_and_ends_its_connection() -> None:
    head = parse(b"Connection: keep-alive", start=b"GET / HTTP/1.0")
    assert (head.minor, head.line, head.fields.close) == (0, b"GET / HTTP/1.1", True)


def test_an_http_1_0_request_may_leave_the_host_out() -> None:
    head = parse(start=b"GET / HTTP/1.0", host=b"")
    assert (head.fields.host, head.fields.kept) == (b"", b"")


@pytest.mark.parametrize(
    "host",
    [b"a", b"A.example.", b"a:80", b"a:", b"127.0.0.1:8080", b"[::1]", b"[::1]:80", b"[fe80::1%25eth0]:1", b"x_y-z~a"],
)
def test_a_host_of_every_shape_is_read(host: bytes) -> None:
    assert parse(host=b"hOsT: \t" + host + b"\t ").fields.host == host


@pytest.mark.parametrize(
    ("written", "length", "sent"),
    [
        (b"Content-Length: 5", 5, b"Content-Length: 5"),
        (b"content-length:0", 0, b"Content-Length: 0"),
        (b"Content-Length:\t007 ", 7, b"Content-Length: 7"),
        (b"Content-Length: 999999999999999999", 10**18 - 1, b"Content-Length: 999999999999999999"),
        (b"Transfer-Encoding: chunked", CHUNKED, b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: \tchunked", CHUNKED, b"Transfer-Encoding: chunked"),
        (b"TRANSFER-encoding:ChunKed", CHUNKED, b"Transfer-Encoding: chunked"),
    ],
)
def test_framing_is_passed_on_as_we_read_it(written: bytes, length: int, sent: bytes) -> None:
    assert fields_of(b"A: 1", written, b"B: 2", start=b"POST / HTTP/1.1").length == length
    assert kept_lines(b"A: 1", written, b"B: 2", start=b"POST / HTTP/1.1") == [b"A: 1", sent, b"B: 2"]


@pytest.mark.parametrize(
    ("lines", "close"),
    [
        ([], False),
        ([b"Connection: keep-alive"], False),
        ([b"Connection: close"], True),
        ([b"connection:CLOSE"], True),
        ([b"Connection: keep-alive, close"], True),
        ([b"Connection: ,close ,"], True),
        ([b"Connection: keep-alive", b"Connection: close"], True),
        ([b"Connection: close", b"Connection: keep-alive"], True),
        ([b"Connection: closed"], False),
        ([b"Proxy-Connection: close"], False),
    ],
)
def test_close_is_an_option_of_connection_and_nothing_else(lines: list[bytes], close: bool) -> None:
    assert fields_of(*lines).close is close


@pytest.mark.parametrize("line", [b"Expect: 100-continue", b"expect: 100-CONTINUE", b"Expect: 200-ok"])
def test_an_expectation_is_passed_on(line: bytes) -> None:
    assert kept_lines(line) == [line]


@pytest.mark.parametrize(
    ("line", "probe"),
    [
        (b"User-Agent: kube-probe/1.30", True),
        (b"user-agent:KUBE-PROBE/1.30", True),
        (b"User-Agent: \t edge health probe", True),
        (b"User-Agent: Mozilla/5.0 kube-probe/1.30", False),
        (b"User-Agent: kube-probe", False),
        (b"X-User-Agent: kube-probe/1.30", False),
        (b"User-Agent:", False),
    ],
)
def test_a_probe_is_known_by_the_beginning_of_its_user_agent(line: bytes, probe: bool) -> None:
    assert fields_of(line).probe is probe
    assert kept_lines(line) == [line]


def test_without_probers_no_user_agent_is_a_probe() -> None:
    reader = RequestReader("stickyproxy")
    for agent in (b"", b"kube-probe/1", b"(?!)"):
        assert not reader.parse_head(raw_head(b"User-Agent: " + agent)).fields.probe


def test_a_prober_is_plain_text_and_no_pattern() -> None:
    reader = RequestReader("stickyproxy", ("a.b*(",))
    assert reader.parse_head(raw_head(b"User-Agent: a.b*(c")).fields.probe
    assert not reader.parse_head(raw_head(b"User-Agent: axb(")).fields.probe


# What is cut.


@pytest.mark.parametrize(
    "line",
    [  # RFC 9110 section 7.6.1 and, for HTTP2-Settings, RFC 7540 section 3.2.1
        b"Connection: keep-alive",
        b"connection: close",
        b"Connection:",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"te:gzip",
        b"Upgrade: websocket",
        b"UPGRADE: h2c",
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        b"http2-settings:x",
    ],
)
def test_a_hop_by_hop_field_is_cut(line: bytes) -> None:
    assert kept_lines(b"A: 1", line, b"B: 2") == [b"A: 1", b"B: 2"]
    assert kept_lines(line) == []
    assert kept_lines(line, line) == []


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([b"Connection: x-a", b"X-A: 1", b"X-B: 2"], [b"X-B: 2"]),
        ([b"X-A: 1", b"Connection: close, X-a"], []),
        ([b"Connection: X-A", b"x-a: 1", b"X-A: 2", b"X-AB: 3"], [b"X-AB: 3"]),
        ([b"Connection: X-A", b"Connection: X-B", b"X-B: 1", b"X-A: 2", b"X-C: 3"], [b"X-C: 3"]),
        ([b"Connection: X-A ,\tX-B\t", b"X-B: 1", b"X-A: 2"], []),
        ([b"Connection: ,,", b"A: 1"], [b"A: 1"]),
    ],
)
def test_a_field_that_connection_nominates_is_cut(lines: list[bytes], kept: list[bytes]) -> None:
    assert kept_lines(*lines) == kept


@pytest.mark.parametrize("name", [b"Transfer-Encoding", b"TE", b"Proxy-Connection", b"Upgrade", b"HTTP2-Settings"])
def test_nominating_what_is_hop_by_hop_anyway_changes_no_framing(name: bytes) -> None:
    fields = fields_of(b"Connection: " + name, b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1")
    assert fields.length == CHUNKED
    assert fields.kept.endswith(b"\r\nTransfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("lines", "kept", "tokens"),
    [
        ([b"Cookie: stickyproxy=T"], [], [b"T"]),
        ([b"Cookie: stickyproxy=T; a=1"], [b"Cookie: a=1"], [b"T"]),
        ([b"Cookie: a=1; stickyproxy=T"], [b"Cookie: a=1"], [b"T"]),
        ([b"Cookie: a=1; stickyproxy=T; b=2"], [b"Cookie: a=1; b=2"], [b"T"]),
        ([b"cookie:a=1;stickyproxy=T;b=2"], [b"Cookie: a=1; b=2"], [b"T"]),
        ([b"Cookie: stickyproxy=T; a=1; stickyproxy=U"], [b"Cookie: a=1"], [b"T", b"U"]),
        ([b'Cookie: stickyproxy="T"'], [], [b"T"]),
        ([b"Cookie: stickyproxy="], [], [b""]),
        ([b"Cookie: stickyproxy=a=b"], [], [b"a=b"]),
        ([b"Cookie: a=1", b"X: y", b"Cookie: stickyproxy=T; b=2"], [b"Cookie: a=1", b"X: y", b"Cookie: b=2"], [b"T"]),
        ([b"Cookie: stickyproxy=T", b"Cookie: stickyproxy=U"], [], [b"T", b"U"]),
        ([b"Cookie: a=1; stickyproxy =T"], [b"Cookie: a=1"], [b"T"]),
    ],
)
def test_our_cookie_is_taken_out_wherever_it_stands(lines: list[bytes], kept: list[bytes], tokens: list[bytes]) -> None:
    assert kept_lines(*lines) == kept
    assert fields_of(*lines).tokens == tokens


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: a=1;b=2;  c=3",
        b"cookie:\t a=1 ;; ",
        b"Cookie: xstickyproxy=T",
        b"Cookie: stickyproxyx=T",
        b"cookie:a=1;xstickyproxy=T;  b=2; ",
        b"cookie:a=stickyproxy=T;b=2",
        b"Cookie: StickyProxy=T",
        b"X-Cookie: stickyproxy=T",
    ],
)
def test_cookies_of_others_pass_byte_for_byte(line: bytes) -> None:
    assert kept_lines(line) == [line]
    assert fields_of(line).tokens == []


SAID = [
    (b"X-Forwarded-For: 1.2.3.4, 5.6.7.8", (b"x-forwarded-for", b"1.2.3.4, 5.6.7.8")),
    (b"x-forwarded-proto:https", (b"x-forwarded-proto", b"https")),
    (b"X-Forwarded-Host: \tevil\t", (b"x-forwarded-host", b"evil")),
    (b"X-Forwarded-Prefix: /App", (b"x-forwarded-prefix", b"/App")),
    (b"X-Forwarded-Anything-Else: x", (b"x-forwarded-anything-else", b"x")),
    (b"X_Forwarded_For: 6.6.6.6", (b"x_forwarded_for", b"6.6.6.6")),
    (b"X-Forwarded_For: 6.6.6.6", (b"x-forwarded_for", b"6.6.6.6")),
    (b"Forwarded: for=6.6.6.6;proto=https", (b"forwarded", b"for=6.6.6.6;proto=https")),
    (b"X-Real-IP: 6.6.6.6", (b"x-real-ip", b"6.6.6.6")),
    (b"X_Real_IP: 6.6.6.6", (b"x_real_ip", b"6.6.6.6")),
    (b"x-real_ip: 6.6.6.6", (b"x-real_ip", b"6.6.6.6")),
]


@pytest.mark.parametrize(("line", "said"), SAID)
def test_what_the_client_says_of_itself_is_set_apart(line: bytes, said: tuple[bytes, bytes]) -> None:
    assert kept_lines(b"A: 1", line, b"B: 2") == [b"A: 1", b"B: 2"]
    assert fields_of(b"A: 1", line, b"B: 2").said == [said]


def test_all_that_the_client_says_of_itself_is_kept_in_order() -> None:
    assert fields_of(*(line for line, _ in SAID)).said == [said for _, said in SAID]


def test_a_nominated_x_forwarded_for_still_counts_as_said() -> None:
    # Or a client could hide its hops: "Connection: X-Forwarded-For" (a known trick to get past address checks).
    fields = fields_of(b"Connection: close, X-Forwarded-For", b"X-Forwarded-For: 1.2.3.4")
    assert fields.said == [(b"x-forwarded-for", b"1.2.3.4")]
    assert b"1.2.3.4" not in fields.kept


@pytest.mark.parametrize(
    "line",
    [
        b"A:1",
        b"A:",
        b"a: \t spaced \t out \t ",
        b"X-CaSe: MiXeD",
        b"!#$%&'*+-.^_`|~9: token",
        b"X-Obs: caf\xe9 \xff\x80",
        b"X-Quoted: \"a, b\"; c='d'",
        b"Authorization: Basic Y29ubmVjdGlvbjo=",
        b"Proxy-Authorization: Basic eDp5",
        b"Trailer: X-Sum",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b"X-Host: connection: close",
        b"X-Connection: close",
        b"Connections: close",
        b"X-Transfer-Encoding: chunked",
        b"Content-Lengths: 7",
        b"X-Forwarded: 1",
        b"Forwarded-For: 1",
        b"X-Real-IPs: 1",
        b"Ted: 1",
        b"Host2: b",
        b"Expect: 100-continue",
        b"Via: 1.1 other",
    ],
)
def test_everything_else_passes_byte_for_byte(line: bytes) -> None:
    assert kept_lines(line) == [line]
    assert kept_lines(b"Connection: close", line, b"TE: x", b"Z: 1") == [line, b"Z: 1"]


# What is refused.

HEAD_REFUSALS = {
    # RFC 9112 section 2.2: a bare CR is invalid or a space, and two readers disagree on which; a bare LF likewise.
    "bare CR in a value": raw_head(b"A: b\rc"),
    "bare CR that hides a line": raw_head(b"A: b\rContent-Length: 5"),
    "CR before CRLF": raw_head(b"A: b\r"),
    "bare LF in a value": raw_head(b"A: b\nc: d"),
    "bare LF that hides a framing": raw_head(b"A: b\nTransfer-Encoding: chunked", start=b"POST / HTTP/1.1"),
    # RFC 9110 section 5.5: CR, LF and NUL must never go on in a value; other controls we refuse with them.
    "NUL in a value": raw_head(b"A: b\0c"),
    "NUL in a name": raw_head(b"A\0: b"),
    "vertical tab in a value": raw_head(b"A: b\x0bc"),
    "form feed in a value": raw_head(b"A: b\x0cc"),
    "DEL in a value": raw_head(b"A: b\x7fc"),
    "escape in a value": raw_head(b"A: \x1b[31m"),
    # RFC 9112 section 5.2: a server must reject obs-fold or replace it.
    "obs-fold by a space": raw_head(b"A: b", b" c"),
    "obs-fold by a tab": raw_head(b"A: b", b"\tc"),
    "obs-fold of the first line": b"GET / HTTP/1.1\r\n Host: app.example\r\n\r\n",
    "obs-fold of the last, empty": raw_head(b"A: b", b" "),
    "obs-fold of Transfer-Encoding": raw_head(b"Transfer-Encoding:", b" chunked", start=b"POST / HTTP/1.1"),
    # RFC 9112 section 5.1: no white space between name and colon.
    "space before the colon": raw_head(b"A : b"),
    "tab before the colon": raw_head(b"A\t: b"),
    "space before the colon of Transfer-Encoding": raw_head(b"Transfer-Encoding : chunked", start=b"POST / HTTP/1.1"),
    "space before the colon of Content-Length": raw_head(b"Content-Length : 5", start=b"POST / HTTP/1.1"),
    "space before the colon of X-Forwarded-For": raw_head(b"X-Forwarded-For : 6.6.6.6"),
    "empty name": raw_head(b": b"),
    "no colon": raw_head(b"A"),
    "space in a name": raw_head(b"A B: c"),
    "bracket in a name": raw_head(b"A[0]: c"),
    "non-ASCII in a name": raw_head(b"A\xe9: c"),
    "Cyrillic look-alike in a name": raw_head("Transfer-Enсoding: chunked".encode()),  # noqa: RUF001
    # RFC 9112 section 3.2: no Host, more than one, or an invalid one: 400.
    "no Host": raw_head(host=b""),
    "two Hosts": raw_head(b"Host: other.example"),
    "two equal Hosts": raw_head(b"Host: app.example"),
    "two Hosts in different case": raw_head(b"HOST: app.example"),
    "two Hosts in HTTP/1.0": raw_head(b"Host: app.example", start=b"GET / HTTP/1.0"),
    "empty Host": raw_head(host=b"Host:"),
    "empty Host in HTTP/1.0": raw_head(host=b"Host: ", start=b"GET / HTTP/1.0"),
    "Host with a space": raw_head(host=b"Host: a b"),
    "Host with a tab": raw_head(host=b"Host: a\tb"),
    "Host with a user": raw_head(host=b"Host: user@a"),
    "Host with a path": raw_head(host=b"Host: a/b"),
    "Host with a scheme": raw_head(host=b"Host: http://a"),
    "Host with a query": raw_head(host=b"Host: a?b"),
    "Host with a fragment": raw_head(host=b"Host: a#b"),
    "Host with a backslash": raw_head(host=b"Host: a\\b"),
    "Host with quotes": raw_head(host=b'Host: a"onload="b'),
    "Host with angle brackets": raw_head(host=b"Host: <script>"),
    "Host with a port that is none": raw_head(host=b"Host: a:http"),
    "Host with two ports": raw_head(host=b"Host: a:1:2"),
    "Host with only a port": raw_head(host=b"Host: :80"),
    "Host of IPv6 without brackets": raw_head(host=b"Host: ::1"),
    "Host of IPv6 half in brackets": raw_head(host=b"Host: [::1"),
    "Host with words behind the bracket": raw_head(host=b"Host: [::1]evil"),
    "Host with non-ASCII": raw_head(host="Host: é.example".encode()),
    # RFC 9110 section 8.6 and RFC 9112 section 6.3.
    "two Content-Lengths": raw_head(b"Content-Length: 5", b"Content-Length: 6", start=b"POST / HTTP/1.1"),
    "two equal Content-Lengths": raw_head(b"Content-Length: 5", b"Content-Length: 5", start=b"POST / HTTP/1.1"),
    "two Content-Lengths in different case": raw_head(b"content-length: 5", b"CONTENT-LENGTH: 5"),
    "list of Content-Lengths": raw_head(b"Content-Length: 5, 5", start=b"POST / HTTP/1.1"),
    "Content-Length with a plus": raw_head(b"Content-Length: +5", start=b"POST / HTTP/1.1"),
    "Content-Length with a minus": raw_head(b"Content-Length: -5", start=b"POST / HTTP/1.1"),
    "negative zero": raw_head(b"Content-Length: -0", start=b"POST / HTTP/1.1"),
    "empty Content-Length": raw_head(b"Content-Length:", start=b"POST / HTTP/1.1"),
    "hexadecimal Content-Length": raw_head(b"Content-Length: 0x5", start=b"POST / HTTP/1.1"),
    "Content-Length with a letter": raw_head(b"Content-Length: 5a", start=b"POST / HTTP/1.1"),
    "Content-Length with a fraction": raw_head(b"Content-Length: 5.0", start=b"POST / HTTP/1.1"),
    "Content-Length with an underscore": raw_head(b"Content-Length: 1_0", start=b"POST / HTTP/1.1"),
    "Content-Length with a space inside": raw_head(b"Content-Length: 5 0", start=b"POST / HTTP/1.1"),
    "Content-Length with a vertical tab": raw_head(b"Content-Length: \x0b5", start=b"POST / HTTP/1.1"),
    "Content-Length in other digits": raw_head("Content-Length: \u0665".encode(), start=b"POST / HTTP/1.1"),
    "Content-Length in superscript": raw_head(b"Content-Length: \xb2", start=b"POST / HTTP/1.1"),
    "Content-Length of 10**18": raw_head(b"Content-Length: 1000000000000000000", start=b"POST / HTTP/1.1"),
    "Content-Length over 64 bits": raw_head(b"Content-Length: 18446744073709551621", start=b"POST / HTTP/1.1"),
    "Content-Length over all digits": raw_head(b"Content-Length: " + b"9" * 5000, start=b"POST / HTTP/1.1"),
    # RFC 9112 section 6.1: both together "ought to be handled as an error".
    "length and chunked": raw_head(b"Content-Length: 5", b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"),
    "chunked and length": raw_head(b"Transfer-Encoding: chunked", b"Content-Length: 5", start=b"POST / HTTP/1.1"),
    "chunked and length in other case": raw_head(b"TRANSFER-ENCODING: Chunked", b"content-length: 5"),
    "length of 0 and chunked": raw_head(b"Content-Length: 0", b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"),
    "length, other fields, chunked": raw_head(b"Content-Length: 5", b"A: b", b"Transfer-Encoding: chunked"),
    # RFC 9112 section 6.1: in HTTP/1.0 a Transfer-Encoding is faulty framing.
    "chunked in HTTP/1.0": raw_head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"),
    # A nomination must not strike out what others rely on (RFC 9110 section 7.6.1: no end-to-end fields).
    "nominated Host": raw_head(b"Connection: Host"),
    "nominated Content-Length": raw_head(b"Connection: close, content-length", b"Content-Length: 5"),
    "nominated Cookie": raw_head(b"Connection: cookie"),
    "nominated Authorization": raw_head(b"Connection: AUTHORIZATION"),
}


@pytest.mark.parametrize("raw", HEAD_REFUSALS.values(), ids=HEAD_REFUSALS.keys())
def test_a_head_that_two_readers_could_read_in_two_ways_is_refused(raw: bytes) -> None:
    assert refusal(raw).status == 400


CODINGS = {
    "gzip": b"gzip",
    "identity": b"identity",
    "gzip, then chunked": b"gzip, chunked",
    "chunked, then gzip": b"chunked, gzip",
    "chunked twice": b"chunked, chunked",
    "chunked behind an empty element": b",chunked",
    "chunked before an empty element": b"chunked,",
    "chunked with a parameter": b"chunked;x",
    "chunked with a value": b"chunked;q=1",
    "letters before": b"xchunked",
    "letters behind": b"chunkedx",
    "quoted": b'"chunked"',
    "single-quoted": b"'chunked'",
    "in brackets": b"(chunked)",
    "split": b"chun ked",
    "cut short": b"chunke",
    "empty": b"",
    "tab behind": b"chunked\t",
    "vertical tab in front": b"\x0bchunked",
    "vertical tab behind": b"chunked\x0b",
    "form feed behind": b"chunked\x0c",
    "NUL behind": b"chunked\0",
    "no-break space behind": b"chunked\xa0",
    "next line behind": b"chunked\x85",
    "Kelvin sign": "chun\u212aed".encode(),
}


@pytest.mark.parametrize("value", CODINGS.values(), ids=CODINGS.keys())
def test_a_transfer_coding_other_than_exactly_chunked_is_refused(value: bytes) -> None:
    # RFC 9112 section 6.1: 501 for a coding that is not understood; where a tab stands, refusing is the safe side.
    fault = refusal(raw_head(b"Transfer-Encoding: " + value, start=b"POST / HTTP/1.1"))
    assert fault.status in (400, 501)


@pytest.mark.parametrize("line", [b"Content_Length: 7", b"transfer_encoding: chunked", b"Transfer_Encoding:x"])
def test_framing_under_a_name_that_only_some_servers_read_is_refused(line: bytes) -> None:
    with pytest.raises(HeadError):
        fields_of(line)


def test_transfer_encoding_in_two_lines_is_refused() -> None:
    for first, second in (
        (b"chunked", b"chunked"),
        (b"chunked", b"identity"),
        (b"gzip", b"chunked"),
        (b"", b"chunked"),
    ):
        raw = raw_head(
            b"Transfer-Encoding: " + first, b"A: b", b"transfer-encoding: " + second, start=b"POST / HTTP/1.1"
        )
        assert refusal(raw).status in (400, 501)


REQUEST_LINES = [
    # RFC 9112 section 3: exactly one space between the words; section 2.3: the version.
    (b"GET /", 400),
    (b"GET", 400),
    (b"", 400),
    (b" ", 400),
    (b"GET /  HTTP/1.1", 400),
    (b"GET  / HTTP/1.1", 400),
    (b"GET  HTTP/1.1", 400),
    (b" GET / HTTP/1.1", 400),
    (b"GET / HTTP/1.1 ", 400),
    (b"GET / HTTP/1.1 x", 400),
    (b"GET\t/ HTTP/1.1", 400),
    (b"GET /\tHTTP/1.1", 400),
    (b"GET /a b HTTP/1.1", 400),
    (b"GET /a\tb HTTP/1.1", 400),
    (b"GET /\x0bHTTP/1.1", 400),
    (b"GET / HTTP/1.1\r", 400),
    (b"GET / HTTP/1.1\n", 400),
    (b"GET / HTTP/1.1\nX: y", 400),
    # RFC 9112 section 2.2 lets a server skip an empty line; what llhttp skips must not become part of the method.
    (b"\nGET / HTTP/1.1", 400),
    (b"\n\nGET / HTTP/1.1", 400),
    (b"\rGET / HTTP/1.1", 400),
    (b"\nHEAD / HTTP/1.1", 400),
    (b"\nCONNECT / HTTP/1.1", 400),
    (b"GET / HTTP/0.9", 505),
    (b"GET / HTTP/2.0", 505),
    (b"GET / HTTP/3.0", 505),
    (b"GET / HTTP/2", 400),
    (b"GET / HTTP/1.2", 400),
    (b"GET / HTTP/1.10", 400),
    (b"GET / HTTP/1", 400),
    (b"GET / HTTP/1,1", 400),
    (b"GET / http/1.1", 400),
    (b"GET / HTTP/+1.1", 400),
    (b"GET / HTTP/1.\xb9", 400),
    (b"GET / RTSP/1.0", 400),
    (b"GET / ICE/1.0", 400),
    # RFC 9110 section 9.3.6, RFC 9113 section 3.4.
    (b"CONNECT app.example:443 HTTP/1.1", 501),
    (b"CONNECT / HTTP/1.1", 501),
    (b"PRI * HTTP/2.0", 505),
    (b"FOO / HTTP/1.1", 501),
    (b"get / HTTP/1.1", 501),
    (b"Get / HTTP/1.1", 501),
    (b"GETT / HTTP/1.1", 501),
    (b"GE / HTTP/1.1", 501),
    (b"G\xc3\x89T / HTTP/1.1", 501),
    # RFC 9112 section 3.2: the request-target.
    (b"GET * HTTP/1.1", 400),
    (b"GET x HTTP/1.1", 400),
    (b"GET ?x HTTP/1.1", 400),
    (b"GET app.example:80 HTTP/1.1", 400),
    (b"GET \\x HTTP/1.1", 400),
    (b"GET /x#y HTTP/1.1", 400),
    (b"GET /# HTTP/1.1", 400),
    (b"GET #x HTTP/1.1", 400),
    (b"GET http://app.example/#x HTTP/1.1", 400),
    (b"GET http://app.example#x HTTP/1.1", 400),
    (b"GET /\x00 HTTP/1.1", 400),
    (b"GET /\x01 HTTP/1.1", 400),
    (b"GET /\x0c HTTP/1.1", 400),
    (b"GET /\x1b HTTP/1.1", 400),
    (b"GET /\x7f HTTP/1.1", 400),
    (b"GET /\r HTTP/1.1", 400),
    (b"GET /\xe9 HTTP/1.1", 400),
    (b"GET /\xff HTTP/1.1", 400),
    # The target's authority and Host must be one (RFC 9112 section 3.2.2).
    (b"GET http://other.example/ HTTP/1.1", 400),
    (b"GET http://app.example:80/ HTTP/1.1", 400),
    (b"GET http://app.example.evil/ HTTP/1.1", 400),
    (b"GET http://user@app.example/ HTTP/1.1", 400),
    (b"GET http://app.example@evil/ HTTP/1.1", 400),
    (b"GET http:///x HTTP/1.1", 400),
    (b"GET http:app.example HTTP/1.1", 400),
    (b"GET ftp://app.example/ HTTP/1.1", 400),
    (b"GET ws://app.example/ HTTP/1.1", 400),
    (b"GET javascript://app.example/ HTTP/1.1", 400),
]


@pytest.mark.parametrize(("line", "status"), REQUEST_LINES)
def test_an_odd_request_line_is_refused(line: bytes, status: int) -> None:
    assert refusal(raw_head(start=line)).status == status


def test_the_http_2_preface_is_refused() -> None:
    for version in (b"HTTP/2.0", b"HTTP/1.1"):
        assert refusal(b"PRI * " + version + b"\r\n\r\n").status in (400, 501, 505)


def test_a_head_may_hold_as_many_lines_as_allowed_and_no_more() -> None:
    assert len(kept_lines(*[b"A: b"] * 19)) == 19  # and the Host line
    fault = refusal(raw_head(*[b"A: b"] * 20))
    assert (fault.status, fault.reason) == (431, "too-many-headers")


def test_every_refusal_has_a_reason_and_a_sentence() -> None:
    raws = [*HEAD_REFUSALS.values(), *(raw_head(start=line) for line, _ in REQUEST_LINES)]
    for fault in map(refusal, raws):
        assert fault.reason
        assert fault.reason.replace("-", "").isalnum()
        assert fault.text.endswith(".")
        assert fault.text.isascii()


# Upgrades.


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        ([b"Connection: Upgrade", b"Upgrade: websocket"], b"websocket"),
        ([b"upgrade: WebSocket", b"connection: keep-alive, UPGRADE"], b"WebSocket"),
        ([b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 0"], b"websocket"),
        ([b"Connection: Upgrade", b"Upgrade: a", b"Upgrade: websocket"], b"a,websocket"),
        ([b"Upgrade: websocket"], b""),  # RFC 9110 section 7.8: the sender must name it in Connection
        ([b"Connection: Upgrade"], b""),
        ([b"Connection: Upgrade", b"Upgrade:"], b""),
        ([b"Connection: keep-alive", b"Upgrade: websocket"], b""),
        # h2c would carry requests past the proxy's eyes (RFC 9113 section 3.1 has retired it).
        ([b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"], b""),
        ([b"Connection: Upgrade", b"Upgrade: H2C"], b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket, h2c"], b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"], b""),
        ([b"Connection: Upgrade", b"Upgrade: h2"], b""),
        ([b"Connection: Upgrade", b"Upgrade: h2c-14"], b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket,\tHTTP/2.0"], b""),
        ([b"Connection: Upgrade", b"Upgrade: TLS/1.0"], b""),
        # With a body there is no agreed meaning.
        ([b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 1"], b""),
        ([b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"], b""),
    ],
)
def test_an_upgrade_goes_on_only_where_its_meaning_is_plain(lines: list[bytes], upgrade: bytes) -> None:
    assert fields_of(*lines).upgrade == upgrade
    assert not any(line.lower().startswith((b"upgrade", b"connection", b"http2")) for line in kept_lines(*lines))


def test_an_upgrade_in_http_1_0_is_ignored() -> None:
    # RFC 9110 section 7.8: a server must ignore an Upgrade received in an HTTP/1.0 request.
    assert fields_of(b"Connection: Upgrade", b"Upgrade: websocket", start=b"GET / HTTP/1.0").upgrade == b""


# What the caller asks of a head.


@pytest.mark.parametrize(
    ("method", "lines", "replayable"),
    [
        (b"GET", [], True),
        (b"HEAD", [], True),
        (b"OPTIONS", [], True),
        (b"TRACE", [], True),
        (b"PUT", [], True),
        (b"DELETE", [], True),
        (b"DELETE", [b"Content-Length: 0"], True),
        (b"POST", [], False),
        (b"PATCH", [], False),
        (b"PROPFIND", [], False),
        (b"PUT", [b"Content-Length: 1"], False),
        (b"GET", [b"Transfer-Encoding: chunked"], False),
    ],
)
def test_only_an_idempotent_request_without_a_body_is_replayable(
    method: bytes, lines: list[bytes], replayable: bool
) -> None:
    assert parse(*lines, start=method + b" / HTTP/1.1").replayable is replayable


@pytest.mark.parametrize(
    ("method", "lines", "navigation"),
    [
        (b"GET", [b"Sec-Fetch-Mode: navigate"], True),
        (b"GET", [b"sec-fetch-mode:NAVIGATE"], True),
        (b"GET", [b"Accept: text/html,application/xhtml+xml"], True),
        (b"GET", [b"accept:  TEXT/HTML"], True),
        (b"GET", [b"Sec-Fetch-Mode: cors", b"Accept: text/html"], False),
        (b"GET", [b"Sec-Fetch-Mode: websocket"], False),
        (b"GET", [b"Accept: */*"], False),
        (b"GET", [b"Accept: application/json"], False),
        (b"GET", [], False),
        (b"POST", [b"Sec-Fetch-Mode: navigate"], False),
        (b"HEAD", [b"Accept: text/html"], False),
        (b"GET", [b"Connection: Upgrade", b"Upgrade: websocket", b"Accept: text/html"], False),
    ],
)
def test_a_navigation_is_told_by_fetch_metadata_or_by_accept(
    method: bytes, lines: list[bytes], navigation: bool
) -> None:
    assert parse(*lines, start=method + b" / HTTP/1.1").navigation is navigation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-a", b"1"),
        (b"x-b", b""),
        (b"x-c", b"two words"),
        (b"x-d", None),
        (b"a", None),
        (b"host", b"app.example"),
        (b"connection", b"X-A"),
    ],
)
def test_a_value_is_the_first_line_of_that_very_name(name: bytes, value: bytes | None) -> None:
    fields = fields_of(b"X-A: 1", b"X-B:", b"x-C:\t two words ", b"X-A: 2", b"E: \tx-d: no", b"Connection: X-A")
    assert fields.value(name) == value


def test_dropped_fields_leave_the_others_as_they_are() -> None:
    assert drop_fields(b"\r\nA: 1\r\nB: 2\r\na: 3\r\nAB: 4", [b"a"]) == b"\r\nB: 2\r\nAB: 4"
    assert drop_fields(b"HTTP/1.1 200 OK\r\nA: 1", [b"a", b"b"]) == b"HTTP/1.1 200 OK"


# The same header lines once more.


def test_the_same_header_lines_are_judged_once() -> None:
    fields = fields_of(b"Accept: */*", b"Cookie: stickyproxy=T")
    again = parse_repeat(raw_head(b"Accept: */*", b"Cookie: stickyproxy=T", start=b"HEAD /b?c HTTP/1.1"), fields)
    assert again is not None
    assert again.fields is fields
    assert (again.line, again.method, again.target, again.minor) == (b"HEAD /b?c HTTP/1.1", b"HEAD", b"/b?c", 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw_head(b"Accept: */*", b"B: 1"),
        raw_head(b"B: 1", b"Accept: */*"),
        raw_head(b"accept: */*"),
        raw_head(b"Accept: */* "),
        b"GET / HTTP/1.1\r\nX: y\r\nHost: app.example\r\nAccept: */*\r\n\r\n",
        raw_head(b"Accept: */*", start=b"GET / HTTP/1.0"),
        raw_head(b"Accept: */*", start=b"GET http://app.example/ HTTP/1.1"),
        raw_head(b"Accept: */*", start=b"OPTIONS * HTTP/1.1"),
        raw_head(b"Accept: */*") + b"G",
        raw_head(b"Accept: */*") + raw_head(b"Accept: */*"),  # two pipelined requests
        raw_head(b"Accept: */*")[:-1],
        b"\r\n" + raw_head(b"Accept: */*"),
    ],
)
def test_bytes_that_are_not_exactly_one_head_with_the_same_lines_are_no_repeat(data: bytes) -> None:
    assert parse_repeat(data, fields_of(b"Accept: */*")) is None


@pytest.mark.parametrize("line", [line for line, _ in REQUEST_LINES])
def test_an_odd_request_line_is_no_repeat(line: bytes) -> None:
    assert parse_repeat(raw_head(start=line), fields_of()) is None


def test_every_byte_in_the_target_of_a_repeat_is_judged_as_in_any_head() -> None:
    fields = fields_of()
    accepted = 0
    for byte in range(256):
        raw = raw_head(start=b"GET /a" + bytes([byte]) + b"b HTTP/1.1")
        repeat = parse_repeat(raw, fields)
        try:
            head = READER.parse_head(raw)
        except HeadError:
            assert repeat is None, bytes([byte])
        else:
            assert repeat is not None
            assert (repeat.line, repeat.method, repeat.target) == (head.line, head.method, head.target)
            accepted += 1
    assert accepted == 93, "the visible ASCII characters but #"


# The beginning of a head.


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"G",
        b"GET",
        b"GET ",
        b"GET /",
        b"GET /?a=b&c ",
        b"GET / H",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHos",
        b"GET / HTTP/1.0\r\nHost: a\r\n",
        b"OPTIONS * HTT",
        b"GET http://a/ ",
        b"M-SEARCH",
        b"PROPPATCH /" + b"x" * 60000,
    ],
)
def test_the_beginning_of_a_request_is_waited_for(start: bytes) -> None:
    assert looks_like_head(start)


@pytest.mark.parametrize(
    "start",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS ClientHello
        b"\x16",
        b"\x80\x2e\x01\x00\x02",  # an SSLv2 one
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\nHost: a\n",
        b"GET /\r\n",
        b"GET /\n",
        b"GET\r\n",
        b"\n",
        b" GET / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET / XTTP",
        b"GET / HTTP/1.1\rX",
        b"GET / HTTP/1.1 \r\n",
        b"G\xc3",
        b"G\0",
        b"{",
        b"A" * 33,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"EHLO mail.example\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    ],
)
def test_what_can_never_become_a_request_is_told_at_once(start: bytes) -> None:
    assert not looks_like_head(start)


def test_a_lone_carriage_return_may_still_become_the_empty_line_before_a_request() -> None:
    # RFC 9112 section 2.2: ignore at least one empty line (CRLF) before the request line, however it is split.
    assert looks_like_head(b"\r")
