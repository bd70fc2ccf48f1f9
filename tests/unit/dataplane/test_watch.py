"""Body readers that show a page to its reader: what goes on, and when the page is told."""

import gzip
import zlib

import pytest

from stickyproxy.core.framing import BadBodyError, body_reader
from stickyproxy.core.nicegui import PageReader, added
from stickyproxy.core.request import CHUNKED
from stickyproxy.core.response import UNTIL_CLOSE
from stickyproxy.dataplane.watch import PollReader, TokenReader, WatchedReader

ID = b"9b6076ce-e8f3-4395-99a6-f172aa38da8a"
TOKEN = b"AAAAAAAAAAAAAAA-"
ADDED = added(TOKEN)
HTML = (
    b"<html>%b<script>createApp(parseElements(String.raw`{}`), {\n"
    b'        version: "3.18.0",\n        prefix: "",\n'
    b"        query: {'client_id': '%b', 'next_message_id': 0},\n</script>%b</html>"
) % (b"x" * 1500, ID, b"y" * 1500)


def chunked(content: bytes, size: int = 999) -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def watched(length: int, encoding: bytes = b"", *, plain: bool = False) -> tuple[WatchedReader, list[PageReader]]:
    found: list[PageReader] = []
    reader = body_reader(length, plain=plain)
    return WatchedReader(reader, length, PageReader(encoding), found.append), found


def with_token(length: int, encoding: bytes = b"", *, plain: bool = False) -> tuple[TokenReader, list[PageReader]]:
    found: list[PageReader] = []
    inner = body_reader(length, plain=True)
    return TokenReader(inner, PageReader(encoding, added(TOKEN)), found.append, plain=plain), found


def feed(reader: WatchedReader | TokenReader, data: bytes, size: int) -> tuple[bytes, int]:
    """Feed in pieces up to the body's end; give what goes on and the count of bytes taken."""
    out, taken = b"", 0
    for at in range(0, len(data), size):
        passed_on, count = reader.feed(data[at : at + size])
        out, taken = out + passed_on, taken + count
        if reader.done:
            break
    return out, taken


SIZES = [1, 7, 1000, 100_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoding", [b"", b"gzip", b"deflate"])
@pytest.mark.parametrize("framing", ["length", "chunked", "plain", "close"])
def test_a_watched_page_goes_on_untouched_and_is_told_once(framing: str, encoding: bytes, size: int) -> None:
    content = {b"": bytes, b"gzip": gzip.compress, b"deflate": zlib.compress}[encoding](HTML)
    data = chunked(content) if framing in ("chunked", "plain") else content
    length = {"length": len(content), "close": UNTIL_CLOSE}.get(framing, CHUNKED)
    reader, found = watched(length, encoding, plain=framing == "plain")
    behind = b"" if framing == "close" else b"HTTP/1.1"
    out, taken = feed(reader, data + behind, size)
    assert (out, taken) == (content if framing == "plain" else data, len(data))
    assert reader.done is (framing != "close")
    assert [page.page for page in found] == [ID]
    assert found[0].version == b"3.18.0"


def test_a_watched_page_is_told_as_soon_as_its_id_is_there() -> None:
    """Its socket may come before its last byte."""
    reader, found = watched(len(HTML))
    reader.feed(HTML[: HTML.index(b"</script>")])
    assert [page.page for page in found] == [ID]
    assert not reader.done


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
@pytest.mark.parametrize("data", [HTML, gzip.compress(HTML)[:100] + b"\0" * 500, bytes(300)])
def test_a_watched_body_that_cannot_be_decoded_goes_on_untouched(encoding: bytes, data: bytes) -> None:
    reader, found = watched(len(data), encoding)
    assert feed(reader, data, 50) == (data, len(data))
    assert found == []


def test_a_body_that_is_not_validly_chunked_is_refused() -> None:
    for reader, _ in (watched(CHUNKED), with_token(CHUNKED)):
        with pytest.raises(BadBodyError):
            reader.feed(b"5\r\nhello!!")


def dechunked(data: bytes) -> bytes:
    reader = body_reader(CHUNKED, plain=True)
    content, taken = reader.feed(data)
    assert reader.done
    assert taken == len(data)
    return content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoding", [b"", b"gzip", b"deflate"])
@pytest.mark.parametrize("came", ["length", "chunked"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_page_leaves_with_its_token_and_a_whole_body(came: str, encoding: bytes, size: int, plain: bool) -> None:
    content = {b"": bytes, b"gzip": gzip.compress, b"deflate": zlib.compress}[encoding](HTML)
    data = content if came == "length" else chunked(content)
    reader, found = with_token(CHUNKED if came == "chunked" else len(content), encoding, plain=plain)
    out, taken = feed(reader, data + b"HTTP/1.1", size)
    assert taken == len(data)
    assert reader.done
    body = out if plain else dechunked(out)
    body = {b"": bytes, b"gzip": gzip.decompress, b"deflate": zlib.decompress}[encoding](body)
    assert body.count(ADDED) == 1
    assert body.replace(ADDED, b"") == HTML
    assert [page.page for page in found] == [ID]


def test_no_chunk_of_nothing_ends_a_page_too_early() -> None:
    reader, _ = with_token(len(HTML))
    for at in range(len(HTML) - 1):
        out, _ = reader.feed(HTML[at : at + 1])
        assert not out.endswith(b"0\r\n\r\n")


RAW_DEFLATE = (lambda c: c.compress(HTML) + c.flush())(zlib.compressobj(wbits=-15))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("encoding", "data"),
    [(b"gzip", HTML), (b"deflate", HTML), (b"deflate", RAW_DEFLATE), (b"gzip", b"\x1f\x8b" + b"\xff" * 500)],
    ids=["not gzip", "not deflate", "deflate without its wrapping", "a broken gzip head"],
)
def test_a_page_that_cannot_be_decoded_leaves_untouched_and_without_a_token(
    encoding: bytes, data: bytes, size: int
) -> None:
    """Browsers read bare deflate under this name too; what works without tokens must not break with them."""
    reader, found = with_token(len(data), encoding, plain=True)
    assert feed(reader, data, size) == (data, len(data))
    assert found == []


# Polls.


@pytest.mark.parametrize("size", [1, 5, 100])
def test_the_answer_to_a_poll_is_passed_on_once_it_is_whole(size: int) -> None:
    told: list[bytes] = []

    def read(payload: bytes) -> bytes:
        told.append(payload)
        return payload.upper()

    reader = PollReader(body_reader(10), read)
    data = b"abcdefghijnext"
    out, at = b"", 0
    while not reader.done:
        piece, taken = reader.feed(data[at : at + size])
        assert piece in (b"", b"ABCDEFGHIJ")
        out += piece
        at += taken
    assert (out, at, told) == (b"ABCDEFGHIJ", 10, [b"abcdefghij"])
