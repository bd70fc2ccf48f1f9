"""The kinds that are read, where they are in the API, and how much depends on each.

Laws: a kind is got or listed, never watched or written; Secrets are none of these.
"""

from dataclasses import dataclass
from typing import Literal

Need = Literal["must", "should", "extra"]
"""`must`: without it nothing can be said with certainty; `should`: some rules are silent without it; `extra`: it only
makes some findings surer, and takes rights in the whole cluster."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind and its place in the API."""

    kind: str
    group: str
    version: str
    plural: str
    need: Need = "should"
    namespaced: bool = True

    @property
    def full_name(self) -> str:
        """Give its name as `kubectl` and RBAC write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", version: str = "") -> str:
        """Give its path; version: what the API server prefers to ours."""
        root = f"/apis/{self.group}/{version or self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name else "")


RESOURCES = (
    Resource("Deployment", "apps", "v1", "deployments", "must"),
    Resource("StatefulSet", "apps", "v1", "statefulsets", "must"),
    Resource("Service", "", "v1", "services", "must"),
    Resource("Ingress", "networking.k8s.io", "v1", "ingresses", "must"),
    Resource("Pod", "", "v1", "pods"),
    Resource("ServiceAccount", "", "v1", "serviceaccounts"),
    Resource("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"),
    Resource("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    Resource("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers"),
    Resource("Role", "rbac.authorization.k8s.io", "v1", "roles"),
    Resource("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings"),
    Resource("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes"),
    Resource("Gateway", "gateway.networking.k8s.io", "v1", "gateways"),
    Resource("BackendTrafficPolicy", "gateway.envoyproxy.io", "v1alpha1", "backendtrafficpolicies"),
    Resource("ClientTrafficPolicy", "gateway.envoyproxy.io", "v1alpha1", "clienttrafficpolicies"),
    Resource("IngressRoute", "traefik.io", "v1alpha1", "ingressroutes"),
    Resource("Middleware", "traefik.io", "v1alpha1", "middlewares"),
    Resource("BackendConfig", "cloud.google.com", "v1", "backendconfigs"),
    Resource("GCPBackendPolicy", "networking.gke.io", "v1", "gcpbackendpolicies"),
    Resource("Route", "route.openshift.io", "v1", "routes"),
    Resource("VirtualService", "networking.istio.io", "v1", "virtualservices"),
    Resource("DestinationRule", "networking.istio.io", "v1", "destinationrules"),
    Resource("IngressClass", "networking.k8s.io", "v1", "ingressclasses", "extra", namespaced=False),
    Resource("ClusterRoleBinding", "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "extra", namespaced=False),
)
"""All that is listed."""

CONFIG_MAP = Resource("ConfigMap", "", "v1", "configmaps")
CLUSTER_ROLE = Resource("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles", "extra", namespaced=False)
"""Got by name: the ConfigMaps that pods take variables from, the ClusterRoles that bindings name."""

CLUSTER_KINDS = frozenset(r.kind for r in (*RESOURCES, CLUSTER_ROLE) if not r.namespaced)
