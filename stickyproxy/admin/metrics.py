"""Prometheus metrics, read from the plain counters when scraped; nothing here is on a request's path."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from stickyproxy import __version__
from stickyproxy.core.backends import Phase
from stickyproxy.core.limits import Limit
from stickyproxy.core.status import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST


class StatusCollector(Collector):
    """Turns a status into metric families."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Give all metric families of this moment."""
        status = self._status
        counters = status.counters
        build = GaugeMetricFamily("stickyproxy_build_info", "Version of this proxy; always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge("ready", "1 while /readyz answers 200.", int(status.readiness.ready))
        discovery = status.discovery
        yield _gauge("discovery_healthy", "1 while the source of backends answers.", int(not discovery.problem))
        problem = GaugeMetricFamily(
            "stickyproxy_discovery_problem",
            "What is wrong with the source of backends and what mends it; always 1, absent while nothing is wrong.",
            labels=["reason", "problem"],
        )
        if discovery.problem:
            problem.add_metric([discovery.reason, discovery.problem], 1)
        yield problem
        backends = GaugeMetricFamily("stickyproxy_backends", "Listed backends by phase.", labels=["phase"])
        for phase in Phase:
            backends.add_metric([phase.value], sum(1 for b in status.backends if b.phase is phase))
        yield backends
        tunnels = GaugeMetricFamily("stickyproxy_backend_tunnels", "Open tunnels by backend.", labels=["backend"])
        for backend in status.backends:
            tunnels.add_metric([backend.name], backend.tunnels)
        yield tunnels
        ejected = GaugeMetricFamily(
            "stickyproxy_backend_ejected",
            "1 while a backend gets no new sessions because it fails.",
            labels=["backend"],
        )
        for backend in status.backends:
            ejected.add_metric([backend.name], int(backend.ejected))
        yield ejected
        yield _counter("ejections", "Times a failing backend was taken out of the running.", counters.ejections)
        yield _counter("returns", "Times an ejected backend came back into the running.", counters.returns)
        failures = CounterMetricFamily(
            "stickyproxy_backend_failures", "Failures of backends by kind, as they eject.", labels=["kind"]
        )
        for kind, count in counters.failures.items():
            failures.add_metric([kind], count)
        yield failures
        yield _gauge("workers", "Data planes that serve: processes with --workers.", status.serving)
        yield _counter("worker_restarts", "Worker processes that ended and were replaced.", status.restarts)
        yield _gauge("open_connections", "Client connections that are not tunnels.", counters.open_connections)
        yield _gauge("open_tunnels", "Open tunnels (WebSockets and other upgrades).", status.tunnels)
        yield _counter("connections", "Client connections accepted.", counters.connections)
        yield _counter("tunnels", "Tunnels opened.", counters.tunnels)
        yield _counter("dials", "Connection attempts to backends.", counters.dials)
        yield _counter("retries", "Requests sent again because a pooled connection had died.", counters.retries)
        yield _counter("retries_denied", "Requests not sent again: too many were.", counters.retries_denied)
        yield _counter("asset_retries", "Assets asked of another backend after a 404.", counters.asset_retries)
        yield _counter("probes", "Health probes answered on the main port.", counters.probes)
        responses = CounterMetricFamily("stickyproxy_responses", "Responses to clients by class.", labels=["class"])
        for index, count in enumerate(counters.responses):
            if index:
                responses.add_metric([f"{index}xx"], count)
        yield responses
        pins = CounterMetricFamily("stickyproxy_pins", "Exchanges by what became of the pin.", labels=["pin"])
        moved = sum(counters.moved.values())
        for pin, count in (("new", counters.new), ("kept", counters.kept), ("moved", moved)):
            pins.add_metric([pin], count)
        yield pins
        moves = CounterMetricFamily("stickyproxy_moves", "Moved pins by cause.", labels=["cause"])
        for cause, count in counters.moved.items():
            moves.add_metric([cause], count)
        yield moves
        faults = CounterMetricFamily("stickyproxy_faults", "Answers of the proxy's own by reason.", labels=["reason"])
        for reason, count in counters.faults.items():
            faults.add_metric([reason], count)
        yield faults
        handshakes = CounterMetricFamily(
            "stickyproxy_tls_handshakes", "TLS handshakes with clients by what became of them.", labels=["outcome"]
        )
        for outcome, count in counters.handshakes.items():
            handshakes.add_metric([outcome], count)
        yield handshakes
        limits = CounterMetricFamily("stickyproxy_limits_hit", "Limits that were hit, by limit.", labels=["limit"])
        for limit in Limit:
            limits.add_metric([limit.value], counters.limits[limit])
        yield limits


def render(status: Status) -> bytes:
    """Render all metrics in OpenMetrics text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stickyproxy_{name}", documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(f"stickyproxy_{name}", documentation, value=value)
