"""Scripted browsers: what NiceGUI 3.18's page does with its socket, without a browser around it.

Facts: NiceGUI's static/nicegui.js and socket.io-client 4. A page is loaded once and reloads only where its handshake is
refused (or the server says so); a lost socket is opened again after 0.5-1.5 s, then 1-3 s, then 2-5 s; what is clicked
meanwhile is kept and sent then; messages of the server are counted, acknowledged every 3 s, and asked for from the
first that is missing; without a ping within 6 s the socket counts as lost.

Not imitated: the polling transport, which a real client also tries when a WebSocket cannot be opened.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import html
import json
import random
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import aiohttp
import websockets

from benchmarks.chaos.load import USER_AGENT

OPEN_S = 20.0
"""socket.io-client's time-out of a connection attempt."""

ACK_S = 3.0
FIRST_RETRY_S, LONGEST_RETRY_S, JITTER = 1.0, 5.0, 0.5

_QUERY = re.compile(r"^ +query: (\{.*\}),$", re.MULTILINE)
_ELEMENTS = re.compile(r"parseElements\(String\.raw`(.*?)`\)", re.DOTALL)


class RefusedError(Exception):
    """The server does not know the page: it reloads."""


@dataclass
class Document:
    """One load of the page."""

    query: dict[str, Any]
    replica: str
    count_id: int
    button_id: int
    listener: str
    next_message_id: int
    acked: int = -1
    shown: int = 0
    """What the counter shows: as many clicks as the server has heard of."""
    clicked: int = 0

    @classmethod
    def parse(cls, text: str) -> Document:
        """Read what the page's own script would be given; ValueError where it is no NiceGUI page."""
        query, elements = _QUERY.search(text), _ELEMENTS.search(text)
        if query is None or elements is None:
            raise ValueError(f"expected a page of NiceGUI, found {text[:80]!r}")
        parameters = ast.literal_eval(query[1])
        found = {
            element.get("props", {}).get("data-testid"): (int(number), element)
            for number, element in json.loads(html.unescape(elements[1])).items()
        }
        button_id, button = found["increment"]
        listener = next(event["listener_id"] for event in button["events"] if event["type"] == "click")
        query_ids = {"document_id": str(uuid.uuid4()), "tab_id": str(uuid.uuid4()), "old_tab_id": ""}
        return cls(
            parameters | query_ids,
            found["replica"][1]["text"],
            found["count"][0],
            button_id,
            listener,
            parameters["next_message_id"],
        )

    @property
    def client_id(self) -> str:
        """Give the page's id."""
        return str(self.query["client_id"])

    def target(self) -> str:
        """Give the target of the page's socket."""
        query = self.query | {"next_message_id": self.next_message_id, "EIO": 4, "transport": "websocket"}
        words = {key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()}
        return "/_nicegui_ws/socket.io/?" + urlencode(words)


