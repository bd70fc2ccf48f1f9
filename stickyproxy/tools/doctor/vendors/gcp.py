"""Google Cloud: GKE Ingress with its BackendConfig, and GKE's Gateway policies.

Facts: GKE's guides, "Ingress configuration" and "Configure Gateway resources using policies" (`timeoutSec` is 30 by
default; `sessionAffinity.affinityType`; affinity needs container-native load balancing, else it binds to a node), and
Cloud Load Balancing, "Backend services overview" (for a WebSocket through an external Application Load Balancer the
backend service's time-out is how long it may stay open, idle or not).
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import Patch, annotate
from stickyproxy.tools.doctor.objects import Node, Obj

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

CONFIG = "cloud.google.com/backend-config"
OLD_CONFIG = "beta.cloud.google.com/backend-config"
NEG = "cloud.google.com/neg"
DEFAULT_TIMEOUT_S = 30.0


def backend_config(scene: "Scene", entry: Entry) -> tuple[Node, Obj | None]:
    """Give the annotation of the Service that names a BackendConfig, and that object as far as it is there."""
    node, old = entry.service.annotation(CONFIG), entry.service.annotation(OLD_CONFIG)
    node = old if old and not node else node
    try:
        named = Node(json.loads(node.text or "{}"))
    except ValueError:
        return node, None
    name = named["ports"][entry.port.text].text or named["default"].text
    return node, scene.find("BackendConfig", entry.service.namespace, name) if name else None


def judge(scene: "Scene", entry: Entry) -> Verdict:
    """Judge a GKE Ingress."""
    node, config = backend_config(scene, entry)
    if not scene.knows("BackendConfig") or (node and config is None):
        return Verdict(Affinity.UNKNOWN, entry.service, node.path, "its BackendConfig could not be looked at")
    if config is None:
        return Verdict(
            Affinity.NONE,
            entry.service,
            node.path,
            "its Service names no BackendConfig with an affinity (sessionAffinity.affinityType: GENERATED_COOKIE)",
        )
    affinity = config.spec.at("sessionAffinity.affinityType")
    if affinity.text in ("GENERATED_COOKIE", "CLIENT_IP") and '"ingress":false' in entry.service.annotation(
        NEG
    ).text.replace(" ", ""):
        return Verdict(
            Affinity.NONE,
            entry.service,
            entry.service.annotation(NEG).path,
            "without network endpoint groups its affinity binds a browser to a node, whose kube-proxy picks any pod",
            annotate(entry.service, {NEG: '{"ingress": true}'}),
        )
    if affinity.text == "GENERATED_COOKIE":
        return Verdict(Affinity.COOKIE, config, affinity.path)
    if affinity.text == "CLIENT_IP":
        return Verdict(Affinity.ADDRESS, config, affinity.path)
    patch = Patch(config, "merge", {"spec": {"sessionAffinity": {"affinityType": "GENERATED_COOKIE"}}})
    return Verdict(Affinity.NONE, config, affinity.path, "its BackendConfig has no affinity", patch)


def limits(scene: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what a GKE Ingress does to sockets and to the app."""
    node, config = backend_config(scene, entry)
    if not scene.knows("BackendConfig") or (node and config is None):
        return
    why = "Google's load balancer ends a WebSocket, busy or not, after timeoutSec: {:g} s"
    if config is None:
        yield Limit(
            "life",
            entry.service,
            node.path,
            why.format(DEFAULT_TIMEOUT_S) + ", its default where a Service names no BackendConfig",
            DEFAULT_TIMEOUT_S,
        )
        return
    timeout = config.spec["timeoutSec"]
    seconds = float(timeout.number) if timeout.number is not None else DEFAULT_TIMEOUT_S
    note = "" if timeout else ", its default"
    yield Limit(
        "life",
        config,
        timeout.path,
        why.format(seconds) + note,
        seconds,
        Patch(config, "merge", {"spec": {"timeoutSec": 86400}}),
    )
    path = config.spec.at("healthCheck.requestPath")
    kind = config.spec.at("healthCheck.type").text
    if path.text == "/" and kind in ("", "HTTP", "HTTPS"):
        yield Limit(
            "check",
            config,
            path.path,
            "Google's health checks ask for `/`",
            patch=Patch(config, "merge", {"spec": {"healthCheck": {"requestPath": "/healthz"}}}),
        )


def policy_of(scene: "Scene", service: Obj) -> Obj | None:
    """Give the GCPBackendPolicy of a Service."""
    for policy in scene.all("GCPBackendPolicy"):
        target = policy.spec["targetRef"]
        if (
            policy.namespace == service.namespace
            and target["kind"].text == "Service"
            and (target["name"].text == service.name)
        ):
            return policy
    return None


GCP = Vendor(
    "GKE Ingress",
    ("gce", "gce-internal"),
    ("networking.gke.io/", "k8s.io/ingress-gce"),
    ("ingress.gcp.kubernetes.io/", "networking.gke.io/", "kubernetes.io/ingress.global-static-ip-name"),
    judge,
    limits,
)
