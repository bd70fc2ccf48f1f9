"""A client of the API server for tests, and the objects that tests make with it.

It stands on aiohttp alone, not on the client library that the proxy uses, so that the two cannot share a mistake.
"""

import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stickyproxy.discovery.kubernetes import Connect

from .controlplane import ControlPlane
from .follow import by_service_account

CALL_LIMIT_S = 30.0

Object = dict[str, Any]

MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """The API server said no; `status` is the HTTP status and `reason` its word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass
class Api:
    """Calls of one user."""

    session: aiohttp.ClientSession
    url: str
    warnings: list[str] = field(default_factory=list)
    """What the API server has warned of, in any answer."""

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content: str = "application/json", **query: str
    ) -> Object:
        """Do one call; raise ApiError where it is refused."""
        headers = {"Accept": "application/json", "Content-Type": content}
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, self.url + path, data=data, headers=headers, params=query) as answer:
            found: Object = json.loads(await answer.read())
            self.warnings += answer.headers.getall("Warning", [])
            if answer.status >= 400:
                raise ApiError(answer.status, found.get("reason", ""), found.get("message", ""))
            return found

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[aiohttp.StreamReader]:
        """Watch; the body is one line for each event."""
        no_limit = aiohttp.ClientTimeout(total=None)
        async with self.session.get(self.url + path, params={"watch": "1", **query}, timeout=no_limit) as answer:
            assert answer.status == 200, await answer.text()
            yield answer.content


@asynccontextmanager
async def connect(plane: ControlPlane, *, token: str = "", port: int = 0) -> AsyncIterator[Api]:
    """Be the administrator, or with a token who it belongs to."""
    context = ssl.create_default_context(cafile=str(plane.certificates.authority))
    headers = {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    else:
        admin = plane.certificates.admin
        context.load_cert_chain(admin.certificate, admin.key)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=True),  # the server may have been started anew
        timeout=aiohttp.ClientTimeout(total=CALL_LIMIT_S),
        headers=headers,
        read_bufsize=1 << 22,  # a line of a watch is a whole slice
    ) as session:
        yield Api(session, f"https://127.0.0.1:{port or plane.port}")


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of a slice; without a `uid` it has no `targetRef`."""

    address: str
    uid: str = ""
    pod: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False

    def content(self) -> Object:
        conditions = {"ready": self.ready, "serving": self.serving, "terminating": self.terminating}
        found: Object = {"addresses": [self.address], "conditions": conditions}
        if self.uid:
            found["targetRef"] = {"kind": "Pod", "name": self.pod or f"pod-{self.uid}", "uid": self.uid}
        return found


def endpoint_slice(
    service: str, name: str, endpoints: Sequence[Endpoint], *, ports: dict[str, int], family: str = "IPv4"
) -> Object:
    """Make a slice as Kubernetes' own controller does."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": [endpoint.content() for endpoint in endpoints],
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports.items()],
    }


def service(name: str, ports: dict[str, int]) -> Object:
    """Make a Service with a selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": name},
            "ports": [{"name": port_name, "port": port, "protocol": "TCP"} for port_name, port in ports.items()],
        },
    }


