"""A backend that keeps every byte it receives, answers what it can read, and says in each answer what that answers.

Laws: it reads by the letter and closes on what it cannot read; an answer names the target that it answers and its
number on the connection; whoever asks for `/victim` is told that the connection ends, so that each case starts afresh.
"""

import asyncio
import socket
import struct
from typing import cast

from .case import ResponseCase
from .readers import UnreadableError, strict

SCRIPTED = "/case"
"""The target that is answered by the bytes of a case."""

VICTIM = "/victim"


TURN_S = 0.001
"""Between two pieces, so that the proxy reads the first by itself; where it does not, they are one, which is tried too."""


def thirds(data: bytes) -> list[bytes]:
    """Cut bytes into three pieces."""
    one, two = len(data) // 3, 2 * len(data) // 3
    return [data[:one], data[one:two], data[two:]]


class Line(asyncio.Protocol):
    """One connection from the proxy."""

    def __init__(self, recorder: "Recorder") -> None:
        self.recorder = recorder
        self.received = b""
        self.answered = 0
        self.lost = asyncio.Event()
        self.switched = False
        self.unreadable = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.recorder.lines.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.switched:
            return
        try:
            messages = strict(self.received)
        except UnreadableError as error:
            self.unreadable = str(error)
            self.transport.close()
            return
        for message in messages[self.answered :]:
            if message.whole and not self.transport.is_closing():
                self.answered += 1
                self._answer(message.start[0], message.start[1])

    def _answer(self, method: str, target: str) -> None:
        script = self.recorder.script
        if target == SCRIPTED and script is not None:
            self.switched = b"HTTP/1.1 101" in script.raw
            self._play(script, thirds(script.raw) if self.recorder.cut else [script.raw])
            return
        body = b"" if method == "HEAD" else target.encode()
        end = b"Connection: close\r\n" if target == VICTIM else b""
        head = b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n%b\r\n"
        self.transport.write(head % (target[:64].encode(), len(target), end) + body)
        if end:
            self.transport.close()

    def _play(self, script: ResponseCase, pieces: list[bytes]) -> None:
        """Send the first piece, and the others a turn of the event loop later each; then do what the case says."""
        if self.transport.is_closing():
            return
        self.transport.write(pieces[0])
        if len(pieces) > 1:
            asyncio.get_running_loop().call_later(TURN_S, self._play, script, pieces[1:])
        elif script.then == "close":
            self.transport.close()
        elif script.then == "reset":
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Recorder:
    """Listens on loopback; `lines` are the connections since `begin`, `script` what `/case` is answered with.

    cut: the script is sent in three pieces.
    """

    def __init__(self, *, cut: bool = False) -> None:
        self.cut = cut
        self.lines: list[Line] = []
        self.script: ResponseCase | None = None
        self._all: list[Line] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; give the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Line(self), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def begin(self, script: ResponseCase | None = None) -> None:
        """Forget what came before."""
        self._all += self.lines
        self.lines = []
        self.script = script

    def close(self) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        for line in self._all + self.lines:
            line.transport.abort()
