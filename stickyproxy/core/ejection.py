"""Which backends get no new sessions for a while, judged by the traffic that goes through and by nothing else.

Laws: every transition stands in `TABLE`, and what it does not name changes nothing; of the ready backends one at least
stays in the running, so that ejection never makes an answer worse; only ready backends are judged, since discovery
keeps all others out already; a backend's state goes with its identity.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from stickyproxy.core.backends import Backend

JITTER = 0.25
"""Largest share by which a time out is shortened, by lot: replicas of the proxy shall not all try it at once."""

CALM_S = 300.0
"""Seconds in the running after which the next ejection is a first one again."""

TRIAL_S = 5.0
"""Seconds for which a returning backend gets one new session: a client that leaves in the middle blocks it no more."""


class State(Enum):
    """What new sessions a backend gets."""

    HEALTHY = "healthy"  # its full share
    FAILING = "failing"  # its full share still: less than N failures in a row, or no other is left
    EJECTED = "ejected"  # none, until its time is over
    RETURNING = "returning"  # one at a time


class Event(Enum):
    """What happens to a backend."""

    FAILURE = "failure"  # fewer than N in a row
    LIMIT = "Nth failure in a row"  # or one more
    LAST = "Nth failure, no other is left"  # no other ready backend is in the running
    SUCCESS = "response"  # the head of a response, whatever its status
    TIME = "time is over"
    READY = "discovery says ready again"  # after another phase: its probes pass anew
    TRIED = "a new session is sent"
    NEEDED = "no other is left"  # the ready backends that were in the running are gone


class Effect(Enum):
    """What a transition asks of the caller."""

    NOTHING = "-"
    COUNT = "count"  # one more failure in a row
    SPARE = "count; serve on"
    EJECT = "out for longer than before"
    FORGET = "forget the failures"
    RETURN = "forget the failures; slow start"
    WAIT = "no other session for a while"
    RECALL = "serve again at once"


TABLE: Mapping[tuple[State, Event], tuple[State, Effect]] = {
    (State.HEALTHY, Event.FAILURE): (State.FAILING, Effect.COUNT),
    (State.HEALTHY, Event.LIMIT): (State.EJECTED, Effect.EJECT),  # N is 1
    (State.HEALTHY, Event.LAST): (State.FAILING, Effect.SPARE),  # N is 1
    (State.FAILING, Event.FAILURE): (State.FAILING, Effect.COUNT),
    (State.FAILING, Event.LIMIT): (State.EJECTED, Effect.EJECT),
    (State.FAILING, Event.LAST): (State.FAILING, Effect.SPARE),
    (State.FAILING, Event.SUCCESS): (State.HEALTHY, Effect.FORGET),
    (State.EJECTED, Event.TIME): (State.RETURNING, Effect.NOTHING),
    (State.EJECTED, Event.READY): (State.RETURNING, Effect.NOTHING),
    (State.EJECTED, Event.NEEDED): (State.FAILING, Effect.RECALL),
    (State.RETURNING, Event.TRIED): (State.RETURNING, Effect.WAIT),
    (State.RETURNING, Event.SUCCESS): (State.HEALTHY, Effect.RETURN),
    (State.RETURNING, Event.LIMIT): (State.EJECTED, Effect.EJECT),
    (State.RETURNING, Event.NEEDED): (State.FAILING, Effect.RECALL),
}
"""A response while a backend is `ejected` changes nothing: an exchange or a pooled connection that is older than the
trouble says nothing of new connections."""

IN_THE_RUNNING = frozenset((State.HEALTHY, State.FAILING))


class Failure(Enum):
    """How a backend fails, as a log line and a metric name it."""

    REFUSED = "connection refused"  # or reset
    UNREACHABLE = "out of reach"  # no route, or its name has no address
    TIMEOUT = "connection attempt unanswered"
    CERTIFICATE = "certificate not accepted"
    HANDSHAKE = "no TLS"  # the handshake failed for another reason
    CLOSED = "closed without an answer"
    SILENT = "no answer in time"


@dataclass(slots=True)
class Record:
    """What is known of a backend that has failed; times are of the caller's monotonic clock, in seconds."""

    state: State = State.HEALTHY
    failures: int = 0
    """In a row."""
    last: Failure = Failure.REFUSED
    """How it failed last."""
    ejections: int = 0
    """Without `CALM_S` in the running between them."""
    since: float = 0.0
    """When it left the running."""
    until: float = 0.0
    """When the next new session may be sent to it; of use only while it is out of the running."""
    back: float = 0.0
    """When it came back into the running."""

    @property
    def out(self) -> bool:
        """Say whether the backend is out of the running."""
        return self.state not in IN_THE_RUNNING


