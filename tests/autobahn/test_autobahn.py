"""Through the proxy the Autobahn test suite says of every case what it says direct."""

import pytest
from needs import missing

from .build import HOW, NotBuildableError, build
from .suite import ACCEPTABLE, QUICK, compare

pytestmark = [pytest.mark.extended, pytest.mark.timeout(3600)]


FAILS_DIRECT = {"7.1.5"}
"""The echo server closes with 1002 where a close comes in the middle of a message, and the suite wants another code."""


@pytest.mark.parametrize("cases", [QUICK, ("12.*",), ("13.*",)], ids=["all but compression", "12", "13"])
async def test_every_verdict_is_the_same_direct_and_through_the_proxy(cases: tuple[str, ...]) -> None:
    try:
        build()
    except NotBuildableError as error:
        missing(f"{error} ({HOW})")
    result = await compare(cases)
    assert len(result.direct) > 80
    failed = {case for case, verdict in result.direct.items() if verdict.behavior not in ACCEPTABLE}
    assert failed <= FAILS_DIRECT, "the echo server itself is at fault, or the machine too slow"
    assert {case: (result.direct.get(case), result.through.get(case)) for case in result.differ} == {}


async def test_with_parking_a_page_offers_compression_as_it_likes_too() -> None:
    """One case for each of the seven offers of group 13, five of which no browser makes."""
    try:
        build()
    except NotBuildableError as error:
        missing(f"{error} ({HOW})")
    cases = [f"13.{offer}.1" for offer in range(1, 8)]
    result = await compare(cases, park=True)
    assert sorted(result.direct) == cases
    assert {verdict.behavior for verdict in result.direct.values()} == {"OK"}
    assert {case: (result.direct.get(case), result.through.get(case)) for case in result.differ} == {}
