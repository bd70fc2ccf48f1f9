"""Every input that fuzzing began with or has kept holds the laws of its target."""

import random

import pytest

from .kept import kept
from .targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_breaks_a_law(name: str) -> None:
    inputs = list(seeds(name))
    assert len(inputs) > len(kept(name))
    for one in inputs:
        TARGETS[name](one)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_with_changed_bytes_break_no_law(name: str) -> None:
    """A little of what fuzzing does, where it is not installed; the same on every run."""
    lot = random.Random(name)
    inputs = list(seeds(name))
    for _ in range(2000):
        one = bytearray(lot.choice(inputs))
        for _ in range(lot.randint(1, 4)):
            at = lot.randrange(len(one) + 1)
            one[at : at + lot.randint(0, 2)] = lot.choice(
                (b"\r", b"\n", b"\0", b" ", b":", b"\r\n", b"0", b";", b"\xff")
            )
        TARGETS[name](bytes(one))
