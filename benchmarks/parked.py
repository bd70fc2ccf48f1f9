"""What parking costs: ``python -m benchmarks.parked``.

The load and the backends are those of ``python -m benchmarks``: sockets that begin as NiceGUI's do. Measured in turn,
without and with ``--park``: CPU for each WebSocket round trip and memory for each idle WebSocket; then memory for pages
that are parked, whose browsers' connections were reset.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence

from benchmarks import backend, load, proxies, system
from benchmarks.peers import SUBJECT, Place
from benchmarks.proxies import Installed, ProxyError, Running
from benchmarks.scenarios import FULL, QUICK, SCENARIOS, Plan, websockets

RATIO_BAR = 1.10
"""With parking, WebSockets cost at most so much CPU of what they cost without."""

MEMORY_RATIO_BAR = 1.25
"""The same of memory for idle ones, each of which keeps how it was asked for."""

PARKED_BAR_MB = 20.0
"""For 1,000 parked idle pages."""

_WAIT_S = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parked", description=__doc__)
    parser.add_argument("--pages", type=int, default=1000, help="parked at the same time; default 1000")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--quick", action="store_true", help="short windows; rough figures")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    system.raise_file_limit()
    found = proxies.installed(SUBJECT)
    if found is None:
        raise ProxyError("expected stickyproxy to be installed, found it neither on the PATH nor as a wheel")
    cores = system.choose_cores()
    system.pin(cores.load)
    with backend.running(cores.backend) as ports:
        bars = {"ws64": RATIO_BAR, "ws1": RATIO_BAR, "idle": MEMORY_RATIO_BAR}
        held = [_compare(name, bar, found, ports, cores.proxy, plan, options.rounds) for name, bar in bars.items()]
        held.append(_parked(found, ports, cores.proxy, options.pages))
    return 0 if all(held) else 1


def _with_parking(proxy: Installed, more: Sequence[str]) -> Installed:
    plain = proxy.peer.arguments

    def arguments(place: Place, version: str) -> list[str]:
        return [*plain(place, version), "--park", "300", *more]

    return dataclasses.replace(proxy, peer=dataclasses.replace(proxy.peer, arguments=arguments))


def _compare(name: str, bar: float, proxy: Installed, ports: list[int], core: int, plan: Plan, rounds: int) -> bool:
    """Measure a scenario without and with parking in turn; what is sent stays below what may be kept."""
    scenario = SCENARIOS[name]
    metric = scenario.metrics[0]
    parking = _with_parking(proxy, [])
    pairs = []
    for _ in range(rounds):
        pair = []
        for one in (proxy, parking):
            with proxies.running(one, ports, core) as running:
                pair.append(scenario.measure(running, plan, ports).figures[metric.key])
        pairs.append(pair)
    without, with_it = (statistics.median(pair[n] for pair in pairs) for n in (0, 1))
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(
        f"{metric.label}: {without:.2f} {metric.unit} without parking, {with_it:.2f} with it ({ratio:.2f}x); "
        f"bar: {bar:.2f}x",
        flush=True,
    )
    return ratio <= bar


def _parked(proxy: Installed, ports: list[int], core: int, pages: int) -> bool:
    """Measure memory for parked pages: with them, and before there was any."""
    (admin_port,) = proxies.free_ports(1)
    parking = _with_parking(proxy, ["--park-pages", str(pages), "--admin", f"127.0.0.1:{admin_port}"])
    with proxies.running(parking, ports, core) as running:
        _park(running, admin_port, 8)
        before = system.rss_bytes(running.pids())
        _park(running, admin_port, pages)
        took_mb = (system.rss_bytes(running.pids()) - before) / 1e6
    bar_mb = PARKED_BAR_MB * pages / 1000
    print(f"Memory for {pages:,} parked idle pages: {took_mb:.1f} MB; bar: {bar_mb:.0f} MB")
    return took_mb <= bar_mb


def _park(running: Running, admin_port: int, pages: int) -> None:
    """Open pages, and reset their connections when each has carried a message each way."""
    parked = _metric(admin_port) + pages
    load.idle(running.port, websockets(running, pages), 0.5, lambda: None)
    end = time.monotonic() + _WAIT_S
    while _metric(admin_port) < parked:
        if time.monotonic() > end:
            raise ProxyError(f"expected {parked} pages to be parked within {_WAIT_S:g} s, found {_metric(admin_port)}")
        time.sleep(0.1)  # a metric has no event to wait for


def _metric(admin_port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=10) as response:
        for line in response.read().decode().splitlines():
            if line.startswith("stickyproxy_parked_total "):
                return int(float(line.split()[1]))
    raise ProxyError("expected stickyproxy_parked_total among the metrics")


if __name__ == "__main__":
    sys.exit(main())
