"""Measure what hostile connections cost: ``python -m benchmarks.hostile``.

First what one connection of each kind costs in memory, each kind in a fresh proxy. Then a well-behaved client asks at a
fixed rate, in turn quiet and beside 5,000 slow connections (slow heads, slow bodies, slow readers, a third each), whose
own process does next to nothing: each sends or reads a few bytes every ten seconds, and comes again when it is closed.
The figures are medians of the rounds. At last, in this process, how long the sweep over deadlines holds the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import os
import random
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks import latency, system, wire
from benchmarks.proxies import Running, free_ports

KINDS = ("heads", "bodies", "readers")
"""Of the mixed attack."""

ALL_KINDS = ("idle", "heads", "fat-heads", "bodies", "readers", "pipeliners")
"""Of which one connection's cost in memory is measured."""

TURN_S = 10.0
"""Between two acts of one slow connection."""

FIRST, LAST = -15, 5
"""Nice values: of the proxy, its client and its backend, which other programs on this machine shall not disturb, and
of the attack, whose clients would be other machines."""

RATE_PER_S = 200
CLIENT_CONNECTIONS = 8
BAR_RATIO = 3.0
BAR_MB = 150.0
_LARGE_BYTES = 2_000_000
_BACK_AFTER_S = 2.0
_CONNECTS_PER_TICK = 20
_TICK_S = 0.02
_READY_S = 20.0
_SETTLE_S = 2.0


# The backend: like an app, it waits for the whole of a body.


class Backend(asyncio.Protocol):
    """Serves one connection: ``/small``, ``/large``, and nothing to a POST, whose body never ends."""

    def __init__(self, small: bytes, large: bytes) -> None:
        self._small = small
        self._large = large
        self._posting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer; heads come whole from a proxy."""
        if self._posting:
            return
        if data.startswith(b"POST "):
            self._posting = True
        else:
            for line in data.split(wire.HEAD_END)[:-1]:
                self._transport.write(self._large if line.startswith(b"GET /large ") else self._small)


async def _serve_backend() -> None:
    loop = asyncio.get_running_loop()
    small = wire.response(wire.backend_body(0, wire.SMALL_BODY_BYTES), "now")
    large = wire.response(bytes(_LARGE_BYTES), "now")
    server = await loop.create_server(lambda: Backend(small, large), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gone = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), gone.set)
    await gone.wait()


# The attack.


@dataclass(slots=True, eq=False)
class Slow:
    """One hostile connection."""

    kind: str
    connection: socket.socket | None = None
    begun: bool = False
    number: int = 0


class Attack:
    """Many slow connections, on one epoll and one heap of times; costs hardly any CPU."""

    def __init__(self, port: int, count: int, kinds: tuple[str, ...]) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._by_fd: dict[int, Slow] = {}
        self._due: list[tuple[float, int, Slow]] = []  # each connection stands here once; an older entry is void
        self._number = 0
        self._random = random.Random(1)
        self._wanting = [Slow(kinds[index % len(kinds)]) for index in range(count)]
        self._left = count

    def run(self) -> None:
        """Attack until standard input ends; say so when every connection has begun once."""
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        said = False
        next_tick = time.monotonic()
        while True:
            for fd, _ in self._epoll.poll(max(0.0, next_tick - time.monotonic())):
                if fd == sys.stdin.fileno():
                    return
                self._closed_or_answered(fd)
            now = time.monotonic()
            if now < next_tick:
                continue
            next_tick = now + _TICK_S
            for _ in range(min(_CONNECTS_PER_TICK, len(self._wanting))):
                self._connect(self._wanting.pop(), now)
            while self._due and self._due[0][0] <= now:
                _, number, slow = heapq.heappop(self._due)
                if slow.number == number:
                    self._act(slow, now)
            if self._left == 0 and not said:
                said = True
                print("ready", flush=True)

    def _connect(self, slow: Slow, now: float) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)  # or the kernel would buffer megabytes
        if slow.kind in ("readers", "pipeliners"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(BlockingIOError):
            connection.connect(("127.0.0.1", self._port))
        slow.connection, slow.begun = connection, False
        self._by_fd[connection.fileno()] = slow
        # Who does not read is not to be woken by what waits to be read.
        reads = select.EPOLLIN if slow.kind in ("idle", "heads", "fat-heads", "bodies") else 0
        self._epoll.register(connection, reads | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
        self._later(slow, now + 0.1)

    def _later(self, slow: Slow, at: float) -> None:
        self._number += 1
        slow.number = self._number
        heapq.heappush(self._due, (at, self._number, slow))

    def _act(self, slow: Slow, now: float) -> None:
        connection = slow.connection
        if connection is None:  # it was closed; its next life is due
            self._wanting.append(slow)
            return
        try:
            if not slow.begun:
                slow.begun = True
                self._left = max(0, self._left - 1)
                if beginning := _BEGINNINGS[slow.kind]:
                    connection.send(beginning)
                self._later(slow, now + self._random.uniform(0.5, 1.0) * TURN_S)
                return
            if slow.kind == "heads":
                connection.send(b"X-More: 1\r\n")
            elif slow.kind == "bodies":
                connection.send(b"x")
            elif slow.kind == "readers":
                connection.recv(200)
        except BlockingIOError:
            pass  # nothing to read, or no room to write: as slow as it can be
        except OSError:
            self._lost(slow)
            return
        self._later(slow, now + TURN_S)

    def _closed_or_answered(self, fd: int) -> None:
        slow = self._by_fd.get(fd)
        if slow is not None:  # an answer means that the attack on this connection has ended
            self._lost(slow)

    def _lost(self, slow: Slow) -> None:
        connection, slow.connection = slow.connection, None
        if connection is not None:
            del self._by_fd[connection.fileno()]
            self._epoll.unregister(connection)
            connection.close()
            self._later(slow, time.monotonic() + _BACK_AFTER_S)


_HEAD = b"GET /small HTTP/1.1\r\nHost: app.example\r\nUser-Agent: slow\r\n"
_BEGINNINGS = {
    "idle": b"",
    "heads": _HEAD,
    "fat-heads": _HEAD + b"".join(b"X-%03d: %b\r\n" % (n, b"x" * 600) for n in range(100)),
    "bodies": b"POST /small HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000000\r\n\r\nx",
    "readers": b"GET /large HTTP/1.1\r\nHost: app.example\r\n\r\n",
    "pipeliners": b"GET /large HTTP/1.1\r\nHost: app.example\r\n\r\n" * 1000,
}


# Processes.


def _place(core: int, nice: int) -> None:
    """Run on a core, before or after others; before them only where the system lets us."""
    system.pin(core)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)


@contextlib.contextmanager
def _helper(*arguments: str, core: int, nice: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run this module in another role until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hostile", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: _place(core, nice),
    )  # fmt: skip
    try:
        yield process
    finally:
        system.stop(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    running: Running
    admin: int
    pid: int

    def rss_bytes(self) -> int:
        """Give its resident memory."""
        return system.rss_bytes([self.pid])

    def metric(self, name: str) -> float:
        """Scrape one number."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=20) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise KeyError(name)


