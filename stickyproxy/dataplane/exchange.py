"""One request and its response: pick a backend, send, read, and leave both connections in a known state.

Laws: nothing is sent twice but a replayable request on a connection that died before any byte of an answer, if that was
a pooled one or its backend is about to go; a backend that refuses is left for another at once; bytes behind a head are
never dropped; an exchange ends exactly once, by `_finish`, `_fail`, `_break_off`, `_upgrade` or `abandon`, each of
which lets go of the backend's connection.
"""

import asyncio
from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING

from stickyproxy.core import faults
from stickyproxy.core.affinity import choose
from stickyproxy.core.assets import Asset
from stickyproxy.core.backends import Cause, Phase, Pick, Pin
from stickyproxy.core.ejection import Failure
from stickyproxy.core.events import Happening, Kind
from stickyproxy.core.faults import Fault, HeadError, answer
from stickyproxy.core.forwarded import came_by_https
from stickyproxy.core.framing import BadBodyError, BodyReader, LengthReader, body_reader
from stickyproxy.core.histogram import BUCKETS_S
from stickyproxy.core.limits import Limit
from stickyproxy.core.nicegui import MARK, TOKEN_PARAMETER
from stickyproxy.core.parking import DIALOGUE_S, Step, agree_stateless, is_stateless, offer_stateless, read_extensions
from stickyproxy.core.request import CHUNKED, RequestHead, drop_fields
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead, parse_response_head
from stickyproxy.dataplane.asset_flights import Flight
from stickyproxy.dataplane.dial import ExhaustedError, UnreachableError, dial
from stickyproxy.dataplane.steering import Steering, page_body, visitor
from stickyproxy.dataplane.takeover import Takeover
from stickyproxy.dataplane.upstream import Upstream
from stickyproxy.dataplane.watch import TokenReader

if TYPE_CHECKING:
    from stickyproxy.dataplane.downstream import Downstream
    from stickyproxy.dataplane.parking import Parking
    from stickyproxy.dataplane.pool import Pool

_KEPT = Pin.KEPT

_FRESH_S = 1.0
"""A request that must not be sent twice takes a pooled connection only if it was in use within this time."""


