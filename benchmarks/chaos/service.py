"""The Service in front of the proxies: layer 4, new connections go to who is ready, its view as old as endpoints are.

Laws: an open connection stays where it is, whatever becomes of the view; ends and resets pass through as they are.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import cast


class Service:
    """Listens on `port` while the block lasts.

    delay_s: between what is said to `see` and what is done. retries: a refused connection is tried with the other
    proxies, as ingress controllers do and kube-proxy does not.
    """

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.retries = False
        self.port = 0
        self.refused = 0
        """Connections that nobody took."""
        self._ports: list[int] = []
        self._next = 0
        self._server: asyncio.Server | None = None
        self._inside: set[_Side] = set()
        self._dialling: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Give the address for browsers."""
        return f"http://127.0.0.1:{self.port}/"

    async def __aenter__(self) -> Service:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._dialling:
            task.cancel()
        for side in list(self._inside):
            side.transport.abort()
        await self._server.wait_closed()

    def see(self, ports: Iterable[int]) -> None:
        """Hear who is ready; it counts after the delay."""
        asyncio.get_running_loop().call_later(self.delay_s, self._take, list(ports))

    def _take(self, ports: list[int]) -> None:
        self._ports = ports

    def opened(self, side: _Side) -> None:
        """Find a proxy for a new connection."""
        task = asyncio.create_task(self._connect(side))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _connect(self, side: _Side) -> None:
        self._next += 1
        ports = self._ports[self._next % len(self._ports) :] + self._ports if self._ports else []
        for port in ports[: len(self._ports) if self.retries else 1]:
            try:
                loop = asyncio.get_running_loop()
                _, other = await loop.create_connection(lambda: _Side(self, side), "127.0.0.1", port)
            except OSError:
                continue
            side.joined(cast(_Side, other))
            return
        self.refused += 1
        side.reset()


class _Side(asyncio.Protocol):
    """One side of a connection; the browser's side is made first and waits for the proxy's."""

    transport: asyncio.Transport

    def __init__(self, service: Service, other: _Side | None = None) -> None:
        self._service = service
        self._other = other
        self._early = b""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection into the books."""
        self.transport = cast(asyncio.Transport, transport)
        self._service._inside.add(self)
        if self._other is None:
            self._service.opened(self)

    def joined(self, other: _Side) -> None:
        """Pass on what came while the proxy was dialled."""
        self._other = other
        if self.transport.is_closing():
            other.transport.abort()
            return
        if self._early:
            other.transport.write(self._early)
        if self._ended:
            other.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._other is None:
            self._early += data
        elif not self._other.transport.is_closing():
            self._other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass a half-close on."""
        self._ended = True
        other = self._other
        if other is not None and not other.transport.is_closing():
            if other._ended:
                return False
            other.transport.write_eof()
        return True

    def reset(self) -> None:
        """End with a reset, as the kernel of a host does where nobody listens."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and not self.transport.is_closing():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side in the same way."""
        self._service._inside.discard(self)
        other = self._other
        if other is not None and not other.transport.is_closing():
            if exc is None:
                other.transport.close()
            else:
                other.reset()
