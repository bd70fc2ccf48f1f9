"""A gate on the way to the API server: shut, it is to one client what an outage is to all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK = 1 << 16


class Gate:
    """Passes bytes on to a port of 127.0.0.1 while it is open; TLS goes through untouched."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepted = 0
        """Connections that got through, ever."""

        self.refused = 0
        """Connections that were broken off at once since the gate was shut, ever."""

        self._target = target
        self._open = True
        self._moves = asyncio.Event()
        self._moves.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    def shut(self) -> None:
        """Break all connections; new ones are broken off at once."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        """Let everything through again."""
        self._open = True
        self._moves.set()

    def freeze(self) -> None:
        """Let no byte through any more, with all connections alive, as packets that are dropped do."""
        self._moves.clear()

    def thaw(self) -> None:
        """Let bytes through again."""
        self._moves.set()

    async def connected(self, count: int = 1, *, bound_s: float = 30.0) -> None:
        """Wait until `count` more connections have got through."""
        wanted = self.accepted + count
        async with asyncio.timeout(bound_s), self._changed:
            await self._changed.wait_for(lambda: self.accepted >= wanted)

    async def attempts(self, count: int, *, bound_s: float) -> None:
        """Wait until `count` more connections have been broken off."""
        wanted = self.refused + count
        async with asyncio.timeout(bound_s), self._changed:
            await self._changed.wait_for(lambda: self.refused >= wanted)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self._open:
                writer.transport.abort()
                self.refused += 1
                async with self._changed:
                    self._changed.notify_all()
                return
            with suppress(OSError):
                await self._relay(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, upstream}
        self._writers |= both
        self.accepted += 1
        async with self._changed:
            self._changed.notify_all()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, upstream))
                group.create_task(self._pass(upstream_reader, writer))
        except* OSError:
            pass  # one side broke off; so do we
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._moves.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # a side that ends ends both: the API server knows no half-close


@asynccontextmanager
async def running_gate(target: int) -> AsyncIterator[Gate]:
    """Run a gate to `target` while the block lasts."""
    gate = Gate(target)
    server = await asyncio.start_server(gate._accept, "127.0.0.1", 0)
    gate.port = server.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        server.close()
        gate.open()
        gate.shut()
        await asyncio.gather(*gate._tasks, return_exceptions=True)
        await server.wait_closed()
