"""Answers of a backend that lies: about lengths, about what was asked, about how many answers there are."""

from collections.abc import Iterator

from .case import (
    CWE113,
    JABIYEV,
    KETTLE_2025,
    KLEIN_2020,
    QUEUE,
    RFC9110,
    RFC9112,
    UPGRADE,
    Broken,
    Passed,
    Refused,
    ResponseCase,
    Switched,
    Then,
)
from .requests_framing import CL_VARIANTS, TE_VARIANTS

BAD = Refused(502, "bad-response")
EARLY = Refused(502, "closed-early")
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: 1\r\n\r\nevil"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HOP_BY_HOP = ("keep-alive", "proxy-connection", "te", "upgrade")


def ok(*lines: bytes, body: bytes = b"", start: bytes = OK) -> bytes:
    """Build an answer with these lines."""
    return start + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


Row = tuple[str, str, bytes, Passed | Refused | Broken | Switched, Then]

LENGTHS: tuple[Row, ...] = (
    ("plain", "nothing odd, for comparison", ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), "keep"),
    ("too-long", "more than the body holds", ok(b"Content-Length: 50", body=b"ok"), Broken(), "close"),
    ("too-long-reset", "the same, ended by a reset", ok(b"Content-Length: 50", body=b"ok"), Broken(), "reset"),
    ("too-short", "less than it sends: a second answer behind", ok(b"Content-Length: 2", body=b"ok" + EVIL),
     Passed(body=b"ok"), "keep"),
    ("too-short-byte", "one byte too many", ok(b"Content-Length: 2", body=b"okX"), Passed(body=b"ok"), "keep"),
    ("too-short-crlf", "a line break too many", ok(b"Content-Length: 2", body=b"ok\r\n"), Passed(body=b"ok"), "keep"),
    ("zero-with-body", "nothing announced, and an answer behind", ok(b"Content-Length: 0", body=EVIL), Passed(), "keep"),
    ("two-alike", "two lengths, alike", ok(b"Content-Length: 2", b"Content-Length: 2", body=b"ok"), BAD, "keep"),
    ("two-unlike", "two lengths", ok(b"Content-Length: 2", b"Content-Length: 0", body=b"ok"), BAD, "keep"),
    ("and-chunks", "a length and chunks", ok(b"Content-Length: 2", CHUNKED[:-2], body=b"2\r\nok\r\n0\r\n\r\n"), BAD, "keep"),
    ("chunks-and", "chunks and a length", ok(CHUNKED[:-2], b"Content-Length: 2", body=b"2\r\nok\r\n0\r\n\r\n"), BAD, "keep"),
    ("none-close", "no length: the end tells", ok(body=b"ok"), Passed(body=b"ok"), "close"),
    ("none-reset", "no length, and a reset", ok(body=b"ok"), Broken(), "reset"),
    ("none-hidden", "no length: what looks like a second answer is content", ok(body=b"ok" + EVIL),
     Passed(body=b"ok" + EVIL), "close"),
)  # fmt: skip

