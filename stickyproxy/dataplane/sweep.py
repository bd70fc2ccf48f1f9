"""Looks at the deadlines of all connections about once a second, a slice each turn of the event loop.

Laws: no slice takes longer than about a millisecond, however many connections there are and however many of them have
passed their deadlines at the same time; a round looks at every connection once.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stickyproxy.dataplane.downstream import Downstream
    from stickyproxy.dataplane.proxy import Proxy

LOOKED_AT = 1024
"""Connections that a slice looks at: some 100 us."""

ACTED_ON = 16
"""Connections on which a slice acts, since a deadline has passed: some 40 us each, for an answer and a close."""

PAUSE_S = 0.002
"""Between two slices: others shall have most of the time meanwhile."""


class Sweep:
    """The sweep of one data plane."""

    def __init__(self, proxy: "Proxy", between_rounds: Callable[[float, float], None]) -> None:
        self._proxy = proxy
        self._between_rounds = between_rounds
        self._timer: asyncio.TimerHandle | None = None
        self._round: Iterator[bool] | None = None
        self._hurried = False
        self._due = 0.0

    def start(self) -> None:
        """Begin the first round after a while; idempotent."""
        if self._timer is None:
            self._later(self._proxy.times.sweep_s)

    def hurry(self) -> None:
        """Begin a round with the next turn, or as soon as the one under way has ended."""
        self._hurried = True
        if self._timer is not None and self._round is None:
            self._timer.cancel()
            self._later(0.0)

    def stop(self) -> None:
        """Look no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        if self._round is None:
            self._hurried = False
            now = self._proxy.time()
            self._between_rounds(now, max(0.0, now - self._due))
            self._round = self._slices()
        more = next(self._round, False)
        if not more:
            self._round = None
        soon = more or self._hurried
        self._later(PAUSE_S if soon else self._proxy.times.sweep_s)

    def _later(self, delay_s: float) -> None:
        self._due = self._proxy.time() + delay_s
        self._timer = self._proxy.loop.call_later(delay_s, self._turn)

    def _slices(self) -> Iterator[bool]:
        """Go once over all connections; give True after each slice but the last."""
        proxy, admission = self._proxy, self._proxy.admission
        scarce = admission.scarce
        connections = list(proxy.downstreams)
        for start in range(0, len(connections), LOOKED_AT):
            if start:
                yield True
            looked_at = connections[start : start + LOOKED_AT]
            now = proxy.time()
            passed = [d for d in looked_at if 0.0 < d.deadline < now or 0.0 < d.review < now]
            if scarce:
                fresh = now + proxy.times.idle_s - proxy.times.fresh_s
                for downstream in looked_at:
                    if downstream.idle and downstream.deadline <= fresh:
                        admission.found_idle(downstream)
            yield from self._act(passed)
        yield from self._waiting_tunnels()
        yield from self._idle_tunnels()
        yield from self._tunnel_bytes()
        yield from self._prefaces()
        admission.all_seen()

    def _act(self, passed: "list[Downstream]") -> Iterator[bool]:
        """Act on connections whose deadline has passed; one that has moved on meanwhile is left alone."""
        proxy = self._proxy
        for number, downstream in enumerate(passed):
            if number and not number % ACTED_ON:
                yield True
            if downstream not in proxy.downstreams:
                continue
            if 0.0 < downstream.deadline < proxy.time():
                downstream.deadline_passed()
            elif 0.0 < downstream.review < proxy.time():
                downstream.review_rate()

    def _waiting_tunnels(self) -> Iterator[bool]:
        """Look at the tunnels that wait for a leg to take what there is."""
        proxy = self._proxy
        watched = list(proxy.watched_tunnels)
        for start in range(0, len(watched), LOOKED_AT):
            if start:
                yield True
            now, acted = proxy.time(), 0
            for tunnel in watched[start : start + LOOKED_AT]:
                if tunnel not in proxy.watched_tunnels:
                    continue
                deadline, unwritten = proxy.watched_tunnels[tunnel]  # by now: it may have stalled anew
                if tunnel.at_rest:
                    del proxy.watched_tunnels[tunnel]
                elif deadline < now:
                    proxy.tunnel_deadline_passed(tunnel, unwritten)
                    acted += 1
                    if not acted % ACTED_ON:
                        yield True

    def _idle_tunnels(self) -> Iterator[bool]:
        """Look at the tunnels that could have been idle for too long."""
        proxy = self._proxy
        checks = list(proxy.tunnel_idle_checks.items())
        for start in range(0, len(checks), LOOKED_AT):
            if start:
                yield True
            now, acted = proxy.time(), 0
            for tunnel, due in checks[start : start + LOOKED_AT]:
                if due < now and tunnel in proxy.tunnel_idle_checks:
                    proxy.tunnel_idle_check(tunnel)
                    acted += 1
                    if not acted % ACTED_ON:
                        yield True

    def _tunnel_bytes(self) -> Iterator[bool]:
        """Add up what tunnels have carried: their legs count for themselves."""
        proxy = self._proxy
        received, sent = proxy.ended_tunnels_bytes
        tunnels = list(proxy.tunnels)  # one that ends meanwhile goes on knowing what it has carried
        for start in range(0, len(tunnels), LOOKED_AT):
            if start:
                yield True
            for tunnel in tunnels[start : start + LOOKED_AT]:
                more = tunnel.moved_bytes
                received += more[0]
                sent += more[1]
        counters = proxy.counters  # which never go back, though a newer count may have overtaken this one
        counters.tunnel_received_bytes = max(counters.tunnel_received_bytes, received)
        counters.tunnel_sent_bytes = max(counters.tunnel_sent_bytes, sent)

    def count_tunnel_bytes(self) -> None:
        """Add up at once what tunnels have carried, for somebody who asks."""
        for _ in self._tunnel_bytes():
            pass

    def _prefaces(self) -> Iterator[bool]:
        """Look at the connections that have not said yet whose they are."""
        now = self._proxy.time()
        late = [preface for preface in self._proxy.admission.prefaces if preface.deadline < now]
        for number, preface in enumerate(late):
            if number and not number % ACTED_ON:
                yield True
            if preface in self._proxy.admission.prefaces:  # else its header has come meanwhile, or its end
                preface.timed_out()
