"""What happens to pages and their sockets: opened, refused and reloaded, cut and reconnected, polled, kept in use."""

import asyncio
from typing import Final

from stickyproxy.tools.verify.lines import WebSocketLine
from stickyproxy.tools.verify.rules_sessions import needs_confirmation
from stickyproxy.tools.verify.seen import Echo, Ended, Outcome, Transport
from stickyproxy.tools.verify.visitors import Crowd, Visitor

MOST_LOADS: Final = 5
"""So often a visitor loads the page until its socket is accepted."""

AWAY_S: Final = 0.3
"""Between a cut and the reconnect: short of NiceGUI's `reconnect_timeout`, long enough for the cut to arrive."""

POLLS: Final = 6
"""So many polls go on after a conversation's first."""

ECHO_S: Final = 3.0
"""For the answer to a WebSocket's ping."""

MOST_REOPENINGS: Final = 3

OUTLAST_S: Final = 1.0
"""So much older than a silent socket a socket in use must become."""


async def open_pages(crowd: Crowd, first: Visitor, base: str) -> list[Visitor]:
    """Let all visitors come, and those who are refused reload as their page would; give who has a working page."""
    others = [crowd.join() for _ in range(crowd.options.visitors - 1)]
    visitors = await crowd.load(others)
    visitors.append(first)
    transport: Transport = "websocket"
    working = await crowd.open(visitors, base, transport, "first")
    await probe_echoes(crowd, visitors)
    outcomes = {attempt.outcome for attempt in crowd.seen.attempts}
    assert first.page is not None
    if not outcomes & {Outcome.ACCEPTED, Outcome.REFUSED} and "polling" in first.page.transports:
        transport = "polling"  # which is what the page's own client does then
        await crowd.wave(visitors, Visitor.cut)
        working = await crowd.open(visitors, base, transport, "first", POLLS)
        if split := last(crowd, Outcome.SPLIT):  # after a broken poll a page begins a new conversation
            again = [visitor for visitor in visitors if visitor.number in split]
            working += await crowd.open(again, base, transport, "first", POLLS)
    for _ in range(MOST_LOADS - 1):
        refused = last(crowd, Outcome.REFUSED)
        again = await crowd.load([visitor for visitor in visitors if visitor.number in refused])
        if not again:
            break
        working += await crowd.open(again, base, transport, "reload", POLLS)
    return working


def last(crowd: Crowd, outcome: Outcome) -> set[int]:
    """Give the visitors to whom that happened in the last wave."""
    attempts = crowd.seen.attempts
    wave = attempts[-1].wave if attempts else 0
    return {attempt.visitor for attempt in attempts if attempt.wave == wave and attempt.outcome is outcome}


async def probe_echoes(crowd: Crowd, visitors: list[Visitor]) -> None:
    """See how fast bytes pass each visitor's WebSocket, and where none do, how many free them."""

    async def one(visitor: Visitor) -> None:
        line = visitor.line
        if not isinstance(line, WebSocketLine) or line.closed.is_set():
            return
        freed = line.freed_by
        took_s = None if freed else await line.echo(ECHO_S)
        if took_s is None and not freed and not line.closed.is_set():
            freed = await line.free(ECHO_S / 2)
        if took_s is not None or freed:
            crowd.seen.echoes.append(Echo(visitor.number, took_s, freed))

    await asyncio.gather(*(one(visitor) for visitor in visitors))


async def cut_and_return(
    crowd: Crowd, visitors: list[Visitor], base: str, transport: Transport, exercise: int = 0
) -> list[Visitor]:
    """Cut all sockets, and let the pages open new ones; give whose page is still there."""
    if not visitors:
        return []
    await crowd.wave(visitors, Visitor.cut)
    await asyncio.sleep(AWAY_S)
    return await crowd.open(visitors, base, transport, "cut", exercise)


async def reconnects(crowd: Crowd, working: list[Visitor], base: str) -> list[Visitor]:
    """Cut and reconnect by WebSockets, by polls, and by WebSockets again; give whose page is still there."""
    if not working or working[0].page is None:
        return working
    if not any(isinstance(visitor.line, WebSocketLine) for visitor in working):
        return await cut_and_return(crowd, working, base, "polling", POLLS)
    working = await cut_and_return(crowd, working, base, "websocket")
    if working and working[0].page is not None and "polling" in working[0].page.transports:
        polling = await cut_and_return(crowd, working, base, "polling", POLLS)
        if polling:  # a page whose polls were split is there still, but it is not known for how long
            working = polling
        working = await cut_and_return(crowd, working, base, "websocket")
    return working


async def confirm(crowd: Crowd, base: str) -> None:
    """See a refusal that came once a second time, or not: with as many new visitors."""
    if not needs_confirmation(crowd.seen):
        return
    fresh = await crowd.load([crowd.join() for _ in range(crowd.options.visitors)])
    if not fresh:
        return
    working = await crowd.open(fresh, base, "websocket", "confirm")
    working = await cut_and_return(crowd, working, base, "websocket")
    if working and working[0].page is not None and "polling" in working[0].page.transports:
        await cut_and_return(crowd, working, base, "polling", POLLS)


async def keep_in_use(crowd: Crowd, working: list[Visitor], base: str) -> None:
    """Hold sockets open, with their heartbeats, until cancelled; note those that end, and open them again."""

    async def one(visitor: Visitor) -> None:
        for _ in range(MOST_REOPENINGS):
            line = visitor.line
            if not isinstance(line, WebSocketLine):
                return
            await line.closed.wait()
            if line.asked_to_end:
                return
            crowd.seen.ended.append(
                Ended(visitor.number, line.ended_at - line.opened_at, line.ended_at - line.heard_at)
            )
            await visitor.cut()
            assert visitor.page is not None
            again = WebSocketLine(visitor.web, base, visitor.page)
            if (await again.open()).outcome is not Outcome.ACCEPTED:
                await again.leave()
                return
            visitor.line = again

    await asyncio.gather(*(one(visitor) for visitor in working))


async def outlast(crowd: Crowd, working: list[Visitor], silences: list[float]) -> None:
    """Wait until sockets in use are older than silent ones became, twice where some ended: age or silence cut them."""
    if not silences:
        return
    for _ in range(2):
        opened = [visitor.line.opened_at for visitor in working if isinstance(visitor.line, WebSocketLine)]
        if opened:
            await asyncio.sleep(max(opened) + max(silences) + OUTLAST_S - crowd.clock.now())
        if not crowd.seen.ended:
            return
