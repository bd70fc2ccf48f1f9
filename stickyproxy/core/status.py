"""What the proxy says of itself, for whoever reports it: admin port, metrics, dashboard."""

from dataclasses import dataclass

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
    """

    source: str
    problem: str
    reason: str = ""


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
