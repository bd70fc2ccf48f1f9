import itertools
from math import isclose
from random import Random

import pytest

from stickyproxy.tools.verify import chance


def test_in_turns_a_wave_drawn_by_lot_hits_as_rarely_as_is_said() -> None:
    pages = (0, 1) * 3  # six pages, built by two processes in turns
    orders = list(itertools.permutations(range(6)))
    hits = sum(all(pages[visitor] == turn % 2 for turn, visitor in enumerate(order)) for order in orders)
    assert isclose(hits / len(orders), chance.of_luck([6]))


def test_by_lot_and_with_more_replicas_luck_is_rarer() -> None:
    lot = Random(1)
    runs = 20_000
    for replicas in (2, 3):
        hits = sum(all(lot.randrange(replicas) == lot.randrange(replicas) for _ in range(4)) for _ in range(runs))
        assert hits / runs < chance.of_luck([4])


def test_waves_add_up() -> None:
    assert isclose(chance.of_luck([8, 8, 8]), 1 / 70**3)
    assert chance.of_luck([]) == 1.0
    assert chance.of_luck([1]) == 1.0  # one visitor has no order, and a balancer that takes turns no luck
    assert chance.of_luck([8, 8]) < chance.ENOUGH < chance.of_luck([8])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "even or more"),
        (0.4, "1 in 2"),
        (1 / 70, "1 in 70"),
        (1 / 70**3, "1 in 340,000"),
        (1e-12, "less than 1 in 1,000,000,000"),
    ],
)
def test_a_chance_is_never_said_to_be_smaller_than_it_is(value: float, text: str) -> None:
    assert chance.in_words(value) == text
