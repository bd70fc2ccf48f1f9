"""The live stream: server-sent events (WHATWG HTML, section 9.2), `status` once a second, `event` at once.

Laws: nothing is computed while nobody listens, and once a second however many do; a listener that does not take what it
is sent is cut off, and comes back by itself with the number of the last event that it has.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web

from stickyproxy.admin.figures import Figures, event_figures
from stickyproxy.core.events import Event

MOST_LISTENERS = 50
"""More are refused with 503: each is a connection that stays."""

MOST_WAITING = 600
"""Messages that may wait for one listener: all kept events, and then some."""

STATUS_S = 1.0
"""Seconds between two `status`."""

RETRY_MS = 1000
"""Milliseconds after which a browser reconnects."""

WRITE_S = 10.0
"""Seconds that a listener may take no byte."""

HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Journal(Protocol):
    """The proxy's event log; `boot` tells this run of the proxy from every other."""

    @property
    def boot(self) -> str:
        """Give what names this run."""
        ...

    @property
    def last(self) -> int:
        """Give the number of the last event; 0 where there was none."""
        ...

    def after(self, seq: int) -> Sequence[Event]:
        """Give the kept events with a higher number, oldest first."""
        ...

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Tell somebody of every event from now on; call what is returned to end that."""
        ...


class Listener:
    """One connection and what waits for it; of `status` only the newest."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._status = b""
        self._waiting = asyncio.Event()
        self.ended = False

    def event(self, message: bytes) -> None:
        """Let an event wait; one too many ends the listener."""
        if len(self._events) >= MOST_WAITING:
            self.end()
        else:
            self._events.append(message)
            self._waiting.set()

    def status(self, message: bytes) -> None:
        """Let a status wait, in the place of an older one."""
        self._status = message
        self._waiting.set()

    def end(self) -> None:
        """Send it nothing more."""
        self.ended = True
        self._waiting.set()

    async def take(self) -> bytes:
        """Give all that waits, when something does."""
        await self._waiting.wait()
        self._waiting.clear()
        messages, self._status = b"".join(self._events) + self._status, b""
        self._events.clear()
        return messages


class Stream:
    """All listeners, and what they are told.

    status: computes the figures of this moment. journal: the event log.
    """

    def __init__(self, status: Callable[[], Awaitable[Figures]], journal: Journal) -> None:
        self._status = status
        self._journal = journal
        self._listeners: set[Listener] = set()
        self._telling: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one listener until it goes, is cut off, or the admin port closes."""
        if len(self._listeners) >= MOST_LISTENERS:
            text = f"expected at most {MOST_LISTENERS} listeners, and so many are here already; try again later\n"
            return web.Response(text=text, status=503, headers={"Retry-After": "10", "Cache-Control": "no-store"})
        listener = Listener()
        self._join(listener)
        for event in self._journal.after(self._seen(request.headers.get("Last-Event-ID", ""))):
            listener.event(self._event_message(event))
        response = web.StreamResponse(headers=HEADERS)
        try:
            await response.prepare(request)
            listener.status(_status_message(await self._status()))
            await self._write(response, b"retry: %d\n\n" % RETRY_MS)
            while not listener.ended:
                await self._write(response, await listener.take())
        except (ConnectionError, TimeoutError):  # it has gone, or takes nothing
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._leave(listener)
        return response

    def close(self) -> None:
        """End all listeners; they come back where somebody serves."""
        for listener in self._listeners:
            listener.end()

    @staticmethod
    async def _write(response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(WRITE_S):
            await response.write(data)

    def _seen(self, last_id: str) -> int:
        """Give the number of the last event that a listener has; 0 where it is one of another run."""
        boot, _, seq = last_id.partition("-")
        return int(seq) if boot == self._journal.boot and seq.isdecimal() and len(seq) < 16 else 0

    def _event_message(self, event: Event) -> bytes:
        body = json.dumps(event_figures(event), ensure_ascii=False)
        return f"id: {self._journal.boot}-{event.seq}\nevent: event\ndata: {body}\n\n".encode()

    def _on_event(self, event: Event) -> None:
        message = self._event_message(event)
        for listener in self._listeners:
            listener.event(message)

    def _join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        if self._telling is None:
            self._unlisten = self._journal.listen(self._on_event)
            self._telling = asyncio.ensure_future(self._tell())
            self._telling.add_done_callback(self._told)

    def _leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._telling is not None:
            self._telling.cancel()
            self._telling = None
            if self._unlisten is not None:
                self._unlisten()

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + STATUS_S, loop.time())
            await asyncio.sleep(due - loop.time())
            message = _status_message(await self._status())
            for listener in self._listeners:
                listener.status(message)

    def _told(self, telling: "asyncio.Task[None]") -> None:
        """Cut all off where the figures cannot be computed: they shall not take old ones for new."""
        if not telling.cancelled() and (error := telling.exception()) is not None:
            logging.getLogger("stickyproxy").error("the live stream of the admin port has failed", exc_info=error)
            self.close()


def _status_message(figures: Figures) -> bytes:
    return f"event: status\ndata: {json.dumps(figures, ensure_ascii=False)}\n\n".encode()
