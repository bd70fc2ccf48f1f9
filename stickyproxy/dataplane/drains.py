"""Drain single backends by order: no new sessions there, and word of when the last page is gone.

Laws: an order outlives snapshots as long as the backend is listed; whoever waits is woken by events (a tunnel's end,
the sweep), and always by the end of its time.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.status import Remaining
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.dispersal import Dispersal
from stickyproxy.dataplane.reporting import exchanges_with

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy
    from stickyproxy.dataplane.tunnel import Tunnel

LOADING_S = 5.0
"""How long a page without a socket counts as open: it is loading, or reconnecting within NiceGUI's 3 s."""


class Drains:
    """The drains of one proxy's backends, by identity."""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._ordered: set[str] = set()
        self._waiting: set[asyncio.Event] = set()
        self._emptied: set[str] = set()
        self._movers: dict[Dispersal, str] = {}  # those that move pages now, by the identity of the backend

    def overlay(self, backends: Iterable[Backend]) -> list[Backend]:
        """Give the listed backends with the phase of those that were ordered to drain; forget who is listed no more."""
        listed = list(backends)
        self._ordered &= {b.identity for b in listed}
        self._emptied &= self._ordered
        return [replace(b, phase=Phase.DRAINING) if b.identity in self._ordered else b for b in listed]

    def ordered(self, identity: str) -> bool:
        """Say whether a backend was ordered to drain."""
        return identity in self._ordered

    def emptied(self, identity: str) -> bool:
        """Say whether the pages of a backend are told to go elsewhere.

        Every proxy empties it at the same time, so a page that reconnects may come from another proxy that has just
        sent it away: its socket must not open on that backend again, only to be closed a second time.
        """
        return identity in self._emptied

    def drain(self, identity: str) -> None:
        """Send no new sessions and no new documents to a backend."""
        if identity not in self._ordered:
            self._ordered.add(identity)
            self._proxy.reapply()

    def undrain(self, identity: str) -> None:
        """Take a drain back; what discovery says of the backend counts again."""
        if identity in self._ordered:
            self._ordered.remove(identity)
            self._emptied.discard(identity)
            self._proxy.reapply()

    def open_pages(self) -> Counter[str]:
        """Count the open pages of all backends, by identity; walks over all pages, for those who ask."""
        return self._proxy.pages.counts(self._proxy.time() - LOADING_S)

    def remaining(self, identity: str) -> Remaining:
        """Count what a backend still has open here."""
        proxy = self._proxy
        load = proxy.balancer.loads.get(identity)
        return Remaining(
            pages=self.open_pages()[identity],
            tunnels=load.tunnels if load is not None else 0,
            exchanges=exchanges_with(proxy, identity),
        )

    def _busy(self, identity: str) -> bool:
        """Say whether a backend has anything open here; what costs least is looked at first, as every end asks."""
        load = self._proxy.balancer.loads.get(identity)
        if load is not None and load.tunnels:
            return True
        return not self.remaining(identity).empty

    async def wait(self, identity: str, wait_s: float, idle_s: float | None = None) -> Remaining:
        """Wait until a backend has nothing open here, for so long at the most; give what is left.

        idle_s: pages are told to reconnect elsewhere, one after another: first those whose users have done nothing for
        so long, at the end all. None: pages are left alone, as they are while no other backend is ready, and
        sockets that belong to no page, whose reconnect would come back.
        """
        proxy = self._proxy
        changed = asyncio.Event()
        self._waiting.add(changed)
        dispersal = None
        try:
            if idle_s is not None:
                dispersal = Dispersal(proxy.loop, proxy.random, partial(self._move, identity), idle_s=idle_s)
                self._movers[dispersal] = identity
                if proxy.parking is not None:
                    proxy.parking.leave(identity)
                for tunnel in list(proxy.tunnels):
                    self.opened(tunnel)
                dispersal.start(wait_s)
                self._emptied.add(identity)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while self._busy(identity):
                        await changed.wait()
                        changed.clear()
            return self.remaining(identity)
        finally:
            self._waiting.discard(changed)
            if dispersal is not None:
                del self._movers[dispersal]
                dispersal.stop()

    def opened(self, tunnel: "Tunnel") -> None:
        """Let a page that comes back while the others of its backend are moved be moved with them."""
        for dispersal, identity in self._movers.items():
            if tunnel.page and tunnel.load is self._proxy.balancer.loads.get(identity):
                dispersal.watch((tunnel,))

    def _move(self, identity: str, tunnel: "Tunnel") -> None:
        """Close a page's tunnel such that its reconnect goes to another backend, which makes the page reload."""
        proxy = self._proxy
        # By hash, a page comes back whatever the phase; closing its tunnel would only disturb.
        if proxy.snapshot.ready and not proxy.hashing:
            proxy.pages.move(tunnel.page, identity)
            tunnel.part(End.DRAIN)

    def wake(self) -> None:
        """Let those who wait look again."""
        for changed in self._waiting:
            changed.set()