@contextlib.contextmanager
def _proxy(backend: int, core: int, options: list[str]) -> Iterator[Proxy]:
    port, admin = free_ports(2)
    process = subprocess.Popen(
        [sys.executable, "-m", "stickyproxy", "run", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
         "--log-level", "error", "--shutdown-delay", "0", "--drain-timeout", "0",
         "--backend", f"127.0.0.1:{backend}", *options],
        stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: _place(core, FIRST),
    )  # fmt: skip
    try:
        running = Running("stickyproxy", port, 0.0, process.pid, 1)
        end = time.monotonic() + _READY_S
        while True:
            try:
                running.sessions()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield Proxy(running, admin, process.pid)
    finally:
        system.stop(process)


# What is measured.


def _cost(backend: int, cores: system.Cores, kind: str, count: int, options: list[str]) -> float:
    """Give the bytes of memory that a connection of one kind costs, in a fresh and warm proxy."""
    with _proxy(backend, cores.proxy, options) as proxy:
        _ask(proxy, 1.0)
        proxy.metric("stickyproxy_open_connections")
        before = proxy.rss_bytes()
        with _helper("attack", str(proxy.running.port), str(count), kind, core=cores.load, nice=LAST) as attack:
            assert _line(attack) == "ready"
            time.sleep(_SETTLE_S)
            return (proxy.rss_bytes() - before) / count


def _ask(proxy: Proxy, window_s: float) -> list[int]:
    request = wire.request(wire.SMALL_PATH, proxy.running.port, proxy.running.sessions()[0], "/")
    return latency.open_loop(proxy.running.port, request, CLIENT_CONNECTIONS, RATE_PER_S, window_s).latency_ns


