"""All data planes of one proxy as one: tells each what is told, and adds up what each reports.

Law: nobody who speaks to it knows whether there is one data plane in this process or several in others.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence

from stickyproxy.core.backends import Backend
from stickyproxy.core.events import Happening, Kind, phase_changes
from stickyproxy.core.news import News
from stickyproxy.core.plane import Plane, Report, remaining, total
from stickyproxy.core.settings import SidecarSettings
from stickyproxy.core.sidecar import AppLife, judge_signs
from stickyproxy.core.status import BackendStatus, DiscoveryStatus, Remaining, Status
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.fleet.journal import Journal

GONE_S = 600.0
"""Seconds for which a backend that is listed no more is still told of: who looks wants to see what has just gone."""

MOST_GONE = 200

_NO_DISCOVERY = DiscoveryStatus("", "")


class Fleet:
    """The data planes, at least one; `sidecar`: where the app in the same pod is, if there is one."""

    def __init__(
        self,
        planes: Sequence[Plane],
        sidecar: SidecarSettings | None,
        log: logging.Logger,
        journal: Journal | None = None,
    ) -> None:
        self.journal = journal if journal is not None else Journal()
        self._planes = planes
        self._sidecar = sidecar
        self._log = log
        self._listed: dict[str, Backend] | None = None
        self._ordered: set[str] = set()
        self._gone: dict[str, tuple[Backend, float]] = {}
        self._was_alive = True
        self.stalls = 0  # of the event loop of this process

    # What is told.

    def apply(self, backends: Sequence[Backend]) -> None:
        """Put a whole new set of backends in force everywhere."""
        self._note(backends)
        self._listed = {b.identity: b for b in backends}
        self._ordered &= self._listed.keys()
        for plane in self._planes:
            plane.apply(backends)

    def _note(self, backends: Sequence[Backend]) -> None:
        """Note what a new set of backends changes, and who is gone by it."""
        if self._listed is None:
            names = ", ".join(map(str, backends[:5])) + (", ..." if len(backends) > 5 else "")
            what = f"{len(backends)} {'backend is' if len(backends) == 1 else 'backends are'} listed: {names or 'none'}"
            self.journal.note([Happening(Kind.PHASE, cause="listed", detail=what)])
            return
        self.journal.note(phase_changes(self._listed.values(), backends))
        now, listed = time.time(), {b.identity for b in backends}
        for identity, backend in self._listed.items():
            if identity not in listed:
                self._gone[identity] = (backend, now)
        for identity in listed & self._gone.keys():
            del self._gone[identity]
        while len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def gone(self) -> list[tuple[Backend, float]]:
        """Give the backends that were listed until some minutes ago, and when (unix seconds) each ceased to be."""
        oldest = time.time() - GONE_S
        self._gone = {i: (b, at) for i, (b, at) in self._gone.items() if at >= oldest}
        return list(self._gone.values())

    def secure(self, material: TlsMaterial) -> None:
        """Speak TLS with these certificates everywhere, on connections that begin from now on."""
        for plane in self._planes:
            plane.secure(material)

    def drain(self, identity: str) -> None:
        """Send no new sessions and no new documents to a backend."""
        if identity not in self._ordered:
            self._ordered.add(identity)
            self.journal.note([Happening(Kind.DRAIN, self._name(identity))])
        for plane in self._planes:
            plane.order(identity, drain=True)

    def undrain(self, identity: str) -> None:
        """Take a drain back."""
        if identity in self._ordered:
            self._ordered.discard(identity)
            self.journal.note([Happening(Kind.UNDRAIN, self._name(identity))])
        for plane in self._planes:
            plane.order(identity, drain=False)

    def _name(self, identity: str) -> str:
        backend = (self._listed or {}).get(identity)
        return str(backend) if backend is not None else identity

    def hear(self, news: News) -> None:
        """Take in what a predecessor knows."""
        for plane in self._planes:
            plane.hear(news)

    # What is asked.

    async def _reports(self, *, thorough: bool = False) -> list[Report]:
        return await asyncio.gather(*(plane.report(thorough=thorough) for plane in self._planes))

    async def known(self) -> News:
        """Give all pages and files, for a successor."""
        known = News()
        for plane in self._planes:
            news = await plane.known()
            known.pages.update(news.pages)
            known.files.update(news.files)
        return known

    async def status(self, discovery: DiscoveryStatus, *, thorough: bool = False) -> Status:
        """Report the state of this moment; a thorough one counts the open pages of each backend."""
        status = total(await self._reports(thorough=thorough), discovery)
        status.counters.stalls += self.stalls
        return status

    async def find(self, text: str) -> list[BackendStatus]:
        """Give the backends that a name, an identity, a host or HOST:PORT means; several, where a host has several."""
        known = []
        for backend in (await self.status(_NO_DISCOVERY)).backends:
            # A sidecar reaches its own pod at another address than discovery lists, and is asked by the listed one.
            places = {backend.address}
            if (listed := (self._listed or {}).get(backend.identity)) is not None:
                places.add(str(listed.address))
            known.append((backend, places))
        exact = [b for b, places in known if text in (b.identity, b.name, *places)]
        host = text.strip("[]")
        return exact or [b for b, places in known if host in {p.rpartition(":")[0].strip("[]") for p in places}]

    async def open_pages(self) -> Counter[str]:
        """Count the open pages of all backends, by identity."""
        return sum((r.pages for r in await self._reports(thorough=True)), Counter[str]())

    async def remaining(self, identity: str) -> Remaining:
        """Count what a backend still has open."""
        return remaining(await self._reports(thorough=True), identity)

    async def wait(self, identity: str, wait_s: float, idle_s: float | None = None) -> Remaining:
        """Wait until a backend has nothing open anywhere, for so long at the most; give what is left.

        A page may come to one data plane after that has said that it has none: then all are asked again.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            left_s = max(0.0, end - loop.time())
            await asyncio.gather(*(plane.wait(identity, left_s, idle_s) for plane in self._planes))
            left = await self.remaining(identity)
            if left.empty or loop.time() >= end:
                return left
            await asyncio.sleep(min(0.05, left_s))  # who is being replaced answers at once

    async def app_life(self) -> AppLife:
        """Judge the app in the same pod for its container's liveness probe, and log what changes."""
        assert self._sidecar is not None, "asked only where there is one"
        signs = [r.signs for r in await self._reports() if r.signs is not None]
        life = judge_signs(self._sidecar.local, signs, self._sidecar.stuck_after_s)
        if life.alive != self._was_alive:
            self._was_alive = life.alive
            (self._log.info if life.alive else self._log.warning)("/app/livez: %s", life.text)
        return life

    # The end.

    async def leave(self, delay_s: float, timeout_s: float) -> None:
        """Serve on for a while, unready; then drain. Each closes its own tunnels, evenly spread over the same time."""
        await asyncio.gather(*(plane.leave(delay_s, timeout_s) for plane in self._planes))

    async def close(self) -> None:
        """Drop every connection."""
        await asyncio.gather(*(plane.close() for plane in self._planes))
