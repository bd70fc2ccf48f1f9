"""How many requests may be sent a second time: a share of all, so that a failing app is not hammered.

Laws: nothing is counted here for a request; totals that are counted anyway are read in the sweep.
"""

from collections import deque

WINDOW_S = 10.0
"""Seconds over which the share is taken."""


class RetryBudget:
    """Says how far the total of retries may grow: `share` of the requests of the last ten seconds, and `floor` more.

    Totals are of all time and never fall; times are seconds of any one monotonic clock.
    """

    __slots__ = ("_floor", "_retries_before", "_samples", "_share", "ceiling")

    def __init__(self, share: float, floor: int) -> None:
        self._share = share
        self._floor = floor
        self._samples: deque[tuple[float, int, int]] = deque()
        self._retries_before = 0
        self.ceiling = float(floor)
        """Total of retries from which on none is made."""

    def sweep(self, now: float, requests: int, retries: int) -> None:
        """Take the totals of this moment."""
        samples = self._samples
        samples.append((now, requests, retries))
        while len(samples) > 1 and samples[1][0] <= now - WINDOW_S:
            samples.popleft()
        _, requests_before, retries_before = samples[0]
        self._retries_before = retries_before
        self.ceiling = retries_before + self._floor + self._share * (requests - requests_before)

    def used(self, retries: int) -> float:
        """Say which part of the budget a total of retries has used: 0 to 1, or more after requests have become few."""
        allowed = self.ceiling - self._retries_before
        return (retries - self._retries_before) / allowed if allowed > 0 else 1.0
