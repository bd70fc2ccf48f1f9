"""Backends by `--backend`: a list that changes only when somebody reloads it."""

import asyncio
from collections.abc import Sequence

from stickyproxy.core.backends import Backend
from stickyproxy.core.status import DiscoveryStatus
from stickyproxy.core.values import Address
from stickyproxy.discovery import Apply


class StaticDiscovery:
    """Applies a list at once, and again on `replace`."""

    def __init__(self, addresses: Sequence[Address], apply: Apply) -> None:
        self._apply = apply
        self.replace(addresses)

    @property
    def status(self) -> DiscoveryStatus:
        """A list cannot go wrong once it is read."""
        return DiscoveryStatus("static list", "")

    def replace(self, addresses: Sequence[Address]) -> None:
        """Put another list in force."""
        self._apply([Backend.at(address) for address in addresses])

    def refresh(self) -> None:
        """Do nothing: a list changes by `replace` only."""

    async def run(self) -> None:
        """Wait for the end: nothing happens by itself."""
        await asyncio.Event().wait()
