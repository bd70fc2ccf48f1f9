"""Requests whose head two readers could read differently: lines, white space, methods, targets, versions, Host."""

from collections.abc import Iterator

from .case import (
    HOST,
    JABIYEV,
    KETTLE_2019,
    KETTLE_2025,
    LINHART,
    RFC9110,
    RFC9112,
    Expected,
    RequestCase,
    Unanswered,
    bad,
    one,
)
from .requests_framing import SMUGGLED

H = b"Host: app.test\r\n"


def get(lines: bytes = b"", line: bytes = b"GET /a HTTP/1.1\r\n", host: bytes = H) -> bytes:
    """Build a request from lines that bring their own ends."""
    return line + host + lines + b"\r\n"


LINE_ENDS: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("lf-request-line", "a bare LF ends the request line", b"GET /a HTTP/1.1\n" + H + b"\r\n", bad()),
    ("lf-all", "only bare LFs", b"GET /a HTTP/1.1\nHost: app.test\n\n", bad()),
    ("lf-header", "a bare LF ends a header line", get(b"X-A: 1\nX-B: 2\r\n"), bad()),
    ("lf-host", "a bare LF ends Host", get(host=b"Host: app.test\nX-A: 1\r\n"), bad()),
    ("lf-end", "a bare LF ends the head", b"GET /a HTTP/1.1\r\n" + H + b"\n" + SMUGGLED, bad()),
    ("lf-lf-hidden", "two bare LFs end the head for some", get(b"X-A: 1\n\nGET /b HTTP/1.1\r\n"), bad()),
    ("crlf-lf", "CRLF LF ends the head for some", get(b"X-A: 1\r\n\nGET /b HTTP/1.1\r\n"), bad()),
    ("cr-request-line", "a bare CR ends the request line", b"GET /a HTTP/1.1\r" + H + b"\r\n", bad()),
    ("cr-all", "only bare CRs", b"GET /a HTTP/1.1\rHost: app.test\r\r", bad()),
    ("cr-header", "a bare CR ends a header line", get(b"X-A: 1\rX-B: 2\r\n"), bad()),
    ("cr-cr-lf", "a CR too many", get(b"X-A: 1\r\r\n"), bad()),
    ("cr-in-name", "a CR in a name", get(b"X-\rA: 1\r\n"), bad()),
    ("cr-hidden-length", "a length behind a bare CR", get(b"X-A: 1\rContent-Length: 5\r\n") + b"hello", bad()),
    ("cr-cr-hidden", "two bare CRs end the head for some", get(b"X-A: 1\r\rGET /b HTTP/1.1\r\n"), bad()),
    ("crlf-before", "empty lines before the request", b"\r\n\r\n" + get(), one("/a")),
    ("lf-before", "a bare LF before the request", b"\n" + get(), bad()),
    ("cr-before", "a bare CR before the request", b"\r" + get(), bad()),
    ("space-before", "a space before the request", b" " + get(), bad()),
    ("nul-before", "a NUL before the request", b"\0" + get(), bad()),
    ("bom-before", "a byte order mark before the request", b"\xef\xbb\xbf" + get(), bad()),
    ("no-end", "a head that does not end", b"GET /a HTTP/1.1\r\n" + H, Unanswered()),
    ("no-end-cr", "a head that ends half way", b"GET /a HTTP/1.1\r\n" + H + b"\r", Unanswered()),
    ("nel", "a Unicode line break in a value", get(b"X-A: 1\xc2\x85X-B: 2\r\n"), one("/a")),
    ("line-separator", "a Unicode line separator in a value", get(b"X-A: 1\xe2\x80\xa8X-B: 2\r\n"), one("/a")),
    ("encoded-crlf", "an encoded line break in a value", get(b"X-A: 1%0d%0aX-B: 2\r\n"), one("/a")),
    ("wide-lf", "a character whose low byte is LF", get(b"X-A: 1\xc4\x8aX-B: 2\r\n"), one("/a")),
)

