"""What a service account may do, as far as Roles and their bindings say it.

Law: three answers. A binding to something that could not be read may give anything, so the answer is then "not known".
"""

from collections.abc import Iterator

from stickyproxy.tools.doctor.objects import Node, Obj
from stickyproxy.tools.doctor.scene import Scene

GROUP, RESOURCE = "discovery.k8s.io", "endpointslices"
NEEDED = frozenset({"list", "watch"})


def bound_roles(scene: Scene) -> set[str]:
    """Give the names of the ClusterRoles that bindings refer to."""
    bindings = scene.all("RoleBinding") + scene.all("ClusterRoleBinding")
    return {b.root.at("roleRef.name").text for b in bindings if b.root.at("roleRef.kind").text == "ClusterRole"}


def missing_verbs(scene: Scene, namespace: str, account: tuple[str, str]) -> frozenset[str] | None:
    """Give which of list and watch an account (namespace, name) lacks on EndpointSlices; None: not known."""
    if not scene.knows("RoleBinding", "Role"):
        return None
    allowed: set[str] = set()
    for binding in _bindings(scene, namespace):
        if not any(_is(subject, binding, account) for subject in binding.root["subjects"].items()):
            continue
        reference = binding.root["roleRef"]
        kind = reference["kind"].text
        role = scene.find(kind, binding.namespace if kind == "Role" else "", reference["name"].text)
        if role is not None:
            allowed |= _verbs(role)
        elif not scene.live or not scene.knows(kind):
            return None  # in other manifests, or where nobody may look
    return frozenset() if "*" in allowed else NEEDED - allowed


def _bindings(scene: Scene, namespace: str) -> Iterator[Obj]:
    """Give the bindings that count in a namespace."""
    yield from (binding for binding in scene.all("RoleBinding") if binding.namespace == namespace)
    yield from scene.all("ClusterRoleBinding")


def _is(subject: Node, binding: Obj, account: tuple[str, str]) -> bool:
    namespace, name = account
    kind, said = subject["kind"].text, subject["name"].text
    if kind == "ServiceAccount":
        return (subject["namespace"].text or binding.namespace, said) == (namespace, name)
    if kind == "Group":
        return said in ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return kind == "User" and said == f"system:serviceaccount:{namespace}:{name}"


def _verbs(role: Obj) -> set[str]:
    found: set[str] = set()
    for rule in role.root["rules"].items():
        groups, resources = rule["apiGroups"].words(), rule["resources"].words()
        if {GROUP, "*"} & set(groups) and {RESOURCE, "*"} & set(resources) and not rule["resourceNames"].words():
            found |= set(rule["verbs"].words())
    return found
