"""A data plane that is one of several: tells the others what it learns, and counts what they carry.

Laws: what is told is gathered for some milliseconds, so that a burst of pages is one message; nothing here is on the
path of a request that teaches nothing. Each data plane judges by itself which backends fail, as every replica does.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from random import Random

from stickyproxy.core.absences import Absence
from stickyproxy.core.files import LONGEST_PATH, Files
from stickyproxy.core.news import News
from stickyproxy.core.pages import Page, Pages
from stickyproxy.core.reloads import ReloadGuard
from stickyproxy.core.settings import Settings
from stickyproxy.dataplane.acceptor import Acceptor
from stickyproxy.dataplane.proxy import Proxy
from stickyproxy.dataplane.tunnel import Tunnel

GATHER_S = 0.01
"""How long news waits for more; what one worker learns, all others shall know within 50 ms."""


class Teller:
    """Gathers news and tells it; `complete` adds what is counted only then."""

    def __init__(self, tell: Callable[[News], None], complete: Callable[[News], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._complete = complete
        self._news: News | None = None

    def news(self) -> News:
        """Give the news that will be told soon, to add to."""
        if self._news is None:
            self._news = News()
            self._loop.call_later(GATHER_S, self._flush)
        return self._news

    def _flush(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            self._complete(news)
            if news:
                self._tell(news)


class SharedPages(Pages):
    """Pages of which others are told when they are new, when they move, and now and then while they live."""

    def __init__(self, limit: int, ttl_s: float, teller: Teller) -> None:
        super().__init__(limit, ttl_s)
        self._teller = teller
        self._again_s = ttl_s / 2

    def learn(self, page: bytes, identity: str, now: float, visitor: Hashable = None, version: bytes = b"") -> Page:
        """Remember that a backend built a page or accepted its socket; tell it where that is news."""
        before = self.find(page)
        news = before is None or before.identity != identity
        found = super().learn(page, identity, now, visitor, version)
        if news or found.told is None or now - found.told >= self._again_s:
            self._told(page, found, now)
        return found

    def opened(self, page: bytes, identity: str, now: float) -> None:
        """Count a socket that a backend accepted; tell of a page's first."""
        before = self.find(page)
        first = before is None or not before.worked
        super().opened(page, identity, now)
        if first and (found := self.find(page)) is not None:
            self._told(page, found, now)

    def move(self, page: bytes, identity: str) -> None:
        """Let a page leave its backend, and tell it: its next socket may open anywhere."""
        super().move(page, identity)
        if (found := self.find(page)) is not None and not found.identity:
            self._told(page, found, found.seen)

    def expire(self, now: float) -> None:
        """Forget pages that have had no socket for too long, and tell of those that live on."""
        super().expire(now)
        for page, found in self.items():
            if found.seen < now - self._again_s:
                if found.sockets and (found.told is None or now - found.told >= self._again_s):
                    self._told(page, found, now)
            else:
                break

    def counts(self, seen_after: float) -> Counter[str]:
        """Count, by identity, the open pages that are this worker's to count."""
        mine = (p for _, p in self.items() if p.told is not None)
        return Counter(p.identity for p in mine if p.sockets or p.seen > seen_after)

    def _told(self, page: bytes, found: Page, now: float) -> None:
        found.told = now
        self._teller.news().pages[page] = found.news


class SharedFiles(Files):
    """Files of which others are told."""

    def __init__(self, limit: int, teller: Teller) -> None:
        super().__init__(limit)
        self._teller = teller

    def learn(self, paths: Iterable[bytes], identity: str) -> None:
        """Remember the files that a page shows; tell of those that are news."""
        paths = list(paths)
        for path in paths:
            if len(path) <= LONGEST_PATH and self.find(path) != identity:
                self._teller.news().files[path] = identity
        super().learn(paths, identity)

    def hear(self, paths: Mapping[bytes, str]) -> None:
        """Remember what others know, without telling it again."""
        for path, identity in paths.items():
            super().learn((path,), identity)


