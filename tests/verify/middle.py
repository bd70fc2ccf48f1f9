"""A small proxy that does one thing wrong, or in a way that people have to live with.

It has one connection to a replica for each request. What is wrong is in `Wrong`; everything else passes as it came.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from e2e.relay import add_header, drop_header, header

CHUNK = 1 << 16


@dataclass(frozen=True)
class Wrong:
    """What is wrong."""

    strips_upgrade: bool = False
    """Passes a request for a WebSocket on as a mere GET."""
    prefix: str = ""
    """Publishes the app below a path and takes that off; whoever leaves the path gets 404."""
    tells_prefix: bool = False
    """Says so in X-Forwarded-Prefix."""
    holds_socket_bytes: int = 0
    """Passes what comes on a WebSocket on in blocks of so many bytes."""
    holds_answers: bool = False
    """Passes an answer on when it is whole."""
    flushes_every_s: float = 0.0
    """Passes what comes on a WebSocket on only now and then."""
    cuts_at_age_s: float = 0.0
    """Ends each WebSocket so long after it was opened."""
    login: str = ""
    """Asks for HTTP's own login, and knows this one NAME:PASSWORD."""
    sends_away: str = ""
    """Redirects whoever has no cookie `session_of_sso` to this address."""
    fails_once_after: int = 0
    """After so many WebSockets, the replicas change places: as if they had been restarted."""
    files_elsewhere_first: bool = False
    """Asks for each file of NiceGUI's at the second replica first, and at the first one from then on."""
    fixed: bool = False
    """Everybody is sent to the first replica."""


@dataclass
class Middle:
    """The proxy."""

    ports: list[int]
    wrong: Wrong
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    """The heads of all requests."""
    sockets: int = 0
    _turn: int = 0
    _asked: set[bytes] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.wrong.prefix}/"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        wrong = self.wrong
        if wrong.login:
            expected = b"Basic " + base64.b64encode(wrong.login.encode())
            if header(head, b"authorization") != expected:
                await _answer(writer, "401 Unauthorized", 'WWW-Authenticate: Basic realm="lab"')
                return
        if wrong.sends_away and b"session_of_sso=" not in (header(head, b"cookie") or b""):
            await _answer(writer, "302 Found", f"Location: {wrong.sends_away}")
            return
        if wrong.prefix:
            method, _, rest = head.partition(b" ")
            if not rest.startswith(wrong.prefix.encode()):
                await _answer(writer, "404 Not Found")
                return
            path = rest.removeprefix(wrong.prefix.encode())
            head = method + b" " + (b"" if path.startswith(b"/") else b"/") + path
            if wrong.tells_prefix:
                head = add_header(head, f"X-Forwarded-Prefix: {wrong.prefix}")
        is_socket = header(head, b"upgrade") is not None
        if wrong.strips_upgrade:
            head, is_socket = drop_header(head, b"upgrade"), False
        if is_socket:
            self.sockets += 1
        else:
            head = add_header(drop_header(head, b"connection"), "Connection: close")
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._pick(head))
        upstream.write(head)
        upward = asyncio.create_task(_pass(reader, upstream))
        try:
            limit = asyncio.timeout(wrong.cuts_at_age_s if is_socket and wrong.cuts_at_age_s else None)
            with suppress(TimeoutError):
                async with limit:
                    await self._down(upstream_reader, writer, is_socket=is_socket)
        finally:
            upward.cancel()
            upstream.close()

    def _pick(self, head: bytes) -> int:
        wrong = self.wrong
        target = head.split(b" ")[1]
        if wrong.files_elsewhere_first and b"/_nicegui/" in target and target not in self._asked:
            self._asked.add(target)
            return self.ports[1]
        if wrong.fixed:
            return self.ports[0]
        if wrong.fails_once_after:
            return self.ports[self.sockets > wrong.fails_once_after]
        self._turn += 1
        return self.ports[self._turn % len(self.ports)]

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_socket: bool) -> None:
        wrong = self.wrong
        if is_socket:
            writer.write(await reader.readuntil(b"\r\n\r\n"))
            await writer.drain()
            if wrong.flushes_every_s:
                await _flush_now_and_then(reader, writer, wrong.flushes_every_s)
                return
        hold = wrong.holds_socket_bytes if is_socket else 1 << 40 if wrong.holds_answers else 0
        await _pass(reader, writer, hold)


async def _answer(writer: asyncio.StreamWriter, status: str, *lines: str) -> None:
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "Content-Length: 0", "Connection: close", "", ""])
    writer.write(head.encode())
    await writer.drain()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold: int = 0) -> None:
    """Pass bytes on, once so many are there or no more come."""
    held = b""
    try:
        while data := await reader.read(CHUNK):
            held += data
            if len(held) >= hold:
                writer.write(held)
                held = b""
                await writer.drain()
        writer.write(held)
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _flush_now_and_then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, every_s: float) -> None:
    """Pass bytes on a fixed time after they came: this is a fault to be seen, not a wait."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(CHUNK):
        loop.call_later(every_s, writer.write, data)


@asynccontextmanager
async def middle(ports: Sequence[int], wrong: Wrong) -> AsyncIterator[Middle]:
    """Run the proxy while the block lasts."""
    proxy = Middle(list(ports), wrong)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, limit=1 << 18)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy._tasks):
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
        await server.wait_closed()
