"""What the proxy says of itself, for whoever reports it: admin port, metrics, dashboard."""

from dataclasses import dataclass, field

from stickyproxy.core.backends import Phase
from stickyproxy.core.counters import Counters
from stickyproxy.core.health import Readiness


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One listed backend: `tunnels` open, `idle` pooled connections; `ordered`: it drains because somebody said so.

    `ejected`: new sessions go elsewhere; `trouble` says in words how it fails, empty where it does not.
    """

    name: str
    phase: Phase
    tunnels: int
    idle: int
    identity: str = ""
    address: str = ""
    ordered: bool = False
    ejected: bool = False
    trouble: str = ""
    pages: int = 0
    """Open pages; 0 where nobody asked for a thorough report."""
    requests: int = 0
    """Answered since it was listed."""
    moved_to: int = 0
    """Pins that were moved to it since then."""
    parked: int = 0
    """Of the open pages, those whose browsers are away; 0 where nobody asked for a thorough report."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """What a backend still has open here: pages (with a socket, or loading), tunnels of any kind, running exchanges."""

    pages: int
    tunnels: int
    exchanges: int

    @property
    def empty(self) -> bool:
        """Say whether nothing is left that a user would miss."""
        return not (self.pages or self.tunnels or self.exchanges)


@dataclass(frozen=True, slots=True)
class DiscoveryStatus:
    """Where backends come from (`source`), and what is wrong with it (`problem`, empty: nothing).

    `problem` is one line for a person, `reason` one word for a machine, of a small closed set for each source.
    `synced`: a list has been applied. `age_s`: seconds since the source last confirmed it, or since the start.
    `errors`: how often it failed.
    """

    source: str
    problem: str
    reason: str = ""
    synced: bool = True
    age_s: float = 0.0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Gauges:
    """What goes up and down in one data plane beside its backends.

    `retry_budget_used`: 0 to 1. `lag_s`, `longest_lag_s`: how late the event loop was at worst, in the last ten seconds
    and ever. `away`: pages whose socket has ended and of which it is open whether they come back.
    `tasks` that its event loop has, whoever made them. `parked`: pages that are kept for browsers that are away;
    `parked_bytes`: kept for them, and for those that have not yet acknowledged what they were sent. `park_s`: how long
    they are kept; 0 where none is.
    """

    asset_cache_bytes: int = 0
    retry_budget_used: float = 0.0
    lag_s: float = 0.0
    longest_lag_s: float = 0.0
    away: int = 0
    tasks: int = 0
    parked: int = 0
    parked_bytes: int = 0
    park_s: float = 0.0

    def with_other(self, other: "Gauges") -> "Gauges":
        """Give the sum of what adds up, and the worse of the rest."""
        return Gauges(
            self.asset_cache_bytes + other.asset_cache_bytes,
            max(self.retry_budget_used, other.retry_budget_used),
            max(self.lag_s, other.lag_s),
            max(self.longest_lag_s, other.longest_lag_s),
            self.away + other.away,
            self.tasks + other.tasks,
            self.parked + other.parked,
            self.parked_bytes + other.parked_bytes,
            max(self.park_s, other.park_s),
        )


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one proxy at one moment, all its workers together.

    `app`: one line on the app in the same pod; empty where the proxy is no sidecar. `workers`: data planes wanted, of
    which `serving` accept connections; `restarts`: how many have been replaced.
    """

    readiness: Readiness
    discovery: DiscoveryStatus
    backends: tuple[BackendStatus, ...]
    counters: Counters
    tunnels: int
    app: str = ""
    workers: int = 1
    serving: int = 1
    restarts: int = 0
    gauges: Gauges = field(default_factory=Gauges)
