"""Requests that use what is between two hops: Connection, Upgrade, h2c, Expect, pipelining, and names of internals."""

from collections.abc import Iterator

from .case import (
    BISHOP,
    HOP,
    KETTLE_2022,
    KETTLE_2025,
    KLEIN_2020,
    RFC9110,
    RFC9112,
    UPGRADE,
    Expected,
    Passed,
    RequestCase,
    Unanswered,
    bad,
    one,
)
from .requests_framing import CHUNKED, SMUGGLED
from .requests_heads import get

HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings")

CONNECTION: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("host", "strikes Host out", b"Connection: host\r\n", bad()),
    ("length", "strikes the length out", b"Connection: content-length\r\nContent-Length: 0\r\n", bad()),
    ("cookie", "strikes the app's cookies out", b"Connection: cookie\r\nCookie: a=1\r\n", bad()),
    ("authorization", "strikes the credentials out", b"Connection: authorization\r\nAuthorization: x\r\n", bad()),
    ("host-case", "the same in capitals", b"Connection: HOST\r\n", bad()),
    ("host-listed", "the same in a list", b"Connection: close, x-a ,\thost\r\n", bad()),
    ("host-second", "the same in a second line", b"Connection: close\r\nConnection: host\r\n", bad()),
    ("forwarded", "strikes the client's address out", b"Connection: close, X-Forwarded-For\r\n",
     one("/a", b"", "x-forwarded-for: 127.0.0.1")),
    ("real-ip", "strikes the client's address out", b"Connection: X-Real-IP\r\n", one("/a", b"", "x-real-ip: 127.0.0.1")),
    ("proto", "strikes the scheme out", b"Connection: X-Forwarded-Proto\r\n", one("/a", b"", "x-forwarded-proto: http")),
    ("named", "names a field of its own", b"Connection: X-A\r\nX-A: 1\r\n", one("/a", absent=("x-a",))),
    ("named-case", "names it in other letters", b"Connection: x-A\r\nX-a: 1\r\n", one("/a", absent=("x-a",))),
    ("named-twice", "a field that is there twice", b"Connection: X-A\r\nX-A: 1\r\nX-A: 2\r\n", one("/a", absent=("x-a",))),
    ("transfer-encoding", "names the coding, which is known", b"Connection: transfer-encoding\r\n", one("/a")),
    ("empty", "names nothing", b"Connection:\r\n", one("/a")),
    ("commas", "names nothing, with commas", b"Connection: ,,,\r\n", one("/a")),
    ("odd", "names what is no name", b"Connection: a b, \x80\r\n", one("/a")),
    ("line", "names a request line", b"Connection: GET /a HTTP/1.1\r\n", one("/a")),
    ("keep-alive", "a keep-alive with parameters", b"Connection: keep-alive\r\nKeep-Alive: timeout=999\r\n", one("/a")),
    ("proxy-connection", "its old name", b"Proxy-Connection: keep-alive\r\n", one("/a")),
    ("te", "codings the client takes", b"Connection: TE\r\nTE: trailers, gzip\r\n", one("/a")),
    ("te-alone", "the same unnamed", b"TE: gzip\r\n", one("/a")),
    ("upgrade-unnamed", "an Upgrade that Connection does not name", b"Upgrade: websocket\r\n", one("/a")),
    ("underscore", "a field like Keep-Alive for CGI", b"Connection: keep_alive\r\nKeep_Alive: 1\r\n",
     one("/a", absent=("keep_alive",))),
)  # fmt: skip

SWITCH = b"Connection: Upgrade\r\nUpgrade: %b\r\n"

