"""Notice a page that reloads again and again, so that its visitor is told instead of being made to watch.

In such a loop every page's socket is refused by its backend, which does not have the page, and so the page reloads.
Refusals are counted for each visitor and path; pages that work or have worked are never counted, however many people
behind one address load them or lose their pod together, and however soon they leave. Times are seconds of any one
monotonic clock.
"""

from collections.abc import Hashable

WINDOW_S = 20.0
"""A loop of NiceGUI's reloads takes about a second for each round."""

YOUNG_S = WINDOW_S / 2
"""In a loop a page opens its socket right after it was built. One that is older has worked through another proxy, even
if it is new here: where it is refused, it has lost its backend and reloads once."""


class ReloadGuard:
    """Counts refusals by key (who, where) over the last `WINDOW_S` seconds or a little less, in two halves.

    limit: how many are borne; 0 switches the guard off. size: most keys of each half, so that a flood costs bounded
    memory; past it nothing new is counted until the next half begins.
    """

    __slots__ = ("_began", "_current", "_last", "_limit", "_size")

    def __init__(self, limit: int, size: int = 10_000) -> None:
        self._limit = limit
        self._size = size
        self._began = 0.0
        self._current: dict[Hashable, int] = {}
        self._last: dict[Hashable, int] = {}

    def refused(self, key: Hashable, now: float) -> None:
        """Hear that a page's socket was refused."""
        if not self._limit:
            return
        self._turn(now)
        if key in self._current or len(self._current) < self._size:
            self._current[key] = self._current.get(key, 0) + 1

    def loops(self, key: Hashable, now: float) -> bool:
        """Say whether a visitor's page has reloaded too often."""
        if not self._limit or not (self._current or self._last):
            return False
        self._turn(now)
        return self._current.get(key, 0) + self._last.get(key, 0) > self._limit

    def _turn(self, now: float) -> None:
        age = now - self._began
        if age >= WINDOW_S / 2:
            self._last = self._current if age < WINDOW_S else {}
            self._current = {}
            self._began = now - now % (WINDOW_S / 2)
