"""Questions that several tests ask of rendered manifests."""

from collections.abc import Iterator
from typing import Any

from .tools import Manifest

WORKLOADS = ("Deployment", "StatefulSet")


def identity(manifest: Manifest) -> str:
    """Give KIND/NAME."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def by_identity(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Index manifests by KIND/NAME; two of the same fail."""
    found = {identity(manifest): manifest for manifest in manifests}
    assert len(found) == len(manifests), sorted(map(identity, manifests))
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the pod templates with the identity of whose they are."""
    for manifest in manifests:
        if manifest["kind"] in WORKLOADS:
            yield identity(manifest), manifest["spec"]["template"]


def containers(pod: Manifest) -> Iterator[Manifest]:
    """Yield all containers of a pod template, sidecars too."""
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def proxies(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield the containers that run stickyproxy, each after its pod template."""
    for _, pod in pods(manifests):
        for container in containers(pod):
            if container["name"] == "stickyproxy":
                yield pod, container


def environment(container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """Give the container's environment as far as the manifests say it (secrets are none of theirs)."""
    found: dict[str, str] = {}
    maps = {m["metadata"]["name"]: m.get("data", {}) for m in manifests if m["kind"] == "ConfigMap"}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", []):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
    return found


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Decide whether labels match all of a selector."""
    return all(labels.get(key) == value for key, value in selector.items())


def port_numbers(container: Manifest) -> dict[Any, int]:
    """Give the container's ports, by name and by number."""
    ports = container.get("ports", [])
    return {p["containerPort"]: p["containerPort"] for p in ports} | {p["name"]: p["containerPort"] for p in ports}
