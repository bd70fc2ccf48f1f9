"""The pages this proxy has seen a backend build or accept: which backend each of them lives on.

Laws: bounded in number and time; a page with an open socket is not forgotten by time; past the bound the page that was
used longest ago goes first. Times are seconds of any one monotonic clock.
"""

from collections import Counter
from collections.abc import Hashable, Iterator

from stickyproxy.core.news import PageNews


class Page:
    """One page: the identity of its backend, who loaded it from where (`visitor`, if known), its open sockets.

    `version` is that of the NiceGUI that built it; empty where only its sockets have been seen. `built`: when it was
    first seen. `worked`: a backend has accepted a socket of it here. `told`: when the other workers were last told of
    it; None where it is theirs.
    """

    __slots__ = ("built", "identity", "seen", "sockets", "told", "version", "visitor", "worked")

    def __init__(self, identity: str, seen: float, visitor: Hashable, version: bytes) -> None:
        self.identity = identity
        self.built = self.seen = seen
        self.worked = False
        self.visitor = visitor
        self.version = version
        self.sockets = 0
        self.told: float | None = None

    @property
    def news(self) -> PageNews:
        """Give what another data plane is told of it."""
        return PageNews(self.identity, self.visitor, self.version, self.worked)


class Pages:
    """A table from client ids to pages.

    limit: most pages. ttl_s: how long a page without a socket is remembered.
    """

    __slots__ = ("_limit", "_pages", "_ttl_s")

    def __init__(self, limit: int, ttl_s: float) -> None:
        self._limit = limit
        self._ttl_s = ttl_s
        self._pages: dict[bytes, Page] = {}  # in order of last use

    def __len__(self) -> int:
        """Count the pages."""
        return len(self._pages)

    def find(self, page: bytes) -> Page | None:
        """Give a page; None where it is not known."""
        return self._pages.get(page)

    def hear(self, page: bytes, news: PageNews, now: float) -> None:
        """Remember what another data plane knows of a page; an empty identity says that it shall leave.

        It may be told again after half of the time to live only, so it is kept for half as long again. An open socket
        here goes on being counted here.
        """
        found = self._pages.pop(page, None)
        if found is None:
            if not news.identity:
                return
            while len(self._pages) >= self._limit:
                del self._pages[next(iter(self._pages))]
            found = Page(news.identity, now, news.visitor, news.version)
        found.identity = news.identity
        found.version = news.version or found.version
        found.visitor = news.visitor or found.visitor
        found.worked |= news.worked
        found.seen = now + self._ttl_s / 2
        found.told = now if found.sockets else None
        self._pages[page] = found

    def items(self) -> Iterator[tuple[bytes, Page]]:
        """Give all pages, in order of last use."""
        yield from self._pages.items()

    def known(self) -> dict[bytes, PageNews]:
        """Give what another data plane would be told of all pages, in order of last use."""
        return {page: found.news for page, found in self._pages.items()}

    def learn(self, page: bytes, identity: str, now: float, visitor: Hashable = None, version: bytes = b"") -> Page:
        """Remember that a backend built a page or accepted its socket."""
        found = self._pages.pop(page, None)
        if found is None:
            while len(self._pages) >= self._limit:
                del self._pages[next(iter(self._pages))]
            found = Page(identity, now, visitor, version)
        found.identity = identity
        found.seen = now
        self._pages[page] = found
        return found

    def opened(self, page: bytes, identity: str, now: float) -> None:
        """Count a socket that a backend accepted."""
        found = self.learn(page, identity, now)
        found.worked = True
        found.sockets += 1

    def closed(self, page: bytes, now: float) -> None:
        """Count the end of a socket; a page that was forgotten meanwhile stays forgotten."""
        found = self._pages.pop(page, None)
        if found is not None:
            found.sockets = max(0, found.sockets - 1)
            found.seen = now
            self._pages[page] = found

    def move(self, page: bytes, identity: str) -> None:
        """Let a page leave a backend, if it still lives there: its next socket opens on another, so that it reloads."""
        found = self._pages.get(page)
        if found is not None and found.identity == identity:
            found.identity = ""

    def counts(self, seen_after: float) -> Counter[str]:
        """Count, by identity, the pages that have an open socket or were seen after a moment."""
        return Counter(p.identity for p in self._pages.values() if p.sockets or p.seen > seen_after)

    def expire(self, now: float) -> None:
        """Forget pages that have had no socket for too long; called from time to time."""
        before = now - self._ttl_s
        old = []
        for page, found in self._pages.items():
            if found.seen >= before:
                break
            old.append(page)
        for page in old:
            found = self._pages.pop(page)
            if found.sockets:
                found.seen = now
                self._pages[page] = found