CHUNKS: tuple[tuple[str, str, bytes, bytes | None], ...] = (
    ("plain", "nothing odd", b"2\r\nok\r\n0\r\n\r\n", b"ok"),
    ("extension", "an extension", b"2;a=b\r\nok\r\n0\r\n\r\n", b"ok"),
    ("zeros", "leading zeros", b"0002\r\nok\r\n00\r\n\r\n", b"ok"),
    ("behind", "a second answer behind the end", b"2\r\nok\r\n0\r\n\r\n" + EVIL, b"ok"),
    ("trailer", "a trailer that would set a cookie", b"2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n", b"ok"),
    ("trailer-length", "a trailer that would set a length", b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", b"ok"),
    ("lf-size", "a bare LF behind a size", b"2\nok\r\n0\r\n\r\n", None),
    ("lf-extension", "a bare LF in an extension", b"2;a\nok\r\n0\r\n\r\n", None),
    ("lf-data", "a bare LF behind the content", b"2\r\nok\n0\r\n\r\n", None),
    ("no-crlf", "two other bytes behind the content", b"2\r\nokXX0\r\n\r\n", None),
    ("hex-prefix", "0x2", b"0x2\r\nok\r\n0\r\n\r\n", None),
    ("minus", "a negative size", b"-2\r\nok\r\n0\r\n\r\n", None),
    ("overflow", "a size of 65 bits", b"10000000000000002\r\nok\r\n0\r\n\r\n", None),
    ("empty-size", "no size", b"\r\nok\r\n0\r\n\r\n", None),
    ("word", "a word for a size", b"two\r\nok\r\n0\r\n\r\n", None),
    ("cr-size", "a bare CR behind a size", b"2\rok\r\n0\r\n\r\n", None),
    ("no-last", "no last chunk", b"2\r\nok\r\n", None),
    ("no-end", "no end behind the last chunk", b"2\r\nok\r\n0\r\n", None),
    ("half", "half a chunk", b"8\r\nok", None),
    ("trailer-bad", "a trailer that is none", b"2\r\nok\r\n0\r\nbad trailer\r\n\r\n", None),
    ("none", "no chunks at all", b"ok", None),
    ("answer", "an answer instead of chunks", EVIL, None),
)

HEADS: tuple[Row, ...] = (
    ("lf-all", "only bare LFs", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", BAD, "keep"),
    ("lf-status", "a bare LF ends the status line", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", BAD, "keep"),
    ("lf-header", "a bare LF ends a header line", ok(b"X-A: 1\nX-B: 2", b"Content-Length: 0"), BAD, "keep"),
    ("lf-length", "a length behind a bare LF", ok(b"X-A: 1\nContent-Length: 9", b"Content-Length: 0"), BAD, "keep"),
    ("lf-lf", "two bare LFs end the head for some", ok(b"X-A: 1\n\n<script>", b"Content-Length: 0"), BAD, "keep"),
    ("crlf-lf", "CRLF LF ends the head for some", ok(b"X-A: 1\r\n\n<script>", b"Content-Length: 0"), BAD, "keep"),
    ("cr-header", "a bare CR ends a header line", ok(b"X-A: 1\rX-B: 2", b"Content-Length: 0"), BAD, "keep"),
    ("cr-status", "a bare CR in the reason", b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n", BAD, "keep"),
    ("nul-value", "a NUL in a value", ok(b"X-A: a\0b", b"Content-Length: 0"), BAD, "keep"),
    ("nul-reason", "a NUL in the reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n", BAD, "keep"),
    ("escape", "an escape in a value", ok(b"X-A: \x1b[0m", b"Content-Length: 0"), BAD, "keep"),
    ("fold", "a folded line", ok(b"X-A: 1\r\n 2", b"Content-Length: 0"), BAD, "keep"),
    ("fold-header", "a length in a fold", ok(b"X-A: 1\r\n Content-Length: 9", b"Content-Length: 0"), BAD, "keep"),
    ("space-colon", "white space before a colon", ok(b"X-A : 1", b"Content-Length: 0"), BAD, "keep"),
    ("no-colon", "a line without a colon", ok(b"X-A", b"Content-Length: 0"), BAD, "keep"),
    ("space-name", "a space in a name", ok(b"X A: 1", b"Content-Length: 0"), BAD, "keep"),
    ("no-name", "a line without a name", ok(b": 1", b"Content-Length: 0"), BAD, "keep"),
    ("status-line-as-line", "a second status line", ok(b"HTTP/1.1 200 OK", b"Content-Length: 0"), BAD, "keep"),
    ("version-2", "another version", ok(b"Content-Length: 0", start=b"HTTP/2.0 200 OK\r\n"), BAD, "keep"),
    ("version-1.2", "a version to come", ok(b"Content-Length: 0", start=b"HTTP/1.2 200 OK\r\n"), BAD, "keep"),
    ("version-0.9", "an old version", ok(b"Content-Length: 0", start=b"HTTP/0.9 200 OK\r\n"), BAD, "keep"),
    ("version-lower", "a version in lower case", ok(b"Content-Length: 0", start=b"http/1.1 200 OK\r\n"), BAD, "keep"),
    ("icy", "another protocol", ok(b"Content-Length: 0", start=b"ICY 200 OK\r\n"), BAD, "keep"),
    ("http-0.9", "a body without a head", b"<html>hello</html>", BAD, "close"),
    ("ssh", "another protocol's greeting", b"SSH-2.0-OpenSSH_9.2\r\n", BAD, "close"),
    ("tls", "a TLS alert", bytes.fromhex("15030100020216"), BAD, "close"),
    ("crlf-before", "an empty line before the answer", b"\r\n" + ok(b"Content-Length: 0"), BAD, "keep"),
    ("space-before", "a space before the answer", b" " + ok(b"Content-Length: 0"), BAD, "keep"),
    ("status-2-digits", "a status of two digits", ok(b"Content-Length: 0", start=b"HTTP/1.1 20 OK\r\n"), BAD, "keep"),
    ("status-4-digits", "a status of four digits", ok(b"Content-Length: 0", start=b"HTTP/1.1 2000 OK\r\n"), BAD, "keep"),
    ("status-0", "a status below 100", ok(b"Content-Length: 0", start=b"HTTP/1.1 099 OK\r\n"), BAD, "keep"),
    ("status-600", "a status above 599", ok(b"Content-Length: 0", start=b"HTTP/1.1 600 OK\r\n"), BAD, "keep"),
    ("status-letters", "a status of letters", ok(b"Content-Length: 0", start=b"HTTP/1.1 2OO OK\r\n"), BAD, "keep"),
    ("status-minus", "a negative status", ok(b"Content-Length: 0", start=b"HTTP/1.1 -20 OK\r\n"), BAD, "keep"),
    ("two-spaces", "two spaces before the status", ok(b"Content-Length: 0", start=b"HTTP/1.1  200 OK\r\n"), BAD, "keep"),
    ("tab", "a tab before the status", ok(b"Content-Length: 0", start=b"HTTP/1.1\t200 OK\r\n"), BAD, "keep"),
    ("too-large", "a head larger than allowed", ok(b"X-A: " + b"x" * 70_000, b"Content-Length: 0"), BAD, "keep"),
    ("endless", "a head that does not end", OK + b"X-A: 1\r\n" * 12_000, BAD, "close"),
    ("half", "half a head", OK + b"Content-Le", EARLY, "close"),
    ("empty", "nothing at all", b"", EARLY, "close"),
    ("no-reason", "no reason", ok(b"Content-Length: 2", body=b"ok", start=b"HTTP/1.1 200 \r\n"), Passed(body=b"ok"), "keep"),
    ("no-reason-space", "not even the space", ok(b"Content-Length: 2", body=b"ok", start=b"HTTP/1.1 200\r\n"),
     Passed(body=b"ok"), "keep"),
    ("1.0-keep", "HTTP/1.0 with keep-alive", ok(b"Connection: keep-alive", b"Content-Length: 2", body=b"ok",
     start=b"HTTP/1.0 200 OK\r\n"), Passed(body=b"ok", absent=HOP_BY_HOP), "keep"),
    ("1.0-chunks", "HTTP/1.0 with chunks", ok(CHUNKED[:-2], body=b"2\r\nok\r\n0\r\n\r\n",
     start=b"HTTP/1.0 200 OK\r\n"), BAD, "keep"),
    ("connection-length", "Connection strikes the length out", ok(b"Connection: content-length", b"Content-Length: 0"),
     BAD, "keep"),
    ("connection-coding", "Connection strikes the coding out",
     ok(b"Connection: transfer-encoding", CHUNKED[:-2], body=b"0\r\n\r\n"), BAD, "keep"),
    ("connection-cookie", "Connection strikes cookies out", ok(b"Connection: set-cookie", b"Content-Length: 0"), BAD, "keep"),
    ("connection-named", "Connection names a field", ok(b"Connection: X-A", b"X-A: 1", b"Content-Length: 2", body=b"ok"),
     Passed(body=b"ok", absent=("x-a",)), "keep"),
    ("hop-by-hop", "all that is between two hops", ok(b"Keep-Alive: timeout=9", b"Proxy-Connection: close", b"TE: x",
     b"Upgrade: h2c", b"Content-Length: 2", body=b"ok"), Passed(body=b"ok", absent=HOP_BY_HOP), "keep"),
    ("encoded-crlf", "an encoded line break in a value", ok(b"Location: /%0d%0aX-Evil:%201", b"Content-Length: 0"),
     Passed(lines=("location: /%0d%0aX-Evil:%201",)), "keep"),
    ("utf-8-crlf", "characters whose low bytes are CR LF", ok(b"Location: /\xc4\x8d\xc4\x8aX", b"Content-Length: 0"),
     Passed(absent=("x",)), "keep"),
    ("underscore-length", "a length as CGI would write it", ok(b"Content_Length: 9", b"Content-Length: 2", body=b"ok"),
     BAD, "keep"),
)  # fmt: skip

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

INTERIMS: tuple[tuple[str, str, bytes, Passed | Refused | Broken, tuple[int, ...]], ...] = (
    ("100", "a 100 before the answer", CONTINUE + ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), (100,)),
    ("103", "hints before the answer", INTERIM + ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), (103,)),
    ("102", "a 102 before the answer", b"HTTP/1.1 102 P\r\n\r\n" + ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"),
     (102,)),
    ("199", "a status that nobody knows", b"HTTP/1.1 199 X\r\n\r\n" + ok(b"Content-Length: 2", body=b"ok"),
     Passed(body=b"ok"), (199,)),
    ("ten", "ten of them", INTERIM * 10 + ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), (103,) * 10),
    ("storm", "a storm of 10,000", CONTINUE * 10_000 + ok(b"Content-Length: 2", body=b"ok"), BAD, (100,) * 32),
    ("only", "an interim answer and no more", CONTINUE, EARLY, (100,)),
    ("length", "an interim answer with a length", b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\n" +
     ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), (100,)),
    ("length-body", "an interim answer with a body", b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\nevil" +
     ok(b"Content-Length: 2", body=b"ok"), BAD, (100,)),
    ("chunks", "an interim answer with chunks", b"HTTP/1.1 103 X\r\n" + CHUNKED + b"\r\n" +
     ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), (103,)),
    ("close", "an interim answer that says close", b"HTTP/1.1 103 X\r\nConnection: close\r\n\r\n" +
     ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok"), (103,)),
    ("bad-second", "garbage behind an interim answer", CONTINUE + b"garbage\r\n\r\n", BAD, (100,)),
    ("lf", "an interim answer by bare LFs", b"HTTP/1.1 100 Continue\n\n" + ok(b"Content-Length: 2", body=b"ok"), BAD, ()),
    ("after", "an interim answer behind the final one", ok(b"Content-Length: 2", body=b"ok") + CONTINUE,
     Passed(body=b"ok"), ()),
)  # fmt: skip

