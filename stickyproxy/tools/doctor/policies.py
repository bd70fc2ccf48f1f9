"""What NetworkPolicies let through, from one workload's pods to another's port.

Law: whatever cannot be told (an address block, labels of a namespace) counts as let through.
"""

from stickyproxy.tools.doctor.objects import Node, Obj, selects
from stickyproxy.tools.doctor.scene import Scene
from stickyproxy.tools.doctor.workloads import Workload

NAMESPACE_NAME = "kubernetes.io/metadata.name"


def policies_for(scene: Scene, workload: Workload, direction: str) -> list[Obj]:
    """Give the policies that bind a workload's pods; direction: `Ingress` or `Egress`."""
    found = []
    for policy in scene.all("NetworkPolicy"):
        types = policy.spec["policyTypes"].words() or ["Ingress", *(["Egress"] if policy.spec["egress"] else [])]
        mine = policy.namespace == workload.obj.namespace and selects(policy.spec["podSelector"], workload.labels)
        if mine and direction in types:
            found.append(policy)
    return found


def closing(scene: Scene, source: Workload | None, target: Workload, number: int, direction: str) -> Obj | None:
    """Give a policy that keeps `source` from a port of `target`; None where one lets it through or there is none.

    source: None for anybody outside. direction: `Ingress` asks the target's policies, `Egress` the source's.
    """
    bound = target if direction == "Ingress" else source
    if bound is None:
        return None
    found = policies_for(scene, bound, direction)
    peer = source if direction == "Ingress" else target
    key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for policy in found:
        for rule in policy.spec[key].items():
            if _has_port(rule, target, number) and _has_peer(rule[side], policy, peer):
                return None
    return found[0] if found else None


def _has_port(rule: Node, target: Workload, number: int) -> bool:
    ports = list(rule["ports"].items())
    if not ports:
        return True
    for port in ports:
        if port["protocol"].text not in ("", "TCP"):
            continue
        wanted, last = port["port"], port["endPort"].number
        if not wanted:
            return True
        if wanted.number is None:
            if any(c.ports.get(wanted.text) == number for c in target.containers):
                return True
        elif wanted.number <= number <= (last or wanted.number):
            return True
    return False


def _has_peer(peers: Node, policy: Obj, peer: Workload | None) -> bool:
    listed = list(peers.items())
    if not listed:
        return True
    if peer is None:  # from outside: through an ingress controller's pods, which nobody here knows, or by its address
        return True
    return any(_is_peer(one, policy, peer) for one in listed)


def _is_peer(one: Node, policy: Obj, peer: Workload) -> bool:
    if one["ipBlock"]:
        return True
    namespaces = one["namespaceSelector"]
    if not namespaces:
        if peer.obj.namespace != policy.namespace:
            return False
    elif (
        set(namespaces["matchLabels"].texts()) <= {NAMESPACE_NAME}
        and not namespaces["matchExpressions"]
        and not selects(namespaces, {NAMESPACE_NAME: peer.obj.namespace})
    ):
        return False
    pods = one["podSelector"]
    return not pods or selects(pods, peer.labels)
