"""The admin port: dashboard and JSON API, health, metrics, drains. No request to it ever dials a backend."""

import asyncio
import mimetypes
import socket
import ssl
import sys
import urllib.request  # noqa: F401  aiohttp imports it too, and others need it whole
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from stickyproxy.core.sidecar import AppLife
from stickyproxy.core.status import Status


@contextmanager
def _only_what_a_server_needs() -> Iterator[None]:
    """Keep aiohttp, when it is imported, from what this port has no use for: 3 MB and 40 ms.

    Its client makes two TLS contexts and loads every CA certificate of the system; where Python has no `ssl` it does
    without, and here it sees none. Its file server reads the system's lists of media types. Where aiohttp has been
    imported before, for a client, nothing changes.
    """
    files = mimetypes.knownfiles[:]
    sys.modules["ssl"] = None  # type: ignore[assignment] # so that importing it fails (Python's import system, 5.3.1)
    mimetypes.knownfiles.clear()
    try:
        yield
    finally:
        sys.modules["ssl"] = ssl
        mimetypes.knownfiles[:] = files


with _only_what_a_server_needs():
    from aiohttp import web

    from stickyproxy.admin import dashboard, drains
    from stickyproxy.admin.api import Api, Watched


class AdminServer:
    """Serves the admin port until closed.

    app_life: judges the app in the same pod, where there is one. actions: whether backends can be drained here.
    """

    def __init__(
        self,
        status: Callable[..., Awaitable[Status]],
        proxy: Watched,
        app_life: Callable[[], Awaitable[AppLife]] | None = None,
        *,
        actions: bool = True,
    ) -> None:
        self._status = status
        self._proxy = proxy
        self._app_life = app_life
        app = web.Application()
        drains.add_routes(app, proxy, actions=actions)
        dashboard.add_routes(app)
        Api(status, proxy, actions=actions).add_routes(app)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/app/livez", self._app_livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/backends", self._backends)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def listen(self, listener: socket.socket) -> None:
        """Serve on a bound socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        return _text("alive: the event loop turns\n")

    async def _app_livez(self, request: web.Request) -> web.Response:
        if self._app_life is None:
            return _text("/app/livez needs --local-backend HOST:PORT: it judges the app in this proxy's own pod\n", 404)
        life = await self._app_life()
        return _text(f"{life.text}\n", 200 if life.alive else 503)

    async def _readyz(self, request: web.Request) -> web.Response:
        status = await self._status()
        lines = [status.readiness.text]
        problem = f"PROBLEM: {status.discovery.problem}" if status.discovery.problem else "ok"
        lines.append(f"discovery: {status.discovery.source}: {problem}")
        if status.app:
            lines.append(status.app)
        for b in status.backends:
            trouble = f", {b.trouble}" if b.trouble else ""
            lines.append(f"backend {b.name}: {b.phase.value}, {b.tunnels} open tunnels{trouble}")
        return _text("\n".join(lines) + "\n", 200 if status.readiness.ready else 503)

    async def _backends(self, request: web.Request) -> web.Response:
        pages = await self._proxy.open_pages()
        backends = [
            {
                "name": b.name, "identity": b.identity, "address": b.address, "phase": b.phase.value,
                "drained": b.ordered, "pages": pages.get(b.identity, 0), "tunnels": b.tunnels,
            }
            for b in (await self._status()).backends
        ]  # fmt: skip
        return web.json_response(backends, headers={"Cache-Control": "no-store"})

    async def _metrics(self, request: web.Request) -> web.Response:
        # Imported with the first scrape: who does not scrape does not pay for it.
        from stickyproxy.admin.metrics import CONTENT_TYPE, render

        status = await self._status(thorough=True)
        # In a thread: with 1,000 backends the text takes some 40 ms, for which no byte shall wait.
        body = await asyncio.get_running_loop().run_in_executor(None, render, status)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers={"Cache-Control": "no-store"})
