"""One soak: the proxy, its visitors, the churn of its replicas, the samples, and what is left at the end.

Laws: the proxy is the real command in a process of its own, measured from outside and by its own metrics; visits come
at a set rate, whatever becomes of those before (an open loop); replicas leave the list before they end, as in a
rollout, or are killed, as in a crash.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import system
from benchmarks.soak.backends import Backends
from benchmarks.soak.trend import Verdict, judge
from benchmarks.soak.visits import Visitor, World

READY_S = 20.0
EMPTY_S = 90.0
"""For everything to end after the last visit: more than 30 s, after which a page that was lost is given up."""

LOOK_S = 0.1

OPTIONS = (
    "--page-ttl", "10s", "--response-timeout", "2s", "--head-timeout", "2s", "--body-timeout", "3s", "--idle-timeout",
    "5s", "--upstream-idle-timeout", "2s", "--asset-cache", "256k", "--slow-start", "0", "--shutdown-delay", "0",
    "--drain-timeout", "2s", "--log-level", "error",
)  # fmt: skip
"""Short times, so that all that is kept for a while reaches its size in the warm-up; a cache that is always full."""

ALLOWED_BYTES = 2 << 20
"""Growth of memory that is no leak: allocators fill holes for long. At 20 visits a second, 18 judged minutes are
21,600 visits, so 97 bytes for each would be found: less than the entry of one page. In 90 s it is 1.1 KiB for each
visit, which opens some five connections."""

ALLOWED_DESCRIPTORS = 10.0
"""Growth of the descriptors that neither the open connections nor the pools account for: what is just being opened or
closed, which stays within that, while one lost in each thousand requests would pass it within two minutes."""

ALLOWED_LAG_S = 0.05
"""Growth of the event loop's lag: a quarter of what the alert holds for too much, and more than a busy machine drifts
by in the median. What walks over something that grows would pass it."""

_SAMPLE = re.compile(r"^(stickyproxy_\w+)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run; seconds."""

    duration_s: float
    rate: float
    seed: int
    workers: int = 1
    replicas: int = 6
    listed: int = 4
    churn_s: float = 6.0
    down_s: float = 3.0

    shortest_s = 60.0

    @property
    def warm_s(self) -> float:
        """Give the time that is not judged: all that is remembered for some time reaches its size in it."""
        return max(30.0, 0.1 * self.duration_s)

    @property
    def sample_s(self) -> float:
        """Give the time between two samples."""
        return max(1.0, self.duration_s / 600)


@dataclass(frozen=True, slots=True)
class Sample:
    """The proxy at one moment."""

    time_s: float
    rss_bytes: int
    descriptors: int
    unaccounted: int
    lag_s: float
    requests_per_s: float
    visits_per_s: float


