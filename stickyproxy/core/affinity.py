"""The order of decision: which backend an exchange goes to, and what becomes of its pin.

First that names a live backend wins: the page, a token in the query, the token in the cookie, then (with `--affinity
hash`) the rendezvous hash of a key, then (in a sidecar) our own pod while it is ready, then balance. A backend of phase
`paused` keeps its pins; a `draining` one keeps them but for new documents.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from stickyproxy.core.backends import Backend, Cause, Phase, Pick, Pin, Snapshot
from stickyproxy.core.balance import Balancer
from stickyproxy.core.cookies import split_cookie
from stickyproxy.core.rendezvous import rank
from stickyproxy.core.request import RequestHead

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # token, RFC 9110 section 5.6.2


class KeySource(Enum):
    """Where `--affinity hash` takes its key from."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class HashKey:
    """The key of `--affinity hash`: `name` is the header's, cookie's or query parameter's, empty for the address."""

    source: KeySource
    name: bytes = b""

    def read(self, head: RequestHead, client: bytes) -> bytes | None:
        """Read the key of a request that comes from a client's address; None where the request has none."""
        if self.source is KeySource.HEADER:
            return head.fields.value(self.name) or None
        if self.source is KeySource.COOKIE:
            return next(iter(split_cookie(head.fields.value(b"cookie") or b"", self.name)[1]), None) or None
        if self.source is KeySource.QUERY:
            query = head.target.partition(b"?")[2]
            return next((value for name, value in parse_qsl(query) if name == self.name), None) or None
        return client


def parse_hash_key(text: str) -> HashKey:
    """Parse `header:NAME`, `cookie:NAME`, `query:NAME` or `address`; ValueError says what was expected."""
    source, _, name = (part.strip() for part in text.partition(":"))
    try:
        found = KeySource(source.lower())
        if not _NAME.match(name) if found is not KeySource.ADDRESS else name:
            raise ValueError
        encoded = name.encode("ascii")
    except ValueError:
        raise ValueError(f"expected header:NAME, cookie:NAME, query:NAME or address, found {text!r}") from None
    return HashKey(found, encoded.lower() if found is KeySource.HEADER else encoded)


def keep(tokens: Sequence[bytes], snapshot: Snapshot) -> Pick | None:
    """Give the pick of the first token that names a listed backend, whatever its phase; None where none does."""
    for token in tokens:
        if pick := snapshot.kept.get(token):
            return pick
    return None


def choose(
    tokens: Sequence[bytes],
    key: bytes | None,
    snapshot: Snapshot,
    balancer: Balancer,
    now: float,
    *,
    page: str | None = None,
    navigation: bool = False,
    excluded: Container[str] = (),
    cause: Cause = Cause.NONE,
) -> Pick | None:
    """Decide for one exchange; None where no backend is left.

    tokens: what the query and the client's cookies hold, in order. key: the hash key, or None where the request has
    none or the mode is `cookie`. page: the identity of the backend that the page of the request lives on, None where
    the request names no page that is known, empty where the page is to leave its backend. navigation: the request
    asks for a new document. excluded: identities that were tried in vain, `cause` saying why the last of them failed.
    """
    if page == "":
        navigation = True  # with its socket on another backend it reloads there
    elif page is not None and page not in excluded:
        if lives := snapshot.picks.get(page):
            return lives  # whatever the phase: its state is nowhere else
        cause = Cause.GONE
    kept = keep(tokens, snapshot)
    if kept is not None and kept.backend.identity not in excluded:
        if kept.backend.phase is not Phase.DRAINING or not navigation:
            return kept
        if not any(b.identity not in excluded for b in snapshot.ready):
            return kept
        cause = Cause.DRAINING
    elif tokens and kept is None and cause is Cause.NONE:
        cause = Cause.GONE
    if key is not None:
        return _by_hash(key, snapshot, excluded, cause)
    new = page is None and not tokens
    backend = _by_balance(snapshot, balancer, now, excluded, spared=frozenset() if new else balancer.outdated)
    if backend is None:
        return None
    if new:
        return Pick(backend, Pin.NEW)  # whatever was tried in vain: nothing had been bound
    return Pick(backend, Pin.MOVED, cause)


def _by_hash(key: bytes, snapshot: Snapshot, excluded: Container[str], cause: Cause) -> Pick | None:
    # Over every listed backend, not only ready ones: a key has no memory, so a flap of readiness must not move it, and
    # a page built while its backend drains must find it again with its socket.
    for backend in rank(key, snapshot.backends):
        if backend.identity not in excluded:
            pin = Pin.MOVED if cause in (Cause.REFUSED, Cause.TIMEOUT) else Pin.KEPT
            return Pick(backend, pin, cause if pin is Pin.MOVED else Cause.NONE, sticky=False)
    return None


def _by_balance(
    snapshot: Snapshot, balancer: Balancer, now: float, excluded: Container[str], spared: Container[str]
) -> Backend | None:
    local = snapshot.local
    if (
        local is not None
        and local.identity not in excluded
        and local.identity not in spared
        and balancer.admits(local.identity, now)
    ):
        return balancer.choose((local,), now)
    # A draining backend still serves, so it comes before one that says it is not ready.
    for candidates in (snapshot.ready, snapshot.draining, snapshot.paused):
        left = balancer.admitted([b for b in candidates if b.identity not in excluded], now)
        if left:  # who has just lost a pod is not sent to one that the same rollout replaces next
            return balancer.choose([b for b in left if b.identity not in spared] or left, now)
    return None