UPGRADES: tuple[tuple[str, str, str, bytes, Expected], ...] = (
    ("websocket-refused", "a request behind an Upgrade that is refused", UPGRADE, get(SWITCH % b"websocket") + SMUGGLED,
     (Passed("/a", b"", ("connection: Upgrade", "upgrade: websocket")), Passed("/smuggled"))),
    ("websocket-version", "the same with a wrong version, which servers refuse by 426", UPGRADE,
     get(SWITCH % b"websocket" + b"Sec-WebSocket-Version: 1337\r\n") + SMUGGLED,
     (Passed("/a", b"", ("upgrade: websocket",)), Passed("/smuggled"))),
    ("websocket-body", "an Upgrade with a body", RFC9110, get(SWITCH % b"websocket" + b"Content-Length: 5\r\n") + b"hello",
     one("/a", b"hello", absent=("upgrade", "connection"))),
    ("websocket-chunks", "an Upgrade with chunks", RFC9110,
     get(SWITCH % b"websocket" + CHUNKED + b"\r\n") + b"0\r\n\r\n", one("/a", b"", absent=("upgrade", "connection"))),
    ("websocket-1.0", "an Upgrade in HTTP/1.0", RFC9110, get(SWITCH % b"websocket", line=b"GET /a HTTP/1.0\r\n"),
     one("/a", b"", absent=("upgrade", "connection"))),
    ("websocket-post", "an Upgrade of a POST", UPGRADE, get(SWITCH % b"websocket", line=b"POST /a HTTP/1.1\r\n"),
     one("/a", b"", "upgrade: websocket")),
    ("h2c", "an Upgrade to h2c", BISHOP, get(SWITCH % b"h2c" + b"HTTP2-Settings: AAMAAABk\r\n"),
     one("/a", absent=HOP_BY_HOP)),
    ("h2c-named", "the same, all named", BISHOP,
     get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
     one("/a", absent=HOP_BY_HOP)),
    ("h2c-unnamed-settings", "the variant without its settings named", BISHOP,
     get(b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), one("/a", absent=HOP_BY_HOP)),
    ("h2c-case", "h2c in capitals", BISHOP, get(SWITCH % b"H2C"), one("/a", absent=HOP_BY_HOP)),
    ("h2c-list", "h2c behind websocket", BISHOP, get(SWITCH % b"websocket, h2c"), one("/a", absent=HOP_BY_HOP)),
    ("h2c-two-lines", "h2c in a second line", BISHOP,
     get(SWITCH % b"websocket" + b"Upgrade: h2c\r\n"), one("/a", absent=HOP_BY_HOP)),
    ("h2c-tab", "h2c behind a tab", BISHOP, get(SWITCH % b"websocket,\th2c"), one("/a", absent=HOP_BY_HOP)),
    ("h2c-version", "h2c with a version", BISHOP, get(SWITCH % b"h2c/1"), one("/a", absent=HOP_BY_HOP)),
    ("h2", "h2 in the clear", BISHOP, get(SWITCH % b"h2"), one("/a", absent=HOP_BY_HOP)),
    ("h2c-14", "a draft of h2c", BISHOP, get(SWITCH % b"h2c-14"), one("/a", absent=HOP_BY_HOP)),
    ("http-2.0", "HTTP/2.0 by Upgrade", BISHOP, get(SWITCH % b"HTTP/2.0"), one("/a", absent=HOP_BY_HOP)),
    ("tls", "TLS by Upgrade", "RFC 2817", get(SWITCH % b"TLS/1.0"), one("/a", b"", absent=HOP_BY_HOP)),
)  # fmt: skip

EXPECTS: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("get", "100-continue without a body", get(b"Expect: 100-continue\r\n"), one("/a")),
    ("body", "100-continue, and the body at once",
     get(b"Expect: 100-continue\r\nContent-Length: 5\r\n", line=b"POST /a HTTP/1.1\r\n") + b"hello", one("/a", b"hello")),
    ("hidden", "100-continue, and a request for the body",
     get(b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(SMUGGLED), line=b"POST /a HTTP/1.1\r\n") + SMUGGLED,
     one("/a", SMUGGLED)),
    ("zero", "100-continue and a length of nothing",
     get(b"Expect: 100-continue\r\nContent-Length: 0\r\n", line=b"POST /a HTTP/1.1\r\n") + SMUGGLED,
     (Passed("/a"), Passed("/smuggled"))),
    ("chunks", "100-continue and chunks",
     get(b"Expect: 100-continue\r\n" + CHUNKED + b"\r\n", line=b"POST /a HTTP/1.1\r\n") + b"5\r\nhello\r\n0\r\n\r\n",
     one("/a", b"hello")),
    ("odd", "an Expect nobody knows", get(b"Expect: y 100-continue\r\nContent-Length: 5\r\n") + b"hello",
     one("/a", b"hello")),
    ("twice", "two Expects", get(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n") + b"hello",
     one("/a", b"hello")),
    ("head", "100-continue of a HEAD",
     get(b"Expect: 100-continue\r\nContent-Length: 5\r\n", line=b"HEAD /a HTTP/1.1\r\n") + b"hello", one("/a", b"hello")),
    ("withheld", "100-continue, and no body ever",
     get(b"Expect: 100-continue\r\nContent-Length: 5\r\n", line=b"POST /a HTTP/1.1\r\n"), Unanswered(cut=True)),
    ("1.0", "100-continue in HTTP/1.0",
     get(b"Expect: 100-continue\r\nContent-Length: 5\r\n", line=b"POST /a HTTP/1.0\r\n") + b"hello", one("/a", b"hello")),
)  # fmt: skip

