import pytest

from stickyproxy.core.framing import (
    MAX_LINE_BYTES,
    BadBodyError,
    ChunkedReader,
    LengthReader,
    UntilCloseReader,
    body_reader,
)


def read(*pieces: bytes, plain: bool = False) -> tuple[bytes, int, bool]:
    """Feed pieces one after another; give what goes on, the count of bytes taken, and whether the body is over."""
    reader = ChunkedReader(plain=plain)
    out, taken = b"", 0
    for piece in pieces:
        passed_on, count = reader.feed(piece)
        out += passed_on
        taken += count
    return out, taken, reader.done


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# Chunks (RFC 9112 section 7.1).


@pytest.mark.parametrize(
    ("written", "sent", "content"),
    [
        (b"0\r\n\r\n", b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"0A\r\n0123456789\r\n000\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b'5 ;a="b;c"\t\r\nhello\r\n0\r\n\r\n', b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5;\xe9\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"0\r\nX-Sum: 1\r\nY:\r\n\r\n", b"0\r\nX-Sum: 1\r\nY:\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_chunked_body_goes_on_plainly_and_nothing_behind_it_is_taken(
    written: bytes, sent: bytes, content: bytes, behind: bytes
) -> None:
    assert read(written + behind) == (sent, len(written), True)
    assert read(*bytewise(written + behind)) == (sent, len(written), True)
    assert read(written + behind, plain=True) == (content, len(written), True)
    assert read(*bytewise(written + behind), plain=True) == (content, len(written), True)


def test_a_chunk_goes_on_as_it_comes() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"ff") == (b"", 2)
    assert reader.feed(b"f\r\nab") == (b"fff\r\nab", 5)
    assert reader.feed(b"c") == (b"c", 1)
    assert not reader.done


def test_a_chunk_that_comes_alone_is_not_copied() -> None:
    reader = ChunkedReader()
    reader.feed(b"1000\r\n")
    piece = b"x" * 100
    assert reader.feed(piece)[0] is piece


def test_a_finished_body_takes_nothing_more() -> None:
    reader = ChunkedReader()
    reader.feed(b"0\r\n\r\n")
    assert reader.feed(b"0\r\n\r\n") == (b"", 0)
    assert reader.feed(b"") == (b"", 0)


BAD = {
    "empty size": b"\r\n",
    "no digit": b";a\r\n",
    "not hexadecimal": b"g\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "plus": b"+5\r\nhello\r\n",
    "minus": b"-5\r\nhello\r\n",
    "minus zero": b"-0\r\n\r\n",
    "underscore": b"1_0\r\n",
    "space in front": b" 5\r\nhello\r\n",
    "tab in front": b"\t5\r\nhello\r\n",
    "vertical tab in front": b"\x0b5\r\nhello\r\n",
    "space inside": b"1 0\r\n",
    "vertical tab behind": b"5\x0b\r\nhello\r\n",
    "letters behind": b"5hello\r\n",
    "comma": b"5,5\r\nhello\r\n",
    "16 digits": b"0000000000000005\r\nhello\r\n",
    "64 bits": b"FFFFFFFFFFFFFFFF\r\n",
    "over 64 bits": b"10000000000000005\r\nhello\r\n",
    "other digits": "\u0665\r\nhello\r\n".encode(),
    "bare LF": b"5\nhello\r\n",
    "bare CR": b"5\rhello\r\n",
    "CR CR LF": b"5\r\r\nhello\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n",
    "NUL in an extension": b"5;a\0b\r\nhello\r\n",
    "vertical tab in an extension": b"5;a\x0bb\r\nhello\r\n",
    "no CRLF behind a chunk": b"5\r\nhello0\r\n\r\n",
    "LF behind a chunk": b"5\r\nhello\n0\r\n\r\n",
    "CR behind a chunk": b"5\r\nhello\r0\r\n\r\n",
    "one byte too many": b"5\r\nhellox\r\n0\r\n\r\n",
    "two bytes too many": b"5\r\nhelloxx0\r\n\r\n",
    "one byte too few": b"5\r\nhell\r\n0\r\n\r\n",
    "trailer without a colon": b"0\r\nX\r\n\r\n",
    "trailer with a space before the colon": b"0\r\nX : 1\r\n\r\n",
    "trailer without a name": b"0\r\n: 1\r\n\r\n",
    "folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "bare LF in a trailer": b"0\r\nX: 1\nY: 2\r\n\r\n",
    "bare CR in a trailer": b"0\r\nX: 1\rY: 2\r\n\r\n",
    "NUL in a trailer": b"0\r\nX: \0\r\n\r\n",
    "request in place of a trailer": b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"], ids=["first", "second"])
@pytest.mark.parametrize("plain", [False, True], ids=["chunked", "plain"])
def test_a_body_whose_end_cannot_be_told_safely_is_refused(data: bytes, before: bytes, plain: bool) -> None:
    with pytest.raises(BadBodyError):
        read(before + data, plain=plain)
    with pytest.raises(BadBodyError):
        read(*bytewise(before + data), plain=plain)


@pytest.mark.parametrize("data", [b"g", b"5\n", b"-", b" ", b"0x", b"5\rx", b"5;\n", b"0" * 16, b"5 5"])
def test_what_can_never_become_a_size_is_refused_before_its_line_ends(data: bytes) -> None:
    with pytest.raises(BadBodyError):
        read(data)


FORBIDDEN = [  # RFC 9110 section 6.5.1
    b"Transfer-Encoding: chunked",
    b"content-length: 5",
    b"Host: evil",
    b"Connection: close",
    b"TE: trailers",
    b"Trailer: x",
    b"Upgrade: h2c",
    b"Cookie: a=b",
    b"Set-Cookie: a=b",
    b"Authorization: Basic x",
    b"Content-Type: text/html",
    b"Content-Encoding: gzip",
    b"Cache-Control: public",
    b"Expect: 100-continue",
    b"Forwarded: for=6.6.6.6",
    b"X-Real-IP: 6.6.6.6",
    b"X-Forwarded-For: 6.6.6.6",
    b"x_forwarded_for: 6.6.6.6",
    b"X-Forwarded-Anything: x",
    # The same spellings that are cut out of heads must not come back in by the trailer.
    b"X-Forwarded_For: 6.6.6.6",
    b"X_Real_IP: 6.6.6.6",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: close",
]


@pytest.mark.parametrize("line", FORBIDDEN)
def test_a_forbidden_trailer_is_dropped(line: bytes) -> None:
    written = b"0\r\nA: 1\r\n" + line + b"\r\nB: 2\r\n\r\n"
    assert read(written) == (b"0\r\nA: 1\r\nB: 2\r\n\r\n", len(written), True)


# Limits.


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    "data",
    [
        b"5;" + b"a" * MAX_LINE_BYTES + b"\r\nhello\r\n0\r\n\r\n",
        b"5" + b" " * MAX_LINE_BYTES + b"\r\nhello\r\n0\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * (MAX_LINE_BYTES // 6 + 1) + b"\r\n",
        b"0\r\nA: " + b"b" * MAX_LINE_BYTES + b"\r\n\r\n",
    ],
    ids=["extension", "spaces", "many trailers", "long trailer"],
)
def test_a_line_that_is_too_long_is_refused_however_it_comes(data: bytes, split: bool) -> None:
    with pytest.raises(BadBodyError):
        read(*(bytewise(data) if split else [data]))


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
def test_a_line_within_the_limit_is_read_however_it_comes(split: bool) -> None:
    data = b"5;" + b"a" * 4000 + b"\r\nhello\r\n0\r\nA: " + b"b" * 4000 + b"\r\n\r\n"
    out, taken, done = read(*(bytewise(data) if split else [data]))
    assert (taken, done) == (len(data), True)
    assert out == b"5\r\nhello\r\n0\r\nA: " + b"b" * 4000 + b"\r\n\r\n"


# The other readers.


@pytest.mark.parametrize(
    ("pieces", "passed_on", "done"),
    [
        ([b""], [(b"", 0)], False),
        ([b"ab"], [(b"ab", 2)], False),
        ([b"abcde"], [(b"abcde", 5)], True),
        ([b"abcdef"], [(b"abcde", 5)], True),
        ([b"abc", b"", b"defg", b"hi"], [(b"abc", 3), (b"", 0), (b"de", 2), (b"", 0)], True),
    ],
)
def test_a_body_of_known_length_takes_so_many_bytes(
    pieces: list[bytes], passed_on: list[tuple[bytes, int]], done: bool
) -> None:
    reader = LengthReader(5)
    assert [reader.feed(piece) for piece in pieces] == passed_on
    assert reader.done is done


def test_a_body_of_no_bytes_is_over_before_it_begins() -> None:
    reader = LengthReader(0)
    assert reader.done
    assert reader.feed(b"next") == (b"", 0)


def test_a_body_until_close_takes_everything_and_never_ends_by_itself() -> None:
    reader = UntilCloseReader()
    assert reader.feed(b"0\r\n\r\n") == (b"0\r\n\r\n", 5)
    assert reader.feed(b"more") == (b"more", 4)
    assert not reader.done


@pytest.mark.parametrize(
    ("length", "kind"), [(0, LengthReader), (7, LengthReader), (-1, ChunkedReader), (-2, UntilCloseReader)]
)
def test_the_reader_fits_the_length(length: int, kind: type) -> None:
    assert type(body_reader(length)) is kind


def test_only_a_chunked_body_is_made_plain() -> None:
    reader = body_reader(-1, plain=True)
    assert reader.feed(b"2\r\nhi\r\n0\r\n\r\n") == (b"hi", 12)
