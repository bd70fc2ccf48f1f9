"""What the data plane does about backends that fail: counts, ejects, says so once, and bounds what is sent again.

Laws: backends are found by traffic alone, never by probing; a response of a backend that does not fail is not heard of
here at all (`Pool.failing` says whether it is).
"""

from collections.abc import Callable
from logging import Logger
from random import Random

from stickyproxy.core.backends import Snapshot
from stickyproxy.core.balance import Balancer
from stickyproxy.core.counters import Counters
from stickyproxy.core.ejection import Effect, Ejections, Failure, Record
from stickyproxy.core.events import Gathering, Happening, Kind
from stickyproxy.core.retries import RetryBudget
from stickyproxy.core.settings import Settings
from stickyproxy.dataplane.pool import Pool
from stickyproxy.dataplane.secure_upstream import CertificateRefusedError, HandshakeError

_ADVICE = {
    Failure.REFUSED: "does the app listen on {address}, or has it crashed? See its log",
    Failure.UNREACHABLE: "is {address} right, does its name resolve, and is there a route to it from here?",
    Failure.TIMEOUT: "does a network policy or a firewall drop what goes to {address}, or does the app's process hang?",
    Failure.CERTIFICATE: "is its authority in --backend-ca, is it still valid, and does it hold "
    "--backend-server-name, or without that the host of {address}?",
    Failure.HANDSHAKE: "does {address} speak TLS, 1.2 or newer?",
    Failure.CLOSED: "the app closes connections instead of answering: see its log for a crash",
    Failure.SILENT: "the app takes requests and does not answer within --response-timeout: is its event loop blocked?",
}


