"""Reports of several data planes add up to one."""

from collections import Counter

from stickyproxy.core.backends import Phase
from stickyproxy.core.counters import Counters
from stickyproxy.core.health import Readiness
from stickyproxy.core.plane import Report, remaining, total
from stickyproxy.core.status import BackendStatus, DiscoveryStatus, Gauges, Remaining

READY = Readiness(True, "ready: 1 of 1 backends usable")
SOURCE = DiscoveryStatus("a list", "")


def counted(number: int) -> Counters:
    counters = Counters()
    counters.connections = number
    counters.requests[4 * 2] = number
    counters.moved["gone"] = number
    return counters


def backend(tunnels: int, trouble: str = "", *, ejected: bool = False) -> BackendStatus:
    return BackendStatus("pod", Phase.READY, tunnels, 1, "uid", "10.0.0.1:80", False, ejected, trouble)


def test_one_report_is_its_own_sum() -> None:
    status = total([Report(READY, counted(1), (backend(3, "1 failure"),), 4)], SOURCE)
    assert status.readiness == READY
    assert status.backends == (backend(3, "1 failure"),)
    assert (status.tunnels, status.workers, status.serving, status.restarts) == (4, 1, 1, 0)


def test_counters_tunnels_and_restarts_add_up() -> None:
    reports = [Report(READY, counted(n), (backend(n),), n, restarts=n) for n in (1, 2)]
    status = total(reports, SOURCE)
    assert status.counters.connections == 3
    assert status.counters.responses == [0, 0, 3, 0, 0, 0]
    assert status.counters.moved == Counter(gone=3)
    assert (status.tunnels, status.restarts) == (3, 3)
    assert [(b.tunnels, b.idle) for b in status.backends] == [(3, 2)]
    assert status.readiness.text == "ready: 1 of 1 backends usable, 2 of 2 workers"


def test_what_is_dead_still_counts_and_does_not_make_unready() -> None:
    dead = Report(Readiness(False, "not ready"), counted(5), serving=False, restarts=1)
    status = total([dead, Report(READY, counted(1), (backend(1),), 1)], SOURCE)
    assert status.readiness == (True, "ready: 1 of 1 backends usable, 1 of 2 workers")
    assert status.counters.connections == 6
    assert total([dead, dead], SOURCE).readiness == (False, "not ready: 0 of 2 workers serve")


def test_one_that_is_not_ready_makes_the_proxy_unready() -> None:
    waits = Report(Readiness(False, "not ready: no backend list yet"), Counters())
    assert total([Report(READY, Counters()), waits], SOURCE).readiness[0] is False


def test_trouble_says_how_many_workers_see_it() -> None:
    out, fails, well = backend(0, "no new sessions", ejected=True), backend(0, "1 failure"), backend(0)
    (merged,) = total([Report(READY, Counters(), (b,)) for b in (well, fails, out)], SOURCE).backends
    assert (merged.ejected, merged.trouble) == (True, "in 2 of 3 workers no new sessions")
    (merged,) = total([Report(READY, Counters(), (fails,)) for _ in range(2)], SOURCE).backends
    assert (merged.ejected, merged.trouble) == (False, "1 failure")


def test_what_is_counted_of_a_backend_adds_up_though_a_worker_is_dead() -> None:
    reports = []
    for number, serving in ((1, True), (2, True), (4, False)):
        counters = Counters()
        counters.tally("uid").requests = number
        counters.tally("uid").moved_to = 10 * number
        counters.tally("unlisted").requests = 99
        pages = Counter(uid=number)
        reports.append(Report(READY, counters, (backend(1),) if serving else (), 1, serving=serving, pages=pages))
    (found,) = total(reports, SOURCE).backends
    assert (found.requests, found.moved_to) == (7, 70)
    assert found.pages == 3, "a dead worker has none"


def test_gauges_add_up_or_the_worst_counts() -> None:
    reports = [Report(READY, Counters(), gauges=Gauges(n, n / 10, n / 100, n / 5, n)) for n in (1, 3, 2)]
    assert total(reports, SOURCE).gauges == Gauges(6, 0.3, 0.03, 0.6, 6)
    dead = Report(READY, Counters(), serving=False, gauges=Gauges(9, 9, 9, 9, 9))
    assert total([dead], SOURCE).gauges == Gauges()


def test_what_is_left_of_a_backend_is_left_anywhere() -> None:
    reports = [
        Report(READY, Counters(), (backend(n),), n, pages=Counter(uid=n), exchanges=Counter(uid=1)) for n in (1, 2)
    ]
    assert remaining(reports, "uid") == Remaining(3, 3, 2)
    assert remaining(reports, "other").empty
