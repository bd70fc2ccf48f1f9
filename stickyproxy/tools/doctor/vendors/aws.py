"""AWS: the Application Load Balancer by Ingress, Network and Classic Load Balancers by Service.

Facts: AWS Load Balancer Controller's guide, "Ingress annotations" (`target-type` is `instance` by default, health
checks ask for `/`, `target-group-attributes` and `load-balancer-attributes` are `key=value` apart by commas) and
"Service
annotations"; ELB's guides (idle time-out 60 s by default; a Classic HTTP listener knows no Upgrade; stickiness binds to
a target, which with `instance` is a node and not a pod).
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import annotate
from stickyproxy.tools.doctor.objects import Node, parse_time
from stickyproxy.tools.doctor.vendors.common import is_true

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

ALB = "alb.ingress.kubernetes.io/"
SERVICE = "service.beta.kubernetes.io/aws-load-balancer-"

HEALTH_PATH = "/"
"""What is asked for where no path is said."""


def attributes(node: Node) -> dict[str, str]:
    """Read `key=value,key=value`."""
    pairs = (part.partition("=") for part in node.text.split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def join(found: dict[str, str]) -> str:
    """Write `key=value,key=value`."""
    return ",".join(f"{key}={value}" for key, value in found.items())


def judge_alb(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress for an Application Load Balancer; the Service's annotations count before the Ingress's."""
    places = [obj.annotation(f"{ALB}target-group-attributes") for obj in (entry.service, entry.obj)]
    node = next((place for place in places if place), places[1])
    found = attributes(node)
    target = entry.service.annotation(f"{ALB}target-type").text or entry.obj.annotation(f"{ALB}target-type").text
    sticky = is_true(found.get("stickiness.enabled", ""))
    if sticky and target == "ip":
        return Verdict(Affinity.COOKIE, entry.obj, node.path)
    wanted = found | {
        "stickiness.enabled": "true",
        "stickiness.type": "lb_cookie",
        "stickiness.lb_cookie.duration_seconds": found.get("stickiness.lb_cookie.duration_seconds", "86400"),
    }
    patch = annotate(entry.obj, {f"{ALB}target-group-attributes": join(wanted), f"{ALB}target-type": "ip"})
    if sticky and target in ("", "instance"):
        field = entry.obj.annotation(f"{ALB}target-type").path
        why = "its stickiness binds a browser to a node (target-type instance), whose kube-proxy picks any pod"
        return Verdict(Affinity.NONE if target else Affinity.UNKNOWN, entry.obj, field, why, patch)
    return Verdict(Affinity.NONE, entry.obj, node.path, "its target group has no stickiness", patch)


def limits_alb(scene: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what an Application Load Balancer does to sockets and to the app."""
    node = entry.obj.annotation(f"{ALB}load-balancer-attributes")
    found = attributes(node)
    seconds = parse_time(found.get("idle_timeout.timeout_seconds", ""))
    if seconds is not None:
        good = join(found | {"idle_timeout.timeout_seconds": "3600"})
        yield Limit(
            "idle",
            entry.obj,
            node.path,
            f"the load balancer ends a socket without a byte for its idle_timeout of {seconds:g} s",
            seconds,
            annotate(entry.obj, {f"{ALB}load-balancer-attributes": good}),
        )
    paths = [obj.annotation(f"{ALB}healthcheck-path") for obj in (entry.service, entry.obj)]
    path = next((place for place in paths if place), paths[1])
    port = (
        entry.obj.annotation(f"{ALB}healthcheck-port").text or entry.service.annotation(f"{ALB}healthcheck-port").text
    )
    protocol = entry.obj.annotation(f"{ALB}healthcheck-protocol").text
    if (path.text or HEALTH_PATH) == "/" and port in ("", "traffic-port") and protocol in ("", "HTTP", "HTTPS"):
        yield Limit(
            "check",
            entry.obj,
            path.path,
            "the load balancer's health checks ask for `/`" + ("" if path.text else ", which is its default"),
            patch=annotate(entry.obj, {f"{ALB}healthcheck-path": "/healthz"}),
        )


def judge_service(_: "Scene", entry: Entry) -> Verdict:
    """Judge a Service of type LoadBalancer, on AWS or elsewhere."""
    service = entry.service
    node = service.annotation(f"{SERVICE}target-group-attributes")
    if is_true(attributes(node).get("stickiness.enabled", "")):
        return Verdict(Affinity.ADDRESS, service, node.path)
    affinity = service.spec["sessionAffinity"]
    if affinity.text == "ClientIP":
        return Verdict(Affinity.ADDRESS, service, affinity.path)
    return Verdict(
        Affinity.NONE,
        service,
        affinity.path,
        "a load balancer of connections knows no cookie and gives every connection any pod",
    )


def limits_service(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what a load balancer by Service does to sockets."""
    service = entry.service
    idle = service.annotation(f"{SERVICE}connection-idle-timeout")
    seconds = parse_time(idle.text) if idle else None
    if seconds is not None:
        yield Limit(
            "idle",
            service,
            idle.path,
            f"the load balancer ends a socket without a byte for its idle time-out of {seconds:g} s",
            seconds,
            annotate(service, {f"{SERVICE}connection-idle-timeout": "3600"}),
        )
    protocol = service.annotation(f"{SERVICE}backend-protocol")
    kind = service.annotation(f"{SERVICE}type").text
    ours = service.spec["loadBalancerClass"].text
    if re.match(r"https?\Z", protocol.text, re.IGNORECASE) and not kind and not ours:
        yield Limit(
            "upgrade",
            service,
            protocol.path,
            "a Classic Load Balancer with an HTTP listener does not know Upgrade, so no WebSocket reaches the app",
            patch=annotate(service, {f"{SERVICE}backend-protocol": "tcp"}),
        )


AWS_ALB = Vendor(
    "AWS Application Load Balancer",
    ("alb",),
    ("ingress.k8s.aws/alb", "eks.amazonaws.com/alb"),
    (ALB,),
    judge_alb,
    limits_alb,
)
BALANCER = Vendor("a load balancer", (), (), (), judge_service, limits_service)
