"""Every metric is documented, is there from the start, and is valid OpenMetrics; a scrape is cheap."""

import re
import time
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from stickyproxy.admin.metrics import StatusCollector, render
from stickyproxy.core.absences import Return
from stickyproxy.core.backends import Backend, Cause, Phase, Pick, Pin
from stickyproxy.core.counters import Counters
from stickyproxy.core.health import Readiness
from stickyproxy.core.parking import Release
from stickyproxy.core.plane import Report, total
from stickyproxy.core.status import BackendStatus, DiscoveryStatus, Gauges, Status
from stickyproxy.core.tunnels import End
from stickyproxy.core.values import Address

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
READY = Readiness(True, "ready")
SOURCE = DiscoveryStatus("a list", "", age_s=7.5, errors=3)


def backend(name: str, phase: Phase = Phase.READY) -> BackendStatus:
    return BackendStatus(name, phase, 4, 1, f"uid-{name}", f"{name}:80", ejected=True)


def status(counters: Counters, *backends: BackendStatus, gauges: Gauges | None = None) -> Status:
    pages = {b.identity: 3 for b in backends}
    report = Report(READY, counters, backends, 9, gauges=gauges or Gauges())
    report.pages.update(pages)
    return total([report], SOURCE)


def families(scraped: Status) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(render(scraped).decode())}


