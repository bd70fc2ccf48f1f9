"""An in-memory cache of files that their backend marks as immutable, so that a page load costs the app only its page.

Laws: bounded in bytes, the file used longest ago goes first; only whole 200 answers that are public and immutable are
kept, by address and encoding; no answer is kept with a `Set-Cookie`, which is somebody's.
Source: RFC 9111; RFC 8246 (immutable).
"""

import re
from dataclasses import dataclass

_ENTRY_SHARE = 4
"""A file that takes more than this part of the cache is not kept: it would push out all others."""

_OVERHEAD_BYTES = 512
"""Counted for each file beside its head and body: the objects that hold them."""

_IMMUTABLE = re.compile(rb"(?:\A|[\s,;])immutable(?:[\s,;]|\Z)")
_UNWANTED = re.compile(rb"\r\n(?:set-cookie|age):[^\r]*")


@dataclass(frozen=True, slots=True)
class Asset:
    """A kept answer: `head` without its last empty line, the `body` as it came, `etag` or empty, `stored` (seconds)."""

    head: bytes
    body: bytes
    etag: bytes
    stored: float

    def answer(self, now: float, if_none_match: bytes, close: bytes) -> bytes:
        """Build the response: 304 where the client has it already. close: further header lines, each behind a CRLF."""
        age = b"\r\nAge: %d" % max(0, int(now - self.stored))
        if self.etag and if_none_match and _matches(if_none_match, self.etag):
            lines = self.head.split(b"\r\n")[1:]
            kept = b"\r\n".join(line for line in lines if not line.lower().startswith(b"content-"))
            return b"HTTP/1.1 304 Not Modified\r\n%b%b%b\r\n\r\n" % (kept, age, close)
        return b"%b%b%b\r\n\r\n%b" % (self.head, age, close, self.body)

    @property
    def size(self) -> int:
        """Count the bytes it costs."""
        return len(self.head) + len(self.body) + _OVERHEAD_BYTES


def asset_head(raw: bytes, length: int) -> bytes | None:
    """Give the head to keep for an answer with a body of `length` bytes; None where it must not be kept.

    raw: the response's head without hop-by-hop lines and without its last empty line.
    """
    low = raw.lower()
    cache_control = b",".join(_values(low, b"cache-control"))
    if b"public" not in cache_control or not _IMMUTABLE.search(cache_control):
        return None
    if b"no-store" in cache_control or b"private" in cache_control:  # some middleware's line behind the app's
        return None
    # A file under NiceGUI's versioned paths does not depend on cookies; its session middleware only says so of all.
    varies = {name.strip() for value in _values(low, b"vary") for name in value.split(b",")}
    if varies - {b"", b"accept-encoding", b"cookie"}:
        return None
    kept = []
    at = 0
    for match in _UNWANTED.finditer(low):
        kept.append(raw[at : match.start()])
        at = match.end()
    kept.append(raw[at:])
    head = b"".join(kept)
    if b"\r\ncontent-length:" not in low:
        head = re.sub(rb"(?i)\r\ntransfer-encoding:[^\r]*", b"", head) + b"\r\nContent-Length: %d" % length
    return head


def etag_of(head: bytes) -> bytes:
    """Give the entity tag in a head, or nothing."""
    at = head.lower().find(b"\r\netag:")
    return head[at + 7 :].partition(b"\r\n")[0].strip() if at >= 0 else b""


class AssetCache:
    """Kept answers by key, least recently used first; `limit_bytes` bounds their sum."""

    __slots__ = ("_assets", "_limit_bytes", "size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._assets: dict[bytes, Asset] = {}
        self.size = 0

    def __len__(self) -> int:
        """Count the files."""
        return len(self._assets)

    def get(self, key: bytes) -> Asset | None:
        """Give a file and note its use."""
        asset = self._assets.pop(key, None)
        if asset is not None:
            self._assets[key] = asset
        return asset

    @property
    def largest(self) -> int:
        """Give the size (bytes) of the largest file that is kept."""
        return self._limit_bytes // _ENTRY_SHARE

    def put(self, key: bytes, asset: Asset) -> None:
        """Keep a file, and let go of others for it; one that does not fit is not kept."""
        if asset.size > self.largest:
            return
        if old := self._assets.pop(key, None):
            self.size -= old.size
        self._assets[key] = asset
        self.size += asset.size
        while self.size > self._limit_bytes:
            self.size -= self._assets.pop(next(iter(self._assets))).size


def _values(low: bytes, name: bytes) -> list[bytes]:
    return re.findall(rb"\r\n%b:([^\r]*)" % name, low)


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    """Compare weakly (RFC 9110 section 13.1.2)."""
    if if_none_match.strip() == b"*":
        return True
    wanted = etag.removeprefix(b"W/")
    return any(tag.strip().removeprefix(b"W/") == wanted for tag in if_none_match.split(b","))
