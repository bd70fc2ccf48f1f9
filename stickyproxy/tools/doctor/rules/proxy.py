"""Rules about the proxy's own set-up: what it follows, what it may read, and its key."""

from collections.abc import Iterator
from dataclasses import replace

from stickyproxy.tools.doctor.entries import Affinity
from stickyproxy.tools.doctor.findings import Fault, Patch, Rule, Severity, secret_first
from stickyproxy.tools.doctor.proxies import Proxy
from stickyproxy.tools.doctor.rights import missing_verbs
from stickyproxy.tools.doctor.scene import Scene

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  where the token is, not the token


def _serves(proxy: Proxy) -> bool:
    """Say whether replicas are ready now, which they are only after a first list of their backends."""
    return (proxy.workload.obj.root.at("status.readyReplicas").number or 0) > 0


def proxy_role(scene: Scene) -> Iterator[Fault]:
    """Find proxies that may not read the EndpointSlices they follow."""
    for proxy in scene.fronts:
        service = proxy.service
        if service is None:
            continue
        if not scene.live and not scene.all("RoleBinding"):
            continue  # manifests without any: the rights are in others
        if service.namespace not in scene.namespaces:
            continue
        own = (proxy.workload.obj.namespace, proxy.workload.account)
        missing = missing_verbs(scene, service.namespace, own)
        if not missing or (not scene.knows("ClusterRoleBinding") and _serves(proxy)):
            continue
        verbs = " and ".join(sorted(missing))
        hidden = "" if scene.knows("ClusterRoleBinding") else " (ClusterRoleBindings could not be looked at)"
        name = proxy.workload.obj.name
        yield Fault(
            proxy.workload.obj,
            proxy.workload.pod["serviceAccountName"].path,
            f"its service account {own[1]} may not {verbs} EndpointSlices in namespace {service.namespace}{hidden}: "
            "it never learns of a pod, and stays unready",
            "a Role and a RoleBinding, as in deploy/kubernetes/base/rbac.yaml",
            Patch(proxy.workload.obj, "apply", _rights(name, service.namespace, own)),
        )


def _rights(name: str, namespace: str, account: tuple[str, str]) -> object:
    metadata = {"name": name, "namespace": namespace}
    rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": account[1], "namespace": account[0]}],
            },
        ],
    }


def proxy_no_token(scene: Scene) -> Iterator[Fault]:
    """Find proxies that ask the API server without a token."""
    for proxy in scene.fronts:
        if proxy.service is None:
            continue
        said = proxy.workload.pod["automountServiceAccountToken"]
        account = scene.find("ServiceAccount", proxy.workload.obj.namespace, proxy.workload.account)
        mounts = [m["mountPath"].text.rstrip("/") for m in proxy.container.node["volumeMounts"].items()]
        if TOKEN_FOLDER in mounts or "KUBECONFIG" in proxy.container.environment.values:
            continue
        from_account = account.root["automountServiceAccountToken"] if account else None
        off = said.flag is False or (said.flag is None and from_account is not None and from_account.flag is False)
        if off:
            yield Fault(
                proxy.workload.obj,
                said.path,
                "no service account's token is mounted: it cannot ask the API server for the app's pods, and stays "
                "unready",
                "automountServiceAccountToken: true in the pod",
                proxy.workload.patch_pod({"automountServiceAccountToken": True}),
            )


def proxy_service_missing(scene: Scene) -> Iterator[Fault]:
    """Find proxies whose app's Service does not exist."""
    if not scene.live or not scene.knows("Service"):
        return
    for proxy in scene.fronts:
        names = []
        if proxy.service and proxy.knows("kubernetes-service"):
            names.append(("--kubernetes-service", proxy.service.namespace, proxy.service.name))
        for source, address in proxy.addresses:
            key = proxy.service_of(address.host)
            if key and source == "dns" and proxy.knows("dns"):
                names.append(("--dns", *key))
        for option, namespace, name in names:
            if namespace in scene.namespaces and scene.find("Service", namespace, name) is None:
                known = ", ".join(sorted(s.name for s in scene.all("Service") if s.namespace == namespace)) or "none"
                yield Fault(
                    proxy.workload.obj,
                    proxy.field,
                    f"{option} names the Service {namespace}/{name}, which does not exist: no pod is ever found",
                    f"name one of: {known}",
                )


def service_selects_nothing(scene: Scene) -> Iterator[Fault]:
    """Find Services that a proxy follows and that select no workload's pods."""
    for proxy in scene.fronts:
        for service in scene.followed(proxy):
            selector = service.spec["selector"].texts()
            pods = [p for p in scene.all("Pod") if p.namespace == service.namespace]
            match = [p for p in pods if all(p.labels.get(k) == v for k, v in selector.items())]
            known = scene.live and scene.knows("Pod", "Deployment", "StatefulSet")
            if selector and known and not match and not scene.pods_of(service):
                yield Fault(
                    service,
                    service.spec["selector"].path,
                    f"it selects no pod and no workload's pods, and {proxy.workload.obj} takes its backends from it",
                    "let its selector match the labels of the app's pods",
                )


