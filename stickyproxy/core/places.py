"""How many client connections there may be: in all, and from each address.

Laws: a place is taken before anything is read from a connection and left exactly once; who waits for a place is told
nothing, who has too many is refused.
"""

from collections.abc import Iterable

RESERVED_DESCRIPTORS = 128
"""Kept for what is no client's and no tunnel's: standard streams, listeners, admin port, discovery, the event loop."""

MOST_CONNECTIONS = 20_000
"""The default's upper end, however many descriptors there are: memory is finite too (docs/limits.md)."""


def connections_for(descriptors: int, wanted: int = 0) -> int:
    """Give how many client connections a process can serve that may open so many files.

    Each can need two descriptors, its own and the one to its backend. wanted: what somebody has asked for; 0: as many
    as are sensible. At least 1, since a proxy that serves nobody is none.
    """
    possible = max(1, (descriptors - RESERVED_DESCRIPTORS) // 2)
    return min(possible, wanted or MOST_CONNECTIONS)


def descriptors_for(connections: int) -> int:
    """Give how many files a process must be able to open for so many client connections."""
    return 2 * connections + RESERVED_DESCRIPTORS


class Places:
    """The places for client connections; `per_client` is 0 where an address may have any number.

    A client is an address as text in bytes. None stands for one who is not counted by address: a trusted proxy, which
    brings the connections of many.
    """

    __slots__ = ("_clients", "most", "per_client", "taken")

    def __init__(self, most: int, per_client: int = 0) -> None:
        self.most = most
        self.per_client = per_client
        self.taken = 0
        self._clients: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Count the free places; never below 0."""
        return max(0, self.most - self.taken)

    def take(self) -> None:
        """Take a place for somebody not yet known."""
        self.taken += 1

    def name(self, client: bytes | None) -> bool:
        """Say whose a taken place is; False, and nothing is counted, where that address has enough of them."""
        if client is None or not self.per_client:
            return True
        count = self._clients.get(client, 0)
        if count >= self.per_client:
            return False
        self._clients[client] = count + 1
        return True

    def leave(self, client: bytes | None) -> None:
        """Give a place back; None for one whose client was never named, or not counted."""
        self.taken -= 1
        if client is None or not self.per_client:
            return
        count = self._clients.get(client, 0)
        if count > 1:
            self._clients[client] = count - 1
        elif count:
            del self._clients[client]

    def clients(self) -> Iterable[tuple[bytes, int]]:
        """Give every address that is counted, with its number of places."""
        return self._clients.items()
