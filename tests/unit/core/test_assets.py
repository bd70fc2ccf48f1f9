import pytest

from stickyproxy.core.assets import Asset, AssetCache, asset_head, etag_of

FOREVER = b"Cache-Control: public, max-age=31536000, immutable, stale-while-revalidate=31536000"


def head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines))


# What may be kept.


@pytest.mark.parametrize(
    "lines",
    [
        (FOREVER, b"Content-Length: 5"),
        (FOREVER, b"vary: Accept-Encoding, Cookie", b"Content-Length: 5"),
        (FOREVER, b"Vary: accept-encoding", b"Vary: COOKIE", b"Content-Length: 5"),
        (b"cache-control: PUBLIC", b"cache-control: Immutable", b"Content-Length: 5"),
    ],
)
def test_what_is_public_and_immutable_is_kept_as_it_came(lines: tuple[bytes, ...]) -> None:
    assert asset_head(head(*lines), 5) == head(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Cache-Control: public, max-age=3600",),
        (b"Cache-Control: immutable, max-age=3600",),
        (b"Cache-Control: public, max-age=1, not-immutable-at-all",),
        (b"Cache-Control: public, immutablex",),
        (b"X-Cache-Control: public, immutable",),
        (FOREVER, b"Vary: Accept-Language"),
        (FOREVER, b"Vary: Accept-Encoding, Origin"),
        (FOREVER, b"Vary: *"),
    ],
)
def test_nothing_else_is_kept(lines: tuple[bytes, ...]) -> None:
    assert asset_head(head(*lines), 5) is None


@pytest.mark.parametrize("line", [b"Set-Cookie: session=x; Path=/", b"set-cookie:s=x", b"SET-COOKIE: a", b"Age: 9"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_somebodys_or_was_another_caches_is_not_kept_with_it(line: bytes, place: int) -> None:
    lines = [FOREVER, b"Content-Length: 5"]
    with_it = [*lines[:place], line, line, *lines[place:]]
    assert asset_head(head(*with_it), 5) == head(*lines)


def test_a_chunked_file_is_kept_with_its_length() -> None:
    kept = asset_head(head(b"Transfer-Encoding: chunked", FOREVER), 5)
    assert kept == head(FOREVER, b"Content-Length: 5")


@pytest.mark.parametrize(
    ("lines", "etag"),
    [((b'ETag: "a"',), b'"a"'), ((b'etag:W/"a" ', b"X: y"), b'W/"a"'), ((b'X-ETag: "a"',), b""), ((), b"")],
)
def test_the_entity_tag_is_read(lines: tuple[bytes, ...], etag: bytes) -> None:
    assert etag_of(head(*lines)) == etag


# Answers.

ASSET = Asset(head(FOREVER, b'ETag: "a"', b"Content-Length: 5", b"Content-Encoding: gzip"), b"hello", b'"a"', 100.0)


def test_a_kept_file_is_answered_with_its_age() -> None:
    assert ASSET.answer(107.9, b"", b"") == ASSET.head + b"\r\nAge: 7\r\n\r\nhello"
    assert ASSET.answer(99.0, b"", b"\r\nConnection: close") == ASSET.head + (
        b"\r\nAge: 0\r\nConnection: close\r\n\r\nhello"
    )


@pytest.mark.parametrize("asked", [b'"a"', b'W/"a"', b'"x", "a"', b'"x" ,W/"a"', b"*", b" * "])
def test_who_has_it_gets_a_304_without_a_body(asked: bytes) -> None:
    answer = ASSET.answer(100.0, asked, b"")
    assert answer == b"HTTP/1.1 304 Not Modified\r\n" + FOREVER + b'\r\nETag: "a"\r\nAge: 0\r\n\r\n'


@pytest.mark.parametrize("asked", [b'"b"', b"a", b'"ab"', b'W/"b"', b"", b"garbage"])
def test_who_has_another_one_gets_the_file(asked: bytes) -> None:
    assert ASSET.answer(100.0, asked, b"").endswith(b"\r\n\r\nhello")


def test_a_file_without_an_entity_tag_is_always_answered_whole() -> None:
    plain = Asset(head(FOREVER, b"Content-Length: 5"), b"hello", b"", 100.0)
    assert plain.answer(100.0, b"*", b"").endswith(b"\r\n\r\nhello")


# The cache.


def sized(size: int) -> Asset:
    asset = Asset(b"h", b"", b"", 0.0)
    return Asset(b"h", bytes(size - asset.size), b"", 0.0)


def test_the_file_used_longest_ago_goes_first() -> None:
    cache = AssetCache(40_000)
    for key in (b"a", b"b", b"c", b"d"):
        cache.put(key, sized(10_000))
    assert (len(cache), cache.size) == (4, 40_000)
    assert cache.get(b"a") is not None
    cache.put(b"e", sized(10_000))
    assert [key for key in (b"a", b"b", b"c", b"d", b"e") if cache.get(key)] == [b"a", b"c", b"d", b"e"]
    assert cache.size == 40_000


def test_a_file_that_would_push_out_all_others_is_not_kept() -> None:
    cache = AssetCache(40_000)
    cache.put(b"a", sized(cache.largest))
    cache.put(b"b", sized(cache.largest + 1))
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None


def test_a_file_that_comes_again_is_counted_once() -> None:
    cache = AssetCache(40_000)
    for size in (9_000, 1_000, 5_000):
        cache.put(b"a", sized(size))
        assert (len(cache), cache.size) == (1, size)


def test_any_number_of_files_stay_within_the_bound() -> None:
    cache = AssetCache(100_000)
    for number in range(1000):
        cache.put(b"%d" % number, sized(600 + number * 37 % 20_000))
        assert cache.size <= 100_000
    assert cache.size == sum(asset.size for asset in cache._assets.values())
