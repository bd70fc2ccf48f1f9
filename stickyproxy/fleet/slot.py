"""The place of one worker: starts its processes one after another, and stands for it where the proxy is asked.

Laws: what the place was told (backends, drains) every new process is told first; what its processes counted is never
lost, so that no counter goes backwards; `core/workers.py` says what happens when.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import stickyproxy
from stickyproxy.core.backends import Backend
from stickyproxy.core.counters import Counters
from stickyproxy.core.events import Happening, Kind
from stickyproxy.core.health import Readiness
from stickyproxy.core.news import News
from stickyproxy.core.plane import Report
from stickyproxy.core.settings import Settings
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.core.tunnels import End
from stickyproxy.core.workers import BEAT_S, SOON_S, START_S, TABLE, Effect, Event, State, backoff_s
from stickyproxy.fleet.channel import Channel
from stickyproxy.leash import leashed
from stickyproxy.logs import LogFormat

REPORT_S = 0.5
"""Seconds that a report is waited for; then the last heartbeat has to do."""

CLOSE_S = 2.0
"""Seconds between the order to end at once and SIGKILL."""

_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""What a terminal, systemd or a person sends to all processes at once is for the supervisor alone."""

_BOOT = """
import sys
if sys.argv[1] not in sys.path:
    sys.path.append(sys.argv[1])
from stickyproxy.worker import main
main(int(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker is told first; `listeners` are the numbers of the file descriptors that it inherits.

    accept_on: those of them that it shall accept on. leaving: it begins unready, in a proxy that is about to stop.
    """

    version: str
    index: int
    settings: Settings
    log_level: str
    log_format: LogFormat
    listeners: tuple[int, ...]
    accept_on: tuple[int, ...]
    backends: tuple[Backend, ...] | None
    ordered: frozenset[str]
    news: News
    beat_s: float
    material: TlsMaterial


@dataclass(slots=True)
class Shared:
    """What all places have in common; the callbacks are the supervisor's.

    changed: a place began or ceased to serve. told: its worker has news. saw: it has seen something
    that happened. everything: what a new worker must know.
    """

    settings: Settings
    log_level: str
    log_format: LogFormat
    listeners: Sequence[socket.socket]
    changed: Callable[["Slot"], None]
    told: Callable[["Slot", News], None]
    saw: Callable[[Sequence[Happening]], None]
    everything: Callable[["Slot"], News]
    beat_s: float = BEAT_S
    soon_s: float = SOON_S
    start_s: float = START_S
    python: Sequence[str] = field(default_factory=lambda: (sys.executable, "-P", "-c", _BOOT))


