"""Through the proxy the Autobahn test suite says of every case what it says direct."""

import pytest
from needs import missing

from .build import HOW, NotBuildableError, build
from .suite import QUICK, run

pytestmark = [pytest.mark.extended, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("cases", [QUICK, ("12.*",), ("13.*",)], ids=["all but compression", "12", "13"])
async def test_every_verdict_is_the_same_direct_and_through_the_proxy(cases: tuple[str, ...]) -> None:
    try:
        build()
    except NotBuildableError as error:
        missing(f"{error} ({HOW})")
    direct, through = await run(cases)
    assert len(direct) > 80
    assert sum(verdict.behavior in ("OK", "NON-STRICT", "INFORMATIONAL") for verdict in direct.values()) == len(direct)
    assert through == direct
