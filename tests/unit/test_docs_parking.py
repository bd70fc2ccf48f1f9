"""docs/parking.md names the limits in force, and every reason to let a page go has words wherever it is told."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from stickyproxy.cli import run
from stickyproxy.core.parking import PATIENCE_S, Release

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "parking.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(--park[a-z-]*)` \| `([^`]+)` \|", TEXT, re.MULTILINE))


def test_every_option_has_a_row_with_its_default() -> None:
    assert {p.opts[0]: p.default for p in run.params if p.opts[0].startswith("--park")} == ROWS


def test_the_patience_with_a_silent_browser_is_told() -> None:
    assert f"not answered within {PATIENCE_S:g} s" in TEXT


@pytest.mark.parametrize("reason", Release)
def test_every_reason_has_words(reason: Release) -> None:
    (row,) = re.findall(r"^\| `stickyproxy_parked_released_total` .*", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert f"`{reason.value}` (" in row
    words = files("stickyproxy.admin.dashboard").joinpath("words.js").read_text("utf-8")
    (table,) = re.findall(r"^const RELEASES = \{.*?^\};", words, re.MULTILINE | re.DOTALL)
    assert f"\n  {reason.value}: " in table
