"""Generate load on uvloop, in closed loops: each connection sends again when its answer is complete.

Laws: the generator checks every answer's status and length, so that broken work is never counted as fast work; a lost
connection or a wrong answer fails the measurement (``LoadError``); everything is bounded in time.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import uvloop

from benchmarks import system, wire

_T = TypeVar("_T")
_SLACK_S = 30.0
"""Seconds beyond the planned ones after which a measurement is given up."""
_DIALS_AT_ONCE = 50
_LOOK_S = 0.01


class LoadError(Exception):
    """The load could not be driven as planned; nothing was measured."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done in a window: operations, and the CPU and wall nanoseconds they took."""

    operations: int
    cpu_ns: int
    wall_ns: int

    @property
    def cpu_us_each(self) -> float:
        """CPU microseconds for each operation."""
        return self.cpu_ns / 1000 / self.operations

    @property
    def busy(self) -> float:
        """Share of one core that the proxy used, from 0 to 1 (more, if it has several threads on several cores)."""
        return self.cpu_ns / self.wall_ns


class Run:
    """What the connections of one measurement share: the counter, whether to send again, and the first failure."""

    __slots__ = ("_failure", "_over", "again", "done")

    def __init__(self) -> None:
        self.done = 0
        self.again = True
        self._over = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        """End the measurement with ``LoadError``, unless it has failed or is over already."""
        if not self._over and not self._failure.done():
            self.again = False
            self._failure.set_exception(LoadError(reason))

    async def until(self, event: asyncio.Future[_T]) -> _T:
        """Wait for ``event``; raises ``LoadError`` as soon as a connection fails."""
        either: list[asyncio.Future[Any]] = [self._failure, event]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            event.cancel()
            self._failure.result()
        return await event

    async def last(self, seconds: float) -> None:
        """Let the load run for so long; raises ``LoadError`` as soon as a connection fails."""
        await asyncio.wait([self._failure], timeout=seconds)
        if self._failure.done():
            self._failure.result()

    def end(self) -> None:
        """Let every connection stop, and take the end of connections for no failure from now on."""
        self.again = False
        self._over = True
        if not self._failure.cancel():
            self._failure.exception()  # told already, or not worth telling behind another error


class Client(asyncio.Protocol):
    """One connection; ``start`` makes it send, and every whole answer makes it send again while the run goes on."""

    __slots__ = ("_run", "_transport", "ready")

    def __init__(self, run: Run) -> None:
        self._run = run
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; an HTTP connection is ready to start at once."""
        self._transport = cast(asyncio.Transport, transport)
        self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the run: no proxy has reason to close a connection during one."""
        self._run.fail(f"the proxy closed a connection: {exc}")

    def start(self) -> None:
        """Send for the first time."""
        raise NotImplementedError

    def close(self) -> None:
        """Close at once, without waiting for what is under way."""
        self._transport.abort()


class RequestClient(Client):
    """Send some HTTP requests in turn, again and again, and count whole 200 responses of the expected size."""

    __slots__ = ("_body_bytes", "_head", "_left", "_requests")

    def __init__(self, run: Run, requests: Sequence[bytes], body_bytes: int) -> None:
        super().__init__(run)
        self._requests = itertools.cycle(requests)
        self._body_bytes = body_bytes
        self._head = b""
        self._left = 0

    def start(self) -> None:
        """Send the first request."""
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        """Count the body down; at its end send the next request."""
        if self._left:
            left = self._left - len(data)
        else:
            if self._head:
                data = self._head + data
            end = data.find(wire.HEAD_END)
            if end < 0:
                self._head = data
                return
            if not data.startswith(wire.STATUS_OK):
                self._run.fail(f"answered {data[:80]!r}")
                return
            self._head = b""
            left = self._body_bytes - (len(data) - end - len(wire.HEAD_END))
        self._left = left
        if left > 0:
            return
        if left < 0:
            self._run.fail(f"{-left} bytes behind a response")
            return
        run = self._run
        run.done += 1
        if run.again:
            self._transport.write(next(self._requests))


