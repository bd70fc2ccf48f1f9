"""Measure what `--workers` brings and costs: ``python -m benchmarks.workers``.

Capacity is requests for each second in which the busiest process is on a CPU: what the machine would serve if the load
came from elsewhere, since here the load and the backends share the cores with the proxy. Memory is each process's own
(USS) and its share of what is common (PSS), from /proc/PID/smaps_rollup, after the load.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import backend, load, system, wire
from benchmarks.proxies import Running, free_ports

CONNECTIONS = 64
_READY_S = 20.0
_SHARED = (
    "import functools, stickyproxy.app as a; a.listeners = functools.partial(a.listeners, shared=True); "
    "from stickyproxy.__main__ import main; main()"
)
"""All workers accept on one socket: what was measured against a socket for each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run the proxy, measured once; memory in MiB, of the mean worker."""

    cpu_us: float
    capacity: float
    spread: float
    uss_mib: float
    pss_mib: float


def main() -> int:
    """Measure each way in turn, several rounds, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    options = parser.parse_args()
    ways = {"1 worker": (1, False), "2 workers": (2, False), "2 workers, one shared socket": (2, True)}
    rows: dict[str, list[Row]] = {name: [] for name in ways}
    system.raise_file_limit()
    with backend.running(min(os.sched_getaffinity(0))) as backends:
        for _ in range(options.rounds):
            for name, (count, shared) in ways.items():
                with _proxy(backends, count, shared=shared) as (proxy, pids):
                    rows[name].append(_measure(proxy, pids, options.seconds))
    print("| | CPU per request, us | requests per CPU-bound second | busiest / mean | USS, MiB | PSS, MiB |")
    print("|---|---|---|---|---|---|")
    for name, found in rows.items():
        cells = [
            f"{statistics.median(getattr(row, key) for row in found):,.{digits}f}"
            for key, digits in (("cpu_us", 1), ("capacity", 0), ("spread", 2), ("uss_mib", 1), ("pss_mib", 1))
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    ratios = [two.capacity / one.capacity for one, two in zip(rows["1 worker"], rows["2 workers"], strict=True)]
    print(f"\n2 workers / 1 worker: {statistics.median(ratios):.2f} x (median of {options.rounds} rounds)")
    return 0


@contextmanager
def _proxy(backends: list[int], count: int, *, shared: bool) -> Iterator[tuple[Running, list[int]]]:
    (port,) = free_ports(1)
    program = ["-c", _SHARED] if shared else ["-m", "stickyproxy"]
    options = [option for number in backends for option in ("--backend", f"127.0.0.1:{number}")]
    process = subprocess.Popen(
        [sys.executable, *program, "run", "--listen", f"127.0.0.1:{port}", "--admin", "off", "--log-level", "error",
         "--shutdown-delay", "0", "--drain-timeout", "0", "--workers", str(count), *options],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + _READY_S
        running = Running("stickyproxy", port, 0.0, process.pid, len(backends))
        while True:
            try:
                running.sessions()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield running, [int(pid) for pid in children] or [process.pid]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _measure(proxy: Running, pids: list[int], seconds: float) -> Row:
    cookies = proxy.sessions()
    clients = [
        partial(
            load.RequestClient,
            requests=[wire.request(wire.SMALL_PATH, proxy.port, cookies[index % len(cookies)], "/")],
            body_bytes=wire.SMALL_BODY_BYTES,
        )
        for index in range(CONNECTIONS)
    ]
    clocks = [system.cpu_clocks([pid]) for pid in pids]
    before = [system.cpu_ns(clock) for clock in clocks]
    sample = load.closed_loop(proxy.port, clients, pids, 0.0, seconds)
    busy = [system.cpu_ns(clock) - start for clock, start in zip(clocks, before, strict=True)]
    memory = [_rollup(pid) for pid in pids]
    return Row(
        cpu_us=sum(busy) / 1000 / sample.operations,
        capacity=sample.operations / (max(busy) / 1e9),
        spread=max(busy) / statistics.mean(busy),
        uss_mib=statistics.mean(own for own, _ in memory) / 1024,
        pss_mib=statistics.mean(share for _, share in memory) / 1024,
    )


def _rollup(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return found["Private_Clean"] + found["Private_Dirty"], found["Pss"]


if __name__ == "__main__":
    sys.exit(main())