@dataclass
class Namespace:
    """One test's own namespace, and what it does in there as administrator."""

    plane: ControlPlane
    api: Api
    name: str
    folder: Path = field(repr=False)
    monkeypatch: pytest.MonkeyPatch = field(repr=False)

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.name}"

    @property
    def slices(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.name}/endpointslices"

    @property
    def rbac(self) -> str:
        return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.name}"

    async def make_service(self, name: str = "app", **ports: int) -> Object:
        """Make a Service; without ports it has one named `http`, 8080."""
        return await self.api.call("POST", f"{self.core}/services", service(name, ports or {"http": 8080}))

    async def make_slice(
        self, name: str, endpoints: Sequence[Endpoint], *, service: str = "app", family: str = "IPv4", **ports: int
    ) -> Object:
        """Make a slice; without ports it has one named `http`, 8080."""
        content = endpoint_slice(service, name, endpoints, ports=ports or {"http": 8080}, family=family)
        return await self.api.call("POST", self.slices, content)

    async def change_slice(self, name: str, endpoints: Sequence[Endpoint]) -> Object:
        """Give a slice other endpoints."""
        content = {"endpoints": [endpoint.content() for endpoint in endpoints]}
        return await self.api.call("PATCH", f"{self.slices}/{name}", content, content=MERGE)

    async def delete_slice(self, name: str) -> None:
        await self.api.call("DELETE", f"{self.slices}/{name}")

    async def put_slice(self, name: str, endpoints: Sequence[Endpoint]) -> None:
        """Give a slice endpoints that the API server refuses: addresses of loopback, where tests have real backends.

        They go into etcd behind its back, and from there through its watch to whoever watches.
        """
        stored = await self.api.call("GET", f"{self.slices}/{name}")
        stored["metadata"].pop("resourceVersion")  # etcd has its own, and the two must not differ
        stored["endpoints"] = [endpoint.content() for endpoint in endpoints]
        self.plane.put(f"/registry/endpointslices/{self.name}/{name}", json.dumps(stored).encode())

    async def make_account(self, name: str = "proxy", *, verbs: Sequence[str] = ("get", "list", "watch")) -> None:
        """Make a service account that may do `verbs` with this namespace's slices; without verbs, nothing."""
        await self.api.call("POST", f"{self.core}/serviceaccounts", {"metadata": {"name": name}})
        if verbs:
            await self.allow(name, verbs)

    async def allow(self, account: str, verbs: Sequence[str] = ("get", "list", "watch")) -> None:
        """Let a service account do `verbs` with this namespace's slices."""
        rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": list(verbs)}
        await self.api.call("POST", f"{self.rbac}/roles", {"metadata": {"name": account}, "rules": [rule]})
        binding = {
            "metadata": {"name": account},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
        }
        await self.api.call("POST", f"{self.rbac}/rolebindings", binding)

    async def forbid(self, account: str) -> None:
        """Take back what `allow` has given."""
        await self.api.call("DELETE", f"{self.rbac}/rolebindings/{account}")
        await self.api.call("DELETE", f"{self.rbac}/roles/{account}")

    async def make_token(self, account: str = "proxy", *, secret: str = "") -> str:
        """Have the API server make a token; with the name of a Secret it is valid as long as that exists."""
        spec: Object = {"expirationSeconds": 600}
        if secret:
            made = await self.api.call("POST", f"{self.core}/secrets", {"metadata": {"name": secret}})
            spec["boundObjectRef"] = {
                "apiVersion": "v1", "kind": "Secret", "name": secret, "uid": made["metadata"]["uid"],
            }  # fmt: skip
        path = f"{self.core}/serviceaccounts/{account}/token"
        answer = await self.api.call("POST", path, {"spec": spec})
        token: str = answer["status"]["token"]
        return token

    async def account_connect(self, account: str = "proxy", *, port: int = 0, allowed: bool = True) -> Connect:
        """Make a service account, lay out its files as in a pod, and return the way to connect with them."""
        await self.make_account(account, verbs=("get", "list", "watch") if allowed else ())
        self.mount(await self.make_token(account), port=port)
        return by_service_account(self.folder)

    def mount(self, token: str, *, port: int = 0) -> None:
        """Lay out a service account's files in `folder`, and name the API server, as in a pod."""
        fresh = self.folder / "token.fresh"
        fresh.write_text(token)
        fresh.rename(self.folder / "token")  # as the kubelet does: never half a token
        (self.folder / "ca.crt").write_bytes(self.plane.certificates.authority.read_bytes())
        (self.folder / "namespace").write_text(self.name)
        self.monkeypatch.delenv("KUBECONFIG", raising=False)
        self.monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        self.monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port or self.plane.port))

    async def write_kubeconfig(self, account: str = "proxy", *, port: int = 0) -> Path:
        """Write a kubeconfig file of a service account that exists, with a token of its own."""
        token = await self.make_token(account)
        return self.plane.write_kubeconfig(
            self.folder / f"{account}.kubeconfig", port=port, namespace=self.name, token=token
        )
