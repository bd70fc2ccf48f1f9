"""What may stand between a browser and the proxy: an ingress, a Wi-Fi that breaks, a firewall that strips cookies.

A relay listens on a port of its own and passes bytes on. It can be cut, and moved to another proxy while browsers are
connected. With an `Edit` it reads the heads and has one connection for each request, as the simplest balancers do.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

CHUNK = 1 << 18

CUT_S = 2.0
"""Length of an outage. NiceGUI's `reconnect_timeout` is 3 s: so long after a clean close a page's state is kept."""


@dataclass(frozen=True)
class Edit:
    """What a relay changes in the heads that pass."""

    cookies: bool = True
    """False: no cookie passes, neither way."""

    prefix: str = ""
    """The path under which the app is published: taken off, and told in X-Forwarded-Prefix."""

    websockets: bool = True
    """False: an Upgrade is answered with 403, as a middlebox does that knows only HTTP/1.0."""

    def request(self, head: bytes) -> bytes:
        """Return the request's head as it is passed on."""
        if self.prefix:
            method, _, rest = head.partition(b" ")
            path = rest.removeprefix(self.prefix.encode())
            assert path != rest, f"the browser left {self.prefix}: {rest.split()[0]!r}"
            head = method + b" " + (b"" if path.startswith(b"/") else b"/") + path
            head = add_header(head, f"X-Forwarded-Prefix: {self.prefix}")
        if not self.cookies:
            head = drop_header(head, b"cookie")
        if header(head, b"upgrade") is None:
            head = add_header(drop_header(head, b"connection"), "Connection: close")
        return head

    def response(self, head: bytes) -> bytes:
        """Return the response's head as it is passed on."""
        return head if self.cookies else drop_header(head, b"set-cookie")


def header(head: bytes, name: bytes) -> bytes | None:
    """Return the value of a header, None where it is not there."""
    found = re.search(rb"(?im)^" + re.escape(name) + rb":[ \t]*([^\r\n]*)", head)
    return found and found[1]


def drop_header(head: bytes, name: bytes) -> bytes:
    return re.sub(rb"(?im)^" + re.escape(name) + rb":[^\n]*\n", b"", head)


def add_header(head: bytes, line: str) -> bytes:
    return head.removesuffix(b"\r\n") + line.encode() + b"\r\n\r\n"


@dataclass
class Relay:
    """A relay that runs; `ports` are those of the proxies, which new connections get in turn."""

    port: int
    ports: list[int]
    edit: Edit | None = None
    requests: list[str] = field(default_factory=list)
    """With an edit: the request lines that came."""

    _through: asyncio.Event = field(default_factory=asyncio.Event)
    _next: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.edit.prefix if self.edit else ''}/"

    def sever(self) -> None:
        """Break all connections, on both sides."""
        for writer in self._writers:
            writer.transport.abort()

    def move(self, ports: Iterable[int]) -> None:
        """Break all connections; new ones go to other proxies."""
        self.ports = list(ports)
        self.sever()

    @asynccontextmanager
    async def outage(self, *, sever: bool) -> AsyncIterator[None]:
        """Let nothing through while the block lasts; whoever connects meanwhile waits, as lost packets make one wait.

        sever: existing connections break at once. Otherwise they hang, and go on afterwards.
        """
        self._through.clear()
        if sever:
            self.sever()
        try:
            yield
        finally:
            self._through.set()

    def target(self, head: bytes) -> int:
        """Return the port for the next connection; `head` is empty without an edit."""
        self._next += 1
        return self.ports[self._next % len(self.ports)]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a browser."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._through.wait()
                await self._relay(reader, writer)
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b""
        if self.edit:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.partition(b"\r\n")[0].decode())
            if not self.edit.websockets and header(head, b"upgrade") is not None:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            head = self.edit.request(head)
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target(head))
        self._writers.add(upstream)
        upward = asyncio.create_task(self._pass(reader, upstream))
        try:
            upstream.write(head)
            if self.edit:
                writer.write(self.edit.response(await upstream_reader.readuntil(b"\r\n\r\n")))
            await self._pass(upstream_reader, writer)
            await writer.drain()
        finally:
            upward.cancel()
            upstream.close()
            self._writers.discard(upstream)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._through.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()


with_and_without_cookies = pytest.mark.parametrize(
    ("edit", "options"),
    [
        pytest.param(None, (), id="cookies"),
        pytest.param(Edit(cookies=False), ("--page-token",), id="no cookies, page token"),
    ],
)
"""Once as most browsers are, once where no cookie passes and the proxy is told to do without: give `edit` to the relay
and `options` to the proxy."""


@asynccontextmanager
async def running_relay(ports: list[int], edit: Edit | None = None, kind: type[Relay] = Relay) -> AsyncIterator[Relay]:
    """Run a relay to the proxies at `ports` while the block lasts."""
    async with AsyncExitStack() as stack:
        relay = kind(0, list(ports), edit)
        server = await asyncio.start_server(relay.accept, "127.0.0.1", 0, limit=CHUNK)
        relay.port = server.sockets[0].getsockname()[1]
        relay._through.set()

        @stack.push_async_callback
        async def end() -> None:
            server.close()
            relay._through.set()
            relay.sever()
            await asyncio.gather(*relay._tasks, return_exceptions=True)
            await server.wait_closed()

        yield relay
