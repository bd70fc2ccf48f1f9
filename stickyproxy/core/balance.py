"""Spread new sessions: the backend with the fewest open tunnels, with a slow start for backends that came later.

A session counts from its first request on, before its socket opens: otherwise a burst of visitors would all go to one
backend. Such an arrival fades with a half-life, since a visitor without a socket leaves nothing behind.
"""

from collections.abc import Callable, Collection, Sequence
from random import Random

from stickyproxy.core.backends import Backend
from stickyproxy.core.ejection import Ejections
from stickyproxy.core.generations import outdated

ARRIVAL_HALF_LIFE_S = 3.0
"""Seconds until an arrival counts half: about the time that a page takes to open its socket."""

SLOW_START_FLOOR = 0.1
"""Share of the full weight with which a new backend begins: low, but never nothing."""


class Load:
    """What one backend carries here; the data plane counts `tunnels` up and down.

    elsewhere: tunnels of this proxy's other workers.
    since: when it was first seen. warming: when its slow start began, which a backend that was out has a second time.
    """

    __slots__ = ("_arrivals", "_at", "elsewhere", "since", "tunnels", "warming")

    def __init__(self, since: float) -> None:
        self.tunnels = 0
        self.elsewhere = 0
        self.since = since
        self.warming = since
        self._arrivals = 0.0
        self._at = since

    def arrivals(self, now: float) -> float:
        """Give the faded count of recent arrivals."""
        if not self._arrivals:
            return 0.0
        return float(self._arrivals * 0.5 ** ((now - self._at) / ARRIVAL_HALF_LIFE_S))

    def arrive(self, now: float) -> None:
        """Count one session that was just sent here."""
        self._arrivals = self.arrivals(now) + 1.0
        self._at = now


class Balancer:
    """Chooses a backend for a new session; times are seconds of any one monotonic clock.

    on_arrival: hears of each choice, where other workers shall know.
    """

    __slots__ = ("_ejections", "_random", "_slow_start_s", "_started", "loads", "on_arrival", "outdated")

    def __init__(self, slow_start_s: float, random: Random, ejections: Ejections | None = None) -> None:
        self._slow_start_s = slow_start_s
        self._random = random
        self._ejections = ejections
        self._started = False
        self.on_arrival: Callable[[str], None] | None = None
        self.loads: dict[str, Load] = {}
        self.outdated: frozenset[str] = frozenset()  # identities that a rollout is about to replace

    def apply(self, backends: Collection[Backend], now: float) -> None:
        """Follow a new snapshot: begin the slow start of new backends, forget those that are gone and empty.

        The backends of the first snapshot count as warm: nobody knows better, and all are equally new.
        """
        identities = {b.identity for b in backends}
        for identity in [i for i, load in self.loads.items() if i not in identities and not load.tunnels]:
            del self.loads[identity]
        for identity in identities - self.loads.keys():
            self.loads[identity] = Load(now if self._started else now - self._slow_start_s)
        self._started = self._started or bool(identities)
        self.outdated = outdated(backends, {identity: load.since for identity, load in self.loads.items()})

    def admits(self, identity: str, now: float) -> bool:
        """Say whether a backend may get a new session, as far as failures go."""
        return self._ejections is None or self._ejections.admits(identity, now)

    def admitted(self, candidates: Sequence[Backend], now: float) -> Sequence[Backend]:
        """Leave out the candidates that are ejected; where all are, none is left out."""
        return candidates if self._ejections is None else self._ejections.admitted(candidates, now)

    def choose(self, candidates: Sequence[Backend], now: float) -> Backend:
        """Pick the backend with the lowest weighted load and count the arrival; ties are drawn by lot.

        `candidates` must not be empty and must have been applied.
        """
        lowest = float("inf")
        best: list[Backend] = []
        for backend in candidates:
            load = self.loads[backend.identity]
            score = (load.tunnels + load.elsewhere + load.arrivals(now) + 1.0) / self._weight(load, now)
            if score < lowest:
                lowest, best = score, [backend]
            elif score == lowest:
                best.append(backend)
        chosen = best[0] if len(best) == 1 else self._random.choice(best)
        self.loads[chosen.identity].arrive(now)
        if self.on_arrival is not None:
            self.on_arrival(chosen.identity)
        if self._ejections is not None:
            self._ejections.tried(chosen.identity, now)
        return chosen

    def _weight(self, load: Load, now: float) -> float:
        if not self._slow_start_s:
            return 1.0
        return min(1.0, max(SLOW_START_FLOOR, (now - load.warming) / self._slow_start_s))
