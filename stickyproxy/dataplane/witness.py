"""Read the first packets of a page's socket in place of the tunnel's leg, which takes over when the outcome is known.

Laws: it stands before the leg only while the handshake is pending; whatever happens to the connection is the leg's; a
tunnel that ends before has no outcome.
"""

import asyncio
from collections.abc import Callable

from stickyproxy.core.handshake import Handshake, Outcome
from stickyproxy.dataplane.tunnel import Leg


class Witness(asyncio.Protocol):
    """Stands before the leg to the backend; `on_outcome` is told of the handshake's outcome, once at the most."""

    __slots__ = ("_handshake", "_leg", "_on_outcome")

    def __init__(self, leg: Leg, handshake: Handshake, on_outcome: Callable[[Outcome], None]) -> None:
        self._leg = leg
        self._handshake = handshake
        self._on_outcome = on_outcome
        leg.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Read, pass on, and step aside with the outcome."""
        leg, handshake = self._leg, self._handshake
        data = handshake.feed(data)
        if data:
            leg.data_received(data)
        if handshake.outcome is not Outcome.PENDING:
            leg.transport.set_protocol(leg)
            self._on_outcome(handshake.outcome)

    def eof_received(self) -> bool:
        """Pass on what was held back, and the half-close."""
        if held := self._handshake.end():
            self._leg.data_received(held)
        self._leg.transport.set_protocol(self._leg)
        return self._leg.eof_received()

    def pause_writing(self) -> None:
        """As the leg does."""
        self._leg.pause_writing()

    def resume_writing(self) -> None:
        """As the leg does."""
        self._leg.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """As the leg does."""
        self._leg.connection_lost(exc)
