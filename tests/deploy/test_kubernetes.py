"""What must be true of everything that `kubectl apply -k deploy/kubernetes/...` and the chart make."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from stickyproxy.core.values import parse_duration

from .objects import by_identity, containers, environment, identity, pods, port_numbers, proxies, selects
from .tools import KUBERNETES, Manifest, RefusedError, chart, kubectl, kustomizations, kustomize, run

pytestmark = pytest.mark.usefixtures("programs")

ALL_OF_THE_CHART = {
    "settings": {"asset-cache": "64M", "page-token": True},
    "ingress": {"enabled": True},
    "gateway": {"enabled": True},
    "networkPolicy": {"appLabels": {"app": "x"}},
}
RENDERINGS = [*(str(folder.relative_to(KUBERNETES)) for folder in kustomizations()), "chart", "chart with all features"]


@pytest.fixture(scope="module", params=RENDERINGS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Render one of all."""
    match request.param:
        case "chart":
            return chart()
        case "chart with all features":
            return chart(values=ALL_OF_THE_CHART)
        case folder:
            return kustomize(KUBERNETES / folder)


def test_every_folder_that_is_promised_is_there() -> None:
    assert [folder.relative_to(KUBERNETES).as_posix() for folder in kustomizations()] == [
        "base",
        "example-app",
        "overlays/dns",
        "overlays/example-app",
        "overlays/gateway-api",
        "overlays/ingress",
        "overlays/sidecar",
        "overlays/tls",
    ]


def test_the_certificate_is_where_it_is_looked_for_and_can_change() -> None:
    manifests = kustomize(KUBERNETES / "overlays" / "tls")
    ((pod, container),) = proxies(manifests)
    given = environment(container, manifests)
    (mount,) = container["volumeMounts"]
    assert "subPath" not in mount, "a single file that is mounted never changes"
    assert {given["STICKYPROXY_TLS_CERT"], given["STICKYPROXY_TLS_KEY"]} == {
        f"{mount['mountPath']}/tls.crt",  # the keys of a Secret of type kubernetes.io/tls
        f"{mount['mountPath']}/tls.key",
    }
    (volume,) = pod["spec"]["volumes"]
    assert (volume["name"], volume["secret"]) == (mount["name"], {"secretName": "stickyproxy-tls"})
    service = next(m for m in manifests if identity(m) == "Service/stickyproxy")
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(443, "http")]


def test_every_pod_meets_the_restricted_pod_security_standard(manifests: list[Manifest]) -> None:
    for whose, pod in pods(manifests):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), whose
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "downwardAPI", "emptyDir", "projected", "secret"}, whose
        for container in containers(pod):
            where = f"{whose} {container['name']}"
            security = spec.get("securityContext", {}) | container["securityContext"]
            assert security["runAsNonRoot"] is True, where
            assert security["runAsUser"] > 0, where
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"] == {"drop": ["ALL"]}, where
            assert security["readOnlyRootFilesystem"] is True, f"{where}: stricter than the standard"
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
            assert container["resources"]["limits"].keys() == {"memory"}, f"{where}: a limit of CPU throttles"


