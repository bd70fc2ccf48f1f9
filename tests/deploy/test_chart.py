"""The chart: the same objects as deploy/kubernetes, and values that are held to their schema."""

import copy
import json
import re
from typing import Any

import pytest
import yaml

from .objects import by_identity, environment, proxies
from .test_kubernetes import ALL_OF_THE_CHART
from .tools import CHART, KUBERNETES, Manifest, RefusedError, chart, helm, kustomize, run

pytestmark = pytest.mark.usefixtures("programs")

CHARTS_OWN_LABELS = {"app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"}


def comparable(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Index manifests without what must differ: labels of the chart, and how a changed ConfigMap rolls the pods."""
    text = json.dumps(manifests)
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            name = manifest["metadata"]["name"]
            text = text.replace(f'"{name}"', f'"{re.sub("-[a-z0-9]{10}$", "", name)}"')
    manifests = json.loads(text)
    for manifest in manifests:
        for label in CHARTS_OWN_LABELS:
            manifest["metadata"]["labels"].pop(label, None)
        if manifest["kind"] == "Deployment":
            manifest["spec"]["template"]["metadata"]["annotations"].pop("checksum/settings", None)
    return by_identity(manifests)


def test_by_default_it_makes_what_the_base_makes() -> None:
    assert comparable(chart()) == comparable(kustomize(KUBERNETES / "base"))


@pytest.mark.parametrize(
    ("overlay", "values"),
    [
        ("ingress", {"ingress": {"enabled": True}}),
        ("gateway-api", {"gateway": {"enabled": True}}),
        ("dns", {"backends": {"dns": "nicegui-app-pods:8080"}, "settings": {"dns-interval": "5s"}}),
    ],
)
def test_with_values_it_makes_what_the_overlay_makes(overlay: str, values: Manifest) -> None:
    expected = comparable(kustomize(KUBERNETES / "overlays" / overlay))
    expected.pop("Service/nicegui-app-pods", None)  # the app's, not the proxy's
    assert comparable(chart(values=values)) == expected


def test_it_lints_without_a_warning(tmp_path: Any) -> None:
    for values in ({}, ALL_OF_THE_CHART):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        run(helm(), "lint", "--strict", str(CHART), "--values", str(file))


def test_two_releases_do_not_meet() -> None:
    first, second = by_identity(chart(release="one")), by_identity(chart(release="two"))
    assert not first.keys() & second.keys()
    selector = first["Service/one-stickyproxy"]["spec"]["selector"]
    assert selector != second["Service/two-stickyproxy"]["spec"]["selector"]


def test_every_object_lives_in_the_releases_namespace() -> None:
    manifests = chart(namespace="mine")
    assert {m["metadata"]["namespace"] for m in manifests} == {"mine"}
    (binding,) = [m for m in manifests if m["kind"] == "RoleBinding"]
    assert binding["subjects"][0]["namespace"] == "mine"


def test_an_app_in_another_namespace_gets_the_role_there() -> None:
    found = by_identity(chart("backends.kubernetesService=apps/web:http", namespace="edge"))
    assert found["Role/stickyproxy"]["metadata"]["namespace"] == "apps"
    assert found["RoleBinding/stickyproxy"]["metadata"]["namespace"] == "apps"
    assert found["RoleBinding/stickyproxy"]["subjects"][0]["namespace"] == "edge"
    assert found["ServiceAccount/stickyproxy"]["metadata"]["namespace"] == "edge"
    assert found["NetworkPolicy/stickyproxy"]["spec"]["egress"][-1]["to"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps"}}}
    ]


@pytest.mark.parametrize(
    ("service", "peer"),
    [
        ("web", {"podSelector": {"matchLabels": {"app": "web"}}}),
        ("apps/web", {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps"}},
            "podSelector": {"matchLabels": {"app": "web"}},
        }),
    ],
)  # fmt: skip
def test_the_apps_pods_reach_the_admin_port_where_their_pre_stop_drains(service: str, peer: Any) -> None:
    policy = {"appLabels": {"app": "web"}}
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for drains, peers in ((False, [monitoring]), (True, [monitoring, peer])):
        values = {"backends": {"kubernetesService": service}, "networkPolicy": {**policy, "drainByApp": drains}}
        spec = by_identity(chart(values=values))["NetworkPolicy/stickyproxy"]["spec"]
        (rule,) = [rule for rule in spec["ingress"] if rule["ports"] == [{"port": "admin"}]]
        assert rule["from"] == peers
        assert spec["egress"][-1]["to"] == [peer]


def test_the_policy_of_the_base_says_how_the_apps_pods_reach_the_admin_port() -> None:
    """The lines in its comment are what the chart makes, and the README's `stickyproxy drain` needs them."""
    text = (KUBERNETES / "base/networkpolicy.yaml").read_text()
    opened = "".join(re.sub(r"^( *)# (?=- podSelector|    matchLabels)", r"\1", line) for line in text.splitlines(True))
    (rule,) = [r for r in yaml.safe_load(opened)["spec"]["ingress"] if r["ports"] == [{"port": "admin"}]]
    assert rule["from"][1:] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "my-app"}}}]