class Slot:
    """The place of worker `index`; a `Plane` for whoever asks."""

    def __init__(self, index: int, shared: Shared, log: logging.Logger) -> None:
        self.index = index
        self.state = State.WAITING
        self.restarts = 0
        self.accepts: tuple[int, ...] = ()
        self._shared = shared
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._backends: tuple[Backend, ...] | None = None
        self._ordered: set[str] = set()
        self._material = TlsMaterial()
        self._dead = Counters()
        self._last = Counters()
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._run: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._served: float | None = None  # since when, where it does
        self._deaths = 0  # in a row, soon after the start
        self._leave_at: float | None = None
        self._drain_s = 0.0
        self._ended = asyncio.Event()

    # Its life.

    def start(self) -> None:
        """Start the first worker."""
        self._step(Event.TIME)

    @property
    def serving(self) -> bool:
        """Say whether the worker accepts connections, as far as is known."""
        return self.state is State.SERVING

    @property
    def pid(self) -> int:
        """Give the id of the present process; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    def silence_s(self) -> float:
        """Give the seconds since the worker last said anything; 0 where there is none to speak."""
        return self._loop.time() - self._heard if self._process is not None else 0.0

    def spare(self) -> None:
        """Begin its silence anew: the supervisor itself has not listened."""
        self._heard = self._loop.time()

    def judge(self, silent_s: float) -> None:
        """Kill a worker that has been silent for too long."""
        limit_s = silent_s if self.state is not State.STARTING else self._shared.start_s
        if self.silence_s() > limit_s and self.state is not State.KILLED:
            self._log.error(
                "worker %d (pid %d) hangs: no heartbeat for %.0f s; it is killed", self.index, self.pid, limit_s
            )
            self._step(Event.SILENCE)

    def _step(self, event: Event) -> None:
        was = self.state
        self.state, effect = TABLE.get((was, event), (was, Effect.NOTHING))
        if effect is Effect.LAUNCH:
            self._run = asyncio.ensure_future(self._live())
            self._run.add_done_callback(self._lived)
        elif effect is Effect.SERVE:
            self._log.debug("worker %d (pid %d) serves", self.index, self.pid)
        elif effect is Effect.KILL:
            self._kill()
        elif effect is Effect.REPLACE:
            self._replace()
        elif effect is Effect.DRAIN and self._channel is not None:
            self._channel.send("drain", self._drain_s)
        elif effect is Effect.DROP and self._channel is not None:
            self._channel.close()
        if self.state is State.ENDED:
            self._ended.set()
            if self._timer is not None:
                self._timer.cancel()
        if self.state is not was:
            self._shared.changed(self)

    def _lived(self, run: "asyncio.Task[None]") -> None:
        """Go on where a process could not even be spoken to."""
        if not run.cancelled() and (error := run.exception()) is not None:
            self._log.critical("worker %d cannot be run; it is replaced", self.index, exc_info=error)
            self._kill()
            self._channel = self._process = None
            self._step(Event.DEATH)

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _replace(self) -> None:
        lived = self._loop.time() - self._served if self._served is not None else 0.0
        self._deaths = self._deaths + 1 if lived < self._shared.soon_s else 0
        self.restarts += 1
        wait_s = backoff_s(self._deaths)
        if wait_s:
            self._log.warning("worker %d dies again and again; the next one starts in %.1f s", self.index, wait_s)
        self._timer = self._loop.call_later(wait_s, self._step, Event.TIME)

    async def _live(self) -> None:
        """Run one process from its start to its end."""
        shared = self._shared
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            numbers = tuple(listener.fileno() for listener in shared.listeners if listener.fileno() >= 0)
            home = str(Path(stickyproxy.__file__).parents[1])
            self._heard, self._served = self._loop.time(), None
            try:
                self._process = process = await asyncio.create_subprocess_exec(
                    *leashed([*shared.python, home, str(theirs.fileno())], _IGNORED),
                    stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(), *numbers), start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                self._log.error("worker %d cannot be started: %s", self.index, error.strerror)
                ours.close()
                self._step(Event.DEATH)
                return
        finally:
            theirs.close()
        channel = Channel(self._hears, lambda: None)
        await self._loop.create_unix_connection(lambda: channel, sock=ours)
        self._channel = channel
        start = Start(
            stickyproxy.__version__, self.index, shared.settings, shared.log_level, shared.log_format, numbers,
            self.accepts, self._backends, frozenset(self._ordered), shared.everything(self), shared.beat_s,
            self._material,
        )  # fmt: skip
        channel.send("start", start)
        if self.state is not State.STARTING:  # it was told to end before it began
            channel.close()
        code = await process.wait()
        channel.close()
        self._channel = self._process = None
        self._dead.add(self._last)
        self._dead.open_connections = 0
        self._last = Counters()
        if self.state is not State.LEAVING:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            self._log.error("worker %d (pid %d) has ended with %s; it is replaced", self.index, process.pid, how)
            ended = f"worker {self.index} has ended with {how} and is replaced: its sockets reconnect"
            shared.saw([Happening(Kind.WORKER, cause=str(self.index), detail=ended)])
        self._step(Event.DEATH)

    def _hears(self, name: str, *arguments: Any) -> None:
        self._heard = self._loop.time()
        if name == "beat":
            (self._last,) = arguments
        elif name == "news":
            self._shared.told(self, *arguments)
        elif name == "happenings":
            self._shared.saw(*arguments)
        elif name == "serves":
            self._served = self._heard
            self._step(Event.SERVES)
            if self._leave_at is not None:
                self._channel.send("leave")  # type: ignore[union-attr]

    def tunnels_died(self, count: int) -> None:
        """Count the tunnels that ended with a process, where that ended unasked."""
        if self.state in (State.WAITING, State.STARTING, State.KILLED):
            self._dead.tunnel_ends[End.ERROR.value] += count

    # What it is told; where nobody is there, the next one is.

    def _send(self, name: str, *arguments: Any) -> None:
        if self._channel is not None:
            self._channel.send(name, *arguments)

    def accept_on(self, numbers: tuple[int, ...]) -> None:
        """Let it accept on these of the sockets."""
        if numbers != self.accepts:
            self.accepts = numbers
            self._send("accept_on", numbers)

    def apply(self, backends: Sequence[Backend]) -> None:
        """Put a whole new set of backends in force."""
        self._backends = tuple(backends)
        listed = {b.identity for b in backends}
        self._ordered &= listed
        self._dead.retain(listed)
        self._send("apply", self._backends)

    def secure(self, material: TlsMaterial) -> None:
        """Speak TLS with these certificates from now on."""
        self._material = material
        self._send("secure", material)

    def order(self, identity: str, *, drain: bool) -> None:
        """Let a backend drain, or take that back."""
        (self._ordered.add if drain else self._ordered.discard)(identity)
        self._send("order", identity, drain)

    def hear(self, news: News) -> None:
        """Tell it what others know."""
        self._send("news", news)

    # What it is asked.

    async def known(self) -> News:
        """Give nothing: the supervisor knows what its workers know."""
        return News()

    async def report(self, *, thorough: bool = False) -> Report:
        """Report the state of this moment, or what is known where no answer comes."""
        report = Report(Readiness(False, "not ready"), Counters(), serving=False)
        channel = self._channel
        if channel is not None and self.state in (State.SERVING, State.LEAVING):
            with suppress(TimeoutError, ConnectionError):
                answer = await channel.call("report", thorough, timeout_s=REPORT_S)
                if channel is self._channel:  # else it has died since it answered, and is counted among the dead
                    report, self._last = answer, answer.counters
        counters = Counters()
        counters.add(self._dead)
        counters.add(self._last)
        return replace(report, counters=counters, restarts=self.restarts)

    async def wait(self, identity: str, wait_s: float, idle_s: float | None) -> None:
        """Wait until the worker has nothing open with a backend; one that dies has nothing open."""
        if self._channel is not None and self.serving:
            with suppress(TimeoutError, ConnectionError):
                await self._channel.call("wait", identity, wait_s, idle_s, timeout_s=wait_s + REPORT_S)

    # The end.

    async def leave(self, delay_s: float, timeout_s: float) -> None:
        """Let it serve on for a while, then drain; whoever dies in that while is replaced."""
        self._leave_at, self._drain_s = self._loop.time() + delay_s, timeout_s
        self._send("leave")
        await asyncio.sleep(delay_s)
        self._step(Event.LEAVE)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s + CLOSE_S):
                await self._ended.wait()
        await self.close()

    async def close(self) -> None:
        """End it at once."""
        self._step(Event.CLOSE)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._ended.wait()
        self._kill()
        if self._run is not None:
            await asyncio.gather(self._run, return_exceptions=True)