def test_the_token_of_the_api_server_goes_to_nobody_who_does_not_need_it(manifests: list[Manifest]) -> None:
    for account in (m for m in manifests if m["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, identity(account)
    for whose, pod in pods(manifests):
        needs = {c["name"]: "STICKYPROXY_KUBERNETES_SERVICE" in environment(c, manifests) for c in containers(pod)}
        if pod["spec"]["automountServiceAccountToken"]:
            assert all(needs.values()), f"{whose}: the token is in every container of the pod"
        else:
            path = "/var/run/secrets/kubernetes.io/serviceaccount"
            has = {
                c["name"]: any(mount["mountPath"] == path for mount in c.get("volumeMounts", []))
                for c in containers(pod)
            }
            assert has == needs, whose


def test_a_role_allows_to_read_endpointslices_and_nothing_else(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        if manifest["kind"] == "Role":
            assert manifest["rules"] == [
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
            ]
    found = by_identity(manifests)
    needs = [pod for pod, c in proxies(manifests) if "STICKYPROXY_KUBERNETES_SERVICE" in environment(c, manifests)]
    bound = {
        (subject["kind"], subject["name"])
        for m in manifests
        if m["kind"] == "RoleBinding" and f"Role/{m['roleRef']['name']}" in found
        for subject in m["subjects"]
    }
    assert bound == {("ServiceAccount", pod["spec"]["serviceAccountName"]) for pod in needs}


def test_probes_of_the_proxy_end_at_its_admin_port_and_those_of_the_app_build_no_page(
    manifests: list[Manifest],
) -> None:
    for _, pod in pods(manifests):
        for container in containers(pod):
            probes = {kind: probe for kind, probe in container.items() if kind.endswith("Probe")}
            for kind, probe in probes.items():
                port = probe.get("httpGet", probe.get("tcpSocket"))["port"]
                assert port in port_numbers(container), f"{container['name']}: {kind}"
                assert probe.get("httpGet", {}).get("path") != "/", f"{container['name']}: {kind} builds a page"
            if container["name"] == "stickyproxy":
                assert {
                    kind: (probe["httpGet"]["port"], probe["httpGet"]["path"]) for kind, probe in probes.items()
                } == {
                    "startupProbe": ("admin", "/livez"),
                    "livenessProbe": ("admin", "/livez"),
                    "readinessProbe": ("admin", "/readyz"),
                }
            assert "livenessProbe" in probes, container["name"]
            assert "readinessProbe" in probes, container["name"]


def sleep_s(container: Manifest) -> int:
    found: int = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return found


def drain_s(container: Manifest, manifests: list[Manifest]) -> float:
    given = environment(container, manifests)
    return parse_duration(given["STICKYPROXY_SHUTDOWN_DELAY"]) + parse_duration(given["STICKYPROXY_DRAIN_TIMEOUT"])


def test_the_grace_period_holds_everything_that_happens_after_a_pod_is_told_to_end(manifests: list[Manifest]) -> None:
    for whose, pod in pods(manifests):
        if whose.startswith("StatefulSet/"):
            continue  # Redis, with Kubernetes' own default
        needs_s, then_s = 0.0, 0.0
        for container in containers(pod):
            if container.get("restartPolicy") == "Always":
                assert sleep_s(container) == 0, "it serves until the app has ended, so it has nothing to wait for"
                then_s = drain_s(container, manifests) + 5
            else:
                assert 0 < sleep_s(container) <= 15, f"{whose}: endpoints take some seconds to spread"
                ends_s = drain_s(container, manifests) + 5 if container["name"] == "stickyproxy" else 20
                needs_s = max(needs_s, sleep_s(container) + ends_s)
        grace_s = pod["spec"]["terminationGracePeriodSeconds"]
        assert grace_s >= needs_s + then_s, f"{whose}: {needs_s:g} s and then {then_s:g} s"


def test_the_drain_of_every_proxy_is_said_and_fits_the_default(manifests: list[Manifest]) -> None:
    for _, container in proxies(manifests):
        assert parse_duration(environment(container, manifests)["STICKYPROXY_DRAIN_TIMEOUT"]) == 20


def test_service_links_are_off_wherever_the_proxy_runs(manifests: list[Manifest]) -> None:
    """A Service named stickyproxy would put STICKYPROXY_PORT and others among the settings."""
    for pod, _ in proxies(manifests):
        assert pod["spec"]["enableServiceLinks"] is False


def test_every_selector_finds_its_pods_and_every_port_its_container(manifests: list[Manifest]) -> None:
    templates = [pod for _, pod in pods(manifests)]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                selector = spec["selector"]
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet":
                selector = spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                selector = spec["podSelector"]["matchLabels"]
            case _:
                continue
        chosen = [pod for pod in templates if selects(selector, pod["metadata"]["labels"])]
        if identity(manifest) == "Service/nicegui-app-pods":
            continue  # of an app that is not in this rendering
        assert len(chosen) == 1, identity(manifest)
        ports = {key: n for container in containers(chosen[0]) for key, n in port_numbers(container).items()}
        if manifest["kind"] == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= ports.keys(), identity(manifest)
        if manifest["kind"] == "NetworkPolicy":
            asked = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            assert asked <= ports.keys(), identity(manifest)


def test_containers_of_one_pod_listen_on_ports_of_their_own(manifests: list[Manifest]) -> None:
    for whose, pod in pods(manifests):
        numbers = [p["containerPort"] for c in containers(pod) for p in c.get("ports", [])]
        assert len(numbers) == len(set(numbers)), whose


def test_the_admin_port_is_open_to_monitoring_only(manifests: list[Manifest]) -> None:
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    for pod, container in proxies(manifests):
        ports = port_numbers(container)
        policies = [
            m
            for m in manifests
            if m["kind"] == "NetworkPolicy"
            and selects(m["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"])
        ]
        assert policies
        for rule in (rule for m in policies for rule in m["spec"]["ingress"]):
            if any(ports.get(port["port"]) == 9090 for port in rule["ports"]):
                assert rule["from"] == monitoring


def test_no_secret_is_shipped_and_the_command_that_makes_one_is_said() -> None:
    for folder in kustomizations():
        assert all(m["kind"] != "Secret" for m in kustomize(folder)), folder
    assert all(m["kind"] != "Secret" for m in chart())
    for file in ("base/deployment.yaml", "components/sidecar/deployment-patch.yaml"):
        text = (KUBERNETES / file).read_text()
        assert "kubectl create secret generic stickyproxy --from-literal=secret=" in text
        assert "{name: stickyproxy, key: secret, optional: true}" in text
    text = (KUBERNETES / "example-app/kustomization.yaml").read_text()
    assert "kubectl create secret generic nicegui-app --from-literal=storage-secret=" in text


def test_image_and_namespace_are_said_in_one_place(tmp_path: Path) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    place = copy / "components/image/kustomization.yaml"
    place.write_text(
        place.read_text()
        .replace("namespace: default", "namespace: mine")
        .replace("ghcr.io/OWNER/stickyproxy", "registry.test/proxy")
        .replace("newTag: 0.1.0", 'newTag: "7"')
    )
    for overlay in ("base", "overlays/dns", "overlays/ingress", "overlays/gateway-api", "overlays/sidecar"):
        manifests = kustomize(copy / overlay)
        assert {m["metadata"]["namespace"] for m in manifests} == {"mine"}, overlay
        subjects = [s for m in manifests if m["kind"] == "RoleBinding" for s in m["subjects"]]
        assert all(subject["namespace"] == "mine" for subject in subjects), overlay
        assert [container["image"] for _, container in proxies(manifests)] == ["registry.test/proxy:7"], overlay


def test_the_dns_overlay_needs_no_right_and_no_way_to_the_api_server() -> None:
    manifests = kustomize(KUBERNETES / "overlays/dns")
    assert not {"Role", "RoleBinding"} & {m["kind"] for m in manifests}
    policy = by_identity(manifests)["NetworkPolicy/stickyproxy"]
    assert {port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])} == {53}
    ((pod, container),) = proxies(manifests)
    assert pod["spec"]["automountServiceAccountToken"] is False
    host, _, port = environment(container, manifests)["STICKYPROXY_DNS"].partition(":")
    service = by_identity(manifests)[f"Service/{host}"]["spec"]
    assert service["clusterIP"] == "None"
    assert [p["targetPort"] for p in service["ports"]] == [int(port)], "no port is translated on the way to a pod"


def test_the_sidecar_takes_the_service_over_and_finds_the_apps_own_port() -> None:
    found = by_identity(manifests := kustomize(KUBERNETES / "overlays/sidecar"))
    ((pod, sidecar),) = proxies(manifests)
    settings = environment(sidecar, manifests)
    assert sidecar in pod["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    listens = int(settings["STICKYPROXY_LISTEN"].rpartition(":")[2])
    ports = port_numbers(sidecar)
    assert [ports[p["targetPort"]] for p in found["Service/nicegui-app"]["spec"]["ports"]] == [listens]
    name, _, port_name = settings["STICKYPROXY_KUBERNETES_SERVICE"].partition(":")
    headless = found[f"Service/{name}"]["spec"]
    assert headless["clusterIP"] == "None"
    assert not headless["publishNotReadyAddresses"], "every endpoint would be called ready"
    assert [(p["name"], p["targetPort"]) for p in headless["ports"]] == [(port_name, 8080)]
    assert 8080 in port_numbers(pod["spec"]["containers"][0])


def merged(before: Any, after: Any) -> bool:
    """Decide whether all that was there is still there."""
    if isinstance(before, dict):
        return isinstance(after, dict) and all(key in after and merged(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return isinstance(after, list) and all(any(merged(item, other) for other in after) for item in before)
    return bool(before == after)


def test_the_sidecar_patch_fits_any_deployment_and_keeps_what_is_there(tmp_path: Path) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    mine = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "mine", "labels": {"stickyproxy": "sidecar"}},
        "spec": {
            "selector": {"matchLabels": {"app": "mine"}},
            "template": {
                "metadata": {"labels": {"app": "mine"}},
                "spec": {
                    "initContainers": [{"name": "migrate", "image": "mine"}],
                    "containers": [{"name": "web", "image": "m", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                },
            },
        },
    }  # fmt: skip
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"}, "spec": {}}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mine", "labels": {"stickyproxy": "sidecar"}},
        "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    (copy / "mine").mkdir()
    (copy / "mine" / "mine.yaml").write_text(yaml.safe_dump_all([mine, other, service]))
    own = {"resources": ["mine.yaml"], "components": ["../components/sidecar", "../components/image"]}
    (copy / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    found = by_identity(kustomize(copy / "mine"))
    assert merged(mine["spec"], found["Deployment/mine"]["spec"])
    containers_ = found["Deployment/mine"]["spec"]["template"]["spec"]["initContainers"]
    assert sorted(container["name"] for container in containers_) == ["migrate", "stickyproxy"]
    assert found["Deployment/other"]["spec"] == {}
    assert found["Service/mine"]["spec"]["ports"] == [{"port": 80, "targetPort": "stickyproxy"}]


def test_the_example_app_rolls_one_new_pod_before_an_old_one_goes() -> None:
    for folder in ("example-app", "base"):
        for manifest in kustomize(KUBERNETES / folder):
            if manifest["kind"] == "Deployment":
                assert manifest["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_in_the_example_overlay_only_the_proxy_reaches_the_app() -> None:
    found = by_identity(manifests := kustomize(KUBERNETES / "overlays/example-app"))
    labels = {whose: pod["metadata"]["labels"] for whose, pod in pods(manifests)}
    (rule,) = found["NetworkPolicy/nicegui-app"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert [w for w, have in labels.items() if selects(peer["podSelector"]["matchLabels"], have)] == [
        "Deployment/stickyproxy"
    ]
    towards_app = found["NetworkPolicy/stickyproxy"]["spec"]["egress"][-1]
    assert selects(towards_app["to"][0]["podSelector"]["matchLabels"], labels["Deployment/nicegui-app"])
    assert environment(next(proxies(manifests))[1], manifests)["STICKYPROXY_KUBERNETES_SERVICE"] == "nicegui-app"
    assert "Service/nicegui-app" in found


def test_what_stands_before_the_proxy_gives_websockets_their_time() -> None:
    ingress = by_identity(kustomize(KUBERNETES / "overlays/ingress"))["Ingress/stickyproxy"]
    prefix = "nginx.ingress.kubernetes.io/"
    notes = {key.removeprefix(prefix): value for key, value in ingress["metadata"]["annotations"].items()}
    assert int(notes["proxy-read-timeout"]) >= 3600
    assert int(notes["proxy-send-timeout"]) >= 3600
    assert (notes["proxy-buffering"], notes["proxy-request-buffering"]) == ("off", "off")
    assert "affinity" not in notes
    route = by_identity(kustomize(KUBERNETES / "overlays/gateway-api"))["HTTPRoute/stickyproxy"]
    for rule in route["spec"]["rules"]:
        assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}, "0s: none"
        assert [(ref["name"], ref["port"]) for ref in rule["backendRefs"]] == [("stickyproxy", 80)]


def test_what_cannot_be_rendered_is_said(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="unable to find one of 'kustomization"):
        run(kubectl(), "kustomize", str(tmp_path))
