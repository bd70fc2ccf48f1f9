"""A client's connection as a stream, whatever is said on it: sends, waits for who is slow, ends so that it is heard.

Laws: whatever waits here for somebody slow is counted (`Buffered`); pausing and ending are idempotent; a client that
may still be sending gets time to read the last answer; `deadline` means what the state says: idle, head, body, answer,
client too slow, or lingering.
"""

import asyncio
from typing import TYPE_CHECKING

from stickyproxy.core.limits import Limit
from stickyproxy.dataplane.sockets import unsent_bytes

if TYPE_CHECKING:
    from stickyproxy.dataplane.exchange import Exchange
    from stickyproxy.dataplane.proxy import Proxy


class ClientStream(asyncio.Protocol):
    """The bytes to and from a client, and the exchange that is paused with them.

    `deadline` is in loop time, 0 for none. `last`: the connection ends after the current response. `stalled`: the
    client takes nothing for now.
    """

    __slots__ = (
        "_accounted", "_ended", "_exchange", "_held", "_lingering", "_pieces", "_reading_paused", "_reviewed",
        "_unread", "_unwritten", "deadline", "last", "proxy", "review", "stalled", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self.last = False
        self.deadline = 0.0
        self._held = b""
        self._exchange: Exchange | None = None
        self._ended = False  # the client has closed its half
        self._unread = False  # the client may still be sending what nobody will read
        self._lingering = False  # the last answer is out; what still comes is dropped
        self._reading_paused = False
        self.stalled = False
        self._unwritten = 0  # bytes that the client had not taken when the deadline was set
        self._accounted = False  # something is held that has been counted
        self._pieces = 0  # bytes of what was sent since the client takes no more
        self.review = 0.0  # loop time at which to judge how fast a body comes; 0: not at all
        self._reviewed = 0  # bytes of it that had come when this was set

    def _advance(self, data: bytes) -> None:
        """Go on with the requests that are held, and with `data` behind them."""
        raise NotImplementedError

    # Sending, and what waits.

    def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.proxy.counters.sent_bytes += len(data)
        self.transport.write(data)
        if self.stalled:  # a piece stays whole in memory until its last byte is sent
            self._pieces += len(data)
            self.account()

    def account(self) -> None:
        """Tell how many bytes wait here, as somebody does not take them yet."""
        count = len(self._held)
        if self.stalled:
            count += max(self._pieces, self.transport.get_write_buffer_size())
        if self._exchange is not None:
            count += self._exchange.waiting_bytes
        self._accounted = count > 0
        self.proxy.buffered.hold(self, count)

    def drop(self) -> None:
        """End at once: too much waits for slow peers, and this one has been slow for longest."""
        self._accounted = False
        self.transport.abort()

    # Reading, and who is slow.

    def pause_reading(self) -> None:
        """Stop reading from the client; idempotent."""
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading from the client; idempotent."""
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()
            if self.review and self._exchange is not None:  # what did not come meanwhile is not the client's fault
                self.review = self.proxy.time() + self.proxy.times.body_s
                self._reviewed = self._exchange.body_bytes

    def pause_writing(self) -> None:
        """Stop reading the response: the client takes no more for now."""
        self.stalled = True
        exchange = self._exchange
        if exchange is not None:
            exchange.pause_response()
        self._unwritten = unsent_bytes(self.transport)
        self.deadline = self.proxy.time() + self.proxy.times.body_s
        self.account()

    def resume_writing(self) -> None:
        """Go on reading the response, or with the requests that were held."""
        self.stalled = False
        self._pieces = 0
        if self._accounted:
            self.account()
        exchange = self._exchange
        if exchange is None:
            if not self.last:
                self._advance(b"")
            return
        if exchange.request_done:  # it was an interim response that waited, or the final one
            self.deadline = 0.0 if exchange.answering else self.proxy.time() + self.proxy.times.response_s
        if exchange.upstream is not None:
            exchange.upstream.resume_reading()

    def review_rate(self) -> None:
        """Judge how fast a request's body comes."""
        exchange = self._exchange
        self.review = 0.0
        if exchange is None or exchange.request_done:
            return
        least = self.proxy.settings.limits.body_rate * self.proxy.times.body_s
        held_up = self._reading_paused or exchange.upstream is None  # by the backend
        if held_up or exchange.body_bytes - self._reviewed >= least:
            self.review = self.proxy.time() + self.proxy.times.body_s
            self._reviewed = exchange.body_bytes
        else:
            self.proxy.counters.limits[Limit.RATE] += 1
            exchange.timed_out()

    # The end.

    def _end(self) -> None:
        """End after the last answer; where the client may still be sending, let it read the answer first."""
        if not self._unread or self._ended or self.transport.is_closing():
            self._close()
        elif not self._lingering:
            self._lingering = True
            self.deadline = self.proxy.time() + self.proxy.times.linger_s
            self.resume_reading()
            self.transport.write_eof()

    def _close(self) -> None:
        """Close when all is written, or when the client takes too long to take it."""
        self.deadline = self.proxy.time() + self.proxy.times.body_s
        self._unwritten = unsent_bytes(self.transport)
        if not self.transport.is_closing():
            self.transport.close()
