"""Every manifest of `deploy/` is accepted by a real API server; its service account may do what it needs, no more."""

from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.tools import (
    KUBERNETES,
    Manifest,
    NotThereError,
    chart,
    helm,
    kubectl,
    kustomizations,
    kustomize,
)
from needs import missing

from stickyproxy.core.backends import Phase
from stickyproxy.core.endpoint_slices import ServiceRef

from .api import MERGE, ApiError, Endpoint, Namespace, connect
from .follow import Followed, by_service_account, following
from .kinds import path_of

RIGHTS = ("ServiceAccount", "Role", "RoleBinding")

Render = Callable[[str], list[Manifest]]
"""Renders a way to deploy for a namespace."""

STRICT = {"dryRun": "All", "fieldValidation": "Strict"}

ONE = Endpoint("10.1.0.1", "one")


def from_kustomization(folder: Path) -> Render:
    """Render a kustomization; its `namespace:` is set as the reader of its comment would."""

    def render(namespace: str) -> list[Manifest]:
        found = kustomize(folder)
        for manifest in found:
            if "namespace" in manifest["metadata"]:
                manifest["metadata"]["namespace"] = namespace
            for subject in manifest.get("subjects", ()):
                subject["namespace"] = namespace
        return found

    return render


def from_chart(**values: object) -> Render:
    """Render the chart."""
    return lambda namespace: chart(values=values, namespace=namespace)


FULL: dict[str, object] = {
    "image": {"pullPolicy": "IfNotPresent", "pullSecrets": [{"name": "registry"}]},
    "settings": {"page-token": True, "asset-cache": "64M"},
    "secret": {"name": "own"},
    "serviceAccount": {"name": "own", "annotations": {"example.com/owner": "us"}},
    "ingress": {"enabled": True},
    "gateway": {"enabled": True},
    "networkPolicy": {"appLabels": {"app": "nicegui-app"}},
    "podLabels": {"example.com/team": "us"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
}
"""Values that switch everything on."""

BY_DNS: dict[str, object] = {"backends": {"dns": "pods:8080"}, "autoscaling": {"enabled": False}}

ELSEWHERE: dict[str, object] = {"backends": {"kubernetesService": "kube-system/nicegui-app:http"}}

WAYS = [pytest.param(from_kustomization(f), id=str(f.relative_to(KUBERNETES))) for f in kustomizations()]
WAYS += [
    pytest.param(from_chart(), id="chart with its defaults"),
    pytest.param(from_chart(**FULL), id="chart with everything on"),
    pytest.param(from_chart(**BY_DNS), id="chart by DNS"),
]


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Require kubectl and helm."""
    try:
        kubectl()
        helm()
    except NotThereError as error:
        missing(str(error))


@pytest.mark.parametrize("render", [*WAYS, pytest.param(from_chart(**ELSEWHERE), id="chart, app elsewhere")])
async def test_every_manifest_is_accepted_without_a_warning(
    namespace: Namespace, gateway_api: None, render: Render
) -> None:
    """By a server's dry run with strict validation, in a namespace that warns of all that `restricted` forbids."""
    await warn_of_unrestricted_pods(namespace)
    rendered = render(namespace.name)
    assert rendered
    for manifest in rendered:
        namespace.api.warnings.clear()
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        path = await path_of(namespace.api, manifest, namespace.name)
        try:
            made = await namespace.api.call("POST", path, manifest, **STRICT)
        except ApiError as error:
            raise AssertionError(f"{what}: {error}") from None
        assert made["kind"] == manifest["kind"]
        assert not namespace.api.warnings, f"{what}: {namespace.api.warnings}"


async def test_a_dry_run_refuses_unknown_fields_and_warns_of_pods_that_are_not_restricted(namespace: Namespace) -> None:
    """The stage itself: what the test above would see."""
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"sessionAfinity": "None"}}
    with pytest.raises(ApiError, match="sessionAfinity"):
        await namespace.api.call("POST", f"{namespace.core}/services", wrong, **STRICT)

    await warn_of_unrestricted_pods(namespace)
    labels = {"app": "x"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    careless = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}
    path = await path_of(namespace.api, careless, namespace.name)
    await namespace.api.call("POST", path, careless, **STRICT)
    assert "allowPrivilegeEscalation" in "".join(namespace.api.warnings)