def samples(scraped: Status) -> dict[tuple[str, ...], float]:
    return {
        (s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in families(scraped).values()
        for s in family.samples
    }


def test_every_family_has_a_row_and_every_row_a_family() -> None:
    named = {
        f"{name}_total" if family.type == "counter" else name for name, family in families(status(Counters())).items()
    }
    rows = re.findall(r"^\| `(stickyproxy_[a-z_]+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(named)


def test_the_rows_name_the_labels() -> None:
    full = families(
        total(
            [Report(READY, Counters(), (backend("one"),), 0)],
            DiscoveryStatus("a list", "it is broken", "unresolved"),
        )
    )
    cells = [re.split(r"(?<!\\)\|", line) for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
    rows = {row[1].strip(" `").removesuffix("_total"): row[2] for row in cells}
    for name, family in full.items():
        labels = {label for s in family.samples for label in s.labels if label != "le"}
        assert labels <= set(re.findall(r"`([a-z_]+)`", rows[name])), name


def test_known_labels_are_there_before_anything_happens() -> None:
    found = samples(status(Counters(), backend("one")))
    expected = [
        *(("stickyproxy_tunnels_closed_total", f"reason={end.value}") for end in End),
        *(("stickyproxy_pages_lost_total", f"reason={end.value}") for end in End),
        *(("stickyproxy_moves_total", f"cause={c}") for c in ("gone", "refused", "timeout", "draining")),
        *(("stickyproxy_pins_total", f"pin={pin}") for pin in ("new", "kept", "moved")),
        *(
            ("stickyproxy_requests_total", f"class={c}xx", f"pin={pin}")
            for c in range(1, 6)
            for pin in ("new", "kept", "moved", "none")
        ),
        *(
            ("stickyproxy_reconnects_total", f"backend={b}", f"in_time={t}")
            for b in ("same", "other")
            for t in ("yes", "no")
        ),
        *(("stickyproxy_faults_total", f"reason={r}") for r in ("no-backend", "reload-loop", "broken-off", "bad-head")),
        *(("stickyproxy_parked_released_total", f"reason={reason.value}") for reason in Release),
        *(("stickyproxy_parked_returned_total", f"connection={c}") for c in ("new", "old")),
        *(("stickyproxy_parked_reopened_total", f"outcome={o}") for o in ("kept", "failed")),
        *(("stickyproxy_backend_failures_total", f"kind={k}") for k in ("refused", "timeout", "closed", "silent")),
        ("stickyproxy_backend_requests_total", "backend=one"),
        ("stickyproxy_backend_moved_to_total", "backend=one"),
        ("stickyproxy_backend_parked_pages", "backend=one"),
    ]
    assert [found.get(name) for name in expected] == [0.0] * len(expected)


def test_what_was_counted_is_what_is_told() -> None:
    counters = Counters()
    one = Backend("uid-one", Address("one", 80))
    counters.count_request(200, Pick(one, Pin.NEW))
    counters.count_request(404, Pick(one, Pin.KEPT))
    counters.count_request(200, Pick(one, Pin.MOVED, Cause.REFUSED))
    counters.count_own(503)
    counters.tally("uid-one").requests = 3
    counters.tunnel_ends[End.DRAIN.value] += 2
    counters.lost[End.BACKEND.value] += 1
    counters.count_return(Return(same=False, gap_s=4.0))
    counters.whole.observe(0.004)
    counters.first_bytes.observe(0.002)
    counters.wholes.observe(20.0)
    found = samples(status(counters, backend("one"), gauges=Gauges(1, 0.5, 0.25, 2.0, 6)))
    assert found["stickyproxy_requests_total", "class=2xx", "pin=new"] == 1
    assert found["stickyproxy_requests_total", "class=4xx", "pin=kept"] == 1
    assert found["stickyproxy_requests_total", "class=2xx", "pin=moved"] == 1
    assert found["stickyproxy_requests_total", "class=5xx", "pin=none"] == 1
    assert [found["stickyproxy_pins_total", f"pin={pin}"] for pin in ("new", "kept", "moved")] == [1, 1, 1]
    assert found["stickyproxy_moves_total", "cause=refused"] == 1
    assert found["stickyproxy_backend_moved_to_total", "backend=one"] == 1
    assert found["stickyproxy_backend_requests_total", "backend=one"] == 3
    assert found["stickyproxy_backend_pages", "backend=one"] == 3
    assert found["stickyproxy_backend_phase", "backend=one", "phase=ready"] == 1
    assert found["stickyproxy_tunnels_closed_total", "reason=drain"] == 2
    assert found["stickyproxy_pages_lost_total", "reason=backend"] == 1
    assert found["stickyproxy_reconnects_total", "backend=other", "in_time=no"] == 1
    assert found["stickyproxy_reconnect_gap_seconds_bucket", "le=5.0"] == 1
    assert found["stickyproxy_reconnect_gap_seconds_bucket", "le=2.5"] == 0
    assert found["stickyproxy_request_seconds_count",] == found["stickyproxy_first_byte_seconds_count",] == 2
    assert found["stickyproxy_request_seconds_bucket", "le=10.0"] == 1
    assert found["stickyproxy_first_byte_seconds_sum",] == pytest.approx(0.006)
    assert found["stickyproxy_discovery_age_seconds",] == 7.5
    assert found["stickyproxy_discovery_errors_total",] == 3
    assert found["stickyproxy_retry_budget_used_ratio",] == 0.5
    assert found["stickyproxy_event_loop_lag_seconds",] == 0.25
    assert found["stickyproxy_event_loop_lag_max_seconds",] == 2
    assert found["stickyproxy_pages_away",] == 6


def test_what_is_parked_is_told_in_all_and_by_backend() -> None:
    counters = Counters()
    counters.parked = 7
    counters.parked_returns["new"] += 2
    counters.parked_releases[Release.MEMORY.value] += 1
    counters.parked_reopened["kept"] += 4
    counters.parked_gaps.observe(40.0)
    gauges = Gauges(parked=3, parked_bytes=4096, park_s=300.0)
    told = Report(READY, counters, (backend("one"), backend("two")), 3, gauges=gauges)
    other = Report(READY, Counters(), (backend("two"),), 1, gauges=Gauges(parked=1, parked_bytes=4, park_s=300.0))
    told.parked.update({"uid-one": 1, "uid-two": 2})
    other.parked.update({"uid-two": 1})
    both = total([told, other], SOURCE)
    found = samples(both)
    assert found["stickyproxy_parked_pages",] == 4
    assert found["stickyproxy_parked_bytes",] == 4100
    assert found["stickyproxy_backend_parked_pages", "backend=one"] == 1
    assert found["stickyproxy_backend_parked_pages", "backend=two"] == 3
    assert found["stickyproxy_parked_total",] == 7
    assert found["stickyproxy_parked_returned_total", "connection=new"] == 2
    assert found["stickyproxy_parked_released_total", "reason=memory"] == 1
    assert found["stickyproxy_parked_reopened_total", "outcome=kept"] == 4
    assert found["stickyproxy_parked_seconds_bucket", "le=60.0"] == 1
    assert both.gauges.park_s == 300


def test_a_scrape_of_1000_backends_takes_at_most_100_ms_of_cpu() -> None:
    counters = Counters()
    backends = [backend(f"my-app-7c9f8d6b5-{number:05}") for number in range(1000)]
    spent = []
    for _ in range(5):
        before = time.process_time()
        text = render(status(counters, *backends))
        spent.append(time.process_time() - before)
    print(f"a scrape of 1,000 backends: {min(spent) * 1000:.0f} ms, {len(text) / 1000:.0f} kB")
    assert min(spent) <= 0.1


def test_the_text_is_byte_for_byte_that_of_the_library() -> None:
    counters = Counters()
    counters.first_bytes.observe(0.3)
    counters.wholes.observe(1e9)
    counters.requests[9] = 10**17
    odd = BackendStatus('a "quoted" \\ name\nof two lines, ä', Phase.PAUSED, 1, 1, "uid")
    broken = DiscoveryStatus("x", 'expected "this"\nfound \\that', "why", synced=False, age_s=1.5e-7)
    for scraped in (status(counters, backend("one"), odd), total([Report(READY, counters, (odd,), 1)], broken)):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector(scraped))
        assert render(scraped) == generate_latest(registry)
