"""The end of one data plane, by the stages of `core/ending.py`: unready first, then draining, then closed.

Laws: whoever has just connected is still answered; exchanges end by themselves, tunnels one after another; what is left
when the time is over is dropped, and nothing is closed before all of it is gone.
"""

import asyncio
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from stickyproxy.core.ending import TABLE, Event
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.dispersal import Dispersal
from stickyproxy.dataplane.tunnel import Tunnel

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy

FIRST_REQUEST_S = 0.05
"""Seconds between the end of accepting and the close of idle connections: who has just connected is about to ask."""


class Ending:
    """The way of one data plane to its end."""

    def __init__(self, proxy: "Proxy", random: Random) -> None:
        self._proxy = proxy
        self._dispersal = Dispersal(proxy.loop, random, partial(Tunnel.part, end=End.SHUTDOWN))
        self._emptied = asyncio.Event()
        self._emptied.set()

    # What the data plane tells.

    def someone_is_there(self) -> None:
        """Hear that a client has a place."""
        self._emptied.clear()

    def nobody_is_there(self) -> None:
        """Hear that the last place has been left."""
        self._emptied.set()

    def tunnel_made(self, tunnel: Tunnel) -> None:
        """Close a new tunnel with the others, if they are to be closed."""
        if self._proxy.draining:
            self._dispersal.watch((tunnel,))

    # The stages.

    def _advance(self, event: Event) -> bool:
        """Go on to the stage that follows by `core/ending.py`; say whether there is one."""
        before = self._proxy.stage
        following, _ = TABLE.get((before, event), (before, None))
        self._proxy.enter_stage(following)
        return following is not before

    def announce(self) -> None:
        """Be unready from now on, and begin to watch the tunnels that will be closed."""
        if self._advance(Event.LEAVE):
            self._unpark()
            self._dispersal.watch(self._proxy.tunnels)

    def _unpark(self) -> None:
        """Let parked pages go while their browsers can still come back by another proxy."""
        if self._proxy.parking is not None:
            self._proxy.parking.leave()

    async def leave(self, delay_s: float, timeout_s: float) -> None:
        """Serve on for a while, unready, until load balancers send nobody here any more; then drain."""
        self.announce()
        await asyncio.sleep(delay_s)
        await self.drain(timeout_s)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let exchanges finish, close tunnels spread over the time, drop the rest at its end."""
        proxy = self._proxy
        self._advance(Event.DRAIN)
        self._unpark()
        proxy.stop_accepting()
        await asyncio.sleep(min(FIRST_REQUEST_S, timeout_s / 10))
        for downstream in list(proxy.downstreams):
            downstream.close_if_idle()
        proxy.admission.hasten(proxy.time() + proxy.times.linger_s)
        self._dispersal.watch(proxy.tunnels)
        self._dispersal.start(timeout_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()
        await self.close()

    async def close(self) -> None:
        """Drop every connection and wait until all are gone."""
        proxy = self._proxy
        self._advance(Event.CLOSE)
        self._dispersal.stop()
        proxy.stop_accepting()
        proxy.sweep.stop()
        await proxy.admission.close()
        for downstream in list(proxy.downstreams):
            downstream.transport.abort()
        for tunnel in list(proxy.tunnels):
            tunnel.abort(End.SHUTDOWN)
        for pool in proxy.pools.values():
            pool.close()
        await self._emptied.wait()
        proxy.tell_happenings()
        if proxy.access_log is not None:
            await proxy.loop.run_in_executor(None, proxy.access_log.close)