async def warn_of_unrestricted_pods(namespace: Namespace) -> None:
    """Have the API server hold pods against the Pod Security Standard `restricted`."""
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/warn": "restricted"}}}
    await namespace.api.call("PATCH", f"/api/v1/namespaces/{namespace.name}", label, content=MERGE)


@pytest.mark.parametrize("render", WAYS)
async def test_service_accounts_may_read_slices_of_their_namespace_and_nothing_more(
    namespace: Namespace, render: Render
) -> None:
    """Said by the API server about the accounts themselves, with tokens as their pods get them."""
    rendered = [m for m in render(namespace.name) if m["kind"] in RIGHTS or m["kind"].startswith("ClusterRole")]
    for manifest in rendered:
        await namespace.api.call("POST", await path_of(namespace.api, manifest, namespace.name), manifest)
    accounts = [m["metadata"]["name"] for m in rendered if m["kind"] == "ServiceAccount"]
    reading = {m["subjects"][0]["name"] for m in rendered if m["kind"] == "RoleBinding"}
    await namespace.make_account("nobody", verbs=())
    everybody = await rules(namespace, "nobody")
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    for account in accounts:
        own = [rule for rule in await rules(namespace, account) if rule not in everybody]
        if account not in reading:
            assert own == [], account
            continue
        assert own == [
            {"verbs": ["get", "list", "watch"], "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]}
        ], account
        await may_do_no_more(namespace, account)
        namespace.mount(await namespace.make_token(account))
        async with following(Followed(ServiceRef("", "app"), by_service_account(namespace.folder))) as followed:
            await followed.until(lambda followed=followed: not followed.problem)
            assert followed.phases == {"one": Phase.READY}


async def rules(namespace: Namespace, account: str) -> list[Manifest]:
    """Ask the API server what an account may do in the namespace."""
    spec = {"namespace": namespace.name}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": spec}
    async with connect(namespace.plane, token=await namespace.make_token(account)) as api:
        found = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    assert not found["status"]["incomplete"], found
    return list(found["status"]["resourceRules"])


async def may_do_no_more(namespace: Namespace, account: str) -> None:
    """Ask for what somebody might want of an account that was stolen, and try some of it."""
    here, elsewhere = namespace.name, "kube-system"
    slices = ("discovery.k8s.io", "endpointslices")
    allowed = [(here, *slices, verb) for verb in ("get", "list", "watch")]
    denied = [(here, *slices, verb) for verb in ("create", "update", "patch", "delete", "deletecollection")]
    denied += [(elsewhere, *slices, verb) for verb in ("get", "list", "watch")]
    denied += [("", *slices, verb) for verb in ("list", "watch")]  # the whole cluster's
    denied += [
        (here, "", resource, verb)
        for resource in ("pods", "secrets", "configmaps", "services", "endpoints", "serviceaccounts", "events")
        for verb in ("get", "list", "watch", "create", "delete")
    ]
    denied += [(here, "", "pods/exec", "create"), (here, "", "serviceaccounts/token", "create")]
    denied += [(here, "apps", "deployments", "patch"), (here, "rbac.authorization.k8s.io", "roles", "create")]
    denied += [("", "", "nodes", "list"), ("", "", "namespaces", "list")]
    async with connect(namespace.plane, token=await namespace.make_token(account)) as api:
        for where, group, resource, verb in allowed + denied:
            name, _, subresource = resource.partition("/")
            attributes = {"namespace": where, "group": group, "resource": name, "verb": verb}
            review = {
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes | ({"subresource": subresource} if subresource else {})},
            }  # fmt: skip
            found = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
            wanted = (where, group, resource, verb) in allowed
            assert found["status"].get("allowed", False) is wanted, f"{account}: {attributes}"
        for path in (f"{namespace.core}/secrets", f"{namespace.core}/pods", "/api/v1/namespaces/kube-system/secrets"):
            with pytest.raises(ApiError) as caught:
                await api.call("GET", path)
            assert caught.value.status == 403, path
