"""A page stays on the backend that built it, whatever happens between it and its browser."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from .harness import (
    PAGE_LIMIT_MS,
    Replica,
    Visit,
    addresses,
    leave,
    reconnected,
    running_proxy,
    running_replicas,
    running_successor,
    sessions,
    visits,
    visits_to_several,
)
from .relay import CUT_S, Edit, running_relay, with_and_without_cookies

BROWSERS = 5
"""With two tabs each."""

MOVED_PAGES = 4


async def click_once(visits: list[Visit]) -> list[str]:
    """Click +1 on each page; return the names of their replicas."""
    for visit in visits:
        await visit.click(1)
    return [await visit.replica() for visit in visits]


async def expect_kept(visits: list[Visit], names: list[str], clicks: int = 2) -> None:
    """Expect that each page has its socket and its state, and was never loaded again."""
    for visit, name in zip(visits, names, strict=True):
        await expect(visit.page.locator("#popup")).to_have_attribute("aria-hidden", "true")
        await visit.connected()
        await visit.click(clicks)
        assert await visit.replica() == name
        assert len(visit.documents) == 1, f"reloaded: {visit.complaints}"


@pytest.mark.parametrize("sever", [pytest.param(True, id="reset"), pytest.param(False, id="silence")])
async def test_a_page_survives_a_connection_that_is_cut_for_two_seconds(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path, sever: bool
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas)))
        relay = await stack.enter_async_context(running_relay([proxy.port]))
        pages = await visits(browser, relay.url, 3)
        names = await click_once(pages)
        before = await sessions(pages)
        async with relay.outage(sever=sever):
            await asyncio.sleep(CUT_S)
        if sever:
            await reconnected(pages, before)
        await expect_kept(pages, names)
        assert (await sessions(pages) == before) is not sever


async def test_ten_open_pages_survive_a_killed_proxy(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(three_replicas)) as first:
        pages = await visits(browser, first.url, BROWSERS)
        pages += [await Visit.begin_in(page.page.context, first.url) for page in pages]
        names = await click_once(pages)
        assert set(names) == {replica.name for replica in three_replicas}
        before = await sessions(pages)
        with running_successor(first, tmp_path, addresses(three_replicas)):
            await reconnected(pages, before)
            await expect_kept(pages, names)
            await leave(pages)


@with_and_without_cookies
async def test_pages_survive_a_move_to_another_proxy(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    backends = addresses(three_replicas)
    async with AsyncExitStack() as stack:
        first = stack.enter_context(running_proxy(tmp_path, backends, *options))
        other = stack.enter_context(running_proxy(tmp_path, backends[::-1], *options))
        relay = await stack.enter_async_context(running_relay([first.port], edit))
        pages = await visits(browser, relay.url, MOVED_PAGES)
        names = await click_once(pages)
        for clicks, proxy in enumerate((other, first), start=2):
            before = await sessions(pages)
            relay.move([proxy.port])
            await reconnected(pages, before)
            await expect_kept(pages, names, clicks)


@with_and_without_cookies
async def test_pages_load_once_when_every_connection_comes_through_another_proxy(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    backends = addresses(three_replicas)
    async with AsyncExitStack() as stack:
        proxies = [stack.enter_context(running_proxy(tmp_path, backends, *options)) for _ in range(2)]
        relay = await stack.enter_async_context(running_relay([proxy.port for proxy in proxies], edit or Edit()))
        pages = await visits(browser, relay.url, MOVED_PAGES)
        await expect_kept(pages, await click_once(pages))
        assert [failure for page in pages for failure in page.failures] == []


async def test_the_page_decides_before_the_cookie(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    """Tabs of one browser live on several replicas, as after a move; the cookie names that of the last."""
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas)))
        relay = await stack.enter_async_context(running_relay([proxy.port]))
        context = await browser.new_context()
        tabs = []
        for _ in three_replicas:
            await context.clear_cookies()
            tabs.append(await Visit.begin_in(context, relay.url))
        names = await click_once(tabs)
        assert len(set(names)) == len(three_replicas)

        before = await sessions(tabs)
        relay.sever()
        await reconnected(tabs, before)
        await expect_kept(tabs, names)
        file = tmp_path / "file.txt"
        file.write_text("to the tab's own replica")
        for tab in tabs:
            await tab.page.locator("input[type=file]").set_input_files(file)
            await expect(tab.page.get_by_test_id("upload-report")).to_have_text(f"{file.name} {len(file.read_text())}")
        assert [failure for tab in tabs for failure in tab.failures] == []


@pytest.fixture(scope="module")
def awkward_replicas(nicegui: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Yield two replicas whose pages have socket query parameters of the app's own, nested ones among them."""
    with running_replicas(2, tmp_path_factory.mktemp("awkward"), "--nested") as replicas:
        yield replicas


