"""One request and its response: pick a backend, send, read, and leave both connections in a known state.

Laws: nothing is sent twice but a replayable request on a pooled connection that died before any byte of an answer;
a backend that refuses is left for another at once; bytes behind a head are never dropped; an exchange ends exactly
once, by `_finish`, `_fail`, `_break_off`, `_upgrade` or `abandon`, each of which lets go of the backend's connection.
"""

import asyncio
import errno
from typing import TYPE_CHECKING

from stickyproxy.core import faults
from stickyproxy.core.affinity import choose, keep
from stickyproxy.core.backends import Cause, Phase, Pick, Pin
from stickyproxy.core.faults import Fault, HeadError, answer
from stickyproxy.core.forwarded import came_by_https, forwarded_lines, relayed_lines
from stickyproxy.core.framing import BadBodyError, BodyReader, LengthReader, UntilCloseReader, body_reader
from stickyproxy.core.request import CHUNKED, RequestHead
from stickyproxy.core.response import UNTIL_CLOSE, ResponseHead, parse_response_head
from stickyproxy.dataplane.upstream import Upstream

if TYPE_CHECKING:
    from stickyproxy.dataplane.downstream import Downstream
    from stickyproxy.dataplane.pool import Pool

_NOT_THE_BACKENDS_FAULT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))

_HOLD_STEP_S = 0.25
"""Longest wait between two attempts on a held request; a new snapshot ends it sooner."""

_FRESH_S = 1.0
"""A request that must not be sent twice takes a pooled connection only if it was in use within this time."""


