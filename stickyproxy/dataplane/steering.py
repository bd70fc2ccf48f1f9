"""What an exchange does because the app is NiceGUI: find a page's backend, learn pages, ask others for an asset.

Everything here is off the path of requests and responses that have nothing of NiceGUI in them; what it knows of NiceGUI
stands in `core/nicegui.py`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from stickyproxy.core.affinity import keep
from stickyproxy.core.backends import Backend, Pick
from stickyproxy.core.framing import BodyReader, body_reader
from stickyproxy.core.handshake import Handshake, Outcome, read_poll
from stickyproxy.core.nicegui import (
    PATIENCE,
    Kind,
    PageReader,
    Route,
    added,
    asks_implicitly,
    is_once,
    is_own,
    read_file,
    read_route,
    read_token,
)
from stickyproxy.core.parking import agree_stateless, is_stateless, offer_stateless, read_extensions, read_who
from stickyproxy.core.reloads import YOUNG_S
from stickyproxy.core.reopening import pack
from stickyproxy.core.request import CHUNKED, RequestHead
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.tunnel import Tunnel
from stickyproxy.dataplane.watch import PollReader, TokenReader, WatchedReader
from stickyproxy.dataplane.witness import Witness

if TYPE_CHECKING:
    from stickyproxy.dataplane.downstream import Downstream


_SESSION = re.compile(rb"[?&]sid=")
"""Stands in the query of a poll of an established session; a backend answers 400 to one it does not know."""

_LONGEST_ANSWER = 512
"""Bytes of a poll's answer that is read: a refusal has some 50, and comes alone or with an event before it."""