@pytest.mark.parametrize("path", ["", "decoy", "missing", "broken"])
async def test_without_cookies_every_kind_of_page_finds_its_replica(
    browser: Browser, awkward_replicas: list[Replica], tmp_path: Path, path: str
) -> None:
    async with AsyncExitStack() as stack:
        proxies = [
            stack.enter_context(running_proxy(tmp_path, addresses(awkward_replicas), "--page-token")) for _ in range(2)
        ]
        relay = await stack.enter_async_context(running_relay([p.port for p in proxies], Edit(cookies=False)))
        pages = await visits(browser, relay.url + path, 3)
        before = await sessions(pages)
        relay.sever()
        await reconnected(pages, before)
        for page in pages:
            assert page.documents == [relay.url + path], f"reloaded: {page.complaints}"
            sent = [line for line in page.websockets if "tenant=it" in line and "nested=" in line]
            assert sent == page.websockets, "the app's own parameters are not all there"


@with_and_without_cookies
async def test_a_browser_that_can_only_poll_stays_on_its_replica(
    browser: Browser, polling_replicas: list[Replica], tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(polling_replicas), *options))
        relay = await stack.enter_async_context(running_relay([proxy.port], edit or Edit()))
        pages = await visits_to_several(browser, relay.url, 3)
        names = await click_once(pages)
        before = await sessions(pages)
        relay.sever()
        await reconnected(pages, before)
        await expect_kept(pages, names)
        for page in pages:
            assert page.websockets == []
            assert any("transport=polling" in url and "sid=" in url for url in page.requests)


@pytest.fixture(scope="module")
def polling_replicas(nicegui: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    with running_replicas(2, tmp_path_factory.mktemp("polling"), "--transports", "polling") as replicas:
        yield replicas


async def test_a_browser_whose_websockets_are_blocked_falls_back_to_polling(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas), "--page-token"))
        edit = Edit(cookies=False, websockets=False)
        relay = await stack.enter_async_context(running_relay([proxy.port], edit))
        pages = await visits(browser, relay.url, 3)
        await expect_kept(pages, await click_once(pages))


async def test_secrets_reach_neither_log_nor_error_page(
    browser: Browser, own_replicas: list[Replica], tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(
            running_proxy(tmp_path, addresses(own_replicas), "--page-token", "--log-level", "debug")
        )
        visit = await Visit.begin(browser, proxy.url)
        await visit.page.locator("input[type=file]").set_input_files(
            {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"}
        )
        await expect(visit.page.get_by_test_id("upload-report")).to_have_text("a.txt 4")
        secrets = {"client id": await visit.page.evaluate("window.clientId")}
        query = dict(re.findall(r"[?&]([^=]+)=([^&]*)", visit.websockets[0]))
        secrets |= {name: query[name] for name in ("tab_id", "document_id", "_stickyproxy")}
        secrets |= {f"cookie {c['name']}": c["value"] for c in await visit.page.context.cookies()}
        for replica in own_replicas:
            replica.process.kill()
        await expect(visit.page.locator("#popup")).to_have_attribute("aria-hidden", "false")
        await visit.page.wait_for_event("websocket", timeout=PAGE_LIMIT_MS)
        upload = f"{proxy.url}_nicegui/client/{secrets['client id']}/upload/7"
        answers = [await visit.page.request.get(proxy.url), await visit.page.request.post(upload, data="x")]
        socket = proxy.url + visit.websockets[0].partition(f":{proxy.port}/")[2].replace("=websocket", "=polling")
        answers.append(await visit.page.request.get(socket))
        assert [answer.status for answer in answers] == [502] * 3
        told = {f"answer {number}": await answer.text() for number, answer in enumerate(answers)}
        told["log"] = proxy.process.said()

    assert len(secrets) >= 6
    found = Counter((name, place) for name, value in secrets.items() for place, text in told.items() if value in text)
    assert found == Counter()
