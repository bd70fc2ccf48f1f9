"""A page's socket, by WebSocket or by polls: opened, kept alive as NiceGUI's page does, cut, or closed politely.

Laws: opening never raises for what the other side does, but gives the outcome; a line that was opened has one task that
answers pings, until `cut` or `leave`; both may be called at any time, also twice.
"""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from stickyproxy.tools.verify.document import NiceguiPage
from stickyproxy.tools.verify.packets import (
    CLOSE,
    DISCONNECT,
    PROBE_EVENT,
    SEPARATOR,
    Speaker,
    split_payload,
)
from stickyproxy.tools.verify.seen import Outcome
from stickyproxy.tools.verify.web import ASKING_ERRORS, Answer, Web, origin_of, why

CLOSE_S: Final = 2.0
"""For the other side to answer a close."""

SILENT_S: Final = 6.0
"""So long after its opening a WebSocket may be mute; an Engine.IO server says something at once."""

FREE_AFTER_S: Final = 2.0
"""After so long without a packet a buffer is suspected: before the server misses its first pong, which is at 6 s."""

FREE_S: Final = 0.7

PUSHES: Final = (8 << 10, 32 << 10, 128 << 10)
"""Bytes in all that are sent to free what a buffer may hold."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What became of an attempt."""

    outcome: Outcome
    status: int = 0
    said: str = ""


def websocket_url(url: str) -> str:
    """Give the ws:// or wss:// address for an http:// or https:// one."""
    return "ws" + url.removeprefix("http")


async def connect(web: Web, url: str) -> aiohttp.ClientWebSocketResponse:
    """Open a WebSocket as a browser does; raise one of `ASKING_ERRORS`."""
    headers = {"Origin": origin_of(url), "Cache-Control": "no-cache"}
    async with asyncio.timeout(web.options.timeout_s):
        return await web.session.ws_connect(
            URL(websocket_url(url), encoded=True), headers=web.headers(url, headers), autoping=False, autoclose=True,
            compress=15, max_msg_size=0,
        )  # fmt: skip


