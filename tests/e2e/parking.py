"""One page of apps/parked.py that loses its network for a while, and what became of it.

Laws: a page is judged by what its user would see and by what its replica knows; every wait has a limit; a stopped
renderer always runs again.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import aiohttp
from playwright.async_api import Browser, Error, Page

from .harness import PAGE_LIMIT_MS
from .wire import Wire, running_wire

Way = Literal["cut-same", "cut-new", "lossy", "reset", "frozen"]
"""How a page loses its network:

cut-same: the device has none; what is open falls silent and goes on afterwards, what is begun meanwhile fails at once.
cut-new: the same, but the device comes back with another network, and only its own end hears that the old is gone.
lossy: as cut-new, but what is begun meanwhile hangs, as where packets are lost and the device does not know.
reset: every connection is reset at both ends, and so is each new one until it is over.
frozen: the renderer is stopped, as that of a tab in the background of a phone; its connections stay up.
"""

WAYS: Final[tuple[Way, ...]] = get_args(Way)

BACK_LIMIT_S: Final = 30.0
"""After an outage: socket.io waits up to 7.5 s before it tries again, and 20 s for an attempt that hangs."""

CATCH_UP: Final = 0.5
"""Seconds more for each second of an outage: on a busy machine a page needs them to show what it has missed."""

ANSWER_LIMIT_S: Final = 30.0
"""For a page to answer."""

CLICK_LIMIT_S: Final = 5.0
"""For a click to show: one that takes longer is dead to a user."""

GOES_ON_LIMIT_S: Final = 5.0
"""For the timer to show three more numbers; it ticks every 0.2 s."""

LOG_LINES: Final = 100
"""That the page's log shows."""

TYPED: Final = "typed before the outage"

_PREPARE: Final = """
mark => {
  window.mark = mark;
  window.beats = 0;
  setInterval(() => window.beats++, 100);
}
"""

_LOOK: Final = """
() => ({
  mark: window.mark ?? null,
  beats: window.beats ?? 0,
  connected: Boolean(window.socket?.connected && window.did_handshake),
  popup: document.getElementById("popup")?.getAttribute("aria-hidden") === "false",
  numbers: window.numbers ?? [],
  lines: [...document.querySelectorAll("[data-testid=log] *")].filter(each => !each.children.length)
    .map(each => each.textContent).filter(text => text.trim()),
  pushed: Number(document.querySelector("[data-testid=pushed]")?.textContent ?? -1),
  clicks: Number(document.querySelector("[data-testid=count]")?.textContent ?? -1),
})
"""

