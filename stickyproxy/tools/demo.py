"""`stickyproxy demo`: run real NiceGUI replicas behind the proxy on this machine, and keep them running.

Laws:
- No child outlives the demo (see `children`).
- A replica that dies is started again on its port, so the proxy sees the same backend come back.
- What goes wrong is told in one line that says what to do, never in a traceback.
"""

import asyncio
import importlib.metadata
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import click
from click.core import ParameterSource

from stickyproxy.core.values import Address, parse_address, parse_duration
from stickyproxy.tools.children import Child, can_listen, free_port

T = TypeVar("T")

STORAGE_SECRET_VARIABLE: Final = "STICKYPROXY_DEMO_STORAGE_SECRET"  # noqa: S105  (the name, not a secret)
"""Environment variable with NiceGUI's `storage_secret`: all replicas must sign the session cookie alike."""

PALETTE: Final = {
    "blue": "#2563eb",
    "orange": "#ea580c",
    "green": "#15803d",
    "purple": "#7c3aed",
    "pink": "#db2777",
    "teal": "#0f766e",
    "brown": "#92400e",
    "slate": "#475569",
}
"""Names of replicas and their colours; white text reads well on each. The name alone tells them apart, too."""

MAX_REPLICAS: Final = 32
"""More would only fill the memory of a laptop: a NiceGUI process needs some 90 MB."""

NICEGUI_NEEDED: Final = (3, 6)
"""Oldest NiceGUI that the page of the demo works with."""

START_LIMIT_S: Final = 60.0
"""Time for all children to become ready. A replica needs 1-2 s; the rest is for machines that are slow or busy."""

PROBE_PAUSE_S: Final = 0.05
"""Pause between two questions whether the proxy is ready; from outside there is no event to wait for."""

RESTART_PAUSES_S: Final = (0.0, 1.0, 2.0, 5.0)
"""Pause before a replica's start, by how often in a row it died before it was ready; the last one repeats."""


class DemoError(click.ClickException):
    """A fault that ends the demo with exit code 1; its text is one line for people."""


class SettingError(DemoError):
    """A setting that cannot be met, or a missing requirement: exit code 2, nothing was started."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What `stickyproxy demo` was asked to do; the ports are free ones, never 0."""

    replicas: int
    listen: Address
    admin: Address
    kill_every_s: float | None = None
    park_s: float = 0.0


