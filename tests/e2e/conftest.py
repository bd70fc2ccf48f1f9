"""Fixtures of the end-to-end tests. What is missing is named; on a CI machine it is a failure, elsewhere a skip."""

import importlib.util
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from needs import missing
from playwright.async_api import Browser, async_playwright

from benchmarks import chromium as chromium_browser

from .harness import Replica, running_replicas

LIMIT_S = 300
"""Of a test that says none of its own: processes and pages that a busy machine starts slowly are no failure."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here the longer limit."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="session", autouse=True)
def nicegui() -> None:
    """Require NiceGUI."""
    if importlib.util.find_spec("nicegui") is None:
        missing("NiceGUI (pip install 'stickyproxy[demo]')")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of an installed Chromium; Playwright's own browsers are not used."""
    found = chromium_browser.find()
    return found or missing("Chromium (apt-get install chromium)")


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """Yield a Chromium for one test."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=chromium_browser.FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture(scope="session")
def three_replicas(nicegui: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Yield three replicas that several tests share: none may kill them, and all count by differences."""
    with running_replicas(3, tmp_path_factory.mktemp("replicas")) as replicas:
        yield replicas


@pytest.fixture
def own_replicas(nicegui: None, tmp_path: Path) -> Iterator[list[Replica]]:
    """Yield two replicas that the test may kill."""
    with running_replicas(2, tmp_path) as replicas:
        yield replicas
