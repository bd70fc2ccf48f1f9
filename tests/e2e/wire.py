"""The network between a browser and what serves it, as it fails on phones and laptops: it falls silent, or breaks.

Laws: what is held is held whole and in order, at both ends by the kernels' own buffers; nobody hears of an end, neither
FIN nor reset, while the wire is silent; a connection that is dead stays so, and its far end never hears of it.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast

Attempts = Literal["fail", "hang"]
"""What becomes of new connections in an outage: where a device knows that it has no network they fail at once; where
packets are lost on the way, they hang."""

After = Literal["same network", "another network"]
"""What an outage ends with: the old connections go on, as after a tunnel, or they are dead and only new ones work."""


UPGRADE = b"upgrade: websocket"


class Wire:
    """Listens on `port` and passes bytes on to `target`, until it is told to fail."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.silent = False
        self.attempts: Attempts | None = None
        """What becomes of new connections now; None: they are served."""
        self._sides: set[_Side] = set()
        self._waiting: set[_Side] = set()
        """Browsers' sides that wait for the outage to end."""
        self._dialling: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def cut(self, attempts: Attempts) -> None:
        """Let nothing pass any more, in either direction.

        A device that knows that it has no network ("fail") drops its idle connections, which it kept for its next
        requests: browsers empty their pools when an interface goes.
        """
        self.silent, self.attempts = True, attempts
        for side in list(self._sides):
            if attempts == "fail" and side.of_browser and not side.websocket:
                side.lose()
            side.judge()

    def break_off(self) -> None:
        """Reset every connection at both ends; new ones are reset at once."""
        self.attempts = "fail"
        for side in list(self._sides):
            side.reset()

    def restore(self, after: After) -> None:
        """Serve again.

        On another network the browser hears that its old connections are gone, as browsers do when an interface goes;
        the other end hears nothing, ever.
        """
        if after == "another network":
            for side in list(self._sides):
                if side.of_browser:
                    side.lose()
        self.silent, self.attempts = False, None
        for side in self._waiting:
            if not side.transport.is_closing():
                self._dial(side)
        self._waiting.clear()
        for side in list(self._sides):
            if side.other is not None and side.other.transport.is_closing() and not side.dead:
                side.reset()  # its other end went in the silence
            side.judge()

    def opened(self, side: "_Side") -> None:
        """Do with a new connection of a browser what the time demands."""
        if self.attempts == "fail":
            side.reset()
        elif self.attempts == "hang":
            self._waiting.add(side)
            side.judge()
        else:
            self._dial(side)

    def _dial(self, side: "_Side") -> None:
        task = asyncio.create_task(self._connect(side))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _connect(self, side: "_Side") -> None:
        loop = asyncio.get_running_loop()
        try:
            _, other = await loop.create_connection(lambda: _Side(self, side), "127.0.0.1", self.target)
        except OSError:
            side.reset()
            return
        if side.transport.is_closing():
            other.reset()
        else:
            side.other = other
            side.judge()
            other.judge()

    async def end(self) -> None:
        """Drop everything."""
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        for side in list(self._sides):
            side.reset()


class _Side(asyncio.Protocol):
    """One end of a connection; the browser's is made first and reads nothing until the other is there."""

    transport: asyncio.Transport

    def __init__(self, wire: Wire, other: "_Side | None" = None) -> None:
        self.wire = wire
        self.of_browser = other is None
        self.other = other
        self.dead = False
        self.full = False
        """Whether this end takes nothing now, so that the other one must not read."""
        self.ended = False
        """Whether this end has said all it had to say."""
        self.websocket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.wire._sides.add(self)
        self.transport.pause_reading()
        if self.of_browser:
            self.wire.opened(self)

    def judge(self) -> None:
        """Read, or read not, as the state of the wire and of the other end demands."""
        if self.transport.is_closing():
            return
        held = self.wire.silent or self.dead or self.ended
        if self.other is not None and not held and not self.other.full:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.websocket = self.websocket or (self.of_browser and UPGRADE in data.lower())
        if not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        assert self.other is not None
        self.ended = True
        if self.other.ended:
            self.transport.close()
            self.other.transport.close()
        elif not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        self.full = True
        if self.other is not None:
            self.other.judge()

    def resume_writing(self) -> None:
        self.full = False
        if self.other is not None:
            self.other.judge()

    def connection_lost(self, error: Exception | None) -> None:
        self.wire._sides.discard(self)
        self.wire._waiting.discard(self)
        other = self.other
        if other is None or self.wire.silent or other.dead or other.transport.is_closing():
            return
        if error is None:
            other.transport.close()
        else:
            other.reset()

    def lose(self) -> None:
        """Let this end be reset and the other one never hear of it."""
        if self.other is not None:
            self.other.dead = True
        self.reset()

    def reset(self) -> None:
        """End the connection with a reset."""
        if not self.transport.is_closing():
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


@asynccontextmanager
async def running_wire(target: int) -> AsyncIterator[Wire]:
    """Run a wire to the port `target` while the block lasts."""
    wire = Wire(target)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Side(wire), "127.0.0.1", 0, backlog=256)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        await wire.end()
        await server.wait_closed()
