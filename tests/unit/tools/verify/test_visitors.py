"""Visitors without a network: whose turn it is, what they may open, and which cookies tell them apart."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from yarl import URL

from stickyproxy.tools.verify.checks_web import _lasts
from stickyproxy.tools.verify.seen import Cookie, Seen
from stickyproxy.tools.verify.visitors import Budget, Crowd, Jar, Visitor
from stickyproxy.tools.verify.web import Answer, Clock, Options, Web, without_query


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    crowd = Crowd(Options("http://app.test/"), Clock(), Random(7), Seen("http://app.test/", 8))
    yield crowd
    await crowd.close()


async def test_a_wave_is_in_an_order_of_its_own_and_nobody_is_left_out(crowd: Crowd) -> None:
    visitors = [crowd.join() for _ in range(8)]
    orders = []
    for _ in range(3):
        turns: list[int] = []

        async def act(visitor: Visitor, turns: list[int] = turns) -> None:
            turns.append(visitor.number)

        await crowd.wave(visitors, act)
        assert sorted(turns) == list(range(8))
        orders.append(tuple(turns))
    assert len(set(orders)) == 3


async def test_nobody_begins_the_next_wave_before_all_have_done_the_first(crowd: Crowd) -> None:
    visitors = [crowd.join() for _ in range(4)]
    done: list[str] = []

    async def slow(visitor: Visitor) -> None:
        await asyncio.sleep(0)
        done.append("slow")

    async def next_(visitor: Visitor) -> None:
        done.append("next")

    await crowd.wave(visitors, slow)
    await crowd.wave(visitors, next_)
    assert done == ["slow"] * 4 + ["next"] * 4


def test_a_budget_is_kept() -> None:
    budget = Budget(2)
    assert [budget.take() for _ in range(4)] == [True, True, False, False]
    assert budget.opened == 2


def test_cookies_are_told_with_what_sets_them_apart_and_never_with_their_values() -> None:
    jar = Jar()
    for visitor, value in enumerate(["a", "b", "a"]):
        jar.add(visitor, [f"lb={value}; Path=/; Secure; SameSite=None", f"session=s{visitor}; HttpOnly"])
    jar.add(0, ["gone=; Max-Age=0", "old=x; Max-Age=0", "=;;garbage"])
    assert jar.cookies() == [Cookie("lb", True, "None", 2), Cookie("session", False, "", 3)]


@pytest.mark.parametrize(
    ("value", "lasting"),
    [("public, max-age=31536000, immutable", True), ("max-age=3600", True), ("s-maxage=86400", True),
     ("max-age=60", False), ("max-age=3599", False), ("no-store", False), ("", False)],
)  # fmt: skip
def test_an_answer_that_lasts_is_one_for_an_hour_or_more(value: str, lasting: bool) -> None:
    assert _lasts(Answer("http://app.test/", 404, {"Cache-Control": value})) is lasting


@pytest.mark.parametrize(
    ("url", "sent"),
    [("http://app.test/x", True), ("https://app.test/x", True), ("http://app.test:8080/", False),
     ("http://app.test.evil/", False), ("https://other.test/", False)],
)  # fmt: skip
async def test_what_the_user_gave_goes_to_the_address_that_was_named_and_nowhere_else(url: str, sent: bool) -> None:
    web = Web(Options("http://app.test/", headers=(("X-Key", "secret"),), user=("me", "päss")), Clock())
    headers = web.headers(url, {"Accept": "*/*"})
    await web.close()
    assert headers.pop("Accept") == "*/*"
    assert headers == ({"X-Key": "secret", "Authorization": "Basic bWU6cMOkc3M="} if sent else {})


async def test_https_is_never_left_with_what_the_user_gave() -> None:
    web = Web(Options("https://app.test/", headers=(("X-Key", "secret"),)), Clock())
    assert web.headers("http://app.test/") == {}
    await web.close()


async def test_a_cookie_of_the_users_goes_with_every_path() -> None:
    web = Web(Options("https://app.test/deep/page", cookies=(("a", "b c"),)), Clock())
    jar = web.session.cookie_jar
    assert list(jar.filter_cookies(URL("https://app.test/_nicegui_ws/"))) == ["a"]
    assert list(jar.filter_cookies(URL("https://other.test/"))) == []
    await web.close()


def test_a_query_is_not_shown() -> None:
    assert without_query("https://a/b?state=secret#x") == "https://a/b"
