"""What is taken for what: apps, proxies, and whose an Ingress is."""

from typing import Any

import pytest

from stickyproxy.tools.doctor.scene import UnclearError

from .setups import GONE, Edit, change, findings, said, scene_of, setup

POD = "spec template spec"
PLAIN: list[Edit] = [
    ("Deployment/app", f"{POD} containers app image", "example.com/dashboard:1"),
    ("Deployment/app", f"{POD} containers app env", []),
]


def names(scene: Any) -> list[str]:
    return [app.obj.name for app in scene.apps]


def test_an_app_is_what_is_behind_a_proxy_whatever_its_name() -> None:
    scene = scene_of(change(setup("proxied"), PLAIN))
    assert [(app.obj.name, app.why) for app in scene.apps] == [("app", "it is behind Deployment stickyproxy")]


def test_without_any_sign_the_only_one_that_is_reached_from_outside_is_the_app() -> None:
    scene = scene_of(change(setup("direct"), PLAIN))
    assert [(app.obj.name, app.why) for app in scene.apps] == [("app", "it alone is reached from outside")]


def test_without_any_sign_and_any_way_in_nobody_is_accused() -> None:
    with pytest.raises(UnclearError, match="name yours with --deployment NAME"):
        names(scene_of(change(setup("bare"), PLAIN)))


def test_a_database_that_has_the_apps_name_is_no_app() -> None:
    edits: list[Edit] = [*PLAIN, ("Deployment/app", f"{POD} containers app image", "docker.io/library/postgres:17")]
    objects = change(setup("bare"), edits)
    objects[0]["metadata"]["name"] = "nicegui-db"
    with pytest.raises(UnclearError):
        names(scene_of(objects))


def test_of_several_containers_the_app_is_the_one_that_says_so() -> None:
    """And its probes count, not those of what stands before it in the same pod."""
    objects = setup("proxied")
    gate = {"name": "gate", "image": "oauth2-proxy:7", "readinessProbe": {"httpGet": {"path": "/", "port": 4180}}}
    objects[0]["spec"]["template"]["spec"]["containers"].insert(0, gate)
    scene = scene_of(objects)
    assert [app.container.name for app in scene.apps] == ["app"]
    assert not findings(objects), said(findings(objects))


@pytest.mark.parametrize(
    "edits",
    [
        [
            (
                "Deployment/stickyproxy",
                f"{POD} containers stickyproxy image",
                "registry:5000/mirror/stickyproxy@sha256:aa",
            )
        ],
        [("Deployment/stickyproxy", f"{POD} containers stickyproxy image", "registry/edge:1")],  # by its settings
        [
            ("Deployment/stickyproxy", f"{POD} containers stickyproxy image", "python:3.13"),
            ("Deployment/stickyproxy", f"{POD} containers stickyproxy args", ["-m", "stickyproxy", "run"]),
        ],
        [("Deployment/stickyproxy", f"{POD} containers stickyproxy args", ["sh", "-c", "exec stickyproxy run"])],
    ],
)
def test_a_proxy_is_known_by_its_image_its_program_or_its_settings(edits: list[Edit]) -> None:
    objects = change(setup("proxied"), edits)
    assert [proxy.workload.obj.name for proxy in scene_of(objects).proxies] == ["stickyproxy"]
    assert not findings(objects), said(findings(objects))


def test_a_flag_beats_the_environment() -> None:
    args = ["run", "--drain-timeout=1m", "--kubernetes-service", "app"]
    objects = change(setup("proxied"), [("Deployment/stickyproxy", f"{POD} containers stickyproxy args", args)])
    assert {f.rule.id for f in findings(objects)} == {"grace-too-short"}


