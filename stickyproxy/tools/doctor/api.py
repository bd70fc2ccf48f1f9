"""Read a namespace through the Kubernetes API.

Laws: GET alone, without `watch`; each kind by itself, so that one that is forbidden hides no other; a list is taken in
pages; the API server's own client library is loaded by `discovery.kubernetes`, and only when this is called.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp

from stickyproxy.discovery.kubernetes import Access, DiscoveryError, connect
from stickyproxy.tools.doctor.objects import Node, parse_object
from stickyproxy.tools.doctor.reading import ReadError, Reading, Unread
from stickyproxy.tools.doctor.resources import CLUSTER_ROLE, CONFIG_MAP, RESOURCES, Resource
from stickyproxy.tools.doctor.rights import bound_roles
from stickyproxy.tools.doctor.scene import wanted_config_maps

CALL_S = 20.0
"""Seconds for one answer of the API server."""

PAGE = 500
"""Objects of one answer."""

AT_ONCE = 8
"""Requests under way at the same time."""


class _RefusedError(Exception):
    """The API server answered with another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class _Reader:
    def __init__(self, access: Access, reading: Reading) -> None:
        self._client = access.client
        self._host = access.host
        self._reading = reading
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def get(self, path: str, **query: str) -> Node:
        """Get one answer; _RefusedError, ReadError."""
        try:
            async with self._slots, asyncio.timeout(CALL_S):
                request = await self._client.param_serialize(
                    "GET", path, query_params=list(query.items()), header_params={"Accept": "application/json"},
                    auth_settings=["BearerToken"],
                )  # fmt: skip
                answer: Any = await self._client.call_api(*request, _request_timeout=CALL_S)
                body: bytes = await answer.read()
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ReadError(f"cannot reach the API server {self._host}: {said}") from None
        if answer.status == 401:
            raise ReadError(
                f"the API server {self._host} does not accept our credentials (401): expected a current kubeconfig "
                "or a service account; log in again"
            )
        if answer.status != 200:
            raise _RefusedError(answer.status)
        try:
            return Node(json.loads(body))
        except ValueError:
            raise ReadError(f"expected the Kubernetes API at {self._host}, found something that is not JSON") from None

    async def versions(self) -> dict[str, str] | None:
        """Give the groups of the API with the version to use; None where the API server does not say."""
        try:
            found = await self.get("/apis")
        except _RefusedError:
            return None
        groups = {}
        for group in found["groups"].items():
            served = [version["version"].text for version in group["versions"].items()]
            ours = next((r.version for r in RESOURCES if r.group == group["name"].text and r.version in served), "")
            groups[group["name"].text] = ours or group.at("preferredVersion.version").text
        return groups

    async def list(self, resource: Resource, namespace: str, version: str) -> None:
        """Read all objects of a kind, or note why not."""
        path, more = resource.path(namespace, version=version), ""
        try:
            while True:
                query = {"limit": str(PAGE), **({"continue": more} if more else {})}
                page = await self.get(path, **query)
                for item in page["items"].items():
                    # The items of a list do not say what they are.
                    whole = {"kind": resource.kind, "apiVersion": page["apiVersion"].text, **_mapping(item.value)}
                    if found := parse_object(whole, namespace if resource.namespaced else ""):
                        self._reading.objects.append(found)
                if not (more := page.at("metadata.continue").text):
                    return
        except _RefusedError as refused:
            self._note(resource, namespace, "list", refused.status)

    async def one(self, resource: Resource, namespace: str, name: str) -> None:
        """Read one object by its name, or note why not; one that is not there is no matter here."""
        try:
            found = await self.get(resource.path(namespace, name))
        except _RefusedError as refused:
            self._note(resource, namespace, "get", refused.status)
            return
        if obj := parse_object(
            {"kind": resource.kind, **_mapping(found.value)}, namespace if resource.namespaced else ""
        ):
            self._reading.objects.append(obj)

    def _note(self, resource: Resource, namespace: str, verb: str, status: int) -> None:
        if status == 404:  # a kind that this cluster does not have, or a ConfigMap that is optional
            return
        where = f" in namespace {namespace}" if resource.namespaced else " in the whole cluster"
        if status == 403:
            text = f"could not look at {resource.plural}: needs {verb} on {resource.full_name}{where}"
        else:
            text = f"could not look at {resource.plural}: the API server answers {status}"
        lost = Unread(resource.kind, resource.need, text)
        if lost not in self._reading.unread:
            self._reading.unread.append(lost)


def _mapping(found: object) -> dict[str, object]:
    return found if isinstance(found, dict) else {}


async def read_cluster(namespaces: Sequence[str], *, kubeconfig: str = "", context: str = "") -> Reading:
    """Read these namespaces (none: that of the kubeconfig's context, or the pod's own); ReadError."""
    try:
        access = await connect(kubeconfig=kubeconfig, context=context)
    except DiscoveryError as error:
        raise ReadError(str(error)) from None
    try:
        return await read_access(access, namespaces)
    finally:
        await access.client.close()


async def read_access(access: Access, namespaces: Sequence[str]) -> Reading:
    """Read these namespaces with a client that is there; ReadError."""
    wanted = list(dict.fromkeys(namespaces)) or [access.namespace]
    plural = "namespace" if len(wanted) == 1 else "namespaces"
    reading = Reading(f"{plural} {', '.join(wanted)} at {access.host}", live=True)
    reader = _Reader(access, reading)
    versions = await reader.versions()
    calls = []
    for resource in RESOURCES:
        if versions is not None and resource.group and resource.group not in versions:
            continue  # a kind that this cluster does not have
        version = (versions or {}).get(resource.group, "")
        for namespace in wanted if resource.namespaced else [""]:
            calls.append(reader.list(resource, namespace, version))
    await _all(calls)
    unread = {lost.kind for lost in reading.unread}
    if {"Deployment", "StatefulSet"} <= unread:
        raise ReadError("; ".join(lost.text for lost in reading.unread if lost.kind in ("Deployment", "StatefulSet")))
    by_name = [reader.one(CONFIG_MAP, *key) for key in sorted(wanted_config_maps(reading.objects))]
    by_name += [reader.one(CLUSTER_ROLE, "", name) for name in sorted(bound_roles(reading.scene()))]
    await _all(by_name)
    reading.unread.sort(key=lambda lost: (lost.need != "must", lost.text))
    return reading


async def _all(calls: Iterable[Any]) -> None:
    """Run calls side by side; the first ReadError ends all."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except* ReadError as errors:
        first = next(error for error in errors.exceptions if isinstance(error, ReadError))
        raise ReadError(str(first)) from None
