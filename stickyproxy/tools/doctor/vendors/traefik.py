"""Traefik, by Ingress or by its own IngressRoute.

Facts: Traefik's reference, "Kubernetes Ingress" (`service.sticky.cookie` and `service.nativelb` count on the Service
and not on the Ingress; nativelb leaves the choice of a pod to kube-proxy, Traefik issue 10678) and "IngressRoute"
(`sticky`, `nativeLB`, `middlewares`); the middleware `buffering`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import Patch, annotate
from stickyproxy.tools.doctor.objects import Node, Obj
from stickyproxy.tools.doctor.vendors.common import is_true

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

PREFIX = "traefik.ingress.kubernetes.io/"
STICKY = f"{PREFIX}service.sticky.cookie"
NATIVE = f"{PREFIX}service.nativelb"
OLD_STICKY = f"{PREFIX}affinity"


def judge(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress for Traefik: what counts is on the Service."""
    service = entry.service
    sticky, native = service.annotation(STICKY), service.annotation(NATIVE)
    if is_true(native.text):
        return Verdict(
            Affinity.NONE,
            service,
            native.path,
            "with nativelb Traefik sends everything to the Service's own address, so that a cookie has no pod to name",
            annotate(service, {NATIVE: None, STICKY: "true"}),
        )
    if is_true(sticky.text) or is_true(service.annotation(OLD_STICKY).text):
        return Verdict(Affinity.COOKIE, service, sticky.path)
    misplaced = entry.obj.annotation(STICKY)
    why = "its Service has no sticky annotation"
    if misplaced:
        why = f"{STICKY} stands on the Ingress, where Traefik does not read it: it belongs on the Service"
    return Verdict(Affinity.NONE, service, sticky.path, why, annotate(service, {STICKY: "true"}))


def limits(scene: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what the middlewares of an Ingress do to sockets."""
    node = entry.obj.annotation(f"{PREFIX}router.middlewares")
    for reference in node.text.split(","):
        name, at, provider = reference.strip().partition("@")
        if at and provider == "kubernetescrd":
            for middleware in scene.all("Middleware"):
                if name in (f"{middleware.namespace}-{middleware.name}", f"{middleware.namespace}_{middleware.name}"):
                    yield from _buffering(entry.obj, node.path, middleware)


def judge_route(_: "Scene", entry: Entry) -> Verdict:
    """Judge a Service of an IngressRoute."""
    place = entry.rule
    sticky, native = place.at("sticky.cookie"), place["nativeLB"]
    if native.flag:
        return Verdict(
            Affinity.NONE,
            entry.obj,
            native.path,
            "with nativeLB Traefik sends everything to the Service's own address, so that a cookie has no pod to name",
        )
    if sticky:
        return Verdict(Affinity.COOKIE, entry.obj, sticky.path)
    patch = _replace(entry, place, "sticky", {"cookie": {"name": "traefik"}})
    return Verdict(Affinity.NONE, entry.obj, sticky.path, "its Service has no sticky cookie", patch)


def limit_route(scene: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what the middlewares of an IngressRoute do to sockets."""
    for route in entry.obj.spec["routes"].items():
        if not any(service.value is entry.rule.value for service in route["services"].items()):
            continue
        for reference in route["middlewares"].items():
            namespace = reference["namespace"].text or entry.obj.namespace
            middleware = scene.find("Middleware", namespace, reference["name"].text)
            if middleware is not None:
                yield from _buffering(entry.obj, reference.path, middleware)


def _buffering(obj: Obj, path: str, middleware: Obj) -> Iterator[Limit]:
    if middleware.spec["buffering"]:
        yield Limit(
            "buffering",
            obj,
            path,
            f"Traefik's middleware {middleware.name} collects requests and answers before it passes them on",
        )


def _replace(entry: Entry, place: Node, key: str, value: object) -> Patch | None:
    """Make a JSON patch that adds a key to one Service of the route: merging would replace the whole list."""
    for number, route in enumerate(entry.obj.spec["routes"].items()):
        for index, service in enumerate(route["services"].items()):
            if service.value is place.value:
                path = f"/spec/routes/{number}/services/{index}/{key}"
                return Patch(entry.obj, "json", [{"op": "add", "path": path, "value": value}])
    return None


TRAEFIK = Vendor(
    "Traefik", ("traefik", "traefik-internal"), ("traefik.io/ingress-controller",), (PREFIX,), judge, limits
)
TRAEFIK_ROUTE = Vendor("Traefik", (), (), (), judge_route, limit_route)
