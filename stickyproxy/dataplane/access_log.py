"""The access log: connections and exchanges that note down what a line tells, in the place of those that do not.

Law: while it is off nothing of this is made, so that it costs a request nothing.
"""

import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from stickyproxy.core.access_log import Entry, LogFormat, json_line, read_trace, safe, safe_path, text_line
from stickyproxy.core.assets import Asset
from stickyproxy.core.backends import Pick
from stickyproxy.core.faults import Fault
from stickyproxy.core.messages import Cutter
from stickyproxy.core.request import RequestHead
from stickyproxy.core.response import ResponseHead
from stickyproxy.core.settings import LogSettings
from stickyproxy.core.tunnels import End
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.exchange import Exchange
from stickyproxy.dataplane.log_writer import LogWriter
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.takeover import Takeover
from stickyproxy.dataplane.tunnel import Tunnel
from stickyproxy.dataplane.upstream import Upstream

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy


class AccessLog:
    """Makes lines and gives them to a writer; each request is logged with the chance of `settings.sample`."""

    def __init__(self, settings: LogSettings, random: Random, writer: LogWriter) -> None:
        self._line = json_line if settings.access is LogFormat.JSON else text_line
        self._sample = settings.sample
        self._random = random
        self._writer = writer

    @property
    def wanted(self) -> bool:
        """Draw by lot whether the next request is logged."""
        return self._sample >= 1.0 or self._random.random() < self._sample

    def write(self, entry: Entry) -> None:
        """Log a request."""
        self._writer.write(self._line(entry))

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


class LoggedDownstream(Downstream):
    """A client's connection that counts its bytes and logs its requests."""

    __slots__ = ("_log", "_received_before", "_sent_before", "received_bytes", "sent_bytes", "started_with")

    def __init__(self, proxy: "Proxy", log: AccessLog, peer: bytes, place: bytes | None) -> None:
        super().__init__(proxy, peer, place)
        self._log = log
        self.received_bytes = self.sent_bytes = 0
        self._received_before = self._sent_before = 0  # when the last request ended
        self.started_with = b""

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        self.received_bytes += len(data)
        super().data_received(data)

    def send(self, data: bytes) -> None:
        """Send bytes to the client; `started_with` is the status line of the last piece, if one stands there."""
        self.sent_bytes += len(data)
        self.started_with = data[:12]
        super().send(data)

    def _begin(self, head: RequestHead, body: bytes) -> None:
        if not self._log.wanted:
            super()._begin(head, body)
            return
        self.deadline = 0.0
        self._requests_left -= 1
        if not self._requests_left:
            self._last_request()
        exchange = self._exchange = LoggedExchange(self, head)
        exchange.start(body)

    def _answer_probe(self, head: RequestHead) -> None:
        super()._answer_probe(head)
        self.take_bytes()

    def _refuse(self, fault: Fault) -> None:
        super()._refuse(fault)
        received, sent = self.take_bytes()
        if self._log.wanted:
            at, client = time.time(), safe(self.peer)
            self.log(Entry(at, client, "", "", fault.status, "", "", "", fault.reason, None, None, 0.0, received, sent))

    def finished(self, now: float) -> None:
        """Log, before the next request begins."""
        self._log_exchange(now)
        super().finished(now)

    def break_off(self, *, reset: bool) -> None:
        """Log, and end in the middle of a response."""
        self._log_exchange(self.proxy.time())
        super().break_off(reset=reset)

    def _log_exchange(self, now: float) -> None:
        received, sent = self.take_bytes()
        if isinstance(self._exchange, LoggedExchange):
            self.log(self._exchange.entry(now, received, sent))

    def become_tunnel(
        self, upstream: Upstream, *, websocket: bool, prepare: Callable[[ParkableTunnel], None] | None = None
    ) -> Tunnel:
        """Give both connections to a tunnel, which is logged at its end."""
        exchange = self._exchange
        tunnel = super().become_tunnel(upstream, websocket=websocket, prepare=prepare)
        if isinstance(exchange, LoggedExchange):
            received, sent = self.take_bytes()
            tunnel.log = TunnelLog(exchange, received, sent)
        return tunnel

    def return_to(self, tunnel: ParkableTunnel, waiting: list[bytes], cutter: Cutter | None) -> None:
        """Give the connection to a tunnel that has waited for it, which is logged when it is lost again."""
        exchange = self._exchange
        received, sent = self.take_bytes()
        if isinstance(exchange, LoggedExchange):
            before = tunnel.moved_bytes
            super().return_to(tunnel, waiting, cutter)
            tunnel.log = TunnelLog(exchange, received - before[0], sent - before[1])
        else:
            super().return_to(tunnel, waiting, cutter)

    def take_bytes(self) -> tuple[int, int]:
        """Give the bytes received and sent since this was last asked."""
        received, sent = self.received_bytes - self._received_before, self.sent_bytes - self._sent_before
        self._received_before, self._sent_before = self.received_bytes, self.sent_bytes
        return received, sent

    def log(self, entry: Entry) -> None:
        """Log a request."""
        self._log.write(entry)


