"""A worker process: one data plane that does what the supervisor says, and ends with it.

Laws: it knows nothing of discovery, admin port or signals; it is told its settings and secrets over the socket that it
inherits, never by argument or environment.
"""

import asyncio
import gc
import logging
import os
import random
import socket
from collections.abc import Callable
from typing import Any

import uvloop

from stickyproxy import __version__
from stickyproxy.dataplane.local import LocalPlane
from stickyproxy.dataplane.shared import SharedProxy
from stickyproxy.fleet.channel import Channel
from stickyproxy.fleet.slot import Start
from stickyproxy.logs import set_up_logs
from stickyproxy.watchdog import Watchdog


class Worker:
    """The data plane of this process, and the channel to the supervisor."""

    def __init__(self) -> None:
        self.channel = Channel(self._hears, self._orphaned)
        self.done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._log = logging.getLogger("stickyproxy")
        self._listeners: dict[int, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beat_s = 1.0
        self._flush: Callable[[], None] = lambda: None

    def _hears(self, name: str, *arguments: Any) -> None:
        if name == "start":
            self._begin(*arguments)
        elif name == "apply":
            self._plane.apply(*arguments)
        elif name == "order":
            identity, drain = arguments
            self._plane.order(identity, drain=drain)
        elif name == "secure":
            self._plane.secure(*arguments)
        elif name == "news":
            self._plane.hear(*arguments)
        elif name == "accept_on":
            self._accept_on(*arguments)
        elif name == "leave":
            self._proxy.announce()
        elif name == "drain":
            self._spawn(self._drain(*arguments))
        elif name == "call":
            self._spawn(self._answer(*arguments))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.critical("a worker's order has failed", exc_info=error)
            os._exit(1)  # the supervisor starts another, which begins in a known state

    def _begin(self, start: Start) -> None:
        set_up_logs(start.log_level, start.log_format, start.index)
        if start.version != __version__:
            self._log.critical(
                "expected version %s, as the supervisor is, found %s on the disk; SIGUSR2 starts the new version whole",
                start.version, __version__,
            )  # fmt: skip
            os._exit(1)
        self._listeners = {number: socket.socket(fileno=number) for number in start.listeners}
        self._proxy = SharedProxy(start.settings, random.SystemRandom(), lambda news: self.channel.send("news", news))
        self._proxy.on_happenings = lambda happenings: self.channel.send("happenings", happenings)
        if self._proxy.access_log is not None:
            self._flush = self._proxy.access_log.close
        self._plane = LocalPlane(self._proxy)
        self._plane.secure(start.material)
        if start.backends is not None:
            self._plane.apply(start.backends)
        for identity in start.ordered:
            self._plane.order(identity, drain=True)
        self._plane.hear(start.news)
        self._beat_s = start.beat_s
        if start.settings.stall_log_s:
            Watchdog(start.settings.stall_log_s, self._stalled, self._log).start()
        gc.freeze()
        self._accept_on(start.accept_on)
        self.channel.send("serves")
        self._beat()

    def _stalled(self) -> None:
        self._proxy.counters.stalls += 1

    def _beat(self) -> None:
        self.channel.send("beat", self._proxy.counters)
        self._loop.call_later(self._beat_s, self._beat)

    def _accept_on(self, numbers: tuple[int, ...]) -> None:
        self._proxy.accept_on([self._listeners[n] for n in numbers if n in self._listeners])

    async def _answer(self, number: int, name: str, *arguments: Any) -> None:
        if name == "report":
            (thorough,) = arguments
            self.channel.answer(number, await self._plane.report(thorough=thorough))
        elif name == "wait":
            await self._plane.wait(*arguments)
            self.channel.answer(number, None)

    async def _drain(self, timeout_s: float) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        await self._proxy.drain(timeout_s)
        self.channel.send("beat", self._proxy.counters)
        self.channel.close_when_sent()

    def _orphaned(self) -> None:
        """End: the supervisor has closed the channel or is dead."""
        self._flush()
        os._exit(0)


def main(number: int) -> None:
    """Serve as the supervisor at the other end of an inherited socket says."""

    async def serve() -> None:
        worker = Worker()
        control = socket.socket(fileno=number)
        control.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: worker.channel, sock=control)
        await worker.done.wait()

    uvloop.run(serve())