def proxy_port(scene: Scene) -> Iterator[Fault]:
    """Find proxies that name a port which their Service does not have, or none of several."""
    for proxy in scene.fronts:
        reference = proxy.service
        if reference is None or not proxy.knows("kubernetes-service"):
            continue
        service = scene.find("Service", reference.namespace, reference.name)
        if service is None:
            continue
        ports = [p for p in service.spec["ports"].items() if p["protocol"].text in ("", "TCP")]
        names = [p["name"].text for p in ports]
        numbers = {t.number for t in scene.targets(service)}
        shown = ", ".join(f"{p['name'].text or '(nameless)'}" for p in ports) or "none"
        if reference.port.isdecimal():
            # A number is the pods' own; it is judged only where every target's is known.
            wrong = bool(numbers) and None not in numbers and int(reference.port) not in numbers
            shown = f"{', '.join(sorted(map(str, numbers - {None})))} (the pods' own ports)"
        elif reference.port:
            wrong = reference.port not in names
        else:
            wrong = len(ports) > 1 and "http" not in names
        if wrong:
            said = f"port {reference.port}" if reference.port else "no port, and there are several"
            yield Fault(
                proxy.workload.obj,
                proxy.field,
                f"--kubernetes-service {reference.name} names {said}; {service} has {shown}: no pod is ever found",
                f"NAME:PORT with one of these, as in {reference.name}:{names[0] if names and names[0] else 8080}",
            )


def target_port(scene: Scene) -> Iterator[Fault]:
    """Find Services whose named targetPort no container has."""
    mine = {id(app.workload) for app in scene.apps} | {id(proxy.workload) for proxy in scene.fronts}
    for service in scene.all("Service"):
        for port in service.spec["ports"].items():
            wanted = port["targetPort"]
            for workload in scene.pods_of(service):
                if id(workload) not in mine or not wanted or wanted.number is not None:
                    continue
                named = {name: n for c in workload.containers for name, n in c.ports.items()}
                if wanted.text not in named:
                    has = ", ".join(f"{name} ({n})" for name, n in named.items()) or "none"
                    yield Fault(
                        service,
                        wanted.path,
                        f"its targetPort {wanted.text!r} is no port of {workload.obj}, whose containers have: {has}. "
                        "Nothing reaches these pods",
                        "name the container's port so, or give its number",
                    )


def headless(scene: Scene) -> Iterator[Fault]:
    """Find proxies that resolve or dial a Service with an address of its own: one backend in the place of many."""
    for proxy in scene.fronts:
        for source, address in proxy.addresses:
            key = proxy.service_of(address.host)
            service = scene.find("Service", *key) if key else None
            if service is None or not scene.pods_of(service):
                continue
            several = any(scene.replicas(w) > 1 for w in scene.pods_of(service))
            if service.spec["clusterIP"].text == "None" and source == "dns":
                wrong = {t.number for t in scene.targets(service)} - {address.port}
                if wrong and None not in wrong and address.port not in {t.number for t in scene.targets(service)}:
                    yield Fault(
                        proxy.workload.obj,
                        proxy.field,
                        f"--dns {address}: a headless Service translates no ports, and the pods listen on "
                        f"{', '.join(sorted(map(str, wrong)))}",
                        "give the pods' own port",
                    )
            elif several:
                what = "one backend" if source == "dns" else "a different pod with each connection"
                yield Fault(
                    proxy.workload.obj,
                    proxy.field,
                    f"--{source} {address} is {service}, whose own address stands for all pods: the proxy sees "
                    f"{what}, and keeps nobody on a pod",
                    f"--kubernetes-service {service.name}, or --dns with a headless Service (clusterIP: None)",
                )


def publish_not_ready(scene: Scene) -> Iterator[Fault]:
    """Find Services that call pods ready which are not."""
    for proxy in scene.fronts:
        for service in scene.followed(proxy):
            node = service.spec["publishNotReadyAddresses"]
            by_dns = proxy.service is None and bool(proxy.read("local-backend"))
            if node.flag is True and not by_dns:
                yield Fault(
                    service,
                    node.path,
                    f"it calls pods ready that are starting or ending, and {proxy.workload.obj} sends new sessions "
                    "there",
                    "publishNotReadyAddresses: false; EndpointSlices list unready pods all the same, and say so",
                    Patch(service, "merge", {"spec": {"publishNotReadyAddresses": False}}),
                )


def _key(proxy: Proxy) -> str:
    """Give what can be told of where the token's key comes from; empty where there is none."""
    name = Proxy.variable("secret")
    for variable in proxy.container.node["env"].items():
        if variable["name"].text == name:
            reference = variable.at("valueFrom.secretKeyRef")
            return f"Secret {reference['name'].text}/{reference['key'].text}" if reference else variable["value"].text
    if said := proxy.read_all("secret") + proxy.read_all("secret-file"):
        return " ".join(said)
    return "" if proxy.knows("secret") else "?"


