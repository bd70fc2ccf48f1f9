"""Rules about who keeps a browser on its pod."""

import re
from collections.abc import Iterator

from stickyproxy.tools.doctor.entries import ROUTES, Affinity
from stickyproxy.tools.doctor.findings import Fault, Rule, Severity
from stickyproxy.tools.doctor.scene import App, Scene

PROXY_FIX = "put stickyproxy between (README, Deploy it), or let the entry keep browsers itself"

WAYS = ("Service", "Ingress", *ROUTES)
"""What leads browsers in: where one of these could not be looked at, nobody can say that there is none."""

WORKERS = re.compile(r"(?:^|\s)(?:--workers[= ]|-w[= ]?)([0-9]+)\b")


def _several(scene: Scene) -> Iterator[App]:
    for app in scene.apps:
        if scene.replicas(app.workload) > 1:
            yield app


def _count(scene: Scene, app: App) -> str:
    most = scene.replicas(app.workload)
    return f"up to {most} replicas" if most != app.workload.declared else f"{most} replicas"


def no_affinity(scene: Scene) -> Iterator[Fault]:
    """Find ways in that send a page and its socket to different pods."""
    for app in _several(scene):
        if scene.proxies_of(app):
            continue
        for entry in scene.entries_to(app.workload, proxy=False):
            verdict = entry.vendor.judge(scene, entry)
            if verdict.affinity is Affinity.NONE:
                yield Fault(
                    verdict.where,
                    verdict.field,
                    f"{entry.obj} leads to {_count(scene, app)} of {app.obj} and keeps no browser on one: "
                    f"{verdict.why}. A page is built on one pod, its socket reaches another, and the page reloads "
                    "again and again",
                    PROXY_FIX,
                    verdict.patch,
                )


def proxy_bypassed(scene: Scene) -> Iterator[Fault]:
    """Find ways in that lead past the proxy."""
    for app in _several(scene):
        proxies = scene.proxies_of(app)
        if not proxies:
            continue
        for entry in scene.entries_to(app.workload, proxy=False):
            verdict = entry.vendor.judge(scene, entry)
            if verdict.affinity in (Affinity.NONE, Affinity.ADDRESS):
                yield Fault(
                    entry.obj,
                    entry.rule.path or "spec",
                    f"it leads to {app.obj} past {proxies[0].workload.obj}: who comes this way has any of "
                    f"{_count(scene, app)} at any time",
                    "lead it to the proxy's Service",
                )


def _may_lead_anywhere(scene: Scene) -> bool:
    """Say whether there is a proxy of which nobody knows where it leads: its settings or its Service were not read."""
    return any(
        not scene.followed(proxy) and (not scene.live or not proxy.knows("kubernetes-service"))
        for proxy in scene.proxies
    )


def affinity_unproven(scene: Scene) -> Iterator[Fault]:
    """Find apps with several replicas of which nothing that was read says how a browser stays on one."""
    if not scene.knows(*WAYS):
        return
    for app in _several(scene):
        if scene.proxies_of(app):
            continue
        entries = scene.entries_to(app.workload, proxy=False)
        if not entries and not _may_lead_anywhere(scene):
            read = "the namespaces that were read" if scene.live else "these manifests"
            yield Fault(
                app.obj,
                "spec.replicas",
                f"{_count(scene, app)}, and nothing in {read} leads browsers to them and keeps each on one: an "
                "ordinary Service gives every connection any pod",
                f"{PROXY_FIX}; if that is done in another namespace, read it too (--namespace, repeatable)",
            )
        for entry in entries:
            verdict = entry.vendor.judge(scene, entry)
            if verdict.affinity is Affinity.UNKNOWN:
                yield Fault(
                    entry.obj,
                    verdict.field,
                    f"it leads to {_count(scene, app)} of {app.obj}, and whether each browser keeps its pod cannot "
                    f"be told: {verdict.why}",
                    "measure it with `stickyproxy verify URL`, or put stickyproxy between",
                    verdict.patch,
                )


def client_ip_affinity(scene: Scene) -> Iterator[Fault]:
    """Find Services that bind client addresses behind something that hides or ignores them."""
    for app in _several(scene):
        if scene.proxies_of(app):
            continue
        for entry in scene.entries_to(app.workload, proxy=False):
            verdict = entry.vendor.judge(scene, entry)
            affinity = entry.service.spec["sessionAffinity"]
            if verdict.affinity is Affinity.ADDRESS:
                yield Fault(
                    verdict.where,
                    verdict.field,
                    f"{entry.obj} binds client addresses to pods: a load balancer or a company's proxy has one "
                    "address for all people behind it, and a phone changes its own with every network",
                    PROXY_FIX,
                )
            elif affinity.text == "ClientIP" and verdict.affinity is Affinity.NONE:
                yield Fault(
                    entry.service,
                    affinity.path,
                    f"sessionAffinity: ClientIP does nothing here: {entry.obj} ({entry.vendor.name}) connects to the "
                    "pods by itself, or with one address for everybody",
                    PROXY_FIX,
                )


def several_workers(scene: Scene) -> Iterator[Fault]:
    """Find apps that run several processes in one pod."""
    for app in scene.apps:
        concurrency = app.container.environment.values.get("WEB_CONCURRENCY") or ""
        line = " ".join(app.container.words)
        serves = re.search(r"\b(uvicorn|gunicorn|hypercorn)\b", line)
        found = WORKERS.search(line) if serves else None
        if concurrency.isdecimal() and int(concurrency) > 1:
            count, field = concurrency, f"{app.container.node.path}.env"
        elif found and int(found[1]) > 1:
            count, field = found[1], f"{app.container.node.path}.args"
        else:
            continue
        yield Fault(
            app.obj,
            field,
            f"{count} worker processes share one port: each holds its own pages, and no proxy can choose between them",
            "run one process in each pod, and more pods",
        )


RULES = (
    Rule("no-affinity", Severity.ERROR, "several replicas, and a way in that keeps no browser on one", no_affinity),
    Rule("proxy-bypassed", Severity.ERROR, "a way in that leads past the proxy", proxy_bypassed),
    Rule("several-workers", Severity.ERROR, "several worker processes in one pod", several_workers),
    Rule("client-ip-affinity", Severity.WARNING, "affinity by client address", client_ip_affinity),
    Rule("affinity-unproven", Severity.WARNING, "several replicas, and no affinity to be seen", affinity_unproven),
)
