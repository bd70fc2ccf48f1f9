"""What counts as a difference between the verdicts direct and through the proxy."""

from collections.abc import Sequence

import pytest

from . import suite
from .suite import OK, Verdict, compare

LAX = Verdict("NON-STRICT", "OK", 1002)
BAD = Verdict("FAILED", "OK", 1002)

Round = tuple[dict[str, Verdict], dict[str, Verdict]]


async def compared(monkeypatch: pytest.MonkeyPatch, rounds: list[Round]) -> tuple[set[str], set[str]]:
    async def run(cases: Sequence[str], *, park: bool) -> Round:
        direct, through = rounds.pop(0) if len(rounds) > 1 else rounds[0]
        return direct, through

    monkeypatch.setattr(suite, "run", run)
    result = await compare(["*"])
    return set(result.vary), set(result.differ)


async def test_a_race_that_comes_out_alike_in_a_later_round_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [({"1": OK, "2": OK}, {"1": OK, "2": LAX}), ({"2": LAX}, {"2": OK}), ({"2": LAX}, {"2": LAX})]
    assert await compared(monkeypatch, rounds) == ({"2"}, set())


async def test_what_never_comes_out_alike_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await compared(monkeypatch, [({"1": OK}, {"1": LAX})]) == ({"1"}, {"1"})


async def test_what_fails_through_the_proxy_once_and_not_direct_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for first in (({"1": OK}, {"1": BAD}), ({"1": OK}, {})):
        assert await compared(monkeypatch, [first, ({"1": OK}, {"1": OK})]) == ({"1"}, {"1"})
    later: list[Round] = [({"1": OK}, {"1": LAX}), ({"1": OK}, {"1": BAD}), ({"1": OK}, {"1": OK})]
    assert await compared(monkeypatch, later) == ({"1"}, {"1"})


async def test_what_fails_both_ways_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await compared(monkeypatch, [({"1": BAD}, {"1": BAD})]) == (set(), set())