class Steering:
    """One exchange's dealings with NiceGUI.

    `own`: its target is one of NiceGUI's own, where no page is learned. `once`: it must not be sent a second time,
    whatever its method.
    """

    __slots__ = ("_asked", "_downstream", "_head", "_proxy", "once", "own", "route")

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self._downstream = downstream
        self._proxy = downstream.proxy
        self._head = head
        self.route: Route | None = read_route(head.target)
        self.own = is_own(head.target)
        self.once = is_once(head.target)
        self._asked: frozenset[str] = frozenset()  # backends that do not have the asset

    @property
    def page(self) -> bytes:
        """Give the client id of the page that a socket belongs to; empty where there is none."""
        return self.route.page if self.route is not None and self.route.kind is Kind.SOCKET else b""

    @property
    def opens(self) -> bool:
        """Say whether a page opens its socket by this request: a page's first word here after it was cut off."""
        return bool(self.page) and not _SESSION.search(self._head.target)

    @property
    def is_asset(self) -> bool:
        """Say whether any backend of one NiceGUI version may answer the request, which can be sent again."""
        head = self._head
        asset = self.route is not None and self.route.kind is Kind.ASSET
        return asset and head.method in (b"GET", b"HEAD") and head.fields.length == 0

    def cache_key(self) -> bytes | None:
        """Give the key under which the asset may be kept and found; None where this request needs its own answer."""
        fields = self._head.fields
        if not self.is_asset or self._head.method != b"GET":
            return None
        if any(fields.value(name) is not None for name in (b"range", b"authorization")):
            return None
        if b"no-cache" in (fields.value(b"cache-control") or b"").lower():  # somebody reloads by force
            return None
        prefix = next((value for name, value in fields.said or () if name == b"x-forwarded-prefix"), b"")
        return b"\n".join((fields.host, prefix, fields.value(b"accept-encoding") or b"", self._head.target))

    @property
    def asking(self) -> bool:
        """Say whether other backends are being asked for the asset."""
        return bool(self._asked)

    def lives_on(self) -> str | None:
        """Give the identity of the backend that the request's page lives on, as far as it is known here."""
        if self.route is None or not self.route.page:
            return None
        page = self._proxy.pages.find(self.route.page)
        identity = page.identity if page is not None else None
        return "" if self._leaves(identity) else identity

    def _leaves(self, identity: str | None) -> bool:
        """Say whether a page that opens a socket is to leave its backend; identity: of that, if the page is known."""
        if self.route is None or self.route.kind is not Kind.SOCKET or _SESSION.search(self._head.target):
            return False
        if identity is None and (pick := keep(self.tokens(), self._proxy.snapshot)):
            identity = pick.backend.identity
        return identity is not None and self._proxy.drains.emptied(identity)

    def tokens(self) -> list[bytes]:
        """Give the tokens of query and cookies, in order.

        Behind them stands that of the backend that showed a file last: who holds no cookie can be told no more exactly.
        """
        token = read_token(self._head.target)
        tokens = self._head.fields.tokens if token is None else [token, *self._head.fields.tokens]
        if self.once:
            snapshot = self._proxy.snapshot
            shown_by = snapshot.by_identity.get(self._proxy.files.find(read_file(self._head.target)) or "")
            if shown_by is not None:
                return [*tokens, snapshot.token_of(shown_by)]
        return tokens

    def right_version(self, pick: Pick) -> Pick:
        """Leave a backend that runs another version of NiceGUI than an asset is of, if one is known to run it."""
        versions = self._proxy.versions
        if not self.is_asset or self.route is None:
            return pick
        known = versions.get(pick.backend.identity)
        if known is None or known == self.route.version:
            return pick
        for backend in self._candidates():
            if versions.get(backend.identity) == self.route.version:
                return self._proxy.snapshot.picks[backend.identity]
        return pick

    def asset_missing(self, pick: Pick, excluded: frozenset[str]) -> Pick | None:
        """Give the next backend to ask for an asset that `pick`'s does not have; None where all have been asked.

        excluded: identities of backends that could not be reached.
        """
        self._asked |= {pick.backend.identity}
        versions, route = self._proxy.versions, self.route
        left = [b for b in self._candidates() if b.identity not in self._asked and b.identity not in excluded]
        if not left or route is None:
            return None
        # Who is known to run the asset's version first; who is known to run another one last.
        left.sort(key=lambda b: {route.version: 0, None: 1}.get(versions.get(b.identity), 2))
        self._asked |= {left[0].identity}  # once at the most, whether it answers or not
        self._proxy.counters.asset_retries += 1
        return self._proxy.snapshot.picks[left[0].identity]

    def _candidates(self) -> tuple[Backend, ...]:
        snapshot = self._proxy.snapshot
        return snapshot.ready + snapshot.draining

    def answered(self, pick: Pick, status: int) -> None:
        """Hear of an answer: a poll that a backend accepts shows that the page lives there."""
        if self.route is not None and self.route.page:
            self._proxy.page_came(self.route.page, pick.backend.identity)
        if status == 200 and self.page and _SESSION.search(self._head.target):
            self._proxy.pages.learn(self.page, pick.backend.identity, self._proxy.time())

    def poll_body(self, pick: Pick, response: ResponseHead, raw: bytes) -> BodyReader | None:
        """Give a reader for a poll's answer that may hold the end of a handshake; None for every other.

        raw: the response's head.
        """
        page, length = self.page, response.length
        polled = page and response.status == 200 and self._head.method == b"GET" and _SESSION.search(self._head.target)
        if not polled or not 0 < length <= _LONGEST_ANSWER or _content_encoding(raw):
            return None
        implicit = asks_implicitly(self._head.target)

        def read(payload: bytes) -> bytes:
            outcome, told = read_poll(payload, implicit=implicit, version=self._version())
            if outcome is Outcome.REFUSED:
                self._refused(pick)
            return told

        return PollReader(body_reader(length), read)

    def _version(self) -> bytes:
        """Give the NiceGUI version that built the socket's page; empty where that is not known."""
        page = self._proxy.pages.find(self.page)
        return page.version if page is not None else b""

    def _refused(self, pick: Pick) -> None:
        """Count that the socket's page was refused, unless that was to be.

        It was to be where the page has worked, and where it has lost its backend or leaves it, so that another one
        refuses it: then it reloads once.
        """
        page, proxy, now = self._proxy.pages.find(self.page), self._proxy, self._proxy.time()
        if page is None or page.visitor is None or page.worked or now - page.built > YOUNG_S:
            return
        if page.identity == pick.backend.identity:
            proxy.reloads.refused(page.visitor, now)

    def handshake(self) -> Handshake | None:
        """Give what reads the handshake of a page's socket; None where there is none to come."""
        if not self.page or _SESSION.search(self._head.target):  # a session that polled before has shaken hands
            return None
        return Handshake(implicit=asks_implicitly(self._head.target), version=self._version())

    def parkable(self) -> bytes | None:
        """Give the header lines with which a socket is asked for that can be parked; with parking only.

        None where it cannot be parked, and goes on as it came.
        """
        head = self._head
        wanted = self._proxy.parking is not None and self.opens and head.fields.upgrade.lower() == b"websocket"
        wanted = wanted and head.method == b"GET" and read_who(head.target) is not None
        return offer_stateless(head.fields.upstream) if wanted else None

    @property
    def polls(self) -> bool:
        """Say whether a page begins to poll."""
        return self.opens and not self._head.fields.upgrade and b"transport=polling" in self._head.target

    def park(self, head: bytes) -> tuple[bytes, Callable[[ParkableTunnel], None] | None]:
        """Judge whether a WebSocket that a backend accepts can be parked.

        head: the lines of its response. Give them as they are to go on, and what makes the tunnel ready; None where it
        cannot be parked.
        """
        parking, lines = self._proxy.parking, self.parkable()
        if parking is None or lines is None:
            return head, None
        head = agree_stateless(head)
        extensions = read_extensions(head)
        if not is_stateless(extensions):
            return head, None
        asked = pack(self._head.line + lines)
        return head, partial(ParkableTunnel.prepare, parking=parking, extensions=extensions, asked=asked)

    def tunnel_made(self, tunnel: Tunnel, pick: Pick, handshake: Handshake | None) -> None:
        """Hear that a backend has accepted the WebSocket; whether it has the page shows in the handshake."""
        page, proxy = self.page, self._proxy
        if not page:
            return
        proxy.page_came(page, pick.backend.identity)

        def on_outcome(outcome: Outcome) -> None:
            if outcome is Outcome.REFUSED:
                self._refused(pick)
            elif tunnel.upstream is not None and tunnel.downstream is not None:
                tunnel.page = page
                proxy.pages.opened(page, pick.backend.identity, proxy.time())
                if isinstance(tunnel, ParkableTunnel):
                    tunnel.parking.accepted(tunnel)
                proxy.drains.opened(tunnel)

        if handshake is None or handshake.outcome is not Outcome.PENDING:
            on_outcome(handshake.outcome if handshake is not None else Outcome.ACCEPTED)
        elif tunnel.upstream is not None:
            Witness(tunnel.upstream, handshake, on_outcome)


