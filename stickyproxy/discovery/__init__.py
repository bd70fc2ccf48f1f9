"""Where backends come from: a list, DNS, or the Kubernetes API."""

from collections.abc import Callable, Sequence
from typing import Protocol

from stickyproxy.core.backends import Backend
from stickyproxy.core.events import Happening
from stickyproxy.core.status import DiscoveryStatus

Apply = Callable[[Sequence[Backend]], None]
"""Puts a whole new set of backends in force."""

Saw = Callable[[Sequence[Happening]], None]
"""Hears when the source begins to fail, fails differently, or works again."""


class Discovery(Protocol):
    """A source of backends."""

    @property
    def status(self) -> DiscoveryStatus:
        """Say where backends come from and what is wrong with it."""
        ...

    def refresh(self) -> None:
        """Look now instead of when it is time."""
        ...

    async def run(self) -> None:
        """Call `apply` with every new set, until cancelled; the last good set outlives every failure."""
        ...
