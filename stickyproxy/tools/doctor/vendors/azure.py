"""Azure's Application Gateway Ingress Controller.

Facts: "Annotations for Application Gateway Ingress Controller" (`cookie-based-affinity` false, `request-timeout` 30 s
and `health-probe-path` `/` by default; without that annotation the pods' own HTTP probes say the path).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import annotate
from stickyproxy.tools.doctor.vendors.common import Times, idle_limits, is_true

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

PREFIX = "appgw.ingress.kubernetes.io/"
AFFINITY = f"{PREFIX}cookie-based-affinity"

TIMES = (
    Times(
        f"{PREFIX}request-timeout", "Application Gateway gives up on an answer after its request-timeout", good="300"
    ),
)


def judge(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress of the controller."""
    node = entry.obj.annotation(AFFINITY)
    if is_true(node.text):
        return Verdict(Affinity.COOKIE, entry.obj, node.path)
    return Verdict(
        Affinity.NONE, entry.obj, node.path, "it has no cookie-based-affinity", annotate(entry.obj, {AFFINITY: "true"})
    )


def limits(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what Application Gateway does to sockets and to the app."""
    yield from idle_limits(entry.obj, TIMES)
    path = entry.obj.annotation(f"{PREFIX}health-probe-path")
    if path.text == "/":
        yield Limit(
            "check",
            entry.obj,
            path.path,
            "Application Gateway's health probes ask for `/`",
            patch=annotate(entry.obj, {f"{PREFIX}health-probe-path": "/healthz"}),
        )


AGIC = Vendor(
    "Azure Application Gateway",
    ("azure-application-gateway", "azure/application-gateway"),
    ("azure/application-gateway",),
    (PREFIX,),
    judge,
    limits,
)