_SHORT_LOOK: Final = """
() => ({
  mark: window.mark ?? null,
  connected: Boolean(window.socket?.connected && window.did_handshake),
  last: window.numbers?.at(-1) ?? 0,
})
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a page; `faults` is empty where it was kept whole."""

    faults: tuple[str, ...]
    away_s: float
    """How long the outage was; longer than wanted where others were coming back."""
    back_after_s: float | None
    """Seconds from the end of the outage until the page had all that its replica had pushed till then."""
    numbers: int = 0
    """Updates that it had got in the end."""

    @property
    def kept(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        word = "kept" if self.kept else "lost: " + ", ".join(self.faults)
        return word if self.back_after_s is None else f"{word} (back after {self.back_after_s:.1f} s)"


@dataclass
class Parkable:
    """An open page of apps/parked.py."""

    page: Page
    ports: Sequence[int]
    """Of the replicas on one of which it lives."""
    serial: str = ""
    loads: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @classmethod
    async def begin(cls, page: Page, url: str, ports: Sequence[int]) -> "Parkable":
        """Open the page, and use it: type a text, click once."""
        found = cls(page, ports)
        page.on("request", lambda request: found.loads.append(request.url) if request.is_navigation_request() else None)
        page.on("console", lambda message: found.said.append(message.text))
        await page.goto(url, timeout=PAGE_LIMIT_MS)
        await page.wait_for_function("window.did_handshake === true", timeout=PAGE_LIMIT_MS)
        found.serial = await page.get_by_test_id("serial").inner_text()
        await page.evaluate(_PREPARE, found.serial)
        await page.get_by_test_id("text").fill(TYPED)
        await page.get_by_test_id("increment").click()
        await found.until(lambda kept: kept is not None and (kept["text"], kept["clicks"]) == (TYPED, 1), 30.0)
        return found

    async def kept(self) -> dict[str, Any] | None:
        """Ask the replicas what they know of the page; None where it is deleted."""
        found = await self._find()
        return found[1] if found is not None and found[1]["alive"] else None

    async def port(self) -> int:
        """Give the port of the replica that the page lives on."""
        found = await self._find()
        assert found is not None, "no replica knows the page"
        return found[0]

    async def _find(self) -> tuple[int, dict[str, Any]] | None:
        async with aiohttp.ClientSession() as session:
            for port in self.ports:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/pages") as answer:
                        for page in (await answer.json())["pages"]:
                            if page["serial"] == self.serial:
                                return port, page
        return None

    async def until(self, wanted: Callable[[dict[str, Any] | None], bool], limit_s: float) -> bool:
        """Ask until the replica's answer is as wanted; tell whether it was so within the time."""
        return await _until(lambda: self._is(wanted), limit_s)

    async def _is(self, wanted: Callable[[dict[str, Any] | None], bool]) -> bool:
        return wanted(await self.kept())

    async def look(self, what: str = _LOOK) -> dict[str, Any] | None:
        """Ask the page; None while it cannot answer, since it is being loaded."""
        try:
            seen: dict[str, Any] = await asyncio.wait_for(self.page.evaluate(what), ANSWER_LIMIT_S)
        except (Error, TimeoutError):
            return None
        return seen

    async def back(self, pushed: int, limit_s: float = BACK_LIMIT_S) -> float | None:
        """Wait until the page is connected and has what was pushed up to `pushed`; return how long that took.

        None: it did not come back in time, or was loaded anew.
        """
        begun = time.monotonic()
        gone = False

        async def there() -> bool:
            nonlocal gone
            seen = await self.look(_SHORT_LOOK)
            gone = seen is not None and seen["mark"] != self.serial
            return gone or (seen is not None and seen["connected"] and seen["last"] >= pushed)

        arrived = await _until(there, limit_s)
        return time.monotonic() - begun if arrived and not gone else None

    def gone(self, seen: dict[str, Any] | None) -> str:
        """Say what has become of a page that is not there, in its own words if it said any."""
        if seen is None:
            return "does not answer"
        why = [line for line in self.said if line.startswith("reloading because ")]
        told = why[0].removeprefix("reloading because ").partition(" for clientId")[0] if why else "it did not say why"
        return f"new document ({told})"

    async def judge(self, clicks: int) -> tuple[list[str], int]:
        """Click once more and find all that is wrong with the page; return it and the number of updates it has got."""
        faults: list[str] = []
        if len(self.loads) > 1:
            faults.append("reloaded")
        seen = await self.look()
        if seen is None or seen["mark"] != self.serial:
            return [self.gone(seen)], 0
        with suppress(Error):
            await self.page.get_by_test_id("increment").click(timeout=CLICK_LIMIT_S * 1000)

        async def clicked() -> bool:
            seen = await self.look()
            return seen is not None and seen["clicks"] == clicks

        if not await _until(clicked, CLICK_LIMIT_S):
            faults.append("first click dead")
        before = len(seen["numbers"])

        async def goes_on() -> bool:
            seen = await self.look()
            return seen is not None and len(seen["numbers"]) >= before + 3

        if not await _until(goes_on, GOES_ON_LIMIT_S):
            faults.append("timer stands")
        seen = await self.look()
        if seen is None or seen["mark"] != self.serial:
            return [*faults, self.gone(seen)], 0
        faults += gaps(seen)
        if seen["popup"]:
            faults.append("popup stays")
        kept = await self.kept()
        if kept is None:
            faults.append("deleted at its replica")
        else:
            if kept["text"] != TYPED:
                faults.append("input lost")
            if kept["clicks"] != clicks:
                faults.append(f"clicks at replica {kept['clicks']}")
        return faults, len(seen["numbers"])


def gaps(seen: dict[str, Any]) -> list[str]:
    """Compare the numbers that came with 1, 2, 3 and so on: scripts that ran, and lines of the log."""
    numbers: list[int] = seen["numbers"]
    wanted = range(1, max(numbers, default=0) + 1)
    faults = []
    if missing := len(set(wanted) - set(numbers)):
        faults.append(f"missing {missing}")
    if doubled := len(numbers) - len(set(numbers)):
        faults.append(f"doubled {doubled}")
    if not missing and not doubled and numbers != list(wanted):
        faults.append("out of order")
    lines: list[str] = seen["lines"]
    last = int(lines[-1].removeprefix("line ")) if lines else 0
    if lines != [f"line {number}" for number in range(max(1, last - LOG_LINES + 1), last + 1)]:
        faults.append(f"other lines in the log than should be: {len(lines)} of {last}")
    if abs(last - len(wanted)) > 1:
        faults.append(f"the log ends with line {last} of {len(wanted)}")
    return faults


async def _until(holds: Callable[[], Awaitable[bool]], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not await holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)  # neither a page nor a replica tells by itself
    return True


@asynccontextmanager
async def frozen(browser: Browser) -> AsyncIterator[None]:
    """Stop all renderers of a browser while the block lasts; its network process goes on, as on a phone.

    DevTools' own Page.setWebLifecycleState does not freeze a page that Playwright keeps visible: its timers run on.
    """
    session = await browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    renderers = [process["id"] for process in processes if process["type"] == "renderer"]
    assert renderers, "a browser without renderers"
    try:
        for renderer in renderers:
            os.kill(renderer, signal.SIGSTOP)
        yield
    finally:
        for renderer in renderers:
            with suppress(ProcessLookupError):
                os.kill(renderer, signal.SIGCONT)


@asynccontextmanager
async def outage(wire: Wire, browser: Browser, way: Way) -> AsyncIterator[None]:
    """Take the network from what is behind `wire` (or, frozen, the renderers from `browser`) while the block lasts."""
    if way == "frozen":
        async with frozen(browser):
            yield
    elif way == "reset":
        wire.break_off()
        try:
            yield
        finally:
            wire.restore("same network")
    else:
        wire.cut("hang" if way == "lossy" else "fail")
        try:
            yield
        finally:
            wire.restore("same network" if way == "cut-same" else "another network")


async def survive(
    launch: Callable[[], AbstractAsyncContextManager[Browser]],
    shared: Browser,
    target: int,
    ports: Sequence[int],
    way: Way,
    seconds: float,
    busy: asyncio.Semaphore,
) -> Outcome:
    """Open a page through `target`, let it lose its network for `seconds`, and tell what became of it.

    launch: makes a browser of its own, which a page that is to be frozen needs; the others share one. busy: how many
    pages may load, or come back and show what they have missed, at the same time: a dozen browsers at once would take
    all the CPU that the replicas need to answer within their 2 s, as they do on no user's own machine.
    """
    if way == "frozen":
        async with launch() as own:
            return await _survive_in(own, target, ports, way, seconds, busy)
    return await _survive_in(shared, target, ports, way, seconds, busy)


async def _survive_in(
    browser: Browser, target: int, ports: Sequence[int], way: Way, seconds: float, busy: asyncio.Semaphore
) -> Outcome:
    async with running_wire(target) as wire:
        context = await browser.new_context()
        try:
            async with busy:
                page = await Parkable.begin(await context.new_page(), wire.url, ports)
            await page.page.wait_for_function("(window.numbers?.length ?? 0) >= 5", timeout=PAGE_LIMIT_MS)
            before = await page.look()
            async with AsyncExitStack() as stack:
                async with outage(wire, browser, way):
                    begun = time.monotonic()
                    await asyncio.sleep(seconds)
                    await stack.enter_async_context(busy)
                    away_s = time.monotonic() - begun
                    kept = await page.kept()
                if way == "frozen":
                    await _prove_frozen(page, before, seconds)
                limit_s = BACK_LIMIT_S + CATCH_UP * seconds
                back = await page.back(kept["pushed"] if kept else 0, limit_s)
            if kept is None and back is not None:
                return Outcome(("deleted at its replica",), away_s, back)
            faults, numbers = await page.judge(clicks=2)
            if back is None and not faults:
                faults.append(f"not back within {limit_s:.0f} s")
            return Outcome(tuple(faults), away_s, back, numbers)
        finally:
            await context.close()


async def _prove_frozen(page: Parkable, before: dict[str, Any] | None, seconds: float) -> None:
    """Fail where the page's own clock ran on while it was meant to be frozen."""
    after = await page.look()
    if before is not None and after is not None and after["mark"] == before["mark"]:
        ran_s = (after["beats"] - before["beats"]) / 10
        assert ran_s < seconds / 2, f"a page that was frozen for {seconds} s ran for {ran_s} s of them"
