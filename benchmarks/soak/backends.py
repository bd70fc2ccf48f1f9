"""Replicas that behave like NiceGUI's on the wire, misbehave where they are asked to, and come and go as they are told.

Run in a process of their own: it prints the ports, then does what each line on its standard input says and answers
`done`; it ends with its standard input. `up N`: replica N listens; `down N`: it accepts no more; `kill N`: it drops all
its connections and its pages too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
import subprocess
import sys
import uuid
from collections import OrderedDict
from collections.abc import Iterator

import uvloop

from benchmarks import system, wire

VERSION = "3.18.0"
FOREVER = b"Cache-Control: public, max-age=31536000, immutable\r\n"
MOST_PAGES = 20_000
"""Pages that one replica remembers; far more than are open at any moment of any run."""

STALL_S = 30.0
"""For which a replica that stalls says nothing: longer than the proxy waits."""

FLOOD_BYTES = 1 << 20

_OPENED = b'0{"sid":"xxxxxxxxxxxxxxxxxxxx","upgrades":[],"pingTimeout":2000,"pingInterval":4000}'
_ACCEPTED = b'40{"sid":"yyyyyyyyyyyyyyyyyyyy"}'
_REFUSED = b'44{"message":"Implicit handshake failed"}'
_CLIENT_ID = re.compile(rb"[?&]client_id=([^& ]+)")


def html(client_id: str) -> bytes:
    """Build a page as NiceGUI's template does, so that the proxy finds its client id."""
    return (
        '<!DOCTYPE html>\n<html><body><script type="module">\n'
        "      const app = createApp(parseElements(String.raw`{}`), {\n"
        f'        version: "{VERSION}",\n        prefix: "",\n'
        f"        query: {{'client_id': '{client_id}', 'next_message_id': 0}},\n"
        "        extraHeaders: {},\n      });\n    </script>" + "<p>x</p>" * 500 + "</body></html>\n"
    ).encode()


class Replica:
    """One replica: its pages, and its open connections."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.holder = socket.socket()  # keeps the port while nobody listens
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holder.bind(("127.0.0.1", 0))
        self.port: int = self.holder.getsockname()[1]
        self.pages: OrderedDict[bytes, None] = OrderedDict()
        self.writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def up(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)

    async def down(self) -> None:
        """Accept no more; what is open stays open."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def kill(self) -> None:
        """End as a process does that is killed."""
        await self.down()
        for writer in list(self.writers):
            writer.transport.abort()
        self.pages.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while await self._answer(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # whoever asked has gone, which is part of the load
        finally:
            self.writers.discard(writer)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether another may follow."""
        head = await reader.readuntil(wire.HEAD_END)
        method, target, _ = head.split(b" ", 2)
        if target.startswith(b"/fault/"):
            return await self._misbehave(target, writer)
        if target.startswith(b"/_nicegui_ws/"):
            await self._socket(head, target, reader, writer)
            return False
        if method == b"POST":
            return await self._upload(head, target, reader, writer)
        if target.startswith(b"/_nicegui/"):
            body = target.ljust(4096, b".")
            writer.write(_response(body, FOREVER + b"Content-Type: text/javascript\r\n"))
        elif target.startswith(b"/download/"):
            await self._download(target, writer)
        else:
            self._page(head, writer)
        return True

    def _page(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        page = str(uuid.uuid4())
        self.pages[page.encode()] = None
        if len(self.pages) > MOST_PAGES:
            self.pages.popitem(last=False)
        lines = b"X-NiceGUI-Content: page\r\nCache-Control: no-store\r\nContent-Type: text/html; charset=utf-8\r\n"
        body = html(page)
        if b"Accept-Encoding: gzip" in head:
            body, lines = gzip.compress(body, 1), lines + b"Content-Encoding: gzip\r\n"
        writer.write(_response(body, lines + b"X-Page: %b\r\n" % page.encode()))

    async def _socket(
        self, head: bytes, target: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        found = _CLIENT_ID.search(target)
        mine = found is not None and found[1] in self.pages
        writer.write(wire.ws_accept(head) + _frame(_OPENED) + _frame(_ACCEPTED if mine else _REFUSED))
        while mine:
            await reader.readexactly(len(wire.WS_CLIENT_FRAME))
            writer.write(wire.WS_SERVER_FRAME)
            await writer.drain()

    async def _upload(
        self, head: bytes, target: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if b"/early" in target:  # an answer to a body that has not come in
            writer.write(_response(b"too large", b"Connection: close\r\n", status=b"413 Content Too Large"))
            return False
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is not None:
            await _skip(reader, int(length[1]))
        else:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await _skip(reader, size + 2)
            await reader.readuntil(b"\r\n")
        writer.write(_response(b"thanks"))
        return True

    async def _download(self, target: bytes, writer: asyncio.StreamWriter) -> None:
        size = int(target.rpartition(b"/")[2])
        if b"/chunked/" in target:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size:
            piece = min(size, 32768)
            data = b"d" * piece
            writer.write(b"%x\r\n%b\r\n" % (piece, data) if b"/chunked/" in target else data)
            await writer.drain()
            size -= piece
        if b"/chunked/" in target:
            writer.write(b"0\r\n\r\n")

    async def _misbehave(self, target: bytes, writer: asyncio.StreamWriter) -> bool:
        match target.rpartition(b"/")[2]:
            case b"reset":
                writer.transport.abort()
            case b"half":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
            case b"half-head":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            case b"stall":
                await asyncio.sleep(STALL_S)
            case b"stall-body":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
                await asyncio.sleep(STALL_S)
            case b"garbage":
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            case b"flood":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + b"f" * FLOOD_BYTES)
            case b"storm":
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
            case other:
                raise ValueError(f"expected a known fault, found {other!r}")
        await writer.drain()
        return False


def _response(body: bytes, lines: bytes = b"", *, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


def _frame(message: bytes) -> bytes:
    return b"\x81%c%b" % (len(message), message)


async def _skip(reader: asyncio.StreamReader, count: int) -> None:
    while count:
        count -= len(await reader.readexactly(min(count, 65536)))


async def _serve(count: int) -> None:
    replicas = [Replica(number) for number in range(count)]
    print(*(replica.port for replica in replicas), flush=True)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := (await orders.readline()).decode().split():
        order, number = line
        replica = replicas[int(number)]
        await {"up": replica.up, "down": replica.down, "kill": replica.kill}[order]()
        print("done", flush=True)


class Backends:
    """The running process, as the soak speaks to it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdout is not None
        self.ports = [int(word) for word in process.stdout.readline().split()]
        if not self.ports:
            raise RuntimeError("the backends did not start")

    def tell(self, order: str, number: int) -> None:
        """Give an order and wait until it is carried out, which takes no more than moments."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order} {number}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if answer != b"done\n":
            raise RuntimeError(f"expected the backends to have done '{order} {number}', found {answer!r}")


@contextlib.contextmanager
def running(count: int) -> Iterator[Backends]:
    """Run so many replicas, none of which listens yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak.backends", str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield Backends(process)
    finally:
        system.stop(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    system.raise_file_limit()
    uvloop.run(_serve(int(sys.argv[1])))
