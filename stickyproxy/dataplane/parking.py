"""The pages of one data plane that can be parked, and those that are: their browsers are away, and may come back.

Laws: what is kept is bounded for each page, in all, and in number; whoever has been away longest is let go first; who
is let go ends as without parking.
"""

import asyncio
from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING

from stickyproxy.core.backends import Phase
from stickyproxy.core.events import Happening, Kind
from stickyproxy.core.nicegui import asks_implicitly
from stickyproxy.core.parking import PATIENCE_S, Release, read_who
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.keeping import Keeping
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.reopenable import Reopenable
from stickyproxy.dataplane.reopening import Reopening
from stickyproxy.dataplane.tunnel import LINGER_S

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy

_SHARED_LIMIT = 256
"""Openings and lines of extensions that are remembered so that sockets share them: one for each setting among the apps,
and for each kind of browser."""

_LET_GO_AT_ONCE = 64

_REFUSED_POLLS = 3

_TOGETHER_S = 0.05
"""Heartbeats so close to each other are looked at together, which takes less memory."""

_TELL_EVERY_S = 60.0
"""Between two events of pages that were let go at a limit: where one is too low, that goes on and on."""


class Parking:
    """The parking of one proxy.

    `open`: pages are still parked, as they are until the proxy leaves. `away`: the parked, in order of their going.
    `kept_bytes`: memory for what browsers may not have received, those that are there included.
    """

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self.settings = proxy.settings.parking
        self.page_bytes, self.total_bytes = self.settings.page_bytes, self.settings.total_bytes
        self.time = proxy.time
        self.open = True
        self.kept_bytes = 0
        self.away: dict[Keeping, None] = {}
        self._pages: dict[bytes, ParkableTunnel] = {}
        self._tabs: dict[bytes, ParkableTunnel] = {}  # of those that are away
        self._refused_polls: dict[Keeping, int] = {}  # of those whose browsers try to come back by polling
        self._shared: dict[bytes, bytes] = {}
        self._expected: deque[tuple[float, list[ParkableTunnel]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._over_limit: Counter[Release] = Counter()  # let go at a limit, and not told yet
        self._tell_after = 0.0

    def share(self, line: bytes) -> bytes:
        """Give an equal value that others have too, where there is one."""
        if len(self._shared) < _SHARED_LIMIT:
            return self._shared.setdefault(line, line)
        return self._shared.get(line, line)

    # Sockets that open.

    def accepted(self, tunnel: ParkableTunnel) -> None:
        """Hear that a backend has accepted the page's socket."""
        if not tunnel.followed:
            return
        before = self._pages.get(tunnel.page)
        if before is not None:
            self.let_go(before, Release.RELOADED)
        self._pages[tunnel.page] = tunnel
        self.tab_shows(tunnel.who.tab, tunnel.page)

    def tab_shows(self, tab: bytes, page: bytes) -> None:
        """Let go of another page of a tab."""
        parked = self._tabs.get(tab) if tab else None
        if parked is not None and parked.page != page:
            self.let_go(parked, Release.RELOADED)

    def find(self, page: bytes, target: bytes, offer: bytes) -> ParkableTunnel | None:
        """Find what a socket that opens could come back to.

        target: the request's, offer: its line of extensions. A socket that opens while another of its document is
        thought to be there tells that this one is gone.
        """
        tunnel, who = self._pages.get(page), read_who(target)
        if tunnel is None or who is None or not tunnel.can_return:
            return None
        implicit = asks_implicitly(target)
        if (implicit or who.document) and who.document != tunnel.who.document:
            return None
        low, agreed = offer.lower(), tunnel.extensions.lower()
        needed = [word for word in (b"permessage-deflate", b"client_max_window_bits") if word in agreed]
        return tunnel if all(word in low for word in needed) else None

    def asks_for_socket(self, page: bytes, target: bytes) -> bool:
        """Say whether a browser that comes back by polling is to be refused, so that it tries a WebSocket next.

        NiceGUI 3.18 polls within the same attempt where a WebSocket fails, as it does until the network is back. Who
        polls again and again can do nothing else, and goes on as without parking.
        """
        tunnel, who = self._pages.get(page), read_who(target)
        if tunnel is None or who is None or not tunnel.can_return or who.document not in (b"", tunnel.who.document):
            return False
        polls = self._refused_polls[tunnel] = self._refused_polls.get(tunnel, 0) + 1
        if polls > _REFUSED_POLLS:
            self.let_go(tunnel, Release.RELOADED)
            return False
        return True

    # Browsers that go and come.

    def expect_answer(self, tunnel: ParkableTunnel) -> None:
        """Look in a while whether a browser has answered a heartbeat."""
        due = self.time() + PATIENCE_S
        if self._expected and due - self._expected[-1][0] < _TOGETHER_S:
            self._expected[-1][1].append(tunnel)
        else:
            self._expected.append((due, [tunnel]))
        if self._timer is None:
            self._timer = self._proxy.loop.call_later(PATIENCE_S, self._look)

    def _look(self) -> None:
        self._timer = None
        expected, now = self._expected, self.time()
        while expected and expected[0][0] <= now:
            for tunnel in expected.popleft()[1]:
                tunnel.overdue()
        if expected:
            self._timer = self._proxy.loop.call_later(max(0.01, expected[0][0] - now), self._look)

    def went(self, tunnel: ParkableTunnel) -> None:
        """Hear that a browser is away."""
        self._proxy.counters.parked += 1
        self.away[tunnel] = None
        if tab := tunnel.who.tab:
            self._tabs[tab] = tunnel
        if len(self.away) > self.settings.pages:
            self.let_go(next(iter(self.away)), Release.PAGES)

    def left(self, tunnel: ParkableTunnel) -> None:
        """Hear that the leg of a browser has ended, whose place is free now."""
        proxy = self._proxy
        if tunnel.log is not None:
            tunnel.log.ended(End.CLIENT, self.time(), *tunnel.moved_bytes)
            tunnel.log = None
        if tunnel.at_rest:
            proxy.watched_tunnels.pop(tunnel, None)
            proxy.buffered.hold(tunnel, tunnel.waiting_bytes)
        else:
            proxy.tunnel_stalled(tunnel)
        proxy.leave_place(tunnel.place)
        tunnel.place = None

    def drop_soon(self, transport: asyncio.Transport) -> None:
        """Drop a connection that has been closed and is in no books any more, if its client does not end it."""
        self._proxy.loop.call_later(LINGER_S, transport.abort)

    def came_back(self, tunnel: ParkableTunnel, since: float, *, joined: bool) -> None:
        """Hear that a browser is back, by a new connection (`joined`) or its old one; since: when it went."""
        counters = self._proxy.counters
        counters.parked_returns["new" if joined else "old"] += 1
        counters.parked_gaps.observe(self.time() - since)
        self._forget_away(tunnel)
        if joined:
            self._proxy.drains.opened(tunnel)

    def _forget_away(self, tunnel: Keeping) -> None:
        self._refused_polls.pop(tunnel, None)
        if tunnel not in self.away:
            return
        del self.away[tunnel]
        if self._tabs.get(tab := tunnel.who.tab) is tunnel:
            del self._tabs[tab]

    # Backends that close the sockets of the parked.

    def may_reopen(self, tunnel: Reopenable) -> bool:
        """Say whether a page's backend may be asked for another socket: it is listed, and not about to go."""
        backend = self._proxy.snapshot.by_identity.get(tunnel.identity)
        return backend is not None and backend.phase is not Phase.DRAINING

    def reopen(self, tunnel: Reopenable, number: int) -> None:
        """Ask for another socket; number: of the message that is to be the first there."""
        before = tunnel.reopening
        tunnel.reopening = Reopening(self._proxy, tunnel, number, before.ended_at if before is not None else 0.0)
        self._proxy.buffered.hold(tunnel, 0)

    # Ends.

    def let_go(self, tunnel: Keeping, reason: Release) -> None:
        """Let a page be as without parking; nothing for who is not parked.

        Where the browser's connection is still there, it goes on with it, unless it is surely dead.
        """
        if tunnel not in self.away:
            return
        self._proxy.counters.parked_releases[reason.value] += 1
        if reason in (Release.MEMORY, Release.PAGES):
            self._over_limit[reason] += 1
        if tunnel.departed or reason in (Release.TIMEOUT, Release.RELOADED):
            self.forget(tunnel)
            tunnel.close(End.CLIENT)
            if tunnel.downstream is not None:
                tunnel.downstream.transport.abort()  # what waits there would never be taken
        else:
            self._forget_away(tunnel)
            tunnel.stay()

    def make_room(self, tunnel: Keeping) -> None:
        """Keep less: too much is kept in all, `tunnel`'s among it."""
        while self.kept_bytes > self.total_bytes and self.away:
            self.let_go(next(iter(self.away)), Release.MEMORY)
        if self.kept_bytes > self.total_bytes:
            tunnel.keep_less()

    def sweep(self, now: float) -> None:
        """Let go who has been away for too long, and tell who was let go at a limit."""
        self.expire(now)
        if self._over_limit and now >= self._tell_after:
            for reason, count in self._over_limit.items():
                self._proxy.happenings.add(Happening(Kind.LET_GO, cause=reason.value, count=count))
            self._over_limit.clear()
            self._tell_after = now + _TELL_EVERY_S

    def expire(self, now: float) -> None:
        """Let go who has been away for too long."""
        before = now - self.settings.park_s
        over = [t for t in islice(self.away, _LET_GO_AT_ONCE) if t.away_since <= before]
        for tunnel in over:
            self.let_go(tunnel, Release.TIMEOUT)
        if len(over) == _LET_GO_AT_ONCE:
            self._proxy.loop.call_soon(self.expire, now)

    def leave(self, identity: str | None = None) -> None:
        """Let go all who are parked, so that they can come back elsewhere; identity: only those of a backend."""
        self.open = self.open and identity is not None
        for tunnel in [t for t in self.away if identity in (None, t.identity)]:
            self.let_go(tunnel, Release.DRAIN)

    def backend_lost(self, tunnel: Keeping) -> None:
        """Hear that the backend has ended a parked page's tunnel, or is gone."""
        if tunnel in self.away:
            self._proxy.counters.parked_releases[Release.BACKEND.value] += 1
        self.forget(tunnel)

    def forget(self, tunnel: Keeping) -> None:
        """Strike a page that is not to be parked any more; idempotent."""
        self._forget_away(tunnel)
        if self._pages.get(tunnel.page) is tunnel:
            del self._pages[tunnel.page]
        if tunnel.tail is not None:
            self.kept_bytes -= tunnel.tail.size
            tunnel.tail = None
