"""The connections to one backend: a stack of idle ones, and what the balancer must know of it.

Laws: the youngest idle connection is taken first, so that old ones age out before the backend closes them; whoever
takes a connection owns it until `put` or its end.
"""

from stickyproxy.core.backends import Backend
from stickyproxy.core.balance import Load
from stickyproxy.core.counters import Tally
from stickyproxy.dataplane.upstream import Upstream


class Pool:
    """Idle connections to one backend; lives as long as the backend is listed or connections to it are open."""

    __slots__ = ("_idle", "_max_idle", "backend", "closed", "failing", "load", "tally", "warned")

    def __init__(self, backend: Backend, load: Load, tally: Tally, max_idle: int) -> None:
        self.backend = backend
        self.load = load
        self.tally = tally
        self.closed = False
        self.failing = False  # the next response is news to `Failures`
        self.warned = False  # the log knows that this backend refuses connections
        self._idle: list[Upstream] = []
        self._max_idle = max_idle

    @property
    def idle(self) -> int:
        """Count the idle connections."""
        return len(self._idle)

    @property
    def last_answer(self) -> float:
        """Give the loop time at which the youngest idle connection brought its last answer; 0 where there is none."""
        return self._idle[-1].idle_since if self._idle else 0.0

    def take(self, idle_after: float) -> Upstream | None:
        """Take the youngest idle connection if it became idle after a moment (loop time); None where there is none."""
        while self._idle:
            if self._idle[-1].idle_since < idle_after:
                return None
            upstream = self._idle.pop()
            if not upstream.transport.is_closing():
                upstream.reused = True
                return upstream
        return None

    def put(self, upstream: Upstream, now: float) -> None:
        """Give back a connection that stands between two exchanges; it is closed where it is not wanted."""
        if self.closed or len(self._idle) >= self._max_idle:
            upstream.transport.close()
            return
        upstream.idle_since = now
        self._idle.append(upstream)

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
        self.close_idle(float("inf"))
