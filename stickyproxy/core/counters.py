"""What happened, as plain integers: the data plane counts up, whoever reports reads."""

from collections import Counter

from stickyproxy.core.backends import Pick, Pin
from stickyproxy.core.limits import Limit


class Counters:
    """Totals since the start; nothing here is ever reset or counted down but what is named `open_*`."""

    __slots__ = (
        "asset_retries", "connections", "dials", "ejections", "failures", "faults", "handshakes", "kept", "limits",
        "moved", "new", "open_connections", "probes", "responses", "retries", "retries_denied", "returns", "tunnels",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0  # accepted downstream
        self.open_connections = 0  # of these, still open as HTTP (tunnels are counted by backend)
        self.dials = 0  # connection attempts upstream
        self.retries = 0  # requests sent again because a pooled connection had died
        self.retries_denied = 0  # requests not sent again because the budget was used up
        self.ejections = 0  # times a backend was taken out of the running for new sessions
        self.returns = 0  # times one came back into it
        self.failures: Counter[str] = Counter()  # of backends, by kind
        self.probes = 0  # health probes answered on the main port
        self.tunnels = 0  # tunnels opened
        self.asset_retries = 0  # assets that one backend did not have, asked of another
        self.responses = [0] * 6  # by class: index 2 counts 2xx
        self.new = 0  # exchanges by what became of the pin
        self.kept = 0
        self.moved: Counter[str] = Counter()  # moved pins by cause
        self.faults: Counter[str] = Counter()  # own answers by reason
        self.handshakes: Counter[str] = Counter()  # TLS with clients, by what became of it
        self.limits: Counter[str] = Counter(dict.fromkeys(Limit, 0))  # times a limit was hit, by its name

    def add(self, other: "Counters") -> None:
        """Add what another data plane has counted."""
        for name in self.__slots__:
            mine, more = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(more)
            elif isinstance(mine, list):
                mine[:] = [a + b for a, b in zip(mine, more, strict=True)]
            else:
                setattr(self, name, mine + more)

    def count_pick(self, pick: Pick) -> None:
        """Count the pin of an exchange whose backend took the request."""
        if pick.pin is Pin.KEPT:
            self.kept += 1
        elif pick.pin is Pin.NEW:
            self.new += 1
        else:
            self.moved[pick.cause.value] += 1