def _rounds(options: argparse.Namespace, backend: int, cores: system.Cores) -> bool:
    """Print what a well-behaved client sees, quiet and under attack; say whether the bar is held."""
    quiet: list[tuple[float, float]] = []
    attacked: list[tuple[float, float]] = []
    peak = 0
    connections = 0.0
    with _proxy(backend, cores.proxy, options.option) as proxy:
        _ask(proxy, 1.0)
        start = proxy.rss_bytes()
        for _ in range(options.rounds):
            quiet.append(_percentiles(_ask(proxy, options.seconds)))
            with _helper(
                "attack", str(proxy.running.port), str(options.connections), *KINDS, core=cores.load, nice=LAST
            ) as attack:
                assert _line(attack) == "ready"
                time.sleep(_SETTLE_S)
                attacked.append(_percentiles(_ask(proxy, options.seconds)))
                peak = max(peak, proxy.rss_bytes())
                connections = max(connections, proxy.metric("stickyproxy_open_connections"))
            time.sleep(_SETTLE_S)
        lag_s = proxy.metric("stickyproxy_event_loop_lag_max_seconds")
        end = proxy.rss_bytes()
    print("| | p50, ms | p99, ms |\n|---|---|---|")
    for name, found in (("quiet", quiet), (f"beside {options.connections:,} slow connections", attacked)):
        print(f"| {name} | {_median(found, 0):.2f} | {_median(found, 1):.2f} |")
    ratio = statistics.median(b[1] / a[1] for a, b in zip(quiet, attacked, strict=True))
    print(
        f"\np99 under attack / quiet: {ratio:.2f} x (median of {options.rounds} rounds; bar < {BAR_RATIO:g})\n"
        f"memory of the proxy: {start / 1e6:.1f} MB before, {peak / 1e6:.1f} MB at most (bar < {BAR_MB:g}), "
        f"{end / 1e6:.1f} MB after; up to {connections:,.0f} connections open\n"
        f"event loop late by at most {lag_s * 1000:.1f} ms, as its sweep saw it"
    )
    return ratio < BAR_RATIO and peak / 1e6 < BAR_MB


def _percentiles(nanoseconds: list[int]) -> tuple[float, float]:
    return latency.percentile(nanoseconds, 0.5) / 1e6, latency.percentile(nanoseconds, 0.99) / 1e6


def _median(found: list[tuple[float, float]], index: int) -> float:
    return statistics.median(pair[index] for pair in found)


class _Nowhere(asyncio.Transport):
    """A connection to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def write(self, data: object) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def _sweep(connections: int) -> tuple[float, float]:
    """Give the CPU time in ms of the longest slice of the sweep: looking only, and where all deadlines have passed."""
    from stickyproxy.core.settings import Settings
    from stickyproxy.dataplane.downstream import Downstream
    from stickyproxy.dataplane.proxy import Proxy as DataPlane

    proxy = DataPlane(Settings(), random.Random(1))
    for number in range(connections):
        downstream = Downstream(proxy, b"192.0.2.%d" % (number % 250))
        downstream.connection_made(_Nowhere())
        downstream.data_received(_HEAD)
    found = []
    for late in (False, True):
        if late:
            for downstream in proxy.downstreams:
                downstream.deadline = proxy.time() - 1
        slices, longest = proxy.sweep._slices(), 0.0
        while True:
            begun = time.thread_time()
            more = next(slices, False)
            longest = max(longest, time.thread_time() - begun)
            if not more:
                break
        found.append(longest * 1000)
    return found[0], found[1]


def main() -> int:
    """Measure and print; the exit code is 1 where a bar is missed."""
    if sys.argv[1:2] == ["backend"]:
        system.raise_file_limit()
        uvloop.run(_serve_backend())
        return 0
    if sys.argv[1:2] == ["attack"]:
        system.raise_file_limit()
        Attack(int(sys.argv[2]), int(sys.argv[3]), tuple(sys.argv[4:])).run()
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one measurement")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--only", choices=("memory", "latency", "sweep"), action="append")
    parser.add_argument(
        "--option", action="append", default=[], help="one more option of stickyproxy, as in --option=-x"
    )
    options = parser.parse_args()
    wanted = options.only or ["memory", "latency", "sweep"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    system.raise_file_limit()
    cores = system.choose_cores()
    _place(cores.load, FIRST)
    held = True
    with _helper("backend", core=cores.backend, nice=FIRST) as process:
        backend = int(_line(process))
        if "memory" in wanted:
            print("| kind of connection | KiB of memory each |\n|---|---|")
            for kind in ALL_KINDS:
                count = options.connections // 5
                print(f"| {kind} | {_cost(backend, cores, kind, count, options.option) / 1024:.1f} |", flush=True)
            print()
        if "latency" in wanted:
            held = _rounds(options, backend, cores)
    if "sweep" in wanted:
        looking, acting = uvloop.run(_sweep(options.connections))
        print(
            f"\nlongest slice of the sweep over {options.connections:,} connections: {looking:.2f} ms looking, "
            f"{acting:.2f} ms where all deadlines have passed at once"
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
