"""How long a WebSocket may be silent before somebody cuts it.

NiceGUI's own socket is never silent for long: its server pings every 4 s. But while an Engine.IO conversation by polls
is being upgraded, its server waits for the client's first word on the WebSocket for as long as it takes
(python-engineio, `AsyncSocket._websocket_handler`). The silent WebSocket here is one whose upgrade never ends: it takes
the very way of the page's sockets. Only uvicorn breaks the silence, by a WebSocket ping every 20 s.
"""

import asyncio
from contextlib import suppress
from typing import Final

import aiohttp

from stickyproxy.tools.verify.lines import connect, shut
from stickyproxy.tools.verify.packets import parse_open, split_payload
from stickyproxy.tools.verify.seen import Seen, Silence
from stickyproxy.tools.verify.web import ASKING_ERRORS, Clock, Options, Web

SOCKETS: Final = 2
"""A fixed time is one that two sockets end after, which began at different moments."""

APART_S: Final = 1.0

SPOKEN: Final = (
    aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG,
)  # fmt: skip
"""What else comes is the end."""

TRIES: Final = 12
"""Without affinity the poll and the WebSocket find one process by luck."""

SOCKET_PATH: Final = "/_nicegui_ws/socket.io/?EIO=4&transport="


async def watch(seen: Seen, options: Options, clock: Clock, address: str, *, engine_io: bool) -> None:
    """Hold silent WebSockets for `options.idle_s`, and note what became of them.

    address: below which NiceGUI's socket is (engine_io), or the address of a plain WebSocket that stays silent.
    """
    seen.idle_s = options.idle_s

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        web = Web(options, clock)
        try:
            ws = await (_unfinished(web, address, seen) if engine_io else _plain(web, address, seen))
            if ws is not None:
                seen.silences.append(await _listen(ws, options.idle_s, clock))
                await shut(ws)
        finally:
            await web.close()

    await asyncio.gather(*(one(number) for number in range(SOCKETS)))
    if seen.silences:
        seen.idle_problem = ""


async def _unfinished(web: Web, base: str, seen: Seen) -> aiohttp.ClientWebSocketResponse | None:
    """Open a WebSocket whose upgrade is not finished; None where polls and WebSockets do not meet."""
    for _ in range(TRIES):
        answer = await web.ask(f"{base}{SOCKET_PATH}polling")
        opened = next(filter(None, map(parse_open, split_payload(answer.text))), None)
        if opened is None:
            seen.idle_problem = f"the address of the socket answered {answer.status or answer.problem} to a poll"
            return None
        seen.ping_interval_s, seen.ping_timeout_s = opened.ping_interval_s, opened.ping_timeout_s
        try:
            return await connect(web, f"{base}{SOCKET_PATH}websocket&sid={opened.sid}")
        except aiohttp.WSServerHandshakeError as error:
            seen.idle_problem = f"a poll and the WebSocket after it did not meet: answered {error.status}"
        except ASKING_ERRORS as error:
            seen.idle_problem = f"the WebSocket failed: {type(error).__name__}"
    return None


async def _plain(web: Web, url: str, seen: Seen) -> aiohttp.ClientWebSocketResponse | None:
    try:
        return await connect(web, url)
    except ASKING_ERRORS as error:
        seen.idle_problem = f"the WebSocket failed: {type(error).__name__}"
        return None


async def _listen(ws: aiohttp.ClientWebSocketResponse, limit_s: float, clock: Clock) -> Silence:
    """Say nothing but pongs; give the silence that it ended after, or the longest one that it survived."""
    began = last = clock.now()
    longest = 0.0
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    message = await ws.receive()
                    if message.type is aiohttp.WSMsgType.PING:
                        await ws.pong(message.data)
                except ASKING_ERRORS:  # it ended while we answered
                    return Silence(clock.now() - last, cut=True)
                if message.type not in SPOKEN:
                    return Silence(clock.now() - last, cut=True)
                now = clock.now()
                longest, last = max(longest, now - last), now
    return Silence(max(longest, min(began + limit_s, clock.now()) - last), cut=False)
