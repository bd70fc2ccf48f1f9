"""Run the backends behind the proxies: one process, two listening sockets, answers made ahead of time.

``python -m benchmarks.backend`` prints one line with its ports and serves until its standard input ends, so it cannot
outlive the benchmark that holds the other end. It understands just what the generator sends: a GET of ``/small`` or
``/large``, and a WebSocket below ``/_nicegui_ws/``, which begins as NiceGUI's does, and whose frames of one known size
are then echoed; behind the first it sends a heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from typing import cast

import uvloop

from benchmarks import system, wire

BACKENDS = 2
_ACCEPT_BACKLOG = 1024


class Backend(asyncio.Protocol):
    """Serve one connection of one backend."""

    __slots__ = ("_beat", "_held", "_large", "_small", "_transport", "_websocket")

    def __init__(self, small: bytes, large: bytes) -> None:
        self._small = small
        self._large = large
        self._held = b""
        self._websocket = False
        self._beat = False  # the heartbeat has been sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request or frame; hold back the rest."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._websocket:
            self._echo(data)
            return
        while data:
            end = data.find(wire.HEAD_END) + len(wire.HEAD_END)
            if end < len(wire.HEAD_END):
                self._held = data
                return
            if data.startswith(b"GET /small "):
                self._transport.write(self._small)
            elif data.startswith(b"GET /large "):
                self._transport.write(self._large)
            elif data.startswith(b"GET " + wire.WS_PATH_PREFIX.encode()):
                self._websocket = True
                self._transport.write(wire.ws_accept(data[:end]) + wire.WS_GREETING)
                self._echo(data[end:])
                return
            else:
                self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            if end == len(data):
                return
            data = data[end:]

    def _echo(self, data: bytes) -> None:
        if data.startswith(wire.WS_CONNECT):
            self._transport.write(wire.WS_CONNECTED)
            data = data[len(wire.WS_CONNECT) :]
        if self._beat and data.startswith(wire.WS_HEARTBEAT_ANSWER):
            data = data[len(wire.WS_HEARTBEAT_ANSWER) :]
        size = len(wire.WS_CLIENT_FRAME)
        while len(data) >= size:
            self._transport.write(wire.WS_SERVER_HEAD + data[wire.WS_CLIENT_HEAD_BYTES : size])
            data = data[size:]
            if not self._beat:
                self._beat = True
                self._transport.write(wire.WS_HEARTBEAT)
        self._held = data


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    date = formatdate(usegmt=True)
    ports = []
    for index in range(BACKENDS):
        small = wire.response(wire.backend_body(index, wire.SMALL_BODY_BYTES), date)
        large = wire.response(wire.backend_body(index, wire.LARGE_BODY_BYTES), date)
        server = await loop.create_server(partial(Backend, small, large), "127.0.0.1", 0, backlog=_ACCEPT_BACKLOG)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    parent_gone = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), parent_gone.set)
    await parent_gone.wait()


@contextlib.contextmanager
def running(core: int) -> Iterator[list[int]]:
    """Run the backends on ``core`` and yield their ports; raises ``RuntimeError`` when they do not start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.backend"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the benchmark, which then ends us in order
        preexec_fn=lambda: system.pin(core),
    )
    try:
        if process.stdout is None:
            raise AssertionError("asked for a pipe")
        ports = [int(word) for word in process.stdout.readline().split()]
        if len(ports) != BACKENDS:
            raise RuntimeError("the backends did not start")
        yield ports
    finally:
        system.stop(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    system.raise_file_limit()
    uvloop.run(_serve())
