"""What the composition root asks of a data plane, be it in this process or in one of several workers.

Law: reports of several data planes add up to one, and one alone is its own sum, so that nobody who reads a status
knows how many there are.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Protocol

from stickyproxy.core.backends import Backend
from stickyproxy.core.counters import Counters, Tally
from stickyproxy.core.health import Readiness
from stickyproxy.core.news import News
from stickyproxy.core.sidecar import AppSigns
from stickyproxy.core.status import BackendStatus, DiscoveryStatus, Gauges, Remaining, Status
from stickyproxy.core.tls import TlsMaterial


@dataclass(frozen=True, slots=True)
class Report:
    """What a data plane says of itself; what is by identity (`pages`, `parked`, ...) only in a thorough one.

    `serving`: it accepts connections. `restarts`: how often its process was replaced.
    """

    readiness: Readiness
    counters: Counters
    backends: tuple[BackendStatus, ...] = ()
    tunnels: int = 0
    serving: bool = True
    restarts: int = 0
    pages: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    exchanges: Counter[str] = field(default_factory=Counter)
    app: str = ""
    signs: AppSigns | None = None
    gauges: Gauges = field(default_factory=Gauges)


class Plane(Protocol):
    """One data plane, near or far; whatever cannot be reached is left out of sums and never waited for without end."""

    def apply(self, backends: Sequence[Backend]) -> None:
        """Put a whole new set of backends in force."""
        ...

    def secure(self, material: TlsMaterial) -> None:
        """Speak TLS with these certificates on connections that begin from now on."""
        ...

    def order(self, identity: str, *, drain: bool) -> None:
        """Let a backend drain, or take that back."""
        ...

    def hear(self, news: News) -> None:
        """Take in what somebody else knows."""
        ...

    async def known(self) -> News:
        """Give all pages and files, for a successor."""
        ...

    async def report(self, *, thorough: bool = False) -> Report:
        """Report the state of this moment."""
        ...

    async def wait(self, identity: str, wait_s: float, idle_s: float | None) -> None:
        """Wait until a backend has nothing open here, for so long at the most (see `Drains.wait`)."""
        ...

    async def leave(self, delay_s: float, timeout_s: float) -> None:
        """Serve on for a while, unready; then stop accepting, and end when all is closed or the time is over."""
        ...

    async def close(self) -> None:
        """Drop every connection."""
        ...


def total(reports: Sequence[Report], discovery: DiscoveryStatus) -> Status:
    """Add reports up."""
    counters = Counters()
    for report in reports:
        counters.add(report.counters)
    serving = [r for r in reports if r.serving]
    return Status(
        _readiness(reports, serving),
        discovery,
        _tallied(_backends([r.backends for r in serving]), counters, serving),
        counters,
        sum(r.tunnels for r in serving),
        next((r.app for r in serving), ""),
        workers=len(reports),
        serving=len(serving),
        restarts=sum(r.restarts for r in reports),
        gauges=reduce(Gauges.with_other, (r.gauges for r in serving), Gauges()),
    )


def remaining(reports: Iterable[Report], identity: str) -> Remaining:
    """Count what a backend still has open anywhere, from thorough reports."""
    serving = [r for r in reports if r.serving]
    return Remaining(
        pages=sum(r.pages[identity] for r in serving),
        tunnels=sum(b.tunnels for r in serving for b in r.backends if b.identity == identity),
        exchanges=sum(r.exchanges[identity] for r in serving),
    )


def _readiness(reports: Sequence[Report], serving: Sequence[Report]) -> Readiness:
    """Be as ready as the least ready worker that serves; one that is being replaced takes nobody's readiness away."""
    worst = min((r.readiness for r in serving), key=lambda readiness: readiness.ready, default=None)
    if len(reports) == 1 and worst is not None:
        return worst
    workers = f"{len(serving)} of {len(reports)} workers"
    if worst is None:
        return Readiness(False, f"not ready: {workers} serve")
    return Readiness(worst.ready, f"{worst.text}, {workers}")


def _backends(lists: Sequence[tuple[BackendStatus, ...]]) -> tuple[BackendStatus, ...]:
    """Merge what is said of each backend; each worker judges by itself which of them fail."""
    if len(lists) == 1:
        return lists[0]
    by_identity: dict[str, list[BackendStatus]] = {}
    for backends in lists:
        for backend in backends:
            by_identity.setdefault(backend.identity, []).append(backend)
    merged = []
    for said in by_identity.values():
        troubled = sorted((b for b in said if b.trouble), key=lambda b: not b.ejected)
        where = "" if len(troubled) == len(lists) else f"in {len(troubled)} of {len(lists)} workers "
        merged.append(
            replace(
                said[0],
                tunnels=sum(b.tunnels for b in said),
                idle=sum(b.idle for b in said),
                ejected=any(b.ejected for b in said),
                trouble=f"{where}{troubled[0].trouble}" if troubled else "",
            )
        )
    return tuple(merged)


def _tallied(
    backends: Iterable[BackendStatus], counters: Counters, serving: Sequence[Report]
) -> tuple[BackendStatus, ...]:
    """Complete what is said of each backend by what all together have counted."""
    none = Tally()
    pages = sum((r.pages for r in serving), Counter[str]())
    parked = sum((r.parked for r in serving), Counter[str]())
    return tuple(
        replace(b, pages=pages[b.identity], parked=parked[b.identity], requests=tally.requests, moved_to=tally.moved_to)
        for b in backends
        for tally in (counters.backends.get(b.identity, none),)
    )
