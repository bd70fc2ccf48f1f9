"""The bytes that wait in memory because somebody is slow, of all connections together.

Laws: only what waits is counted, so that a byte that goes straight through costs nothing here; beyond the bound the
connections that have been slow for longest are dropped, each at once and whole.
"""

from collections.abc import Callable
from typing import Protocol


class Holder(Protocol):
    """A connection, or a tunnel, that holds bytes."""

    def drop(self) -> None:
        """End at once."""


class Buffered:
    """The holders of one data plane, those that began to hold first before the others; `most`: bytes in all."""

    __slots__ = ("_held", "_most", "_on_drop", "total")

    def __init__(self, most: int, on_drop: Callable[[], None]) -> None:
        self.total = 0
        self._most = most
        self._on_drop = on_drop
        self._held: dict[Holder, int] = {}

    def __len__(self) -> int:
        """Count the holders."""
        return len(self._held)

    def hold(self, holder: Holder, bytes_: int) -> None:
        """Hear how much somebody holds now, nothing included; drop others, or this one, where it is too much."""
        before = self._held.pop(holder, 0) if not bytes_ else self._held.get(holder, 0)
        self.total += bytes_ - before
        if not bytes_:
            return
        self._held[holder] = bytes_
        while self.total > self._most:
            oldest = next(iter(self._held))
            self.total -= self._held.pop(oldest)
            self._on_drop()
            oldest.drop()