FIELDS: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("nul-value", "a NUL in a value", get(b"X-A: 1\0002\r\n"), bad()),
    ("nul-name", "a NUL in a name", get(b"X-\0A: 1\r\n"), bad()),
    ("escape-value", "an escape in a value", get(b"X-A: \x1b[0m\r\n"), bad()),
    ("bell-value", "a bell in a value", get(b"X-A: \x07\r\n"), bad()),
    ("delete-value", "a DEL in a value", get(b"X-A: \x7f\r\n"), bad()),
    ("vertical-tab-value", "a vertical tab in a value", get(b"X-A: a\x0bb\r\n"), bad()),
    ("form-feed-value", "a form feed in a value", get(b"X-A: a\x0cb\r\n"), bad()),
    ("latin-1-value", "bytes above 127 in a value", get(b"X-A: \xe4\xff\r\n"), one("/a")),
    ("latin-1-name", "bytes above 127 in a name", get(b"X-\xe4: 1\r\n"), bad()),
    ("tab-value", "a tab in a value", get(b"X-A: a\tb\r\n"), one("/a")),
    ("fold-space", "a folded line", get(b"X-A: 1\r\n 2\r\n"), bad()),
    ("fold-tab", "a line folded by a tab", get(b"X-A: 1\r\n\t2\r\n"), bad()),
    ("fold-empty", "a fold that holds nothing", get(b"X-A: 1\r\n \r\n"), bad()),
    ("fold-host", "a folded Host", get(host=b"Host:\r\n app.test\r\n"), bad()),
    ("fold-first", "a fold right behind the request line", get(host=b" X-A: 1\r\n" + H), bad()),
    ("fold-header", "a header line in a fold", get(b"X-A: 1\r\n Content-Length: 5\r\n") + b"hello", bad()),
    ("space-colon", "white space before a colon", get(b"X-A : 1\r\n"), bad()),
    ("tab-colon", "a tab before a colon", get(b"X-A\t: 1\r\n"), bad()),
    ("space-in-name", "a space in a name", get(b"X A: 1\r\n"), bad()),
    ("no-colon", "a line without a colon", get(b"X-A\r\n"), bad()),
    ("no-name", "a line without a name", get(b": 1\r\n"), bad()),
    ("request-as-line", "a request line among the header lines", get(b"GET /b HTTP/1.1\r\n"), bad()),
    ("bracket-name", "a bracket in a name", get(b"X[A]: 1\r\n"), bad()),
    ("slash-name", "a slash in a name", get(b"X/A: 1\r\n"), bad()),
    ("quote-name", "quotes in a name", get(b'"X-A": 1\r\n'), bad()),
    ("brace-name", "braces in a name", get(b"{X}: 1\r\n"), bad()),
    ("odd-token-name", "all odd characters that a name may have", get(b"!#$%&'*+-.^_`|~: 1\r\n"), one("/a")),
    ("empty-value", "a value that holds nothing", get(b"X-A:\r\n"), one("/a")),
    ("long-name", "a name of 20 kB", get(b"X" * 20_000 + b": 1\r\n"), one("/a")),
    ("long-value", "a head larger than allowed", get(b"X-A: " + b"x" * 70_000 + b"\r\n"), bad(431)),
    ("many-lines", "more lines than allowed", get(b"X-A: 1\r\n" * 200), bad(431)),
)

