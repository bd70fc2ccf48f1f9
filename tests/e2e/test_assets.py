"""What a page loads: no 404 where another replica has it, and none of it twice from the app."""

import asyncio
import re
import urllib.error
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nicegui import __version__ as version
from playwright.async_api import Browser

from .harness import PAGE_LIMIT_MS, Replica, Visit, addresses, running_proxy, running_replicas, total
from .relay import Edit, running_relay, with_and_without_cookies

VISITS = 20
AT_ONCE = 4

SHOWN = """
() => document.querySelector("img[src*=picture]")?.naturalWidth === 1
  && document.querySelector("audio")?.readyState >= 1
  && document.querySelector(".leaflet-container")
  && document.querySelector(".q-table td")?.textContent === "cell of the table"
  && document.querySelector(".codehilite")
"""


@with_and_without_cookies
async def test_cold_replicas_answer_no_404_in_twenty_fresh_browsers(
    browser: Browser, tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    """A replica knows the files of a table, a map and so on only once it has built a page with one."""
    async with AsyncExitStack() as stack:
        replicas = stack.enter_context(running_replicas(3, tmp_path))
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(replicas), *options))
        relay = await stack.enter_async_context(running_relay([proxy.port], edit))
        gate = asyncio.Semaphore(AT_ONCE)

        async def visit() -> Visit:
            async with gate:
                context = await browser.new_context()
                elsewhere = re.compile(f"^(?!{re.escape(relay.url)})")  # the map's tiles
                await context.route(elsewhere, lambda route: route.abort())
                visit = await Visit.begin_in(context, f"{relay.url}cold")
                await visit.page.wait_for_function(SHOWN, timeout=PAGE_LIMIT_MS)
                return visit

        # All pages stay open: NiceGUI takes a file's route away with the first of the pages that show it.
        visited = await asyncio.gather(*(visit() for _ in range(VISITS)))
        assert [failure for visit in visited for failure in visit.failures] == []
        assert [url for visit in visited for url in visit.documents[1:]] == []
        assert total(replicas)["page"] == VISITS
        assert all(replica.counts()["page"] > 0 for replica in replicas)


@pytest.mark.parametrize("options", [(), ("--page-token",)])
async def test_without_cookies_the_first_visitors_of_cold_replicas_see_every_file(
    browser: Browser, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """One after another, so that no other replica has registered the picture and the sound of the page already."""
    async with AsyncExitStack() as stack:
        replicas = stack.enter_context(running_replicas(3, tmp_path))
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(replicas), *options))
        relay = await stack.enter_async_context(running_relay([proxy.port], Edit(cookies=False)))
        for _ in replicas:
            context = await browser.new_context()
            await context.route(re.compile(f"^(?!{re.escape(relay.url)})"), lambda route: route.abort())
            visit = await Visit.begin_in(context, f"{relay.url}cold")
            await visit.page.wait_for_function(SHOWN, timeout=PAGE_LIMIT_MS)
            assert visit.failures == []
            assert visit.documents == [f"{relay.url}cold"]
        assert total(replicas)["page"] == len(replicas)


async def test_a_404_for_a_file_of_nicegui_is_not_kept_by_browsers(
    three_replicas: list[Replica], tmp_path: Path
) -> None:
    """NiceGUI says of them that they are good for a year."""

    def get(url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.headers["Cache-Control"]
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.headers["Cache-Control"]

    with running_proxy(tmp_path, addresses(three_replicas)) as proxy:
        path = f"_nicegui/{version}/components/0123456789abcdef/unknown.js"
        direct = await asyncio.to_thread(get, f"http://{three_replicas[0].address}/{path}")
        assert direct[0] == 404
        assert "immutable" in direct[1]
        before = total(three_replicas)["asset"]
        assert await asyncio.to_thread(get, proxy.url + path) == (404, "no-store")
        assert total(three_replicas)["asset"] - before == len(three_replicas), "not every replica was asked once"


async def test_with_a_cache_a_visitor_costs_the_app_only_the_page(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(three_replicas), "--asset-cache", "64M") as proxy:
        first = await Visit.begin(browser, proxy.url)
        await first.click(1)
        before = total(three_replicas)
        for _ in range(3):
            visit = await Visit.begin(browser, proxy.url)
            await visit.click(1)
            assert visit.failures == []
            assert sum("/_nicegui/" in url for url in visit.requests) > 10
            await visit.page.context.close()
        assert (total(three_replicas) - before)["page"] == 3
        assert (total(three_replicas) - before)["asset"] == 0


async def test_the_cache_hands_out_what_the_app_would(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    """Byte for byte, by encoding, also for parts and conditional requests."""
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas), "--asset-cache", "64M"))
        context = await browser.new_context()
        path = f"_nicegui/{version}/static/nicegui.js"
        direct = f"http://{three_replicas[0].address}/{path}"
        for headers in (
            {"Accept-Encoding": "gzip"},
            {"Accept-Encoding": "identity"},
            {"Accept-Encoding": "identity", "Range": "bytes=10-19"},
            {"Accept-Encoding": "gzip", "If-None-Match": (await context.request.get(direct)).headers["etag"]},
        ):
            wanted = await context.request.get(direct, headers=headers)
            for _ in range(3):
                got = await context.request.get(proxy.url + path, headers=headers)
                assert got.status == wanted.status
                assert await got.body() == await wanted.body()
                for name in ("content-encoding", "content-type", "content-range", "etag", "cache-control"):
                    assert got.headers.get(name) == wanted.headers.get(name), name
        await context.close()
