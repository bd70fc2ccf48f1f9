"""How browsers get in: every Ingress, route and load balancer that leads to a Service, and what it does to a socket.

Laws: one entry for each object and Service; who cannot be told says UNKNOWN, and a rule that hears it does not accuse.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from stickyproxy.tools.doctor.findings import Patch
from stickyproxy.tools.doctor.objects import Node, Obj

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene


class Affinity(Enum):
    """How an entry chooses a pod."""

    COOKIE = "each browser keeps its pod"
    ADDRESS = "each client address keeps its pod"
    NONE = "any pod at any time"
    UNKNOWN = "not to be told from the objects"


@dataclass(frozen=True)
class Verdict:
    """What an entry does with sessions, with the place that says so and the patch that would make it keep them."""

    affinity: Affinity
    where: Obj
    field: str
    why: str = ""
    patch: Patch | None = None


LimitKind = Literal["idle", "life", "buffering", "upgrade", "check"]
"""`idle`: cut after silence; `life`: cut after a time, busy or not; `buffering`: bytes wait; `upgrade`: WebSockets do
not pass; `check`: a health check asks for a page of the app."""


@dataclass(frozen=True)
class Limit:
    """What an entry does to a socket or an answer; seconds of an `idle` or a `life`."""

    kind: LimitKind
    where: Obj
    field: str
    why: str
    seconds: float = 0.0
    patch: Patch | None = None


@dataclass(frozen=True)
class Entry:
    """An object that leads browsers to a Service; `rule` is the part of it that does."""

    obj: Obj
    service: Obj
    port: Node
    vendor: "Vendor"
    rule: Node


@dataclass(frozen=True)
class Vendor:
    """What makes entries real: an ingress controller, a gateway, a cloud's load balancer.

    classes: names of ingress classes that are its own by convention. controllers: beginnings of an IngressClass's
    `controller`. prefixes: of its annotations.
    """

    name: str
    classes: tuple[str, ...]
    controllers: tuple[str, ...]
    prefixes: tuple[str, ...]
    judge: Callable[["Scene", Entry], Verdict]
    limits: Callable[["Scene", Entry], Iterable[Limit]]


def unknown(_: "Scene", entry: Entry) -> Verdict:
    """Judge an entry that nothing here knows."""
    return Verdict(Affinity.UNKNOWN, entry.obj, "spec", "doctor does not know its controller")


def no_limits(_: "Scene", __: Entry) -> Iterable[Limit]:
    """Give the limits of an entry that nothing here knows."""
    return ()


UNKNOWN = Vendor("an unknown controller", (), (), (), unknown, no_limits)


def vendor_of(ingress: Obj, classes: Iterable[Obj], vendors: Iterable[Vendor]) -> Vendor:
    """Tell which controller an Ingress is for: by its class's object, its class's name, or its annotations."""
    vendors = tuple(vendors)
    name = ingress.spec["ingressClassName"].text or ingress.annotation("kubernetes.io/ingress.class").text
    known = {found.name: found for found in classes}
    if not name:
        default = [c for c in known.values() if c.annotation("ingressclass.kubernetes.io/is-default-class").text]
        name = default[0].name if len(default) == 1 else ""
    controller = known[name].spec["controller"].text if name in known else ""
    annotated = [v for v in vendors if any(key.startswith(v.prefixes) for key in ingress.annotations)]
    alone = annotated[0] if len(annotated) == 1 else UNKNOWN
    if controller:
        # A second ingress-nginx has a name of its own, with `nginx` in it; Kong's says nothing, whatever is annotated.
        own = alone if any(part in controller for part in alone.classes) else UNKNOWN
        return next((v for v in vendors if controller.startswith(v.controllers)), own)
    if name:
        named = [v for v in vendors if name in v.classes]
        both = [v for v in named if v in annotated]  # two controllers call their class `nginx`
        return next(iter([*both, *named]), alone)
    return alone


def ingress_backends(ingress: Obj) -> Iterator[tuple[str, Node, Node]]:
    """Give the Services of an Ingress: name, port and the path they belong to."""
    places = [ingress.spec["defaultBackend"]]
    for rule in ingress.spec["rules"].items():
        places += [path["backend"] for path in rule.at("http.paths").items()]
    for place in places:
        port = place.at("service.port")
        name = place.at("service.name").text
        if name:
            yield name, port["name"] if port["name"] else port["number"], place


def route_backends(route: Obj) -> Iterator[tuple[str, str, Node, Node]]:
    """Give the Services of an HTTPRoute: namespace, name, port and the rule they belong to."""
    for rule in route.spec["rules"].items():
        for reference in rule["backendRefs"].items():
            if reference["kind"].text in ("", "Service") and reference["group"].text == "":
                namespace = reference["namespace"].text or route.namespace
                yield namespace, reference["name"].text, reference["port"], rule


def traefik_backends(route: Obj) -> Iterator[tuple[str, str, Node, Node]]:
    """Give the Services of a Traefik IngressRoute: namespace, name, port and the place that names them."""
    for rule in route.spec["routes"].items():
        for service in rule["services"].items():
            if service["kind"].text in ("", "Service"):
                yield service["namespace"].text or route.namespace, service["name"].text, service["port"], service


def openshift_backends(route: Obj) -> Iterator[tuple[str, str, Node, Node]]:
    """Give the Services of an OpenShift Route. Its port is the pods' own, so no port of the Service is named."""
    for place in [route.spec["to"], *route.spec["alternateBackends"].items()]:
        if place["kind"].text in ("", "Service") and place["name"].text:
            yield route.namespace, place["name"].text, Node(None), place


def istio_backends(route: Obj) -> Iterator[tuple[str, str, Node, Node]]:
    """Give the Services of an Istio VirtualService."""
    for rule in route.spec["http"].items():
        for place in rule["route"].items():
            name, _, rest = place.at("destination.host").text.partition(".")
            if name and (not rest or ".svc" in f".{rest}" or "." not in rest):
                yield rest.partition(".")[0] or route.namespace, name, place.at("destination.port.number"), place


ROUTES: Mapping[str, Callable[[Obj], Iterator[tuple[str, str, Node, Node]]]] = {
    "HTTPRoute": route_backends,
    "IngressRoute": traefik_backends,
    "Route": openshift_backends,
    "VirtualService": istio_backends,
}
"""Kinds of ways in beside Ingress and Service, and how the Services of one are told."""