REQUEST_LINES: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("two-spaces-target", "two spaces before the target", b"GET  /a HTTP/1.1", bad()),
    ("two-spaces-version", "two spaces before the version", b"GET /a  HTTP/1.1", bad()),
    ("tab-target", "a tab before the target", b"GET\t/a HTTP/1.1", bad()),
    ("tab-version", "a tab before the version", b"GET /a\tHTTP/1.1", bad()),
    ("trailing-space", "a space behind the version", b"GET /a HTTP/1.1 ", bad()),
    ("four-words", "a fourth word", b"GET /a HTTP/1.1 x", bad()),
    ("space-in-target", "a space in the target", b"GET /a b HTTP/1.1", bad()),
    ("two-requests", "a request in a target", b"GET /a HTTP/1.1 /b HTTP/1.1", bad()),
    ("vertical-tab", "a vertical tab as space", b"GET\x0b/a\x0bHTTP/1.1", bad()),
    ("no-break-space", "a no-break space as space", b"GET\xa0/a HTTP/1.1", bad()),
    ("no-version", "HTTP/0.9", b"GET /a", bad()),
    ("no-target", "no target", b"GET HTTP/1.1", bad()),
    ("empty-target", "an empty target", b"GET  HTTP/1.1", bad()),
    ("empty", "nothing but header lines", b"", bad()),
    ("quoted-version", "a version in quotes", b'GET /a "HTTP/1.1"', bad()),
    ("version-0.9", "version 0.9", b"GET /a HTTP/0.9", bad(505)),
    ("version-2.0", "version 2.0", b"GET /a HTTP/2.0", bad(505)),
    ("version-2", "version 2", b"GET /a HTTP/2", bad()),
    ("version-3.0", "version 3.0", b"GET /a HTTP/3.0", bad(505)),
    ("version-1.2", "version 1.2", b"GET /a HTTP/1.2", bad()),
    ("version-1.9", "version 1.9", b"GET /a HTTP/1.9", bad()),
    ("version-1.10", "version 1.10", b"GET /a HTTP/1.10", bad()),
    ("version-01.1", "version 01.1", b"GET /a HTTP/01.1", bad()),
    ("version-11", "version 11", b"GET /a HTTP/11", bad()),
    ("version-1,1", "a comma in the version", b"GET /a HTTP/1,1", bad()),
    ("version-lower", "a version in lower case", b"GET /a http/1.1", bad()),
    ("version-https", "another protocol's name", b"GET /a HTTPS/1.1", bad()),
    ("version-icy", "another protocol's name", b"GET /a ICY/1.1", bad()),
    ("version-rtsp", "another protocol's name", b"GET /a RTSP/1.0", bad()),
    ("version-plus", "a signed version", b"GET /a HTTP/+1.1", bad()),
    ("version-nul", "a NUL behind the version", b"GET /a HTTP/1.1\0", bad()),
    ("method-lower", "a method in lower case", b"get /a HTTP/1.1", bad(501)),
    ("method-mixed", "a method in mixed case", b"Get /a HTTP/1.1", bad(501)),
    ("method-unknown", "a method nobody knows", b"FOO /a HTTP/1.1", bad(501)),
    ("method-prefix", "the beginning of a method", b"GE /a HTTP/1.1", bad(501)),
    ("method-longer", "a method and a letter more", b"GETX /a HTTP/1.1", bad(501)),
    ("method-connect", "a tunnel asked for", b"CONNECT app.test:80 HTTP/1.1", bad(501)),
    ("method-connect-path", "a tunnel asked for by a path", b"CONNECT /a HTTP/1.1", bad(501)),
    ("method-pri", "the preface of HTTP/2", b"PRI * HTTP/2.0", bad(505)),
    ("method-pri-1.1", "the preface of HTTP/2 with our version", b"PRI * HTTP/1.1", bad()),
    ("method-source", "a method of Icecast is one llhttp knows", b"SOURCE /a HTTP/1.1", one("/a")),
    ("method-nul", "a NUL in a method", b"GE\0T /a HTTP/1.1", bad(501)),
    ("method-colon", "a colon in a method", b"GET: /a HTTP/1.1", bad(501)),
    ("method-quoted", "quotes in a method", b'"GET" /a HTTP/1.1', bad()),
    ("method-utf-8", "a letter that is not ASCII", b"G\xc4\x98T /a HTTP/1.1", bad(501)),
    ("method-trace", "TRACE is passed on", b"TRACE /a HTTP/1.1", one("/a")),
    ("method-purge", "a cache's method is one llhttp knows", b"PURGE /a HTTP/1.1", one("/a")),
    ("target-relative", "a target without a slash", b"GET a HTTP/1.1", bad()),
    ("target-dot", "a target that begins with a dot", b"GET ../a HTTP/1.1", bad()),
    ("target-query-only", "only a query", b"GET ?a HTTP/1.1", bad()),
    ("target-fragment", "a fragment", b"GET /a#b HTTP/1.1", bad()),
    ("target-star", "the server as a whole, by GET", b"GET * HTTP/1.1", bad()),
    ("target-star-options", "the server as a whole", b"OPTIONS * HTTP/1.1", one("*")),
    ("target-two-slashes", "a target that looks like an authority", b"GET //evil.test/a HTTP/1.1", one("//evil.test/a")),
    ("target-backslash", "a backslash", b"GET /a\\b HTTP/1.1", one("/a\\b")),
    ("target-dots", "dots stay as they are", b"GET /x/../a HTTP/1.1", one("/x/../a")),
    ("target-encoded-dots", "encoded dots stay as they are", b"GET /%2e%2e/a HTTP/1.1", one("/%2e%2e/a")),
    ("target-encoded-slash", "an encoded slash stays", b"GET /a%2fb HTTP/1.1", one("/a%2fb")),
    ("target-encoded-crlf", "an encoded line break stays", b"GET /a%0d%0aX:1 HTTP/1.1", one("/a%0d%0aX:1")),
    ("target-encoded-nul", "an encoded NUL stays", b"GET /a%00 HTTP/1.1", one("/a%00")),
    ("target-bad-percent", "a percent sign without digits", b"GET /a%zz HTTP/1.1", one("/a%zz")),
    ("target-nul", "a NUL", b"GET /a\0 HTTP/1.1", bad()),
    ("target-control", "a control character", b"GET /a\x01 HTTP/1.1", bad()),
    ("target-delete", "a DEL", b"GET /a\x7f HTTP/1.1", bad()),
    ("target-cr", "a bare CR", b"GET /a\rb HTTP/1.1", bad()),
    ("target-lf", "a bare LF", b"GET /a\nb HTTP/1.1", bad()),
    ("target-latin-1", "a byte above 127", b"GET /\xe4 HTTP/1.1", bad()),
    ("target-utf-8", "a letter in UTF-8", b"GET /\xc3\xa4 HTTP/1.1", bad()),
    ("target-semicolon", "a matrix parameter", b"GET /a;b=c HTTP/1.1", one("/a;b=c")),
    ("target-brackets", "characters that a URI has not", b'GET /a"<>^`{|} HTTP/1.1', one('/a"<>^`{|}')),
    ("target-long", "a target of 20 kB", b"GET /" + b"a" * 20_000 + b" HTTP/1.1", one("/" + "a" * 20_000)),
    ("absolute", "absolute form of the same host", b"GET http://app.test/a HTTP/1.1", one("/a")),
    ("absolute-https", "absolute form by https", b"GET https://app.test/a HTTP/1.1", one("/a")),
    ("absolute-case", "absolute form in capitals", b"GET HTTP://APP.TEST/a HTTP/1.1", one("/a")),
    ("absolute-empty-path", "absolute form without a path", b"GET http://app.test HTTP/1.1", one("/")),
    ("absolute-query", "absolute form with a query alone", b"GET http://app.test?x HTTP/1.1", one("/?x")),
    ("absolute-options", "absolute form of *", b"OPTIONS http://app.test HTTP/1.1", one("*")),
    ("absolute-other", "absolute form of another host", b"GET http://evil.test/a HTTP/1.1", bad()),
    ("absolute-port", "absolute form with a port Host has not", b"GET http://app.test:81/a HTTP/1.1", bad()),
    ("absolute-user", "absolute form with a user", b"GET http://x@app.test/a HTTP/1.1", bad()),
    ("absolute-user-evil", "a host behind a user", b"GET http://app.test@evil.test/a HTTP/1.1", bad()),
    ("absolute-backslash", "a backslash in the authority", b"GET http://app.test\\.evil.test/a HTTP/1.1", bad()),
    ("absolute-no-host", "no authority", b"GET http:///a HTTP/1.1", bad()),
    ("absolute-one-slash", "one slash", b"GET http:/app.test/a HTTP/1.1", bad()),
    ("absolute-ftp", "another scheme", b"GET ftp://app.test/a HTTP/1.1", bad()),
    ("absolute-file", "a file", b"GET file:///etc/passwd HTTP/1.1", bad()),
    ("absolute-fragment", "absolute form with a fragment", b"GET http://app.test/a#b HTTP/1.1", bad()),
    ("authority", "authority form", b"GET app.test:80 HTTP/1.1", bad()),
    ("authority-path", "authority form with a path", b"GET app.test:80/a HTTP/1.1", bad()),
    ("metadata", "a cloud's metadata as target", b"GET http://169.254.169.254/latest HTTP/1.1", bad()),
)  # fmt: skip