def test_settings_become_the_environment_as_the_command_line_reads_it() -> None:
    settings = {"max-head-bytes": 1000000, "page-token": True, "hold": 0.5, "prober": ["one", "two"]}
    manifests = chart(values={"settings": settings})
    ((_, container),) = proxies(manifests)
    found = environment(container, manifests)
    assert found["STICKYPROXY_MAX_HEAD_BYTES"] == "1000000", "not 1e+06"
    assert found["STICKYPROXY_PAGE_TOKEN"] == "true"
    assert found["STICKYPROXY_HOLD"] == "0.5"
    assert found["STICKYPROXY_PROBER"] == "one,two"


def test_a_changed_setting_rolls_the_pods() -> None:
    def template(manifests: list[Manifest]) -> Any:
        return by_identity(manifests)["Deployment/stickyproxy"]["spec"]["template"]["metadata"]["annotations"]

    assert template(chart()) == template(chart())
    assert template(chart()) != template(chart("settings.hold=5s"))


def test_the_grace_period_follows_the_drain() -> None:
    spec = by_identity(chart("drain.preStopSeconds=10", "drain.timeoutSeconds=600"))["Deployment/stickyproxy"]["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 615


def test_the_number_of_replicas_is_the_autoscalers_or_said() -> None:
    assert "replicas" not in by_identity(chart())["Deployment/stickyproxy"]["spec"]
    alone = by_identity(chart("autoscaling.enabled=false", "replicas=3"))
    assert alone["Deployment/stickyproxy"]["spec"]["replicas"] == 3
    assert "HorizontalPodAutoscaler/stickyproxy" not in alone


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("image.tga=1", "'tga' not allowed"),
        ("backends.kubernetesService=", "backends"),
        ("backends.dns=no-port", "does not match pattern"),
        ("settings.listen=:80", "settings"),
        ("settings.Hold=3s", "settings"),
        ("drain.timeoutSeconds=20s", "want integer"),
        ("service.type=ExternalName", "value must be one of"),
        ("autoscaling.minReplicas=9", "expected minReplicas up to maxReplicas, found 9 and 6"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(setting: str, complaint: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(complaint)):
        chart(setting)


def test_every_value_has_its_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    for name, value in copy.deepcopy(values).items():
        if "properties" in schema["properties"][name]:
            assert schema["properties"][name]["properties"].keys() == value.keys(), name


def test_its_versions_are_the_projects() -> None:
    import stickyproxy

    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == about["version"] == stickyproxy.__version__


def test_the_notes_name_what_is_there() -> None:
    notes = run(helm(), "install", "web", str(CHART), "--dry-run=client", "--namespace", "mine").partition("NOTES:")[2]
    assert "deployment/web-stickyproxy" in notes
    assert "the placeholder ghcr.io/OWNER/stickyproxy" in notes
    assert "create secret generic web-stickyproxy" in notes
