"""One request and its response: reads and passes the answer on, and leaves both connections in a known state.

Laws: bytes behind a head are never dropped; an exchange ends exactly once, by `_finish`, `_fail`, `_break_off`,
`_upgrade` or `abandon`, each of which lets go of the backend's connection. How the request gets to a backend, and what
is sent twice, stands in `sending.py`.
"""

from bisect import bisect_left

from stickyproxy.core import faults
from stickyproxy.core.assets import Asset
from stickyproxy.core.backends import Pick, Pin
from stickyproxy.core.ejection import Failure
from stickyproxy.core.events import Happening, Kind
from stickyproxy.core.faults import Fault, HeadError, answer
from stickyproxy.core.forwarded import came_by_https
from stickyproxy.core.framing import BadBodyError, BodyReader, LengthReader, body_reader
from stickyproxy.core.histogram import BUCKETS_S
from stickyproxy.core.request import CHUNKED, drop_fields
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead
from stickyproxy.dataplane.returning import Returning
from stickyproxy.dataplane.steering import page_body, visitor
from stickyproxy.dataplane.watch import TokenReader

_KEPT = Pin.KEPT

_SHORT_S = BUCKETS_S[0]


class Exchange(Returning):
    """One request and its response, between its start and its end."""

    __slots__ = ()

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

    def _body_received(self, data: bytes, reader: BodyReader) -> None:
        """Pass on a piece of the response's body."""
        try:
            out, taken = reader.feed(data)
        except BadBodyError:
            self._break_off()
            return
        if out:
            self.downstream.send(out)
        if reader.done:
            self._persistent = self._persistent and taken == len(data)
            self._finish()

    def response_received(self, data: bytes) -> None:
        """Take a piece of the backend's answer."""
        if self._response is not None:
            self._body_received(data, self._response)
            return
        if self._received:
            data = self._received + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            limit = self.proxy.settings.limits.head_bytes
            if end < 4 or end > limit:
                self._received = data
                line, line_feed, _ = data.partition(b"\n")
                odd = line[:7] != b"HTTP/1."[: len(line)] or (line_feed and not line.endswith(b"\r"))
                if odd or len(data) > limit:
                    self._bad_response()
                return
            try:
                response = self.proxy.response_reader.parse_head(data[:end], self.head.method)
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
        proxy, downstream, pick, upstream = self.proxy, self.downstream, self.pick, self.upstream
        assert pick is not None
        assert upstream is not None
        counters, length, kept, added = proxy.counters, response.length, response.kept, b""
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
        plain = False
        if response.chunked or length < 0:
            plain = length == CHUNKED and not self.head.minor
            if response.chunked and not self.head.minor:
                kept = drop_fields(_lines(kept, data, end), (b"transfer-encoding",))
            if plain or length == UNTIL_CLOSE:
                self._until_close = length == UNTIL_CLOSE
                self._unframed = downstream.last = True
        if self.request_done:
            downstream.deadline = 0.0
        if proxy.parting or not self.request_done:
            downstream.last = True
        if downstream.last:
            added += b"\r\nConnection: close"
        if response.close:
            self._persistent = False
        behind = len(data) - end
        if reader is None and behind <= length:  # as nearly always: its length is known, and nothing came behind it
            if kept is not None or added:
                data = b"%b%b\r\n\r\n%b" % (_lines(kept, data, end), added, data[end:])
            downstream.send(data)
            if behind == length:
                self._finish()
            else:
                self._first_byte = proxy.time()
                self._response = LengthReader(length - behind)
            return
        self._first_byte = proxy.time()
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
            self._persistent = self._persistent and taken == behind
            self._finish()

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
        if websocket and self._steering is not None:
            kept, prepare = self._steering.park(kept)
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

    def _answer_asset(self, asset: Asset) -> None:
        """End with a file from the cache."""
        downstream, now = self.downstream, self.proxy.time()
        downstream.last = downstream.last or self.proxy.parting
        close = b"\r\nConnection: close" if downstream.last else b""
        response = asset.answer(now, self.head.fields.value(b"if-none-match") or b"", close)
        self.proxy.counters.count_own(int(response[9:12]))
        self.proxy.counters.whole.observe(now - (self.began or now))
        downstream.send(response)
        downstream.finished(now)

    def _finish(self) -> None:
        """End with a whole response."""
        proxy = self.proxy
        clock = proxy.time  # which is quicker than to call it as if it were a method
        now = clock()
        if self._first_byte:
            self._count_time(now)
        else:  # as nearly always, so it stands here and not behind a call
            whole, took_s = proxy.counters.whole, now - self.began
            whole.sum_s += took_s
            whole.counts[bisect_left(BUCKETS_S, took_s) if took_s > _SHORT_S else 0] += 1
        if self._flight is not None:
            self._flight.end(now)
        downstream, upstream = self.downstream, self.upstream
        if not self.request_done:
            self._persistent = False
            downstream.leave_unread()
        if upstream is not None:
            self.upstream = upstream.exchange = None
            # What a backend leaves unread would hold up the next request there, and nobody would hear of that.
            if self._persistent and not upstream.stalled:
                if upstream.reading_paused:
                    upstream.resume_reading()
                upstream.pool.put(upstream, now)
            else:
                upstream.transport.abort()
        downstream.finished(now)

    def _fail(self, fault: Fault) -> None:
        """End with an answer of our own; nothing of a final response has been sent yet."""
        self._release()
        downstream, head = self.downstream, self.head
        if not self.request_done:
            downstream.leave_unread()
        downstream.last = downstream.last or self.proxy.parting
        counters = self.proxy.counters
        counters.faults[fault.reason] += 1
        counters.count_own(fault.status)
        downstream.send(answer(fault, html=head.navigation, close=downstream.last, head_only=head.method == b"HEAD"))
        now = self.proxy.time()
        counters.whole.observe(now - (self.began or now))
        downstream.finished(now)

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
            self._finish()
        elif self._response is not None:
            self._break_off()
        elif self._received or self._interims:
            self._fail(faults.CLOSED_EARLY)
        elif not self._send_again(upstream):
            if not upstream.reused and self.request_done:  # else its end may be older than the request, or meant for it
                self.proxy.failures.failed(upstream.pool, Failure.CLOSED)
            self._fail(faults.CLOSED_EARLY)

    def timed_out(self) -> None:
        """Hear that the downstream connection's deadline has passed."""
        if self.takeover is not None:
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