HOSTS: tuple[tuple[str, str, bytes, Expected], ...] = (
    ("none", "no Host", b"", bad()),
    ("empty", "an empty Host", b"Host:\r\n", bad()),
    ("two-alike", "two Hosts, alike", H + H, bad()),
    ("two-unlike", "two Hosts", H + b"Host: evil.test\r\n", bad()),
    ("two-case", "two Hosts in other letters", b"hOST: evil.test\r\n" + H, bad()),
    ("list", "a list", b"Host: app.test, evil.test\r\n", bad()),
    ("space-inside", "a space", b"Host: app.test evil.test\r\n", bad()),
    ("tab-inside", "a tab", b"Host: app.test\tevil.test\r\n", bad()),
    ("space-colon", "white space before the colon", b"Host : evil.test\r\n" + H, bad()),
    ("leading-space", "a Host in a fold", b"X-A: 1\r\n Host: evil.test\r\n" + H, bad()),
    ("user", "a user", b"Host: x@app.test\r\n", bad()),
    ("path", "a path", b"Host: app.test/a\r\n", bad()),
    ("url", "a URL", b"Host: http://app.test\r\n", bad()),
    ("query", "a query", b"Host: app.test?a\r\n", bad()),
    ("fragment", "a fragment", b"Host: app.test#a\r\n", bad()),
    ("backslash", "a backslash", b"Host: app.test\\evil\r\n", bad()),
    ("nul", "a NUL", b"Host: app.test\0.evil\r\n", bad()),
    ("latin-1", "a byte above 127", b"Host: \xe4pp.test\r\n", bad()),
    ("quotes", "quotes", b'Host: "app.test"\r\n', bad()),
    ("angle", "an angle bracket", b"Host: app.test<script>\r\n", bad()),
    ("port-letters", "a port of letters", b"Host: app.test:80a\r\n", bad()),
    ("two-ports", "two ports", b"Host: app.test:80:81\r\n", bad()),
    ("port-minus", "a negative port", b"Host: app.test:-1\r\n", bad()),
    ("bracket-open", "a bracket that does not close", b"Host: [::1\r\n", bad()),
    ("bracket-text", "text behind a bracket", b"Host: [::1]evil\r\n", bad()),
    ("ipv6", "an IPv6 address", b"Host: [::1]:80\r\n", one("/a", b"", "host: [::1]:80")),
    ("port", "a port", b"Host: app.test:8080\r\n", one("/a", b"", "host: app.test:8080")),
    ("port-empty", "an empty port", b"Host: app.test:\r\n", one("/a")),
    ("dot", "a dot at the end", b"Host: app.test.\r\n", one("/a")),
    ("spaces-around", "white space around", b"Host:  \t app.test \r\n", one("/a", b"", "host: app.test")),
)

