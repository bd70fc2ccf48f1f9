"""An app under a sub-path works whole: links, sub pages, uploads, downloads and the socket."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from .apps.content import download_content
from .harness import PAGE_LIMIT_MS, Replica, Visit, addresses, reconnected, running_proxy, running_replicas, sessions
from .relay import Edit, running_relay

pytestmark = pytest.mark.extended

PREFIX = "/tools/app"
UPLOADED = "uploaded below a prefix"


async def use_whole_site(browser: Browser, url: str, file: Path) -> None:
    """Visit every kind of thing that the app has, below `url`."""
    visit = await Visit.begin(browser, url)
    page, name = visit.page, await visit.replica()
    await visit.click(1)

    await page.locator("input[type=file]").set_input_files(file)
    await expect(page.get_by_test_id("upload-report")).to_have_text(f"{file.name} {len(UPLOADED)}")
    for button in ("download", "download-file"):
        async with page.expect_download(timeout=PAGE_LIMIT_MS) as event:
            await page.get_by_test_id(button).click()
        assert (await (await event.value).path()).read_bytes() == download_content()

    await page.get_by_test_id("to-site").click()
    await expect(page.get_by_test_id("part")).to_have_text("outer")
    await expect(page).to_have_url(f"{url}site")
    await visit.connected()
    await page.get_by_test_id("to-inner").click()
    await expect(page.get_by_test_id("part")).to_have_text("inner")
    await expect(page).to_have_url(f"{url}site/inner")
    await page.reload()
    await expect(page.get_by_test_id("part")).to_have_text("inner")
    await visit.connected()
    await page.get_by_test_id("to-home").click()
    await expect(page.get_by_test_id("count")).to_have_text("0")
    await expect(page).to_have_url(url)
    await visit.connected()
    await visit.click(1)
    assert await visit.replica() == name

    assert visit.failures == []
    assert all(request.startswith((url, "blob:", "data:")) for request in visit.requests), visit.requests
    assert len(visit.websockets) == len(visit.documents), visit.websockets
    await page.context.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text(UPLOADED)
    return path


async def test_an_app_under_a_forwarded_prefix_works_whole(
    browser: Browser, three_replicas: list[Replica], tmp_path: Path, file: Path
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(three_replicas)))
        relay = await stack.enter_async_context(running_relay([proxy.port], Edit(prefix=PREFIX)))
        for _ in three_replicas:
            await use_whole_site(browser, relay.url, file)


@pytest.fixture(scope="module")
def mounted_replicas(nicegui: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Yield two replicas that mount NiceGUI in a FastAPI app; their compressed pages have no Content-Length."""
    with running_replicas(2, tmp_path_factory.mktemp("mounted"), "--mount", "/gui") as replicas:
        yield replicas


async def test_an_app_that_is_mounted_works_whole(
    browser: Browser, mounted_replicas: list[Replica], tmp_path: Path, file: Path
) -> None:
    with running_proxy(tmp_path, addresses(mounted_replicas)) as proxy:
        for _ in mounted_replicas:
            await use_whole_site(browser, f"{proxy.url}gui/", file)


@pytest.mark.parametrize(("prefix", "path"), [(PREFIX, ""), ("", "gui/"), (PREFIX, "gui/")])
async def test_below_a_prefix_pages_find_their_replica_without_cookies(
    browser: Browser,
    three_replicas: list[Replica],
    mounted_replicas: list[Replica],
    tmp_path: Path,
    prefix: str,
    path: str,
) -> None:
    replicas = mounted_replicas if path else three_replicas
    async with AsyncExitStack() as stack:
        proxies = [stack.enter_context(running_proxy(tmp_path, addresses(replicas), "--page-token")) for _ in range(2)]
        edit = Edit(cookies=False, prefix=prefix)
        relay = await stack.enter_async_context(running_relay([proxy.port for proxy in proxies], edit))
        pages = [await Visit.begin(browser, relay.url + path) for _ in range(3)]
        before = await sessions(pages)
        relay.sever()
        await reconnected(pages, before)
        for page in pages:
            await page.click(1)
            assert page.documents == [relay.url + path]
            assert page.failures == []
