"""Kinds of objects: where the API server keeps them, and how it is taught those that Kubernetes does not bring."""

import json

import yaml
from deploy.tools import Manifest

from .api import Api
from .build import gateway_api_crds

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def path_of(api: Api, manifest: Manifest, namespace: str) -> str:
    """Return where objects of a manifest's kind are made."""
    version = manifest["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    served = await api.call("GET", root)
    resource = next(r for r in served["resources"] if r["kind"] == manifest["kind"] and "/" not in r["name"])
    where = manifest["metadata"].get("namespace", namespace)
    return f"{root}/namespaces/{where}/{resource['name']}" if resource["namespaced"] else f"{root}/{resource['name']}"


async def teach(api: Api, definition: Manifest) -> None:
    """Teach the API server a kind, unless it knows it; done when it serves it."""
    name = definition["metadata"]["name"]
    if any(crd["metadata"]["name"] == name for crd in (await api.call("GET", CRDS))["items"]):
        return
    await api.call("POST", CRDS, definition)
    async with api.watch(CRDS, fieldSelector=f"metadata.name={name}") as events:
        async for line in events:
            conditions = json.loads(line)["object"].get("status", {}).get("conditions") or ()  # null at first
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
    raise AssertionError(f"{name} was never established")


def gateway_kind(plural: str) -> Manifest:
    """Give the definition of a kind of the Gateway API, as its project publishes it. NotBuildableError."""
    file = gateway_api_crds() / f"gateway.networking.k8s.io_{plural}.yaml"
    found: Manifest = yaml.load(file.read_text(), yaml.CSafeLoader)
    return found


def loose_kind(kind: str, group: str, version: str) -> Manifest:
    """Give a definition of a kind that takes whatever it is given, for kinds of which only the content counts here."""
    singular = kind.lower()
    plural = f"{singular[:-1]}ies" if singular.endswith("y") else f"{singular}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": singular},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
