"""What a test cannot run without: on a CI machine its absence is a failure, elsewhere a skip with one line."""

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test for want of `what`; on a CI machine fail instead, or nobody would see what is not tested."""
    if os.environ.get("CI") or os.environ.get("STICKYPROXY_CI"):
        pytest.fail(f"missing on this CI machine: {what}", pytrace=False)
    pytest.skip(f"missing: {what}")
