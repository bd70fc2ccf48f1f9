import pytest

from .setups import SETUPS, findings, said, setup


@pytest.mark.parametrize("name", sorted(set(SETUPS) - {"bare"}))
@pytest.mark.parametrize("live", [True, False])
def test_nothing_is_found_where_nothing_is_wrong(name: str, live: bool) -> None:
    found = findings(setup(name), live=live)
    assert not found, said(found)
