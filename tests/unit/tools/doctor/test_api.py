"""What is asked of an API server, and what is made of its answers."""

from typing import Any

import pytest
from fakes.cluster import Cluster, running_cluster

from stickyproxy.tools.doctor.api import read_access
from stickyproxy.tools.doctor.findings import find_all
from stickyproxy.tools.doctor.reading import ReadError, Reading
from stickyproxy.tools.doctor.resources import CONFIG_MAP, RESOURCES
from stickyproxy.tools.doctor.rules import RULES

from .setups import Objects, change, findings, said, setup

NAIVE = [("Ingress/web", "metadata annotations", {})]


async def read(cluster: Cluster, *namespaces: str) -> Reading:
    access = cluster.access()
    try:
        return await read_access(access, namespaces)
    finally:
        await access.client.close()


def rules(reading: Reading) -> set[str]:
    return {f.rule.id for f in find_all(reading.scene(), RULES)}


@pytest.mark.parametrize(("name", "edits"), [("proxied", []), ("direct", NAIVE), ("route", []), ("traefik", [])])
async def test_a_cluster_is_judged_as_its_objects_are(name: str, edits: Any) -> None:
    objects = change(setup(name), edits)
    async with running_cluster(objects=objects) as cluster:
        reading = await read(cluster)
        assert not reading.unread
        found = find_all(reading.scene(), RULES)
        assert said(found) == said(findings(objects))


async def test_nothing_is_watched_written_or_secret() -> None:
    """Whatever is there: all requests are GETs, of the kinds that are said, and of ConfigMaps only those pods name."""
    objects: Objects = [*setup("proxied"), *setup("route")]
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"key": "secret"}})
    async with running_cluster(objects=objects) as cluster:
        await read(cluster)
    allowed = {"/apis", *(r.path("shop") for r in RESOURCES), CONFIG_MAP.path("shop", "stickyproxy")}
    assert {request.method for request in cluster.seen} == {"GET"}
    assert {request.path for request in cluster.seen} <= allowed
    assert CONFIG_MAP.path("shop", "stickyproxy") in {request.path for request in cluster.seen}
    assert not any("watch" in request.query for request in cluster.seen)
    assert not any("secret" in request.path for request in cluster.seen)


async def test_a_list_is_taken_in_pages() -> None:
    objects = setup("proxied")
    async with running_cluster(objects=objects, page=1) as cluster:
        reading = await read(cluster)
    assert len(reading.objects) == len(objects)
    pages = [r for r in cluster.seen if r.path.endswith("/services")]
    assert [r.query.get("continue") for r in pages] == [None, "1"]


async def test_kinds_that_a_cluster_does_not_have_are_not_asked_for() -> None:
    async with running_cluster(objects=setup("proxied")) as cluster:
        await read(cluster)
    assert not any("traefik" in r.path or "gateway" in r.path for r in cluster.seen)


async def test_where_the_groups_are_hidden_every_kind_is_tried() -> None:
    async with running_cluster(objects=setup("traefik"), groups_hidden=True) as cluster:
        reading = await read(cluster)
    assert any(o.kind == "IngressRoute" for o in reading.objects)
    assert not reading.unread


