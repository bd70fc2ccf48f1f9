import gzip
import time
import zlib

import pytest

from stickyproxy.core.nicegui import (
    Kind,
    PageReader,
    Route,
    added,
    asks_implicitly,
    read_client_id,
    read_file,
    read_route,
    read_token,
)

ID = b"9b6076ce-e8f3-4395-99a6-f172aa38da8a"
DECOY = b"22222222-2222-4222-8222-222222222222"
TOKEN = b"AAAAAAAAAAAAAAA-"


def page(query: bytes, *, before: bytes = b"", version: bytes = b"3.18.0", prefix: bytes = b"") -> bytes:
    """Build a page as templates/index.html does; `query` is the inside of the literal."""
    return (
        b'<!DOCTYPE html>\n<html><head>%b</head><body><script type="module">\n'
        b'      const app = createApp(parseElements(String.raw`{"1":{"tag":"div"}}`), {\n'
        b'        version: "%b",\n        prefix: "%b",\n        query: {%b},\n'
        b"        extraHeaders: {},\n        transports: ['websocket', 'polling'],\n      });\n"
        b"    </script></body></html>\n" % (before, version, prefix, query)
    )


LITERALS = {
    "1.4.37": (b"'client_id': '%b'", b"1.4.37"),
    "2.24.2": (b"'client_id': '%b', 'next_message_id': 0", b"2.24.2"),
    "3.18.0": (b"'client_id': '%b', 'next_message_id': 17, 'implicit_handshake': True", b"3.18.0"),
}


# Targets.


@pytest.mark.parametrize("prefix", [b"", b"/gui", b"/a/b"])
@pytest.mark.parametrize(
    ("target", "route"),
    [
        (b"/_nicegui_ws/socket.io/?client_id=%b&EIO=4&transport=websocket" % ID, Route(Kind.SOCKET, ID)),
        (b"/_nicegui_ws/socket.io/?client_id=%b" % ID, Route(Kind.SOCKET, ID)),
        (b"/_nicegui_ws/socket.io/?EIO=4&transport=polling&t=a&client_id=%b&sid=x" % ID, Route(Kind.SOCKET, ID)),
        (b"/_nicegui_ws/socket.io/?tenant=a%%20b&z=%%7B%%27&client_id=%b&EIO=4" % ID, Route(Kind.SOCKET, ID)),
        (b"/_nicegui_ws/socket.io/?my_client_id=%b&client_id=%b" % (DECOY, ID), Route(Kind.SOCKET, ID)),
        (b"/_nicegui_ws/socket.io/?EIO=4", Route(Kind.SOCKET)),
        (b"/_nicegui_ws/socket.io/", Route(Kind.SOCKET)),
        (b"/_nicegui_ws/socket.io/?client_id=", Route(Kind.SOCKET)),
        (b"/_nicegui_ws/socket.io/?client_id=%%2e%b" % ID, Route(Kind.SOCKET)),
        (b"/_nicegui_ws/socket.io/?client_id=" + b"a" * 65, Route(Kind.SOCKET)),
        (b"/_nicegui/client/%b/upload/6" % ID, Route(Kind.CLIENT, ID)),
        (b"/_nicegui/client/%b/upload/6?client_id=%b" % (ID, DECOY), Route(Kind.CLIENT, ID)),
        (b"/_nicegui/3.18.0/static/nicegui.js", Route(Kind.ASSET, version=b"3.18.0")),
        (b"/_nicegui/3.0.0rc1/esm/x/y.js?a=b", Route(Kind.ASSET, version=b"3.0.0rc1")),
        (b"/_nicegui/2.24.2.dev1+local/components/8360cd/table.js", Route(Kind.ASSET, version=b"2.24.2.dev1+local")),
        (b"/_nicegui/auto/static/0123/name.png", None),
        (b"/_nicegui/auto/media/0123/name.mp4", None),
        (b"/_nicegui/client/", None),
        (b"/_nicegui/3.18.0", None),
        (b"/", None),
        (b"/page?next=/_nicegui/3.18.0/static/x", None),
        (b"/page?next=/_nicegui_ws/&client_id=%b" % ID, None),
        (b"/page?client_id=%b" % ID, None),
    ],
)
def test_a_target_says_what_it_is_for_wherever_the_app_is_mounted(
    prefix: bytes, target: bytes, route: Route | None
) -> None:
    assert read_route(prefix + target) == route


