"""The workers of one proxy: which of them accepts where, what one must be told of the others, and who hangs.

Laws: the supervisor keeps every listening socket open, so that connections in the queue of a worker that dies wait for
the next who accepts there; whose worker is not there, another accepts on its socket; what a worker has learned
outlives it here.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence

from stickyproxy.core.files import Files
from stickyproxy.core.news import News
from stickyproxy.core.pages import Pages
from stickyproxy.core.settings import ServiceSettings, share_of
from stickyproxy.core.workers import BEAT_S, COVER_S, SILENT_S
from stickyproxy.fleet.journal import Journal
from stickyproxy.fleet.slot import Shared, Slot


class Supervisor:
    """The places of all workers (`slots`), which are the data planes of a fleet."""

    def __init__(
        self,
        settings: ServiceSettings,
        listeners: Sequence[socket.socket],
        log: logging.Logger,
        journal: Journal | None = None,
        *,
        silent_s: float = SILENT_S,
        cover_s: float = COVER_S,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners = list(listeners)
        self._silent_s = silent_s
        self._cover_s = cover_s
        affinity = settings.data_plane.affinity
        self._pages = Pages(affinity.page_limit, affinity.page_ttl_s)
        self._files = Files(affinity.file_limit)
        self._tunnels: dict[Slot, dict[str, int]] = {}
        self._numbers = tuple(listener.fileno() for listener in listeners)
        self.shared = Shared(
            share_of(settings.data_plane, settings.workers), settings.log_level, settings.log_format, self._listeners,
            self._changed, self._told, (journal or Journal()).gather, self._everything,
        )  # fmt: skip
        self.slots = [Slot(index, self.shared, log) for index in range(settings.workers)]
        self._serving = asyncio.Event()
        self._checked = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start all workers; return when each has served once, or has failed to."""
        self._assign()
        for slot in self.slots:
            slot.start()
        self._check()
        await self._serving.wait()

    # Who accepts where.

    def _changed(self, slot: Slot) -> None:
        if not slot.serving and slot in self._tunnels:  # its tunnels ended with it
            carried = self._tunnels.pop(slot)
            slot.tunnels_died(sum(carried.values()))
            gone = dict.fromkeys(carried, 0)
            self._spread(slot, News(tunnels=gone))
        self._assign()
        if all(s.serving or s.restarts for s in self.slots):
            self._serving.set()

    def _assign(self) -> None:
        """Give each socket to the worker of its number, and to another beside it while that does not speak."""
        count = len(self.slots)
        heard = [s for s in self.slots if s.serving and s.silence_s() < self._cover_s]
        numbers: dict[Slot, list[int]] = {slot: [] for slot in self.slots}
        if len(self._numbers) < count:  # all accept on the same ones
            numbers = {slot: list(self._numbers) for slot in self.slots}
        for index, number in enumerate(self._numbers if len(self._numbers) >= count else ()):
            owner = self.slots[index % count]
            numbers[owner].append(number)
            if heard and owner not in heard:
                numbers[heard[index % len(heard)]].append(number)
        for slot, accepts in numbers.items():
            slot.accept_on(tuple(accepts))

    def _check(self) -> None:
        """Look who has not spoken; where the whole machine stood still, nobody could."""
        now = self._loop.time()
        late = now - self._checked > 2 * BEAT_S
        self._checked = now
        for slot in self.slots:
            if late:
                slot.spare()
            slot.judge(self._silent_s)
        self._assign()
        self._pages.expire(now)
        self._timer = self._loop.call_later(self.shared.beat_s, self._check)

    # What they learn.

    def _told(self, slot: Slot, news: News) -> None:
        """Keep what one has learned, and tell the others."""
        now = self._loop.time()
        moved = {}
        for page, told in news.pages.items():
            before = self._pages.find(page)
            if before is not None and before.identity != told.identity:
                moved[page] = told
            self._pages.hear(page, told, now)
        self._files.hear(news.files)
        if news.tunnels:
            carried = self._tunnels.get(slot, {}) | news.tunnels
            self._tunnels[slot] = {identity: count for identity, count in carried.items() if count}
        self._spread(slot, news)
        if moved:  # two may have moved a page at once: all get to know it in one order
            slot.hear(News(pages=moved))

    def _spread(self, teller: Slot, news: News) -> None:
        for slot in self.slots:
            if slot is not teller:
                others = self._others(slot, news.tunnels)
                slot.hear(News(news.pages, news.files, news.refused, news.arrivals, others, news.left, news.came))

    def _others(self, slot: Slot, identities: object) -> dict[str, int]:
        """Add up what all others carry of these backends."""
        assert isinstance(identities, dict)
        others = [tunnels for other, tunnels in self._tunnels.items() if other is not slot]
        return {identity: sum(tunnels.get(identity, 0) for tunnels in others) for identity in identities}

    def _everything(self, slot: Slot) -> News:
        """Give what a new worker must know."""
        tunnels = {identity: 0 for carried in self._tunnels.values() for identity in carried}
        return News(self._pages.known(), dict(self._files.items()), tunnels=self._others(slot, tunnels))

    def hear(self, news: News) -> None:
        """Keep what somebody else knows; the workers are told by whoever calls."""
        now = self._loop.time()
        for page, told in news.pages.items():
            self._pages.hear(page, told, now)
        self._files.hear(news.files)

    def known(self) -> News:
        """Give all pages and files that are known to any."""
        return self._everything(self.slots[0])

    # The end.

    def stop_accepting(self) -> None:
        """Close the listening sockets here, so that who comes is refused and not kept waiting."""
        for listener in self._listeners:
            listener.close()

    def close(self) -> None:
        """Look no more after the workers, which have ended."""
        self.stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