def visitor(downstream: "Downstream", head: RequestHead) -> tuple[bytes, bytes]:
    """Name who asks for what: the client's address and the path."""
    return downstream.client(head.fields), head.target.partition(b"?")[0]


def page_body(
    downstream: "Downstream", head: RequestHead, pick: Pick, response: ResponseHead, raw: bytes, *, plain: bool
) -> BodyReader | None:
    """Give a reader for a response that is a page, which learns the page as it passes; None where it cannot be read.

    With `--page-token` or `--park` it is a TokenReader, whose body leaves chunked or, with `plain`, ends with the
    connection. raw: the response's head.
    """
    proxy = downstream.proxy
    encoding = _content_encoding(raw)
    if head.method != b"GET" or response.length == 0 or not PageReader.can_read(encoding):
        return None
    key = visitor(downstream, head)
    identity = pick.backend.identity

    def on_page(page: PageReader) -> None:
        proxy.pages.learn(page.page, identity, proxy.time(), key, page.version)
        proxy.files.learn(page.files, identity)
        if identity in proxy.snapshot.by_identity:
            proxy.versions[identity] = page.version

    insertion = PATIENCE if proxy.parking is not None else b""
    if proxy.settings.affinity.page_token and identity in proxy.snapshot.by_identity:
        insertion += added(proxy.snapshot.token_of(pick.backend))
    if insertion and response.length != UNTIL_CLOSE and response.status != 206:
        page = PageReader(encoding, insertion)
        return TokenReader(body_reader(response.length, plain=True), page, on_page, plain=plain)
    reader = body_reader(response.length, plain=plain and response.length == CHUNKED)
    return WatchedReader(reader, response.length, PageReader(encoding), on_page)


def _content_encoding(raw: bytes) -> bytes:
    low = raw.lower()
    at = low.find(b"\r\ncontent-encoding:")
    return low[at + 19 : low.index(b"\r\n", at + 19)].strip(b" \t") if at >= 0 else b""