@dataclass
class Result:
    """What a run found."""

    samples: list[Sample]
    verdicts: dict[str, tuple[Verdict, float, str]]
    """By what was judged; the factor and the unit to print it in."""
    left: dict[str, float]
    counts: Counter[str]
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Say whether nothing grew, nothing was left and nothing went wrong that must not."""
        return not self.left and not self.counts["problems"] and all(v.held for v, _, _ in self.verdicts.values())

    def said(self, name: str) -> str:
        """Say in words what was judged."""
        verdict, factor, unit = self.verdicts[name]
        held = "held" if verdict.held else "GROWS"
        return (
            f"grew by {verdict.slope_growth * factor:+.1f} {unit} by slope, {verdict.thirds_growth * factor:+.1f} by "
            f"thirds: {held} (allowed: {verdict.allowed * factor:g})"
        )

    def text(self) -> str:
        """Say everything."""
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(self.counts.items()))
        lines = [counts, *(f"{name} {self.said(name)}" for name in self.verdicts)]
        lines += [f"LEFT: {name}: {value:g} more than before" for name, value in self.left.items()]
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        if not self.left:
            lines.append(
                "left after the end: no connection, tunnel, pooled connection, descriptor, task or awaited page"
            )
        return "\n".join(lines)


class Subject:
    """The running proxy."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, admin: int, config: Path) -> None:
        self.port = port
        self._process = process
        self._admin = admin
        self._config = config

    def list_backends(self, ports: list[int]) -> None:
        """Put another list of replicas in force."""
        write_list(self._config, ports)
        self._process.send_signal(signal.SIGHUP)

    @property
    def pids(self) -> list[int]:
        """Give the process, and its workers where it has any."""
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    async def metrics(self) -> Counter[str]:
        """Scrape; samples of one name are added up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._admin)
        writer.write(b"GET /metrics HTTP/1.0\r\nHost: soak\r\n\r\n")
        async with asyncio.timeout(READY_S):
            text = (await reader.read()).decode()
        writer.close()
        found: Counter[str] = Counter()
        for name, value in _SAMPLE.findall(text):
            found[name] += float(value)  # type: ignore[assignment]
        if not found:
            raise RuntimeError(f"expected metrics, found {text[:200]!r}")
        return found

    def descriptors(self) -> int:
        """Count the open descriptors."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)

    async def open(self) -> dict[str, float]:
        """Count everything that must be gone when nobody is there."""
        metrics = await self.metrics()
        names = ("open_connections", "open_tunnels", "backend_tunnels", "backend_pages", "backend_idle_connections",
                 "pages_away", "event_loop_tasks")  # fmt: skip
        found: dict[str, float] = {name: metrics[f"stickyproxy_{name}"] for name in names}
        return found | {"descriptors": self.descriptors()}


def write_list(config: Path, ports: list[int]) -> None:
    """Write the file that lists the replicas, whole or not at all."""
    fresh = config.with_suffix(".new")
    fresh.write_text(f"backend = {[f'127.0.0.1:{port}' for port in ports]}\n")
    fresh.replace(config)


