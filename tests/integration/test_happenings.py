"""What a data plane tells of itself as it happens: whom sessions leave, who is out of reach, whose sockets are cut."""

import asyncio
from itertools import pairwise
from uuid import uuid4

from stickyproxy.core.backends import Phase
from stickyproxy.core.events import Happening, Kind

from .harness import Running, Stage, hello, named, request, soon
from .parking import Name, open_page, parking
from .test_backend_drain import page_tunnel


class Told:
    """Collects what a proxy tells."""

    def __init__(self, running: Running) -> None:
        self._queue: asyncio.Queue[Happening] = asyncio.Queue()
        running.proxy.on_happenings = lambda happenings: [self._queue.put_nowait(h) for h in happenings] and None

    async def next(self, kind: Kind) -> Happening:
        """Give the next of a kind."""
        while True:
            happening = await soon(self._queue.get())
            if happening.kind is kind:
                return happening


async def test_a_backend_that_refuses_is_told_once_and_whom_its_sessions_go_to(stage: Stage) -> None:
    a, b = await stage.backend(named("a")), await stage.backend(named("b"))
    running = await stage.proxy(a, b)
    told, cookie = Told(running), running.cookie(a)
    await a.close()
    for _ in range(3):
        assert (await running.ask(request("GET / HTTP/1.1", cookie))).body == b"b"
    unreachable = await told.next(Kind.UNREACHABLE)
    assert unreachable.backend == str(a.address)
    assert unreachable.count == 1
    moved = await told.next(Kind.MOVED)
    assert (moved.backend, moved.to, moved.cause, moved.pages) == (str(a.address), str(b.address), "refused", 0)


async def test_of_a_backend_that_is_listed_no_more_its_name_is_still_known(stage: Stage) -> None:
    a, b = await stage.backend(named("a")), await stage.backend(named("b"))
    running = await stage.proxy(a, b)
    told, cookie = Told(running), running.cookie(a)
    running.apply(b.at())
    await running.ask(request("GET / HTTP/1.1", cookie))
    moved = await told.next(Kind.MOVED)
    assert (moved.backend, moved.to, moved.cause) == (str(a.address), str(b.address), "gone")


async def test_a_document_that_leaves_a_draining_backend_is_told(stage: Stage) -> None:
    a, b = await stage.backend(hello), await stage.backend(hello)
    running = await stage.proxy(a, b)
    told = Told(running)
    running.apply(a.at(Phase.DRAINING), b.at())
    await running.ask(request("GET / HTTP/1.1", running.cookie(a), "Accept: text/html", "Sec-Fetch-Mode: navigate"))
    moved = await told.next(Kind.MOVED)
    assert (moved.backend, moved.to, moved.cause) == (str(a.address), str(b.address), "draining")


async def test_sockets_that_a_backend_cuts_are_told_and_the_pages_that_come_elsewhere(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    told, page = Told(running), uuid4()
    client, upstream = await page_tunnel(running, a, page)
    await a.stop_listening()
    upstream.reset()
    await client.gone()
    cut = await told.next(Kind.CUT)
    assert (cut.backend, cut.cause, cut.count) == (str(a.address), "backend_gone", 1)
    cookie = running.cookie(a)
    client, upstream = await page_tunnel(running, b, page, cookie)
    moved = await told.next(Kind.MOVED)
    assert (moved.backend, moved.to, moved.cause, moved.pages) == (str(a.address), str(b.address), "refused", 1)
    client.close()
    upstream.close()
    await running.quiet()


async def test_a_session_that_stays_is_no_news(stage: Stage) -> None:
    a = await stage.backend(hello)
    running = await stage.proxy(a)
    for _ in range(3):
        await running.ask(request("GET / HTTP/1.1", running.cookie(a)))
    assert not running.proxy.happenings


async def test_parked_pages_that_a_limit_lets_go_are_told_at_once_and_then_together_once_a_minute(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=parking(pages=1))
    told = Told(running)
    pages = [await open_page(running, backend, Name(f"a{n}", f"d-{n}", f"t-{n}")) for n in range(5)]
    parked = pages[0].parking
    pages[0].browser.peer.reset()
    await pages[0].parked()
    pages[1].browser.peer.reset()
    assert await pages[0].app.peer.gone()
    assert await told.next(Kind.LET_GO) == Happening(Kind.LET_GO, cause="pages")
    for before, page in pairwise(pages[1:]):
        page.browser.peer.reset()
        assert await before.app.peer.gone()
    proxy, now = running.proxy, running.proxy.time()
    parked.sweep(now)
    assert not proxy.happenings
    parked.sweep(now + 61)
    assert proxy.happenings.take() == [Happening(Kind.LET_GO, cause="pages", count=3)]
    parked.sweep(now + 200)
    assert not proxy.happenings
    for page in pages:
        page.app.leaves()
    await running.quiet()
