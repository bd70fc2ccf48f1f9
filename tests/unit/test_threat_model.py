"""THREAT_MODEL.md names tests that exist, and no attack in its tables is without one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "THREAT_MODEL.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 30
    for path, name in NAMED:
        text = (ROOT / path).read_text("utf-8")
        assert re.search(rf"(?m)^(async )?def {name}\(", text), f"{path} has no {name}"


def test_every_attack_in_the_tables_names_a_test() -> None:
    tables = TEXT.split("## Attacks", 1)[1].split("## What is not defended")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.startswith("| attack")]
    assert len(rows) > 20
    for row in rows:
        assert "::test_" in row, row


def test_the_readme_says_how_large_the_corpus_is() -> None:
    from smuggling.corpus import REQUESTS, RESPONSES

    assert f"{len(REQUESTS)} hostile requests and {len(RESPONSES)} responses" in (ROOT / "README.md").read_text("utf-8")