NO_BODY: tuple[tuple[str, str, str, bytes, Passed], ...] = (
    ("204-body", "GET", "a 204 with a body", b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, Passed(status=204)),
    ("204-length", "GET", "a 204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
     Passed(status=204, absent=("content-length",))),
    ("204-chunks", "GET", "a 204 with chunks", b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n4\r\nevil\r\n0\r\n\r\n",
     Passed(status=204, absent=("transfer-encoding",))),
    ("304-body", "GET", "a 304 with a body", b"HTTP/1.1 304 Not Modified\r\n\r\n" + EVIL, Passed(status=304)),
    ("304-length", "GET", "a 304 with the length of another answer", b"HTTP/1.1 304 NM\r\nContent-Length: 4\r\n\r\nevil",
     Passed(status=304)),
    ("304-chunks", "GET", "a 304 with chunks", b"HTTP/1.1 304 NM\r\n" + CHUNKED + b"\r\n4\r\nevil\r\n0\r\n\r\n",
     Passed(status=304)),
    ("205-body", "GET", "a 205 with a body", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 4\r\n\r\nbody",
     Passed(status=205, body=b"body")),
    ("head-length", "HEAD", "a HEAD with a length and no body", ok(b"Content-Length: 4"), Passed()),
    ("head-body", "HEAD", "a HEAD with a body", ok(b"Content-Length: 4", body=b"evil"), Passed()),
    ("head-answer", "HEAD", "a HEAD with an answer for a body", ok(b"Content-Length: %d" % len(EVIL), body=EVIL), Passed()),
    ("head-chunks", "HEAD", "a HEAD with chunks", ok(CHUNKED[:-2], body=b"4\r\nevil\r\n0\r\n\r\n"), Passed()),
    ("head-close", "HEAD", "a HEAD without a length", ok(), Passed()),
    ("head-close-body", "HEAD", "a HEAD with a body without a length", ok(body=b"evil"), Passed()),
)  # fmt: skip