@dataclass
class Browser:
    """One browser with one page, and what became of it."""

    url: str
    http: aiohttp.ClientSession
    random: random.Random
    click_s: float
    """Mean seconds between two clicks of its user."""

    still: bool = False
    """The user does not click for now."""
    document: Document | None = None
    replicas: list[str] = field(default_factory=list)
    """Who built each of its documents."""
    lost_at: list[float] = field(default_factory=list)
    opened_at: list[float] = field(default_factory=list)
    """When the page had a working socket (monotonic time); the first is no reconnect."""
    reloaded_at: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """Seconds without a working socket, for each loss."""
    problems: list[str] = field(default_factory=list)
    clicks: int = 0
    replayed: int = 0
    """Clicks that were made while there was no socket, and sent when there was."""
    attempts_failed: int = 0
    story: list[tuple[float, str]] = field(default_factory=list)
    """What happened when (monotonic time), for people who look for a cause."""
    cookies: dict[str, str] = field(default_factory=dict)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    waiting_since: float | None = None
    _kept: list[str] = field(default_factory=list)
    _socket: websockets.ClientConnection | None = None
    _attempts: int = 0

    async def run(self) -> None:
        """Load the page and live with it until cancelled."""
        clicking = asyncio.create_task(self._click_now_and_then())
        try:
            while True:
                await self._load()
                await self._live()
                self.reloaded_at.append(time.monotonic())
        finally:
            clicking.cancel()
            self.connected.clear()
            if self._socket is not None:
                self._socket.transport.abort()

    # The page.

    async def _load(self) -> None:
        while True:
            try:
                headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
                headers |= {"Sec-Fetch-Mode": "navigate", "Accept": "text/html", "User-Agent": USER_AGENT}
                async with self.http.get(self.url, headers=headers) as response:
                    text = await response.text()
                    for line in response.headers.getall("Set-Cookie", []):
                        self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
                    if response.status != 200:
                        raise ValueError(f"{response.status} {response.headers.get('X-Stickyproxy-Reason', '')}")
                self.document = Document.parse(text)
                self.replicas.append(self.document.replica)
                self._kept.clear()  # what was clicked meanwhile was on the page before
                self._tell(f"document of {self.document.replica}")
                return
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self.problems.append(f"document: {type(error).__name__} {error}")
                await asyncio.sleep(1.0)  # a person would try again

    async def _live(self) -> None:
        """Keep the page connected; return where it reloads."""
        assert self.document is not None
        self._attempts = 0
        while True:
            try:
                await self._connected(self.document)
            except RefusedError:
                return
            except (websockets.WebSocketException, OSError, EOFError, TimeoutError) as error:
                self._tell(f"socket: {type(error).__name__} {error}")  # as a browser does: whatever it was, try again
            self._lost()
            await asyncio.sleep(self._retry_s())

    def _retry_s(self) -> float:
        base = FIRST_RETRY_S * 2**self._attempts
        self._attempts += 1
        return min(LONGEST_RETRY_S, base * self.random.uniform(1 - JITTER, 1 + JITTER))

    def _lost(self) -> None:
        self._socket = None
        self._tell("lost" if self.connected.is_set() else "attempt failed")
        now = time.monotonic()
        if self.connected.is_set():
            self.connected.clear()
            self.lost_at.append(now)
            self.waiting_since = now
        else:
            self.attempts_failed += 1

    async def _connected(self, document: Document) -> None:
        """Open a socket and serve it to its end."""
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items()), "User-Agent": USER_AGENT}
        socket = await websockets.connect(
            self.url.replace("http:", "ws:").rstrip("/") + document.target(),
            additional_headers=headers, open_timeout=OPEN_S, close_timeout=1.0, ping_interval=None, max_size=None,
            proxy=None,
        )  # fmt: skip
        acking: asyncio.Task[None] | None = None
        try:
            hello = json.loads((await self._receive(socket, OPEN_S))[1:])
            patience_s = (hello["pingInterval"] + hello["pingTimeout"]) / 1000
            await socket.send("40")
            while True:
                message = await self._receive(socket, patience_s)
                if message == "2":
                    await socket.send("3")
                elif message.startswith("40"):
                    await self._opened(socket)
                    acking = asyncio.create_task(self._ack_now_and_then(socket, document))
                elif message.startswith("44"):
                    self._refused()
                elif message.startswith("42"):
                    self._on_message(document, *json.loads(message[2:]))
                elif message.startswith(("41", "1")):
                    return
        finally:
            if acking is not None:
                acking.cancel()
            socket.transport.close()

    async def _receive(self, socket: websockets.ClientConnection, patience_s: float) -> str:
        async with asyncio.timeout(patience_s):
            return str(await socket.recv())

    def _refused(self) -> None:
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()
        self.connected.clear()
        self._tell("refused")
        raise RefusedError

    async def _opened(self, socket: websockets.ClientConnection) -> None:
        now = time.monotonic()
        self._tell("open")
        self.opened_at.append(now)
        if self.waiting_since is not None:
            self.waits.append(now - self.waiting_since)
            self.waiting_since = None
        self._socket = socket
        self._attempts = 0
        kept, self._kept = self._kept, []
        self.replayed += len(kept)
        self.connected.set()
        for message in kept:
            await socket.send(message)

    def _on_message(self, document: Document, kind: str, body: dict[str, Any] | None = None) -> None:
        if body is None:
            return
        if "_id" in body:
            if body["_id"] < document.next_message_id:
                return
            document.next_message_id = body["_id"] + 1
        if kind == "update":
            if element := body.get(str(document.count_id)):
                document.shown = int(element["text"])
        elif kind == "run_javascript" and "location.reload" in body.get("code", ""):
            self.problems.append("reload: the server no longer had what it had sent")
            self._refused()

    # The user.

    async def _click_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.click_s)
            if not self.still:
                await self.click()

    async def click(self) -> None:
        """Click; without a socket the click is kept until there is one."""
        document = self.document
        if document is None or not self.opened_at:
            return
        message = "42" + json.dumps([
            "event",
            {"id": document.button_id, "client_id": document.client_id, "listener_id": document.listener, "args": []},
        ])  # fmt: skip
        self.clicks += 1
        document.clicked += 1
        socket = self._socket
        if socket is None or not self.connected.is_set():
            self._kept.append(message)
            return
        try:
            await socket.send(message)
        except websockets.ConnectionClosed:  # a page knows of the end as soon as it is there
            self._kept.append(message)

    async def _ack_now_and_then(self, socket: websockets.ClientConnection, document: Document) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):  # whoever receives sees it too
            while True:
                await asyncio.sleep(ACK_S)
                if document.acked < document.next_message_id:
                    body = {"client_id": document.client_id, "next_message_id": document.next_message_id}
                    await socket.send("42" + json.dumps(["ack", body]))
                    document.acked = document.next_message_id

    def _tell(self, text: str) -> None:
        self.story.append((time.monotonic(), text))

    def tale(self, since: float) -> str:
        """Tell what happened since a moment."""
        return ", ".join(f"{at - since:.2f} {text}" for at, text in self.story if at >= since)

    def sever(self) -> None:
        """Break the socket, as a network does that changes."""
        if self._socket is not None:
            self._socket.transport.abort()

    def forget_unanswered(self) -> None:
        """Count no click as unanswered that was made until now."""
        if self.document is not None:
            self.document.clicked = self.document.shown

    @property
    def reloads(self) -> int:
        """Count the reloads."""
        return len(self.reloaded_at)

    @property
    def unanswered(self) -> int:
        """Count the clicks on the present document that the server has not shown to have heard of."""
        return self.document.clicked - self.document.shown if self.document is not None else 0


