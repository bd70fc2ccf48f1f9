"""Rendezvous (highest random weight) hashing: a change of one backend moves only that backend's keys.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998).
"""

from collections.abc import Iterable
from hashlib import blake2b

from stickyproxy.core.backends import Backend


def rank(key: bytes, backends: Iterable[Backend]) -> list[Backend]:
    """Order backends by their weight for a key, highest first; the order does not depend on the order given.

    Two backends whose weights collide (chance 2**-64) are ordered by identity, so that every replica agrees.
    """

    def weight(backend: Backend) -> tuple[bytes, str]:
        identity = backend.identity.encode()
        # The length prefix keeps (key, identity) pairs apart: "a"+"bc" is not "ab"+"c".
        return blake2b(b"%d:%b%b" % (len(key), key, identity), digest_size=8).digest(), backend.identity

    return sorted(backends, key=weight, reverse=True)
