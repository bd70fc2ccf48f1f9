"""A Kubernetes API server that holds any objects, hands lists out in pages, and notes every request.

Laws: real sockets on loopback; like a real one it says 403 to who may not, 404 to what it does not know, and the items
of a list do not say their kind.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from stickyproxy.discovery.kubernetes import Access
from stickyproxy.tools.doctor.resources import CLUSTER_ROLE, CONFIG_MAP, RESOURCES

from .kubernetes import CERTIFICATE

BY_KIND = {r.kind: r for r in (*RESOURCES, CONFIG_MAP, CLUSTER_ROLE)}


@dataclass(frozen=True)
class Request:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]


@dataclass
class Cluster:
    """forbidden: plurals that are answered with 403. broken: plurals with 500. page: most objects of one answer."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    forbidden: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    groups_hidden: bool = False
    unauthorized: bool = False
    garbage: bool = False
    page: int = 2
    seen: list[Request] = field(default_factory=list)
    url: str = ""

    def access(self, namespace: str = "shop") -> Access:
        """Connect without credentials."""
        configuration = client.Configuration(host=self.url)
        configuration.ca_cert_data = CERTIFICATE.read_text()  # else the system's CAs are read, which takes 30 ms
        return Access(client.ApiClient(configuration), namespace)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer as a real one would."""
        self.seen.append(Request(request.method, request.path, dict(request.query)))
        if self.unauthorized:
            return _status(401)
        if self.garbage:
            return web.Response(text="<html>a login page</html>")
        if request.path == "/apis":
            return _status(403) if self.groups_hidden else web.json_response({"groups": self._groups()})
        for kind, resource in BY_KIND.items():
            for namespace in {o["metadata"].get("namespace", "shop") for o in self.objects} | {"shop"}:
                if request.path == resource.path(namespace):
                    return self._list(kind, namespace if resource.namespaced else "", request)
                head = resource.path(namespace) + "/"
                if request.path.startswith(head):
                    return self._get(kind, namespace, request.path.removeprefix(head))
        return _status(404)

    def _groups(self) -> list[dict[str, Any]]:
        found: dict[str, set[str]] = {"apps": {"v1"}, "networking.k8s.io": {"v1"}}
        for o in self.objects:
            group, _, version = o["apiVersion"].rpartition("/")
            found.setdefault(group, set()).add(version)
        return [
            {"name": group, "versions": [{"version": v} for v in sorted(versions)],
             "preferredVersion": {"version": max(versions)}}
            for group, versions in found.items()
        ]  # fmt: skip

    def _list(self, kind: str, namespace: str, request: web.BaseRequest) -> web.StreamResponse:
        resource = BY_KIND[kind]
        if resource.plural in self.forbidden:
            return _status(403)
        if resource.plural in self.broken:
            return _status(500)
        mine = [
            {key: value for key, value in o.items() if key not in ("kind", "apiVersion")}
            for o in self.objects
            if o["kind"] == kind and (not namespace or o["metadata"].get("namespace", "shop") == namespace)
        ]
        start = int(request.query.get("continue", "0"))
        end = start + min(self.page, int(request.query.get("limit", "1000")))
        metadata = {"continue": str(end)} if end < len(mine) else {}
        version = f"{resource.group}/{resource.version}".removeprefix("/")
        return web.json_response({"apiVersion": version, "metadata": metadata, "items": mine[start:end] or None})

    def _get(self, kind: str, namespace: str, name: str) -> web.StreamResponse:
        if BY_KIND[kind].plural in self.forbidden:
            return _status(403)
        for o in self.objects:
            if (o["kind"], o["metadata"]["name"], o["metadata"].get("namespace", "shop")) == (kind, name, namespace):
                return web.json_response(o)
        return _status(404)


def _status(code: int) -> web.Response:
    return web.Response(status=code, body=json.dumps({"kind": "Status", "code": code}).encode())


@asynccontextmanager
async def running_cluster(**how: Any) -> AsyncIterator[Cluster]:
    """Run one while the block lasts."""
    cluster = Cluster(**how)
    runner = web.ServerRunner(web.Server(cluster.answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (_, port), *_ = runner.addresses
    cluster.url = f"http://127.0.0.1:{port}"
    try:
        yield cluster
    finally:
        await runner.cleanup()
