"""A relay in front of the app that can close a browser's WebSocket in every way a proxy could.

Law: until it is told to close it passes all bytes on; what it adds stands between two frames, since it is told to add
when both directions are quiet.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CHUNK = 1 << 16


def frame(opcode: int, payload: bytes) -> bytes:
    """Build a server's frame: whole, unmasked, short (RFC 6455 section 5.2)."""
    return bytes((0x80 | opcode, len(payload))) + payload


@dataclass
class Session:
    """One WebSocket between a browser and the app."""

    browser: asyncio.StreamWriter
    app: asyncio.StreamWriter
    silent: bool = False
    said: bool = False

    def fin(self) -> None:
        """End both connections cleanly, without a word of the WebSocket protocol."""
        self.browser.close()
        self.app.close()

    def reset(self) -> None:
        """Reset the browser's connection."""
        connection = self.browser.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.browser.transport.abort()
        self.app.close()

    def close_by(self, code: int) -> None:
        """Send the browser a close frame in the app's name, and nothing more; the app gets its answer."""
        self.said = True
        self.browser.write(frame(0x8, struct.pack("!H", code)))

    def say(self, text: bytes) -> None:
        """Tell the browser something in the app's name; it closes by itself, or does not."""
        self.browser.write(frame(0x1, text))

    async def upward(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the browser sends."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self.silent:
                    self.app.write(data)
                    await self.app.drain()
        if not self.silent:
            self.app.close()

    async def downward(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the app sends."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if not (self.silent or self.said):
                    self.browser.write(data)
                    await self.browser.drain()
        if not self.silent:
            self.browser.close()

    def hang(self) -> None:
        """Pass nothing on any more, as where packets are lost."""
        self.silent = True


@dataclass
class Closer:
    """The relay; `sessions` are its WebSockets in order of their opening."""

    target: int
    port: int = 0
    sessions: list[Session] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the browser; only its first head is read, since each WebSocket has a fresh one."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            app_reader, app = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(app)
            session = Session(writer, app)
            if b"\r\nupgrade: websocket\r\n" in head.lower():
                self.sessions.append(session)
            app.write(head)
            await asyncio.gather(session.upward(reader), session.downward(app_reader))
        self._tasks.discard(task)

    def end(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def running_closer(target: int) -> AsyncIterator[Closer]:
    """Run a closer in front of a port while the block lasts."""
    closer = Closer(target)
    server = await asyncio.start_server(closer.serve, "127.0.0.1", 0, limit=CHUNK)
    closer.port = server.sockets[0].getsockname()[1]
    try:
        yield closer
    finally:
        server.close()
        closer.end()
        await asyncio.gather(*closer._tasks, return_exceptions=True)
        await server.wait_closed()
