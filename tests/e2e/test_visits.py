"""Visitors' browsers, three replicas, one proxy: the promise that the project is for."""

import asyncio
import hashlib
import os
from collections import Counter
from pathlib import Path

from playwright.async_api import Browser, expect

from .apps.content import download_content
from .harness import LOST, PAGE_LIMIT_MS, Replica, Visit, addresses, running_proxy, total

VISITS = 20
AT_ONCE = 4
"""Browsers that load at the same time; more would only make two cores queue."""


async def test_twenty_fresh_visits_each_load_once_and_stay_on_one_replica(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    before = total(three_replicas)
    gate = asyncio.Semaphore(AT_ONCE)
    with running_proxy(tmp_path, addresses(three_replicas)) as proxy:

        async def visit() -> tuple[Visit, str]:
            async with gate:
                visit = await Visit.begin(browser, proxy.url)
                name = await visit.replica()
                for click in (1, 2, 3):
                    await visit.click(click)
                return visit, name

        visits = await asyncio.gather(*(visit() for _ in range(VISITS)))

        # All pages stay open until every visitor has come, then each must still be the page that it was.
        for visited, name in visits:
            await visited.click(4)
            assert await visited.replica() == name
            assert visited.documents == [proxy.url]
            # Twenty pages in one browser on two cores starve each other's heartbeats, with and without a proxy.
            assert [complaint for complaint in visited.complaints if complaint != LOST] == []
            assert len(visited.websockets) == 1
        built = total(three_replicas) - before
        for visited, _ in visits:
            await visited.page.context.close()

    assert built["page"] == VISITS, "replicas built another number of pages than there were visits"
    visitors = Counter(name for _, name in visits)
    assert set(visitors) == {replica.name for replica in three_replicas}, f"uneven: {visitors}"


async def test_the_socket_is_a_websocket_and_nothing_is_polled(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(three_replicas)) as proxy:
        visit = await Visit.begin(browser, proxy.url)
        await visit.click(1)
        await visit.page.context.close()

    assert len(visit.websockets) == 1
    assert f"ws://127.0.0.1:{proxy.port}/_nicegui_ws/" in visit.websockets[0]
    assert "transport=websocket" in visit.websockets[0]
    assert [url for url in visit.requests if "transport=polling" in url] == []


async def test_uploads_and_downloads_of_megabytes_arrive_whole(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    content = os.urandom(5_000_000)
    file = tmp_path / "five megabytes.bin"
    file.write_bytes(content)
    with running_proxy(tmp_path, addresses(three_replicas)) as proxy:
        visit = await Visit.begin(browser, proxy.url)
        name = await visit.replica()
        await visit.page.locator("input[type=file]").set_input_files(file)
        await expect(visit.page.get_by_test_id("upload-report")).to_have_text(f"{file.name} {len(content)}")

        async with visit.page.expect_download(timeout=PAGE_LIMIT_MS) as event:
            await visit.page.get_by_test_id("download").click()
        download = await event.value
        saved = await download.path()
        downloaded = saved.read_bytes()
        assert visit.complaints == []
        await visit.page.context.close()

    assert downloaded == download_content()
    journal = next(replica for replica in three_replicas if replica.name == name).journal.read_text()
    assert f"upload {len(content)} {hashlib.sha256(content).hexdigest()}" in journal.splitlines()


async def test_a_page_whose_replica_is_killed_reloads_once_on_another_and_works(
    browser: Browser, own_replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(own_replicas)) as proxy:
        visit = await Visit.begin(browser, proxy.url)
        await visit.click(1)
        lost = await visit.replica()
        kept = next(replica for replica in own_replicas if replica.name != lost)
        next(replica for replica in own_replicas if replica.name == lost).process.kill()

        await expect(visit.page.get_by_test_id("replica")).to_have_text(kept.name)
        await visit.connected()
        for click in (1, 2, 3):
            await visit.click(click)
        assert visit.documents == [proxy.url] * 2, "the first load and one reload"
        assert kept.counts()["page"] == 1
        await visit.page.context.close()


async def test_a_page_survives_a_restart_of_the_proxy_without_a_reload(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(three_replicas)) as first:
        visit = await Visit.begin(browser, first.url)
        name = await visit.replica()
        await visit.click(1)
    with running_proxy(tmp_path, addresses(three_replicas), port=first.port):
        await expect(visit.page.locator("#popup")).to_have_attribute("aria-hidden", "true")
        await visit.click(2)
        assert await visit.replica() == name
        assert visit.documents == [first.url]
        await visit.page.context.close()
