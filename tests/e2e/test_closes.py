"""What NiceGUI's client does on each kind of close of its socket: the table in ARCHITECTURE.md, section Draining."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from playwright.async_api import Browser, TimeoutError, expect

from .closer import Session, running_closer
from .harness import LOST, RECONNECTED, Replica, Visit

STAYS_AWAY_MS = 12_000
"""A page that has not reconnected by then does not: silence is noticed within 6 s, attempts follow within 1.5 s."""

CLOSES: dict[str, Callable[[Session], object]] = {
    "TCP FIN": Session.fin,
    "TCP RST": Session.reset,
    "WebSocket close 1000": lambda session: session.close_by(1000),
    "WebSocket close 1001": lambda session: session.close_by(1001),
    "WebSocket close 1012": lambda session: session.close_by(1012),
    "Engine.IO close `1`": lambda session: session.say(b"1"),
    "Socket.IO disconnect `41`": lambda session: session.say(b"41"),
    "silence": Session.hang,
}


LISTEN = """
() => window.socket.on("disconnect", reason => {
  window.why = reason;
  setTimeout(() => document.querySelector("[data-testid=increment]").click());
})
"""


@dataclass(frozen=True)
class Seen:
    """What a page did after a close: `why` is Socket.IO's word for it, empty where the page did not notice."""

    why: str
    reconnected: bool
    after_s: float
    kept: bool
    popup: bool
    replayed: bool
    """A click while the page was away counts after its return."""


async def see(browser: Browser, target: int, close: Callable[[Session], object], gate: asyncio.Semaphore) -> Seen:
    async with running_closer(target) as closer:
        async with gate:
            visit = await Visit.begin(browser, f"http://127.0.0.1:{closer.port}/")
        await visit.click(1)
        await visit.page.evaluate(LISTEN)
        session = await visit.page.evaluate("window.socket.id")
        begun = time.monotonic()
        close(closer.sessions[-1])
        try:
            await visit.page.wait_for_function(RECONNECTED, arg=session, timeout=STAYS_AWAY_MS)
            reconnected = True
        except TimeoutError:
            reconnected = False
        after_s = time.monotonic() - begun
        why = await visit.page.evaluate("window.why ?? ''")
        count = visit.page.get_by_test_id("count")
        if reconnected:
            await expect(count).to_have_text("2")
        replayed = await count.inner_text() == "2"
        seen = Seen(why, reconnected, after_s, len(visit.documents) == 1, LOST in visit.complaints, replayed)
        await visit.page.context.close()
        return seen


async def test_table(browser: Browser, three_replicas: list[Replica]) -> None:
    port = three_replicas[0].port
    gate = asyncio.Semaphore(3)
    found = await asyncio.gather(*(see(browser, port, close, gate) for close in CLOSES.values()))
    for name, seen in zip(CLOSES, found, strict=True):
        print(name, seen)
