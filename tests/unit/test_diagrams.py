"""ARCHITECTURE.md shows the state machines that run."""

from enum import Enum

import pytest

from .diagrams import ARCHITECTURE, MACHINES, marked, render


@pytest.mark.parametrize("name", MACHINES)
def test_the_document_shows_the_table_that_runs(name: str) -> None:
    found = marked(name).findall(ARCHITECTURE.read_text("utf-8"))
    assert [shown for _, shown, _ in found] == [render(MACHINES[name])], "run python tests/unit/diagrams.py"


def test_a_transition_that_changes_is_drawn_otherwise() -> None:
    class S(Enum):
        A = "a"
        B = "b"

    class E(Enum):
        GO = "go"
        JUMP = "jump"

    before = render({(S.A, E.GO): (S.B, E.GO), (S.A, E.JUMP): (S.B, E.GO)})
    assert "\n    [*] --> a\n    a --> b: go / jump\n" in before
    assert "| `a` | jump | `b` | go |" in before
    assert render({(S.A, E.GO): (S.B, E.GO), (S.A, E.JUMP): (S.A, E.GO)}) != before
