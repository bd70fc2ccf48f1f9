"""No version that the project allows or ships is known to be bad, as far as can be told without asking anybody.

The table holds what was known when it was written; whoever raises a bound adds the advisory here. `pip-audit` asks a
service for the same and is not run by the tests, which must pass without the internet.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]

FIXED_IN = {
    "aiohttp": ("3.14.3", "CVE-2026-69243 (request smuggling), CVE-2026-69244 (out-of-bounds read in its parser)"),
    "h11": ("0.16.0", "CVE-2025-43859 (chunks that end with any two bytes)"),
}
"""By package: the first version without the advisories that touch what is used of it."""


def bounds() -> dict[str, Version]:
    """Give the lower bounds of all packages in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for text in (*project["dependencies"], *(t for extra in project["optional-dependencies"].values() for t in extra)):
        requirement = Requirement(text)
        lowest = [Version(s.version) for s in requirement.specifier if s.operator in (">=", "==", "~=")]
        assert lowest, f"{text} has no lower bound"
        found[requirement.name] = min(lowest)
    return found


def shipped() -> dict[str, Version]:
    """Give the versions that the image installs."""
    lines = re.findall(r"(?m)^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "deploy" / "constraints.txt").read_text())
    return {name.lower(): Version(version) for name, version in lines}


@pytest.mark.parametrize("name", FIXED_IN)
def test_no_bound_lets_a_version_in_that_is_known_to_be_bad(name: str) -> None:
    fixed, advisories = FIXED_IN[name]
    assert bounds()[name] >= Version(fixed), f"{advisories}: needs {name}>={fixed}"


def test_the_image_ships_nothing_that_is_known_to_be_bad_or_below_its_bound() -> None:
    versions = shipped()
    for name, (fixed, advisories) in FIXED_IN.items():
        assert name not in versions or versions[name] >= Version(fixed), advisories
    for name, lowest in bounds().items():
        assert name not in versions or versions[name] >= lowest
    assert "aiohttp" in versions, "or nothing was looked at"