class WebSocketClient(Client):
    """Send one WebSocket message again and again, and count whole echoes; ``ready`` when page and app have greeted."""

    __slots__ = ("_beat", "_greeted", "_handshake", "_held", "_open")

    def __init__(self, run: Run, handshake: bytes) -> None:
        super().__init__(run)
        self._handshake = handshake
        self._held = b""
        self._open = self._greeted = self._beat = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the opening handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._handshake)

    def start(self) -> None:
        """Send the first message."""
        self._transport.write(wire.WS_CLIENT_FRAME)

    def data_received(self, data: bytes) -> None:
        """Compare each echo; when it is whole, send the next message."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not self._open:
            self._finish_handshake(data)
            return
        if not self._beat and (data.startswith(wire.WS_HEARTBEAT) or data.endswith(wire.WS_HEARTBEAT)):
            self._beat = True
            self._transport.write(wire.WS_HEARTBEAT_ANSWER)
            data = data.removeprefix(wire.WS_HEARTBEAT).removesuffix(wire.WS_HEARTBEAT)
            if not data:
                return
        if data != wire.WS_SERVER_FRAME:
            if wire.WS_SERVER_FRAME.startswith(data):
                self._held = data
            else:
                self._run.fail(f"not an echo: {data[:40]!r}")
            return
        run = self._run
        run.done += 1
        if run.again:
            self._transport.write(wire.WS_CLIENT_FRAME)

    def _finish_handshake(self, data: bytes) -> None:
        if self._greeted:
            if data == wire.WS_CONNECTED:
                self._open = True
                if not self.ready.done():  # nobody waits any more when another connection has failed the run
                    self.ready.set_result(None)
                return
            expected = wire.WS_CONNECTED.startswith(data)
        elif data.endswith(wire.HEAD_END + wire.WS_GREETING) and data.startswith(wire.STATUS_SWITCHING):
            self._greeted = True
            self._transport.write(wire.WS_CONNECT)
            return
        else:
            expected = data.startswith(wire.STATUS_SWITCHING) or wire.STATUS_SWITCHING.startswith(data)
        if expected:
            self._held = data
        else:
            self._run.fail(f"refused a WebSocket: {data[:80]!r}")


MakeClient = Callable[[Run], Client]


def closed_loop(
    port: int,
    clients: Sequence[MakeClient],
    pids: Sequence[int],
    warm_s: float,
    window_s: float,
    tls: ssl.SSLContext | None = None,
) -> Sample:
    """Drive ``clients`` for ``warm_s`` uncounted and ``window_s`` counted seconds; measure the CPU of ``pids``."""

    async def drive() -> Sample:
        run = Run()
        opened: list[Client] = []
        try:
            await _open(run, port, clients, opened, tls)
            for client in opened:
                client.start()
            await run.last(warm_s)
            clocks = system.cpu_clocks(pids)
            done, cpu, wall = run.done, system.cpu_ns(clocks), time.perf_counter_ns()
            await run.last(window_s)
            sample = Sample(run.done - done, system.cpu_ns(clocks) - cpu, time.perf_counter_ns() - wall)
        finally:
            run.end()
            for client in opened:
                client.close()
        if not sample.operations:
            raise LoadError("nothing was done in the window")
        return sample

    return _bounded(drive, warm_s + window_s)


def idle(
    port: int,
    clients: Sequence[MakeClient],
    settle_s: float,
    look: Callable[[], _T],
    tls: ssl.SSLContext | None = None,
) -> _T:
    """Open ``clients``, let each do one operation, leave them idle for ``settle_s``, and return what ``look`` sees."""

    async def drive() -> _T:
        run = Run()
        opened: list[Client] = []
        run.again = False
        try:
            for first in range(0, len(clients), _DIALS_AT_ONCE):
                await _open(run, port, clients[first : first + _DIALS_AT_ONCE], opened, tls)
                for client in opened[first:]:
                    client.start()
            while run.done < len(clients):
                await run.last(_LOOK_S)
            await run.last(settle_s)
            return look()
        finally:
            run.end()
            for client in opened:
                client.close()

    return _bounded(drive, settle_s)


async def _open(
    run: Run, port: int, clients: Sequence[MakeClient], opened: list[Client], tls: ssl.SSLContext | None
) -> None:
    """Dial all ``clients`` at once, add them to ``opened``, and wait until they are ready to start."""
    loop = asyncio.get_running_loop()
    dials = [loop.create_connection(partial(make, run), "127.0.0.1", port, ssl=tls) for make in clients]
    dialled = await asyncio.gather(*dials, return_exceptions=True)
    new = [result[1] for result in dialled if not isinstance(result, BaseException)]
    opened += new
    for result in dialled:
        if isinstance(result, BaseException):
            raise result
    await run.until(asyncio.gather(*(client.ready for client in new)))


def _bounded(drive: Callable[[], Awaitable[_T]], planned_s: float) -> _T:
    async def bounded() -> _T:
        try:
            async with asyncio.timeout(planned_s + _SLACK_S):
                return await drive()
        except TimeoutError as error:
            raise LoadError(f"not done {_SLACK_S:.0f} s after its time") from error

    return uvloop.run(bounded())
