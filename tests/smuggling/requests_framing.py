"""Requests whose end two readers could see at different places: lengths, codings, chunks."""

from collections.abc import Iterator

from .case import (
    CHUNK_EXT,
    CUT,
    JABIYEV,
    KETTLE_2019,
    KETTLE_2022,
    KETTLE_2025,
    KLEIN_2020,
    LINHART,
    RFC9110,
    RFC9112,
    Expected,
    RequestCase,
    Unanswered,
    bad,
    one,
)

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.test\r\nX-Smuggled: 1\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/a", method: bytes = b"POST") -> bytes:
    """Build a request with these lines behind its Host."""
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), b"Host: app.test", *lines, b"", body])


def length(body: bytes) -> bytes:
    """Write the length of a body."""
    return b"Content-Length: %d" % len(body)


def _cl_te() -> Iterator[RequestCase]:
    """Give those in which one reader takes the length, the other the chunks."""
    ended = b"0\r\n\r\n" + SMUGGLED
    inner = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    for name, category, body, said in (
        ("cl-te", "CL.TE", ended, length(ended)),
        ("te-cl", "TE.CL", inner, b"Content-Length: 4"),
        ("te-cl0", "TE.CL", ended, b"Content-Length: 0"),
    ):
        pairs = (
            ("length-first", (said, CHUNKED)),
            ("chunked-first", (CHUNKED, said)),
            ("far-apart", (said, b"X-A: 1", b"X-B: 2", b"X-C: 3", CHUNKED)),
            ("lower-case", (said.lower(), CHUNKED.lower())),
            ("upper-case", (said.upper(), CHUNKED.upper())),
            ("twice-chunked", (said, CHUNKED, CHUNKED)),
            ("identity-too", (said, CHUNKED, b"Transfer-Encoding: identity")),
            ("nominated", (said, CHUNKED, b"Connection: content-length")),
            ("te-nominated", (said, CHUNKED, b"Connection: transfer-encoding")),
            ("te-and-close", (said, CHUNKED, b"Connection: close")),
        )
        for kind, lines in pairs:
            yield RequestCase(
                f"{name}-{kind}", category, f"both framings, {kind.replace('-', ' ')}", LINHART,
                post(*lines, body=body), bad(),
            )  # fmt: skip
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH"):
        yield RequestCase(
            f"cl-te-{method.decode().lower()}", "CL.TE", "both framings on a method that seldom has a body",
            KETTLE_2019, post(length(ended), CHUNKED, body=ended, method=method), bad(),
        )  # fmt: skip


