"""benchmarks.instructions drives what it says: every request goes through the data plane and comes back answered."""

import re
import shutil

import pytest

from benchmarks import instructions
from tests.needs import missing


@pytest.mark.parametrize("more", [[], ["--varied"]], ids=["same", "varied"])
def test_every_request_is_answered(more: list[str]) -> None:
    assert instructions.main(["--drive", "50", *more]) == 0


def test_a_figure_is_printed_that_starting_the_interpreter_does_not_make(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("valgrind") is None:
        missing("valgrind (apt-get install valgrind)")
    monkeypatch.setattr(instructions, "_WARM", 100)
    monkeypatch.setattr(instructions, "_COUNTED", 200)
    assert instructions.main([]) == 0
    found = re.match(r"(\d+) instructions", capsys.readouterr().out)
    assert found is not None
    assert 10_000 < int(found[1]) < 1_000_000  # starting takes some hundred millions


def test_without_valgrind_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert instructions.main([]) == 1
    assert "apt-get install valgrind" in capsys.readouterr().err
