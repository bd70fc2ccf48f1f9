"""Pages whose last open socket has ended: which of them come back, where to and how soon, and which are lost.

Laws: a page is away from the end of its last socket until a backend answers any request that names it; whoever has not
come back within `lost_s`, and whose end was not its user's or the proxy's doing, is lost; bounded in number, past the
bound the page that has been away longest is forgotten uncounted. Times are seconds of any one monotonic clock.
"""

from collections.abc import Mapping
from typing import NamedTuple

from stickyproxy.core.tunnels import NEVER_LOST, End

IN_TIME_S = 3.0
"""NiceGUI's `reconnect_timeout`: within it the backend keeps the page's state."""


class Absence(NamedTuple):
    """One page that is away: the identity of the backend it was on, since when, and why.

    ours: this data plane had the socket, so it is the one to count a loss.
    """

    identity: str
    since: float
    end: End
    ours: bool = True


class Return(NamedTuple):
    """How a page came back: to the `same` backend or another, after `gap_s` seconds."""

    same: bool
    gap_s: float

    @property
    def in_time(self) -> bool:
        """Say whether the backend still had the page's state, by NiceGUI's default."""
        return self.gap_s <= IN_TIME_S


class Absences:
    """The pages that are away, in order of their leaving.

    limit: most of them. lost_s: after so many seconds they are given up. `ours`: how many are this data plane's own.
    """

    __slots__ = ("_away", "_limit", "_lost_s", "ours")

    def __init__(self, limit: int, lost_s: float) -> None:
        self._limit = limit
        self._lost_s = lost_s
        self._away: dict[bytes, Absence] = {}
        self.ours = 0

    def __len__(self) -> int:
        """Count the pages that are away."""
        return len(self._away)

    def left(self, page: bytes, absence: Absence) -> None:
        """Hear that a page's last socket has ended."""
        self._pop(page)
        while len(self._away) >= self._limit:
            self._pop(next(iter(self._away)))
        self._away[page] = absence
        self.ours += absence.ours

    def came(self, page: bytes, identity: str, now: float) -> Return | None:
        """Hear that a backend answered a request of a page; None where the page was not away."""
        absence = self._pop(page)
        if absence is None:
            return None
        return Return(absence.identity == identity, max(0.0, now - absence.since))

    def forget(self, page: bytes) -> None:
        """Hear that a page came back elsewhere, where it is counted."""
        self._pop(page)

    def _pop(self, page: bytes) -> Absence | None:
        absence = self._away.pop(page, None)
        if absence is not None:
            self.ours -= absence.ours
        return absence

    def expire(self, now: float) -> Mapping[bytes, Absence]:
        """Give up those that have been away for too long; give those of them that are lost here."""
        before = now - self._lost_s
        over = {}
        for page, absence in self._away.items():
            if absence.since > before:
                break
            over[page] = absence
        for page in over:
            self._pop(page)
        return {page: a for page, a in over.items() if a.ours and a.end not in NEVER_LOST}