def test_settings_that_a_file_may_change_are_not_judged() -> None:
    args = ["run", "--config", "/etc/stickyproxy.toml", "--kubernetes-service", "app"]
    edits: list[Edit] = [
        ("Deployment/stickyproxy", f"{POD} containers stickyproxy args", args),
        ("Deployment/stickyproxy", f"{POD} containers stickyproxy envFrom", GONE),
        ("Deployment/stickyproxy", f"{POD} terminationGracePeriodSeconds", 1),
        ("Deployment/stickyproxy", f"{POD} containers stickyproxy lifecycle", GONE),
    ]
    found = findings(change(setup("proxied"), edits))
    assert not found, said(found)


def test_a_named_proxy_is_looked_at_alone() -> None:
    objects = change(setup("proxied"), [("ConfigMap/stickyproxy", "data STICKYPROXY_DRAIN_TIMEOUT", "60s")])
    found = findings(objects, chosen=("stickyproxy",))
    assert {f.rule.id for f in found} == {"grace-too-short"}, said(found)


def ingress_class(name: str, controller: str, *, default: bool = False) -> str:
    notes = "{ingressclass.kubernetes.io/is-default-class: 'true'}" if default else "{}"
    return f"""
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: {name}, annotations: {notes}}}
spec: {{controller: {controller}}}
"""


@pytest.mark.parametrize(
    ("class_", "made", "vendor"),
    [
        ("web", ingress_class("web", "traefik.io/ingress-controller"), "Traefik"),
        ("nginx", ingress_class("nginx", "nginx.org/ingress-controller"), "F5 NGINX Ingress Controller"),
        ("inner", ingress_class("inner", "k8s.io/internal-ingress-nginx"), "ingress-nginx"),  # by its annotations
        ("kong", ingress_class("kong", "ingress-controllers.konghq.com/kong"), "an unknown controller"),
        (
            "",
            ingress_class("main", "haproxy.org/ingress-controller", default=True),
            "HAProxy Kubernetes Ingress Controller",
        ),
        ("", "", "ingress-nginx"),
        ("nginx", "", "ingress-nginx"),
    ],
)
def test_an_ingress_is_its_classs_controllers(class_: str, made: str, vendor: str) -> None:
    edits: list[Edit] = [("Ingress/web", "spec ingressClassName", class_ or GONE)]
    if made:
        edits.append(("IngressClass/x", "", made))
    scene = scene_of(change(setup("direct"), edits))
    assert [entry.vendor.name for entry in scene.entries] == [vendor]


def test_an_ingress_with_nobodys_class_and_annotations_is_not_judged() -> None:
    edits: list[Edit] = [("Ingress/web", "spec ingressClassName", GONE), ("Ingress/web", "metadata annotations", GONE)]
    found = findings(change(setup("direct"), edits))
    assert [f.rule.id for f in found] == ["affinity-unproven"]


def test_a_proxy_that_may_lead_to_the_app_is_no_reason_to_doubt() -> None:
    """In files its Service may be among others; in a cluster a Service that is not there is a fault of its own."""
    edits: list[Edit] = [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "other")]
    assert not findings(change(setup("proxied"), edits), live=False)
    found = findings(change(setup("proxied"), edits), live=True)
    assert {f.rule.id for f in found} == {"affinity-unproven", "proxy-service-missing"}


def test_a_role_that_is_in_other_manifests_may_give_the_right() -> None:
    edits: list[Edit] = [("RoleBinding/stickyproxy", "roleRef", {"kind": "ClusterRole", "name": "view"})]
    assert not findings(change(setup("proxied"), edits), live=False)
    assert {f.rule.id for f in findings(change(setup("proxied"), edits), live=True)} == {"proxy-role"}


def test_replicas_that_are_ready_have_the_right_wherever_it_comes_from() -> None:
    edits: list[Edit] = [
        ("RoleBinding/stickyproxy", "", GONE),
        ("Deployment/stickyproxy", "status", {"readyReplicas": 2}),
    ]
    objects = change(setup("proxied"), edits)
    assert not findings(objects, unread=("ClusterRoleBinding",))
    assert {f.rule.id for f in findings(objects)} == {"proxy-role"}
