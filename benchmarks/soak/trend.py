"""Does a series of samples grow? A judgement that neither one spike nor one lull decides.

Laws: pure; growth is what two robust estimates agree on, so that each guards the other: the Theil-Sen slope (the median
of the slopes between all pairs of samples) over the whole time, and the median of the last third against that of the
first, which lie two thirds of the time apart and are brought to the whole of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

MOST_SAMPLES = 400
"""Of a longer series every second, third, ... sample is taken: the number of pairs grows with the square."""

FEWEST_SAMPLES = 12


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much a series has grown by each estimate, in its own unit; it holds where one of them is within `allowed`."""

    slope_growth: float
    thirds_growth: float
    allowed: float

    @property
    def growth(self) -> float:
        """Give the smaller of the two estimates."""
        return min(self.slope_growth, self.thirds_growth)

    @property
    def held(self) -> bool:
        """Say whether there is no growth beyond what is allowed."""
        return self.growth <= self.allowed


def judge(times: Sequence[float], values: Sequence[float], allowed: float) -> Verdict:
    """Judge a series; ValueError where it is too short to say anything."""
    if len(times) != len(values) or len(times) < FEWEST_SAMPLES:
        raise ValueError(f"expected at least {FEWEST_SAMPLES} samples, found {len(values)}")
    step = -(-len(times) // MOST_SAMPLES)
    points = list(zip(times, values, strict=True))[::step]
    slope = median((b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s)
    third = len(values) // 3
    between_thirds = median(values[-third:]) - median(values[:third])
    return Verdict(slope * (times[-1] - times[0]), 1.5 * between_thirds, allowed)
