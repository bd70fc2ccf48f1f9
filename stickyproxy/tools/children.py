"""Child processes of a command, and the ports they listen on.

Laws:
- A child never outlives its parent, not even one that is killed by SIGKILL: the kernel ends it (`leash.py`).
- `Child.end` may be called at any time, also twice, and returns when the process is gone.
"""

import asyncio
import contextlib
import errno
import secrets
import signal
import socket
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stickyproxy.core.values import Address
from stickyproxy.leash import leashed

READY_LINE: Final = "ready"
"""What a child prints on a line of its own once it accepts connections."""

STOP_LIMIT_S: Final = 2.0
"""Time between SIGTERM and SIGKILL. A demo holds nothing worth waiting for, and Ctrl-C should feel prompt."""

LINE_LIMIT_BYTES: Final = 1 << 20
"""Longest line of output that is passed on; a log line is far shorter. Of a longer one only the end is."""


def how_it_ended(returncode: int) -> str:
    """Return a phrase for an exit status as `subprocess` gives it, where a signal is negative."""
    if returncode >= 0:
        return f"exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


@dataclass(slots=True, eq=False)
class Child:
    """One leashed process; `start` may be called again when it has ended."""

    name: str
    command: list[str]
    on_line: Callable[[str], None]
    """Called with each line that the process prints, but for `READY_LINE`; no more once `end` was called."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process printed `READY_LINE`; cleared by the next `start`."""

    process: asyncio.subprocess.Process | None = None
    _output: asyncio.Task[str] | None = None
    _ending: bool = False

    @property
    def pid(self) -> int:
        """Process id of the present or last process; 0 before the first."""
        return self.process.pid if self.process else 0

    async def start(self, environment: dict[str, str]) -> None:
        """Start the process in a session of its own, so that a Ctrl-C in the terminal reaches the parent alone."""
        self.ready.clear()
        self.process = await asyncio.create_subprocess_exec(
            *leashed(self.command),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_LIMIT_BYTES,
            start_new_session=True,
        )
        self._output = asyncio.create_task(self._pass_output(self.process))

    async def _pass_output(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than LINE_LIMIT_BYTES; asyncio has dropped what it had
                continue
            if not line:
                break
            text = line.decode(errors="replace").rstrip()
            if text == READY_LINE:
                self.ready.set()
            elif text and not self._ending:
                self.on_line(text)
        return how_it_ended(await process.wait())

    async def ended(self) -> str:
        """Wait until the process has ended and all it printed is passed on; return how it ended, for people."""
        assert self._output is not None, "start() comes first"
        return await asyncio.shield(self._output)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is left alone."""
        if self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def end(self) -> None:
        """End the process: SIGTERM, then SIGKILL after `STOP_LIMIT_S`."""
        self._ending = True
        if self._output is None:
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended(), STOP_LIMIT_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended()


def can_listen(address: Address) -> bool:
    """Tell whether a server could listen on `address` now.

    Raise `OSError` if it could not on any port: the host is not one of this machine, or the port needs privileges.
    """
    family, kind, protocol, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(target)
            trial.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port(host: str, taken: Container[int] = ()) -> int:
    """Return a port on which a server can listen on `host`, and be started again later; none of `taken`.

    It lies below the range from which the kernel serves outgoing connections: one of those may sit on the port while
    the server is down, and a dial to a dead port within the range may even connect to itself. Raise `OSError` as
    `can_listen` does, or if no port was found.
    """
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first_outgoing = int(outgoing.read_text().split()[0]) if outgoing.exists() else 32768
    lowest = 10000 if first_outgoing > 11000 else 2000
    for _ in range(200):
        port = lowest + secrets.randbelow(max(first_outgoing - lowest, 1000))
        if port not in taken and can_listen(Address(host, port)):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port found on {host} among 200 tried from {lowest} to {first_outgoing}")