async def test_several_namespaces_are_one_scene() -> None:
    """A proxy in another namespace than its app is found, and the app is no longer unproven."""
    objects = setup("proxied")
    for one in objects:
        one["metadata"]["namespace"] = "edge" if one["metadata"]["name"] == "stickyproxy" else "shop"
    edits = [
        ("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "shop/app"),
        ("Ingress/web", "metadata namespace", "edge"),
        ("NetworkPolicy/app", "spec ingress 0 from 0 namespaceSelector",
         {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}),
        ("NetworkPolicy/stickyproxy", "spec egress 1 to 0 namespaceSelector", {}),
        ("RoleBinding/stickyproxy", "subjects 0 namespace", "edge"),
        ("Role/stickyproxy", "metadata namespace", "shop"),
        ("RoleBinding/stickyproxy", "metadata namespace", "shop"),
    ]  # fmt: skip
    change(objects, edits)
    async with running_cluster(objects=objects) as cluster:
        alone = await read(cluster, "shop")
        assert "affinity-unproven" in rules(alone)
        both = await read(cluster, "shop", "edge")
        assert rules(both) == set()
    assert "namespaces shop, edge at" in both.source


@pytest.mark.parametrize("plural", [r.plural for r in RESOURCES if r.plural not in ("deployments", "statefulsets")])
async def test_a_kind_that_is_forbidden_is_said_and_no_false_alarm_comes_of_it(plural: str) -> None:
    objects = [*setup("proxied"), *setup("traefik"), *setup("route")]
    unique = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    async with running_cluster(objects=list(unique.values()), forbidden=frozenset({plural})) as cluster:
        reading = await read(cluster)
    asked = any(request.path.endswith(f"/{plural}") for request in cluster.seen)
    assert any(f"could not look at {plural}: needs list on {plural}" in lost.text for lost in reading.unread) is asked
    before = {(f.rule.id, str(f.fault.where)) for f in findings(list(unique.values()))}
    after = {(f.rule.id, str(f.fault.where)) for f in find_all(reading.scene(), RULES)}
    assert after <= before


async def test_config_maps_that_are_forbidden_leave_the_settings_unknown() -> None:
    """Not the default: a proxy whose --kubernetes-service nobody knows is accused of nothing."""
    async with running_cluster(objects=setup("proxied"), forbidden=frozenset({"configmaps"})) as cluster:
        reading = await read(cluster)
    assert [lost.text for lost in reading.unread] == [
        "could not look at configmaps: needs get on configmaps in namespace shop"
    ]
    assert rules(reading) == set()


async def test_an_answer_that_is_an_error_is_said() -> None:
    async with running_cluster(objects=setup("proxied"), broken=frozenset({"pods"})) as cluster:
        reading = await read(cluster)
    assert [lost.text for lost in reading.unread] == ["could not look at pods: the API server answers 500"]


@pytest.fixture(params=["unauthorized", "garbage", "forbidden"])
def useless(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str]:
    found: dict[str, tuple[dict[str, Any], str]] = {
        "unauthorized": ({"unauthorized": True}, "does not accept our credentials"),
        "garbage": ({"garbage": True}, "found something that is not JSON"),
        "forbidden": ({"forbidden": frozenset({"deployments", "statefulsets"})}, "needs list on deployments.apps"),
    }
    return found[request.param]


async def test_what_tells_nothing_ends_with_one_line(useless: tuple[dict[str, Any], str]) -> None:
    how, text = useless
    async with running_cluster(objects=setup("proxied"), **how) as cluster:
        with pytest.raises(ReadError, match=text) as caught:
            await read(cluster)
    assert "\n" not in str(caught.value)


async def test_an_api_server_that_is_gone_ends_with_one_line() -> None:
    async with running_cluster() as cluster:
        pass
    with pytest.raises(ReadError, match=r"cannot reach the API server http://127\.0\.0\.1:"):
        await read(cluster)


async def test_a_cluster_role_that_a_binding_names_is_read_by_its_name() -> None:
    """Where it gives the right, nothing is wrong; where nobody may look at it, nothing is said."""
    objects = setup("proxied")
    change(objects, [("RoleBinding/stickyproxy", "roleRef", {"kind": "ClusterRole", "name": "slices"})])
    async with running_cluster(objects=objects) as cluster:
        assert rules(await read(cluster)) == {"proxy-role"}
    async with running_cluster(objects=objects, forbidden=frozenset({"clusterroles"})) as cluster:
        assert rules(await read(cluster)) == set()
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "slices"},
        "rules": [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}],
    }  # fmt: skip
    async with running_cluster(objects=[*objects, role]) as cluster:
        assert rules(await read(cluster)) == set()
