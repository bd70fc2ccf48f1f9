"""Uploads and downloads reach the replica of the page that they belong to, whole and once."""

import asyncio
import hashlib
import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from .apps.content import download_content
from .harness import PAGE_LIMIT_MS, Replica, Visit, addresses, leave, running_proxy, visits_to_several
from .relay import Edit, running_relay, with_and_without_cookies

pytestmark = pytest.mark.extended

UPLOADS = 4
UPLOAD_BYTES = 50_000_000
DOWNLOADS = 10


@with_and_without_cookies
async def test_four_uploads_of_50_megabytes_reach_their_replicas(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas), *options))
        relay = await stack.enter_async_context(running_relay([proxy.port], edit))
        pages = await visits_to_several(browser, relay.url, UPLOADS)
        names = [await page.replica() for page in pages]

        async def upload(page: Visit, number: int) -> str:
            content = os.urandom(1000) * (UPLOAD_BYTES // 1000)
            file = tmp_path / f"{number}.bin"
            file.write_bytes(content)
            await page.page.locator("input[type=file]").set_input_files(file)
            await expect(page.page.get_by_test_id("upload-report")).to_have_text(f"{number}.bin {UPLOAD_BYTES}")
            file.unlink()
            return f"upload {UPLOAD_BYTES} {hashlib.sha256(content).hexdigest()}"

        lines = await asyncio.gather(*(upload(page, number) for number, page in enumerate(pages)))
        journals = {replica.name: Counter(replica.journal.read_text().splitlines()) for replica in three_replicas}
        for line, name in zip(lines, names, strict=True):
            assert {other: journal[line] for other, journal in journals.items() if line in journal} == {name: 1}
        assert [failure for page in pages for failure in page.failures] == []
        await leave(pages)


@with_and_without_cookies
async def test_ten_downloads_of_files_come_from_the_replica_of_their_page(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    """Only the page's replica knows the file, by an address that works once (`ui.download.file`)."""
    before = {replica.name: replica.counts()["auto"] for replica in three_replicas}
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas), *options))
        relay = await stack.enter_async_context(running_relay([proxy.port], edit))
        pages = await visits_to_several(browser, relay.url, 3)
        names = [await page.replica() for page in pages]
        used: Counter[str] = Counter()
        for number in range(DOWNLOADS):
            page = pages[number % len(pages)]
            async with page.page.expect_download(timeout=PAGE_LIMIT_MS) as event:
                await page.page.get_by_test_id("download-file").click()
            saved = await (await event.value).path()
            assert saved.read_bytes() == download_content()
            used[names[number % len(pages)]] += 1
        await leave(pages)

    served = Counter(
        replica.name
        for replica in three_replicas
        for line in [line for line in replica.journal.read_text().splitlines() if line.startswith("auto")][
            before[replica.name] :
        ]
        if line.startswith("auto 200 ")
    )
    assert served == used
