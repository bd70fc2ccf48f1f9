"""Rules about how pods end: in a rollout, a scale-down or a drain of their node."""

from collections.abc import Iterator

from stickyproxy.tools.doctor.findings import Fault, Patch, Rule, Severity
from stickyproxy.tools.doctor.objects import share
from stickyproxy.tools.doctor.scene import Scene

PRE_STOP_S = 10
SPARE_S = 5


def grace_too_short(scene: Scene) -> Iterator[Fault]:
    """Find pods that are killed before they have drained."""
    for proxy in scene.fronts:
        drain, delay = proxy.seconds("drain-timeout"), proxy.seconds("shutdown-delay")
        if drain is None or delay is None:
            continue
        own = proxy.container.pre_stop
        first = (own.seconds if own else 0.0) or 0.0
        parts = [f"preStop {first:g} s"] if first else []
        if proxy.container.init:  # a native sidecar is told to end when the app has ended
            hooks = [c.pre_stop.seconds for c in proxy.workload.containers if not c.init and c.pre_stop]
            before = max([hook for hook in hooks if hook] or [0.0])
            first += before
            parts = [f"the app's preStop {before:g} s", *parts] if before else parts
        need = first + delay + drain
        if need > proxy.workload.grace_s:
            parts += [f"--shutdown-delay {delay:g} s", f"--drain-timeout {drain:g} s"]
            wanted = round(need + SPARE_S)
            yield Fault(
                proxy.workload.obj,
                proxy.workload.pod["terminationGracePeriodSeconds"].path,
                f"a pod has {proxy.workload.grace_s} s to end and needs {need:g} s ({', '.join(parts)}): the kubelet "
                "kills it meanwhile, with every socket at once",
                f"give it {wanted} s, or shorten the drain",
                proxy.workload.patch_pod({"terminationGracePeriodSeconds": wanted}),
            )
    for app in scene.apps:
        hook = app.container.pre_stop
        if hook and hook.seconds and hook.seconds >= app.workload.grace_s:
            wanted = round(hook.seconds + 20)
            yield Fault(
                app.obj,
                app.workload.pod["terminationGracePeriodSeconds"].path,
                f"a pod has {app.workload.grace_s} s to end, and its preStop alone may take {hook.seconds:g} s: the "
                "app is killed without having ended anything",
                f"give it {wanted} s",
                app.workload.patch_pod({"terminationGracePeriodSeconds": wanted}),
            )


def no_pre_stop(scene: Scene) -> Iterator[Fault]:
    """Find pods that end before the cluster knows."""
    why = "it is told to end at the same moment as the cluster: for some seconds new visitors are still sent there"
    for app in scene.apps:
        if scene.replicas(app.workload) > 1 and app.container.pre_stop is None:
            change: dict[str, object] = {"lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}}}
            yield Fault(
                app.obj,
                app.container.node.at("lifecycle.preStop").path,
                f"{why}, and are refused",
                f"a preStop that sleeps {PRE_STOP_S} s (Kubernetes 1.30; before: exec sleep), or `stickyproxy drain`",
                app.workload.patch_container(app.container, change),
            )
    for proxy in scene.fronts:
        if proxy.container.init or proxy.container.pre_stop is not None:
            continue
        if proxy.seconds("shutdown-delay") == 0:
            change = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
            yield Fault(
                proxy.workload.obj,
                proxy.container.node.at("lifecycle.preStop").path,
                f"--shutdown-delay is 0 and there is no preStop: {why}, to a port that is closed",
                "a preStop that sleeps 5 s, or leave --shutdown-delay at its default",
                proxy.workload.patch_container(proxy.container, change),
            )


def recreate(scene: Scene) -> Iterator[Fault]:
    """Find rollouts that end all pods before there is a new one."""
    mine = {id(w): w for w in [*(app.workload for app in scene.apps), *(proxy.workload for proxy in scene.fronts)]}
    for workload in mine.values():
        obj = workload.obj
        if scene.replicas(workload) < 2:
            continue
        node = obj.spec.at("strategy.type")
        if node.text == "Recreate":
            body = {
                "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
            }
            yield Fault(
                obj,
                node.path,
                "every rollout ends all pods first: nobody is served until the new ones are ready",
                "RollingUpdate with maxSurge 1 and maxUnavailable 0",
                Patch(obj, "strategic", body),
            )


def max_unavailable(scene: Scene) -> Iterator[Fault]:
    """Find rollouts that end pods before their successors are there."""
    for app in scene.apps:
        if app.obj.kind != "Deployment" or app.obj.spec.at("strategy.type").text == "Recreate":
            continue
        node = app.obj.spec.at("strategy.rollingUpdate.maxUnavailable")
        least = app.workload.declared
        count = share(node, least, up=False) if node else least // 4
        if least > 1 and count:
            yield Fault(
                app.obj,
                node.path,
                f"a rollout ends {count} of {least} pods before a new one is ready: their pages move to pods that "
                "are about to end too, and reload several times",
                "maxSurge 1 and maxUnavailable 0: every page moves at most once",
                Patch(
                    app.obj,
                    "strategic",
                    {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}},
                ),
            )


RULES = (
    Rule("grace-too-short", Severity.ERROR, "a pod is killed before it has drained", grace_too_short),
    Rule("recreate", Severity.WARNING, "a rollout ends all pods first", recreate),
    Rule("no-prestop", Severity.WARNING, "a pod ends before the cluster knows", no_pre_stop),
    Rule("max-unavailable", Severity.INFO, "a rollout ends pods before their successors are there", max_unavailable),
)
