"""Chromium by https to real NiceGUI replicas, plain ones and such as serve https themselves."""

import asyncio
from pathlib import Path
from urllib.request import urlopen

import pytest
from integration.tls import Authority
from playwright.async_api import Browser, expect

from .harness import WATCH_POPUP, Visit, addresses, leave, reconnected, running_proxy, running_replicas, sessions


@pytest.mark.parametrize("backends", [False, True], ids=["http-replicas", "https-replicas"])
async def test_a_page_lives_by_https(browser: Browser, tmp_path: Path, backends: bool) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(tmp_path)
    options = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    replica: list[str] = []
    if backends:
        (tmp_path / "ca.crt").write_bytes(authority.pem)
        own = authority.issue("127.0.0.1")
        (tmp_path / "replica.pem").write_bytes(own.certificate + own.key)
        replica = ["--tls", str(tmp_path / "replica.pem")]
        options += ["--backend-ca", str(tmp_path / "ca.crt")]
    scheme = "https://" if backends else ""
    with (
        running_replicas(2, tmp_path, *replica) as replicas,
        running_proxy(tmp_path, [scheme + address for address in addresses(replicas)], *options) as proxy,
    ):
        url = proxy.url.replace("http://", "https://")
        context = await browser.new_context(ignore_https_errors=True)
        await context.add_init_script(WATCH_POPUP)
        pages = [await Visit.begin_in(context, url) for _ in range(2)]
        names = [await page.replica() for page in pages]
        for page in pages:
            await page.click(1)
            assert page.websockets
            assert all(websocket.startswith("wss://") for websocket in page.websockets)
            assert page.complaints == []
        (cookie,) = [cookie for cookie in await context.cookies() if cookie["name"] == "stickyproxy"]
        assert cookie["secure"]

        # A new certificate, while the pages are open; and then new sockets, which see it.
        authority.issue("127.0.0.1", "second.test").write(tmp_path)
        proxy.process.read_log_until("new connections use the new certificates")
        for page in pages:
            await page.click(2)
        before = await sessions(pages)
        for page in pages:
            await page.page.evaluate("window.socket.io.engine.close()")
        await reconnected(pages, before)
        for page, name in zip(pages, names, strict=True):
            await page.click(3)
            assert await page.replica() == name
            assert len(page.documents) == 1
            await expect(page.page.locator("#popup")).to_have_attribute("aria-hidden", "true")

        # Sockets that are closed politely end for Chromium too: their pages move to the other replica.
        left = next(replica for replica in replicas if replica.name == names[0])
        target = f"http://127.0.0.1:{proxy.admin_port}/drain?backend={left.address}&wait=10s&idle=0s"
        answer = await asyncio.to_thread(urlopen, target, timeout=90)
        answer.close()
        assert answer.status == 200
        for page, name in zip(pages, names, strict=True):
            if name == left.name:
                await page.at(next(replica.name for replica in replicas if replica is not left))
        await leave(pages)
