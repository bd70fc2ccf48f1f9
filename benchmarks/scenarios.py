"""Say what is measured: each scenario takes one proxy, freshly started, and returns its figures.

A scenario gets a process of its own, so that none inherits the heap, the pools or the garbage of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import latency, load, system, wire
from benchmarks.proxies import Running

REQUEST_CONNECTIONS = 32
VARIETY = 16
"""Different header blocks that a connection sends in turn."""
LARGE_CONNECTIONS = 4
OPEN_LOOP_CONNECTIONS = 16
OPEN_LOOP_PER_S = 1000
_IDLE_WARM_WEBSOCKETS = 8
"""So few that the memory they leave behind does not flatter the figure of an idle one."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure; for all of them, less is better."""

    key: str
    label: str
    unit: str
    digits: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much; seconds unless named otherwise."""

    rounds: int
    warm_s: float
    window_s: float
    idle_websockets: int
    settle_s: float
    latency_s: float


FULL = Plan(rounds=5, warm_s=0.7, window_s=2.0, idle_websockets=2000, settle_s=1.0, latency_s=1.5)
QUICK = Plan(rounds=2, warm_s=0.2, window_s=0.4, idle_websockets=400, settle_s=0.3, latency_s=0.3)
"""For tests and CI: shows that everything works; its figures are rough."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures by the keys of their metrics, and what helps to judge them."""

    figures: Mapping[str, float]
    details: Mapping[str, float]


Measure = Callable[[Running, Plan, Sequence[int]], Outcome]
"""Measure a running proxy whose backends listen on the given ports."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name for ``--only``, the metrics it yields, and how."""

    name: str
    metrics: tuple[Metric, ...]
    measure: Measure


def _requests(
    proxy: Running, path: str, body_bytes: int, connections: int, *, varied: bool = False
) -> list[load.MakeClient]:
    """Spread connections over a session on each backend; ``varied``: no request repeats header lines."""
    referers = [f"/page/{number}" for number in range(VARIETY)] if varied else ["/"]
    heads = [[wire.request(path, proxy.port, cookie, referer) for referer in referers] for cookie in proxy.sessions()]
    return [
        partial(load.RequestClient, requests=heads[index % len(heads)], body_bytes=body_bytes)
        for index in range(connections)
    ]


def websockets(proxy: Running, connections: int) -> list[load.MakeClient]:
    """Spread connections over a session on each backend; each is a NiceGUI page of its own."""
    cookies = proxy.sessions()
    return [
        partial(load.WebSocketClient, handshake=wire.ws_handshake(proxy.port, cookies[index % len(cookies)]))
        for index in range(connections)
    ]


def _cpu(key: str, clients: Callable[[Running], list[load.MakeClient]]) -> Measure:
    def measure(proxy: Running, plan: Plan, _backends: Sequence[int]) -> Outcome:
        sample = load.closed_loop(proxy.port, clients(proxy), proxy.pids(), plan.warm_s, plan.window_s, proxy.tls)
        per_s = sample.operations / sample.wall_ns * 1e9
        return Outcome({key: sample.cpu_us_each}, {"proxy_busy": sample.busy, "operations_per_s": per_s})

    return measure


def _idle_websockets(proxy: Running, plan: Plan, _backends: Sequence[int]) -> Outcome:
    """Compare the proxy's memory with and without WebSockets that have all carried one message each way.

    It is warmed with requests and a few WebSockets first, so that code, pools and caches count as its own.
    """
    pids = proxy.pids()
    for warm_up in (
        _requests(proxy, wire.SMALL_PATH, wire.SMALL_BODY_BYTES, REQUEST_CONNECTIONS),
        websockets(proxy, _IDLE_WARM_WEBSOCKETS),
    ):
        load.closed_loop(proxy.port, warm_up, pids, 0.0, plan.warm_s, proxy.tls)
    before = load.idle(proxy.port, [], plan.settle_s, lambda: system.rss_bytes(proxy.pids()))
    idle = websockets(proxy, plan.idle_websockets)
    after = load.idle(proxy.port, idle, plan.settle_s, lambda: system.rss_bytes(proxy.pids()), proxy.tls)
    return Outcome(
        {"idle_ws_kib": (after - before) / 1024 / plan.idle_websockets},
        {"rss_before_mb": before / 1e6, "rss_after_mb": after / 1e6},
    )


