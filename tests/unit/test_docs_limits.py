"""docs/limits.md tells of every limit that is counted, and the defaults that are in force."""

import re
from pathlib import Path

import pytest

from stickyproxy.cli import run
from stickyproxy.core.limits import Limit

DOCS = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(--[a-z-]+)` \| `([^`]+)` \|", DOCS, re.MULTILINE)


@pytest.mark.parametrize(("option", "default"), ROWS)
def test_a_default_is_the_one_in_force(option: str, default: str) -> None:
    (declared,) = [p for p in run.params if option in p.opts]
    assert str(declared.default) == default


def test_every_limit_of_the_command_line_has_a_row() -> None:
    limits = {p.opts[0] for p in run.params if p.opts[0].startswith(("--max-", "--min-"))}
    assert limits <= {option for option, _ in ROWS}


def test_every_limit_that_is_counted_is_explained() -> None:
    counted = {
        name
        for line in DOCS.splitlines()
        if line.startswith("| ")
        for name in re.findall(r"`([a-z-]+)`", line.split("|")[3])
    }
    assert {limit.value for limit in Limit} <= counted
