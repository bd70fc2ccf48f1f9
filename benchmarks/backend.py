"""Run the backends behind the proxies: one process, two listening sockets, answers made ahead of time.

``python -m benchmarks.backend`` prints one line with its ports and serves until its standard input ends, so it cannot
outlive the benchmark that holds the other end. It understands just what the generator sends: a GET of ``/small``,
``/large`` or ``/varied`` (whose answers differ in a header line), and a WebSocket below ``/_nicegui_ws/``, which begins
as NiceGUI's does, and whose frames of one known size are then echoed; behind the first it sends a heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
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


class Answers:
    """The answers of one backend, whose Date is that of the second, as uvicorn's is."""

    def __init__(self, index: int) -> None:
        self._small_body = wire.backend_body(index, wire.SMALL_BODY_BYTES)
        self._large_body = wire.backend_body(index, wire.LARGE_BODY_BYTES)
        self.small = self.large = b""
        self._varied: Iterator[bytes] = iter(())

    def refresh(self) -> None:
        """Build all answers anew, now and in every second from now on."""
        date = formatdate(usegmt=True)
        self.small = wire.response(self._small_body, date)
        self.large = wire.response(self._large_body, date)
        self._varied = itertools.cycle(
            [wire.response(self._small_body, date, f"{number:032x}") for number in range(wire.VARIED_ANSWERS)]
        )
        asyncio.get_running_loop().call_later(1, self.refresh)

    def varied(self) -> bytes:
        """Give an answer whose header lines were not those of the last ones."""
        return next(self._varied)


class Backend(asyncio.Protocol):
    """Serve one connection of one backend."""

    __slots__ = ("_answers", "_beat", "_held", "_transport", "_websocket")

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
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
                self._transport.write(self._answers.small)
            elif data.startswith(b"GET /large "):
                self._transport.write(self._answers.large)
            elif data.startswith(b"GET /varied "):
                self._transport.write(self._answers.varied())
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
    ports = []
    for index in range(BACKENDS):
        answers = Answers(index)
        answers.refresh()
        server = await loop.create_server(partial(Backend, answers), "127.0.0.1", 0, backlog=_ACCEPT_BACKLOG)
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
