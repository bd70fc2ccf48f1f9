"""The JSON API of the admin port, version 1: what docs/api.md says of it holds.

Laws: all but two routes only read; fields are added to an answer and never taken away or given another meaning within a
version; no answer holds a client id or an address of a visitor.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web

from stickyproxy.admin.access import refusal
from stickyproxy.admin.drains import SWITCHED_OFF, Drains
from stickyproxy.admin.figures import (
    RECENT_S,
    Figures,
    event_figures,
    gone_figures,
    recent_figures,
    status_figures,
)
from stickyproxy.admin.history import SAMPLE_S, History
from stickyproxy.admin.stream import Journal, Stream
from stickyproxy.core.backends import Backend
from stickyproxy.core.status import BackendStatus, Status

NO_STORE = {"Cache-Control": "no-store"}


class Watched(Drains, Protocol):
    """The proxy as the API sees it."""

    @property
    def journal(self) -> Journal:
        """Give the event log."""
        ...

    def gone(self) -> Sequence[tuple[Backend, float]]:
        """Give the backends that were listed until some minutes ago, and when each ceased to be."""
        ...


class Api:
    """The routes under /api/v1. actions: whether backends can be drained by them."""

    def __init__(self, status: Callable[..., Awaitable[Status]], proxy: Watched, *, actions: bool) -> None:
        self._read_status = status
        self._proxy = proxy
        self._actions = actions
        self._history = History()
        self._stream = Stream(self.figures, proxy.journal)
        self._sampling: asyncio.Task[None] | None = None

    def add_routes(self, app: web.Application) -> None:
        """Serve the API, and take samples while the application runs."""
        get, post = app.router.add_get, app.router.add_post
        get("/api/v1/status", self._status)
        get("/api/v1/backends", self._backends)
        get("/api/v1/pages", self._pages)
        get("/api/v1/events", self._events)
        get("/api/v1/history", self._samples)
        get("/api/v1/stream", self._stream.serve)
        post("/api/v1/backends/{name}/{order:drain|undrain}", self._order)
        app.on_startup.append(self._begin)
        app.on_shutdown.append(self._end)

    async def figures(self) -> Figures:
        """Give the figures of this moment."""
        now, journal = time.time(), self._proxy.journal
        figures = status_figures(await self._read_status(thorough=True))
        figures["at"], figures["boot"], figures["last_event"] = now, journal.boot, journal.last
        figures["actions"] = self._actions
        figures["gone"] = gone_figures(self._proxy.gone())
        before = self._history.since(now - RECENT_S)
        totals = figures["totals"]
        figures["recent"] = recent_figures(journal.after(0), totals, before.totals if before else totals, now)
        return figures

    async def _begin(self, app: web.Application) -> None:
        self._sampling = asyncio.ensure_future(self._sample())
        self._sampling.add_done_callback(_log_failure)

    async def _end(self, app: web.Application) -> None:
        self._stream.close()
        if self._sampling is not None:
            self._sampling.cancel()

    async def _sample(self) -> None:
        while True:
            self._history.add(await self.figures())
            await asyncio.sleep(SAMPLE_S)

    async def _status(self, request: web.Request) -> web.Response:
        return _json(await self.figures())

    async def _backends(self, request: web.Request) -> web.Response:
        figures = await self.figures()
        return _json({"backends": figures["backends"], "gone": figures["gone"]})

    async def _pages(self, request: web.Request) -> web.Response:
        figures = await self.figures()
        pages = [{"name": b["name"], "identity": b["identity"], "pages": b["pages"]} for b in figures["backends"]]
        return _json({"pages": figures["totals"]["pages"], "backends": pages})

    async def _events(self, request: web.Request) -> web.Response:
        text = request.query.get("after", "0")
        if not text.isascii() or not text.isdecimal() or len(text) > 15:
            return refuse(400, "after: expected the number of an event, as in /api/v1/events?after=12")
        journal = self._proxy.journal
        events = [event_figures(event) for event in journal.after(int(text))]
        return _json({"boot": journal.boot, "last_event": journal.last, "events": events})

    async def _samples(self, request: web.Request) -> web.Response:
        return _json({"every_s": SAMPLE_S, "samples": self._history.figures()})

    async def _order(self, request: web.Request) -> web.Response:
        if not self._actions:
            return refuse(403, SWITCHED_OFF)
        if problem := refusal(request.headers, hook=False):
            return refuse(403, problem)
        if request.content_type != "application/json":  # no form and no simple request of another page can send it
            return refuse(415, "expected Content-Type: application/json, with any body or none")
        found = await self._find(request.match_info["name"])
        if isinstance(found, web.Response):
            return found
        order = self._proxy.drain if request.match_info["order"] == "drain" else self._proxy.undrain
        order(found.identity)
        left = await self._proxy.remaining(found.identity)
        return _json(
            {
                "name": found.name, "identity": found.identity, "drained": request.match_info["order"] == "drain",
                "pages": left.pages, "tunnels": left.tunnels, "exchanges": left.exchanges,
            }
        )  # fmt: skip

    async def _find(self, text: str) -> BackendStatus | web.Response:
        found = await self._proxy.find(text)
        if len(found) == 1:
            return found[0]
        if found:
            return refuse(400, f"expected one backend, found several: {', '.join(b.name for b in found)}")
        return refuse(404, "expected the name, identity or address of a backend that /api/v1/backends lists")


def refuse(status: int, text: str) -> web.Response:
    """Answer that something is not to be had, and why."""
    return web.json_response({"error": text}, status=status, headers=NO_STORE)


def _json(value: Figures) -> web.Response:
    return web.json_response(value, headers=NO_STORE)


def _log_failure(sampling: "asyncio.Task[None]") -> None:
    if not sampling.cancelled() and (error := sampling.exception()) is not None:
        logging.getLogger("stickyproxy").error("the samples of the admin port have failed", exc_info=error)
