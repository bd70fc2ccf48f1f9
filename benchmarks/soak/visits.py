"""Visitors: people with pages, sockets, uploads and downloads, and those who mean harm or vanish.

Laws: who does nothing wrong must be served, unless a replica was killed meanwhile; whoever asks a replica to misbehave
must be told so by a 502, a 504 or a break, and never get a whole answer that nobody gave. All else is a problem, which
the run reports and fails on. Everything is bounded in time.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

from benchmarks import wire

BOUND_S = 20.0
"""Most seconds that one answer may take: far more than any limit of the proxy that is under test."""

SLACK_S = 0.5
"""For this long after a replica was killed its connections may still be found dead."""

MOST_PROBLEMS = 20
"""So many are told; all are counted."""

HOSTILE_SHARE = 0.2
MEAN_STAY_S, LONGEST_STAY_S = 3.0, 12.0
ASSETS = 120
FAULTS = {
    "reset": {502}, "half": {200}, "half-head": {502}, "stall": {504}, "stall-body": {200}, "garbage": {502},
    "flood": {200}, "storm": {103, 502},
}  # fmt: skip
"""What a replica is asked to do, and which statuses may be seen then."""

CUT_SHORT = {"half", "stall-body"}
"""Of those with a 200, the ones whose body must break off."""


class Became(Enum):
    """What became of a page's socket."""

    LEFT = "its user left"
    LOST = "its replica was killed"
    REFUSED = "another replica refused the page"


class BrokenError(Exception):
    """An exchange did not end as it should."""


@dataclass
class World:
    """What all visitors share."""

    port: int
    random: random.Random
    killed_at: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def excused(self, since: float) -> bool:
        """Say whether a replica was killed since a moment, or shortly before it."""
        return bool(self.killed_at) and self.killed_at[-1] >= since - SLACK_S

    def problem(self, what: str) -> None:
        """Note what must not happen."""
        self.counts["problems"] += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(what)


@dataclass
class Answer:
    """A response as it was read."""

    status: int
    head: bytes
    body: bytes