P = tuple(Passed(f"/{n}") for n in "abcdef")
PLAIN = b"".join(get(line=b"GET /%c HTTP/1.1\r\n" % n) for n in b"abcdef")
BODY_THEN = get(b"Content-Length: 5\r\n", line=b"POST /a HTTP/1.1\r\n") + b"hello"

PIPELINES: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("six", "six at once are answered in order", PLAIN, P),
    ("body-then", "a request behind a body", BODY_THEN + get(line=b"GET /b HTTP/1.1\r\n"), (Passed("/a", b"hello"), P[1])),
    ("crlf-between", "an empty line behind a body", BODY_THEN + b"\r\n" + get(line=b"GET /b HTTP/1.1\r\n"),
     (Passed("/a", b"hello"), P[1])),
    ("lf-between", "a bare LF behind a body", BODY_THEN + b"\n" + get(line=b"GET /b HTTP/1.1\r\n"),
     bad(400, "", Passed("/a", b"hello"))),
    ("byte-between", "a byte too many behind a body", BODY_THEN + b"G" + get(line=b"ET /b HTTP/1.1\r\n"),
     (Passed("/a", b"hello"), P[1])),
    ("byte-odd", "an odd byte behind a body", BODY_THEN + b"\0" + get(line=b"GET /b HTTP/1.1\r\n"),
     bad(400, "", Passed("/a", b"hello"))),
    ("bad-second", "a bad one behind a good one", get() + get(b"X A: 1\r\n", line=b"GET /b HTTP/1.1\r\n"),
     bad(400, "", P[0])),
    ("bad-first", "a good one behind a bad one is not served", get(b"X A: 1\r\n") + get(line=b"GET /b HTTP/1.1\r\n"), bad()),
    ("close-first", "one behind Connection: close is not served",
     get(b"Connection: close\r\n") + get(line=b"GET /b HTTP/1.1\r\n"), one("/a")),
    ("second-both", "both framings in the second", get() + get(b"Content-Length: 5\r\n" + CHUNKED + b"\r\n",
     line=b"POST /b HTTP/1.1\r\n") + b"0\r\n\r\n" + SMUGGLED, bad(400, "", P[0])),
    ("half-second", "half a request behind a good one", get() + b"GET /b HTTP/1.1\r\nHost", one("/a")),
    ("repeat-then-lf", "the same head again, ended by bare LFs", get() + get().replace(b"\r\n", b"\n"), bad(400, "", P[0])),
    ("repeat-then-body", "the same head again with a body between", get() + b"x" + get(), bad(501, "", P[0])),
    ("chunk-then", "a request behind chunks", get(CHUNKED + b"\r\n", line=b"POST /a HTTP/1.1\r\n") +
     b"1\r\nx\r\n0\r\n\r\n" + get(line=b"GET /b HTTP/1.1\r\n"), (Passed("/a", b"x"), P[1])),
    ("head-then", "a request behind a HEAD", get(line=b"HEAD /a HTTP/1.1\r\n") + get(line=b"GET /b HTTP/1.1\r\n"), P[:2]),
    ("other-host", "another Host on the same connection", get() + get(line=b"GET /b HTTP/1.1\r\n",
     host=b"Host: other.test\r\n"), (P[0], Passed("/b", b"", ("host: other.test",)))),
)  # fmt: skip

