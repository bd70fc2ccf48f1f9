"""One connection to a backend: a thin protocol that hands what comes to the exchange that owns it.

Laws: at most one exchange owns it at a time; a byte or an end that comes while nobody owns it closes it.
"""

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from stickyproxy.dataplane.pool import Pool
    from stickyproxy.dataplane.sending import Sending


class Upstream(asyncio.Protocol):
    """A connection to the backend of one pool."""

    __slots__ = ("exchange", "idle_since", "pool", "reading_paused", "reused", "stalled", "transport")

    transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.exchange: Sending | None = None
        self.idle_since = 0.0
        self.reused = False  # it has carried an exchange before, so the backend may have closed it meanwhile
        self.reading_paused = False
        self.stalled = False  # the backend takes nothing for now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry
        self.transport.set_write_buffer_limits(high=0)  # whatever waits is heard of, or it could not be counted
        self.pool.upstreams.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand on a piece of the response."""
        exchange = self.exchange
        if exchange is not None:
            exchange.response_received(data)
        else:  # an answer to no question
            self.transport.abort()

    def pause_writing(self) -> None:
        """Stop reading the request's body: the backend takes no more for now."""
        self.stalled = True
        if self.exchange is not None:
            self.exchange.downstream.pause_reading()
            self.exchange.downstream.account()

    def resume_writing(self) -> None:
        """Go on reading the request's body, if it has not ended: what follows it is paused for its own reasons."""
        self.stalled = False
        if self.exchange is None:
            return
        self.exchange.downstream.account()
        if not self.exchange.request_done:
            self.exchange.downstream.resume_reading()

    def pause_reading(self) -> None:
        """Stop reading the response: the client takes no more for now."""
        if not self.reading_paused and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the response."""
        if self.reading_paused and not self.transport.is_closing():
            self.reading_paused = False
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange, or leave the pool."""
        self.pool.upstreams.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.upstream_lost(exc)
        else:
            self.pool.discard(self)
