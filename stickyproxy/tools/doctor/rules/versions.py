"""Rules about replicas that should be the same and are not."""

from collections.abc import Iterator

from stickyproxy.tools.doctor.findings import Fault, Rule, Severity
from stickyproxy.tools.doctor.objects import Obj, selects
from stickyproxy.tools.doctor.scene import Scene
from stickyproxy.tools.doctor.workloads import Container, Workload


def _pods(scene: Scene, workload: Workload) -> list[Obj]:
    """Give a workload's pods that are ready and not ending."""
    selector = workload.obj.spec["selector"]
    return [
        pod
        for pod in scene.all("Pod")
        if pod.namespace == workload.obj.namespace
        and selector
        and selects(selector, pod.labels)
        and not pod.root.at("metadata.deletionTimestamp")
        and any(
            c["type"].text == "Ready" and c["status"].text == "True" for c in pod.root.at("status.conditions").items()
        )
    ]


def _stuck(workload: Workload) -> str:
    """Say why a rollout does not go on; empty where it may be under way."""
    obj = workload.obj
    if obj.spec["paused"].flag:
        return "its rollout is paused"
    for condition in obj.root.at("status.conditions").items():
        if condition["type"].text == "Progressing" and condition["status"].text == "False":
            return f"its rollout is stuck ({condition['reason'].text})"
    if obj.kind == "StatefulSet":
        if obj.spec.at("updateStrategy.type").text == "OnDelete":
            return "its updateStrategy is OnDelete"
        if obj.spec.at("updateStrategy.rollingUpdate.partition").number:
            return "its rollout stops at a partition"
    return ""


def _images(pods: list[Obj], container: Container) -> dict[str, set[str]]:
    """Give the digests that run, by the image that was asked for.

    An id without `@` is the hash of an image's configuration, which differs between architectures, and counts as none.
    """
    found: dict[str, set[str]] = {}
    for pod in pods:
        statuses = [
            *pod.root.at("status.containerStatuses").items(),
            *pod.root.at("status.initContainerStatuses").items(),
        ]
        wanted = {
            c["name"].text: c["image"].text for key in ("containers", "initContainers") for c in pod.spec[key].items()
        }
        for status in statuses:
            digest = status["imageID"].text.partition("@")[2]
            if status["name"].text == container.name and digest:
                found.setdefault(wanted.get(container.name, ""), set()).add(digest)
    return found


def version_skew(scene: Scene) -> Iterator[Fault]:
    """Find replicas that run different images and will go on to."""
    watched = [(app.workload, app.container) for app in scene.apps]
    watched += [(proxy.workload, proxy.container) for proxy in scene.fronts]
    for workload, container in watched:
        images = _images(_pods(scene, workload), container)
        for image, ids in images.items():
            if len(ids) > 1:
                yield Fault(
                    workload.obj,
                    container.node["image"].path,
                    f"its replicas run {len(ids)} different builds of {image}: the tag was pushed again. A page of "
                    "one finds other code, and other files, on the next",
                    "a tag that is never pushed again, or a digest (image@sha256:...), and a rollout",
                )
        stuck = _stuck(workload)
        if len(images) > 1 and stuck:
            yield Fault(
                workload.obj,
                container.node["image"].path,
                f"its replicas run {' and '.join(sorted(images))}, and {stuck}",
                f"kubectl -n {workload.obj.namespace} rollout status {workload.obj.kind.lower()} "
                f"{workload.obj.name}; then go on or `rollout undo`",
            )
    for app in scene.apps:
        proxies = scene.proxies_of(app)
        images_of = {proxy.container.image: proxy for proxy in proxies}
        if len(images_of) > 1:
            first, second = list(images_of.values())[:2]
            yield Fault(
                second.workload.obj,
                second.container.node["image"].path,
                f"it runs {second.container.image}, and {first.workload.obj} before the same app "
                f"{first.container.image}",
                "the same version in both",
            )


RULES = (Rule("version-skew", Severity.WARNING, "replicas run different images", version_skew),)
