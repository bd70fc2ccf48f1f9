"""What NiceGUI's client does on each kind of close of its socket: the table in ARCHITECTURE.md, section Draining."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, TimeoutError, expect

from .closer import Session, running_closer
from .harness import AT_ONCE, LOST, PAGE_LIMIT_MS, RECONNECTED, Visit, running_replicas

pytestmark = pytest.mark.extended

STAYS_AWAY_MS = 8_000
"""A page that has not reconnected by then does not: silence is noticed within 6 s, an attempt follows within 1.5 s."""

LISTEN = """
() => window.socket.once("disconnect", reason => {
  window.why = reason;
  setTimeout(() => document.querySelector("[data-testid=increment]").click());
})
"""


@dataclass(frozen=True)
class Kind:
    """One way to close, and what the page must make of it: Socket.IO's word for it (empty: it does not notice)."""

    name: str
    close: Callable[[Session], None]
    why: str
    returns: bool = True


KINDS = (
    Kind("TCP FIN", Session.fin, "transport close"),
    Kind("TCP RST", Session.reset, "transport close"),
    Kind("WebSocket close 1000", lambda session: session.close_by(1000), "transport close"),
    Kind("WebSocket close 1001", lambda session: session.close_by(1001), "transport close"),
    Kind("WebSocket close 1012", lambda session: session.close_by(1012), "transport close"),
    Kind("Engine.IO close (1)", lambda session: session.say(b"1"), "", returns=False),
    Kind("Socket.IO disconnect (41)", lambda session: session.say(b"41"), "io server disconnect", returns=False),
    Kind("silence", Session.hang, "ping timeout"),
)


@dataclass(frozen=True)
class Seen:
    """What a page did after a close; `replayed`: a click while it was away counts after its return."""

    why: str
    returned: bool
    after_s: float
    kept: bool
    popup: bool
    replayed: bool


async def see(browser: Browser, target: int, kind: Kind, gate: asyncio.Semaphore, all_loaded: asyncio.Barrier) -> Seen:
    async with running_closer(target) as closer:
        async with gate:
            visit = await Visit.begin(browser, f"http://127.0.0.1:{closer.port}/")
            await visit.click(1)
        await all_loaded.wait()
        await visit.page.wait_for_function("window.socket.connected", timeout=PAGE_LIMIT_MS)
        await visit.page.evaluate(LISTEN)
        session = await visit.page.evaluate("window.socket.id")
        begun = time.monotonic()
        kind.close(closer.sessions[-1])
        returned = False
        with suppress(TimeoutError):
            limit_ms = PAGE_LIMIT_MS if kind.returns else STAYS_AWAY_MS
            await visit.page.wait_for_function(RECONNECTED, arg=session, timeout=limit_ms)
            returned = True
        after_s = time.monotonic() - begun
        why = await visit.page.evaluate("window.why ?? ''")
        count = visit.page.get_by_test_id("count")
        if kind.returns:
            await expect(count).to_have_text("2")
        replayed = await count.inner_text() == "2"
        seen = Seen(why, returned, after_s, len(visit.documents) == 1, LOST in visit.complaints, replayed)
        await visit.page.context.close()
        return seen


async def test_what_nicegui_makes_of_each_kind_of_close(browser: Browser, nicegui: None, tmp_path: Path) -> None:
    """Its state is kept for longer than by default, since a busy machine's browser may be slow to come back.

    5 s is the longest time that leaves NiceGUI's heartbeats as they are (every 4 s, answered within 2 s).
    """
    gate, all_loaded = asyncio.Semaphore(AT_ONCE), asyncio.Barrier(len(KINDS))
    with running_replicas(1, tmp_path, "--reconnect-timeout", "5") as (replica,):
        found = await asyncio.gather(*(see(browser, replica.port, kind, gate, all_loaded) for kind in KINDS))

    print("| closed by | the client says | reconnects after | page kept | popup | click meanwhile counts |")
    for kind, seen in zip(KINDS, found, strict=True):
        after = f"{seen.after_s:.1f} s" if seen.returned else "never"
        facts = ("yes" if fact else "no" for fact in (seen.kept, seen.popup, seen.replayed))
        print(f"| {kind.name} | {seen.why or '(nothing)'} | {after} | {' | '.join(facts)} |")
    for kind, seen in zip(KINDS, found, strict=True):
        expected = Seen(kind.why, kind.returns, seen.after_s, kept=True, popup=bool(kind.why), replayed=kind.returns)
        assert seen == expected, kind.name
