"""The app in our own pod: finds its backend among those listed, and looks at the app without touching its socket.

Laws: nothing here is on a request's path; what is known comes from the kernel, from exchanges that are running when
somebody asks, and from one look a second at the pool.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stickyproxy.core.backends import Backend
from stickyproxy.core.listeners import listening_marks
from stickyproxy.core.settings import SidecarSettings
from stickyproxy.core.sidecar import AppSigns, localise
from stickyproxy.dataplane.reporting import exchanges_at
from stickyproxy.dataplane.sockets import find_listener, is_own_host, silence_s

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy

LOOK_S = 1.0
"""Seconds for which a look at the kernel's list of sockets is good: one in vain takes milliseconds, and anybody can
send what passes for a probe."""


class Sidecar:
    """What the proxy knows of the app that it stands beside."""

    def __init__(self, proxy: "Proxy", settings: SidecarSettings) -> None:
        self._proxy = proxy
        self._local = settings.local
        self._stuck_after_s = settings.stuck_after_s
        self._marks = listening_marks(settings.local, sys.byteorder)
        self._own: Backend | None = None
        self._listens: bool | None = None
        self._looked = float("-inf")
        self._has_listened = False
        self._heard = 0.0  # loop time of the youngest answer that a sweep has seen
        self._has_looked = False  # for its backend

    # Which backend it is.

    def localise(self, backends: Iterable[Backend]) -> tuple[list[Backend], str | None]:
        """Give the backends with our pod's one at --local-backend, and its identity; None where it is not listed."""
        listed = list(backends)
        here = frozenset(host for host in {b.address.host for b in listed} if is_own_host(host))
        listed, own = localise(listed, self._local, here)
        before, self._own = self._own, own
        if own is not None and own != before:
            self._proxy.log.info("backend %s, %s, is the app on %s", own, own.phase.value, self._local)
        elif own is None and (before is not None or not self._has_looked):
            self._proxy.log.warning(
                "expected a listed backend with an address of this machine, for --local-backend %s, found %s; until "
                "there is one new sessions are balanced over all",
                self._local,
                ", ".join(str(b.address) for b in listed[:5]) or "no backend at all",
            )
        self._has_looked = True
        return listed, None if own is None else own.identity

    # Whether the app listens.

    def listens(self) -> bool | None:
        """Say whether somebody listens on --local-backend; None where the kernel does not tell."""
        now = self._proxy.time()
        if now - self._looked < LOOK_S:
            return self._listens
        before, self._listens = self._listens, find_listener(self._marks)
        if self._listens is None:
            if self._looked == float("-inf"):
                self._proxy.log.warning(
                    "expected /proc/net/tcp to tell whether the app listens on %s, found none; neither /readyz nor "
                    "/app/livez can see whether it does",
                    self._local,
                )
        elif self._listens and not before:
            self._has_listened = True
            self._proxy.log.info("the app listens on %s", self._local)
        elif before and not self._listens:
            self._proxy.log.warning("the app does not listen on %s any more", self._local)
        self._looked = now
        return self._listens

    def missing(self) -> str:
        """Say what readiness lacks, without an address; empty where nothing is known to be missing."""
        if self.listens() is not False:
            return ""
        return f"the app does not listen on port {self._local.port} {self._since_when}"

    def line(self) -> str:
        """Say in one line how it stands with the app."""
        state = {
            True: "listens",
            False: f"does not listen {self._since_when}",
            None: "cannot tell whether it listens (no /proc/net/tcp)",
        }[self.listens()]
        which = f"it is backend {self._own}" if self._own is not None else "no listed backend is this machine's"
        return f"app {self._local}: {state}; {which}"

    @property
    def _since_when(self) -> str:
        return "any more" if self._has_listened else "yet"

    # Whether the app is alive.

    def sweep(self) -> None:
        """Note when the app answered last, before idle connections are closed and forgotten."""
        if self._own is not None and (pool := self._proxy.pools.get(self._own.identity)):
            self._heard = max(self._heard, pool.last_answer)

    def signs(self) -> AppSigns:
        """Give what is seen of the app's life here."""
        now = self._proxy.time()
        waits: list[float] = []
        if self._own is not None:
            exchanges = exchanges_at(self._proxy, self._own.identity)
            waits = [now - since for since in (e.unanswered_since() for e in exchanges) if since is not None]
        return AppSigns(self.listens(), tuple(waits), self._silence_s(now) if self._own is not None else float("inf"))

    def _silence_s(self, now: float) -> float:
        """Give the seconds since the app sent anything, to whomever; stop looking where it is known to be alive."""
        assert self._own is not None
        proxy, identity = self._proxy, self._own.identity
        self.sweep()
        shortest = now - self._heard if self._heard else float("inf")
        transports = [e.upstream.transport for e in exchanges_at(proxy, identity) if e.upstream is not None]
        load = proxy.balancer.loads[identity]
        legs = (tunnel.upstream for tunnel in proxy.tunnels if tunnel.load is load)
        transports += [leg.transport for leg in legs if leg is not None]
        for transport in transports:
            if shortest < self._stuck_after_s:
                break
            shortest = min(shortest, silence_s(transport))
        return shortest