def test_a_target_of_the_longest_head_is_read_in_linear_time() -> None:
    for filler in (b"client_id=&", b"/_nicegui_ws/", b"/_nicegui/", b"&"):
        long = b"/_nicegui_ws/?" + filler * (65536 // len(filler))
        assert read_route(long) is not None


@pytest.mark.parametrize(
    ("target", "token"),
    [
        (b"/?_stickyproxy=%b" % TOKEN, TOKEN),
        (b"/_nicegui_ws/socket.io/?_stickyproxy=%b&client_id=%b&EIO=4" % (TOKEN, ID), TOKEN),
        (b"/?a=b&_stickyproxy=%b" % TOKEN, TOKEN),
        (b"/?x_stickyproxy=%b" % TOKEN, None),
        (b"/?_stickyproxy=", None),
        (b"/?_stickyproxy=a%2fb", None),
        (b"/?_stickyproxy=" + b"a" * 65, None),
        (b"/_stickyproxy=%b" % TOKEN, None),
        (b"/", None),
    ],
)
def test_a_token_is_read_from_the_query_alone(target: bytes, token: bytes | None) -> None:
    assert read_token(target) == token


# The literal.


@pytest.mark.parametrize(
    ("literal", "found"),
    [
        (b"'client_id': 'abc'}", b"abc"),
        (b"'client_id': 'abc', 'next_message_id': 0, 'implicit_handshake': True}", b"abc"),
        (b"'a': 'client_id', 'b': 'decoy', 'client_id': 'abc'}", b"abc"),
        (b"'client_id': 'abc', 'a': 'client_id', 'b': 'decoy'}", b"abc"),
        (b"'n': {'client_id': 'decoy'}, 'client_id': 'abc'}", b"abc"),
        (b"'client_id': 'abc', 'n': {'client_id': 'decoy'}}", b"abc"),
        (b"'n': [{'client_id': 'decoy'}, ('client_id', 'decoy')], 'client_id': 'abc'}", b"abc"),
        (b"'n': ['client_id', 'decoy'], 'client_id': 'abc'}", b"abc"),
        (b"'q': '}\"{', 'r': \"'}\", 'client_id': 'abc'}", b"abc"),
        (b"'q': '\\'client_id\\': \\'decoy\\'', 'client_id': 'abc'}", b"abc"),
        (b"'q': '\\\\', 'client_id': 'abc'}", b"abc"),
        (b"'q': '\\\\\\'}', 'client_id': 'abc'}", b"abc"),
        (b"'q': \"it's, 'client_id': 'decoy'\", 'client_id': 'abc'}", b"abc"),
        (b"'': 'client_id', 'x': 'decoy', 'client_id': 'abc'}", b"abc"),
        (b"1: 'client_id', 2: 'decoy', 'client_id': 'abc'}", b"abc"),
        (b"None: None, 'f': 1.5e-07, 'b': b'x', 'client_id': 'abc'}", b"abc"),
        (b"'e': '\xc3\xa9 \xe2\x82\xac', 'client_id': 'abc'}", b"abc"),
        (b"'client_id': 'abc'}, 'client_id': 'behind'}", b"abc"),
        (b"}", b""),
        (b"'client_id': 5}", b""),
        (b"'client_id': 'not an id'}", b""),
        (b"'a': {'client_id': 'decoy'}}", b""),
        (b"", None),
        (b"'client_id': 'abc'", None),
        (b"'client_id': 'ab", None),
        (b"'n': {'client_id': 'abc'}", None),
        (b"'q': '}\\'", None),
    ],
)
def test_the_client_id_is_the_value_of_the_outermost_key_alone(literal: bytes, found: bytes | None) -> None:
    assert read_client_id(literal) == found


@pytest.mark.parametrize("end", [b"", b"}"])
def test_a_long_literal_is_read_in_linear_time(end: bytes) -> None:
    for filler in (b"'a': '\\\\', ", b"[", b"''", b"{}", b"\\", b", ", b"'\\"):
        read_client_id(filler * (16384 // len(filler)) + end)


# Pages.


def read(content: bytes, encoding: bytes = b"", token: bytes | None = None, size: int = 0) -> tuple[PageReader, bytes]:
    """Feed content in pieces of `size` (0: whole); give the reader and what it gave back."""
    reader = PageReader(encoding, added(token) if token else b"")
    size = size or len(content) or 1
    out = b"".join(reader.feed(content[at : at + size]) for at in range(0, len(content), size))
    return reader, out + reader.end()


@pytest.mark.parametrize("version", LITERALS)
@pytest.mark.parametrize("prefix", [b"", b"/gui"])
def test_a_page_of_every_version_is_read(version: str, prefix: bytes) -> None:
    literal, number = LITERALS[version]
    reader, out = read(page(literal % ID, version=number, prefix=prefix))
    assert (reader.page, reader.version, out) == (ID, number, b"")


DECOYS = {
    "the line itself": b"\n        query: {'client_id': '%b'},\n" % DECOY,
    "an element's text": b"{\"text\":\"query: {'client_id': '%b'},\"}" % DECOY,
    "an element's text with a line break": b"{\"text\":\"\\n        query: {'client_id': '%b'},\"}" % DECOY,
    "all but the backtick": b"), {\n  version: \"1.0\",\n  prefix: \"\",\n  query: {'client_id': '%b'}," % DECOY,
    "without a version": b"`), {\n        prefix: \"\",\n        query: {'client_id': '%b'},\n" % DECOY,
    "the start of an anchor": b'`), {\n        version: "1.0",\n        prefix: "',
}


@pytest.mark.parametrize("decoy", DECOYS.values(), ids=DECOYS.keys())
@pytest.mark.parametrize("size", [0, 1, 7])
def test_what_an_app_writes_before_it_is_not_taken_for_it(decoy: bytes, size: int) -> None:
    content = page(LITERALS["3.18.0"][0] % ID, before=decoy)
    reader, out = read(content, token=TOKEN, size=size)
    assert (reader.page, reader.version) == (ID, b"3.18.0")
    assert out == page(added(TOKEN) + LITERALS["3.18.0"][0] % ID, before=decoy)


@pytest.mark.parametrize("encoding", [b"", b"gzip", b"deflate"])
def test_a_page_is_given_back_with_its_token_in_the_encoding_it_came_in(encoding: bytes) -> None:
    content = page(LITERALS["3.18.0"][0] % ID, before=b"x" * 5000)
    encode = {b"": bytes, b"gzip": gzip.compress, b"deflate": zlib.compress}[encoding]
    decode = {b"": bytes, b"gzip": gzip.decompress, b"deflate": zlib.decompress}[encoding]
    reader, out = read(encode(content), encoding, TOKEN, 100)
    assert reader.page == ID
    assert decode(out) == content.replace(b"query: {", b"query: {" + added(TOKEN))


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"x" * 5000, page(b"")[:-200], page(b"'client_id': 'abc")])
@pytest.mark.parametrize("size", [0, 1])
def test_what_is_not_a_whole_page_is_given_back_whole(content: bytes, size: int) -> None:
    content = content[: content.find(b"},\n        extraHeaders")] if b"query: {" in content else content
    reader, out = read(content, token=TOKEN, size=size)
    assert (reader.page, out) == (b"", content)


def test_a_literal_without_an_end_is_held_up_to_a_bound() -> None:
    reader = PageReader(b"", added(TOKEN))
    content = page(b"'client_id': '" + b"x" * 100_000)
    out = b""
    most = 0
    for at in range(0, len(content), 1000):
        out += reader.feed(content[at : at + 1000])
        most = max(most, at + 1000 - len(out))
    assert reader.page == b""
    assert most < 20_000
    assert (out + reader.end()).replace(added(TOKEN), b"") == content


def test_a_page_is_held_no_longer_than_an_anchor_can_be() -> None:
    reader = PageReader(b"", added(TOKEN))
    given = sum(len(reader.feed(b"x" * 100)) for _ in range(100))
    assert given >= 10_000 - 2048


def test_the_first_of_two_pages_in_one_document_is_the_one() -> None:
    """A second one can only be text behind the real one."""
    both = page(LITERALS["3.18.0"][0] % ID) + page(LITERALS["3.18.0"][0] % DECOY)
    reader, out = read(both, token=TOKEN)
    assert reader.page == ID
    assert out.count(added(TOKEN)) == 1


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_what_cannot_be_decoded_is_not_read_and_no_error(encoding: bytes) -> None:
    reader, out = read(page(LITERALS["3.18.0"][0] % ID), encoding, size=50)
    assert (reader.page, out) == (b"", b"")


@pytest.mark.parametrize(
    ("encoding", "readable"),
    [(b"", True), (b"gzip", True), (b"deflate", True), (b"br", False), (b"zstd", False), (b"gzip, br", False)],
)
def test_only_what_the_standard_library_can_decode_is_read(encoding: bytes, readable: bool) -> None:
    assert PageReader.can_read(encoding) is readable


def test_a_page_in_two_gzip_members_is_not_cut_short() -> None:
    """RFC 1952 section 2.2: a file is a series of members."""
    content = page(LITERALS["3.18.0"][0] % ID, before=b"x" * 3000)
    _, out = read(gzip.compress(content[:2000]) + gzip.compress(content[2000:]), b"gzip", TOKEN)
    assert gzip.decompress(out).replace(added(TOKEN), b"") == content


@pytest.mark.parametrize("size", [0, 100])
def test_padding_behind_a_gzip_stream_is_no_fault(size: int) -> None:
    """Browsers and gunzip pass over it."""
    content = page(LITERALS["3.18.0"][0] % ID, before=b"x" * 3000)
    reader, out = read(gzip.compress(content) + bytes(80), b"gzip", TOKEN, size)
    assert reader.page == ID
    assert gzip.decompress(out) == content.replace(b"query: {", b"query: {" + added(TOKEN))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("filler", [b"\n", b" ", b" \n", b"\t", b"`), {\n", b'`), {\n version: "1",\n prefix: "'])
def test_a_page_is_searched_in_linear_time(filler: bytes) -> None:
    """The event loop stands still meanwhile, for all visitors."""
    reader = PageReader(b"")
    start = time.process_time()
    reader.feed(b"`), {" + filler * (65536 // len(filler)))
    assert time.process_time() - start < 1


# The files that a page shows.


@pytest.mark.parametrize("size", [0, 1, 50])
def test_the_files_that_a_page_shows_are_found_wherever_they_stand(size: int) -> None:
    before = (
        b'{"1":{"props":{"src":"/_nicegui/auto/static/1a2b/a%20b.png"}},'
        b'"2":{"props":{"src":"/gui/_nicegui/auto/media/3c/tone.wav?t=1"}},'
        b'"3":{"props":{"innerHTML":"&lt;img src=\\"/_nicegui/auto/static/5e/c.svg\\"&gt;"}},'
        b'"4":{"text":"url(/_nicegui/auto/static/6f/d.webp) /_nicegui/auto/static/1a2b/a%20b.png "}}'
    )
    reader, _ = read(page(LITERALS["3.18.0"][0] % ID, before=before), size=size)
    assert reader.files == {
        b"/_nicegui/auto/static/1a2b/a%20b.png",
        b"/_nicegui/auto/media/3c/tone.wav",
        b"/_nicegui/auto/static/5e/c.svg",
        b"/_nicegui/auto/static/6f/d.webp",
    }


def test_a_page_of_very_many_files_is_searched_up_to_a_bound() -> None:
    before = b" ".join(b"/_nicegui/auto/static/%d/a.png " % number for number in range(10_000))
    reader, _ = read(page(LITERALS["3.18.0"][0] % ID, before=before))
    assert 1000 <= len(reader.files) <= 2000


@pytest.mark.parametrize("prefix", [b"", b"/gui", b"/a/b"])
@pytest.mark.parametrize("query", [b"", b"?", b"?a=/_nicegui/auto/b"])
def test_a_file_is_known_by_its_path_without_prefix_and_query(prefix: bytes, query: bytes) -> None:
    assert read_file(prefix + b"/_nicegui/auto/static/1/a.png" + query) == b"/_nicegui/auto/static/1/a.png"


def test_a_page_that_has_a_token_can_be_read_and_given_another() -> None:
    """As with a proxy before a proxy."""
    once = page(added(b"INNER") + LITERALS["3.18.0"][0] % ID)
    reader, out = read(once, token=TOKEN)
    assert reader.page == ID
    assert out == once.replace(b"query: {", b"query: {" + added(TOKEN))


@pytest.mark.parametrize(
    ("target", "implicit"),
    [
        (b"/_nicegui_ws/socket.io/?client_id=a&implicit_handshake=true&EIO=4", True),
        (b"/_nicegui_ws/socket.io/?client_id=a&implicit_handshake=false&EIO=4", False),
        (b"/_nicegui_ws/socket.io/?client_id=a&EIO=4", False),
    ],
)
def test_how_a_page_asks_for_its_handshake_stands_in_the_query(target: bytes, implicit: bool) -> None:
    assert asks_implicitly(target) is implicit
