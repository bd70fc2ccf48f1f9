"""What fails is said, and what can recover does so by itself."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Response, expect

from stickyproxy.tools.children import free_port

from .harness import PAGE_LIMIT_MS, Replica, Visit, addresses, leave, running_proxy, running_replicas, total, visits
from .relay import Edit, Relay, running_relay

pytestmark = pytest.mark.extended

KILLS = 3

RECOVERY_LIMIT_S = 3.0
"""Median time from a replica's death to a page that works on another one."""

REASON = "x-stickyproxy-reason"

ELSEWHERE = """
lost => {
  const name = document.querySelector("[data-testid=replica]")?.textContent;
  return name && name !== lost && window.did_handshake === true;
}
"""
COUNTED = "() => document.querySelector('[data-testid=count]')?.textContent === '1'"


async def recovered(visit: Visit, lost: str) -> float:
    """Wait until the page works on another replica; return the time at which it did."""
    await visit.page.wait_for_function(ELSEWHERE, arg=lost, timeout=PAGE_LIMIT_MS)
    await visit.page.get_by_test_id("increment").click()
    await visit.page.wait_for_function(COUNTED, timeout=PAGE_LIMIT_MS)
    return time.monotonic()


async def test_a_killed_replica_costs_its_pages_one_reload_and_three_seconds(browser: Browser, tmp_path: Path) -> None:
    with running_replicas(KILLS + 1, tmp_path) as replicas, running_proxy(tmp_path, addresses(replicas)) as proxy:
        pages = await visits(browser, proxy.url, 6)
        alive = list(replicas)
        took: list[float] = []
        for _ in range(KILLS):
            homes = [await page.replica() for page in pages]
            lost = max(alive, key=lambda replica: homes.count(replica.name))
            alive.remove(lost)
            victims = [page for page, home in zip(pages, homes, strict=True) if home == lost.name]
            assert victims
            loads = {id(page): len(page.documents) for page in pages}
            built = total(alive)["page"]

            lost.process.kill()
            killed = time.monotonic()
            took += [at - killed for at in await asyncio.gather(*(recovered(page, lost.name) for page in victims))]

            reloads = [len(page.documents) - loads[id(page)] for page in pages]
            assert reloads == [int(page in victims) for page in pages]
            assert total(alive)["page"] - built == len(victims)
        await leave(pages)

    print(f"recovered after {[round(one_s, 2) for one_s in took]} s")
    assert statistics.median(took) <= RECOVERY_LIMIT_S


def collect_documents(page: Page) -> list[Response]:
    """Collect the answers to the page's own navigations."""
    documents: list[Response] = []

    def collect(response: Response) -> None:
        if response.request.is_navigation_request() and response.frame == page.main_frame:
            documents.append(response)

    page.on("response", collect)
    return documents


@pytest.mark.parametrize("fragment", ["", "#part"])
async def test_without_a_replica_a_visitor_is_told_so_and_let_in_when_one_appears(
    browser: Browser, nicegui: None, tmp_path: Path, fragment: str
) -> None:
    port = free_port("127.0.0.1")
    with running_proxy(tmp_path, [f"127.0.0.1:{port}"]) as proxy:
        page = await browser.new_page()
        documents = collect_documents(page)
        url = f"{proxy.url}site/inner?answer=42{fragment}"
        await page.goto(url)
        assert documents[0].status in (502, 503)
        assert documents[0].headers[REASON]
        assert documents[0].headers["content-type"].startswith("text/html")
        assert documents[0].headers["cache-control"] == "no-store"
        assert "replica" in (await page.inner_text("body")).lower()
        assert str(port) not in await page.content(), "an address inside the cluster is nobody's business"

        with running_replicas(1, tmp_path, port=port):
            await expect(page.get_by_test_id("part")).to_have_text("inner")
            await page.wait_for_function("window.did_handshake === true", timeout=PAGE_LIMIT_MS)
            assert page.url == url
            assert documents[-1].status == 200
            await page.context.close()


async def test_a_page_whose_only_replica_is_restarted_reloads_once_and_works(
    browser: Browser, nicegui: None, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        port = free_port("127.0.0.1")
        proxy = stack.enter_context(running_proxy(tmp_path, [f"127.0.0.1:{port}"]))
        with running_replicas(1, tmp_path, port=port) as (replica,):
            visit = await Visit.begin(browser, proxy.url)
            await visit.click(1)
            await visit.click(2)
            replica.process.kill()
            await expect(visit.page.locator("#popup")).to_have_attribute("aria-hidden", "false")
            await visit.page.wait_for_event("websocket", timeout=PAGE_LIMIT_MS)
        assert visit.documents == [proxy.url], "reloaded although there was nothing to load"

        stack.enter_context(running_replicas(1, tmp_path, port=port))
        await visit.page.wait_for_function(
            "() => document.querySelector('[data-testid=count]')?.textContent === '0' && window.did_handshake === true",
            timeout=PAGE_LIMIT_MS,
        )
        await visit.click(1)
        assert visit.documents == [proxy.url] * 2, "the first load and one reload"
        await visit.page.context.close()


class Service(Relay):
    """A load balancer between proxy and replicas that keeps no affinity: sockets reach another replica than pages."""

    def target(self, head: bytes) -> int:
        return self.ports[b"/_nicegui_ws/" in head.partition(b"\r\n")[0]]


async def test_a_page_that_would_reload_for_ever_is_stopped_and_told_why(
    browser: Browser, own_replicas: list[Replica], tmp_path: Path
) -> None:
    """As where `--backend` is given a Service's address instead of those of the pods."""
    limit = 4
    async with AsyncExitStack() as stack:
        ports = [replica.port for replica in own_replicas]
        service = await stack.enter_async_context(running_relay(ports, Edit(), Service))
        backend = f"127.0.0.1:{service.port}"
        proxy = stack.enter_context(running_proxy(tmp_path, [backend], "--reload-limit", str(limit)))
        page = await browser.new_page()
        documents = collect_documents(page)
        async with page.expect_response(lambda response: REASON in response.headers, timeout=PAGE_LIMIT_MS) as event:
            await page.goto(proxy.url, wait_until="commit")
        told = await event.value
        assert told.request.is_navigation_request()
        assert told.status >= 400
        assert told.headers["content-type"].startswith("text/html")
        shown = [response for response in documents if REASON not in response.headers]
        assert limit <= len(shown) <= limit + 1
        assert total(own_replicas)["page"] <= len(shown) + 1
        await expect(page.locator("body")).to_contain_text("reload")
        await page.context.close()


async def test_visitors_who_leave_quickly_are_not_taken_for_a_loop(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    """Many people behind one address, a monitor, an impatient person: each page worked."""
    limit = 2
    with running_proxy(tmp_path, addresses(three_replicas), "--reload-limit", str(limit)) as proxy:
        context = await browser.new_context()
        for _ in range(limit + 3):
            visit = await Visit.begin_in(context, proxy.url)
            await visit.click(1)
            await visit.page.close()
        await context.close()
