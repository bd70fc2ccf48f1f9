"""Pages: however the bytes are split and encoded, the same page is read, and only the token is added."""

import gzip
import zlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.core.framing import body_reader
from stickyproxy.core.nicegui import PageReader, added, read_client_id, read_route, read_token
from stickyproxy.core.request import CHUNKED
from stickyproxy.dataplane.watch import TokenReader, WatchedReader

ID = "9b6076ce-e8f3-4395-99a6-f172aa38da8a"
DECOY = "22222222-2222-4222-8222-222222222222"
TOKEN = b"AAAAAAAAAAAAAAA-"
ADDED = added(TOKEN)
ENCODINGS = st.sampled_from([b"", b"gzip", b"deflate"])

NASTY = ["client_id", "'", '"', "\\", "{", "}", "'}", "\\'", "},\n", "`), {\n", "query: {", "é", "\n", DECOY, ""]
TEXTS = st.one_of(
    st.sampled_from(NASTY), st.lists(st.sampled_from(NASTY), max_size=4).map("".join), st.text(max_size=8)
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.booleans(), st.none(), st.floats(), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(TEXTS, inner, max_size=3),
        inner.map(lambda value: {"client_id": value}),
    ),
    max_leaves=6,
)


@st.composite
def queries(draw: st.DrawFn) -> dict[object, object]:
    """Draw what stands in `query: {...}`: the app's own parameters, then NiceGUI's, which replace them."""
    theirs = draw(st.dictionaries(st.one_of(TEXTS, st.integers(0, 9)), VALUES, max_size=4))
    return {**theirs, "client_id": ID, "next_message_id": draw(st.integers(0, 99)), "implicit_handshake": True}


BEFORE = st.lists(
    st.one_of(
        st.sampled_from(
            [
                f"\n        query: {{'client_id': '{DECOY}'}},\n",
                f"{{\"text\":\"query: {{'client_id': '{DECOY}'}},\"}}",
                '`), {\n        version: "1.0",\n        prefix: "',
                f"), {{\n  version: \"1.0\",\n  prefix: \"\",\n  query: {{'client_id': '{DECOY}'}},\n",
                "`), {\n",
                "x" * 1000,
                " " * 700,
                "\n" * 700,
            ]
        ),
        st.text(max_size=20),
    ),
    max_size=5,
).map(lambda parts: "".join(parts).encode("utf-8", "replace") + b"!")


@st.composite
def pages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a page; gives what stands before the place of the token, and what stands behind it."""
    prefix = draw(st.sampled_from([b"", b"/gui", b"/" + b"p" * 200]))
    before = b'<html>%b<script>parseElements(String.raw`{}`), {\n        version: "3.18.0",\n' % draw(BEFORE)
    literal = repr(draw(queries()))[1:].encode("utf-8", "surrogatepass")
    after = draw(st.sampled_from([b"", b"x" * 2000, b"\n        query: {'client_id': '%b'},\n" % DECOY.encode()]))
    return (
        before + b'        prefix: "%b",\n        query: {' % prefix,
        literal + b",\n        extraHeaders: {},\n</script>" + after + b"</html>",
    )


PAGES = pages()
CUTS = st.lists(st.integers(0, 100_000), max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def encode(content: bytes, encoding: bytes, level: int = 6) -> bytes:
    if not encoding:
        return content
    encoder = zlib.compressobj(level, zlib.DEFLATED, 31 if encoding == b"gzip" else 15)
    return encoder.compress(content) + encoder.flush()


def decode(data: bytes, encoding: bytes) -> bytes:
    """Decode strictly: to the stream's end, its sum checked, and with nothing behind it."""
    if not encoding:
        return data
    decoder = zlib.decompressobj(31 if encoding == b"gzip" else 15)
    content = decoder.decompress(data)
    assert decoder.eof
    assert not decoder.unused_data
    return content


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def read(parts: list[bytes], encoding: bytes, token: bytes | None) -> tuple[bytes, bytes, bytes]:
    reader = PageReader(encoding, added(token) if token else b"")
    out = b"".join(reader.feed(part) for part in parts) + reader.end()
    return reader.page, reader.version, out


@given(PAGES, ENCODINGS, CUTS, st.integers(0, 9))
def test_a_split_changes_nothing_of_what_is_read(
    page: tuple[bytes, bytes], encoding: bytes, cuts: list[int], level: int
) -> None:
    data = encode(b"".join(page), encoding, level)
    expected = (ID.encode(), b"3.18.0", b"")
    assert read([data], encoding, None) == expected
    assert read(pieces(data, cuts), encoding, None) == expected
    if len(data) < 2000:
        assert read(bytewise(data), encoding, None) == expected


