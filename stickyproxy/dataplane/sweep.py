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

    def __init__(self, proxy: "Proxy", between_rounds: Callable[[float], None]) -> None:
        self._proxy = proxy
        self._between_rounds = between_rounds
        self._timer: asyncio.TimerHandle | None = None
        self._round: Iterator[bool] | None = None
        self._hurried = False

    def start(self) -> None:
        """Begin the first round after a while; idempotent."""
        if self._timer is None:
            self._timer = self._proxy.loop.call_later(self._proxy.times.sweep_s, self._turn)

    def hurry(self) -> None:
        """Begin a round with the next turn, or as soon as the one under way has ended."""
        self._hurried = True
        if self._timer is not None and self._round is None:
            self._timer.cancel()
            self._timer = self._proxy.loop.call_later(0, self._turn)

    def stop(self) -> None:
        """Look no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        if self._round is None:
            self._hurried = False
            self._between_rounds(self._proxy.time())
            self._round = self._slices()
        more = next(self._round, False)
        if not more:
            self._round = None
        soon = more or self._hurried
        self._timer = self._proxy.loop.call_later(PAUSE_S if soon else self._proxy.times.sweep_s, self._turn)

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
            passed = [d for d in looked_at if 0.0 < d.deadline < now]
            if scarce:
                fresh = now + proxy.times.idle_s - proxy.times.fresh_s
                for downstream in looked_at:
                    if downstream.idle and downstream.deadline <= fresh:
                        admission.found_idle(downstream)
            yield from self._act(passed)
        yield from self._tunnels()
        admission.all_seen()

    def _act(self, passed: "list[Downstream]") -> Iterator[bool]:
        """Act on connections whose deadline has passed; one that has moved on meanwhile is left alone."""
        proxy = self._proxy
        for number, downstream in enumerate(passed):
            if number and not number % ACTED_ON:
                yield True
            if 0.0 < downstream.deadline < proxy.time() and downstream in proxy.downstreams:
                downstream.deadline_passed()

    def _tunnels(self) -> Iterator[bool]:
        """Look at the tunnels that wait for a leg to take what there is."""
        proxy = self._proxy
        watched = list(proxy.watched_tunnels.items())
        for start in range(0, len(watched), LOOKED_AT):
            if start:
                yield True
            now, acted = proxy.time(), 0
            for tunnel, (deadline, unwritten) in watched[start : start + LOOKED_AT]:
                if tunnel not in proxy.watched_tunnels:
                    continue
                if tunnel.at_rest:
                    del proxy.watched_tunnels[tunnel]
                elif deadline < now:
                    proxy.tunnel_deadline_passed(tunnel, unwritten)
                    acted += 1
                    if not acted % ACTED_ON:
                        yield True
