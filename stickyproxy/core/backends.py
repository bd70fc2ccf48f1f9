"""What a backend is, which token names it, and the immutable set of them.

Laws: a snapshot never changes, it is replaced by one assignment; a token is computed once for each snapshot, so that
reading a pin costs one dict lookup.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from stickyproxy.core.values import Address

TOKEN_LENGTH = 16
"""Characters of a token: 96 bits as base64url have no padding."""


class Phase(Enum):
    """What a listed backend may be used for; `gone` is not a phase but absence from the snapshot."""

    READY = "ready"
    PAUSED = "paused"
    DRAINING = "draining"


USE = (Phase.READY, Phase.DRAINING, Phase.PAUSED)
"""Phases in order of how much use a backend is for a new session."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One pod's address that we forward to.

    `identity` outlives the address: a pod's UID, or `host:port` for static backends. `name` is for people.
    """

    identity: str
    address: Address
    phase: Phase = Phase.READY
    name: str = ""

    @classmethod
    def at(cls, address: Address, phase: Phase = Phase.READY) -> "Backend":
        """Make a backend whose identity is its address (static lists, DNS)."""
        return cls(str(address), address, phase, str(address))

    def __str__(self) -> str:
        """Give what a log line calls this backend."""
        return self.name or self.identity


class Pin(Enum):
    """What became of the binding between a browser and its backend in one exchange."""

    NEW = "new"
    KEPT = "kept"
    MOVED = "moved"


class Cause(Enum):
    """Why a pin was moved (or, for `NONE`, that it was not)."""

    NONE = ""
    GONE = "gone"  # the token names no backend of the snapshot
    REFUSED = "refused"  # the backend refused the connection or was out of reach
    TIMEOUT = "timeout"  # the backend did not answer the connection attempt in time
    DRAINING = "draining"  # a new document, and the backend is about to go


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen backend, and how it came to be chosen; `sticky` says whether a cookie shall hold the choice."""

    backend: Backend
    pin: Pin
    cause: Cause = Cause.NONE
    sticky: bool = True

    @property
    def to_hand_out(self) -> bool:
        """Say whether the client must be given a cookie."""
        return self.sticky and self.pin is not Pin.KEPT


class Secrets:
    """The keys of tokens: the first signs, all verify.

    Without a secret the hash is unkeyed: for pod UIDs (122 random bits) a token can still not be guessed.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        # BLAKE2b takes keys of up to 64 bytes (RFC 7693 section 2.1); a longer secret is hashed down to that.
        self._keys = [s if len(s) <= 64 else blake2b(s).digest() for s in secrets] or [b""]

    def tokens(self, identity: str) -> list[bytes]:
        """Give the tokens that name this identity, the one to hand out first."""
        return [
            base64.urlsafe_b64encode(blake2b(identity.encode(), digest_size=12, key=key).digest()) for key in self._keys
        ]


class Snapshot:
    """The immutable set of backends, with all that can be computed once for it.

    `backends` is in order of identity and without duplicate addresses; `kept` maps every valid token to the pick of
    its backend, `settled` those of ready backends only: where a token is found there, nothing is left to decide.
    `picks` maps identities to the same picks. `local` is the backend of our own pod, which new sessions go to; None
    while that is not ready, or where the proxy is no sidecar.
    """

    __slots__ = (
        "_tokens", "backends", "by_identity", "draining", "kept", "local", "paused", "picks", "ready", "settled",
    )  # fmt: skip

    def __init__(self, backends: Iterable[Backend], secrets: Secrets, own: str | None = None) -> None:
        """Sort out the backends; `own` is the identity of our own pod's."""
        by_address: dict[Address, Backend] = {}
        # Of two with one address, the one that is of more use stays: the other is a pod whose address was given anew.
        for backend in sorted(backends, key=lambda b: (USE.index(b.phase), b.identity)):
            by_address.setdefault(backend.address, backend)
        self.backends = tuple(sorted(by_address.values(), key=lambda b: b.identity))
        self.by_identity = {b.identity: b for b in self.backends}
        self.ready = tuple(b for b in self.backends if b.phase is Phase.READY)
        self.paused = tuple(b for b in self.backends if b.phase is Phase.PAUSED)
        self.draining = tuple(b for b in self.backends if b.phase is Phase.DRAINING)
        self.local = next((b for b in self.ready if b.identity == own), None)
        self.kept: dict[bytes, Pick] = {}
        self.settled: dict[bytes, Pick] = {}
        self.picks: dict[str, Pick] = {}
        self._tokens: dict[str, bytes] = {}
        for backend in self.backends:
            tokens = secrets.tokens(backend.identity)
            self._tokens[backend.identity] = tokens[0]
            pick = self.picks[backend.identity] = Pick(backend, Pin.KEPT)
            for token in tokens:
                self.kept[token] = pick
                if backend.phase is Phase.READY:
                    self.settled[token] = pick

    def names(self) -> Iterator[tuple[str | bytes, str]]:
        """Give the name of each backend by its identity, and by each of its tokens."""
        for identity, backend in self.by_identity.items():
            yield identity, str(backend)
        for token, pick in self.kept.items():
            yield token, str(pick.backend)

    def name_of(self, key: str | bytes) -> str:
        """Give the name of the backend of an identity or a token; empty where it is none of these."""
        if isinstance(key, bytes):
            pick = self.kept.get(key)
            return str(pick.backend) if pick is not None else ""
        backend = self.by_identity.get(key)
        return str(backend) if backend is not None else ""

    def __contains__(self, key: str | bytes) -> bool:
        """Say whether an identity or a token is one of these backends'."""
        return key in (self.kept if isinstance(key, bytes) else self.by_identity)

    def token_of(self, backend: Backend) -> bytes:
        """Give the token to hand out for a backend of this snapshot; KeyError for any other."""
        return self._tokens[backend.identity]
