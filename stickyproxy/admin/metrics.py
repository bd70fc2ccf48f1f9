"""Prometheus metrics, read from the plain counters when scraped; nothing here is on a request's path.

docs/metrics.md says what each of them means; a test holds both together.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from stickyproxy import __version__
from stickyproxy.core.backends import Phase
from stickyproxy.core.counters import PINS, Counters
from stickyproxy.core.histogram import BUCKETS_S, Histogram
from stickyproxy.core.status import BackendStatus, Status

CONTENT_TYPE = CONTENT_TYPE_LATEST

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

_BOUNDS = (*(repr(bound) for bound in BUCKETS_S), "+Inf")


class StatusCollector(Collector):
    """Turns a status, which should be a thorough one, into metric families."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Give all metric families of this moment."""
        status = self._status
        counters = status.counters
        yield _labelled_gauge("build_info", "Version of this proxy; always 1.", "version", {__version__: 1})
        yield _gauge("ready", "1 while /readyz answers 200.", int(status.readiness.ready))
        yield from _discovery(status)
        yield from _backends(status.backends)
        yield from _requests(counters)
        yield from _sessions(counters)
        yield from _parking(status)
        yield from _failures(status)
        yield from _limits(counters)
        yield from _assets(status)
        yield from _itself(status)


def render(status: Status) -> bytes:
    """Render all metrics in OpenMetrics text.

    As prometheus_client's `generate_latest` does, of which a test holds every byte, but in a third of the time: our
    names need no escaping, and there are no exemplars, time stamps or native histograms.
    """
    lines = []
    for family in StatusCollector(status).collect():
        lines.append(f"# HELP {family.name} {_escaped(family.documentation)}\n# TYPE {family.name} {family.type}\n")
        for name, labels, value, *_ in family.samples:
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in sorted(labels.items()))
            number = floatToGoString(value)  # type: ignore[no-untyped-call]
            lines.append(f"{name}{{{shown}}} {number}\n" if shown else f"{name} {number}\n")
    lines.append("# EOF\n")
    return "".join(lines).encode()


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES) if any(char in text for char in '\\"\n') else text


def _discovery(status: Status) -> Iterator[Metric]:
    discovery = status.discovery
    yield _gauge("discovery_synced", "1 once a list of backends has been applied.", int(discovery.synced))
    yield _gauge("discovery_healthy", "1 while the source of backends answers.", int(not discovery.problem))
    yield _gauge("discovery_age_seconds", "Seconds since the source of backends last confirmed them.", discovery.age_s)
    yield _counter("discovery_errors", "Times the source of backends failed.", discovery.errors)
    problem = GaugeMetricFamily(
        "stickyproxy_discovery_problem",
        "What is wrong with the source of backends and what mends it; always 1, absent while nothing is wrong.",
        labels=["reason", "problem"],
    )
    if discovery.problem:
        problem.add_metric([discovery.reason, discovery.problem], 1)
    yield problem


def _backends(backends: Iterable[BackendStatus]) -> Iterator[Metric]:
    backends = list(backends)
    by_phase = {phase.value: sum(1 for b in backends if b.phase is phase) for phase in Phase}
    yield _labelled_gauge("backends", "Listed backends by phase.", "phase", by_phase)
    phases = GaugeMetricFamily(
        "stickyproxy_backend_phase", "Phase of each backend; always 1.", labels=["backend", "phase"]
    )
    for b in backends:
        phases.add_metric([b.name, b.phase.value], 1)
    yield phases
    yield _labelled_gauge("backend_pages", "Open pages by backend.", "backend", {b.name: b.pages for b in backends})
    parked = {b.name: b.parked for b in backends}
    yield _labelled_gauge("backend_parked_pages", "Of the open pages, those parked (--park).", "backend", parked)
    tunnels = {b.name: b.tunnels for b in backends}
    yield _labelled_gauge("backend_tunnels", "Open tunnels by backend.", "backend", tunnels)
    ejected = {b.name: int(b.ejected) for b in backends}
    yield _labelled_gauge(
        "backend_ejected", "1 while a backend gets no new sessions because it fails.", "backend", ejected
    )
    idle = {b.name: b.idle for b in backends}
    yield _labelled_gauge("backend_idle_connections", "Pooled connections that wait for a request.", "backend", idle)
    requests = {b.name: b.requests for b in backends}
    yield _labelled_counter("backend_requests", "Requests that a backend answered.", "backend", requests)
    moved_to = {b.name: b.moved_to for b in backends}
    yield _labelled_counter("backend_moved_to", "Pins that were moved to a backend.", "backend", moved_to)


def _requests(counters: Counters) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "stickyproxy_requests",
        "Requests by class of the answer and by what became of the pin.",
        labels=["class", "pin"],
    )
    for index, count in enumerate(counters.requests[len(PINS) :], len(PINS)):
        requests.add_metric([f"{index // len(PINS)}xx", PINS[index % len(PINS)]], count)
    yield requests
    first, last = counters.durations
    yield _histogram("request_seconds", "Time from a request's pick to its answer's end, tunnels left out.", last)
    yield _histogram("first_byte_seconds", "Time from a request's pick to its answer's first byte.", first)
    yield _counter("received_bytes", "Bytes from clients, tunnels left out.", counters.received_bytes)
    yield _counter("sent_bytes", "Bytes to clients, tunnels left out.", counters.sent_bytes)
    yield _counter("connections", "Client connections accepted.", counters.connections)
    yield _gauge("open_connections", "Client connections that are not tunnels.", counters.open_connections)
    yield _counter("dials", "Connection attempts to backends.", counters.dials)
    yield _counter("probes", "Health probes answered on the main port.", counters.probes)
    yield _labelled_counter("faults", "Answers of the proxy's own by reason.", "reason", counters.faults)


