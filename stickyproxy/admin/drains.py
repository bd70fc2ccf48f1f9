"""Hooks on the admin port: let one backend drain and wait until nothing of it is open here, take that back, list all.

Law: whatever asks by GET may order too, since a Kubernetes `httpGet` hook can do nothing else, but no browser may,
since any page could make it ask; so this port is not for the internet.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from aiohttp import web

from stickyproxy.admin.access import refusal
from stickyproxy.core.status import BackendStatus, Remaining
from stickyproxy.core.values import parse_duration

LONGEST_WAIT_S = 3600.0


class Drains(Protocol):
    """What can be done with a proxy's backends."""

    async def find(self, text: str) -> Sequence[BackendStatus]:
        """Give the backends that a name, an identity, a host or HOST:PORT means."""
        ...

    def drain(self, identity: str) -> None:
        """Send no new sessions and no new documents to a backend."""
        ...

    def undrain(self, identity: str) -> None:
        """Take a drain back."""
        ...

    async def open_pages(self) -> Mapping[str, int]:
        """Count the open pages of all backends, by identity."""
        ...

    async def remaining(self, identity: str) -> Remaining:
        """Count what a backend still has open here."""
        ...

    async def wait(self, identity: str, wait_s: float, idle_s: float | None = None) -> Remaining:
        """Wait until a backend has nothing open here, for so long at the most; give what is left."""
        ...


SWITCHED_OFF = "draining by the admin port is switched off here (--admin-actions off)"


def add_routes(app: web.Application, drains: Drains, *, actions: bool) -> None:
    """Serve /drain and /undrain by GET and POST; with `actions` off they say that they are off."""

    def check(request: web.Request) -> None:
        problem = refusal(request.headers, hook=True) if actions else SWITCHED_OFF
        if problem:
            raise web.HTTPForbidden(text=f"{problem}\n", headers={"Cache-Control": "no-store"})

    async def drain(request: web.Request) -> web.Response:
        check(request)
        backend = await _backend(request, drains)
        wait_s = _duration(request, "wait")
        idle_s = _duration(request, "idle")
        if wait_s is not None and wait_s > LONGEST_WAIT_S:
            raise _refused(400, f"wait: expected at most 1h, found {request.query['wait']!r}")
        if idle_s is not None and not wait_s:
            raise _refused(
                400, "idle: expected together with wait, the time within which pages are moved; found no wait"
            )
        drains.drain(backend.identity)
        if not wait_s:
            return _answer(backend, await drains.remaining(backend.identity))
        return _answer(backend, await drains.wait(backend.identity, wait_s, idle_s))

    async def undrain(request: web.Request) -> web.Response:
        check(request)
        backend = await _backend(request, drains)
        drains.undrain(backend.identity)
        return _answer(backend, await drains.remaining(backend.identity))

    for method in ("GET", "POST"):
        app.router.add_route(method, "/drain", drain)
        app.router.add_route(method, "/undrain", undrain)


def _answer(backend: BackendStatus, left: Remaining) -> web.Response:
    found = {
        "backend": backend.name,
        "pages": left.pages,
        "tunnels": left.tunnels,
        "exchanges": left.exchanges,
        "empty": left.empty,
    }
    return web.json_response(found, headers={"Cache-Control": "no-store"})


async def _backend(request: web.Request, drains: Drains) -> BackendStatus:
    """Read which backend is meant; a refusal that says what was expected where it is not exactly one."""
    text = request.query.get("backend", "")
    if not text:  # before it is looked for: a backend may have no name
        raise _refused(400, "backend: expected a pod's name, IP or HOST:PORT, as in /drain?backend=10.1.2.3&wait=30s")
    found = await drains.find(text)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(b.name for b in found)
        raise _refused(400, f"backend: expected one, found several at {_shown(text)}: {names}")
    raise _refused(404, f"backend: expected one that is listed at /readyz, found {_shown(text)}")


def _duration(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _refused(400, f"{name}: {error}") from None


def _shown(text: str) -> str:
    return repr(re.sub(r"[^!-~]", "?", text[:100]))


def _refused(status: int, text: str) -> web.HTTPException:
    kind = web.HTTPNotFound if status == 404 else web.HTTPBadRequest
    return kind(text=f"{text}\n", headers={"Cache-Control": "no-store"})
