"""Other frameworks that keep their state in the process work by the cookie alone."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest
from needs import missing
from playwright.async_api import Browser, FilePayload, Page, Response, expect

from stickyproxy.tools.children import free_port

from .harness import PAGE_LIMIT_MS, Process, running, running_proxy, wait_until_ready
from .prepared import NotInstallableError, prepared_python
from .relay import running_relay

pytestmark = pytest.mark.extended

SIBLING_APP = Path(__file__).parent / "apps" / "sibling.py"
VISITS = 4


@contextmanager
def running_streamlit(count: int, folder: Path) -> Iterator[list[str]]:
    """Run `count` Streamlit processes; yield their addresses."""
    try:
        python = prepared_python("streamlit")
    except NotInstallableError as error:
        missing(str(error))
    settings_file = folder / ".streamlit" / "config.toml"
    settings_file.parent.mkdir()
    settings_file.write_text('[server]\ncookieSecret = "the same in every replica"\n')
    with ExitStack() as stack:
        processes: dict[int, Process] = {}
        for number in range(count):
            port = free_port("127.0.0.1", processes)
            settings = {
                "server.address": "127.0.0.1",
                "server.port": port,
                "server.headless": "true",
                "server.fileWatcherType": "none",
                "browser.gatherUsageStats": "false",
            }
            command = [str(python), "-m", "streamlit", "run", str(SIBLING_APP)]
            command += [f"--{name}={value}" for name, value in settings.items()]
            command += ["--", str(number)]
            processes[port] = stack.enter_context(running(f"streamlit-{number}", command, folder))
        for port, process in processes.items():
            wait_until_ready(process, f"http://127.0.0.1:{port}/_stcore/health")
        yield [f"127.0.0.1:{port}" for port in processes]


async def shows(page: Page, text: str) -> None:
    await expect(page.get_by_text(text, exact=True)).to_be_visible()


@pytest.mark.timeout(700)  # with the installation
async def test_streamlit_keeps_its_sessions_by_the_cookie(browser: Browser, tmp_path: Path) -> None:
    file: FilePayload = {"name": "file.txt", "mimeType": "text/plain", "buffer": b"for one process"}
    async with AsyncExitStack() as stack:
        backends = stack.enter_context(running_streamlit(3, tmp_path))
        proxies = [stack.enter_context(running_proxy(tmp_path, backends)) for _ in range(2)]
        relay = await stack.enter_async_context(running_relay([proxies[0].port]))
        pages: list[tuple[Page, str]] = []
        failures: list[str] = []

        def note(response: Response) -> None:
            if response.status >= 400:
                failures.append(f"{response.status} {response.url}")

        for _ in range(VISITS):
            context = await browser.new_context()
            page = await context.new_page()
            page.on("response", note)
            await page.goto(relay.url, timeout=PAGE_LIMIT_MS)
            await page.get_by_role("button", name="Increment").click()
            await shows(page, "count 1")
            await page.wait_for_function("document.querySelector('img')?.naturalWidth === 1", timeout=PAGE_LIMIT_MS)
            await page.locator("input[type=file]").set_input_files(file)
            await shows(page, f"got file.txt {len(file['buffer'])}")
            pages.append((page, await page.get_by_text("replica ").inner_text()))
        assert len({name for _, name in pages}) > 1, "all sessions are on one replica"

        relay.move([proxies[1].port])
        for page, name in pages:
            await page.get_by_role("button", name="Increment").click()
            await shows(page, "count 2")
            await shows(page, name)
            await page.context.close()
        assert failures == []
