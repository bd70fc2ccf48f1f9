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
        leg.tunnel.witness = self.step_aside
        leg.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Read, pass on, and step aside with the outcome."""
        leg, handshake = self._leg, self._handshake
        data = handshake.feed(data)
        if data:
            leg.data_received(data)
        if handshake.outcome is not Outcome.PENDING:
            self.step_aside()

    def step_aside(self) -> None:
        """Let the leg take over, and tell the outcome as far as it is known."""
        self._give_way()
        self._on_outcome(self._handshake.outcome)

    def _give_way(self) -> None:
        """Pass on what was held back, and let the leg take over."""
        leg = self._leg
        if held := self._handshake.end():
            leg.data_received(held)
        leg.tunnel.witness = None
        leg.transport.set_protocol(leg)

    def eof_received(self) -> bool:
        """Let the leg take over, which passes the half-close on; a socket that ends here shows no page."""
        self._give_way()
        return self._leg.eof_received()

    def pause_writing(self) -> None:
        """As the leg does."""
        self._leg.pause_writing()

    def resume_writing(self) -> None:
        """As the leg does."""
        self._leg.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """As the leg does."""
        self._leg.tunnel.witness = None
        self._leg.connection_lost(exc)