class Demo:
    """The running demo: owns the replicas and the proxy."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.replicas: dict[Child, Address] = {}
        self.up = False
        # Settings in this shell for another stickyproxy or NiceGUI are not meant for the demo.
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("STICKYPROXY_", "NICEGUI_"))}
        self.environment[STORAGE_SECRET_VARIABLE] = secrets.token_hex(32)
        ports: list[int] = []
        for name in replica_names(settings.replicas):
            ports.append(free_port("127.0.0.1", ports))
            command = [sys.executable, "-m", "stickyproxy.tools.demo_app", "--port", str(ports[-1]), "--replica", name]
            self.replicas[self._child(name, command)] = Address("127.0.0.1", ports[-1])
        command = [sys.executable, "-m", "stickyproxy", "run"]
        command += ["--listen", str(settings.listen), "--admin", str(settings.admin), "--shutdown-delay", "0"]
        command += ["--park", f"{settings.park_s:g}"]
        for address in self.replicas.values():
            command += ["--backend", str(address)]
        self.proxy = self._child("proxy", command)

    @staticmethod
    def _child(name: str, command: list[str]) -> Child:
        return Child(name, command, on_line=lambda line: say(f"[{name}] {line}"))

    async def run(self) -> None:
        """Run until cancelled. Raise `DemoError` if a part fails, `OSError` if the machine refuses one."""
        fault: BaseException | None = None
        say(f"Starting {counted(len(self.replicas))} and the proxy.")
        try:
            async with asyncio.TaskGroup() as tasks:
                for replica in self.replicas:
                    tasks.create_task(self._keep_running(replica))
                async with self._start_limit():
                    for replica in self.replicas:
                        await replica.ready.wait()
                    await self.proxy.start(self.environment)
                    tasks.create_task(self._fail_with_proxy())
                    await self._proxy_ready()
                self.up = True
                self._introduce()
                if self.settings.kill_every_s is not None:
                    tasks.create_task(self._kill_again_and_again(self.settings.kill_every_s))
        except* (DemoError, OSError) as faults:
            fault = faults.exceptions[0]
        if fault is not None:
            raise fault

    async def end(self) -> None:
        """End every child, whatever state the demo is in."""
        await asyncio.gather(*(child.end() for child in (self.proxy, *self.replicas)))

    def kill(self) -> None:
        """Kill every child at once; `end` still has to be awaited."""
        for child in (self.proxy, *self.replicas):
            child.signal(signal.SIGKILL)

    @asynccontextmanager
    async def _start_limit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(START_LIMIT_S):
                yield
        except TimeoutError:
            late = [replica.name for replica in self.replicas if not replica.ready.is_set()] or ["the proxy"]
            raise DemoError(f"not ready in {START_LIMIT_S:.0f} s: {', '.join(late)}. Is the machine busy?") from None

    async def _proxy_ready(self) -> None:
        while not await answers_200(self.settings.admin, "/readyz"):  # noqa: ASYNC110  (no event from outside)
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _fail_with_proxy(self) -> None:
        how = await self.proxy.ended()
        raise DemoError(f"the proxy ended with {how}; what it said is above.")

    async def _keep_running(self, replica: Child) -> None:
        early_deaths = 0
        while True:
            await asyncio.sleep(RESTART_PAUSES_S[min(early_deaths, len(RESTART_PAUSES_S) - 1)])
            await replica.start(self.environment)
            back = asyncio.create_task(self._tell_when_back(replica)) if self.up else None
            try:
                how = await replica.ended()
            finally:
                if back is not None:
                    back.cancel()
            early_deaths = 0 if replica.ready.is_set() else early_deaths + 1
            if not self.up:
                raise DemoError(f"replica {replica.name} ended with {how} while the demo started; see above.")
            say(f"{clock()}  {replica.name} ended with {how}; starting it again.")

    async def _tell_when_back(self, replica: Child) -> None:
        await replica.ready.wait()
        say(f"{clock()}  {replica.name} is back on {self.replicas[replica]}, process {replica.pid}.")

    async def _kill_again_and_again(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            alive = [replica for replica in self.replicas if replica.ready.is_set()]
            if alive:
                victim = secrets.choice(alive)
                say(f"{clock()}  Killing {victim.name}, process {victim.pid}: its pages move to another replica.")
                victim.signal(signal.SIGKILL)

    def _introduce(self) -> None:
        say(f"Up: {counted(len(self.replicas))} behind stickyproxy.")
        say()
        say(f"  page      http://{from_here(self.settings.listen)}/")
        say(f"  dashboard http://{from_here(self.settings.admin)}/")
        say(f"  health    http://{from_here(self.settings.admin)}/readyz")
        say(f"  metrics   http://{from_here(self.settings.admin)}/metrics")
        say()
        for replica, address in self.replicas.items():
            say(f"  {replica.name:<10} {address}   process {replica.pid}")
        say()
        say("What to try:")
        say("- Open the page, and again in a private window: each browser gets its own replica, told by its colour.")
        say("- Click +1, type, upload: all of it happens in the memory of that one replica. A reload stays there, too.")
        say("- Open the dashboard beside it: it tells which replica serves how many pages, and what becomes of them.")
        say(f"- Kill a replica (kill -9 {next(iter(self.replicas)).pid}): its pages reload once, on another replica.")
        if self.settings.park_s:
            say("- Open the page on a phone (--listen 0.0.0.0:8080) and lock it for a minute: it is as you left it.")
        if self.settings.kill_every_s is not None:
            say(f"- Or just watch: every {self.settings.kill_every_s:g} s a replica is killed here.")
        say("Ctrl-C ends it all.")
        say()


def say(text: str = "") -> None:
    """Print one line at once, into a pipe too. When nobody reads any more, end the demo as SIGTERM does."""
    try:
        click.echo(text)
    except OSError:  # a closed pipe or terminal
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        signal.raise_signal(signal.SIGTERM)


def counted(replicas: int) -> str:
    """Return a number of replicas in words, as in `1 NiceGUI replica`."""
    return f"{replicas} NiceGUI {'replica' if replicas == 1 else 'replicas'}"


def clock() -> str:
    """Return the time of day, to begin a line about something that happens later."""
    return time.strftime("%H:%M:%S")


def from_here(address: Address) -> Address:
    """Return where a client on this machine reaches a server on `address`: a wildcard becomes loopback."""
    return address._replace(host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host))  # noqa: S104


def replica_names(count: int) -> list[str]:
    """Return `count` different replica names: the palette's, then `blue-2`, `orange-2` and so on."""
    colours = list(PALETTE)
    turns = [(colours[i % len(colours)], i // len(colours) + 1) for i in range(count)]
    return [colour if turn == 1 else f"{colour}-{turn}" for colour, turn in turns]


async def answers_200(address: Address, path: str) -> bool:
    """Tell whether a GET of `path` is answered with status 200; False also when nobody listens."""
    try:
        reader, writer = await asyncio.open_connection(*from_here(address))
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False
    finally:
        writer.close()


def choose_address(option: str, wanted: Address, given: bool, taken: Container[int] = ()) -> Address:
    """Return the address to use for `option`: a free port instead of 0, and instead of a busy default.

    Raise `SettingError` if a busy port was asked for, or the host is not one of this machine.
    """
    try:
        if wanted.port == 0:
            return Address(wanted.host, free_port(wanted.host, taken))
        if wanted.port not in taken and can_listen(wanted):
            return wanted
        if given:
            hint = f"end what listens there, or give another port (0 for any free one): {option} {wanted.host}:0"
            raise SettingError(f"{option}: port {wanted.port} on {wanted.host} is taken; {hint}")
        free = Address(wanted.host, free_port(wanted.host, taken))
    except OSError as error:
        raise SettingError(f"{option}: cannot listen on {wanted}: {error.strerror or error}") from None
    say(f"Port {wanted.port} is taken, so {option} is {free}.")
    return free


def check_nicegui() -> None:
    """Raise `DemoError` unless a NiceGUI is installed that the demo's page works with."""
    needed = ".".join(map(str, NICEGUI_NEEDED))
    try:
        found = importlib.metadata.version("nicegui")
    except importlib.metadata.PackageNotFoundError:
        raise SettingError("the demo needs NiceGUI, which is not installed: pip install 'stickyproxy[demo]'") from None
    if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < NICEGUI_NEEDED:
        raise SettingError(f"the demo needs NiceGUI {needed} or newer, found {found}: pip install 'stickyproxy[demo]'")


async def run_demo(settings: DemoSettings) -> None:
    """Run the demo until SIGINT, SIGTERM or SIGHUP, then end every child; a second signal kills them at once.

    Raise `DemoError` if a part does not come up, `OSError` if the machine lacks processes or ports.
    """
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    demo = Demo(settings)
    for number in signals:
        loop.add_signal_handler(number, this.cancel)
    try:
        await demo.run()
    except asyncio.CancelledError:
        say("Stopping.")
    finally:
        for number in signals:
            loop.add_signal_handler(number, demo.kill)
        await demo.end()


def _parsed(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    def callback(_: click.Context, option: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise SettingError(f"{option.opts[0]}: {error}") from None

    return callback


def _parse_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_REPLICAS:
        raise ValueError(f"expected a whole number from 1 to {MAX_REPLICAS}, found {text!r}")
    return int(text)


def _parse_pause(text: str) -> float:
    pause_s = parse_duration(text)
    if pause_s < 1:
        raise ValueError(f"expected 1 s or more, found {text!r}")
    return pause_s


@click.command()
@click.option(
    "--replicas", default="3", show_default=True, metavar="N", callback=_parsed(_parse_count), help="How many."
)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    callback=_parsed(partial(parse_address, lowest_port=0)),
    help="Where the page is served; port 0 for any free one.",
)
@click.option(
    "--admin",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="HOST:PORT",
    callback=_parsed(partial(parse_address, lowest_port=0)),
    help="Where health, metrics and the dashboard are served; port 0 for any free one.",
)
@click.option(
    "--kill-every",
    metavar="SECONDS",
    callback=_parsed(_parse_pause),
    help="Kill a random replica every so often and start it again, to watch sessions recover.",
)
@click.option(
    "--park",
    default="0",
    show_default=True,
    metavar="DURATION",
    callback=_parsed(parse_duration),
    help="How long a page outlives its browser's connection, as with `stickyproxy run`.",
)
@click.pass_context
def demo(
    ctx: click.Context, replicas: int, listen: Address, admin: Address, kill_every: float | None, park: float
) -> None:
    """Run a few real NiceGUI replicas behind the proxy on this machine."""
    check_nicegui()
    given = {name: ctx.get_parameter_source(name) is not ParameterSource.DEFAULT for name in ("listen", "admin")}
    listen = choose_address("--listen", listen, given["listen"])
    admin = choose_address("--admin", admin, given["admin"], taken=(listen.port,))
    try:
        asyncio.run(run_demo(DemoSettings(replicas, listen, admin, kill_every, park)))
    except OSError as error:
        raise DemoError(f"this machine refused a process or a port: {error}") from None
