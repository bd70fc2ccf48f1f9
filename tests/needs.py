"""What a test cannot run without: on a CI machine its absence is a failure, elsewhere a skip with one line."""

import os
from typing import NoReturn

import pytest


def on_ci() -> bool:
    """Say whether this is a CI machine, by its own word or by that of `.ci/run`."""
    return bool(os.environ.get("CI") or os.environ.get("STICKYPROXY_CI"))


def missing(what: str) -> NoReturn:
    """Skip the test for want of `what`; on a CI machine fail instead, or nobody would see what is not tested."""
    if on_ci():
        pytest.fail(f"missing on this CI machine: {what}", pytrace=False)
    pytest.skip(f"missing: {what}")