def _start(proxy: Running, _plan: Plan, _backends: Sequence[int]) -> Outcome:
    pids = proxy.pids()
    figures = {"start_rss_mib": system.rss_bytes(pids) / (1 << 20), "start_ready_s": proxy.ready_s}
    return Outcome(figures, {"processes": len(pids), "cpu_s": system.cpu_ns(system.cpu_clocks(pids)) / 1e9})


def _latency(proxy: Running, plan: Plan, backends: Sequence[int]) -> Outcome:
    """Time requests straight to a backend and, right after, through the proxy; the difference is the proxy's."""
    direct = wire.request(wire.SMALL_PATH, backends[0], "")
    proxied = wire.request(wire.SMALL_PATH, proxy.port, proxy.sessions()[0])
    closed = [
        latency.closed_loop(port, request, plan.warm_s, plan.latency_s)
        for port, request in ((backends[0], direct), (proxy.port, proxied))
    ]
    opened = [
        latency.open_loop(port, request, OPEN_LOOP_CONNECTIONS, OPEN_LOOP_PER_S, plan.latency_s)
        for port, request in ((backends[0], direct), (proxy.port, proxied))
    ]
    figures, details = {}, {"generator_late_p99_us": latency.percentile(opened[1].late_ns, 0.99) / 1000}
    for name, (without, through) in {
        "latency": (closed[0], closed[1]),
        "open": (opened[0].latency_ns, opened[1].latency_ns),
    }.items():
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            base, total = latency.percentile(without, share), latency.percentile(through, share)
            figures[f"{name}_{label}_us"] = (total - base) / 1000
            details[f"{name}_{label}_direct_us"] = base / 1000
    return Outcome(figures, details)


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "request",
            (Metric("request_cpu_us", "CPU per request", "us", 1),),
            _cpu(
                "request_cpu_us",
                partial(
                    _requests,
                    path=wire.SMALL_PATH,
                    body_bytes=wire.SMALL_BODY_BYTES,
                    connections=REQUEST_CONNECTIONS,
                ),
            ),
        ),
        Scenario(
            "varied",
            (Metric("varied_cpu_us", "CPU per request, headers differ each time", "us", 1),),
            _cpu(
                "varied_cpu_us",
                partial(
                    _requests,
                    path=wire.VARIED_PATH,
                    body_bytes=wire.SMALL_BODY_BYTES,
                    connections=REQUEST_CONNECTIONS,
                    varied=True,
                ),
            ),
        ),
        Scenario(
            "large",
            (Metric("large_cpu_us", "CPU per 300 kB response", "us", 0),),
            _cpu(
                "large_cpu_us",
                partial(
                    _requests, path=wire.LARGE_PATH, body_bytes=wire.LARGE_BODY_BYTES, connections=LARGE_CONNECTIONS
                ),
            ),
        ),
        Scenario(
            "ws64",
            (Metric("ws64_cpu_us", "CPU per WebSocket round trip, 64 open", "us", 1),),
            _cpu("ws64_cpu_us", partial(websockets, connections=64)),
        ),
        Scenario(
            "ws1",
            (Metric("ws1_cpu_us", "CPU per WebSocket round trip, 1 open", "us", 1),),
            _cpu("ws1_cpu_us", partial(websockets, connections=1)),
        ),
        Scenario("idle", (Metric("idle_ws_kib", "Memory per idle WebSocket", "KiB", 1),), _idle_websockets),
        Scenario(
            "start",
            (
                Metric("start_rss_mib", "Resident memory at start", "MiB", 1),
                Metric("start_ready_s", "Spawn until ready", "s", 3),
            ),
            _start,
        ),
        Scenario(
            "latency",
            (
                Metric("latency_p50_us", "Added latency p50, one at a time", "us", 0),
                Metric("latency_p99_us", "Added latency p99, one at a time", "us", 0),
                Metric("open_p50_us", f"Added latency p50, {OPEN_LOOP_PER_S:,}/s", "us", 0),
                Metric("open_p99_us", f"Added latency p99, {OPEN_LOOP_PER_S:,}/s", "us", 0),
            ),
            _latency,
        ),
    )
}
"""All scenarios, in the order in which they are measured and shown."""
