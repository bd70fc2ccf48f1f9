"""A sidecar beside a real NiceGUI app whose event loop stands still and goes on again."""

import asyncio
import signal
import urllib.error
import urllib.request
from pathlib import Path

from playwright.async_api import Browser

from .harness import PAGE_LIMIT_MS, Visit, running_proxy, running_replicas

GET = b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n"

LIMIT_S = PAGE_LIMIT_MS / 1000


def look(port: int) -> tuple[int, str]:
    """Ask /app/livez."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/app/livez", timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


async def becomes(port: int, status: int) -> str:
    """Ask /app/livez until it answers with a status; give what it says."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found, text = await asyncio.to_thread(look, port)
            if found == status:
                return text


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    return reader, writer


async def test_an_app_that_stands_still_is_told_from_one_that_works(browser: Browser, tmp_path: Path) -> None:
    with running_replicas(1, tmp_path) as (replica,):
        options = ["--local-backend", replica.address, "--app-stuck-after", "1s"]
        with running_proxy(tmp_path, [replica.address], *options) as proxy:
            visit = await Visit.begin(browser, proxy.url)
            await visit.click(1)
            assert look(proxy.admin_port)[0] == 200
            replica.process.popen.send_signal(signal.SIGSTOP)
            try:
                assert look(proxy.admin_port)[0] == 200, "nobody waits yet"
                asked = [await ask(proxy.port) for _ in range(2)]
                said = await becomes(proxy.admin_port, 503)
                assert "has left a request without a first byte" in said
                assert look(proxy.admin_port)[0] == 503
            finally:
                replica.process.popen.send_signal(signal.SIGCONT)
            assert (await becomes(proxy.admin_port, 200)).startswith("alive: ")
            for reader, writer in asked:
                async with asyncio.timeout(LIMIT_S):
                    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()
                await writer.wait_closed()
            await visit.page.context.close()
