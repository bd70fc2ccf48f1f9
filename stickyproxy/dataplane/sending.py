"""The request's half of an exchange: pick a backend, take a connection or dial, send, and once more where it is safe.

Laws: nothing is sent twice but a replayable request on a connection that died before any byte of an answer, if that was
a pooled one or its backend is about to go; a backend that refuses is left for another at once.
"""

import asyncio
from typing import TYPE_CHECKING

from stickyproxy.core import faults
from stickyproxy.core.affinity import choose
from stickyproxy.core.assets import Asset
from stickyproxy.core.backends import Cause, Phase, Pick, Pin
from stickyproxy.core.faults import Fault
from stickyproxy.core.framing import BadBodyError, BodyReader, body_reader
from stickyproxy.core.limits import Limit
from stickyproxy.core.nicegui import MARK, TOKEN_PARAMETER
from stickyproxy.core.request import RequestHead
from stickyproxy.dataplane.asset_flights import Flight
from stickyproxy.dataplane.dial import ExhaustedError, UnreachableError, dial
from stickyproxy.dataplane.steering import Steering
from stickyproxy.dataplane.takeover import Takeover
from stickyproxy.dataplane.upstream import Upstream

if TYPE_CHECKING:
    from stickyproxy.dataplane.downstream import Downstream
    from stickyproxy.dataplane.parking import Parking
    from stickyproxy.dataplane.pool import Pool

_UNDERSCORE = ord("_")  # as a number, which is found in bytes much sooner than bytes in bytes

_FRESH_S = 1.0
"""A request that must not be sent twice takes a pooled connection only if it was in use within this time."""


