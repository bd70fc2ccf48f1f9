"""The way of a parked page to another socket of the backend that has closed the one it had, though nobody left.

A replica whose event loop stands still closes its sockets and goes on; browsers that are there connect anew within
NiceGUI's 3 s, and for one that is away this does.

Laws: only the page's own backend is asked, by as many attempts as begin in a bounded time, one after the other; what
was kept is touched by what is new only; the tunnel is told of the outcome once, or has ended before.
"""

import asyncio
import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from stickyproxy.core.backends import Cause
from stickyproxy.core.messages import Cutter
from stickyproxy.core.reopening import ANSWER_S, BEGIN_S, PAUSE_S, RETRY_S, Progress, Redialogue, ask_again, is_accepted
from stickyproxy.dataplane.dial import ExhaustedError, UnreachableError, dial

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy
    from stickyproxy.dataplane.reopenable import Reopenable
    from stickyproxy.dataplane.takeover import Takeover


class Reopening:
    """The attempts for one page.

    number: of the message with which the new socket is to begin. after: when an earlier reopening of the page ended,
    loop time, or 0. `running`: the outcome is open. `settled`: that message has come, or it is known that it will not.
    `waiting`: browsers that came back meanwhile, and what to call for each at the end. `ended_at`: when it was.
    """

    def __init__(self, proxy: "Proxy", tunnel: "Reopenable", number: int, after: float) -> None:
        self._proxy = proxy
        self._tunnel = tunnel
        self.number = number
        self.running = True
        self.settled = False
        self.waiting: dict[Takeover, Callable[[], None]] = {}
        self.ended_at = 0.0
        begun = proxy.time()
        self._begin_until = begun + BEGIN_S
        self._task = proxy.loop.create_task(self._run(max(0.0, after + PAUSE_S - begun)))

    def cancel(self) -> None:
        """Give up: the page is let go."""
        self._task.cancel()
        self._end()

    def _end(self) -> None:
        """Let those who wait look at what has become of the page, once the tunnel knows it."""
        self.running = False
        self.ended_at = self._proxy.time()
        waiting, self.waiting = self.waiting, {}
        for go_on in waiting.values():
            self._proxy.loop.call_soon(go_on)

    async def _run(self, pause_s: float) -> None:
        proxy = self._proxy
        if pause_s:
            await asyncio.sleep(pause_s)
        kept = await self._attempt()
        while kept is None and proxy.time() + RETRY_S < self._begin_until:
            await proxy.snapshot_change(RETRY_S)
            kept = await self._attempt()
        if not kept:
            proxy.counters.parked_reopened["failed"] += 1
            self._end()
            self._tunnel.not_reopened()

    async def _attempt(self) -> bool | None:
        """Ask once; None where it is worth another attempt."""
        proxy, tunnel = self._proxy, self._tunnel
        backend = proxy.snapshot.by_identity.get(tunnel.identity)
        if backend is None:
            return False
        left_s = max(RETRY_S, self._begin_until - proxy.time())
        pool = proxy.pool_of(backend)
        try:
            async with asyncio.timeout(left_s):
                upstream = await dial(proxy, pool, min(left_s, proxy.times.connect_s))
        except UnreachableError as error:
            return None if error.cause is Cause.TIMEOUT else False
        except ExhaustedError:
            return False
        except TimeoutError:
            return None
        pool.upstreams.discard(upstream)
        if upstream.transport.is_closing():
            return None
        attempt = _Attempt(self, upstream.transport)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await attempt.outcome
        except TimeoutError:
            return None
        finally:
            attempt.drop()

    def ask(self, key: bytes) -> tuple[bytes, Redialogue]:
        """Build the request, and begin to greet the backend."""
        request, event = ask_again(self._tunnel.asked, self.number, key)
        return request, Redialogue(event)

    def accepts(self, head: bytes, key: bytes) -> bool:
        """Judge the answer to it."""
        return is_accepted(head, key, self._tunnel.extensions)

    def new_key(self) -> bytes:
        """Make a `Sec-WebSocket-Key`."""
        return base64.b64encode(self._proxy.random.getrandbits(128).to_bytes(16, "big"))

    @property
    def most_bytes(self) -> int:
        """Give how much may come before the page is connected."""
        return self._tunnel.parking.page_bytes

    @property
    def head_bytes(self) -> int:
        """Give how long the answer's head may be."""
        return self._proxy.settings.limits.head_bytes

    def opened(self, transport: asyncio.Transport, cutter: Cutter | None, came: list[bytes]) -> None:
        """Hear that the page is connected."""
        self._proxy.counters.parked_reopened["kept"] += 1
        self._end()
        self._tunnel.reopened(transport, cutter, came)


class _Attempt(asyncio.Protocol):
    """One connection that is to become a page's socket; `outcome` as of `Reopening._attempt`."""

    def __init__(self, reopening: Reopening, transport: asyncio.Transport) -> None:
        self._reopening = reopening
        self._transport = transport
        self._key = reopening.new_key()
        self._head = b""
        self._came_bytes = 0
        self._cutter: Cutter | None = None
        self._given_away = False
        self.outcome: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        request, self._dialogue = reopening.ask(self._key)
        transport.set_protocol(self)
        transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer, or of what comes on the new socket."""
        if self.outcome.done():
            return
        if self._cutter is None:
            data = self._head + data
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._head = data
                if len(data) > self._reopening.head_bytes:
                    self.outcome.set_result(None)
                return
            if not self._reopening.accepts(data[:end], self._key):
                self.outcome.set_result(None)
                return
            self._cutter, data = Cutter(masked=False, most=self._reopening.most_bytes), data[end:]
        self._take(self._cutter, data)

    def _take(self, cutter: Cutter, data: bytes) -> None:
        dialogue = self._dialogue
        self._came_bytes += len(data)
        pieces = cutter.feed(data)
        odd = cutter.lost or self._came_bytes > self._reopening.most_bytes or not all(whole for _, whole in pieces)
        for unit, _ in pieces:
            if answer := dialogue.feed(unit):
                self._transport.write(answer)
        if odd or dialogue.progress is Progress.REFUSED:
            self.outcome.set_result(False)
        elif dialogue.progress is Progress.OPEN:
            self.outcome.set_result(True)
            self._given_away = True
            self._reopening.opened(self._transport, None if cutter.idle else cutter, dialogue.came)

    def connection_lost(self, exc: Exception | None) -> None:
        """End without an answer."""
        if not self.outcome.done():
            self.outcome.set_result(None)

    def drop(self) -> None:
        """Drop the connection, unless it has become the page's."""
        if not self._given_away:
            self._transport.abort()
