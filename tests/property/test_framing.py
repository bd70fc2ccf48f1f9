"""Chunked bodies: however the bytes are split, the same goes on; and h11 finds the same content and the same end."""

from itertools import pairwise

import h11
from hypothesis import assume, given
from hypothesis import strategies as st

from stickyproxy.core.framing import BadBodyError, BodyReader, ChunkedReader, LengthReader, body_reader

from .heads import mutations

Outcome = tuple[bytes, int, bool] | None
"""What goes on, the count of bytes taken, whether the body is over; None where it is refused."""

EXTENSIONS = [b"", b"", b"", b";", b";a", b";a=b", b' ;a="b;c"', b" ", b"\t", b";\xe9"]
TRAILERS = [b"X-Sum: 1", b"x:", b"Content-Length: 5", b"Host: evil", b"X-Forwarded-For: 6.6.6.6", b"Set-Cookie: a=b"]


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a valid chunked body; gives its content and its bytes."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    written = b""
    for chunk in [*chunks, b""]:
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"000%X"])) % len(chunk)
        written += size + draw(st.sampled_from(EXTENSIONS)) + b"\r\n"
        written += chunk + b"\r\n" if chunk else b""
    trailers = draw(st.lists(st.sampled_from(TRAILERS), max_size=2))
    return b"".join(chunks), written + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"


BODIES = chunked_bodies()
ANY_BYTES = st.one_of(
    BODIES.map(lambda body: body[1]),
    BODIES.flatmap(lambda body: mutations(body[1])),
    st.lists(st.sampled_from([b"0", b"5", b"a", b"\r\n", b"\r", b"\n", b";", b" ", b"x: y", b"-"]), max_size=12).map(
        b"".join
    ),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def outcome(reader: BodyReader, parts: list[bytes]) -> Outcome:
    out, taken = b"", 0
    try:
        for part in parts:
            passed_on, count = reader.feed(part)
            assert 0 <= count <= len(part)
            assert count == len(part) or reader.done, "what is not taken lies behind the end"
            out += passed_on
            taken += count
    except BadBodyError:
        return None
    return out, taken, reader.done


CUTS = st.lists(st.integers(0, 1000), max_size=6)


@given(ANY_BYTES, CUTS, st.booleans())
def test_a_split_changes_nothing(data: bytes, cuts: list[int], plain: bool) -> None:
    whole = outcome(ChunkedReader(plain=plain), [data])
    assert outcome(ChunkedReader(plain=plain), pieces(data, cuts)) == whole
    assert outcome(ChunkedReader(plain=plain), [data[at : at + 1] for at in range(len(data))]) == whole


@given(BODIES, st.binary(max_size=20), CUTS)
def test_a_valid_body_is_read_to_its_end_and_no_further(
    body: tuple[bytes, bytes], behind: bytes, cuts: list[int]
) -> None:
    content, written = body
    assert outcome(ChunkedReader(plain=True), pieces(written + behind, cuts)) == (content, len(written), True)
    read = outcome(ChunkedReader(), pieces(written + behind, cuts))
    assert read is not None
    assert read[1:] == (len(written), True)


@given(ANY_BYTES, CUTS)
def test_what_goes_on_has_the_same_content_and_needs_no_more_cleaning(data: bytes, cuts: list[int]) -> None:
    read = outcome(ChunkedReader(), pieces(data, cuts))
    assume(read is not None)
    assert read is not None
    out, _, done = read
    assert outcome(ChunkedReader(), [out]) == (out, len(out), done)
    content = outcome(ChunkedReader(plain=True), [data])
    assert content is not None
    again = outcome(ChunkedReader(plain=True), [out])
    assert again is not None
    assert again[0] == content[0]


def heard_by_h11(data: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """Give the content that h11 reads, what it leaves, and the names of the trailers."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert isinstance(server.next_event(), h11.Request)
    content = b""
    while isinstance(event := server.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage), event
    return content, server.trailing_data[0], [name for name, _ in event.headers]


@given(ANY_BYTES)
def test_h11_finds_the_same_content_and_the_same_end(data: bytes) -> None:
    plain = outcome(ChunkedReader(plain=True), [data + b"NEXT"])
    assume(plain is not None and plain[2])
    assert plain is not None
    content, taken, _ = plain
    # h11 does not know every byte that RFC 9112 section 7.1.1 allows in an extension, so it reads what goes on, too.
    read = outcome(ChunkedReader(), [data + b"NEXT"])
    assert read is not None
    out = read[0]
    heard, behind, trailers = heard_by_h11(out + b"NEXT")
    assert (heard, behind) == (content, b"NEXT")
    assert not set(trailers) & {b"content-length", b"host", b"x-forwarded-for", b"set-cookie", b"transfer-encoding"}
    if b";" not in data and b"content-length" not in data.lower():  # of which h11 refuses a bad one even as a trailer
        assert heard_by_h11(data + b"NEXT")[:2] == (content, (data + b"NEXT")[taken:])


@given(st.integers(0, 50), st.binary(max_size=80), CUTS)
def test_a_body_of_known_length_takes_exactly_that(length: int, data: bytes, cuts: list[int]) -> None:
    expected = data[:length]
    assert outcome(LengthReader(length), pieces(data, cuts)) == (expected, len(expected), len(data) >= length)


@given(st.binary(max_size=80), CUTS)
def test_a_body_until_close_takes_everything(data: bytes, cuts: list[int]) -> None:
    assert outcome(body_reader(-2), pieces(data, cuts)) == (data, len(data), False)