SOCKET = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"

SWITCHES: tuple[tuple[str, str, str, bytes, Passed | Refused | Broken | Switched], ...] = (
    ("unasked", "", "a 101 that nobody asked for", SOCKET % b"websocket" + EVIL, BAD),
    ("unasked-bare", "", "a 101 without an Upgrade", b"HTTP/1.1 101 X\r\n\r\n" + EVIL, BAD),
    ("unasked-h2c", "h2c", "a 101 to h2c, which was struck out", SOCKET % b"h2c", BAD),
    ("other", "websocket", "a 101 to another protocol", SOCKET % b"h2c", BAD),
    ("none", "websocket", "a 101 that does not say to what", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n", BAD),
    ("two", "websocket", "a 101 to two protocols", SOCKET % b"websocket, h2c", BAD),
    ("asked", "websocket", "a 101 that was asked for", SOCKET % b"websocket" + b"\x81\x02hi", Switched(b"\x81\x02hi")),
    ("case", "websocket", "the same in other letters", SOCKET % b"WebSocket" + b"x", Switched(b"x")),
    ("length", "websocket", "a 101 with a length", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
     b"Content-Length: 4\r\n\r\nevil", Switched(b"evil")),
    ("chunks", "websocket", "a 101 with chunks", b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
     CHUNKED + b"\r\nevil", Switched(b"evil")),
    ("426", "websocket", "a refusal by 426", b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
     Passed(status=426, body=b"no")),
    ("200", "websocket", "an ordinary answer", ok(b"Content-Length: 2", body=b"ok"), Passed(body=b"ok")),
    ("fake-status", "websocket", "a refusal that a naive proxy takes for a 101", ok(b"Content-Length: 2", body=b"ok",
     start=b"HTTP/1.1 401 101 Switching\r\n"), Passed(status=401, body=b"ok")),
    ("2", "websocket", "a 101 behind an interim answer", CONTINUE + SOCKET % b"websocket", Switched()),
)  # fmt: skip

SPLITS: tuple[Row, ...] = (
    ("two-answers", "two answers in one piece", ok(b"Content-Length: 2", body=b"ok") + EVIL, Passed(body=b"ok"), "keep"),
    ("three-answers", "three answers", ok(b"Content-Length: 2", body=b"ok") + EVIL * 2, Passed(body=b"ok"), "keep"),
    ("header-injected", "a head cut short by an injected end", ok(b"Location: /a\r\n\r\n<script>alert(1)</script>",
     b"Content-Length: 0"), Passed(body=b"<script>alert(1)</script>\r\nContent-Length: 0\r\n\r\n"), "close"),
    ("length-injected", "a length injected before the real one", ok(b"X-A: 1\r\nContent-Length: 0", b"Content-Length: 4",
     body=b"evil"), BAD, "keep"),
    ("answer-injected", "a whole answer injected", ok(b"Location: /a\r\nContent-Length: 0\r\n\r\n" + EVIL[:-2],
     b"Content-Length: 4", body=b"body"), Passed(), "keep"),
    ("cookie-injected", "a pin's cookie is the app's own business", ok(b"Set-Cookie: stickyproxy=x", b"Content-Length: 0"),
     Passed(), "keep"),
    ("reason-injected", "a refusal's reason by the app is its own business", ok(b"X-Stickyproxy-Reason: x",
     b"Content-Length: 0"), Passed(), "keep"),
)  # fmt: skip


def _tables() -> Iterator[ResponseCase]:
    for name, tries, raw, expected, then in LENGTHS:
        yield ResponseCase(f"length-{name}", "lying lengths", tries, RFC9112 + " section 6.3", raw, expected, then)
    for name, line, good in CL_VARIANTS:
        if name == "wraps-32":
            continue
        raw = ok(line, body=b"hello")
        yield ResponseCase(
            f"length-{name}", "lying lengths", f"a length readers take for others: {name}", JABIYEV, raw,
            Passed(body=b"hello", lines=("content-length: 5",)) if good else BAD,
        )  # fmt: skip
    for name, line, good in TE_VARIANTS:
        raw = ok(line, body=b"5\r\nhello\r\n0\r\n\r\n")
        yield ResponseCase(
            f"coding-{name}", "codings", f"a coding only some readers see: {name}", JABIYEV, raw,
            Passed(body=b"hello") if good else BAD,
        )  # fmt: skip
    for name, tries, body, content in CHUNKS:
        yield ResponseCase(
            f"chunk-{name}", "chunks", tries, KETTLE_2025, ok(CHUNKED[:-2], body=body),
            Broken() if content is None else Passed(body=content), "close" if content is None else "keep",
        )  # fmt: skip
    for name, tries, raw, expected, then in HEADS:
        yield ResponseCase(f"head-{name}", "heads", tries, CWE113, raw, expected, then)
    for name, tries, raw, answered, interim in INTERIMS:
        yield ResponseCase(
            f"interim-{name}", "1xx", tries, RFC9110 + " section 15.2", raw, answered, "close", interim=interim
        )
    for name, asks, tries, raw, passed in NO_BODY:
        yield ResponseCase(f"none-{name}", "no body", tries, KLEIN_2020, raw, passed, "keep", asks)
    for name, upgrade, tries, raw, switched in SWITCHES:
        interim = (100,) if name == "2" else ()
        yield ResponseCase(
            f"switch-{name}", "101", tries, UPGRADE, raw, switched, "close", upgrade=upgrade, interim=interim
        )
    for name, tries, raw, expected, then in SPLITS:
        yield ResponseCase(f"split-{name}", "splits", tries, QUEUE, raw, expected, then)


CASES = tuple(_tables())
