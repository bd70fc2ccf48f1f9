"""One client's connection: reads heads, gives each request to an exchange, answers what needs no backend.

Laws: one exchange at a time, so that pipelined requests are answered in order; bytes that belong to the next request
are held, never dropped, and reading stops while any are held. What is slow, and how it ends, stands in
`client_stream.py`.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from stickyproxy.core.backends import Backend
from stickyproxy.core.ending import Stage
from stickyproxy.core.faults import HEAD_TIMEOUT, PLAIN_ON_TLS, Fault, HeadError, answer, respond
from stickyproxy.core.forwarded import client_address, forwarded_lines, relayed_lines
from stickyproxy.core.limits import Limit
from stickyproxy.core.messages import Cutter
from stickyproxy.core.request import RequestFields, RequestHead, looks_like_head, parse_repeat
from stickyproxy.core.tls import Handshake
from stickyproxy.dataplane.client_stream import ClientStream
from stickyproxy.dataplane.exchange import Exchange
from stickyproxy.dataplane.parkable import ParkableTunnel
from stickyproxy.dataplane.sockets import reset_connection, unsent_bytes
from stickyproxy.dataplane.tunnel import Tunnel

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy
    from stickyproxy.dataplane.upstream import Upstream


REMEMBERED_BYTES = 4096
"""Largest head whose findings a connection remembers for its next request; larger ones are rare and cost memory."""


class Downstream(ClientStream):
    """A client's connection, until it ends or becomes a tunnel.

    `place`: the address by which the connection is counted, if it is (core/places.py).
    """

    __slots__ = (
        "_busy", "_repeatable", "_requests_left", "_scanned", "_trusted", "https", "made", "peer", "place", "shaking",
    )  # fmt: skip

    def __init__(self, proxy: "Proxy", peer: bytes, place: bytes | None = None) -> None:
        super().__init__(proxy)
        self.peer = peer
        self.place = place
        self.made = False
        self.https = False
        self.shaking = False  # a TLS handshake has begun and is not done
        self._scanned = 0  # so many bytes of what is held contain no end of a head
        self._repeatable: RequestFields | None = None  # of the request before, where nothing but the line may differ
        self._busy = False  # `_advance` is at work further up the stack
        self._trusted: bool | None = None
        self._requests_left = proxy.settings.limits.requests

    @property
    def trusted(self) -> bool:
        """Say whether the client may speak for others."""
        if self._trusted is None:
            self._trusted = self.peer in self.proxy.trusted
        return self._trusted

    @property
    def exchange(self) -> Exchange | None:
        """Give the exchange that is running."""
        return self._exchange

    @property
    def idle(self) -> bool:
        """Say whether the connection stands between two requests, or before its first."""
        return not self.shaking and self._exchange is None and not self._held and not self.last and not self.stalled

    @property
    def backend(self) -> Backend | None:
        """Give the backend that the running exchange goes to."""
        pick = self._exchange.pick if self._exchange is not None else None
        return pick.backend if pick is not None else None

    def client(self, fields: RequestFields) -> bytes:
        """Give the address of who asks: the peer, or whom a trusted peer names."""
        if fields.said is None or not self.trusted:
            return self.peer
        return client_address(fields.said, self.peer, self.proxy.trusted)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: a first head is awaited like any other, for the idle time; not for long by who accepts no more."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry
        self.made = True
        self.transport.set_write_buffer_limits(high=0)  # whatever waits is heard of, or it could not be counted
        times = self.proxy.times
        self.deadline = self.proxy.time() + (times.linger_s if self.proxy.stage is Stage.DRAINING else times.idle_s)
        self.proxy.downstream_made(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        self.proxy.counters.received_bytes += len(data)
        exchange = self._exchange
        if exchange is not None:
            if exchange.request_done:
                self.hold(data)
            else:
                exchange.send_body(data)
        elif self.last:
            return  # lingering: what comes now is nobody's
        elif self._repeatable is not None and not self._held and (head := parse_repeat(data, self._repeatable)):
            self._begin(head, b"")
        else:
            self._advance(data)

    def hold(self, data: bytes) -> None:
        """Keep bytes that belong to the next request, and read no more until its turn."""
        self._held += data
        self._scanned = 0
        self.pause_reading()
        self.account()

    def _advance(self, data: bytes) -> None:
        """Serve the requests that are there in full, one after another, and hold what is not."""
        if self._held:
            data = self._held + data
            self._held = b""
        limit = self.proxy.settings.limits.head_bytes
        scanned, self._scanned = self._scanned, 0
        self._busy = True
        while data and self._exchange is None and not self.last and not self.stalled:
            if data.startswith(b"\r\n"):  # an empty line before a request is to be ignored (RFC 9112 section 2.2)
                data = data[2:]
                scanned = 0
                continue
            end = data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0) + 4
            if end > limit or (end < 4 and len(data) > limit):
                self._refuse(Fault(431, "head-too-large", f"Expected headers of at most {limit} bytes in all."))
            elif end >= 4:
                data = self._serve(data[:end] if end < len(data) else data, data[end:])
            else:
                self._await_head(data, scanned)
                break
            scanned = 0
        self._busy = False
        if data and not self.last:
            self._held = data
        if self._held or self._accounted:
            self.account()
        self._settle()

    def _settle(self) -> None:
        """Leave the connection in the state that fits what `_advance` came to."""
        if self._exchange is not None:
            if self._held:
                self.pause_reading()
        elif self.last:
            self._end()
        elif self.stalled:
            self.pause_reading()
        elif self._ended:  # what is held can never become a whole request
            self.transport.close()
        else:
            if not self._held:
                self.deadline = self.proxy.time() + self.proxy.times.idle_s
            self.resume_reading()

    def _await_head(self, data: bytes, scanned: int) -> None:
        if not looks_like_head(data):
            self._refuse(
                Fault(
                    400,
                    "bad-request-line",
                    f"Expected an HTTP/1.1 request; this port speaks {'HTTPS' if self.https else 'plain HTTP'}.",
                )
            )
            return
        if not scanned:
            self.deadline = self.proxy.time() + self.proxy.times.head_s
        self._scanned = len(data)

    def _serve(self, raw: bytes, rest: bytes) -> bytes:
        """Serve one request; give back the bytes that belong to the next."""
        proxy = self.proxy
        try:
            head = proxy.reader.parse_head(raw)
        except HeadError as error:
            self._refuse(error.fault)
            return b""
        fields = head.fields
        if fields.probe or (proxy.has_health_paths and proxy.is_health_path(head.target)):
            self._answer_probe(head)
            return rest
        fields.upstream = self._complete(fields)
        repeatable = not (fields.length or fields.close or fields.upgrade or proxy.has_health_paths)
        self._repeatable = fields if repeatable and len(raw) <= REMEMBERED_BYTES else None
        self.last = fields.close
        if not fields.length:
            self._begin(head, b"")
            return rest
        if proxy.settings.limits.body_rate:
            self.review, self._reviewed = proxy.time() + proxy.times.body_s, 0
        self._begin(head, rest)
        rest, self._held = self._held, b""  # what the exchange found behind the body
        return rest

    def _begin(self, head: RequestHead, body: bytes) -> None:
        self.deadline = 0.0
        self._requests_left -= 1
        if not self._requests_left:  # below it, there is no limit
            self._last_request()
        exchange = self._exchange = Exchange(self, head)
        exchange.start(body)

    def _last_request(self) -> None:
        self.last = True
        self.proxy.counters.limits[Limit.REQUESTS] += 1

    def _complete(self, fields: RequestFields) -> bytes:
        """Build all that follows the request line upstream."""
        if fields.said is not None and self.trusted:
            forwarded = relayed_lines(fields.said, self.peer, fields.host, self.proxy.trusted, https=self.https)
        else:
            forwarded = forwarded_lines(self.peer, fields.host, https=self.https)
        upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: " + fields.upgrade if fields.upgrade else b""
        kept, fields.kept = fields.kept, b""  # its bytes go on living in what is built here
        return b"%b%b%b\r\n\r\n" % (kept, forwarded, upgrade)

    def _answer_probe(self, head: RequestHead) -> None:
        proxy = self.proxy
        proxy.counters.probes += 1
        self._unread = head.fields.length != 0
        self.last = head.fields.close or self._unread or proxy.parting
        health = proxy.health()
        self.send(
            respond(
                200 if health.ready else 503,
                f"{health.text}\n".encode(),
                content_type="text/plain",
                close=self.last,
                head_only=head.method == b"HEAD",
            )
        )

    def _refuse(self, fault: Fault) -> None:
        """Answer something that is no request we may pass on; nothing behind it can be understood."""
        counters = self.proxy.counters
        counters.faults[fault.reason] += 1
        counters.count_own(fault.status)
        self._unread = self.last = True
        self.send(answer(fault, close=True))

    # What the exchange asks for.

    def leave_unread(self) -> None:
        """Read no more of the request whose answer is about to go out: nobody waits for the rest."""
        self._unread = self.last = True

    def finished(self, now: float) -> None:
        """Go on to the next request: the exchange has ended with a whole response."""
        self._exchange = None
        if self._held or self.last or self._ended or self._reading_paused or self.stalled:
            if not self._busy:
                self._advance(b"")
        else:
            self.deadline = now + self.proxy.times.idle_s

    def break_off(self, *, reset: bool) -> None:
        """End in the middle of a response; `reset`, where a clean end would pass for the end of the body."""
        self._exchange = None
        self.last = True
        if reset:
            reset_connection(self.transport)
        else:
            self._close()

    def become_tunnel(
        self, upstream: "Upstream", *, websocket: bool, prepare: Callable[[ParkableTunnel], None] | None = None
    ) -> Tunnel:
        """Give both connections to a tunnel, with the bytes that came behind the request's head.

        prepare: makes ready one that can be parked, as it is made if this is given.
        """
        held, self._held = self._held, b""
        self.proxy.buffered.hold(self, 0)
        self.resume_reading()
        self._exchange = None
        tunnel = (ParkableTunnel if prepare is not None else Tunnel)(
            self.transport, upstream.transport, upstream.pool.load, self.proxy, upstream.pool.backend.identity,
            websocket=websocket,
        )  # fmt: skip
        if prepare is not None:
            assert isinstance(tunnel, ParkableTunnel)
            prepare(tunnel)
        self.proxy.tunnel_made(tunnel)
        self.proxy.downstream_lost(self, tunnel)
        self._taken_over(tunnel)
        if held:  # not before: the tunnel must hear that the backend does not take it
            tunnel.take_held(held)
        if self._ended and tunnel.downstream is not None:
            tunnel.downstream.eof_received()
        return tunnel

    def _taken_over(self, tunnel: Tunnel) -> None:
        """Tell a tunnel that the very bytes which opened it have not been taken: what waits is its own from now on."""
        if self.stalled and tunnel.downstream is not None:
            tunnel.downstream.pause_writing()

    def take_held(self) -> bytes:
        """Give what came behind a request that has no body, to an exchange that turns out to want it."""
        held, self._held = self._held, b""
        self.resume_reading()
        return held

    def return_to(self, tunnel: ParkableTunnel, waiting: list[bytes], cutter: Cutter | None) -> None:
        """Give the connection to a tunnel that has waited for its browser (see `ParkableTunnel.join`)."""
        self.proxy.buffered.hold(self, 0)
        self.resume_reading()
        self._exchange = None
        tunnel.join(self.transport, waiting, cutter)
        self.proxy.downstream_lost(self, tunnel)
        self._taken_over(tunnel)
        if self._ended and tunnel.downstream is not None:
            tunnel.downstream.eof_received()

    # The ends.

    def speak_plain(self, transport: asyncio.Transport, data: bytes) -> None:
        """Go on without TLS, to say in words that it was expected; close where even words would not be understood."""
        self.transport = transport
        self.https = False
        transport.set_protocol(self)
        if looks_like_head(data):
            self._refuse(PLAIN_ON_TLS)
            self._settle()
        else:
            self.last = True
            self._close()

    def close_if_idle(self) -> None:
        """Close a connection that stands between two requests, or else after the exchange that is running.

        Who is in the middle of a TLS handshake may ask once, and has little time for that.
        """
        if self.shaking:
            return
        if self._exchange is not None:
            self.last = True
        elif not self._held and not self.last:
            self.last = True
            self._close()

    def deadline_passed(self) -> None:
        """Act on a deadline: what was awaited has not come."""
        self.deadline = 0.0
        if self.shaking:
            self.shaking = False
            self.proxy.counters.handshakes[Handshake.TIMEOUT] += 1
            self.transport.abort()
        elif self.transport.is_closing() or self.stalled:
            unwritten = unsent_bytes(self.transport)
            if self.proxy.takes(self._unwritten, unwritten):  # slow, but not gone
                self._unwritten = unwritten
                self.deadline = self.proxy.time() + self.proxy.times.body_s
            else:
                self.transport.abort()
        elif self._exchange is not None:
            self._exchange.timed_out()
        elif self._scanned and not self.last:
            self._held = b""
            self._refuse(HEAD_TIMEOUT)
            self._settle()
        else:
            self._close()

    def eof_received(self) -> bool:
        """Go on with what was asked if the client closes its half; give False to close the connection."""
        self._ended = True
        if self._exchange is not None:
            return self._exchange.request_done
        return bool(self._held) and self.stalled

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything."""
        exchange, self._exchange = self._exchange, None
        self._held = b""
        self.proxy.buffered.hold(self, 0)
        self.proxy.downstream_lost(self)
        if exchange is not None:
            exchange.abandon()
