"""What one data plane tells of itself to whoever asks: the admin port, or the supervisor of workers.

Law: what only a report needs is counted here, when it is asked for, and not as it happens.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from stickyproxy.core.plane import Report
from stickyproxy.core.status import BackendStatus, Gauges
from stickyproxy.dataplane.exchange import Exchange

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy


def report(proxy: "Proxy", *, thorough: bool) -> Report:
    """Report the state of this moment; a thorough report walks over all pages and connections."""
    backends = []
    for backend in proxy.snapshot.backends:
        pool = proxy.pools.get(backend.identity)
        load = proxy.balancer.loads[backend.identity]
        backends.append(
            BackendStatus(
                str(backend), backend.phase, load.tunnels, pool.idle if pool else 0,
                backend.identity, str(backend.address), proxy.drains.ordered(backend.identity),
                *proxy.failures.describe(backend.identity),
            )
        )  # fmt: skip
    proxy.sweep.count_tunnel_bytes()
    gauges = Gauges(
        proxy.assets.cache.size if proxy.assets is not None else 0,
        proxy.failures.budget_used, max(proxy.lags, default=0.0), proxy.longest_lag_s, proxy.absences.ours,
        len(asyncio.all_tasks(proxy.loop)),
    )  # fmt: skip
    parking = proxy.parking
    if parking is not None:
        gauges = replace(
            gauges, parked=len(parking.away), parked_bytes=parking.kept_bytes, park_s=parking.settings.park_s
        )
    told = Report(proxy.health(), proxy.counters, tuple(backends), len(proxy.tunnels), gauges=gauges)
    if proxy.sidecar is not None:
        told = replace(told, app=proxy.sidecar.line(), signs=proxy.sidecar.signs())
    if thorough:
        exchanges = Counter(d.backend.identity for d in proxy.downstreams if d.backend is not None)
        parked = Counter(tunnel.identity for tunnel in parking.away) if parking is not None else Counter[str]()
        told = replace(told, pages=proxy.drains.open_pages(), parked=parked, exchanges=exchanges)
    return told


def exchanges_at(proxy: "Proxy", identity: str) -> Iterator[Exchange]:
    """Give the running exchanges that have a connection to a backend."""
    for downstream in proxy.downstreams:
        exchange = downstream.exchange
        upstream = exchange.upstream if exchange is not None else None
        if exchange is not None and upstream is not None and upstream.pool.backend.identity == identity:
            yield exchange


def exchanges_with(proxy: "Proxy", identity: str) -> int:
    """Count the exchanges that are running with a backend, whether they are connected to it yet or not."""
    return sum(1 for d in proxy.downstreams if d.backend is not None and d.backend.identity == identity)
