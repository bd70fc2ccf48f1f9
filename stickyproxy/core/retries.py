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

    __slots__ = ("_floor", "_samples", "_share", "ceiling")

    def __init__(self, share: float, floor: int) -> None:
        self._share = share
        self._floor = floor
        self._samples: deque[tuple[float, int, int]] = deque()
        self.ceiling = float(floor)
        """Total of retries from which on none is made."""

    def sweep(self, now: float, requests: int, retries: int) -> None:
        """Take the totals of this moment."""
        samples = self._samples
        samples.append((now, requests, retries))
        while len(samples) > 1 and samples[1][0] <= now - WINDOW_S:
            samples.popleft()
        _, requests_before, retries_before = samples[0]
        self.ceiling = retries_before + self._floor + self._share * (requests - requests_before)
