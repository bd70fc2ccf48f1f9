"""The dashboard in real Chromium, before real NiceGUI replicas: what a newcomer sees, with the mouse and without."""

import json
import re
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stickyproxy.tools.children import free_port

from .harness import (
    Proxy,
    Visit,
    addresses,
    leave,
    reconnected,
    running_proxy,
    running_replicas,
    sessions,
    visits_to_several,
)
from .wire import running_wire

AXE = files("axe_playwright_python").joinpath("axe.min.js")


def admin(proxy: Proxy) -> str:
    return f"http://127.0.0.1:{proxy.admin_port}/"


def metrics(proxy: Proxy) -> dict[str, float]:
    with urllib.request.urlopen(f"{admin(proxy)}metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        s.name + "".join(f"{{{k}={v}}}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


class Dashboard:
    """The page, and all that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._on_console)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def cell(self, replica: str, label: str) -> Any:
        row = self.page.locator("#replicas tbody tr").filter(has_text=replica)
        return row.locator(f"td[data-label='{label}']")

    def state(self, replica: str) -> Any:
        return self.page.locator("#replicas tbody tr").filter(has_text=replica).locator(".chip")

    async def numbers(self) -> dict[str, int]:
        return {
            name: int((await self.page.locator(selector).inner_text()).replace(",", ""))
            for name, selector in (("pages", "#f-pages"), ("tunnels", "#f-tunnels"), ("lost", "#f-lost"))
        }


@asynccontextmanager
async def looking(browser: Browser, url: str, *, width: int = 1280, scheme: str = "light") -> AsyncIterator[Dashboard]:
    """Open the dashboard; at the end nothing may have been said on the console, and no other host asked."""
    context = await browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    dashboard = Dashboard(await context.new_page())
    await dashboard.page.goto(url)
    await expect(dashboard.page.locator("#live")).to_have_attribute("data-state", "live")
    yield dashboard
    await context.close()
    assert all(asked.startswith(url) for asked in dashboard.asked), dashboard.asked
    assert dashboard.complaints == []


async def test_a_killed_replica_is_told_in_plain_words_and_in_numbers(browser: Browser, tmp_path: Path) -> None:
    with running_replicas(3, tmp_path) as replicas, running_proxy(tmp_path, addresses(replicas)) as proxy:
        pages = await visits_to_several(browser, proxy.url, 6)
        homes = [await page.replica() for page in pages]
        lost = max(replicas, key=lambda replica: homes.count(replica.name))
        victims = homes.count(lost.name)
        async with looking(browser, admin(proxy)) as dashboard:
            page = dashboard.page
            await expect(page.locator("#headline")).to_have_text(f"3 replicas serve {len(pages)} open pages.")
            quiet = "no replica went away, no page moved and none was lost"
            await expect(page.locator("#recent")).to_contain_text(quiet)
            for replica in replicas:
                await expect(dashboard.state(replica.address)).to_have_text("ready")
                await expect(dashboard.cell(replica.address, "Pages")).to_have_text(str(homes.count(replica.name)))

            lost.process.kill()

            moved = f"1 replica went away: {victims} page{'' if victims == 1 else 's'} moved, 0 lost."
            await expect(page.locator("#recent")).to_contain_text(moved)
            await expect(page.locator("#headline")).to_have_text(f"2 replicas serve {len(pages)} open pages.")
            await expect(dashboard.state(lost.address)).to_have_text("unreachable")
            await expect(dashboard.cell(lost.address, "Pages")).to_have_text("0")
            await expect(dashboard.cell(lost.address, "Moved out")).to_have_text(str(victims))
            events = page.locator("#events li")
            for words in (f"{lost.address} closed {victims} open socket", f"{lost.address} cannot be reached"):
                await expect(events.filter(has_text=words)).to_have_count(1)
            await expect(events.filter(has_text=re.compile(rf"moved from {lost.address} to ")).first).to_be_visible()

            for visit in pages:
                await visit.connected()
            await expect(page.locator("#f-tunnels")).to_have_text(str(len(pages)))
            scraped = metrics(proxy)
            shown = await dashboard.numbers()
            assert shown["tunnels"] == scraped["stickyproxy_open_tunnels"]
            assert shown["pages"] == sum(n for k, n in scraped.items() if k.startswith("stickyproxy_backend_pages"))
            assert shown["lost"] == sum(n for k, n in scraped.items() if k.startswith("stickyproxy_pages_lost_total"))
            other = "stickyproxy_reconnects_total{backend=other}"
            assert sum(n for k, n in scraped.items() if k.startswith(other)) == victims
            for replica in replicas:
                for label, metric in (("Pages", "pages"), ("Sockets", "tunnels")):
                    value = scraped[f"stickyproxy_backend_{metric}{{backend={replica.address}}}"]
                    await expect(dashboard.cell(replica.address, label)).to_have_text(str(round(value)))
        await leave(pages)


async def test_parked_pages_are_told_and_nothing_of_them_without_parking(browser: Browser, tmp_path: Path) -> None:
    with running_replicas(2, tmp_path) as replicas:
        with running_proxy(tmp_path, addresses(replicas)) as proxy:
            async with looking(browser, admin(proxy)) as dashboard:
                await expect(dashboard.state(replicas[0].address)).to_have_text("ready")
                assert "park" not in (await dashboard.page.locator("body").inner_text()).lower()
        with running_proxy(tmp_path, addresses(replicas), "--park", "5m") as proxy:
            async with running_wire(proxy.port) as wire, looking(browser, admin(proxy)) as dashboard:
                page = dashboard.page
                await expect(page.locator("#parking-time")).to_have_text(
                    "kept for up to 5 minutes while their browsers are away"
                )
                await expect(page.locator("#parking-why")).to_have_text("No page has been parked since the start.")
                visit = await Visit.begin(browser, wire.url)
                name = await visit.replica()
                home = next(r for r in replicas if r.name == name).address
                other = next(r for r in replicas if r.name != name).address
                before = await sessions([visit])

                wire.break_off()
                for replica, pages in ((home, 1), (other, 0)):
                    await expect(dashboard.cell(replica, "Parked")).to_have_text(str(pages))
                    await expect(dashboard.cell(replica, "Pages")).to_have_text(str(pages))
                await expect(page.locator("#f-parked")).to_have_text("1")
                scraped = metrics(proxy)
                assert scraped["stickyproxy_parked_pages"] == 1
                assert scraped[f"stickyproxy_backend_parked_pages{{backend={home}}}"] == 1
                assert scraped[f"stickyproxy_backend_parked_pages{{backend={other}}}"] == 0
                await judge(page)

                wire.restore("same network")
                await reconnected([visit], before)
                await expect(page.locator("#f-parked")).to_have_text("0")
                await expect(page.locator("#f-parked-returned")).to_have_text("1")
                await expect(page.locator("#f-parked-released")).to_have_text("0")
                await expect(page.locator("#parking-why")).to_have_text(
                    "A page was parked 1 time since the start; none was let go."
                )
                await expect(page.locator("#recent")).to_contain_text("Parked pages: 1 came back.")
                await visit.click(1)
                assert await visit.replica() == name
                assert len(visit.documents) == 1
                await leave([visit])


async def test_a_replica_that_is_listed_no_more_stays_as_gone(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    with running_replicas(2, tmp_path) as replicas:
        config.write_text(f"backend = {json.dumps(addresses(replicas))}\n")
        with running_proxy(tmp_path, [], "--config", str(config)) as proxy:
            async with looking(browser, admin(proxy)) as dashboard:
                await expect(dashboard.page.locator("#headline")).to_have_text("2 replicas serve 0 open pages.")
                config.write_text(f"backend = {json.dumps(addresses(replicas)[:1])}\n")
                gone = replicas[1].address
                await expect(dashboard.state(gone)).to_have_text("gone")
                await expect(dashboard.page.locator("#headline")).to_have_text("1 replica serves 0 open pages.")
                await expect(dashboard.page.locator("#recent")).to_contain_text("1 replica went away")
                row = dashboard.page.locator("#replicas tbody tr").filter(has_text=gone)
                await expect(row.get_by_role("button")).to_have_count(0)


async def test_a_drain_asks_first_and_can_be_taken_back_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    with running_replicas(2, tmp_path) as replicas, running_proxy(tmp_path, addresses(replicas)) as proxy:
        visit = await Visit.begin(browser, proxy.url)
        name = await visit.replica()
        home = next(r for r in replicas if r.name == name)
        async with looking(browser, admin(proxy)) as dashboard:
            page = dashboard.page
            drain = page.get_by_role("button", name=f"Drain {home.address}", exact=True)
            await expect(drain).to_be_visible()
            for _ in range(10):
                await page.keyboard.press("Tab")
                if await drain.evaluate("button => button === document.activeElement"):
                    break
            await page.keyboard.press("Enter")
            dialog = page.get_by_role("dialog")
            await expect(dialog).to_contain_text(f"Drain {home.address}?")
            await expect(dialog).to_contain_text("1 open page stays")

            await page.keyboard.press("Escape")
            await expect(dialog).to_be_hidden()
            await expect(dashboard.state(home.address)).to_have_text("ready")
            assert await drain.evaluate("button => button === document.activeElement")

            await page.keyboard.press("Enter")
            await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await expect(dashboard.state(home.address)).to_have_text("drained by order")
            await expect(page.locator("#events li").filter(has_text=f"{home.address} drains by order")).to_have_count(1)
            newcomer = await Visit.begin(browser, proxy.url)
            assert await newcomer.replica() != home.name

            await page.get_by_role("button", name=f"Undrain {home.address}").click()
            await dialog.get_by_role("button", name="Take back").click()
            await expect(dashboard.state(home.address)).to_have_text("ready")
        await leave([visit, newcomer])


async def test_orders_that_are_switched_off_have_no_button(browser: Browser, tmp_path: Path) -> None:
    with running_proxy(tmp_path, ["127.0.0.1:9"], "--admin-actions", "off") as proxy:
        async with looking(browser, admin(proxy)) as dashboard:
            await expect(dashboard.state("127.0.0.1:9")).to_have_text("ready")
            await expect(dashboard.page.locator("#replicas").get_by_role("button")).to_have_count(0)


async def test_a_page_that_is_cut_off_says_so_and_comes_back_by_itself(browser: Browser, tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    with running_proxy(tmp_path, ["127.0.0.1:9"], port=port) as proxy:
        url = admin(proxy)
        context = await browser.new_context()
        dashboard = Dashboard(await context.new_page())
        page = dashboard.page
        await page.goto(url)
        await expect(page.locator("#live")).to_have_attribute("data-state", "live")
        proxy.process.kill()
        await expect(page.locator("#live")).to_have_attribute("data-state", "cut")
        await expect(page.locator("#banners")).to_contain_text("No word from the proxy.")
    with running_proxy(tmp_path, ["127.0.0.1:9", "127.0.0.1:7"], port=port, admin_port=proxy.admin_port):
        await expect(page.locator("#live")).to_have_attribute("data-state", "live")
        await expect(page.locator("#banners .banner")).to_have_count(0)
        await expect(page.locator("#headline")).to_contain_text("2 replicas serve")
        started = page.locator("#events li").filter(has_text="serves on")
        await expect(started).to_have_count(1)  # what the older proxy said is not mixed with it
        await context.close()


async def test_what_is_wrong_with_discovery_is_said_at_the_top(browser: Browser, tmp_path: Path) -> None:
    with running_proxy(tmp_path, [], "--dns", "no-such-host.invalid:80", until="livez") as proxy:
        async with looking(browser, admin(proxy)) as dashboard:
            banners = dashboard.page.locator("#banners")
            await expect(banners).to_contain_text("The list of replicas may be out of date.")
            await expect(banners).to_contain_text("No replica is known.")
            await expect(banners).to_contain_text("This proxy is not ready.")
            await expect(dashboard.page.locator("#headline")).to_have_text("No replica is known.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 760, 1600])
async def test_it_passes_axe_and_fits_the_screen(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text('backend = ["127.0.0.1:9", "127.0.0.1:7", "127.0.0.1:13"]\n')
    with running_proxy(tmp_path, [], "--config", str(config), "--park", "300") as proxy:
        async with looking(browser, admin(proxy), width=width, scheme=scheme) as dashboard:
            page = dashboard.page
            await expect(page.locator("#replicas tbody tr")).to_have_count(3)
            refused = await page.request.get(proxy.url)  # nobody listens: all are unreachable now
            assert refused.status == 502
            await expect(page.locator("#banners")).to_contain_text("No replica works.")
            config.write_text('backend = ["127.0.0.1:9", "127.0.0.1:7"]\n')
            await expect(dashboard.state("127.0.0.1:13")).to_have_text("gone")
            await page.get_by_role("button", name="Drain 127.0.0.1:7").click()
            await judge(page)
            await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
            await expect(dashboard.state("127.0.0.1:7")).to_have_text("unreachable")
            await judge(page)
            root = "document.documentElement"
            assert await page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0


async def judge(page: Page) -> None:
    """Let axe-core look at the page as it is."""
    await page.evaluate(AXE.read_text("utf-8"))
    found = await page.evaluate("axe.run()")
    assert found["passes"], "axe has looked"
    told = [(v["id"], v["help"], [n["html"] for n in v["nodes"]]) for v in found["violations"]]
    assert told == []


def test_files_of_the_page_ask_no_other_host() -> None:
    folder = files("stickyproxy.admin.dashboard")
    for name in ("index.html", "app.js", "charts.js", "words.js", "style.css", "uPlot.min.css"):
        text = folder.joinpath(name).read_text("utf-8")
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", re.sub(r"^\s*//.*$", "", text, flags=re.M)), name