_SOURCES = {"line": KETTLE_2025, "field": JABIYEV, "start": RFC9112 + " section 3", "host": HOST}


def _tables() -> Iterator[RequestCase]:
    for name, tries, raw, expected in LINE_ENDS:
        yield RequestCase(f"line-{name}", "line ends", tries, _SOURCES["line"], raw, expected)
    for name, tries, raw, expected in FIELDS:
        yield RequestCase(f"field-{name}", "fields and spaces", tries, _SOURCES["field"], raw, expected)
    for name, tries, line, expected in REQUEST_LINES:
        category = name.partition("-")[0]
        kinds = {"version": "versions", "method": "methods", "absolute": "absolute form", "authority": "absolute form"}
        yield RequestCase(
            f"start-{name}", kinds.get(category, "targets and request lines"), tries, _SOURCES["start"],
            get(line=line + b"\r\n"), expected,
        )  # fmt: skip
    for name, tries, lines, expected in HOSTS:
        yield RequestCase(f"host-{name}", "Host", tries, _SOURCES["host"], get(host=lines), expected)
    yield RequestCase(
        "host-1.0-none", "Host", "no Host in HTTP/1.0, where that is allowed", RFC9112 + " section 3.2",
        b"GET /a HTTP/1.0\r\n\r\n", one("/a"),
    )  # fmt: skip
    yield RequestCase(
        "start-version-1.0", "versions", "version 1.0 goes on as 1.1", RFC9110 + " section 2.5",
        b"GET /a HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n" + SMUGGLED, one("/a"),
    )  # fmt: skip
    yield RequestCase(
        "start-tls", "versions", "a TLS handshake", RFC9112, bytes.fromhex("16030100c8010000c40303") + b"\0" * 50, bad()
    )  # fmt: skip
    yield RequestCase(
        "start-h2-preface", "versions", "HTTP/2 with prior knowledge", "RFC 9113 section 3.4",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bad(505),
    )  # fmt: skip
    yield RequestCase(
        "start-proxy-v1", "versions", "a PROXY protocol line that nobody asked for", "HAProxy PROXY protocol",
        b"PROXY TCP4 6.6.6.6 127.0.0.1 1 80\r\n" + get(), bad(),
    )  # fmt: skip
    yield RequestCase(
        "start-proxy-v2", "versions", "a PROXY protocol block that nobody asked for", "HAProxy PROXY protocol",
        b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c" + bytes(12) + get(), bad(),
    )  # fmt: skip
    yield RequestCase(
        "start-smtp", "versions", "another protocol's words", KETTLE_2019, b"EHLO app.test\r\nQUIT\r\n\r\n", bad()
    )
    yield RequestCase(
        "start-linhart", "targets and request lines", "a request hidden in a header line's continuation", LINHART,
        get(b"X-A: 1\r\n\tGET /b HTTP/1.1\r\n"), bad(),
    )  # fmt: skip


CASES = tuple(_tables())
