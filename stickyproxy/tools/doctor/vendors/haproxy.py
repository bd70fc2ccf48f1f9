"""Two controllers that stand on HAProxy: HAProxy Technologies' own (`haproxy.org/`) and HAProxy Ingress
(`haproxy-ingress.github.io/`).

Facts: their annotation references. An upgraded connection is under `timeout tunnel` alone, which both set to 1h by
default; times without a unit are milliseconds, as in HAProxy itself. What is on the Service counts before the Ingress.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import annotate
from stickyproxy.tools.doctor.objects import Node
from stickyproxy.tools.doctor.vendors.common import Times, idle_limits, is_true

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

TECHNOLOGIES = "haproxy.org/"
COMMUNITY = ("haproxy-ingress.github.io/", "ingress.kubernetes.io/")

TUNNEL = "HAProxy ends a socket without a byte for its timeout-tunnel"


def _annotation(entry: Entry, *keys: str) -> Node:
    """Give the first of these annotations, the Service's before the Ingress's."""
    places = [obj.annotation(key) for obj in (entry.service, entry.obj) for key in keys]
    return next((node for node in places if node), entry.obj.annotation(keys[0]))


def judge_technologies(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress of HAProxy Technologies' controller."""
    for name in ("cookie-persistence", "cookie-persistence-no-dynamic"):
        cookie = _annotation(entry, TECHNOLOGIES + name)
        if cookie.text:
            return Verdict(Affinity.COOKIE, entry.obj, cookie.path)
    balance = _annotation(entry, f"{TECHNOLOGIES}load-balance")
    if balance.text.startswith("source"):
        return Verdict(Affinity.ADDRESS, entry.obj, balance.path)
    if balance.text.startswith(("uri", "url_param", "hdr", "hash", "random(")):
        return Verdict(Affinity.UNKNOWN, entry.obj, balance.path, f"it balances by {balance.text}")
    patch = annotate(entry.obj, {f"{TECHNOLOGIES}cookie-persistence": "nicegui"})
    field = entry.obj.annotation(f"{TECHNOLOGIES}cookie-persistence").path
    return Verdict(
        Affinity.NONE,
        entry.obj,
        field,
        "it has no cookie-persistence (unless the controller's ConfigMap sets it for all)",
        patch,
    )


def judge_community(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress of HAProxy Ingress."""
    affinity = _annotation(entry, *(prefix + "affinity" for prefix in COMMUNITY))
    upstream = _annotation(entry, *(prefix + "service-upstream" for prefix in COMMUNITY))
    balance = _annotation(entry, *(prefix + "balance-algorithm" for prefix in COMMUNITY))
    if is_true(upstream.text):
        return Verdict(
            Affinity.NONE,
            entry.obj,
            upstream.path,
            "with service-upstream it sends everything to the Service's own address, so that a cookie has no pod to "
            "name",
        )
    if affinity.text == "cookie":
        return Verdict(Affinity.COOKIE, entry.obj, affinity.path)
    if balance.text.startswith("source"):
        return Verdict(Affinity.ADDRESS, entry.obj, balance.path)
    if balance.text.startswith(("uri", "url_param", "hdr", "hash")):
        return Verdict(Affinity.UNKNOWN, entry.obj, balance.path, f"it balances by {balance.text}")
    patch = annotate(entry.obj, {f"{COMMUNITY[0]}affinity": "cookie"})
    return Verdict(
        Affinity.NONE,
        entry.obj,
        affinity.path,
        "it has no affinity annotation (unless the controller's ConfigMap sets it for all)",
        patch,
    )


def limits_technologies(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what an Ingress of HAProxy Technologies' controller does to sockets."""
    for obj in (entry.service, entry.obj):
        yield from idle_limits(obj, [Times(f"{TECHNOLOGIES}timeout-tunnel", TUNNEL, plain=0.001, good="1h")])


def limits_community(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what an Ingress of HAProxy Ingress does to sockets."""
    for obj in (entry.service, entry.obj):
        for prefix in COMMUNITY:
            yield from idle_limits(obj, [Times(f"{prefix}timeout-tunnel", TUNNEL, plain=0.001, good="1h")])


HAPROXY = Vendor(
    "HAProxy Kubernetes Ingress Controller",
    ("haproxy",),
    ("haproxy.org/ingress-controller",),
    (TECHNOLOGIES,),
    judge_technologies,
    limits_technologies,
)
HAPROXY_INGRESS = Vendor(
    "HAProxy Ingress",
    ("haproxy", "haproxy-ingress"),
    ("haproxy-ingress.github.io/controller",),
    COMMUNITY[:1],
    judge_community,
    limits_community,
)