class Ejections:
    """The records of all listed backends that have failed; a backend without one is healthy.

    after: failures in a row that eject; 0: never. first_s: a first time out; it doubles with each further ejection, up
    to longest_s.
    """

    __slots__ = ("_first_s", "_longest_s", "_random", "_ready", "after", "records")

    def __init__(self, after: int, first_s: float, longest_s: float, random: Random) -> None:
        self.after = after
        self._first_s = first_s
        self._longest_s = longest_s
        self._random = random
        self._ready: frozenset[str] = frozenset()
        self.records: dict[str, Record] = {}

    def apply(self, listed: Iterable[str], ready: Iterable[str], now: float) -> list[str]:
        """Follow a new snapshot, given by identities; give those that were recalled because no other is left."""
        before, self._ready, kept = self._ready, frozenset(ready), frozenset(listed)
        for identity in self.records.keys() - kept:
            del self.records[identity]
        for identity in self.records.keys() & (self._ready - before):
            self._step(self.records[identity], Event.READY, now)
        return self._recall(now)

    def failed(self, identity: str, failure: Failure, now: float) -> Effect:
        """Hear of a failure."""
        if not self.after or identity not in self._ready:
            return Effect.NOTHING
        record = self.records.setdefault(identity, Record())
        self._pass_time(record, now)
        record.last = failure
        record.failures += 1
        if record.failures < self.after:
            return self._step(record, Event.FAILURE, now)
        others = any(self._in_the_running(other) for other in self._ready if other != identity)
        return self._step(record, Event.LIMIT if others else Event.LAST, now)

    def answered(self, identity: str, now: float) -> Effect:
        """Hear of the head of a response."""
        record = self.records.get(identity)
        if record is None:
            return Effect.NOTHING
        self._pass_time(record, now)
        effect = self._step(record, Event.SUCCESS, now)
        if record.state is State.HEALTHY and not record.ejections:
            del self.records[identity]
        return effect

    def tried(self, identity: str, now: float) -> None:
        """Hear that a new session is sent to a backend."""
        if record := self.records.get(identity):
            self._step(record, Event.TRIED, now)

    def admits(self, identity: str, now: float) -> bool:
        """Say whether a backend may get a new session."""
        record = self.records.get(identity)
        if record is None:
            return True
        self._pass_time(record, now)
        return not record.out or (record.state is State.RETURNING and now >= record.until)

    def admitted(self, candidates: Sequence[Backend], now: float) -> Sequence[Backend]:
        """Leave out the candidates that get no new session for now; where none would be left, all stay."""
        if not self.records:
            return candidates
        return [b for b in candidates if self.admits(b.identity, now)] or candidates

    def troubled(self, identity: str) -> bool:
        """Say whether a response of this backend would be news."""
        record = self.records.get(identity)
        return record is not None and record.state is not State.HEALTHY

    def sweep(self, now: float) -> None:
        """Let time pass: to be called from time to time, so that records of long ago go."""
        for identity, record in list(self.records.items()):
            self._pass_time(record, now)
            if record.state is State.HEALTHY and now - record.back >= CALM_S:
                del self.records[identity]

    def _in_the_running(self, identity: str) -> bool:
        record = self.records.get(identity)
        return record is None or not record.out

    def _recall(self, now: float) -> list[str]:
        if not self._ready or any(map(self._in_the_running, self._ready)):
            return []
        # The least bad: ejected the fewest times, and of these the one whose time is over first.
        order = sorted(self._ready, key=lambda i: (self.records[i].ejections, self.records[i].until, i))
        self._step(self.records[order[0]], Event.NEEDED, now)
        return order[:1]

    def _pass_time(self, record: Record, now: float) -> None:
        if record.state is State.EJECTED and now >= record.until:
            self._step(record, Event.TIME, now)

    def _step(self, record: Record, event: Event, now: float) -> Effect:
        """Take a record through the table."""
        was = record.state
        record.state, effect = TABLE.get((was, event), (was, Effect.NOTHING))
        if effect is Effect.EJECT:
            if was in IN_THE_RUNNING:
                record.since = now
                if now - record.back >= CALM_S:
                    record.ejections = 0
            record.ejections += 1
            record.until = now + self._time_out(record.ejections)
        elif effect is Effect.WAIT:
            record.until = now + TRIAL_S
        elif effect in (Effect.FORGET, Effect.RETURN):
            record.failures = 0
        if was not in IN_THE_RUNNING and record.state in IN_THE_RUNNING:
            record.back = now
        elif was is State.EJECTED and record.state is State.RETURNING:
            record.until = now
        return effect

    def _time_out(self, ejections: int) -> float:
        """Give the length of the so-manieth time out."""
        longest = min(self._longest_s, self._first_s * 2.0 ** min(ejections - 1, 30))
        return longest * (1.0 - JITTER * self._random.random())