SPOOFS: tuple[tuple[str, str, bytes, tuple[str, ...]], ...] = (
    ("for", "says to be another", b"X-Forwarded-For: 6.6.6.6\r\n", ("x-forwarded-for: 127.0.0.1",)),
    ("for-list", "says that it was relayed", b"X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n", ("x-forwarded-for: 127.0.0.1",)),
    ("for-twice", "in two lines", b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n",
     ("x-forwarded-for: 127.0.0.1",)),
    ("for-case", "in other letters", b"x-fOrWaRdEd-FoR: 6.6.6.6\r\n", ("x-forwarded-for: 127.0.0.1",)),
    ("for-underscore", "as CGI would read it", b"X_Forwarded_For: 6.6.6.6\r\n", ("x-forwarded-for: 127.0.0.1",)),
    ("for-mixed", "half as CGI would read it", b"X-Forwarded_For: 6.6.6.6\r\n", ("x-forwarded-for: 127.0.0.1",)),
    ("real-ip", "says to be another", b"X-Real-IP: 6.6.6.6\r\n", ("x-real-ip: 127.0.0.1",)),
    ("real-ip-underscore", "as CGI would read it", b"X_Real_IP: 6.6.6.6\r\n", ("x-real-ip: 127.0.0.1",)),
    ("proto", "says that it came by https", b"X-Forwarded-Proto: https\r\n", ("x-forwarded-proto: http",)),
    ("host", "says to have asked another", b"X-Forwarded-Host: evil.test\r\n", ("x-forwarded-host: app.test",)),
    ("prefix", "says where the app lives", b"X-Forwarded-Prefix: /evil\r\n", ()),
    ("port", "says on which port", b"X-Forwarded-Port: 1\r\n", ()),
    ("forwarded", "the standard's own field", b"Forwarded: for=6.6.6.6;proto=https\r\n", ()),
    ("cookie", "a token of its own making", b"Cookie: stickyproxy=AAAAAAAAAAAAAAAA; a=1\r\n", ("cookie: a=1",)),
    ("cookie-quoted", "the same in quotes", b'Cookie: a=1; stickyproxy="127.0.0.1:1"\r\n', ("cookie: a=1",)),
    ("cookie-address", "an address as token", b"Cookie: stickyproxy=127.0.0.1:22\r\n", ()),
    ("cookie-many", "many tokens", b"Cookie: " + b"stickyproxy=x; " * 100 + b"a=1\r\n", ("cookie: a=1",)),
)  # fmt: skip

INTERNAL = ("6.6.6.6", "7.7.7.7", "evil", "https", "stickyproxy")
"""What no spoof may leave in what the backend receives."""


def _tables() -> Iterator[RequestCase]:
    for name, tries, lines, expected in CONNECTION:
        yield RequestCase(f"connection-{name}", "Connection", tries, HOP, get(lines), expected)
    for name, tries, source, raw, expected in UPGRADES:
        category = "h2c" if name.startswith(("h2", "http")) else "Upgrade"
        yield RequestCase(f"upgrade-{name}", category, tries, source, raw, expected)
    for name, tries, raw, expected in EXPECTS:
        yield RequestCase(f"expect-{name}", "Expect", tries, KETTLE_2025, raw, expected)
    for name, tries, raw, expected in PIPELINES:
        source = KLEIN_2020 if "repeat" in name or "byte" in name else RFC9112 + " section 9.3.2"
        yield RequestCase(f"pipeline-{name}", "pipelining", tries, source, raw, expected)
    for name, tries, lines, there in SPOOFS:
        absent = ("forwarded", "x-forwarded-prefix", "x-forwarded-port", "x_forwarded_for", "x_real_ip")
        yield RequestCase(
            f"spoof-{name}", "names of internals", tries, "CWE-348", get(lines), one("/a", b"", *there, absent=absent)
        )
    yield RequestCase(
        "spoof-query", "names of internals", "a token in the query that names no backend", "CWE-918",
        get(line=b"GET /a?_stickyproxy=127.0.0.1:22 HTTP/1.1\r\n"), one("/a?_stickyproxy=127.0.0.1:22"),
    )  # fmt: skip
    yield RequestCase(
        "pipeline-client-side", "pipelining", "a request in a body that a browser can send by itself", KETTLE_2022,
        get(b"Content-Type: text/plain\r\nContent-Length: %d\r\n" % len(SMUGGLED), line=b"POST /a HTTP/1.1\r\n") +
        SMUGGLED + get(line=b"GET /b HTTP/1.1\r\n"),
        (Passed("/a", SMUGGLED), P[1]),
    )  # fmt: skip


CASES = tuple(_tables())
