"""Fixtures of the tests of deploy/."""

import pytest
from needs import missing

from . import tools


@pytest.fixture(scope="session")
def programs() -> None:
    """Require kubectl and helm."""
    try:
        tools.kubectl()
        tools.helm()
    except tools.NotThereError as error:
        missing(str(error))