class Exchange:
    """One request and its response, between its start and its end.

    What stands here are the values at the start; an exchange that needs no more costs no more.
    """

    pick: Pick | None = None
    upstream: Upstream | None = None
    request_done = True
    """The whole request has been taken from the client."""
    _body: BodyReader | None = None
    body_bytes = 0
    """So much of the request's body has come."""
    _unsent = b""
    """Body bytes that came before there was a connection."""
    _received = b""
    """The start of a response's head."""
    _response: BodyReader | None = None
    """Reads the final response's body; None until its head is sent."""
    _persistent = True
    """The backend will take another request on this connection."""
    _dialling: asyncio.Task[None] | None = None
    _excluded: frozenset[str] = frozenset()
    """Identities of backends that could not be reached."""
    _steering: Steering | None = None
    """What NiceGUI's own paths say; None for all others."""
    _flight: Flight | None = None
    """The fetch of an asset for all who want it, by this exchange or by another."""
    _takeover: Takeover | None = None
    """A browser's return to its parked page."""
    _until_close = False
    """The backend's connection ends with the response's body."""
    _unframed = False
    """Only the end of the client's connection tells the body's."""
    began = 0.0
    """When a backend was picked for it, or it began to wait for another's fetch: loop time, 0 before."""
    _first_byte = 0.0
    """When the final response's head was sent, where its end was still to come."""
    _interims = 0
    _retried = False

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self.downstream = downstream
        self.proxy = downstream.proxy
        self.head = head

    # The request's way: pick, connect, send.

    def start(self, body: bytes) -> None:
        """Begin; `body` is what came behind the head and belongs to the body."""
        fields = self.head.fields
        if fields.length:
            self.request_done = False
            self._body = body_reader(fields.length)
            self._unsent = body
            self.body_bytes = len(body)
        pick = None
        target = self.head.target
        if b"_" in target and (MARK in target or TOKEN_PARAMETER in target):  # most have not even the first
            self._steering = Steering(self.downstream, self.head)
            if self.proxy.parking is not None and self._returns(self.proxy.parking):
                return
            key = self._steering.cache_key() if self.proxy.assets is not None else None
            if key is not None and self.proxy.assets is not None:
                if asset := self.proxy.assets.find(key):
                    self._answer_asset(asset)
                    return
                self._flight = self.proxy.assets.board(key, self)
                if self._flight.waiting:
                    self.began = self.proxy.time()
                    self.downstream.deadline = self.began + self.proxy.times.response_s
                    return
        elif fields.tokens:
            pick = self.proxy.snapshot.settled.get(fields.tokens[0])
        if pick is not None:
            self._connect(pick)
        else:
            self._choose_and_connect()

    def _returns(self, parking: "Parking") -> bool:
        """Begin to give a browser back what was parked for it, if this is one that comes back."""
        steering = self._steering
        if steering is None or steering.who is None:
            return False
        takeover = Takeover.of(parking, steering.page, self.head, self.proxy.random)
        pick = self._choose() if takeover is not None else None
        if takeover is None or pick is None or pick.backend.identity != takeover.tunnel.identity:
            return False
        self.pick = pick
        self.began = self.proxy.time()
        self._resume(takeover)
        return True

    def _resume(self, takeover: Takeover) -> None:
        assert self.pick is not None
        self._takeover = takeover
        self.request_done = False  # so that what comes is given to `send_body`
        self.downstream.deadline = self.began + DIALOGUE_S
        self.downstream.send(takeover.greeting(self._cookie_line(self.pick) if self.pick.to_hand_out else b""))
        self.proxy.counters.count_request(101, self.pick)
        self.proxy.loop.call_soon(self._take_held)

    def _take_held(self) -> None:
        """Take what came behind the head of a request that opens a socket."""
        if self.downstream.exchange is self and (held := self.downstream.take_held()):
            self.send_body(held)

    def _go_on_returning(self, takeover: Takeover, data: bytes) -> None:
        """Take bytes of a browser that comes back, until its page is its own again."""
        downstream = self.downstream
        step, answer = takeover.feed(data)
        if answer:
            downstream.send(answer)
        if step is Step.RETURNED and takeover.tunnel.can_park:
            self._takeover = None
            downstream.deadline = 0.0
            downstream.return_to(takeover.tunnel, takeover.waiting, takeover.rest)
        elif step is not Step.OPEN:  # it is a stranger, or the backend has gone meanwhile
            downstream.break_off(reset=False)

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

    def _answer_asset(self, asset: Asset) -> None:
        """End with a file from the cache."""
        downstream, now = self.downstream, self.proxy.time()
        downstream.last = downstream.last or self.proxy.parting
        close = b"\r\nConnection: close" if downstream.last else b""
        response = asset.answer(now, self.head.fields.value(b"if-none-match") or b"", close)
        self.proxy.counters.count_own(int(response[9:12]))
        self.proxy.counters.whole.observe(now - (self.began or now))
        downstream.send(response)
        downstream.finished(now, request_done=True)

    def _choose(self, cause: Cause = Cause.NONE) -> Pick | None:
        proxy = self.proxy
        key = proxy.hash_key(self.head, self.downstream) if proxy.hashing else None
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
        now = self.proxy.time()
        if not self.began:
            self.began = now
        upstream = None
        # A socket gets a connection of its own: uvicorn may still be about to end the exchange before it there, and
        # then closes the connection 5 s later as an idle one, whatever it has become.
        if not self._retried and not self.head.fields.upgrade:
            upstream = pool.take(now - _FRESH_S)
            if upstream is None and self._replayable:
                upstream = pool.take(now - self.proxy.times.upstream_idle_s)
        if upstream is not None:
            self._send(upstream, now)
        elif not self.head.fields.upgrade and pool.overloaded(now):
            self._turn_away(pick)
        else:
            if not self.request_done:  # so that the client's half-close behind a body is not heard before the body is
                self.downstream.pause_reading()
            self._dialling = self.proxy.loop.create_task(self._dial(pool))

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
        line = head.line
        if not head.fields.host:  # HTTP/1.0 may leave it out, HTTP/1.1 may not
            line += b"\r\nHost: %b" % str(upstream.pool.backend.address).encode()
        rest = head.fields.upstream
        if head.fields.upgrade and self._steering is not None and self._steering.who is not None:
            rest = offer_stateless(rest)
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
        if self._takeover is not None:
            self._go_on_returning(self._takeover, data)
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
        return waiting + (self.upstream.transport.get_write_buffer_size() if self.upstream is not None else 0)

    # The response's way.

    @property
    def answering(self) -> bool:
        """Say whether the head of the final response has been sent."""
        return self._response is not None

    def pause_response(self) -> None:
        """Stop reading the response: the client takes no more for now.

        A file that others wait for comes in whole all the same: it is small enough to be kept anyway.
        """
        if self.upstream is not None and not (self._flight is not None and self._flight.keeping):
            self.upstream.pause_reading()

    def response_received(self, data: bytes) -> None:
        """Take a piece of the backend's answer."""
        reader = self._response
        if reader is None:
            self._read_response_head(self._received + data if self._received else data)
            return
        try:
            out, taken = reader.feed(data)
        except BadBodyError:
            self._break_off()
            return
        if out:
            self.downstream.send(out)
        if reader.done:
            self._finish(clean=taken == len(data))

    def _read_response_head(self, data: bytes) -> None:
        limit = self.proxy.settings.limits.head_bytes
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > limit:
                self._received = data
                line, line_feed, _ = data.partition(b"\n")
                odd = line[:7] != b"HTTP/1."[: len(line)] or (line_feed and not line.endswith(b"\r"))
                if odd or len(data) > limit:
                    self._bad_response()
                return
            try:
                response = parse_response_head(data[:end], self.head.method)
            except HeadError:
                self._bad_response()
                return
            upstream = self.upstream
            if upstream is not None and upstream.pool.failing:
                self.proxy.failures.answered(upstream.pool)
            if response.status >= 200:
                self._send_response(response, data, end)
                return
            self._received = b""
            if response.status == 101:
                self._upgrade(response, data, end)
                return
            self._interims += 1
            if self._interims > self.proxy.settings.limits.interim_responses:
                self._bad_response()
                return
            if self.head.minor:  # HTTP/1.0 knows no interim responses (RFC 9110 section 15.2)
                self.downstream.send(_lines(response.kept, data, end) + b"\r\n\r\n")
            data = data[end:]
            if not data:
                return

    def _send_response(self, response: ResponseHead, data: bytes, end: int) -> None:
        """Send the final head and what came behind it (`data` from `end` on), and get ready for the rest."""
        downstream, pick, counters, length = self.downstream, self.pick, self.proxy.counters, response.length
        upstream = self.upstream
        assert pick is not None
        assert upstream is not None
        kept, added = response.kept, b""
        reader: BodyReader | None = None
        if self._steering is not None and self._steering.own:
            if response.status >= 400 and self._steering.is_asset:
                other = self._steering.asset_missing(pick, self._excluded) if response.status == 404 else None
                if other is not None:
                    self._drop_upstream()
                    self._connect(other)
                    return
                # NiceGUI marks even a 404 here as immutable for a year; no browser shall keep it for a moment.
                kept = drop_fields(_lines(kept, data, end), (b"cache-control",))
                added = b"\r\nCache-Control: no-store"
            self._steering.answered(pick, response.status)
            if self._flight is not None:
                reader = self._flight.keep(response, _lines(kept, data, end), plain=not self.head.minor)
            else:
                reader = self._steering.poll_body(pick, response, data[:end])
        elif response.page:
            if self.head.navigation and self.proxy.reloads.loops(visitor(downstream, self.head), self.proxy.time()):
                self.proxy.happenings.add(Happening(Kind.RELOAD_LOOP, str(pick.backend)))
                self._fail(faults.RELOAD_LOOP)
                return
            reader = page_body(downstream, self.head, pick, response, data[:end], plain=not self.head.minor)
            if isinstance(reader, TokenReader):
                kept = drop_fields(_lines(kept, data, end), (b"content-length", b"transfer-encoding"))
                length = CHUNKED  # which is how it leaves
                if self.head.minor:
                    added = b"\r\nTransfer-Encoding: chunked"
        if pick.pin is _KEPT:
            counters.requests[response.status // 100 * 4] += 1  # where those stand that were kept
        else:
            counters.count_request(response.status, pick)
            if pick.pin is Pin.MOVED:
                self._note_move(pick)
            if pick.sticky and not response.shared:
                added += self._cookie_line(pick)
        upstream.pool.tally.requests += 1
        plain = length == CHUNKED and not self.head.minor
        if response.chunked and not self.head.minor:
            kept = drop_fields(_lines(kept, data, end), (b"transfer-encoding",))
        if plain or length == UNTIL_CLOSE:
            self._until_close = length == UNTIL_CLOSE
            self._unframed = downstream.last = True
        elif not self.request_done or self.proxy.parting:
            downstream.last = True
        if downstream.last:
            added += b"\r\nConnection: close"
        if response.close:
            self._persistent = False
        if self.request_done:
            downstream.deadline = 0.0
        behind = len(data) - end
        if reader is None and length >= 0 and behind <= length:  # as nearly always: nothing came behind it
            if kept is not None or added:
                data = b"%b%b\r\n\r\n%b" % (_lines(kept, data, end), added, data[end:])
            downstream.send(data)
            if behind == length:
                self._finish(clean=True)
            else:
                self._first_byte = self.proxy.time()
                self._response = LengthReader(length - behind)
            return
        self._first_byte = self.proxy.time()
        if reader is None:
            reader = body_reader(length, plain=plain)
        self._response = reader
        try:
            body, taken = reader.feed(data[end:])
        except BadBodyError:
            body, taken = b"", -1
        downstream.send(b"%b%b\r\n\r\n%b" % (_lines(kept, data, end), added, body))
        if taken < 0:
            self._break_off()
        elif reader.done:
            self._finish(clean=taken == behind)

    def _cookie_line(self, pick: Pick) -> bytes:
        try:
            token = self.proxy.snapshot.token_of(pick.backend)
        except KeyError:  # it left the snapshot since it was picked
            return b""
        said, https = self.head.fields.said, self.downstream.https
        if said is not None and self.downstream.trusted:
            https = came_by_https(said, here=https)
        return self.proxy.cookie.line(token, https=https)

    def _upgrade(self, response: ResponseHead, data: bytes, end: int) -> None:
        """Hand both connections to a tunnel, with every byte that came behind the heads."""
        offered = {protocol.strip().lower() for protocol in self.head.fields.upgrade.split(b",")}
        upstream, pick, downstream = self.upstream, self.pick, self.downstream
        if not self.head.fields.upgrade or response.upgrade.lower() not in offered:
            self._bad_response()
            return
        assert upstream is not None
        assert pick is not None
        if self._flight is not None:
            self._flight.end()
        cookie = self._cookie_line(pick) if pick.to_hand_out else b""
        handshake = self._steering.handshake() if self._steering is not None else None
        behind = data[end:] if handshake is None else handshake.feed(data[end:])
        kept, websocket = response.kept or b"", response.upgrade.lower() == b"websocket"
        prepare = None
        if websocket and self._steering is not None and self._steering.who is not None:
            kept = agree_stateless(kept)
            extensions = read_extensions(kept)
            if is_stateless(extensions):
                prepare = partial(self._steering.park, extensions=extensions)
        downstream.send(
            b"%b\r\nConnection: Upgrade\r\nUpgrade: %b%b\r\n\r\n%b"
            % (kept, response.upgrade, cookie, b"" if prepare is not None else behind)
        )
        self.proxy.counters.count_request(101, pick)
        if pick.pin is Pin.MOVED:
            self._note_move(pick)
        upstream.pool.tally.requests += 1
        upstream.exchange = self.upstream = None
        upstream.pool.upstreams.discard(upstream)
        tunnel = downstream.become_tunnel(upstream, websocket=websocket, prepare=prepare)
        if prepare is not None and behind and tunnel.upstream is not None:
            tunnel.upstream.data_received(behind)
        if self._steering is not None:
            self._steering.tunnel_made(tunnel, pick, handshake)

    def _note_move(self, pick: Pick) -> None:
        """Note for the event log whom a session has left for whom."""
        proxy, steering = self.proxy, self._steering
        places: list[str | bytes] = []
        if steering is not None and (home := steering.lives_on()):
            places.append(home)
        places += steering.tokens() if steering is not None else self.head.fields.tokens
        places += self._excluded
        left = next(filter(None, map(proxy.name_of, places)), "")
        opens = int(steering is not None and steering.opens)
        proxy.happenings.add(Happening(Kind.MOVED, left, str(pick.backend), pick.cause.value, pages=opens))

    def unanswered_since(self) -> float | None:
        """Give the loop time at which the request had been sent, while the backend owes it its first byte.

        None otherwise, and for what may rightly wait long: a socket, and a long poll of engine.io. Nothing is noted
        down for this: the deadline of the answer tells when its time began.
        """
        downstream, head = self.downstream, self.head
        owed = self.upstream is not None and self.request_done and self._response is None
        if not owed or self._received or self._interims or downstream.stalled or not downstream.deadline:
            return None
        if head.fields.upgrade or b"transport=polling" in head.target:
            return None
        return downstream.deadline - self.proxy.times.response_s

    # The ends.

    def _finish(self, *, clean: bool) -> None:
        """End with a whole response; `clean`: the backend sent nothing behind it."""
        now = self.proxy.time()
        if self._first_byte:
            self._count_time(now)
        else:  # as nearly always, so it stands here and not behind a call
            whole, took_s = self.proxy.counters.whole, now - self.began
            whole.counts[bisect_left(BUCKETS_S, took_s)] += 1
            whole.sum_s += took_s
        if self._flight is not None:
            self._flight.end(now)
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            # What a backend leaves unread would hold up the next request there, and nobody would hear of that.
            if clean and self._persistent and self.request_done and not upstream.stalled:
                if upstream.reading_paused:
                    upstream.resume_reading()
                upstream.pool.put(upstream, now)
            else:
                upstream.transport.abort()
        self.downstream.finished(now, request_done=self.request_done)

    def _fail(self, fault: Fault) -> None:
        """End with an answer of our own; nothing of a final response has been sent yet."""
        self._release()
        downstream, head = self.downstream, self.head
        downstream.last = downstream.last or not self.request_done or self.proxy.parting
        counters = self.proxy.counters
        counters.faults[fault.reason] += 1
        counters.count_own(fault.status)
        downstream.send(answer(fault, html=head.navigation, close=downstream.last, head_only=head.method == b"HEAD"))
        now = self.proxy.time()
        counters.whole.observe(now - (self.began or now))
        downstream.finished(now, request_done=self.request_done)

    def _count_time(self, now: float) -> None:
        """Count how long a response took that did not come at once."""
        self.proxy.counters.first_bytes.observe(self._first_byte - self.began)
        self.proxy.counters.wholes.observe(now - self.began)

    def _bad_response(self) -> None:
        assert self.pick is not None
        self.proxy.log.warning("backend %s sent a response that is not valid HTTP/1.1", self.pick.backend)
        self._fail(faults.BAD_RESPONSE)

    def _break_off(self) -> None:
        """End in the middle of a response, so that the client can tell that it is not whole."""
        self._release()
        self.proxy.counters.faults["broken-off"] += 1
        if self._first_byte:
            self._count_time(self.proxy.time())
        # Where only the connection's end tells the body's, a clean end would lie: reset it.
        self.downstream.break_off(reset=self._unframed)

    def upstream_lost(self, exc: Exception | None) -> None:
        """Hear that the backend's connection has ended."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        if self._until_close and exc is None:
            self._finish(clean=False)
        elif self._response is not None:
            self._break_off()
        elif self._received or self._interims:
            self._fail(faults.CLOSED_EARLY)
        elif self._perhaps_unread(upstream) and self.proxy.failures.may_retry():
            self._retried = True
            if self.pick is not None and self.pick.backend.identity in self.proxy.snapshot.by_identity:
                self._connect(self.pick)
            else:  # it has left the snapshot meanwhile
                self._choose_and_connect()
        else:
            if not upstream.reused and self.request_done:  # else its end may be older than the request, or meant for it
                self.proxy.failures.failed(upstream.pool, Failure.CLOSED)
            self._fail(faults.CLOSED_EARLY)

    def _perhaps_unread(self, upstream: Upstream) -> bool:
        """Say whether a request whose connection has ended without an answer may be sent again, once.

        A pooled connection may have been closed before the request came. So may a fresh one to a backend that is about
        to go: when its server stops listening, the kernel resets what it had not accepted yet.
        """
        going = upstream.pool.backend.phase is Phase.DRAINING
        return (upstream.reused or going) and self._replayable and not self._retried

    def timed_out(self) -> None:
        """Hear that the downstream connection's deadline has passed."""
        if self._takeover is not None:
            self.downstream.break_off(reset=False)
        elif self._response is not None:
            self._break_off()
        elif not self.request_done:
            self._fail(faults.BODY_TIMEOUT)
        else:
            if self.upstream is not None and not (self._received or self._interims):
                self.proxy.failures.failed(self.upstream.pool, Failure.SILENT)
            self._fail(faults.RESPONSE_TIMEOUT)

    def abandon(self) -> None:
        """End because the client has gone."""
        if self._first_byte:
            self._count_time(self.proxy.time())
        self._release()

    def _release(self) -> None:
        """Let go of everything, and of those who wait for the same file."""
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._flight is not None:
            self._flight.end()
        self._drop_upstream()

    def _drop_upstream(self) -> None:
        """Let go of the backend's connection in whatever state it is."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            upstream.transport.abort()


def _lines(kept: bytes | None, data: bytes, end: int) -> bytes:
    """Give a response's head without its last empty line: what was kept of it, or all of it, up to `end` in `data`."""
    return data[: end - 4] if kept is None else kept
