"""Rules about who asks whether the app is well, and what that costs."""

import re
from collections.abc import Iterator

from stickyproxy.tools.doctor.findings import Fault, Rule, Severity
from stickyproxy.tools.doctor.objects import Node
from stickyproxy.tools.doctor.scene import App, Scene
from stickyproxy.tools.doctor.workloads import PROBES

PATIENCE_S = 15
"""Below this a liveness probe kills an app whose event loop one slow handler holds up."""

_PAGE_BY_COMMAND = re.compile(
    r"\b(?:curl|wget|http)\b.*?\b(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[?::1\]?)(?::([0-9]+))?/?(?=[\s\"';|&)]|$)"
)

COST = (
    "each answer builds a page that NiceGUI keeps for a minute (60 KB and more), runs the page's function, and "
    "fails when the page is slow"
)


def _is_page(app: App, probe: Node) -> bool:
    """Say whether a probe asks the app's container for `/`, which is a page of nearly every NiceGUI app."""
    get = probe["httpGet"]
    if get:
        if get["host"].text not in ("", "127.0.0.1", "localhost") or get["path"].text.partition("?")[0] not in (
            "",
            "/",
        ):
            return False
        return _is_own(app, app.container.port(get["port"]))
    found = _PAGE_BY_COMMAND.search(" ".join(probe.at("exec.command").words()))
    return bool(found) and _is_own(app, int(found[1]) if found and found[1] else None)


def _is_own(app: App, number: int | None) -> bool:
    """Say whether a port is the app's own and not another container's, such as a sidecar's."""
    others = [c for c in app.workload.containers if c is not app.container]
    return number is None or not any(number in other.ports.values() for other in others)


def probe_builds_pages(scene: Scene) -> Iterator[Fault]:
    """Find probes that GET a page."""
    for app in scene.apps:
        for name in PROBES:
            probe = app.container.node[name]
            if not _is_page(app, probe):
                continue
            port = probe.at("httpGet.port").value or next(iter(app.container.ports.values()), None)
            patch = None
            if port is not None:
                change: dict[str, object] = {name: {"httpGet": None, "exec": None, "tcpSocket": {"port": port}}}
                patch = app.workload.patch_container(app.container, change)
            place = probe.at("httpGet.path") if probe["httpGet"] else probe.at("exec.command")
            yield Fault(
                app.obj,
                place.path,
                f"the {name} asks for `/`, a page: {COST}",
                "ask a plain route of the app (@app.get('/healthz')), or only whether it listens (tcpSocket)",
                patch,
            )


def check_builds_pages(scene: Scene) -> Iterator[Fault]:
    """Find load balancers whose health checks GET a page."""
    for app in scene.apps:
        for entry in scene.entries_to(app.workload, proxy=False):
            for limit in entry.vendor.limits(scene, entry):
                if limit.kind == "check":
                    yield Fault(
                        limit.where,
                        limit.field,
                        f"{limit.why}, in every one of its zones: {COST}",
                        "let them ask a plain route of the app, such as /healthz",
                        limit.patch,
                    )


def hasty_liveness(scene: Scene) -> Iterator[Fault]:
    """Find liveness probes that restart an app because it was busy for some seconds."""
    for app in scene.apps:
        probe = app.container.node["livenessProbe"]
        if not (probe["httpGet"] or probe["exec"]):
            continue
        period, threshold = probe["periodSeconds"].number or 10, probe["failureThreshold"].number or 3
        if period * threshold < PATIENCE_S:
            wanted = -(-60 // period)
            yield Fault(
                app.obj,
                probe["failureThreshold"].path,
                f"the livenessProbe restarts the app after {period * threshold} s without an answer: one handler "
                "that holds the event loop up for so long costs every page of the pod",
                "leave it a minute: periodSeconds x failureThreshold",
                app.workload.patch_container(app.container, {"livenessProbe": {"failureThreshold": wanted}}),
            )


RULES = (
    Rule("probe-builds-pages", Severity.WARNING, "a probe that asks for a page", probe_builds_pages),
    Rule("check-builds-pages", Severity.WARNING, "a load balancer's health check asks for a page", check_builds_pages),
    Rule("hasty-liveness", Severity.WARNING, "a busy app is restarted", hasty_liveness),
)
