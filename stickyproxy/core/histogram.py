"""How long things took, as plain integers in fixed buckets: whoever reports reads."""

from bisect import bisect_left

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds, each included; what is longer falls into a last bucket without a bound."""


class Histogram:
    """Counts durations in seconds: `counts` by bucket, one more than there are bounds, and their `sum_s`."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def add(self, other: "Histogram") -> None:
        """Add what another has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum_s += other.sum_s

    @property
    def total(self) -> int:
        """Count all durations."""
        return sum(self.counts)
