"""What happened, as plain integers: the data plane counts up, whoever reports reads.

Law: sets of labels that are known are here from the start, at 0, or a first event would be no increase to Prometheus.
"""

from collections import Counter
from collections.abc import Container
from typing import Final

from stickyproxy.core import faults
from stickyproxy.core.absences import Return
from stickyproxy.core.backends import Cause, Pick, Pin
from stickyproxy.core.ejection import Failure
from stickyproxy.core.histogram import Histogram
from stickyproxy.core.limits import Limit
from stickyproxy.core.parking import Release
from stickyproxy.core.proxy_protocol import HeaderProblem
from stickyproxy.core.tls import Handshake
from stickyproxy.core.tunnels import End

PINS: Final = ("kept", "new", "moved", "none")
"""What became of a request's pin; `none`: it never came to a backend's answer."""

NO_PIN: Final = 3
"""Where `none` stands among them."""

_INDEX = {Pin.KEPT: 0, Pin.NEW: 1, Pin.MOVED: 2}


class Tally:
    """What one backend has answered, and how many pins were moved to it."""

    __slots__ = ("moved_to", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.moved_to = 0

    def add(self, other: "Tally") -> None:
        """Add what another data plane has counted."""
        self.requests += other.requests
        self.moved_to += other.moved_to


class Counters:
    """Totals since the start; nothing here is ever reset or counted down but what is named `open_*`."""

    __slots__ = (
        "asset_hits", "asset_misses", "asset_retries", "backends", "connections", "dials", "ejections", "failures",
        "faults", "first_bytes", "gaps", "handshakes", "limits", "log_dropped", "lost", "moved", "open_connections",
        "parked", "parked_gaps", "parked_releases", "parked_reopened", "parked_returns", "probes", "received_bytes",
        "reconnects", "refused_headers", "requests", "retries", "retries_denied", "returns", "sent_bytes", "stalls",
        "tunnel_ends", "tunnel_received_bytes", "tunnel_sent_bytes", "tunnels", "whole", "wholes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0  # accepted downstream
        self.open_connections = 0  # of these, still open as HTTP (tunnels are counted by backend)
        self.dials = 0  # connection attempts upstream
        self.retries = 0  # requests sent again because a pooled connection had died
        self.retries_denied = 0  # requests not sent again because the budget was used up
        self.ejections = 0  # times a backend was taken out of the running for new sessions
        self.returns = 0  # times one came back into it
        self.failures = Counter(dict.fromkeys((f.name.lower() for f in Failure), 0))  # of backends, by kind
        self.probes = 0  # health probes answered on the main port
        self.tunnels = 0  # tunnels opened
        self.tunnel_ends = Counter(dict.fromkeys((e.value for e in End), 0))
        self.tunnel_received_bytes = 0  # from clients
        self.tunnel_sent_bytes = 0  # to clients
        self.received_bytes = 0  # from clients, but for tunnels
        self.sent_bytes = 0  # to clients, but for tunnels
        self.asset_retries = 0  # assets that one backend did not have, asked of another
        self.asset_hits = 0  # answered from the cache
        self.asset_misses = 0  # fetched for it
        self.requests = [0] * 24  # by class and pin: index 4 * 2 + 0 counts 2xx that were kept
        self.whole = Histogram()  # durations of requests whose answer came at once: its end is its first byte
        self.first_bytes = Histogram()  # of all others, to their first byte
        self.wholes = Histogram()  # and to their end
        self.moved = Counter(dict.fromkeys((c.value for c in Cause if c is not Cause.NONE), 0))  # pins by cause
        self.faults = Counter(dict.fromkeys(faults.REASONS, 0))  # own answers by reason
        self.backends: dict[str, Tally] = {}  # by identity, of those that are listed
        self.reconnects = Counter({(same, in_time): 0 for same in (True, False) for in_time in (True, False)})
        self.gaps = Histogram()  # of them
        self.lost = Counter(dict.fromkeys((e.value for e in End), 0))  # pages, by the end of their socket
        self.parked = 0  # pages whose browsers were found to be away (--park)
        self.parked_returns = Counter(dict.fromkeys(("new", "old"), 0))  # of them, by the connection they came back by
        self.parked_gaps = Histogram()  # how long those were away
        self.parked_releases = Counter(dict.fromkeys((r.value for r in Release), 0))  # of the others, by reason
        self.parked_reopened = Counter(dict.fromkeys(("kept", "failed"), 0))  # sockets asked for anew for the parked
        self.stalls = 0  # times the event loop stood still
        self.log_dropped = 0  # lines of the access log that nobody took in time
        self.handshakes = Counter(dict.fromkeys((h.value for h in Handshake), 0))  # TLS with clients
        self.limits = Counter(dict.fromkeys((limit.value for limit in Limit), 0))  # times each was hit
        self.refused_headers = Counter(dict.fromkeys((p.value for p in HeaderProblem), 0))  # of the PROXY protocol

    def add(self, other: "Counters") -> None:
        """Add what another data plane has counted."""
        for name in self.__slots__:
            mine, more = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(more)
            elif isinstance(mine, Histogram):
                mine.add(more)
            elif isinstance(mine, list):
                mine[:] = [a + b for a, b in zip(mine, more, strict=True)]
            elif isinstance(mine, dict):
                for identity, tally in more.items():
                    self.tally(identity).add(tally)
            else:
                setattr(self, name, mine + more)

    def tally(self, identity: str) -> Tally:
        """Give what is counted for one backend."""
        found = self.backends.get(identity)
        if found is None:
            found = self.backends[identity] = Tally()
        return found

    def retain(self, listed: Container[str]) -> None:
        """Forget what was counted for backends that are no longer listed."""
        self.backends = {identity: tally for identity, tally in self.backends.items() if identity in listed}

    def count_request(self, status: int, pick: Pick) -> None:
        """Count an exchange whose backend took the request, with its pin."""
        self.requests[status // 100 * 4 + _INDEX[pick.pin]] += 1
        if pick.pin is Pin.MOVED:
            self.moved[pick.cause.value] += 1
            self.tally(pick.backend.identity).moved_to += 1

    def count_own(self, status: int) -> None:
        """Count an answer that is no backend's."""
        self.requests[status // 100 * 4 + NO_PIN] += 1

    def count_return(self, back: Return) -> None:
        """Count a page that came back."""
        self.reconnects[back.same, back.in_time] += 1
        self.gaps.observe(back.gap_s)

    @property
    def responses(self) -> list[int]:
        """Give the responses by class: index 2 counts 2xx."""
        return [sum(self.requests[at : at + 4]) for at in range(0, 24, 4)]

    @property
    def kept(self) -> int:
        """Count the exchanges whose pin was kept."""
        return sum(self.requests[0::4])

    @property
    def new(self) -> int:
        """Count the exchanges that bound a new browser."""
        return sum(self.requests[1::4])

    @property
    def durations(self) -> tuple[Histogram, Histogram]:
        """Give the durations of all requests to their first byte and to their end."""
        first, last = Histogram(), Histogram()
        for histogram, part in ((first, self.first_bytes), (last, self.wholes)):
            histogram.add(self.whole)
            histogram.add(part)
        return first, last
