"""The files that pages show and that only a backend which built such a page has: which backend that was.

Laws: bounded in number, and the file that was shown longest ago goes first; a file of several backends is looked for on
the one that showed it last, since a backend gives up a file with a page that showed it.
"""

from collections.abc import Iterable, Iterator, Mapping

LONGEST_PATH = 512
"""Bytes of a path that is remembered; NiceGUI's are some 60 and the file's name."""


class Files:
    """A table from paths to identities of backends; `limit`: most paths."""

    __slots__ = ("_identities", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._identities: dict[bytes, str] = {}  # in order of last sight

    def __len__(self) -> int:
        """Count the paths."""
        return len(self._identities)

    def find(self, path: bytes) -> str | None:
        """Give the identity of the backend that showed a file last; None where it is not known."""
        return self._identities.get(path)

    def hear(self, paths: Mapping[bytes, str]) -> None:
        """Remember what another data plane knows."""
        for path, identity in paths.items():
            self.learn((path,), identity)

    def items(self) -> Iterator[tuple[bytes, str]]:
        """Give all paths with the identities of their backends, in order of last sight."""
        yield from self._identities.items()

    def learn(self, paths: Iterable[bytes], identity: str) -> None:
        """Remember the files that a page shows."""
        for path in paths:
            if len(path) > LONGEST_PATH:
                continue
            self._identities.pop(path, None)
            while len(self._identities) >= self._limit:
                del self._identities[next(iter(self._identities))]
            self._identities[path] = identity
