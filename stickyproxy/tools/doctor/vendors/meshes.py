"""Ways in that are neither Ingress nor Gateway API: OpenShift's Route and Istio's VirtualService.

Facts: OpenShift's guide, "Route-specific annotations" (the router keeps browsers by a cookie unless
`disable_cookies`; passthrough routes hide HTTP from it and are balanced by address); Istio's reference, "Destination
Rule" (`loadBalancer.consistentHash`: `httpCookie`, `useSourceIp`, ...). A DestinationRule may stand in any namespace,
so where none is found nothing is known.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict, no_limits
from stickyproxy.tools.doctor.findings import annotate
from stickyproxy.tools.doctor.vendors.common import Times, idle_limits, is_true

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

PREFIX = "haproxy.router.openshift.io/"


def judge_route(_: "Scene", entry: Entry) -> Verdict:
    """Judge an OpenShift Route."""
    route = entry.obj
    off = route.annotation(f"{PREFIX}disable_cookies")
    termination = route.spec.at("tls.termination")
    if termination.text == "passthrough":
        return Verdict(Affinity.ADDRESS, route, termination.path, "a passthrough route is balanced by address")
    if is_true(off.text):
        return Verdict(
            Affinity.NONE,
            route,
            off.path,
            "its cookie is switched off",
            annotate(route, {f"{PREFIX}disable_cookies": None}),
        )
    return Verdict(Affinity.COOKIE, route, off.path)


def limit_route(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what a Route does to sockets."""
    what = "the router ends a socket without a byte for its timeout-tunnel"
    yield from idle_limits(entry.obj, [Times(f"{PREFIX}timeout-tunnel", what, plain=0.001, good="1h")])


def judge_virtual_service(scene: "Scene", entry: Entry) -> Verdict:
    """Judge a VirtualService by the DestinationRule of its host."""
    service = entry.service
    names = (
        service.name,
        f"{service.name}.{service.namespace}",
        f"{service.name}.{service.namespace}.svc.cluster.local",
    )
    for rule in scene.all("DestinationRule"):
        host = rule.spec["host"].text
        if host in names[1:] or (host == names[0] and rule.namespace == service.namespace):
            hashed = rule.spec.at("trafficPolicy.loadBalancer.consistentHash")
            if hashed["httpCookie"]:
                return Verdict(Affinity.COOKIE, rule, hashed.path)
            if hashed["useSourceIp"].flag:
                return Verdict(Affinity.ADDRESS, rule, hashed.path)
            if not hashed:
                return Verdict(Affinity.NONE, rule, hashed.path, "its DestinationRule hashes nothing")
            return Verdict(Affinity.UNKNOWN, rule, hashed.path, "it hashes something else than a cookie")
    return Verdict(Affinity.UNKNOWN, entry.obj, "spec.http", "no DestinationRule for it was found here")


OPENSHIFT = Vendor("OpenShift's router", (), (), (), judge_route, limit_route)
ISTIO = Vendor("Istio", (), (), (), judge_virtual_service, no_limits)