async def shut(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Close a WebSocket, whatever state it is in."""
    with contextlib.suppress(*ASKING_ERRORS):
        await asyncio.wait_for(ws.close(), CLOSE_S)


class WebSocketLine:
    """One WebSocket."""

    def __init__(self, web: Web, base: str, page: NiceguiPage) -> None:
        self.web = web
        self.speaker = Speaker(page)
        self.closed = asyncio.Event()
        """Set when the line has ended, by whomever."""
        self.asked_to_end = False
        self.opened_at = 0.0
        self.ended_at = 0.0
        self.heard_at = 0.0
        """When something came last; 0: nothing has."""
        self.freed_by = 0
        """Bytes that had to be sent until a first packet came, and the next answer was held again; 0: none."""
        self._url = base + page.socket_target("websocket")
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()
        self._echoes: dict[bytes, asyncio.Event] = {}
        self._why = ""

    async def open(self) -> Opening:
        """Open it and wait for the handshake's outcome."""
        clock = self.web.clock
        began = clock.now()
        try:
            self._ws = await connect(self.web, self._url)
        except aiohttp.WSServerHandshakeError as error:
            return Opening(Outcome.NOT_UPGRADED, error.status, error.message[:80] if error.status == 101 else "")
        except ASKING_ERRORS as error:
            return Opening(Outcome.BROKEN, said=why(error))
        self.opened_at = clock.now()
        clock.note("socket opened", began)
        self._task = asyncio.create_task(self._pump(self._ws))
        if not await self._is_decided(FREE_AFTER_S) and not self.heard_at:
            freed_by = await self.free(FREE_S)
            if freed_by and await self.echo(FREE_S) is None:  # else it was merely slow
                self.freed_by = freed_by
        if self.freed_by:
            return Opening(Outcome.SILENT, 101)
        if not self._decided.is_set():
            await self._is_decided(max(0.0, min(SILENT_S, self.web.options.timeout_s) - FREE_AFTER_S))
        if self.speaker.outcome is Outcome.ACCEPTED:
            clock.note("page's handshake", began)
            return Opening(Outcome.ACCEPTED, 101)
        if self.speaker.outcome is not None:
            return Opening(self.speaker.outcome, 101, self.speaker.said)
        if self.closed.is_set():
            return Opening(Outcome.BROKEN, said=f"it opened and ended without a word{self._why}")
        return Opening(Outcome.SILENT, 101)

    async def _is_decided(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._decided.wait(), limit_s)
        return self._decided.is_set()

    async def _pump(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Read until the end, and answer as a page does."""
        try:
            while True:
                message = await ws.receive()
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
                    self.heard_at = self.web.clock.now()
                if message.type is aiohttp.WSMsgType.TEXT:
                    for packet in self.speaker.on_packet(message.data):
                        await ws.send_str(packet)
                    if self.speaker.outcome is not None:
                        self._decided.set()
                    if self.speaker.ended:
                        break
                elif message.type is aiohttp.WSMsgType.PING:
                    await ws.pong(message.data)
                elif message.type is aiohttp.WSMsgType.PONG:
                    if waiter := self._echoes.get(bytes(message.data)):
                        waiter.set()
                elif message.type is not aiohttp.WSMsgType.BINARY:
                    self._why = f" (close code {ws.close_code})" if ws.close_code else ""
                    break
        except ASKING_ERRORS as error:
            self._why = f" ({why(error)})"
        finally:
            self.ended_at = self.web.clock.now()
            self.closed.set()
            self._decided.set()

    async def echo(self, limit_s: float) -> float | None:
        """Ping and wait for the pong; give the seconds it took, None where it did not come."""
        assert self._ws is not None
        name, came = os.urandom(8), asyncio.Event()
        self._echoes[name] = came
        began = self.web.clock.now()
        try:
            await self._ws.ping(name)
            await asyncio.wait_for(came.wait(), limit_s)
        except ASKING_ERRORS:
            return None
        finally:
            del self._echoes[name]
        return self.web.clock.note("echo on the socket", began)

    async def free(self, limit_s: float) -> int:
        """Send more and more, to free what a buffer may hold; give how many bytes did it, 0 where none did."""
        for size in PUSHES:
            if await self._push(size, limit_s):
                return size
        return 0

    async def _push(self, size: int, limit_s: float) -> bool:
        """Ping with so many bytes in all; say whether any of it came back in time."""
        assert self._ws is not None
        name, came = os.urandom(125), asyncio.Event()  # 125: most that a control frame carries (RFC 6455 section 5.5)
        self._echoes[name] = came
        try:
            for _ in range(size // len(name)):
                await self._ws.ping(name)
            await asyncio.wait_for(came.wait(), limit_s)
        except ASKING_ERRORS:
            return False
        finally:
            del self._echoes[name]
        return True

    async def cut(self) -> None:
        """End the connection without a word, as a network does that changes."""
        self.asked_to_end = True
        if self._ws is not None and (transport := self._ws.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                transport.shutdown(socket.SHUT_RDWR)
        await self._end()

    async def leave(self) -> None:
        """Say good-bye as a page does that is closed, so that the app can forget it."""
        self.asked_to_end = True
        if self._ws is not None and not self._ws.closed:
            with contextlib.suppress(*ASKING_ERRORS):
                await self._ws.send_str(DISCONNECT)
                await self._ws.send_str(CLOSE)
        await self._end()

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._ws is not None:
            await shut(self._ws)


class PollingLine:
    """One conversation by polls."""

    def __init__(self, web: Web, base: str, page: NiceguiPage) -> None:
        self.web = web
        self.speaker = Speaker(page)
        self.closed = asyncio.Event()
        self._base = base
        self._task: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()
        self._failed: Opening | None = None

    @property
    def _url(self) -> str:
        opened = self.speaker.opened
        return self._base + self.speaker.page.socket_target("polling", opened.sid if opened else "")

    async def open(self) -> Opening:
        """Open it and wait for the handshake's outcome."""
        began = self.web.clock.now()
        first = await self._poll()
        if self.speaker.opened is None:
            return self._failed or Opening(Outcome.BROKEN, first.status, "no Engine.IO answer")
        self._task = asyncio.create_task(self._pump())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._decided.wait(), self.web.options.timeout_s)
        if self._failed is not None:
            return self._failed
        if self.speaker.outcome is None:
            return Opening(Outcome.BROKEN, said="the handshake was not answered in time")
        if self.speaker.outcome is Outcome.ACCEPTED:
            self.web.clock.note("page's handshake by polls", began)
        return Opening(self.speaker.outcome, 200, self.speaker.said)

    async def exercise(self, count: int) -> Opening:
        """Send so many events that cost the app nothing; give what became of the line."""
        for _ in range(count):
            await self._post(PROBE_EVENT)
            if self._failed is not None:
                return self._failed
        return Opening(Outcome.ACCEPTED, 200)

    async def _pump(self) -> None:
        while self._failed is None and not self.speaker.ended:
            await self._poll()
            if self.speaker.outcome is not None:
                self._decided.set()
        self.closed.set()
        self._decided.set()

    async def _poll(self) -> Answer:
        patience_s = self.web.options.timeout_s
        if opened := self.speaker.opened:
            patience_s += opened.ping_interval_s + opened.ping_timeout_s
        answer = await self._ask("GET", None, patience_s)
        if answer.status == 200:
            replies = [reply for packet in split_payload(answer.text) for reply in self.speaker.on_packet(packet)]
            if replies:
                await self._post(SEPARATOR.join(replies))
        return answer

    async def _post(self, payload: str) -> None:
        await self._ask("POST", payload, self.web.options.timeout_s)

    async def _ask(self, method: str, payload: str | None, timeout_s: float) -> Answer:
        headers = dict(self.speaker.page.extra_headers)
        if payload is not None:
            headers["Content-Type"] = "text/plain;charset=UTF-8"
        began = self.web.clock.now()
        first = self.speaker.opened is None
        answer = await self.web.ask(self._url, method=method, headers=headers, data=payload, timeout_s=timeout_s)
        if answer.status == 200:
            if first:
                self.web.clock.note("first poll", began)
        elif self._failed is None:
            known = not first and 400 <= answer.status < 500
            outcome = Outcome.SPLIT if known else Outcome.BROKEN
            self._failed = Opening(outcome, answer.status, answer.problem or answer.text[:60].strip('"'))
        return answer

    async def cut(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def leave(self) -> None:
        """Say good-bye as a page does that is closed."""
        if self.speaker.opened is not None and self._failed is None:
            await self._post(DISCONNECT + SEPARATOR + CLOSE)
        await self.cut()


Line = WebSocketLine | PollingLine