class Sending:
    """A request on its way to a backend; what an exchange does with the answer, and how it ends, stands in `Exchange`.

    began: when a backend was picked for it, or it began to wait for another's fetch: loop time, 0 before.
    request_done: the whole request has been taken from the client. body_bytes: so much of its body has come.
    """

    __slots__ = (
        "_body", "_dialling", "_excluded", "_first_byte", "_flight", "_interims", "_persistent", "_received",
        "_response", "_retried", "_steering", "_unframed", "_unsent", "_until_close", "began", "body_bytes",
        "downstream", "head", "pick", "proxy", "request_done", "takeover", "upstream",
    )  # fmt: skip

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self.downstream = downstream
        self.proxy = downstream.proxy
        self.head = head
        self.pick: Pick | None = None
        self.upstream: Upstream | None = None
        self.began = 0.0
        self.request_done = True
        self.body_bytes = 0
        self._body: BodyReader | None = None
        self._unsent = b""  # body bytes that came before there was a connection
        self._received = b""  # the start of a response's head
        self._response: BodyReader | None = None  # reads the final response's body; None until its head is sent
        self._dialling: asyncio.Task[None] | None = None
        self._excluded: frozenset[str] = frozenset()  # identities of backends that could not be reached
        self._steering: Steering | None = None  # what NiceGUI's own paths say; None for all others
        self._flight: Flight | None = None  # the fetch of an asset for all who want it, by this exchange or another
        self.takeover: Takeover | None = None  # the way back of a browser to its parked page
        self._retried = False
        # Of the other half, since a second call would cost every request.
        self._persistent = True  # the backend will take another request here, and sends nothing behind its answer
        self._until_close = False  # the backend's connection ends with the response's body
        self._unframed = False  # only the end of the client's connection tells the body's
        self._first_byte = 0.0  # when the final response's head was sent, where its end was still to come
        self._interims = 0

    # What `Exchange` says.

    def _fail(self, fault: Fault) -> None:
        """End with an answer of our own."""
        raise NotImplementedError

    def _break_off(self) -> None:
        """End in the middle of a response."""
        raise NotImplementedError

    def _answer_asset(self, asset: Asset) -> None:
        """End with a file from the cache."""
        raise NotImplementedError

    def _returns(self, parking: "Parking", steering: Steering) -> bool:
        """Say whether this is a browser that comes back to its parked page, and begin to greet it."""
        raise NotImplementedError

    def _go_on_returning(self, takeover: Takeover, data: bytes) -> None:
        """Take bytes of a browser that comes back."""
        raise NotImplementedError

    def response_received(self, data: bytes) -> None:
        """Take a piece of the backend's answer."""
        raise NotImplementedError

    def upstream_lost(self, exc: Exception | None) -> None:
        """Hear that the backend's connection has ended."""
        raise NotImplementedError

    def unanswered_since(self) -> float | None:
        """Give the loop time since which the backend owes the first byte of an answer; None where it does not."""
        raise NotImplementedError

    # Pick, connect, send.

    def start(self, body: bytes) -> None:
        """Begin; `body` is what came behind the head and belongs to the body."""
        proxy, head = self.proxy, self.head
        fields, target = head.fields, head.target
        if fields.length:
            self.request_done = False
            self._body = body_reader(fields.length)
            self._unsent = body
            self.body_bytes = len(body)
        pick = None
        if _UNDERSCORE in target and (MARK in target or TOKEN_PARAMETER in target):  # most have not even the first
            self._steering = Steering(self.downstream, head)
            if proxy.parking is not None and self._returns(proxy.parking, self._steering):
                return
            key = self._steering.cache_key() if proxy.assets is not None else None
            if key is not None and proxy.assets is not None:
                if asset := proxy.assets.find(key):
                    self._answer_asset(asset)
                    return
                self._flight = proxy.assets.board(key, self)
                if self._flight.waiting:
                    self.began = proxy.time()
                    self.downstream.deadline = self.began + proxy.times.response_s
                    return
        elif fields.tokens:
            pick = proxy.snapshot.settled.get(fields.tokens[0])
        if pick is not None:
            self._connect(pick)
        else:
            self._choose_and_connect()

    def _choose_and_connect(self) -> None:
        pick = self._choose()
        if pick is None:
            self._fail(faults.NO_BACKEND)
        else:
            self._connect(self._steering.right_version(pick) if self._steering is not None else pick)

    def flight_landed(self, asset: Asset | None) -> None:
        """Hear that the fetch this exchange waited for has ended: with the file, or with nothing for others."""
        self.downstream.deadline = 0.0
        if asset is not None:
            self._answer_asset(asset)
        else:
            self._choose_and_connect()

    def _choose(self, cause: Cause = Cause.NONE) -> Pick | None:
        proxy = self.proxy
        wanted = proxy.settings.affinity.hash_key
        key = wanted.read(self.head, self.downstream.client(self.head.fields)) if wanted is not None else None
        steering = self._steering
        return choose(
            steering.tokens() if steering is not None else self.head.fields.tokens,
            key, proxy.snapshot, proxy.balancer, proxy.time(),
            page=steering.lives_on() if steering is not None else None,
            navigation=self.head.navigation, excluded=self._excluded, cause=cause,
        )  # fmt: skip

    @property
    def _replayable(self) -> bool:
        return self.head.replayable and (self._steering is None or not self._steering.once)

    def _connect(self, pick: Pick) -> None:
        """Send by a pooled connection, or dial."""
        self.pick = pick
        proxy = self.proxy
        pool = proxy.pools.get(pick.backend.identity) or proxy.pool_of(pick.backend)
        clock = proxy.time  # which is quicker than to call it as if it were a method
        now = clock()
        if not self.began:
            self.began = now
        upstream, upgrade = None, self.head.fields.upgrade
        # A socket gets a connection of its own: uvicorn may still be about to end the exchange before it there, and
        # then closes the connection 5 s later as an idle one, whatever it has become.
        if not upgrade and not self._retried:
            upstream = pool.take(now - _FRESH_S)
            if upstream is None and self._replayable:
                upstream = pool.take(now - proxy.times.upstream_idle_s)
        if upstream is not None:
            self._send(upstream, now)
        elif not upgrade and pool.overloaded(now):
            self._turn_away(pick)
        else:
            if not self.request_done:  # so that the client's half-close behind a body is not heard before the body is
                self.downstream.pause_reading()
            self._dialling = proxy.loop.create_task(self._dial(pool))

    def _turn_away(self, pick: Pick) -> None:
        """Add nothing to what waits for a backend in vain: go elsewhere, or say so where that would lose a page."""
        self.proxy.counters.limits[Limit.PENDING] += 1
        other = None
        if pick.pin is Pin.NEW:
            self._excluded |= {pick.backend.identity}
            other = self._choose()
        if other is not None:
            self._connect(other)
        else:
            self._fail(faults.TOO_MANY_PENDING)

    async def _dial(self, pool: "Pool") -> None:
        """Open a connection to the picked backend; go on with `_send`, another backend or an answer of our own."""
        try:
            upstream = await dial(self.proxy, pool, self._patience_s)
        except UnreachableError as error:
            self._dialling = None
            self._move(error.cause, error.fault)
        except ExhaustedError as error:
            self._dialling = None
            self._fail(error.fault)
        else:
            self._dialling = None
            self._send(upstream, self.proxy.time())

    @property
    def _patience_s(self) -> float:
        """Longest wait for a connection attempt that gets no answer: who looks at a blank page does not wait longer.

        Where there is no other backend to move to, waiting is all that is left.
        """
        times, hold_s = self.proxy.times, self.proxy.settings.affinity.hold_s
        if not hold_s or not (self.head.navigation or self.head.fields.upgrade) or self.pick is None:
            return times.connect_s
        tried = self._excluded | {self.pick.backend.identity}
        others = any(identity not in tried for identity in self.proxy.snapshot.by_identity)
        return min(hold_s, times.connect_s) if others else times.connect_s

    def _move(self, cause: Cause, fault: Fault) -> None:
        """Leave a backend that cannot be reached for another; its pages are lost with it, a dead end would be worse."""
        assert self.pick is not None
        self._excluded |= {self.pick.backend.identity}
        pick = None
        if self._steering is not None and self._steering.asking:
            pick = self._steering.asset_missing(self.pick, self._excluded)
        pick = pick or self._choose(cause)
        if pick is not None:
            self._connect(pick)
        else:
            self._fail(fault)

    def _send(self, upstream: Upstream, now: float) -> None:
        self.upstream = upstream
        self._received = b""
        upstream.exchange = self
        head, downstream = self.head, self.downstream
        line, fields = head.line, head.fields
        if not fields.host:  # HTTP/1.0 may leave it out, HTTP/1.1 may not
            line += b"\r\nHost: %b" % str(upstream.pool.backend.address).encode()
        rest = fields.upstream
        if fields.upgrade and self._steering is not None and (parkable := self._steering.parkable()) is not None:
            rest = parkable
        upstream.transport.write(line + rest)
        if self.request_done:
            downstream.deadline = now + self.proxy.times.response_s
        else:
            unsent, self._unsent = self._unsent, b""
            downstream.resume_reading()
            self.body_bytes -= len(unsent)  # which are counted once more
            self.send_body(unsent)
            downstream.account()

    def send_body(self, data: bytes) -> None:
        """Pass on bytes of the request's body; what lies behind its end goes back to the downstream connection."""
        downstream = self.downstream
        times = self.proxy.times
        self.body_bytes += len(data)
        if self.takeover is not None:
            self._go_on_returning(self.takeover, data)
            return
        if self.upstream is None:  # not connected yet: hold what has come and stop reading
            self._unsent += data
            downstream.pause_reading()
            downstream.account()
            return
        assert self._body is not None
        try:
            out, taken = self._body.feed(data)
        except BadBodyError:
            if self._response is not None:
                self._break_off()
            else:
                self._fail(faults.BAD_BODY)
            return
        if out:
            self.upstream.transport.write(out)
        if not self._body.done:
            downstream.deadline = self.proxy.time() + times.body_s
            return
        self.request_done = True
        if self._response is None:
            downstream.deadline = self.proxy.time() + times.response_s
        elif not downstream.stalled:
            downstream.deadline = 0.0
        if taken < len(data):
            downstream.hold(data[taken:])

    @property
    def waiting_bytes(self) -> int:
        """Count the bytes that wait for a connection, or for a backend that does not take them yet."""
        waiting = len(self._unsent)
        if self.takeover is not None:
            waiting += self.takeover.waiting_bytes
        return waiting + (self.upstream.transport.get_write_buffer_size() if self.upstream is not None else 0)

    def _send_again(self, lost: Upstream) -> bool:
        """Send once more what a connection has not answered before its end, where that is safe; say whether."""
        if not (self._perhaps_unread(lost) and self.proxy.failures.may_retry()):
            return False
        self._retried = True
        if self.pick is not None and self.pick.backend.identity in self.proxy.snapshot.by_identity:
            self._connect(self.pick)
        else:  # it has left the snapshot meanwhile
            self._choose_and_connect()
        return True

    def _perhaps_unread(self, upstream: Upstream) -> bool:
        """Say whether a request whose connection has ended without an answer may be sent again, once.

        A pooled connection may have been closed before the request came. So may a fresh one to a backend that is about
        to go: when its server stops listening, the kernel resets what it had not accepted yet.
        """
        going = upstream.pool.backend.phase is Phase.DRAINING
        return (upstream.reused or going) and self._replayable and not self._retried
