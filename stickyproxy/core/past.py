"""What backends were called that are listed no more, for events that tell whom a session has left.

Law: so many names are known at the most; of more, those go first that have been gone longest.
"""

from typing import Final

from stickyproxy.core.backends import Snapshot

PAST_LIMIT: Final = 1000
"""Most names, each by one key: a backend has one for its identity and one for each of its tokens."""


class Past:
    """The names of backends that have gone."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int = PAST_LIMIT) -> None:
        self._limit = limit
        self._names: dict[str | bytes, str] = {}  # by identity and by token, in order of their going

    def replaced(self, before: Snapshot, following: Snapshot) -> None:
        """Hear that one snapshot follows another, and keep the names of those that are in the first only."""
        names = self._names
        for key, name in before.names():
            if key not in following:
                names.pop(key, None)  # who goes once more has gone last
                names[key] = name
        while len(names) > self._limit:
            del names[next(iter(names))]

    def name_of(self, key: str | bytes) -> str:
        """Name the backend of an identity or a token; empty where it is not known."""
        return self._names.get(key, "")
