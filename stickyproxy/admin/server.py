"""The admin port: health, metrics, drains, and /app/livez in a sidecar. No request to it ever dials a backend."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from stickyproxy.core.sidecar import AppLife
from stickyproxy.core.status import Status


@contextmanager
def _without_system_cas() -> Iterator[None]:
    """Keep aiohttp's client from loading every CA certificate of the system when it is imported.

    It builds a TLS context that only a client uses: 2 MB and 40 ms that an admin server should not cost.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


with _without_system_cas():
    from aiohttp import web

    from stickyproxy.admin.drains import Drains, add_routes


class AdminServer:
    """Serves the admin port until closed; `app_life` judges the app in the same pod, where there is one."""

    def __init__(
        self,
        status: Callable[..., Awaitable[Status]],
        drains: Drains,
        app_life: Callable[[], Awaitable[AppLife]] | None = None,
    ) -> None:
        self._status = status
        self._drains = drains
        self._app_life = app_life
        app = web.Application()
        add_routes(app, drains)
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
        pages = await self._drains.open_pages()
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