@asynccontextmanager
async def subject(ports: list[int], workers: int) -> AsyncIterator[Subject]:
    """Run the real command until the block ends; it serves when the block begins."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as one, socket.socket() as two:
        for holder in (one, two):
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
        listen, admin = one.getsockname()[1], two.getsockname()[1]
        config = Path(folder) / "soak.toml"
        write_list(config, ports)
        process = subprocess.Popen(  # noqa: ASYNC220  it returns at once, and is ended by who ends all others here
            [sys.executable, "-m", "stickyproxy", "run", "--config", str(config), "--listen", f"127.0.0.1:{listen}",
             "--admin", f"127.0.0.1:{admin}", "--workers", str(workers), *OPTIONS],
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            found = Subject(process, listen, admin, config)
            end = time.monotonic() + READY_S
            while True:
                try:
                    await found.metrics()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError("the proxy did not start") from None
                    await asyncio.sleep(LOOK_S)
            yield found
            if process.poll() is not None:
                raise RuntimeError(f"the proxy ended by itself with code {process.returncode}")
        finally:
            system.stop(process)


async def soak(plan: Plan, replicas: Backends) -> Result:
    """Run it all."""
    for number in range(plan.replicas):
        replicas.tell("up", number)
    async with subject(replicas.ports[: plan.listed], plan.workers) as proxy:
        world = World(proxy.port, random.Random(plan.seed))
        await Visitor(world).use_the_app()
        before = await _settled(proxy)
        churn = asyncio.create_task(_churn(plan, proxy, replicas, world))
        sampling = asyncio.create_task(_sample(plan, proxy, world))
        try:
            await _visit(plan, world)
            samples = await sampling
        finally:
            churn.cancel()
            sampling.cancel()
            await asyncio.gather(churn, sampling, return_exceptions=True)
        if not churn.cancelled() and churn.exception() is not None:
            raise RuntimeError("the churn of replicas failed") from churn.exception()
        left = await _left(proxy, before)
    judged = [sample for sample in samples if sample.time_s >= plan.warm_s]
    times = [sample.time_s for sample in judged]
    verdicts = {
        "memory": (judge(times, [s.rss_bytes for s in judged], ALLOWED_BYTES), 2**-20, "MiB"),
        "descriptors": (judge(times, [s.unaccounted for s in judged], ALLOWED_DESCRIPTORS), 1.0, "unaccounted ones"),
        "lag": (judge(times, [s.lag_s for s in judged], ALLOWED_LAG_S), 1000.0, "ms"),
    }
    return Result(samples, verdicts, left, world.counts, world.problems)


async def _visit(plan: Plan, world: World) -> None:
    """Let visitors come at the rate for the time, and wait for the last of them to leave."""
    end, due = time.monotonic() + plan.duration_s, time.monotonic()
    visits: set[asyncio.Task[None]] = set()
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        visit = asyncio.create_task(Visitor(world).visit())
        visits.add(visit)
        visit.add_done_callback(visits.discard)
        due += world.random.expovariate(plan.rate)
    await asyncio.gather(*visits)


async def _churn(plan: Plan, proxy: Subject, replicas: Backends, world: World) -> None:
    """Replace, take down and kill replicas in turn."""
    listed, spare = list(range(plan.listed)), list(range(plan.listed, plan.replicas))
    while True:
        await asyncio.sleep(plan.churn_s)
        old, new = listed.pop(0), spare.pop(0)
        listed.append(new)
        if world.counts["replacements"] % 2 == world.counts["kills"] % 2:
            replicas.tell("up", new)
            proxy.list_backends([replicas.ports[n] for n in listed])
            world.counts["replacements"] += 1
            await asyncio.sleep(plan.down_s)
            replicas.tell("down", old)
        else:
            world.killed_at.append(time.monotonic())
            world.counts["kills"] += 1
            replicas.tell("kill", old)
            world.killed_at[-1] = time.monotonic()
            await asyncio.sleep(plan.down_s)  # it is still listed, and refuses
            replicas.tell("up", new)
            proxy.list_backends([replicas.ports[n] for n in listed])
        spare.append(old)


async def _sample(plan: Plan, proxy: Subject, world: World) -> list[Sample]:
    """Look at the proxy again and again while visitors come."""
    began = time.monotonic()
    samples: list[Sample] = []
    last_s, last_requests, last_visits = began, 0.0, world.counts["visits"]
    while True:
        due = began + (len(samples) + 1) * plan.sample_s
        if due > began + plan.duration_s:
            return samples
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        metrics = await proxy.metrics()
        descriptors, now = proxy.descriptors(), time.monotonic()
        known = (
            metrics["stickyproxy_open_connections"]
            + 2 * metrics["stickyproxy_open_tunnels"]
            + metrics["stickyproxy_backend_idle_connections"]
        )
        requests, visits = metrics["stickyproxy_requests_total"], world.counts["visits"]
        samples.append(
            Sample(
                now - began, system.rss_bytes(proxy.pids), descriptors, round(descriptors - known),
                metrics["stickyproxy_event_loop_lag_seconds"],
                (requests - last_requests) / (now - last_s) if samples else 0.0,
                (visits - last_visits) / (now - last_s),
            )
        )  # fmt: skip
        last_s, last_requests, last_visits = now, requests, visits


async def _settled(proxy: Subject) -> dict[str, float]:
    """Give what is open when nobody is there, once no connection is."""
    never_waited_for = ("descriptors", "event_loop_tasks", "pages_away")
    for _ in range(round(READY_S / LOOK_S)):
        found = await proxy.open()
        if not any(value for name, value in found.items() if name not in never_waited_for):
            return found | {"pages_away": 0.0}
        await asyncio.sleep(LOOK_S)
    raise RuntimeError(f"the proxy is not empty after its first visit: {found}")


async def _left(proxy: Subject, before: dict[str, float]) -> dict[str, float]:
    """Wait until nothing is open but what was before; give what is left at last, by how much it is more."""
    for _ in range(round(EMPTY_S / LOOK_S)):
        now = await proxy.open()
        left = {name: now[name] - before[name] for name in now if now[name] > before[name]}
        if not left:
            break
        await asyncio.sleep(LOOK_S)
    return left