def _sessions(counters: Counters) -> Iterator[Metric]:
    moved = sum(counters.moved.values())
    pins = {"new": counters.new, "kept": counters.kept, "moved": moved}
    yield _labelled_counter("pins", "Exchanges by what became of the pin.", "pin", pins)
    yield _labelled_counter("moves", "Moved pins by cause.", "cause", counters.moved)
    yield _counter("tunnels", "Tunnels opened.", counters.tunnels)
    yield _labelled_counter("tunnels_closed", "Tunnels that ended, by reason.", "reason", counters.tunnel_ends)
    yield _counter("tunnel_received_bytes", "Bytes from clients in tunnels.", counters.tunnel_received_bytes)
    yield _counter("tunnel_sent_bytes", "Bytes to clients in tunnels.", counters.tunnel_sent_bytes)
    reconnects = CounterMetricFamily(
        "stickyproxy_reconnects",
        "Pages that came back after their last socket had ended: to the same backend or another, within 3 s or not.",
        labels=["backend", "in_time"],
    )
    for (same, in_time), count in counters.reconnects.items():
        reconnects.add_metric(["same" if same else "other", "yes" if in_time else "no"], count)
    yield reconnects
    yield _histogram("reconnect_gap_seconds", "Time that pages were away before they came back.", counters.gaps)
    yield _labelled_counter(
        "pages_lost", "Pages that did not come back within 30 s, by how their socket ended.", "reason", counters.lost
    )
    stopped = counters.faults["reload-loop"]
    yield _counter("reload_loops_stopped", "Pages held because they reloaded again and again.", stopped)


def _parking(status: Status) -> Iterator[Metric]:
    counters, gauges = status.counters, status.gauges
    yield _gauge("parked_pages", "Pages that are kept for browsers that are away (--park).", gauges.parked)
    yield _gauge("parked_bytes", "Memory for what browsers may not have received (--park).", gauges.parked_bytes)
    yield _counter("parked", "Pages whose browsers were found to be away (--park).", counters.parked)
    yield _labelled_counter(
        "parked_returned", "Parked pages whose browsers came back, by connection.", "connection",
        counters.parked_returns,
    )  # fmt: skip
    yield _labelled_counter(
        "parked_released", "Parked pages that were let go, by reason.", "reason", counters.parked_releases
    )
    yield _labelled_counter(
        "parked_reopened", "Sockets of parked pages that a backend closed and was asked for anew.", "outcome",
        counters.parked_reopened,
    )  # fmt: skip
    yield _histogram("parked_seconds", "Time for which browsers were away that came back.", counters.parked_gaps)


def _failures(status: Status) -> Iterator[Metric]:
    counters = status.counters
    yield _counter("ejections", "Times a failing backend was taken out of the running.", counters.ejections)
    yield _counter("returns", "Times an ejected backend came back into the running.", counters.returns)
    yield _labelled_counter(
        "backend_failures", "Failures of backends by kind, as they eject.", "kind", counters.failures
    )
    yield _counter("retries", "Requests sent again because a pooled connection had died.", counters.retries)
    yield _counter("retries_denied", "Requests not sent again: too many were.", counters.retries_denied)
    used = status.gauges.retry_budget_used
    yield _gauge("retry_budget_used_ratio", "Part of the budget of retries that is used, at the worst worker.", used)


def _limits(counters: Counters) -> Iterator[Metric]:
    yield _labelled_counter("limits_hit", "Limits that were hit, by limit.", "limit", counters.limits)
    yield _labelled_counter(
        "refused_headers",
        "Connections closed because they did not begin as --accept-proxy-protocol wants, by reason.",
        "reason",
        counters.refused_headers,
    )
    yield _labelled_counter(
        "tls_handshakes", "TLS handshakes with clients by what became of them.", "outcome", counters.handshakes
    )


def _assets(status: Status) -> Iterator[Metric]:
    counters = status.counters
    yield _counter("asset_retries", "Assets asked of another backend after a 404.", counters.asset_retries)
    yield _counter("asset_cache_hits", "Assets answered from the cache.", counters.asset_hits)
    yield _counter("asset_cache_misses", "Assets fetched because the cache did not have them.", counters.asset_misses)
    yield _gauge("asset_cache_bytes", "Memory that the cache's files take.", status.gauges.asset_cache_bytes)


def _itself(status: Status) -> Iterator[Metric]:
    gauges = status.gauges
    yield _gauge("open_tunnels", "Open tunnels (WebSockets and other upgrades).", status.tunnels)
    yield _gauge("pages_away", "Pages without a socket of which it is open whether they come back.", gauges.away)
    yield _gauge("workers", "Data planes that serve: processes with --workers.", status.serving)
    yield _counter("worker_restarts", "Worker processes that ended and were replaced.", status.restarts)
    yield _gauge("event_loop_lag_seconds", "How late the event loop was at worst in the last 10 s.", gauges.lag_s)
    yield _gauge("event_loop_lag_max_seconds", "How late the event loop ever was.", gauges.longest_lag_s)
    yield _gauge("event_loop_tasks", "Tasks of the event loop, those of the admin port among them.", gauges.tasks)
    yield _counter("event_loop_stalls", "Times the event loop stood still (--stall-log-after).", status.counters.stalls)
    yield _counter(
        "access_log_dropped", "Lines of the access log that nobody took in time.", status.counters.log_dropped
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stickyproxy_{name}", documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(f"stickyproxy_{name}", documentation, value=value)


def _labelled_gauge(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"stickyproxy_{name}", documentation, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _labelled_counter(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"stickyproxy_{name}", documentation, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _histogram(name: str, documentation: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(f"stickyproxy_{name}", documentation)
    total, buckets = 0, []
    for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric([], buckets, histogram.sum_s)
    return family