class LoggedExchange(Exchange):
    """An exchange that notes down what its line tells; the connection logs it as it ends."""

    downstream: LoggedDownstream
    _connected: float | None = None
    _answered: float | None = None
    _status = 0
    _end = "done"

    def __init__(self, downstream: LoggedDownstream, head: RequestHead) -> None:
        super().__init__(downstream, head)
        self._at = time.time()
        self._came = self.proxy.time()

    def _send(self, upstream: Upstream, now: float) -> None:
        self._connected = now
        super()._send(upstream, now)

    def _send_response(self, response: ResponseHead, data: bytes, end: int) -> None:
        self._status, self._answered = response.status, self.proxy.time()
        super()._send_response(response, data, end)

    def _upgrade(self, response: ResponseHead, data: bytes, end: int) -> None:
        self._status, self._answered = response.status, self.proxy.time()
        super()._upgrade(response, data, end)

    def _resume(self, takeover: Takeover, pick: Pick) -> None:
        self._status, self._answered = 101, self.proxy.time()
        super()._resume(takeover, pick)

    def _answer_asset(self, asset: Asset) -> None:
        self._end, self._answered = "cache", self.proxy.time()
        super()._answer_asset(asset)

    def _fail(self, fault: Fault) -> None:
        self._end, self._status, self._answered = fault.reason, fault.status, self.proxy.time()
        super()._fail(fault)

    def _break_off(self) -> None:
        self._end = "broken-off"
        super()._break_off()

    def abandon(self) -> None:
        """End because the client has gone."""
        self._end = "client"
        received, sent = self.downstream.take_bytes()
        self.downstream.log(self.entry(self.proxy.time(), received, sent))
        super().abandon()

    def entry(self, now: float, received_bytes: int, sent_bytes: int, end: str = "") -> Entry:
        """Tell the exchange's story; end: that of the tunnel it has become."""
        head, pick, status = self.head, self.pick, self._status
        if self._end == "cache":
            status, pick = int(self.downstream.started_with[9:12]), None
        bound = pick if pick is not None and self._end in ("done", "broken-off", "client") and status else None
        return Entry(
            self._at,
            safe(self.downstream.client(head.fields)),
            safe(head.method),
            safe_path(head.target),
            status,
            bound.pin.value if bound is not None else "",
            bound.cause.value if bound is not None else "",
            safe(str(pick.backend).encode()) if pick is not None else "",
            end or self._end,
            self._since(self._connected),
            self._since(self._answered),
            now - self._came,
            received_bytes,
            sent_bytes,
            read_trace(head.fields.value(b"traceparent")),
            bool(end),
        )

    def _since(self, moment: float | None) -> float | None:
        return moment - self._came if moment is not None else None


class TunnelLog:
    """The line of a tunnel, until it is written at its end; bytes: those of the exchange that it began with."""

    __slots__ = ("_exchange", "_received_bytes", "_sent_bytes")

    def __init__(self, exchange: LoggedExchange, received_bytes: int, sent_bytes: int) -> None:
        self._exchange = exchange
        self._received_bytes = received_bytes
        self._sent_bytes = sent_bytes

    def ended(self, end: End, now: float, received_bytes: int, sent_bytes: int) -> None:
        """Log the tunnel; bytes: those that it carried."""
        exchange = self._exchange
        exchange.downstream.log(
            exchange.entry(now, self._received_bytes + received_bytes, self._sent_bytes + sent_bytes, end.value)
        )