TE_VARIANTS: tuple[tuple[str, bytes, bool], ...] = (
    ("space-before-colon", b"Transfer-Encoding : chunked", False),
    ("tab-before-colon", b"Transfer-Encoding\t: chunked", False),
    ("leading-space", b" Transfer-Encoding: chunked", False),
    ("leading-tab", b"\tTransfer-Encoding: chunked", False),
    ("vertical-tab", b"Transfer-Encoding: \x0bchunked", False),
    ("form-feed", b"Transfer-Encoding: \x0cchunked", False),
    ("nul-before", b"Transfer-Encoding: \x00chunked", False),
    ("nul-after", b"Transfer-Encoding: chunked\x00", False),
    ("x-before", b"Transfer-Encoding: xchunked", False),
    ("x-after", b"Transfer-Encoding: chunkedx", False),
    ("quoted", b'Transfer-Encoding: "chunked"', False),
    ("single-quoted", b"Transfer-Encoding: 'chunked'", False),
    ("comma-before", b"Transfer-Encoding: ,chunked", False),
    ("comma-after", b"Transfer-Encoding: chunked,", False),
    ("identity-chunked", b"Transfer-Encoding: identity, chunked", False),
    ("chunked-identity", b"Transfer-Encoding: chunked, identity", False),
    ("gzip-chunked", b"Transfer-Encoding: gzip, chunked", False),
    ("chunked-gzip", b"Transfer-Encoding: chunked, gzip", False),
    ("chunked-chunked", b"Transfer-Encoding: chunked, chunked", False),
    ("parameter", b"Transfer-Encoding: chunked;q=1", False),
    ("identity", b"Transfer-Encoding: identity", False),
    ("empty", b"Transfer-Encoding:", False),
    ("cow", b"Transfer-Encoding: cow", False),
    ("folded", b"Transfer-Encoding:\r\n chunked", False),
    ("folded-tab", b"Transfer-Encoding:\r\n\tchunked", False),
    ("behind-fold", b"X-A: 1\r\n Transfer-Encoding: chunked", False),
    ("lf-before", b"X-A: 1\nTransfer-Encoding: chunked", False),
    ("lf-after", b"Transfer-Encoding: chunked\nX-A: 1", False),
    ("cr-before", b"X-A: 1\rTransfer-Encoding: chunked", False),
    ("cr-after", b"Transfer-Encoding: chunked\r\rX-A: 1", False),
    ("cr-in-value", b"Transfer-Encoding: \rchunked", False),
    ("lf-in-value", b"Transfer-Encoding: \nchunked", False),
    ("no-colon", b"Transfer-Encoding chunked", False),
    ("two-colons", b"Transfer-Encoding:: chunked", False),
    ("bracket", b"[Transfer-Encoding: chunked", False),
    ("underscore", b"Transfer_Encoding: chunked", False),
    ("latin-1", b"Transfer-Encoding: chunke\xe4", False),
    ("no-break-space", b"Transfer-Encoding: \xa0chunked", False),
    ("utf-8-space", b"Transfer-Encoding: \xc2\xa0chunked", False),
    ("long-s", b"Transfer-Encoding: chun\xc4\xb7ed", False),
    ("bom", b"\xef\xbb\xbfTransfer-Encoding: chunked", False),
    ("delete", b"Transfer-Encoding: \x7fchunked", False),
    ("escape", b"Transfer-Encoding: \x1bchunked", False),
    ("backspace", b"Transfer-Encodin\x08g: chunked", False),
    ("spaces-inside", b"Transfer-Encoding: chun ked", False),
    ("many-spaces", b"Transfer-Encoding:      chunked", True),
    ("no-space", b"Transfer-Encoding:chunked", True),
    ("tab-after-colon", b"Transfer-Encoding:\tchunked", True),
    ("trailing-space", b"Transfer-Encoding: chunked ", True),
    ("trailing-tab", b"Transfer-Encoding: chunked\t", True),
    ("mixed-case", b"tRANSFER-eNCODING: ChUnKeD", True),
)
"""Ways to write the coding, and whether one of them is good where it stands alone."""


def _te_te() -> Iterator[RequestCase]:
    """Give codings that one reader understands and the other does not."""
    ended = b"0\r\n\r\n" + SMUGGLED
    for name, line, good in TE_VARIANTS:
        yield RequestCase(
            f"te-te-{name}-with-length", "TE.TE", f"a coding only some readers see, beside a length: {name}",
            KETTLE_2019, post(length(ended), line, body=ended), bad(),
        )  # fmt: skip
        good = good and name != "trailing-tab"  # RFC 9112 allows it, llhttp does not: nobody sends it
        alone: Expected = one("/a", b"hello", "transfer-encoding: chunked") if good else bad()
        yield RequestCase(
            f"te-te-{name}-alone", "TE.TE", f"a coding only some readers see, with no length: {name}",
            KETTLE_2019, post(line, body=b"5\r\nhello\r\n0\r\n\r\n"), alone,
        )  # fmt: skip
    for name, second in (
        ("cow", b"Transfer-Encoding: cow"), ("identity", b"Transfer-Encoding: identity"), ("empty", b"Transfer-Encoding:"),
        ("chunked", CHUNKED), ("underscore", b"Transfer_Encoding: chunked"),
    ):  # fmt: skip
        for where, order in (("after", (CHUNKED, second)), ("before", (second, CHUNKED))):
            if name == "chunked" and where == "before":
                continue  # the same bytes
            yield RequestCase(
                f"te-te-two-{name}-{where}", "TE.TE", f"a second coding line, {name}, {where} the good one",
                KETTLE_2019, post(*order, body=ended), bad(),
            )  # fmt: skip
    yield RequestCase(
        "te-http-1.0", "TE.TE", "a coding in HTTP/1.0, which has none", RFC9112 + " section 6.1",
        b"POST /a HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n" + ended, bad(),
    )  # fmt: skip