class Failures:
    """The failures of all backends of one data plane, and the budget of retries."""

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        time: Callable[[], float],
        log: Logger,
        random: Random,
        happenings: Gathering,
    ) -> None:
        failures = settings.failures
        self._counters = counters
        self._time = time
        self._happenings = happenings
        self._log = log
        self.ejections = Ejections(failures.eject_after, failures.eject_s, failures.eject_longest_s, random)
        # A hashed key goes where it leads, whatever becomes of its backend.
        self._whom = "new sessions" + (" without a hash key" if settings.affinity.hash_key is not None else "")
        self.balancer = Balancer(settings.affinity.slow_start_s, random, self.ejections)
        self._details: dict[str, str] = {}  # of the last failure, by identity
        self._budget = RetryBudget(failures.retry_share, failures.retry_floor)

    def apply(self, snapshot: Snapshot) -> None:
        """Follow a new snapshot."""
        self._details = {i: detail for i, detail in self._details.items() if i in snapshot.by_identity}
        for identity in self.ejections.apply(snapshot.by_identity, (b.identity for b in snapshot.ready), self._time()):
            self._counters.returns += 1
            self._log.warning(
                "backend %s gets new sessions again though it has failed: no other ready backend is left",
                snapshot.by_identity[identity],
            )
            recalled = "has failed, but gets new sessions again: no other ready backend is left"
            self._happenings.add(
                Happening(Kind.RETURNED, str(snapshot.by_identity[identity]), cause="needed", detail=recalled)
            )

    def unreachable(self, pool: Pool, problem: OSError) -> None:
        """Hear that a backend cannot be reached, and say it once."""
        self.failed(pool, failure_of(problem), str(problem) if isinstance(problem, HandshakeError) else "")
        if not pool.warned:
            pool.warned = True
            reason = problem.strerror or str(problem) or "no answer in time"
            self._log.warning("backend %s cannot be reached (%s); its sessions are moved", pool.backend, reason)
            self._happenings.add(Happening(Kind.UNREACHABLE, str(pool.backend), detail=reason))

    def reached(self, pool: Pool) -> None:
        """Say once that a backend can be reached again."""
        if pool.warned:
            pool.warned = False
            self._log.info("backend %s accepts connections again", pool.backend)
            self._happenings.add(Happening(Kind.REACHABLE, str(pool.backend)))

    def failed(self, pool: Pool, failure: Failure, detail: str = "") -> None:
        """Hear that a backend has failed in a way that is its own fault; `detail`: more than the kind says."""
        self._counters.failures[failure.name.lower()] += 1
        if pool.closed:  # it is no longer listed, or at another address
            return
        backend, now = pool.backend, self._time()
        effect = self.ejections.failed(backend.identity, failure, now)
        record = self.ejections.records.get(backend.identity)
        if record is None:
            return
        pool.failing = self.ejections.troubled(backend.identity)
        self._details[backend.identity] = detail
        advice = _ADVICE[failure].format(address=backend.address)
        if effect is Effect.EJECT:
            self._counters.ejections += 1
            self._log.warning(
                "backend %s gets no %s for %.1f s: %s, ejected %s; its own sessions stay; %s",
                backend, self._whom, record.until - now, _said(record, detail), _times(record.ejections), advice,
            )  # fmt: skip
            out = f"gets no {self._whom} for {record.until - now:.1f} s: {_said(record, detail)}; its own sessions stay"
            self._happenings.add(Happening(Kind.EJECTED, str(backend), cause=failure.name.lower(), detail=out))
        elif effect is Effect.SPARE and record.failures == self.ejections.after and not pool.warned:
            self._log.warning(
                "backend %s fails, but goes on getting %s since no other ready backend is left: %s; %s",
                backend, self._whom, _said(record, detail), advice,
            )  # fmt: skip

    def answered(self, pool: Pool) -> None:
        """Hear that a failing backend has sent the head of a response."""
        identity, now = pool.backend.identity, self._time()
        record = self.ejections.records.get(identity)
        effect = self.ejections.answered(identity, now)
        pool.failing = self.ejections.troubled(identity)
        if effect is Effect.RETURN and record is not None:
            self._counters.returns += 1
            if load := self.balancer.loads.get(identity):
                load.warming = now  # it may have been restarted, so it begins slowly like a new one
            self._log.info(
                "backend %s answers, and gets new sessions again after %.1f s", pool.backend, now - record.since
            )
            back = f"answers, and gets new sessions again after {now - record.since:.1f} s"
            self._happenings.add(Happening(Kind.RETURNED, str(pool.backend), cause="answers", detail=back))

    def may_retry(self) -> bool:
        """Say whether a request may be sent a second time, and count what is decided."""
        counters = self._counters
        if counters.retries < self._budget.ceiling:
            counters.retries += 1
            return True
        counters.retries_denied += 1
        return False

    @property
    def budget_used(self) -> float:
        """Say which part of the budget of retries is used."""
        return self._budget.used(self._counters.retries)

    def sweep(self, now: float) -> None:
        """Let time pass; once a second."""
        counters = self._counters
        self._budget.sweep(now, sum(counters.requests), counters.retries)
        self.ejections.sweep(now)

    def describe(self, identity: str) -> tuple[bool, str]:
        """Say whether a backend is out of the running for new sessions, and in words how it fails (empty: not)."""
        record = self.ejections.records.get(identity)
        if record is None or not record.failures:
            return False, ""
        said = _said(record, self._details.get(identity, ""))
        if not record.out:
            return False, said
        left = record.until - self._time()
        when = f"for {left:.1f} s" if left > 0 else "but one that tries it"
        return True, f"no {self._whom} {when}: {said}"


def failure_of(problem: OSError) -> Failure:
    """Name what made a connection attempt fail."""
    if isinstance(problem, HandshakeError):
        return Failure.CERTIFICATE if isinstance(problem, CertificateRefusedError) else Failure.HANDSHAKE
    if isinstance(problem, TimeoutError):
        return Failure.TIMEOUT
    return Failure.REFUSED if isinstance(problem, ConnectionError) else Failure.UNREACHABLE


def _said(record: Record, detail: str) -> str:
    failures = "1 failure" if record.failures == 1 else f"{record.failures} failures in a row"
    return f"{failures} ({record.last.value}{f': {detail}' if detail else ''})"


def _times(count: int) -> str:
    return "for the first time" if count == 1 else f"{count} times by now"
