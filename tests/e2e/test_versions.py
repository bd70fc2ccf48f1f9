"""Pages of older versions of NiceGUI are kept as those of the newest. Each runs in an environment of its own."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from needs import missing
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
)
from .prepared import NotInstallableError, prepared_python
from .relay import CUT_S, Edit, running_relay, with_and_without_cookies

pytestmark = pytest.mark.extended

CLASSIC_APP = Path(__file__).parent / "apps" / "classic.py"
OLD = ("1.4.37", "2.24.2", "3.6.0")
NEWEST = "newest"
"""The version of this project's own environment, which the other tests are about."""

PAGES = 3

RELOADS_WHEN_USED = {"3.6.0"}
"""Versions that reload a page with every reconnect once it has shown a change, with and without a proxy: the browser
asks for messages from the first on, which the server has dropped as acknowledged (NiceGUI issue 6018). Up to then they
keep their pages, so with them a page is used only at the end."""

INSTALL_AND_TEST_S = 700


@dataclass
class Version:
    """A NiceGUI version and two replicas that run it."""

    name: str
    replicas: list[Replica]

    async def use(self, pages: list[Visit]) -> None:
        """Let each page show a change, if that does not hurt."""
        if self.name not in RELOADS_WHEN_USED:
            for page in pages:
                await page.click(1)

    async def expect_kept(self, pages: list[Visit], serials: list[str]) -> None:
        """Expect that each page was never loaded again, and that its replica still has the page that it built."""
        for page, serial in zip(pages, serials, strict=True):
            await page.page.get_by_test_id("ask-serial").click()
            await expect(page.page.get_by_test_id("told-serial")).to_have_text(serial)
            await expect(page.page.get_by_test_id("serial")).to_have_text(serial)
            if self.name not in RELOADS_WHEN_USED:
                await page.click(2)
            assert len(page.documents) == 1, f"reloaded: {page.complaints}"


def python_of(name: str) -> Path:
    try:
        return prepared_python(name)
    except NotInstallableError as error:
        missing(str(error))


def classic_replicas(version: str, count: int, folder: Path, *options: str) -> AbstractContextManager[list[Replica]]:
    """Run replicas of `apps/classic.py` on that version of NiceGUI."""
    if version == NEWEST:
        return running_replicas(count, folder, *options, app=CLASSIC_APP)
    return running_replicas(count, folder, *options, app=CLASSIC_APP, python=python_of(f"nicegui-{version}"))


@pytest.fixture(scope="module", params=OLD)
def version(
    nicegui: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Version]:
    with classic_replicas(request.param, 2, tmp_path_factory.mktemp("versions")) as replicas:
        yield Version(request.param, replicas)


async def serials_of(pages: list[Visit]) -> list[str]:
    return [await page.page.get_by_test_id("serial").inner_text() for page in pages]


@pytest.mark.timeout(INSTALL_AND_TEST_S)
async def test_pages_of_older_versions_survive_a_cut_connection(
    browser: Browser, version: Version, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(version.replicas)))
        relay = await stack.enter_async_context(running_relay([proxy.port]))
        pages = await visits(browser, relay.url, PAGES)
        await version.use(pages)
        serials, before = await serials_of(pages), await sessions(pages)
        async with relay.outage(sever=True):
            await asyncio.sleep(CUT_S)
        await reconnected(pages, before)
        await version.expect_kept(pages, serials)


@pytest.mark.timeout(INSTALL_AND_TEST_S)
async def test_pages_of_older_versions_survive_a_killed_proxy(
    browser: Browser, version: Version, tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(version.replicas)) as first:
        pages = await visits(browser, first.url, PAGES)
        await version.use(pages)
        serials, before = await serials_of(pages), await sessions(pages)
        with running_successor(first, tmp_path, addresses(version.replicas)):
            await reconnected(pages, before)
            await version.expect_kept(pages, serials)
            await leave(pages)


@pytest.mark.timeout(INSTALL_AND_TEST_S)
@with_and_without_cookies
async def test_pages_of_older_versions_survive_a_move_to_another_proxy(
    browser: Browser, version: Version, tmp_path: Path, edit: Edit | None, options: tuple[str, ...]
) -> None:
    backends = addresses(version.replicas)
    async with AsyncExitStack() as stack:
        first = stack.enter_context(running_proxy(tmp_path, backends, *options))
        other = stack.enter_context(running_proxy(tmp_path, backends[::-1], *options))
        relay = await stack.enter_async_context(running_relay([first.port], edit))
        pages = await visits(browser, relay.url, PAGES)
        await version.use(pages)
        serials, before = await serials_of(pages), await sessions(pages)
        relay.move([other.port])
        await reconnected(pages, before)
        await version.expect_kept(pages, serials)


@pytest.mark.timeout(INSTALL_AND_TEST_S)
@pytest.mark.parametrize(
    ("name", "transports"),
    [*((name, "websocket,polling") for name in OLD), (NEWEST, "polling")],
)
async def test_pages_of_older_versions_recover_from_a_killed_replica(
    browser: Browser, nicegui: None, tmp_path: Path, name: str, transports: str
) -> None:
    """NiceGUI 3.6.0 by itself never reloads a page whose replica is gone: it does not know its own refusal."""
    with (
        classic_replicas(name, 2, tmp_path, "--transports", transports) as replicas,
        running_proxy(tmp_path, addresses(replicas)) as proxy,
    ):
        page = await Visit.begin(browser, proxy.url)
        lost = await page.replica()
        kept = next(replica.name for replica in replicas if replica.name != lost)
        next(replica for replica in replicas if replica.name == lost).process.kill()
        await page.at(kept)
        await page.click(1)
        assert page.documents == [proxy.url] * 2, "the first load and one reload"
        await leave([page])


@pytest.mark.timeout(INSTALL_AND_TEST_S)
async def test_assets_of_a_version_come_from_replicas_that_run_it(
    browser: Browser, nicegui: None, tmp_path: Path
) -> None:
    """As while a new version is rolled out; without cookies nothing but the path tells where an asset belongs."""
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir()
    async with AsyncExitStack() as stack:
        old = stack.enter_context(classic_replicas("2.24.2", 1, folders[0]))
        new = stack.enter_context(classic_replicas(NEWEST, 1, folders[1]))
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(old + new), "--page-token"))
        relay = await stack.enter_async_context(running_relay([proxy.port], Edit(cookies=False)))
        pages: list[Visit] = []
        while len(pages) < 4 or not all(replica.counts()["page"] for replica in old + new):
            assert len(pages) < 16, "all visitors are sent to one version"
            pages.append(await Visit.begin(browser, relay.url))
            await pages[-1].page.wait_for_load_state("networkidle", timeout=PAGE_LIMIT_MS)
            await pages[-1].click(1)
        assert sum(replica.counts()["page"] for replica in old + new) == len(pages)
        assert [failure for page in pages for failure in page.failures] == []