CL_VARIANTS: tuple[tuple[str, bytes, bool], ...] = (
    ("plus", b"Content-Length: +5", False),
    ("minus", b"Content-Length: -5", False),
    ("hexadecimal", b"Content-Length: 0x5", False),
    ("exponent", b"Content-Length: 5e0", False),
    ("point", b"Content-Length: 5.0", False),
    ("underscore-digits", b"Content-Length: 0_5", False),
    ("letters-after", b"Content-Length: 5a", False),
    ("two-numbers", b"Content-Length: 5 5", False),
    ("list-alike", b"Content-Length: 5, 5", False),
    ("list-unlike", b"Content-Length: 5, 0", False),
    ("list-empty", b"Content-Length: 5,", False),
    ("empty", b"Content-Length:", False),
    ("blank", b"Content-Length:  ", False),
    ("quoted", b'Content-Length: "5"', False),
    ("huge", b"Content-Length: 18446744073709551621", False),
    ("long", b"Content-Length: " + b"9" * 30, False),
    ("wraps-32", b"Content-Length: 4294967301", False),
    ("nul", b"Content-Length: 5\x00", False),
    ("vertical-tab", b"Content-Length: \x0b5", False),
    ("full-width", b"Content-Length: \xef\xbc\x95", False),
    ("arabic-indic", b"Content-Length: \xd9\xa5", False),
    ("superscript", b"Content-Length: \xb2", False),
    ("space-before-colon", b"Content-Length : 5", False),
    ("tab-before-colon", b"Content-Length\t: 5", False),
    ("leading-space", b" Content-Length: 5", False),
    ("folded", b"Content-Length:\r\n 5", False),
    ("folded-digits", b"Content-Length: 5\r\n 0", False),
    ("lf-before", b"X-A: 1\nContent-Length: 5", False),
    ("cr-before", b"X-A: 1\rContent-Length: 5", False),
    ("twice-alike", b"Content-Length: 5\r\nContent-Length: 5", False),
    ("twice-unlike", b"Content-Length: 5\r\nContent-Length: 0", False),
    ("twice-unlike-case", b"Content-Length: 0\r\ncontent-length: 5", False),
    ("underscore-name", b"Content_Length: 5", False),
    ("underscore-name-too", b"Content-Length: 5\r\nContent_Length: 0", False),
    ("no-colon", b"Content-Length 5", False),
    ("nul-in-name", b"Content-Le\x00ngth: 5", False),
    ("leading-zeros", b"Content-Length: 0005", True),
    ("many-spaces", b"Content-Length:     5   ", True),
    ("tab", b"Content-Length:\t5\t", True),
    ("no-space", b"Content-Length:5", True),
    ("upper-case", b"CONTENT-LENGTH: 5", True),
)
"""Ways to write a length of five, and whether it is one."""


def _lengths() -> Iterator[RequestCase]:
    """Give lengths that one reader sees and the other does not (CL.0, 0.CL), or sees differently."""
    for name, line, good in CL_VARIANTS:
        # What is 10**9 or so is a length, but the body never comes.
        expected: Expected = one("/a", b"hello", "content-length: 5") if good else bad()
        if name == "wraps-32":
            expected = Unanswered(cut=True)
        yield RequestCase(
            f"cl-{name}", "CL.0 and 0.CL", f"a length that readers could take for others: {name}", JABIYEV,
            post(line, body=b"hello"), expected,
        )  # fmt: skip
    hidden = SMUGGLED
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"POST", b"TRACE"):
        yield RequestCase(
            f"cl-0-{method.decode().lower()}", "CL.0 and 0.CL",
            "a whole request as the body, for a backend that ignores lengths where it expects none",
            KETTLE_2022, post(length(hidden), body=hidden, method=method), one("/a", hidden),
        )  # fmt: skip
    yield RequestCase(
        "cl-0-static", "CL.0 and 0.CL", "the same for a file, the usual place of CL.0", KETTLE_2022,
        post(length(hidden), body=hidden, target=b"/_nicegui/3.0/static/a.js"), one("/_nicegui/3.0/static/a.js", hidden),
    )  # fmt: skip
    yield RequestCase(
        "0-cl-early-answer", "CL.0 and 0.CL", "a length whose body comes never: the rest is no request of its own",
        KETTLE_2025, post(b"Content-Length: 500", body=hidden), Unanswered(cut=True),
    )  # fmt: skip
    yield RequestCase(
        "no-length-body", "CL.0 and 0.CL", "a body that nothing announces is the next request, and is none",
        RFC9112 + " section 6.3", post(body=b"hello=world\r\n\r\n"), bad(400, "", *one("/a")),
    )  # fmt: skip
    yield RequestCase(
        "cl-zero-with-body", "CL.0 and 0.CL", "a length of nothing, and something", KETTLE_2022,
        post(b"Content-Length: 0", body=b"x=1\r\n\r\n"), bad(400, "", *one("/a")),
    )  # fmt: skip
    yield RequestCase(
        "cl-http-1.0", "CL.0 and 0.CL", "a pipelined request behind one of HTTP/1.0, which ends its connection",
        KLEIN_2020, b"POST /a HTTP/1.0\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
        one("/a", b"hello"),
    )  # fmt: skip


