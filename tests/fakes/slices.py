"""EndpointSlices as the API gives them."""

from collections.abc import Iterable
from typing import Any

Slice = dict[str, Any]


def endpoint(address: str, uid: str = "", *, name: str = "", **conditions: bool | None) -> dict[str, Any]:
    """Make an endpoint; without a UID it has no `targetRef`."""
    made: dict[str, Any] = {"addresses": [address], "conditions": conditions}
    if uid:
        made["targetRef"] = {"kind": "Pod", "namespace": "shop", "name": name or f"pod-{uid}", "uid": uid}
    return made


def make_slice(
    name: str,
    endpoints: Iterable[dict[str, Any]] = (),
    *,
    ports: Iterable[dict[str, Any]] | None = ({"name": "", "port": 8080, "protocol": "TCP"},),
    family: str = "IPv4",
    service: str = "app",
    namespace: str = "shop",
) -> Slice:
    """Make an EndpointSlice."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "ports": None if ports is None else list(ports),
        "endpoints": list(endpoints),
    }
