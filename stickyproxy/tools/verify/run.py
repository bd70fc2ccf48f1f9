"""A run: all checks in their order, with what each of them needs from those before; it judges nothing.

Laws: whatever happens, pages are closed and connections end; what is told on the way is for people only.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from stickyproxy.tools.verify import checks_idle, checks_sessions, checks_web
from stickyproxy.tools.verify.document import (
    asks_password,
    find_plain_links,
    parse_nicegui,
    sign_of_login,
)
from stickyproxy.tools.verify.lines import connect, shut
from stickyproxy.tools.verify.seen import Echo, Hop, Landing, Load, PlainSocket, Seen, Step
from stickyproxy.tools.verify.visitors import Crowd, Visitor
from stickyproxy.tools.verify.web import ASKING_ERRORS, Answer, Clock, Options, origin_of, why, without_query

Tell = Callable[[float, str], None]
"""Told how much of the run is done (0 to 1), and what comes now."""

PLAIN_ECHOES: Final = 3


async def run(options: Options, tell: Tell, lot: Random) -> Seen:
    """Do all checks and give what was seen. lot: draws the order in which visitors come."""
    clock = Clock()
    seen = Seen(without_query(options.url), options.visitors)
    crowd = Crowd(options, clock, lot, seen)
    first = crowd.join()
    silence: asyncio.Task[None] | None = None
    base = origin_of(options.url)
    try:
        tell(0.0, "loading the page")
        crowd.budget.take()
        await _arrive(seen, first, options.url)
        crowd.note_cookies(first)
        seen.loads.append(Load(0, seen.landing.status if seen.landing else 0, seen.problem))
        if first.page is not None and first.answer is not None:
            seen.prefix = await checks_web.find_prefix(first.web, first.answer.url, first.page.prefix)
            works = seen.prefix.told if seen.prefix.works is None else seen.prefix.works
            base = origin_of(first.answer.url) + works
        if options.idle_s and (first.page is not None or options.ws_path) and not seen.problem:
            plain = urljoin(options.url, options.ws_path) if options.ws_path else ""
            silence = asyncio.create_task(
                checks_idle.watch(seen, options, clock, plain or base, engine_io=not plain)
            )  # fmt: skip
        if options.ws_path and not seen.problem:
            tell(0.1, "opening plain WebSockets")
            await _plain_sockets(seen, crowd, urljoin(options.url, options.ws_path))
        if first.page is not None:
            await _sessions(seen, crowd, first, base, tell, silence)
        if options.stream_path and not seen.problem:
            tell(0.9, "watching the streamed answer")
            await checks_web.check_stream(seen, first.web, urljoin(options.url, options.stream_path))
        if silence is not None:
            tell(0.9, f"watching silent WebSockets for {options.idle_s:g} s")
            await silence
    finally:
        tell(0.95, "closing all pages")
        if silence is not None:
            silence.cancel()
            await asyncio.gather(silence, return_exceptions=True)
        await crowd.leave(base)
        await crowd.close()
    seen.cookies = crowd.jar.cookies()
    seen.pages_opened = crowd.budget.opened if first.page is not None else 0
    seen.steps = [Step(name, tuple(times)) for name, times in clock.steps.items()]
    tell(1.0, "")
    return seen


async def _arrive(seen: Seen, first: Visitor, url: str) -> None:
    """Load the page for the first time, and see what it is."""
    await first.load(url)
    answer = first.answer
    assert answer is not None
    seen.hops = [Hop(hop.status, without_query(hop.url), without_query(hop.location or "")) for hop in first.hops]
    if answer.problem:
        seen.problem = answer.problem
        return
    page = first.page or parse_nicegui(answer.text)
    first.page = page if answer.status < 400 else None
    host = urlsplit(url).hostname or ""
    there = urlsplit(answer.url).hostname or ""
    path = urlsplit(answer.url).path
    seen.landing = Landing(
        status=answer.status,
        url=without_query(answer.url),
        version=page.version if page else "",
        reason=answer.headers.get("X-Stickyproxy-Reason", ""),
        server=answer.headers.get("Server", ""),
        login=sign_of_login(
            status=answer.status,
            path=path,
            other_host=there if there != host else "",
            challenge=answer.headers.get("WWW-Authenticate", ""),
            text=answer.text,
            nicegui=page is not None,
        ),
        login_page=page is not None and asks_password(answer.text, path),
        plain_links=tuple(map(without_query, find_plain_links(answer.text, there))),
        frame_ancestors=_other_sites(answer),
    )


def _other_sites(answer: Answer) -> tuple[str, ...]:
    """Read in whose frames the page may be shown (CSP Level 3, frame-ancestors), but for its own."""
    for directive in answer.headers.get("Content-Security-Policy", "").split(";"):
        name, *sources = directive.split() or [""]
        if name.lower() == "frame-ancestors":
            return tuple(s for s in sources if s not in ("'self'", "'none'", origin_of(answer.url)))
    return ()


async def _sessions(
    seen: Seen, crowd: Crowd, first: Visitor, base: str, tell: Tell, silence: asyncio.Task[None] | None
) -> None:
    """Check a NiceGUI page with everything around it."""
    options = crowd.options
    assert first.page is not None
    assert seen.prefix is not None
    tell(0.1, "loading the page's files")
    await checks_web.check_files(seen, first, seen.prefix)
    tell(0.25, f"{options.visitors} visitors come")
    working = await checks_sessions.open_pages(crowd, first, base)
    tell(0.45, "their sockets are cut, and they come back")
    working = await checks_sessions.reconnects(crowd, working, base)
    tell(0.65, "looking a second time, where that is needed")
    await checks_sessions.confirm(crowd, base)
    in_use = asyncio.create_task(checks_sessions.keep_in_use(crowd, working, base))
    try:
        tell(0.7, "asking as health probes do")
        for answer in await checks_web.check_probes(seen, first.web, options.url, crowd.budget):
            if (page := parse_nicegui(answer.text)) is not None:
                crowd.adopt(page, first.web)
        await checks_web.check_redirect(seen, first.web, base)
        tell(0.75, "sending a body slowly")
        await checks_web.check_request_buffering(seen, first.web, base, first.page.version)
        if options.upload_bytes:
            tell(0.8, f"uploading {options.upload_bytes:,} bytes")
            await checks_web.check_upload(seen, first.web, base, first.page.version)
        if silence is not None:
            tell(0.85, f"watching silent WebSockets for {options.idle_s:g} s")
            await asyncio.shield(silence)
            cut = [s.silent_s for s in seen.silences if s.cut]
            await checks_sessions.outlast(crowd, working, cut)
    finally:
        in_use.cancel()
        await asyncio.gather(in_use, return_exceptions=True)


async def _plain_sockets(seen: Seen, crowd: Crowd, url: str) -> None:
    """Open a WebSocket of any app for each visitor, and see whether bytes pass it."""
    clock = crowd.clock
    visitors = [Visitor(number, crowd.options, clock) for number in range(crowd.options.visitors)]

    async def one(visitor: Visitor) -> None:
        began = clock.now()
        try:
            ws = await connect(visitor.web, url)
        except aiohttp.WSServerHandshakeError as error:
            seen.plain.append(PlainSocket(visitor.number, error.status, clock.now() - began))
            return
        except ASKING_ERRORS as error:
            seen.plain.append(PlainSocket(visitor.number, 0, clock.now() - began, why(error)))
            return
        seen.plain.append(PlainSocket(visitor.number, 101, clock.note("socket opened", began)))
        for _ in range(PLAIN_ECHOES):
            seen.echoes.append(Echo(visitor.number, await _plain_echo(ws, clock)))
        await shut(ws)

    try:
        await crowd.wave(visitors, one)
    finally:
        for visitor in visitors:
            await visitor.web.close()


async def _plain_echo(ws: aiohttp.ClientWebSocketResponse, clock: Clock) -> float | None:
    began = clock.now()
    try:
        async with asyncio.timeout(checks_sessions.ECHO_S):
            await ws.ping(b"stickyproxy")
            while True:
                message = await ws.receive()
                if message.type is aiohttp.WSMsgType.PONG:
                    return clock.note("echo on the socket", began)
                if message.type is aiohttp.WSMsgType.PING:
                    await ws.pong(message.data)
                if message.type not in checks_idle.SPOKEN:
                    return None
    except ASKING_ERRORS:
        return None