class Exchange:
    """One request and its response, between its start and its end."""

    __slots__ = (
        "_body", "_dialling", "_excluded", "_interims", "_persistent", "_received", "_response", "_retried", "_unsent",
        "downstream", "head", "pick", "proxy", "request_done", "upstream",
    )  # fmt: skip

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self.downstream = downstream
        self.proxy = downstream.proxy
        self.head = head
        self.pick: Pick | None = None
        self.upstream: Upstream | None = None
        self.request_done = head.length == 0
        self._body: BodyReader | None = None if self.request_done else body_reader(head.length)
        self._unsent = b""  # body bytes that came before there was a connection
        self._received = b""  # the start of a response's head
        self._response: BodyReader | None = None  # reads the final response's body; None until its head is sent
        self._persistent = False  # the backend will take another request on this connection
        self._dialling: asyncio.Task[None] | None = None
        self._excluded: set[str] | None = None
        self._interims = 0
        self._retried = False

    # The request's way: pick, connect, send.

    def start(self, body: bytes) -> None:
        """Begin; `body` is what came behind the head and belongs to the body."""
        self._unsent = body
        snapshot = self.proxy.snapshot
        pick = keep(self.head.tokens, snapshot) if self.head.tokens else None
        if pick is None or pick.backend.phase is not Phase.READY:
            pick = self._choose()
        if pick is None:
            self._fail(faults.NO_BACKEND)
        else:
            self._connect(pick)

    def _choose(self, cause: Cause = Cause.NONE) -> Pick | None:
        proxy = self.proxy
        downstream = self.downstream
        key = proxy.hash_key(self.head, downstream.peer, trusted=downstream.trusted) if proxy.hashing else None
        return choose(
            self.head.tokens, key, proxy.snapshot, proxy.balancer, proxy.time(),
            navigation=self.head.navigation, excluded=self._excluded or (), cause=cause,
        )  # fmt: skip

    def _connect(self, pick: Pick) -> None:
        """Send by a pooled connection, or dial."""
        self.pick = pick
        pool = self.proxy.pool_of(pick.backend)
        now = self.proxy.time()
        age = self.proxy.settings.times.upstream_idle_s if self.head.replayable else _FRESH_S
        upstream = None if self._retried else pool.take(now - age)
        if upstream is not None:
            self._send(upstream)
        else:
            self._dialling = self.proxy.loop.create_task(self._dial(pool))

    async def _dial(self, pool: "Pool") -> None:
        """Open a connection to the picked backend; go on with `_send`, another backend or an answer of our own."""
        proxy = self.proxy
        hold_until = proxy.time() + proxy.settings.affinity.hold_s if pool.backend.phase is Phase.PAUSED else 0.0
        while True:
            address = pool.backend.address
            proxy.counters.dials += 1
            try:
                async with asyncio.timeout(proxy.settings.times.connect_s):
                    _, upstream = await proxy.loop.create_connection(lambda: Upstream(pool), *address)
            except OSError as error:  # TimeoutError is one
                problem = error
            else:
                break
            if problem.errno in _NOT_THE_BACKENDS_FAULT:
                proxy.log.error(
                    "cannot connect to backend %s: %s; raise the limit of open files", pool.backend, problem
                )
                self._dialling = None
                self._fail(faults.OUT_OF_RESOURCES)
                return
            left = hold_until - proxy.time()
            if left <= 0 or pool.closed:
                self._dialling = None
                proxy.backend_refused(pool, problem)
                self._move(Cause.TIMEOUT if isinstance(problem, TimeoutError) else Cause.REFUSED)
                return
            await proxy.snapshot_change(min(left, _HOLD_STEP_S))
        self._dialling = None
        proxy.backend_accepted(pool)
        proxy.tune(upstream.transport)
        self._send(upstream)

    def _move(self, cause: Cause) -> None:
        """Leave a backend that cannot be reached for another; its pages are lost with it, a dead end would be worse."""
        assert self.pick is not None
        self._excluded = (self._excluded or set()) | {self.pick.backend.identity}
        pick = self._choose(cause)
        if pick is not None:
            self._connect(pick)
        else:
            self._fail(faults.CONNECT_TIMEOUT if cause is Cause.TIMEOUT else faults.CONNECT_REFUSED)

    def _send(self, upstream: Upstream) -> None:
        self.upstream = upstream
        upstream.exchange = self
        head = self.head
        downstream = self.downstream
        if head.forwarded is not None and downstream.trusted:
            forwarded = relayed_lines(
                head.forwarded, downstream.peer, head.host, self.proxy.trusted, https=downstream.https
            )
        else:
            forwarded = forwarded_lines(downstream.peer, head.host, https=downstream.https)
        parts = [head.line, head.fields, forwarded]
        if not head.host:  # HTTP/1.0 may leave it out, HTTP/1.1 may not
            parts.append(b"\r\nHost: %b" % str(upstream.pool.backend.address).encode())
        if head.upgrade:
            parts.append(b"\r\nConnection: Upgrade\r\nUpgrade: " + head.upgrade)
        parts.append(b"\r\n\r\n")
        upstream.transport.write(b"".join(parts))
        if self.request_done:
            downstream.deadline = self.proxy.time() + self.proxy.settings.times.response_s
        else:
            unsent, self._unsent = self._unsent, b""
            downstream.resume_reading()
            self.send_body(unsent)

    def send_body(self, data: bytes) -> None:
        """Pass on bytes of the request's body; what lies behind its end goes back to the downstream connection."""
        downstream = self.downstream
        times = self.proxy.settings.times
        if self.upstream is None:  # not connected yet: hold what has come and stop reading
            self._unsent += data
            downstream.pause_reading()
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
        downstream.deadline = 0.0 if self._response is not None else self.proxy.time() + times.response_s
        if taken < len(data):
            downstream.hold(data[taken:])

    # The response's way.

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
            self.downstream.transport.write(out)
        if reader.done:
            self._finish(clean=taken == len(data))

    def _read_response_head(self, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n", max(0, len(self._received) - 3)) + 4
            if end < 4 or end > self.proxy.settings.limits.head_bytes:
                self._received = data
                if len(data) > self.proxy.settings.limits.head_bytes or data[:7] != b"HTTP/1."[: len(data)]:
                    self._bad_response()
                return
            try:
                response = parse_response_head(data[:end] if end < len(data) else data, self.head.method)
            except HeadError:
                self._bad_response()
                return
            self._received = b""
            rest = data[end:]
            if response.status >= 200:
                self._send_response(response, rest)
                return
            if response.status == 101:
                self._upgrade(response, rest)
                return
            self._interims += 1
            if self._interims > self.proxy.settings.limits.interim_responses:
                self._bad_response()
                return
            if self.head.minor:  # HTTP/1.0 knows no interim responses (RFC 9110 section 15.2)
                self.downstream.transport.write(response.fields + b"\r\n\r\n")
            if not rest:
                return
            data = rest

    def _send_response(self, response: ResponseHead, rest: bytes) -> None:
        head, downstream, pick = self.head, self.downstream, self.pick
        assert pick is not None
        length = response.length
        plain = length == CHUNKED and not head.minor
        if head.close or plain or length == UNTIL_CLOSE or not self.request_done or self.proxy.draining:
            downstream.last = True
        parts = [response.fields]
        if length == CHUNKED and not plain:
            parts.append(b"\r\nTransfer-Encoding: chunked")
        if pick.pin is not Pin.KEPT and pick.sticky and not response.shared:
            parts.append(self._cookie_line(pick))
        parts.append(b"\r\nConnection: close\r\n\r\n" if downstream.last else b"\r\n\r\n")
        self._persistent = not response.close
        counters = self.proxy.counters
        counters.responses[response.status // 100] += 1
        counters.count_pick(pick)
        if self.request_done:
            downstream.deadline = 0.0
        reader = self._response = body_reader(length, plain=plain)
        taken, broken = 0, False
        if rest and length:
            try:
                out, taken = reader.feed(rest)
                parts.append(out)
            except BadBodyError:
                broken = True
        downstream.transport.write(b"".join(parts))
        if broken:
            self._break_off()
        elif reader.done:
            self._finish(clean=taken == len(rest))

    def _cookie_line(self, pick: Pick) -> bytes:
        try:
            token = self.proxy.snapshot.token_of(pick.backend)
        except KeyError:  # it left the snapshot since it was picked
            return b""
        said = self.head.forwarded
        https = self.downstream.https or (said is not None and self.downstream.trusted and came_by_https(said))
        return self.proxy.cookie.line(token, https=https)

    def _upgrade(self, response: ResponseHead, rest: bytes) -> None:
        """Hand both connections to a tunnel, with every byte that came behind the heads."""
        wanted = {protocol.strip().lower() for protocol in self.head.upgrade.split(b",")}
        upstream, pick, downstream = self.upstream, self.pick, self.downstream
        if not self.head.upgrade or response.upgrade.lower() not in wanted:
            self._bad_response()
            return
        assert upstream is not None
        assert pick is not None
        parts = [response.fields, b"\r\nConnection: Upgrade\r\nUpgrade: ", response.upgrade]
        if pick.pin is not Pin.KEPT and pick.sticky:
            parts.append(self._cookie_line(pick))
        parts += (b"\r\n\r\n", rest)
        downstream.transport.write(b"".join(parts))
        self.proxy.counters.responses[1] += 1
        self.proxy.counters.count_pick(pick)
        upstream.exchange = self.upstream = None
        downstream.become_tunnel(upstream)

    # The ends.

    def _finish(self, *, clean: bool) -> None:
        """End with a whole response; `clean`: the backend sent nothing behind it."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            if clean and self._persistent and self.request_done:
                upstream.resume_reading()
                upstream.pool.put(upstream, self.proxy.time())
            else:
                upstream.transport.abort()
        self.downstream.finished(request_done=self.request_done)

    def _fail(self, fault: Fault) -> None:
        """End with an answer of our own; nothing of a final response has been sent yet."""
        self._drop_upstream()
        downstream, head = self.downstream, self.head
        downstream.last = downstream.last or head.close or not self.request_done or self.proxy.draining
        counters = self.proxy.counters
        counters.faults[fault.reason] += 1
        counters.responses[fault.status // 100] += 1
        downstream.transport.write(
            answer(fault, html=head.navigation, close=downstream.last, head_only=head.method == b"HEAD")
        )
        downstream.finished(request_done=self.request_done)

    def _bad_response(self) -> None:
        assert self.pick is not None
        self.proxy.log.warning("backend %s sent a response that is not valid HTTP/1.1", self.pick.backend)
        self._fail(faults.BAD_RESPONSE)

    def _break_off(self) -> None:
        """End in the middle of a response, so that the client can tell that it is not whole."""
        self._drop_upstream()
        self.proxy.counters.faults["broken-off"] += 1
        # Where only the connection's end tells the body's, a clean end would lie: reset it.
        self.downstream.break_off(reset=not isinstance(self._response, LengthReader) and self.downstream.last)

    def upstream_lost(self, exc: Exception | None) -> None:
        """Hear that the backend's connection has ended."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        if isinstance(self._response, UntilCloseReader) and exc is None:
            self._finish(clean=False)
        elif self._response is not None:
            self._break_off()
        elif upstream.reused and self.head.replayable and not (self._received or self._interims or self._retried):
            self._retried = True
            self.proxy.counters.retries += 1
            pick = self.pick
            if pick is None or pick.backend.identity not in self.proxy.snapshot.by_identity:
                pick = self._choose()  # it has left the snapshot meanwhile
            if pick is not None:
                self._connect(pick)
            else:
                self._fail(faults.NO_BACKEND)
        else:
            self._fail(faults.CLOSED_EARLY)

    def timed_out(self) -> None:
        """Hear that the downstream connection's deadline has passed."""
        if self._response is not None:
            self._break_off()
        else:
            self._fail(faults.RESPONSE_TIMEOUT if self.request_done else faults.BODY_TIMEOUT)

    def abandon(self) -> None:
        """End because the client has gone."""
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        self._drop_upstream()

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            upstream.transport.abort()
