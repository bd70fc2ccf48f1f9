"""What one of several data planes tells the others, and what it makes of what they tell."""

import asyncio
from random import Random

from stickyproxy.core.absences import Absence
from stickyproxy.core.backends import Backend
from stickyproxy.core.news import News, PageNews
from stickyproxy.core.settings import Settings, share_of
from stickyproxy.core.tunnels import End
from stickyproxy.core.values import Address
from stickyproxy.dataplane.shared import GATHER_S, SharedProxy

ONE, TWO = (Backend.at(Address("127.0.0.1", port)) for port in (1, 2))


def shared() -> tuple[SharedProxy, asyncio.Queue[News]]:
    told: asyncio.Queue[News] = asyncio.Queue()
    proxy = SharedProxy(Settings(), Random(1), told.put_nowait)
    proxy.apply([ONE, TWO])
    return proxy, told


async def test_a_burst_is_told_in_one_message_and_what_is_known_not_again() -> None:
    proxy, told = shared()
    for page in (b"a", b"b"):
        proxy.pages.learn(page, "one", proxy.time(), "visitor", b"3.18.0")
    proxy.files.learn([b"/f"], "one")
    news = await told.get()
    assert news.pages == {page: PageNews("one", "visitor", b"3.18.0") for page in (b"a", b"b")}
    assert news.files == {b"/f": "one"}
    proxy.pages.learn(b"a", "one", proxy.time())
    proxy.files.learn([b"/f"], "one")
    await asyncio.sleep(2 * GATHER_S)
    assert told.empty()
    proxy.pages.move(b"a", "one")
    assert (await told.get()).pages[b"a"].identity == ""


async def test_what_is_heard_is_known_but_neither_told_nor_counted() -> None:
    proxy, told = shared()
    proxy.hear(News({b"a": PageNews(ONE.identity, "v", b"3.18.0")}, {b"/f": "one"}, ["loop"]))
    found = proxy.pages.find(b"a")
    assert found is not None
    assert (found.identity, found.visitor) == (ONE.identity, "v")
    assert proxy.versions == {ONE.identity: b"3.18.0"}
    assert proxy.files.find(b"/f") == "one"
    assert not proxy.drains.open_pages(), "it is counted where it is open"
    await asyncio.sleep(2 * GATHER_S)
    assert told.empty()


async def test_a_page_is_counted_by_whom_it_came_to_last() -> None:
    proxy, _ = shared()
    proxy.pages.learn(b"a", "one", proxy.time())
    assert proxy.drains.open_pages() == {"one": 1}
    proxy.hear(News({b"a": PageNews("one")}))
    assert not proxy.drains.open_pages()
    proxy.pages.opened(b"a", "one", proxy.time())
    proxy.hear(News({b"a": PageNews("one")}))
    assert proxy.drains.open_pages() == {"one": 1}, "a socket is open here, whatever others say"


async def test_a_page_with_an_open_socket_is_told_again_before_others_forget_it() -> None:
    proxy, told = shared()
    ttl_s = proxy.settings.affinity.page_ttl_s
    proxy.pages.opened(b"a", "one", proxy.time())
    await told.get()
    proxy.pages.expire(proxy.time() + ttl_s * 0.4)
    await asyncio.sleep(2 * GATHER_S)
    assert told.empty()
    proxy.pages.expire(proxy.time() + ttl_s * 0.6)
    assert b"a" in (await told.get()).pages


async def test_arrivals_and_tunnels_of_others_weigh_and_outlive_a_snapshot() -> None:
    proxy, told = shared()
    proxy.hear(News(tunnels={ONE.identity: 5}))
    proxy.apply([ONE, TWO])
    assert [proxy.balancer.choose([ONE, TWO], proxy.time()) for _ in range(3)] == [TWO] * 3
    assert (await told.get()).arrivals == {TWO.identity: 3}
    proxy.hear(News(tunnels={ONE.identity: 0}))
    for _ in range(9):
        proxy.balancer.loads[TWO.identity].arrive(proxy.time())
    assert proxy.balancer.choose([ONE, TWO], proxy.time()) == ONE


async def test_what_bounds_the_proxy_is_shared_out_among_workers() -> None:
    settings = share_of(Settings(), 4)
    assert settings.failures.retry_floor == 8
    assert settings.affinity == Settings().affinity


async def test_who_is_away_is_told_and_who_sees_it_again_tells_that_too() -> None:
    (here, told_here), (there, told_there) = shared(), shared()
    absence = Absence(ONE.identity, here.time(), End.BACKEND)
    here.page_left(b"a", absence)
    news = await told_here.get()
    assert news.left == {b"a": absence}
    there.hear(news)
    assert there.page_came(b"a", ONE.identity)
    assert there.counters.reconnects[True, True] == 1
    here.hear(await told_there.get())
    assert not len(here.absences)
    assert here.absences.expire(here.time() + 100) == {}


async def test_only_where_the_socket_was_a_loss_is_counted() -> None:
    (here, told), (there, _) = shared(), shared()
    here.page_left(b"a", Absence(ONE.identity, here.time(), End.ERROR))
    there.hear(await told.get())
    later = here.time() + 31
    assert there.absences.expire(later) == {}
    assert list(here.absences.expire(later)) == [b"a"]


async def test_who_has_another_socket_elsewhere_is_not_away() -> None:
    (here, told_here), (there, told_there) = shared(), shared()
    there.pages.opened(b"a", ONE.identity, there.time())
    await told_there.get()
    here.page_left(b"a", Absence(ONE.identity, here.time(), End.ERROR))
    there.hear(await told_here.get())
    assert not len(there.absences)
    here.hear(await told_there.get())
    assert not len(here.absences)
    assert +here.counters.reconnects == +there.counters.reconnects == {}


async def test_a_page_that_is_away_is_counted_by_one_worker_alone() -> None:
    one, two = shared()[0], shared()[0]
    one.page_left(b"a", Absence(ONE.identity, one.time(), End.BACKEND))
    two.hear(News(left={b"a": Absence(ONE.identity, one.time(), End.BACKEND)}))
    assert one.report().gauges.with_other(two.report().gauges).away == 1