class SharedReloads(ReloadGuard):
    """Refusals that count wherever they happened."""

    def __init__(self, limit: int, teller: Teller) -> None:
        super().__init__(limit)
        self._teller = teller

    def refused(self, key: Hashable, now: float) -> None:
        """Hear that a page's socket was refused here."""
        super().refused(key, now)
        self._teller.news().refused.append(key)

    def hear(self, keys: Iterable[Hashable], now: float) -> None:
        """Count refusals of elsewhere."""
        for key in keys:
            super().refused(key, now)


class SharedProxy(Proxy):
    """A data plane whose listening sockets and backends are shared; `tell` takes what it has learned."""

    pages: SharedPages
    files: SharedFiles
    reloads: SharedReloads

    def __init__(self, settings: Settings, random: Random, tell: Callable[[News], None]) -> None:
        super().__init__(settings, random)
        self._teller = Teller(tell, self._count_tunnels)
        affinity = settings.affinity
        self.pages = SharedPages(affinity.page_limit, affinity.page_ttl_s, self._teller)
        self.files = SharedFiles(affinity.file_limit, self._teller)
        self.reloads = SharedReloads(settings.help.reload_limit, self._teller)
        self.balancer.on_arrival = self._arrived
        self._told_tunnels: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._accepting: dict[int, Acceptor] = {}
        self._stopped = False

    def hear(self, news: News) -> None:
        """Take in what the others tell."""
        super().hear(news)
        now = self.time()
        self.reloads.hear(news.refused, now)
        for identity, count in news.arrivals.items():
            if (load := self.balancer.loads.get(identity)) is not None:
                for _ in range(count):
                    load.arrive(now)
        for page, absence in news.left.items():
            found = self.pages.find(page)
            if found is not None and found.sockets:  # it has opened another one here before
                self._teller.news().came.append(page)
            else:
                self.absences.left(page, absence._replace(ours=False))
        for page in news.came:
            self.absences.forget(page)
        self._elsewhere.update(news.tunnels)
        self._weigh(news.tunnels)

    def reapply(self) -> None:
        """Put the listed backends in force again; loads that are new here may be none elsewhere."""
        super().reapply()
        self._elsewhere = {i: count for i, count in self._elsewhere.items() if i in self.balancer.loads}
        self._weigh(self._elsewhere)

    def _weigh(self, tunnels: Mapping[str, int]) -> None:
        for identity, count in tunnels.items():
            if (load := self.balancer.loads.get(identity)) is not None:
                load.elsewhere = count

    def _arrived(self, identity: str) -> None:
        self._teller.news().arrivals[identity] += 1

    def page_left(self, page: bytes, absence: Absence) -> None:
        """Hear that the last socket of a page here has ended, and tell: it may come back to another worker."""
        super().page_left(page, absence)
        self._teller.news().left[page] = absence

    def page_came(self, page: bytes, identity: str) -> bool:
        """Hear that a backend answered a request of a page; tell where the page had been away."""
        back = super().page_came(page, identity)
        if back:
            self._teller.news().came.append(page)
        return back

    def tunnel_made(self, tunnel: Tunnel) -> None:
        """Take a tunnel into the books, and tell that a backend carries one more."""
        super().tunnel_made(tunnel)
        self._teller.news()

    def tunnel_closing(self, tunnel: Tunnel) -> None:
        """Tell that a backend carries one less."""
        super().tunnel_closing(tunnel)
        self._teller.news()

    def _count_tunnels(self, news: News) -> None:
        """Add the backends whose number of tunnels here has changed."""
        now = {identity: load.tunnels for identity, load in self.balancer.loads.items() if load.tunnels}
        for identity in now.keys() | self._told_tunnels.keys():
            count = now.get(identity, 0)
            if count != self._told_tunnels.get(identity, 0):
                news.tunnels[identity] = count
        self._told_tunnels = now

    # Listening.

    def accept_on(self, listeners: Iterable[socket.socket]) -> None:
        """Accept on these sockets and on no others; what waits on the others stays for whoever accepts there."""
        wanted = {listener.fileno(): listener for listener in listeners}
        for number in self._accepting.keys() - wanted.keys():
            self.admission.stop(self._accepting.pop(number))
        for number in wanted.keys() - self._accepting.keys():
            if not self._stopped:
                self._accepting[number] = self.listen(wanted[number].dup())

    def stop_accepting(self) -> None:
        """Close the listeners for good; idempotent."""
        self._stopped = True
        self._accepting.clear()
        super().stop_accepting()
