"""The Gateway API's HTTPRoute, with the policies of Envoy Gateway and of GKE.

Facts: GEP-1742 (`timeouts.request` covers the whole exchange; a zero switches it off; several implementations count a
WebSocket as one request), GEP-1619 (`sessionPersistence`); Envoy Gateway's API reference (BackendTrafficPolicy:
`loadBalancer.consistentHash`, `timeout.http.requestTimeout`, `maxStreamDuration`, `maxConnectionDuration`,
`connectionIdleTimeout`, `requestBuffer`, whose default mode does not work with upgrades; ClientTrafficPolicy:
`timeout.http.idleTimeout`, `streamIdleTimeout`).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stickyproxy.tools.doctor.entries import Affinity, Entry, Limit, Vendor, Verdict
from stickyproxy.tools.doctor.findings import Patch
from stickyproxy.tools.doctor.objects import Node, Obj, parse_time
from stickyproxy.tools.doctor.vendors.gcp import policy_of

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

POLICY_LIVES = ("requestTimeout", "maxStreamDuration", "maxConnectionDuration")
CLIENT_IDLES = ("idleTimeout", "streamIdleTimeout")

STATELESS = ("eg", "envoy", "envoy-gateway", "gke-l7-")
"""Gateway classes whose gateways keep no session unless one of the objects that are read here says so."""


def _gateways(route: Obj) -> Iterator[tuple[str, str]]:
    for parent in route.spec["parentRefs"].items():
        if parent["kind"].text in ("", "Gateway"):
            yield parent["namespace"].text or route.namespace, parent["name"].text


def policies(scene: "Scene", kind: str, route: Obj) -> list[Obj]:
    """Give the policies of a kind that are attached to a route or its gateways, the route's first."""
    gateways = list(_gateways(route))
    mine, theirs = [], []
    for policy in scene.all(kind):
        for target in [policy.spec["targetRef"], *policy.spec["targetRefs"].items()]:
            where = (policy.namespace, target["name"].text)
            if target["kind"].text == "HTTPRoute" and where == (route.namespace, route.name):
                mine.append(policy)
            elif target["kind"].text == "Gateway" and where in gateways:
                theirs.append(policy)
    return mine + theirs


def judge(scene: "Scene", entry: Entry) -> Verdict:
    """Judge a rule of an HTTPRoute."""
    persistence = entry.rule["sessionPersistence"]
    if persistence:
        if persistence["type"].text in ("", "Cookie"):
            return Verdict(Affinity.COOKIE, entry.obj, persistence.path)
        return Verdict(Affinity.UNKNOWN, entry.obj, persistence.path, "it persists by a header")
    for policy in policies(scene, "BackendTrafficPolicy", entry.obj):
        balancer = policy.spec["loadBalancer"]
        hashed = balancer.at("consistentHash.type")
        if balancer["type"].text == "ConsistentHash":
            kinds = {"Cookie": Affinity.COOKIE, "SourceIP": Affinity.ADDRESS}
            return Verdict(kinds.get(hashed.text, Affinity.UNKNOWN), policy, hashed.path, f"it hashes {hashed.text}")
    google = policy_of(scene, entry.service)
    if google is not None:
        kind = google.spec.at("default.sessionAffinity.type")
        kinds = {"GENERATED_COOKIE": Affinity.COOKIE, "CLIENT_IP": Affinity.ADDRESS}
        if kind.text in kinds:
            return Verdict(kinds[kind.text], google, kind.path)
    classes = [
        gateway.spec["gatewayClassName"].text
        for key in _gateways(entry.obj)
        if (gateway := scene.find("Gateway", *key)) is not None
    ]
    seen = classes and scene.knows("BackendTrafficPolicy", "GCPBackendPolicy")
    if seen and all(name.startswith(STATELESS) for name in classes):
        return Verdict(Affinity.NONE, entry.obj, persistence.path, "neither the route nor a policy keeps sessions")
    return Verdict(
        Affinity.UNKNOWN,
        entry.obj,
        persistence.path,
        "neither the route nor a policy here keeps sessions, but its Gateway may",
    )


def limits(scene: "Scene", entry: Entry) -> Iterator[Limit]:
    """Give what a route and its policies do to sockets."""
    number = next((n for n, r in enumerate(entry.obj.spec["rules"].items()) if r.value is entry.rule.value), 0)
    for name in ("request", "backendRequest"):
        node = entry.rule["timeouts"][name]
        seconds = parse_time(node.text) if node else None
        if seconds:
            body = [{"op": "replace", "path": f"/spec/rules/{number}/timeouts/{name}", "value": "0s"}]
            yield Limit(
                "life",
                entry.obj,
                node.path,
                f"several gateways count a WebSocket as one request, and end it after timeouts.{name}: {seconds:g} s",
                seconds,
                Patch(entry.obj, "json", body),
            )
    for policy in policies(scene, "BackendTrafficPolicy", entry.obj)[:1]:  # the nearest one counts alone
        yield from _backend_policy(policy)
    for policy in policies(scene, "ClientTrafficPolicy", entry.obj)[:1]:
        yield from _idles(policy, CLIENT_IDLES)
    google = policy_of(scene, entry.service)
    if google is not None:
        timeout = google.spec.at("default.timeoutSec")
        if timeout.number is not None:
            yield Limit(
                "life",
                google,
                timeout.path,
                f"Google's load balancer ends a WebSocket, busy or not, after timeoutSec: {timeout.number} s",
                float(timeout.number),
                Patch(google, "merge", {"spec": {"default": {"timeoutSec": 86400}}}),
            )


def _backend_policy(policy: Obj) -> Iterator[Limit]:
    for name in POLICY_LIVES:
        node = policy.spec.at("timeout.http")[name]
        seconds = parse_time(node.text) if node else None
        if seconds:
            yield Limit(
                "life",
                policy,
                node.path,
                f"Envoy ends a WebSocket, busy or not, after {name}: {seconds:g} s",
                seconds,
                _timeout(policy, name, "0s"),
            )
    yield from _idles(policy, ("streamIdleTimeout",))
    buffer = policy.spec["requestBuffer"]
    if buffer and buffer["mode"].text != "LimitOnly":
        yield Limit(
            "buffering",
            policy,
            buffer.path,
            "Envoy waits for a request's end before it passes it on, which a WebSocket never has",
            patch=Patch(policy, "merge", {"spec": {"requestBuffer": None}}),
        )


def _idles(policy: Obj, names: tuple[str, ...]) -> Iterator[Limit]:
    for name in names:
        node: Node = policy.spec.at("timeout.http")[name]
        seconds = parse_time(node.text) if node else None
        if seconds:
            yield Limit(
                "idle",
                policy,
                node.path,
                f"Envoy ends a socket without a byte for {name}: {seconds:g} s",
                seconds,
                _timeout(policy, name, "1h"),
            )


def _timeout(policy: Obj, name: str, value: str) -> Patch:
    return Patch(policy, "merge", {"spec": {"timeout": {"http": {name: value}}}})


GATEWAY = Vendor("a Gateway", (), (), (), judge, limits)
