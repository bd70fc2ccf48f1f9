"""The connections to one backend: a stack of idle ones, and what the balancer must know of it.

Laws: the youngest idle connection is taken first, so that old ones age out before the backend closes them; whoever
takes a connection owns it until `put` or its end.
"""

from stickyproxy.core.backends import Backend
from stickyproxy.core.balance import Load
from stickyproxy.core.counters import Tally
from stickyproxy.dataplane.upstream import Upstream

RECOUNT_S = 0.01, 0.25
"""How long a count of the requests that wait is good for: to turn one away, and to let one in."""


class Pool:
    """Idle connections to one backend; lives as long as the backend is listed or connections to it are open."""

    __slots__ = (
        "_counted",
        "_idle",
        "_max_idle",
        "_max_pending",
        "_pending",
        "backend",
        "closed",
        "dialling",
        "failing",
        "load",
        "tally",
        "upstreams",
        "warned",
    )  # fmt: skip

    def __init__(self, backend: Backend, load: Load, tally: Tally, max_idle: int, max_pending: int) -> None:
        self.backend = backend
        self.load = load
        self.tally = tally
        self.closed = False
        self.failing = False  # the next response is news to `Failures`
        self.warned = False  # the log knows that this backend refuses connections
        self._idle: list[Upstream] = []
        self._max_idle = max_idle
        self._max_pending = max_pending
        self._pending = 0
        self._counted = 0.0
        self.dialling = 0  # connection attempts under way
        self.upstreams: set[Upstream] = set()  # all connections but for tunnels

    @property
    def idle(self) -> int:
        """Count the idle connections."""
        return len(self._idle)

    def overloaded(self, now: float) -> bool:
        """Say whether as many requests as may be wait for the beginning of this backend's answer; else one more does.

        Nothing is counted for each request: only where so many connections are in use that it may be, their
        exchanges are looked at, and that anew after a while.
        """
        in_use = self.dialling + len(self.upstreams) - len(self._idle)
        if not self._max_pending or in_use < self._max_pending:
            return False
        if now - self._counted >= RECOUNT_S[self._pending < self._max_pending]:
            self._counted = now
            exchanges = (u.exchange for u in self.upstreams)
            waiting = sum(1 for e in exchanges if e is not None and e.unanswered_since() is not None)
            self._pending = self.dialling + waiting
        if self._pending >= self._max_pending:
            return True
        self._pending += 1
        return False

    @property
    def last_answer(self) -> float:
        """Give the loop time at which the youngest idle connection brought its last answer; 0 where there is none."""
        return self._idle[-1].idle_since if self._idle else 0.0

    def take(self, idle_after: float) -> Upstream | None:
        """Take the youngest idle connection if it became idle after a moment (loop time); None where there is none."""
        idle = self._idle
        while idle:
            if idle[-1].idle_since < idle_after:
                return None
            upstream = idle.pop()
            if not upstream.transport.is_closing():
                upstream.reused = True
                return upstream
        return None

    def put(self, upstream: Upstream, now: float) -> None:
        """Give back a connection that stands between two exchanges; it is closed where it is not wanted."""
        idle = self._idle
        if len(idle) >= self._max_idle:  # which is 0 once the pool is closed
            upstream.transport.close()
            return
        upstream.idle_since = now
        idle.append(upstream)

    def discard(self, upstream: Upstream) -> None:
        """Forget an idle connection that has ended."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close_idle(self, idle_before: float) -> None:
        """Close what has been idle since before a moment (loop time); infinity closes all."""
        while self._idle and self._idle[0].idle_since < idle_before:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Close all idle connections and take none back: the backend is no longer listed."""
        self.closed = True
        self._max_idle = 0
        self.close_idle(float("inf"))