class Connection:
    """One client connection, closed at the end of the block whatever happens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._world.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    def reset(self) -> None:
        """Vanish by a reset."""
        connection = self.writer.get_extra_info("socket")
        if not self.writer.transport.is_closing():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()

    async def answer(self) -> Answer:
        """Read one whole response; what breaks off raises IncompleteReadError."""
        head = await self.reader.readuntil(wire.HEAD_END)
        status = int(head[9:12])
        if found := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
            return Answer(status, head, await self.reader.readexactly(int(found[1])))
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            parts = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                parts.append((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readuntil(b"\r\n")
            return Answer(status, head, b"".join(parts))
        return Answer(status, head, await self.reader.read() if status >= 200 and status not in (204, 304) else b"")


class Visitor:
    """One browser with one page."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = random.Random(world.random.random())
        self.cookie = ""
        self.address = f"10.{self.random.randrange(256)}.{self.random.randrange(256)}.{self.random.randrange(256)}"

    def request(self, line: str, *lines: str, body: bytes = b"") -> bytes:
        """Build a request as this browser sends it."""
        cookie = [f"Cookie: session=abc; {self.cookie}"] if self.cookie else []
        fields = ["Host: soak.test", f"X-Forwarded-For: {self.address}", *cookie, *lines]
        return "\r\n".join([f"{line} HTTP/1.1", *fields, "", ""]).encode() + body

    async def visit(self) -> None:
        """Come, do something, and leave in one of many ways."""
        misdeeds = (self.ask_for_a_fault, self.do_harm)
        deed = self.random.choice(misdeeds) if self.random.random() < HOSTILE_SHARE else self.use_the_app
        since = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_STAY_S + 4 * BOUND_S):
                await deed()
        except (OSError, asyncio.IncompleteReadError, TimeoutError, BrokenError) as error:
            if self.world.excused(since):
                self.world.counts["excused"] += 1
            else:
                self.world.problem(f"{deed.__name__}: {type(error).__name__}: {error}")

    async def well(self, exchange: Callable[[], Awaitable[Answer]], what: str, *statuses: int) -> Answer | None:
        """Take part in an exchange that must go well; None where a killed replica is the reason that it did not."""
        since = time.monotonic()
        try:
            async with asyncio.timeout(BOUND_S):
                answer = await exchange()
            if answer.status not in (statuses or (200,)):
                raise BrokenError(f"status {answer.status}, {answer.head[:300]!r}")
        except (OSError, asyncio.IncompleteReadError, TimeoutError, BrokenError) as error:
            if not self.world.excused(since):
                self.world.problem(f"{what}: {type(error).__name__}: {error}")
            else:
                self.world.counts["excused"] += 1
            return None
        self.world.counts[what] += 1
        return answer

    # Who uses the app.

    async def use_the_app(self) -> None:
        """Load a page, open its socket, click, upload and download, and leave."""
        self.world.counts["visits"] += 1
        end = time.monotonic() + min(LONGEST_STAY_S, self.random.expovariate(1 / MEAN_STAY_S))
        for _ in range(3):  # documents: a page whose replica was killed is refused by another and reloads
            if (page := await self.load()) is None:
                return
            for _ in range(3):  # sockets: one that is lost is opened again
                became = await self.live(page, end)
                if became is not Became.LOST:
                    break
            if became is Became.LEFT:
                return

    async def load(self) -> str | None:
        """Load the page and some of its files on one connection; give its client id."""
        async with Connection(self.world) as connection:

            async def ask(target: str) -> Answer:
                coding = ["Accept-Encoding: gzip"] if self.random.random() < 0.5 else []
                connection.send(self.request(f"GET {target}", *coding))
                return await connection.answer()

            page = await self.well(lambda: ask("/"), "pages")
            if page is None:
                return None
            if found := re.search(rb"(?i)set-cookie: (stickyproxy=[^;]+)", page.head):
                self.cookie = found[1].decode()
            for _ in range(self.random.randrange(4)):
                target = f"/_nicegui/3.18.0/static/file{self.random.randrange(ASSETS)}.js"
                if await self.well(lambda target=target: ask(target), "assets") is None:  # type: ignore[misc]
                    return None
            found = re.search(rb"(?i)x-page: ([0-9a-f-]+)", page.head)
            return found[1].decode() if found else None

    async def live(self, page: str, end: float) -> Became:
        """Have the page's socket open until the end; say what became of it."""
        since = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_STAY_S + BOUND_S), Connection(self.world) as connection:
                connection.send(
                    self.request(
                        f"GET /_nicegui_ws/socket.io/?client_id={page}&next_message_id=0&implicit_handshake=true"
                        "&EIO=4&transport=websocket",
                        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
                    )
                )  # fmt: skip
                head = await connection.reader.readuntil(wire.HEAD_END)
                if not head.startswith(wire.STATUS_SWITCHING):
                    raise BrokenError(f"a socket got {head[:200]!r}")
                await self._message(connection)
                if (await self._message(connection)).startswith(b"44"):
                    if not self.world.counts["kills"]:
                        raise BrokenError("a page was refused though no replica was ever killed")
                    self.world.counts["pages refused"] += 1
                    return Became.REFUSED
                self.world.counts["sockets"] += 1
                while time.monotonic() < end:
                    await self._click(connection)
                    await asyncio.sleep(min(max(0.0, end - time.monotonic()), self.random.expovariate(2.0)))
                    if self.random.random() < 0.15:
                        await self._transfer(page)
                await self._leave(connection)
                return Became.LEFT
        except (OSError, asyncio.IncompleteReadError, TimeoutError, BrokenError) as error:
            if self.world.excused(since):
                self.world.counts["sockets lost"] += 1
                return Became.LOST
            self.world.problem(f"a socket: {type(error).__name__}: {error}")
            return Became.LEFT

    async def _message(self, connection: Connection) -> bytes:
        _, length = await connection.reader.readexactly(2)
        return await connection.reader.readexactly(length)

    async def _click(self, connection: Connection) -> None:
        connection.send(wire.WS_CLIENT_FRAME)
        if await connection.reader.readexactly(len(wire.WS_SERVER_FRAME)) != wire.WS_SERVER_FRAME:
            raise BrokenError("a message came back changed")
        self.world.counts["messages"] += 1

    async def _transfer(self, page: str) -> None:
        """Upload or download something beside the socket."""
        size = self.random.choice((1_000, 50_000, 400_000))
        async with Connection(self.world) as connection:

            async def upload() -> Answer:
                target = f"POST /_nicegui/client/{page}/upload/1"
                if self.random.random() < 0.5:
                    connection.send(self.request(target, f"Content-Length: {size}"))
                    connection.send(b"u" * size)
                else:
                    connection.send(self.request(target, "Transfer-Encoding: chunked"))
                    connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"u" * size))
                await connection.writer.drain()
                return await connection.answer()

            async def download() -> Answer:
                kind = self.random.choice(("chunked", "length"))
                connection.send(self.request(f"GET /download/{kind}/{size}"))
                answer = await connection.answer()
                if len(answer.body) != size:
                    raise BrokenError(f"expected {size} bytes, found {len(answer.body)}")
                return answer

            if self.random.random() < 0.5:
                await self.well(upload, "uploads")
            else:
                await self.well(download, "downloads")

    async def _leave(self, connection: Connection) -> None:
        how = self.random.choice(("close frame", "close", "reset", "half a message"))
        if how == "close frame":
            connection.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
        elif how == "reset":
            connection.reset()
        elif how == "half a message":
            connection.send(wire.WS_CLIENT_FRAME[: self.random.randrange(1, len(wire.WS_CLIENT_FRAME))])

    # Who does not.

    async def ask_for_a_fault(self) -> None:
        """Meet a replica that misbehaves."""
        fault = self.random.choice(list(FAULTS))
        async with Connection(self.world) as connection, asyncio.timeout(BOUND_S):
            connection.send(self.request(f"GET /fault/{fault}"))
            broken = False
            answer = None
            try:
                while answer is None or answer.status < 200:
                    answer = await connection.answer()
            except (ConnectionError, asyncio.IncompleteReadError):
                broken = True
            if answer is not None and answer.status not in FAULTS[fault]:
                raise BrokenError(f"a replica that does '{fault}' was passed on as {answer.status}")
            if fault in CUT_SHORT and not broken:
                raise BrokenError(f"a replica that does '{fault}' was passed on as a whole answer")
            self.world.counts["faults"] += 1

    async def do_harm(self) -> None:
        """Be a client that no proxy wants."""
        harm = self.random.choice(
            (self._garbage, self._half_head, self._slow_head, self._pipeline, self._slow_reader, self._cut_upload,
             self._early_answer, self._half_close, self._probe)
        )  # fmt: skip
        async with Connection(self.world) as connection, asyncio.timeout(BOUND_S):
            await harm(connection)
        self.world.counts["harm"] += 1

    async def _garbage(self, connection: Connection) -> None:
        connection.send(self.random.randbytes(self.random.randrange(1, 2000)) + b"\r\n\r\n")
        await _end(connection)

    async def _half_head(self, connection: Connection) -> None:
        head = self.request("GET /")
        connection.send(head[: self.random.randrange(len(head))])
        await asyncio.sleep(self.random.random() * 0.2)
        connection.reset()

    async def _slow_head(self, connection: Connection) -> None:
        connection.send(b"GET / HTTP/1.1\r\nHost: so")
        await _end(connection)  # the proxy loses its patience

    async def _pipeline(self, connection: Connection) -> None:
        connection.send(self.request("GET /_nicegui/3.18.0/static/file1.js") * 100)
        await asyncio.sleep(self.random.random() * 0.3)
        connection.reset()

    async def _slow_reader(self, connection: Connection) -> None:
        connection.send(self.request("GET /download/length/4000000"))
        await connection.reader.readexactly(10_000)
        await asyncio.sleep(self.random.random())
        connection.reset()

    async def _cut_upload(self, connection: Connection) -> None:
        connection.send(self.request("POST /upload", "Content-Length: 100000") + b"u" * self.random.randrange(100_000))
        await asyncio.sleep(self.random.random() * 0.3)
        connection.reset() if self.random.random() < 0.5 else connection.writer.close()

    async def _early_answer(self, connection: Connection) -> None:
        connection.send(self.request("POST /upload/early", "Content-Length: 2000000") + b"u" * 100_000)
        answer = await connection.answer()
        if answer.status not in (413, 502):
            raise BrokenError(f"expected the refusal of an upload, found {answer.status}")
        connection.reset()

    async def _half_close(self, connection: Connection) -> None:
        connection.send(self.request("GET /"))
        connection.writer.write_eof()
        if (await connection.answer()).status != 200:
            raise BrokenError("a client that closes its half gets no answer")

    async def _probe(self, connection: Connection) -> None:
        connection.send(self.request("GET /", "User-Agent: kube-probe/1.30"))
        if (await connection.answer()).status != 200:
            raise BrokenError("a probe is told that the proxy is not ready")


async def _end(connection: Connection) -> None:
    """Read whatever comes to its end."""
    try:
        while await connection.reader.read(65536):
            pass
    except ConnectionError:
        return
