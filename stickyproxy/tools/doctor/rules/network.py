"""Rules about who may talk to whom, and who is believed."""

from collections.abc import Iterator

from stickyproxy.tools.doctor.findings import Fault, Rule, Severity
from stickyproxy.tools.doctor.policies import closing, policies_for
from stickyproxy.tools.doctor.proxies import Proxy, is_proxy
from stickyproxy.tools.doctor.scene import App, Scene

FORWARDED = "FORWARDED_ALLOW_IPS"
EVERYBODY = ("0.0.0.0/0", "::/0")


def _app_port(scene: Scene, proxy: Proxy, app: App) -> int | None:
    """Give the port of the app that a proxy connects to; None where it is not known."""
    for service in scene.followed(proxy):
        for target in scene.targets(service):
            if target.workload is app.workload and target.container is app.container:
                return target.number
    return next(iter(app.container.ports.values()), None) if len(app.container.ports) == 1 else None


def policy_blocks(scene: Scene) -> Iterator[Fault]:
    """Find NetworkPolicies that keep a proxy from its app."""
    for app in scene.apps:
        for proxy in scene.proxies_of(app):
            number = _app_port(scene, proxy, app)
            if number is None:
                continue
            for direction in ("Ingress", "Egress"):
                policy = closing(scene, proxy.workload, app.workload, number, direction)
                if policy is not None:
                    yield Fault(
                        policy,
                        f"spec.{direction.lower()}",
                        f"no rule lets {proxy.workload.obj} reach port {number} of {app.obj}: every page ends with "
                        "504 (connect-timeout)",
                        f"let pods with the labels {_labels(proxy.workload.labels)} in"
                        if direction == "Ingress"
                        else f"let it out to pods with the labels {_labels(app.workload.labels)}",
                    )


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def policy_closes_proxy(scene: Scene) -> Iterator[Fault]:
    """Find NetworkPolicies that let nobody reach the proxy's own port."""
    for proxy in scene.fronts:
        number = proxy.port("listen")
        if number is None or not scene.entries_to(proxy.workload, proxy=True):
            continue
        policy = closing(scene, None, proxy.workload, number, "Ingress")
        if policy is not None:
            yield Fault(
                policy,
                "spec.ingress",
                f"no rule opens port {number} of {proxy.workload.obj}, where browsers come in",
                f"a rule with `ports: [{{port: {number}}}]`",
            )


def forwarded_unbelieved(scene: Scene) -> Iterator[Fault]:
    """Find apps that do not believe what their proxy says of the browser."""
    for app in scene.apps:
        environment = app.container.environment
        in_command = any(word.startswith("--forwarded-allow-ips") for word in app.container.words)
        led = scene.proxies_of(app) or scene.entries_to(app.workload, proxy=False)
        if led and not in_command and not environment.may_have(FORWARDED):
            yield Fault(
                app.obj,
                app.container.node["env"].path,
                f"without {FORWARDED} uvicorn believes X-Forwarded-Proto and -For from 127.0.0.1 alone: behind TLS "
                "the app takes its pages for http, and every visitor for the proxy",
                f'{FORWARDED}="*", with a NetworkPolicy that lets only the proxy in; or '
                'ui.run(forwarded_allow_ips="*")',
                app.workload.patch_container(app.container, {"env": [{"name": FORWARDED, "value": "*"}]}),
            )


def forwarded_from_anyone(scene: Scene) -> Iterator[Fault]:
    """Find apps that believe everybody and that everybody can reach."""
    if not scene.knows("NetworkPolicy"):
        return
    for app in scene.apps:
        value = app.container.environment.values.get(FORWARDED)
        if value == "*" and scene.proxies_of(app) and not policies_for(scene, app.workload, "Ingress"):
            yield Fault(
                app.obj,
                app.container.node["env"].path,
                f"it believes X-Forwarded-* of everybody ({FORWARDED}=*), and no NetworkPolicy says who may reach "
                "it: any pod of the cluster can claim any client address",
                "a NetworkPolicy as in deploy/kubernetes/overlays/example-app",
            )


def admin_exposed(scene: Scene) -> Iterator[Fault]:
    """Find proxies whose admin port can be reached from outside."""
    for proxy in scene.fronts:
        number = proxy.port("admin")
        for entry in scene.entries:
            for target in scene.targets(entry.service, entry.port):
                if (
                    number
                    and target.workload is proxy.workload
                    and target.number == number
                    and is_proxy(target.container)
                ):
                    yield Fault(
                        entry.obj,
                        entry.rule.path or "spec.ports",
                        f"it leads to the admin port {number} of {proxy.workload.obj}: anybody can see the pods, and "
                        "drain them",
                        "lead it to the proxy's main port only",
                    )


def trusted_proxy(scene: Scene) -> Iterator[Fault]:
    """Find proxies that believe nobody behind an ingress, or everybody without one."""
    for proxy in scene.fronts:
        if not proxy.knows("trusted-proxy"):
            continue
        said = proxy.read_all("trusted-proxy")
        entries = scene.entries_to(proxy.workload, proxy=True)
        behind = [e.obj for e in entries if e.obj.kind != "Service"]
        open_to = [e.obj for e in entries if e.obj.kind == "Service"]
        if said and all(word == "none" for word in said) and behind:
            yield Fault(
                proxy.workload.obj,
                proxy.field,
                f"--trusted-proxy none: X-Forwarded-Proto of {behind[0]} is not believed, so that pages and cookies "
                "are made for http",
                "leave it at `private`, where an ingress lives, or name the ingress's network",
            )
        if open_to and any(word in EVERYBODY for word in said):
            yield Fault(
                proxy.workload.obj,
                proxy.field,
                f"--trusted-proxy {','.join(said)}, and {open_to[0]} lets everybody in: anybody can claim any "
                "address and scheme",
                "leave it at `private`, or name the network of what stands before it",
            )


RULES = (
    Rule("policy-blocks-app", Severity.ERROR, "a NetworkPolicy keeps the proxy from the app", policy_blocks),
    Rule("policy-blocks-proxy", Severity.ERROR, "a NetworkPolicy closes the proxy's port", policy_closes_proxy),
    Rule("admin-exposed", Severity.WARNING, "the admin port can be reached from outside", admin_exposed),
    Rule("trusted-proxy", Severity.WARNING, "nobody or everybody is believed", trusted_proxy),
    Rule("forwarded-unbelieved", Severity.INFO, "the app does not believe its proxy", forwarded_unbelieved),
    Rule("forwarded-from-anyone", Severity.INFO, "the app believes everybody", forwarded_from_anyone),
)