def secret_in_plain(scene: Scene) -> Iterator[Fault]:
    """Find keys of the token that stand in a manifest."""
    for proxy in scene.fronts:
        in_words = any(word.startswith("--secret=") or word == "--secret" for word in proxy.container.words)
        value = proxy.container.environment.values.get(Proxy.variable("secret"))
        if value or (in_words and "$(" not in " ".join(proxy.read_all("secret"))):
            yield Fault(
                proxy.workload.obj,
                proxy.field,
                "the key of the token stands in the manifest: who may read it can make tokens, and lead browsers to "
                "a pod",
                "a Secret, and valueFrom.secretKeyRef as in deploy/kubernetes/base/deployment.yaml",
                None if in_words else _from_secret(proxy, value=None),
            )


def no_key(scene: Scene) -> Iterator[Fault]:
    """Find proxies whose tokens are hashes of addresses without a key."""
    for proxy in scene.fronts:
        if proxy.addresses and proxy.service is None and not _key(proxy) and not proxy.container.environment.secret:
            yield Fault(
                proxy.workload.obj,
                proxy.container.node["env"].path,
                "backends by --dns or --backend are known by their addresses, and without a key a token is a plain "
                "hash of one: visitors can choose their pod, and learn addresses by trying",
                "STICKYPROXY_SECRET from a Secret",
                _from_secret(proxy),
            )


def _from_secret(proxy: Proxy, **more: None) -> Patch:
    """Patch the key's variable to come from a Secret, which is made first."""
    reference = {"secretKeyRef": {"name": "stickyproxy", "key": "secret"}}
    variable = {"name": Proxy.variable("secret"), **more, "valueFrom": reference}
    patch = proxy.workload.patch_container(proxy.container, {"env": [variable]})
    return replace(patch, first=secret_first(proxy.workload.obj.namespace, "stickyproxy", "secret"))


def keys_differ(scene: Scene) -> Iterator[Fault]:
    """Find proxies of one app that sign with different keys."""
    for app in scene.apps:
        found: dict[str, Proxy] = {}
        for proxy in scene.proxies_of(app):
            key = _key(proxy)
            if key != "?" and not (proxy.container.environment.secret and not key):
                found.setdefault(key, proxy)
        if len(found) > 1:
            first, second = list(found.values())[:2]
            yield Fault(
                second.workload.obj,
                second.container.node["env"].path,
                f"its token's key is another than that of {first.workload.obj}, and both lead to {app.obj}: neither "
                "knows the other's cookies, so browsers that meet both change their pod",
                "give both the same Secret",
            )


def parking_not_sticky(scene: Scene) -> Iterator[Fault]:
    """Find proxies that park pages, of which there are several, and a way in that leads a browser to any of them."""
    for proxy in scene.fronts:
        most = scene.replicas(proxy.workload)
        if most < 2 or not proxy.seconds("park"):
            continue
        for entry in scene.entries_to(proxy.workload, proxy=True):
            verdict = entry.vendor.judge(scene, entry)
            if verdict.affinity not in (Affinity.NONE, Affinity.ADDRESS):
                continue
            how = "any of them" if verdict.affinity is Affinity.NONE else "another one when its address changes"
            yield Fault(
                verdict.where,
                verdict.field,
                f"{proxy.workload.obj} parks pages (--park) and has up to {most} replicas, and {entry.obj} leads a "
                f"browser that comes back to {how}: only the one that has parked its page can give it back, and by "
                "the others it is loaded anew, as without --park",
                "affinity by cookie in the entry, or one replica of the proxy",
                verdict.patch,
            )


RULES = (
    Rule("proxy-role", Severity.ERROR, "the proxy may not read EndpointSlices", proxy_role),
    Rule("proxy-no-token", Severity.ERROR, "the proxy has no token for the API server", proxy_no_token),
    Rule("proxy-service-missing", Severity.ERROR, "the app's Service does not exist", proxy_service_missing),
    Rule("service-selects-nothing", Severity.ERROR, "the app's Service selects no pod", service_selects_nothing),
    Rule("proxy-port", Severity.ERROR, "the proxy names a port that is not there", proxy_port),
    Rule("target-port", Severity.ERROR, "a Service's named port is not there", target_port),
    Rule("not-headless", Severity.ERROR, "the proxy sees one backend in the place of many", headless),
    Rule("publish-not-ready", Severity.WARNING, "unready pods are called ready", publish_not_ready),
    Rule("proxy-secret-in-plain", Severity.WARNING, "the token's key stands in the manifest", secret_in_plain),
    Rule("proxy-keys-differ", Severity.WARNING, "proxies of one app have different keys", keys_differ),
    Rule("proxy-no-key", Severity.INFO, "tokens are plain hashes of addresses", no_key),
    Rule("parking-not-sticky", Severity.INFO, "parked pages, and a way in to any replica", parking_not_sticky),
)
