"""The real command in a process of its own, and ports that nobody else can get."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from stickyproxy.core.values import Address

from .harness import Message, Peer, request, soon

START_BOUND_S = 20.0
"""Most seconds from the start of the process to its first service, on a busy machine."""


@contextmanager
def reserved() -> Iterator[Address]:
    """Reserve a port: bound but not listening, so that the kernel gives it to nobody, but a server may bind it too."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield Address(*holder.getsockname())


class Command:
    """A running `stickyproxy run`."""

    def __init__(self, process: asyncio.subprocess.Process, listen: Address, admin: Address) -> None:
        self.process = process
        self.listen = listen
        self.admin = admin
        self.log: list[str] = []
        self._peers: list[Peer] = []

    async def says(self, pattern: str, *, bound_s: float = START_BOUND_S) -> str:
        """Wait for a line of the log."""
        assert self.process.stderr is not None
        async with asyncio.timeout(bound_s):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, f"ended without saying {pattern!r}; it said:\n{''.join(self.log)}"
                self.log.append(line)
                if re.search(pattern, line):
                    return line

    async def client(self, where: Address | None = None) -> Peer:
        """Connect."""
        peer = Peer(*await soon(asyncio.open_connection(*(where or self.listen))))
        self._peers.append(peer)
        return peer

    async def ask(self, data: bytes) -> Message:
        """Ask on the main port."""
        client = await self.client()
        client.send(data)
        message = await client.message()
        client.close()
        return message

    async def look(self, target: str) -> Message:
        """Ask on the admin port."""
        client = await self.client(self.admin)
        client.send(request(f"GET {target} HTTP/1.1", "Connection: close"))
        message = await client.message()
        client.close()
        return message

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ends(self, *, bound_s: float = 10) -> int:
        """Wait for the process's end; give its exit code."""
        assert self.process.stderr is not None
        rest = await soon(self.process.stderr.read(), bound_s=bound_s)
        self.log.append(rest.decode())
        return await soon(self.process.wait(), bound_s=bound_s)

    async def close(self) -> None:
        """End the process, whatever state it is in."""
        for peer in self._peers:
            peer.drop()
        if self.process.returncode is None:
            self.process.kill()
        await self.ends()


async def start(
    *arguments: str, environment: dict[str, str] | None = None, stdout: int | IO[bytes] = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """Start the command with the arguments given and nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STICKYPROXY_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stickyproxy", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=asyncio.subprocess.PIPE,
        env=kept | (environment or {}), cwd=Path(__file__).parents[2],
    )  # fmt: skip


@asynccontextmanager
async def command(
    *arguments: str, environment: dict[str, str] | None = None, stdout: int | IO[bytes] = asyncio.subprocess.DEVNULL
) -> AsyncIterator[Command]:
    """Run the proxy on ports of its own until the block ends; it serves when the block begins."""
    with reserved() as listen, reserved() as admin:
        process = await start(
            "run", "--listen", str(listen), "--admin", str(admin), "--shutdown-delay", "0", *arguments,
            environment=environment, stdout=stdout,
        )  # fmt: skip
        running = Command(process, listen, admin)
        try:
            await running.says("serves on")
            yield running
        finally:
            await running.close()