@given(PAGES, ENCODINGS, CUTS)
def test_what_comes_out_is_what_went_in_with_the_token_once(
    page: tuple[bytes, bytes], encoding: bytes, cuts: list[int]
) -> None:
    data = encode(b"".join(page), encoding)
    splits = [[data], pieces(data, cuts)] + ([bytewise(data)] if len(data) < 2000 else [])
    for parts in splits:
        found, _, out = read(parts, encoding, TOKEN)
        assert found == ID.encode()
        assert decode(out, encoding) == page[0] + ADDED + page[1]


@given(PAGES, ENCODINGS, CUTS, st.booleans(), st.booleans())
def test_a_page_in_any_framing_leaves_whole(
    page: tuple[bytes, bytes], encoding: bytes, cuts: list[int], came_chunked: bool, plain: bool
) -> None:
    content = encode(b"".join(page), encoding)
    data = content
    if came_chunked:
        data = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces(content, cuts[:3])) + b"0\r\n\r\n"
    found: list[PageReader] = []
    length = CHUNKED if came_chunked else len(content)
    reader = TokenReader(body_reader(length, plain=True), PageReader(encoding, added(TOKEN)), found.append, plain=plain)
    out, taken = b"", 0
    for part in pieces(data, cuts):
        passed_on, count = reader.feed(part)
        out, taken = out + passed_on, taken + count
    assert taken == len(data)
    assert reader.done
    if not plain:
        dechunker = body_reader(CHUNKED, plain=True)
        out, taken = dechunker.feed(out)
        assert dechunker.done
    assert decode(out, encoding) == page[0] + ADDED + page[1]
    assert [p.page for p in found] == [ID.encode()]


@given(queries())
def test_the_client_id_is_what_python_would_find(query: dict[object, object]) -> None:
    literal = repr(query)[1:].encode("utf-8", "surrogatepass")
    assert read_client_id(literal) == ID.encode()
    assert read_client_id(literal[:-1]) is None


@given(queries())
def test_without_its_key_no_client_id_is_found(query: dict[object, object]) -> None:
    del query["client_id"]
    assert read_client_id(repr(query)[1:].encode("utf-8", "surrogatepass")) == b""


@given(st.one_of(st.binary(max_size=3000), PAGES.map(lambda page: page[0]), PAGES.map(b"".join)), ENCODINGS, CUTS)
def test_a_watched_body_goes_on_untouched_whatever_it_is(data: bytes, encoding: bytes, cuts: list[int]) -> None:
    reader = WatchedReader(body_reader(len(data)), len(data), PageReader(encoding), lambda _: None)
    assert b"".join(reader.feed(part)[0] for part in pieces(data, cuts)) == data


@given(st.one_of(st.binary(max_size=3000), PAGES.map(b"".join)), st.sampled_from([b"gzip", b"deflate"]), CUTS)
def test_what_cannot_be_decoded_passes_untouched_without_a_token(data: bytes, encoding: bytes, cuts: list[int]) -> None:
    data = b"\xff" + data  # neither gzip (RFC 1952 section 2.3.1) nor zlib (RFC 1950 section 2.2) begins so
    reader = TokenReader(
        body_reader(len(data), plain=True), PageReader(encoding, added(TOKEN)), lambda _: None, plain=True
    )
    assert b"".join(reader.feed(part)[0] for part in pieces(data, cuts)) == data
    assert reader.done


@given(st.binary(max_size=3000), CUTS)
def test_what_is_no_page_is_given_back_as_it_is(data: bytes, cuts: list[int]) -> None:
    assert read(pieces(data, cuts), b"", TOKEN) == (b"", b"", data)
    compressed = gzip.compress(data)
    assert decode(read(pieces(compressed, cuts), b"gzip", TOKEN)[2], b"gzip") == data


@given(st.binary(max_size=200), st.sampled_from([b"", b"/_nicegui_ws/", b"/_nicegui/", b"/?_stickyproxy="]))
def test_any_target_is_read(target: bytes, start: bytes) -> None:
    route, token = read_route(start + target), read_token(start + target)
    for found in (route.page if route else b"", route.version if route else b"", token or b""):
        assert found in target
        assert not set(found) & set(b"/?&#=\r\n ")