CHUNKS: tuple[tuple[str, str, bytes, bytes | None, str], ...] = (
    ("plain", "nothing odd, for comparison", b"5\r\nhello\r\n0\r\n\r\n", b"hello", RFC9112),
    ("upper-case-hex", "a size in capitals", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", RFC9112),
    ("leading-zeros", "zeros before the size", b"0005\r\nhello\r\n000\r\n\r\n", b"hello", RFC9112),
    ("extension", "an extension", b"5;a=b\r\nhello\r\n0\r\n\r\n", b"hello", RFC9112),
    ("extension-quoted", "a quoted extension with a semicolon", b'5;a="b;c"\r\nhello\r\n0\r\n\r\n', b"hello", RFC9112),
    ("extension-bare", "an extension with no name", b"5;\r\nhello\r\n0\r\n\r\n", b"hello", CHUNK_EXT),
    ("extension-space", "white space before an extension", b"5 ;a\r\nhello\r\n0\r\n\r\n", b"hello", RFC9112),
    ("extension-last", "an extension of the last chunk", b"5\r\nhello\r\n0;x=y\r\n\r\n", b"hello", RFC9112),
    ("extension-size", "an extension that looks like a size", b"5;ff\r\nhello\r\n0\r\n\r\n", b"hello", CHUNK_EXT),
    ("extension-lf", "an extension that ends at a bare LF for some", b"5;\nhello\r\n0\r\n\r\n", None, CHUNK_EXT),
    ("extension-lf-inside", "a bare LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n", None, CHUNK_EXT),
    ("extension-cr-inside", "a bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", None, CHUNK_EXT),
    ("extension-nul", "a NUL in an extension", b"5;a\0b\r\nhello\r\n0\r\n\r\n", None, CHUNK_EXT),
    ("extension-long", "an extension of 9 kB", b"5;" + b"x" * 9000 + b"\r\nhello\r\n0\r\n\r\n", None, KETTLE_2025),
    ("extension-no-semicolon", "words behind a size", b"5 abc\r\nhello\r\n0\r\n\r\n", None, CHUNK_EXT),
    ("hex-prefix", "a size as 0x5", b"0x5\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("plus", "a size as +5", b"+5\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("minus", "a negative size", b"-5\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("underscore", "a size as 0_5", b"0_5\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("leading-space", "white space before a size", b" 5\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("trailing-space", "white space behind a size", b"5 \r\nhello\r\n0\r\n\r\n", b"hello", RFC9112),
    ("trailing-tab", "a tab behind a size", b"5\t\r\nhello\r\n0\r\n\r\n", b"hello", JABIYEV),
    ("vertical-tab", "a vertical tab behind a size", b"5\x0b\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("nul", "a NUL behind a size", b"5\0\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("quoted", "a size in quotes", b'"5"\r\nhello\r\n0\r\n\r\n', None, JABIYEV),
    ("empty-size", "a line that holds no size", b"\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("only-extension", "an extension without a size", b";a=b\r\nhello\r\n0\r\n\r\n", None, CHUNK_EXT),
    ("full-width", "a size in full-width digits", b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("sixteen-digits", "a size that overflows 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("wraps-to-zero", "a size whose low 64 bits are 0", b"10000000000000000\r\n\r\n", None, JABIYEV),
    ("wraps-32", "a size whose low 32 bits are 5", b"100000005\r\nhello\r\n0\r\n\r\n", b"", JABIYEV),
    ("size-lf", "a size that ends with a bare LF", b"5\nhello\r\n0\r\n\r\n", None, KETTLE_2025),
    ("size-cr", "a size that ends with a bare CR", b"5\rhello\r\n0\r\n\r\n", None, JABIYEV),
    ("size-cr-cr-lf", "a size with a CR too many", b"5\r\r\nhello\r\n0\r\n\r\n", None, JABIYEV),
    ("data-lf", "content that ends with a bare LF", b"5\r\nhello\n0\r\n\r\n", None, KETTLE_2025),
    ("data-none", "content that ends with nothing", b"5\r\nhello0\r\n\r\n", None, JABIYEV),
    ("data-cr", "content that ends with a bare CR", b"5\r\nhello\r0\r\n\r\n", None, JABIYEV),
    ("data-two-more", "any two bytes behind the content", b"5\r\nhelloXX0\r\n\r\n", None, CHUNK_EXT),
    ("data-too-short", "a size larger than the content", b"8\r\nhello\r\n0\r\n\r\n", None, LINHART),
    ("data-too-long", "a size smaller than the content", b"3\r\nhello\r\n0\r\n\r\n", None, LINHART),
    ("end-lf", "an end by bare LFs", b"5\r\nhello\r\n0\n\n", None, KETTLE_2025),
    ("end-lf-last", "a last line with a bare LF", b"5\r\nhello\r\n0\r\n\n\r\n\r\n", None, JABIYEV),
    ("end-missing", "no last line", b"5\r\nhello\r\n0\r\n", b"", RFC9112),
    ("end-early", "no last chunk", b"5\r\nhello\r\n", b"", RFC9112),
    ("trailer-bad-name", "a trailer that is no header line", b"0\r\nbad trailer\r\n\r\n", None, JABIYEV),
    ("trailer-space-colon", "white space before a trailer's colon", b"0\r\nX-A : 1\r\n\r\n", None, JABIYEV),
    ("trailer-lf", "a bare LF in a trailer", b"0\r\nX-A: 1\nX-B: 2\r\n\r\n", None, JABIYEV),
    ("trailer-cr", "a bare CR in a trailer", b"0\r\nX-A: 1\rX-B: 2\r\n\r\n", None, JABIYEV),
    ("trailer-fold", "a folded trailer", b"0\r\nX-A: 1\r\n X-B: 2\r\n\r\n", None, JABIYEV),
    ("trailer-long", "trailers of 9 kB", b"0\r\n" + b"X-A: 1\r\n" * 1200 + b"\r\n", None, KETTLE_2025),
)  # fmt: skip

_UNFINISHED = ("wraps-32", "end-missing", "end-early")

TRAILERS = (
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: evil.test", b"Authorization: Basic eDp5",
    b"X-Forwarded-For: 6.6.6.6", b"X_Forwarded_For: 6.6.6.6", b"Cookie: stickyproxy=x", b"Connection: close", b"TE: gzip",
    b"Content_Length: 5",
)  # fmt: skip
"""Fields that must not be merged from a trailer."""


def _chunks() -> Iterator[RequestCase]:
    """Give chunked bodies."""
    for name, tries, body, content, source in CHUNKS:
        expected: Expected = CUT
        if content is not None:
            expected = one("/a", content, "transfer-encoding: chunked")
        if name in _UNFINISHED:
            expected = Unanswered(cut=True)
        behind = SMUGGLED if content is None else b""
        yield RequestCase(f"chunk-{name}", "chunks", tries, source, post(CHUNKED, body=body + behind), expected)
    for line in TRAILERS:
        name = line.partition(b":")[0].decode().lower()
        yield RequestCase(
            f"trailer-{name}", "chunks", "a trailer that would count as a header", RFC9110 + " section 6.5.1",
            post(CHUNKED, body=b"5\r\nhello\r\n0\r\n" + line + b"\r\nX-Sum: 1\r\n\r\n"),
            one("/a", b"hello"),
        )  # fmt: skip
    yield RequestCase(
        "chunk-then-request", "chunks", "a request right behind the last chunk is the next one", RFC9112,
        post(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: app.test\r\n\r\n"),
        (*one("/a", b"hello"), *one("/b")),
    )  # fmt: skip


CASES = (*_cl_te(), *_te_te(), *_lengths(), *_chunks())