class Crowd:
    """Many browsers, and what is counted over all of them."""

    def __init__(self, url: str, http: aiohttp.ClientSession, random: random.Random, click_s: float) -> None:
        self._make: Callable[[], Browser] = lambda: Browser(url, http, random, click_s)
        self.browsers: list[Browser] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, count: int, *, at_once: int = 6) -> list[Browser]:
        """Open so many more pages, a few at a time; return when all have a working socket."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> Browser:
            async with gate:
                browser = self._make()
                self.browsers.append(browser)
                self._tasks.append(asyncio.create_task(browser.run()))
                async with asyncio.timeout(60):
                    await browser.connected.wait()
                return browser

        return await asyncio.gather(*(one() for _ in range(count)))

    def check(self) -> None:
        """Raise what a browser's script has failed with, if any has."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def settled(self, limit_s: float, *, answered: bool = True) -> bool:
        """Wait until every page has a working socket and every click its answer; say whether it came to that.

        answered: False where answers may be lost; then it is waited for a moment and no longer.
        """
        end = time.monotonic() + limit_s
        for browser in self.browsers:
            browser.still = True
        try:
            while time.monotonic() < end:
                self.check()
                connected = all(b.connected.is_set() for b in self.browsers)
                if connected and not any(b.unanswered for b in self.browsers):
                    return True
                if connected and not answered:
                    end, answered = min(end, time.monotonic() + 2.0), True
                await asyncio.sleep(0.05)
            return False
        finally:
            for browser in self.browsers:
                browser.still = False

    async def leave(self) -> None:
        """Close all pages."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
