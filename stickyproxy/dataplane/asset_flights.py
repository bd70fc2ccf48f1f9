"""One request for an asset at a time: the first fetches it, the others wait and are answered from the cache.

Laws: whoever waits is answered or sent on its own way when the fetch ends, however it ends; a fetch ends exactly once.
"""

from typing import TYPE_CHECKING

from stickyproxy.core.assets import Asset, AssetCache, asset_head, etag_of
from stickyproxy.core.counters import Counters
from stickyproxy.core.framing import BodyReader, body_reader
from stickyproxy.core.request import CHUNKED
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead
from stickyproxy.dataplane.watch import TappedReader

if TYPE_CHECKING:
    from stickyproxy.dataplane.sending import Sending


class AssetFlights:
    """The cache and the fetches that will fill it."""

    def __init__(self, limit_bytes: int, counters: Counters) -> None:
        self.cache = AssetCache(limit_bytes)
        self._counters = counters
        self._waiting: dict[bytes, list[Sending]] = {}

    def find(self, key: bytes) -> Asset | None:
        """Give a kept file."""
        asset = self.cache.get(key)
        if asset is not None:
            self._counters.asset_hits += 1
        return asset

    def board(self, key: bytes, exchange: "Sending") -> "Flight":
        """Begin a fetch, or wait for the one that is under way: then `flight_landed` tells the exchange of its end."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(exchange)
            return Flight(self, key, exchange, waiting=True)
        self._waiting[key] = []
        self._counters.asset_misses += 1
        return Flight(self, key, exchange, waiting=False)

    def leave(self, key: bytes, exchange: "Sending") -> None:
        """Hear that an exchange waits no more; idempotent."""
        waiting = self._waiting.get(key)
        if waiting is not None and exchange in waiting:
            waiting.remove(exchange)

    def land(self, key: bytes, asset: Asset | None) -> None:
        """End a fetch: keep the file, if there is one to keep, and let all that wait go on."""
        if asset is not None:
            self.cache.put(key, asset)
        for exchange in self._waiting.pop(key, ()):
            exchange.flight_landed(asset)


class Flight:
    """One exchange's part in a fetch: it fetches, or it is `waiting` for who does."""

    __slots__ = ("_ended", "_exchange", "_flights", "_key", "_reader", "waiting")

    def __init__(self, flights: AssetFlights, key: bytes, exchange: "Sending", *, waiting: bool) -> None:
        self.waiting = waiting
        self._flights = flights
        self._key = key
        self._exchange = exchange
        self._reader: KeepingReader | None = None
        self._ended = False

    @property
    def keeping(self) -> bool:
        """Say whether the file is coming in for the cache."""
        return self._reader is not None and not self._ended

    def keep(self, response: ResponseHead, head: bytes, *, plain: bool) -> BodyReader | None:
        """Give a reader that keeps the file, if it is one to keep (None: not); else let those go on who wait for it.

        head: the response's, without hop-by-hop lines and without its last empty line.
        """
        if self.waiting:
            return None  # the fetch it waited for brought nothing, so it fetches for itself alone
        largest, length = self._flights.cache.largest, response.length
        storable = response.status == 200 and response.shared and length not in (0, UNTIL_CLOSE) and length <= largest
        if not storable or asset_head(head, 0) is None:
            self.end()
            return None
        reader = body_reader(length, plain=plain and length == CHUNKED)
        self._reader = KeepingReader(reader, length, head, largest)
        return self._reader

    def end(self, now: float | None = None) -> None:
        """End this part; with a time (seconds, monotonic), the file that has come in whole is kept. Idempotent."""
        if self._ended:
            return
        self._ended = True
        if self.waiting:
            self._flights.leave(self._key, self._exchange)
        else:
            reader = self._reader
            self._flights.land(self._key, reader.asset(now) if reader is not None and now is not None else None)


class KeepingReader(TappedReader):
    """Keeps a copy of a body's content of up to `limit_bytes` as it passes."""

    __slots__ = ("_head", "_limit_bytes", "_pieces", "_size")

    def __init__(self, reader: BodyReader, length: int, head: bytes, limit_bytes: int) -> None:
        super().__init__(reader, length)
        self._head = head
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._size = 0

    def see(self, content: bytes) -> None:
        """Keep on until the body is too large."""
        self._size += len(content)
        self._pieces.append(content)
        if self._size > self._limit_bytes:
            self.wants_more = False
            self._pieces.clear()

    def asset(self, now: float) -> Asset | None:
        """Give the file, once the body is whole; None where it is not to be kept."""
        head = asset_head(self._head, self._size) if self.done and self.wants_more else None
        return Asset(head, b"".join(self._pieces), etag_of(head), now) if head is not None else None
