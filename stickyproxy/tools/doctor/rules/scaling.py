"""Rules about what takes pods away: autoscalers and drains of nodes."""

from collections.abc import Iterator

from stickyproxy.tools.doctor.findings import Fault, Patch, Rule, Severity
from stickyproxy.tools.doctor.objects import Obj, selects, share
from stickyproxy.tools.doctor.scene import Scene
from stickyproxy.tools.doctor.workloads import Workload

DEFAULT_WINDOW_S = 300
"""`stabilizationWindowSeconds` of a scale-down where nothing is said (autoscaling/v2)."""

SLOW = {
    "stabilizationWindowSeconds": 600,
    "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
}


def _takes_one_by_one(scaler: Obj) -> bool:
    """Say whether an autoscaler removes one pod at a time at the most, after a calm of some minutes, or none at all."""
    down = scaler.spec.at("behavior.scaleDown")
    if down["selectPolicy"].text == "Disabled":
        return True
    window = down["stabilizationWindowSeconds"].number
    policies = list(down["policies"].items())
    one = [
        p["type"].text == "Pods" and p["value"].number == 1 and (p["periodSeconds"].number or 0) >= 60 for p in policies
    ]
    # Of several policies the one that removes most counts, unless the smallest is asked for.
    gentle = bool(one) and (any(one) if down["selectPolicy"].text == "Min" else all(one))
    return gentle and (DEFAULT_WINDOW_S if window is None else window) >= DEFAULT_WINDOW_S


def hpa_kills_pages(scene: Scene) -> Iterator[Fault]:
    """Find autoscalers that remove pods with open pages, many at once."""
    for app in scene.apps:
        scaler = scene.autoscaler(app.workload)
        hook = app.container.pre_stop
        if scaler is None or (hook and hook.drains) or _takes_one_by_one(scaler):
            continue
        body = {"spec": {"behavior": {"scaleDown": SLOW}}}
        yield Fault(
            scaler,
            scaler.spec.at("behavior.scaleDown").path,
            f"it scales {app.obj} down by as many pods as the load allows at one moment, and no preStop waits for "
            "their pages: all that are open there reload at once",
            "take one pod at a time after a calm (the patch), or let a preStop wait for the last page: `stickyproxy "
            "drain --wait`",
            Patch(scaler, "merge", body),
        )


def _budgets(scene: Scene, workload: Workload) -> list[Obj]:
    return [
        budget
        for budget in scene.all("PodDisruptionBudget")
        if budget.namespace == workload.obj.namespace
        and budget.spec["selector"]
        and selects(budget.spec["selector"], workload.labels)
    ]


def _mine(scene: Scene) -> list[Workload]:
    """Give the apps' and the proxies' workloads, each once."""
    found = {id(app.workload): app.workload for app in scene.apps}
    found |= {id(proxy.workload): proxy.workload for proxy in scene.fronts}
    return list(found.values())


def no_budget(scene: Scene) -> Iterator[Fault]:
    """Find workloads that a drain of nodes may end as a whole."""
    if not scene.knows("PodDisruptionBudget"):
        return
    for workload in _mine(scene):
        if scene.replicas(workload) < 2 or _budgets(scene, workload):
            continue
        obj = workload.obj
        body = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": obj.name, "namespace": obj.namespace},
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": obj.spec.at("selector.matchLabels").texts() or workload.labels},
            },
        }
        yield Fault(
            obj,
            "spec.replicas",
            "no PodDisruptionBudget selects its pods: when nodes are drained, as in an upgrade of the cluster, "
            "several may end at the same time",
            "a PodDisruptionBudget with maxUnavailable 1",
            Patch(obj, "apply", body),
        )


def budget_blocks(scene: Scene) -> Iterator[Fault]:
    """Find budgets that let no pod go, so that nodes are drained by force."""
    mine = _mine(scene)
    for budget in {str(b): b for workload in mine for b in _budgets(scene, workload)}.values():
        bound = [w for w in scene.workloads if budget in _budgets(scene, w)]
        total = sum(w.declared for w in bound)
        least, most = budget.spec["minAvailable"], budget.spec["maxUnavailable"]
        needed = share(least, total, up=True) if least else None
        allowed = share(most, total, up=True) if most else None
        scaled = any(scene.autoscaler(w) for w in bound) and not least.text.endswith("%")
        if (needed is not None and needed >= total and not scaled) or allowed == 0:
            names = " and ".join(str(w.obj) for w in bound)
            yield Fault(
                budget,
                (least if least else most).path,
                f"it never lets one of the {total} pods of {names} go: who drains a node waits for ever, and in the "
                "end does it by force",
                "maxUnavailable 1 in the place of it",
                Patch(budget, "merge", {"spec": {"minAvailable": None, "maxUnavailable": 1}}),
            )


RULES = (
    Rule("hpa-kills-pages", Severity.WARNING, "an autoscaler removes pods with open pages", hpa_kills_pages),
    Rule("pdb-blocks", Severity.WARNING, "a budget lets no pod go", budget_blocks),
    Rule("no-pdb", Severity.INFO, "no PodDisruptionBudget", no_budget),
)
