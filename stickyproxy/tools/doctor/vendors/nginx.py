"""Two controllers that stand on nginx: ingress-nginx of the Kubernetes project, and F5's own (`nginx.org/`).

Facts: ingress-nginx's user guide, "Annotations" (times are bare seconds, 60 by default; response buffering is off by
default; "Sticky sessions will not work" with `service-upstream`); F5 NGINX Ingress Controller, "Advanced configuration
with annotations" (WebSocket services must be listed, responses are buffered by default, `proxy-read-timeout` 60s).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import annotate
from stickyproxy.tools.doctor.vendors.common import Times, idle_limits, is_true

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

COMMUNITY = "nginx.ingress.kubernetes.io/"
F5 = "nginx.org/"

COMMUNITY_TIMES = (
    Times(
        f"{COMMUNITY}proxy-read-timeout",
        "ingress-nginx ends a socket that the app has sent nothing on for its proxy-read-timeout",
    ),
    Times(
        f"{COMMUNITY}proxy-send-timeout",
        "ingress-nginx ends a socket that the browser has sent nothing on for its proxy-send-timeout",
    ),
)
F5_TIMES = (
    Times(
        f"{F5}proxy-read-timeout",
        "nginx ends a socket that the app has sent nothing on for its proxy-read-timeout",
        good="3600s",
    ),
    Times(
        f"{F5}proxy-send-timeout",
        "nginx ends a socket that the browser has sent nothing on for its proxy-send-timeout",
        good="3600s",
    ),
)


def judge_community(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress of ingress-nginx."""
    ingress = entry.obj
    affinity, upstream = ingress.annotation(f"{COMMUNITY}affinity"), ingress.annotation(f"{COMMUNITY}service-upstream")
    hashed = ingress.annotation(f"{COMMUNITY}upstream-hash-by")
    if is_true(upstream.text):
        patch = annotate(ingress, {f"{COMMUNITY}service-upstream": None, f"{COMMUNITY}affinity": "cookie"})
        return Verdict(
            Affinity.NONE,
            ingress,
            upstream.path,
            "with service-upstream it sends everything to the Service's own address, so that a cookie has no pod to "
            "name",
            patch,
        )
    if affinity.text == "cookie":
        return Verdict(Affinity.COOKIE, ingress, affinity.path)
    if "remote_addr" in hashed.text or "proxy_add_x_forwarded_for" in hashed.text:
        return Verdict(Affinity.ADDRESS, ingress, hashed.path)
    if hashed.text:
        return Verdict(Affinity.UNKNOWN, ingress, hashed.path, f"it hashes {hashed.text}")
    patch = annotate(ingress, {f"{COMMUNITY}affinity": "cookie", f"{COMMUNITY}affinity-mode": "persistent"})
    return Verdict(Affinity.NONE, ingress, affinity.path, "it has no affinity annotation", patch)


def limit_community(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what an Ingress of ingress-nginx does to sockets."""
    ingress = entry.obj
    yield from idle_limits(ingress, COMMUNITY_TIMES)
    version = ingress.annotation(f"{COMMUNITY}proxy-http-version")
    if version.text == "1.0":
        yield Limit(
            "upgrade",
            ingress,
            version.path,
            "HTTP/1.0 knows no Upgrade, so no WebSocket reaches the app",
            patch=annotate(ingress, {f"{COMMUNITY}proxy-http-version": None}),
        )
    header = ingress.annotation(f"{COMMUNITY}connection-proxy-header")
    if header.text and "upgrade" not in header.text.lower():
        yield Limit(
            "upgrade",
            ingress,
            header.path,
            f"it always sends `Connection: {header.text}` to the app, in the place of the browser's `Connection: "
            "upgrade`",
            patch=annotate(ingress, {f"{COMMUNITY}connection-proxy-header": None}),
        )
    buffering = ingress.annotation(f"{COMMUNITY}proxy-buffering")
    if is_true(buffering.text):
        yield Limit(
            "buffering",
            ingress,
            buffering.path,
            "ingress-nginx collects answers before it passes them on",
            patch=annotate(ingress, {f"{COMMUNITY}proxy-buffering": "off"}),
        )


def judge_f5(_: "Scene", entry: Entry) -> Verdict:
    """Judge an Ingress of F5's controller."""
    ingress = entry.obj
    for key in ("nginx.com/sticky-cookie-services", "nginx.org/sticky-cookie-services"):
        sticky = ingress.annotation(key)
        if f"serviceName={entry.service.name} " in f"{sticky.text} ":
            return Verdict(Affinity.COOKIE, ingress, sticky.path)
    method = ingress.annotation(f"{F5}lb-method")
    if method.text.startswith(("ip_hash", "hash $remote_addr", "hash $binary_remote_addr")):
        return Verdict(Affinity.ADDRESS, ingress, method.path)
    if method.text.startswith("hash"):
        return Verdict(Affinity.UNKNOWN, ingress, method.path, f"it balances by {method.text}")
    return Verdict(Affinity.NONE, ingress, method.path, f"it balances by {method.text or 'its default'}")


def limit_f5(_: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what an Ingress of F5's controller does to sockets."""
    ingress = entry.obj
    yield from idle_limits(ingress, F5_TIMES)
    listed = ingress.annotation(f"{F5}websocket-services")
    names = [name.strip() for name in listed.text.split(",") if name.strip()]
    if entry.service.name not in names:
        yield Limit(
            "upgrade",
            ingress,
            listed.path,
            "F5's controller passes Upgrade on only to Services that this annotation lists, and "
            f"{entry.service.name} is not among them",
            patch=annotate(ingress, {f"{F5}websocket-services": ",".join([*names, entry.service.name])}),
        )


INGRESS_NGINX = Vendor(
    "ingress-nginx",
    ("nginx", "nginx-internal", "nginx-external", "ingress-nginx", "webapprouting.kubernetes.azure.com"),
    ("k8s.io/ingress-nginx", "webapprouting.kubernetes.azure.com/nginx"),
    (COMMUNITY,),
    judge_community,
    limit_community,
)
F5_NGINX = Vendor(
    "F5 NGINX Ingress Controller",
    ("nginx", "nginx-plus"),
    ("nginx.org/ingress-controller",),
    (F5, "nginx.com/"),
    judge_f5,
    limit_f5,
)
