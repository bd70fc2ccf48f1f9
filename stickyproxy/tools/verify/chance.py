"""How likely a run without a single refusal would be, if nothing kept browsers on their replica.

Law: the figure is the larger one of two ways of balancing, for two replicas of equal shares, where luck is likeliest:
by lot each socket hits its page's replica with one half; in turns a wave of n sockets in an order drawn by lot
hits all with one in C(n, n/2). With more replicas both are less likely.
"""

from collections.abc import Iterable
from math import comb, prod

ENOUGH = 1e-3
"""Above this chance a run without a refusal proves nothing: one run in a thousand may be wrong."""


def of_luck(waves: Iterable[int]) -> float:
    """Give the chance that all sockets of all waves hit by luck; waves: how many sockets each had. 1.0 without any."""
    return prod(max(0.5**n, 1 / comb(n, n // 2)) for n in waves)


def in_words(chance: float) -> str:
    """Say a chance for people, rounded so that it is never said to be smaller than it is."""
    if chance >= 0.5:
        return "even or more"
    times = int(1 / chance)
    if times >= 1_000_000_000:
        return "less than 1 in 1,000,000,000"
    digits = 10 ** max(0, len(str(times)) - 2)
    return f"1 in {times // digits * digits:,}"
