"""Take the picture of the dashboard: ``python -m benchmarks.screenshot``.

Real NiceGUI replicas, a real proxy and scripted pages as in `benchmarks.chaos`; one replica is killed on the way, and
what the page says of it is printed. Needs Chromium and the `dev` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from playwright.async_api import Browser, async_playwright, expect

from benchmarks import system
from benchmarks.chaos.scenarios import Plan, Stage, staged

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "dashboard.png"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
LIMIT_MS = 60_000


async def photograph(browser: Browser, url: str, path: Path, width: int, scheme: str) -> list[str]:
    """Open the dashboard and save what it shows; give its sentences."""
    context = await browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=1.5, timezone_id="UTC", reduced_motion="reduce",
    )  # fmt: skip
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator("#live")).to_have_attribute("data-state", "live", timeout=LIMIT_MS)
    await asyncio.sleep(6)  # so that rates are those of some seconds
    await page.screenshot(path=path, full_page=True)
    said = [await page.locator("#headline").inner_text(), await page.locator("#recent").inner_text()]
    await context.close()
    return said


async def lose_one(stage: Stage) -> int:
    """Kill a pod as a lost node does, and start another in its place; give how many pages it had."""
    cluster = stage.cluster
    pod = cluster.pods[0]
    victims = len(stage.pages_of(pod))
    pod.child.signal(signal.SIGKILL)
    await pod.child.ended()
    await asyncio.sleep(cluster.times.view_s)
    cluster.api.delete(f"app-{pod.name}")
    cluster.pods.remove(pod)
    await cluster.start_pod()
    return victims


async def run(pages: int, before_s: float, after_s: float, shots: Sequence[tuple[Path, int, str]]) -> None:
    """Stage it and take all pictures."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        sys.exit("expected Chromium (apt-get install chromium), found none")
    async with (
        staged(Plan(pages=pages, load=0.2), pods=3, pages=pages, proxies=1) as stage,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            url = f"http://{stage.cluster.proxies[0].admin}/"
            watcher = await browser.new_page()
            await watcher.goto(url)
            await asyncio.sleep(before_s)
            victims = await lose_one(stage)
            print(f"killed a replica that had {victims} pages", flush=True)
            told = re.compile(rf"1 replica went away: {victims} pages? moved, 0 lost\.$")
            await expect(watcher.locator("#recent")).to_have_text(told, timeout=LIMIT_MS)
            await asyncio.sleep(after_s)
            for path, width, scheme in shots:
                said = await photograph(browser, url, path, width, scheme)
                print(f"{path}: {' '.join(said)}", flush=True)
        finally:
            await browser.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the picture, or with --all those of both schemes and three widths."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshot", description=__doc__)
    parser.add_argument("--pages", type=int, default=128, metavar="N", help="open pages; default 128")
    parser.add_argument("--before", type=float, default=60.0, metavar="S", help="seconds before one is killed")
    parser.add_argument("--after", type=float, default=45.0, metavar="S", help="seconds from then to the picture")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="save all variants there instead")
    options = parser.parse_args(arguments)
    shots = [(TARGET, 1280, "light")]
    if options.all:
        options.all.mkdir(parents=True, exist_ok=True)
        shots = [(options.all / f"{w}-{s}.png", w, s) for w in (360, 1280, 1600) for s in ("light", "dark")]
    system.raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options.pages, options.before, options.after, shots))


if __name__ == "__main__":
    main()
