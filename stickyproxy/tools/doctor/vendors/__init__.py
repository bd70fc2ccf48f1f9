"""Who leads browsers in: one module for each family of controllers, with its annotations, units and defaults."""

from stickyproxy.tools.doctor.vendors.aws import AWS_ALB, BALANCER
from stickyproxy.tools.doctor.vendors.azure import AGIC
from stickyproxy.tools.doctor.vendors.gateway import GATEWAY
from stickyproxy.tools.doctor.vendors.gcp import GCP
from stickyproxy.tools.doctor.vendors.haproxy import HAPROXY, HAPROXY_INGRESS
from stickyproxy.tools.doctor.vendors.meshes import ISTIO, OPENSHIFT
from stickyproxy.tools.doctor.vendors.nginx import F5_NGINX, INGRESS_NGINX
from stickyproxy.tools.doctor.vendors.traefik import TRAEFIK, TRAEFIK_ROUTE

INGRESS_VENDORS = (INGRESS_NGINX, F5_NGINX, TRAEFIK, HAPROXY, HAPROXY_INGRESS, AWS_ALB, GCP, AGIC)
"""Who serves an Ingress; of two with the same class the first counts, unless annotations say the other."""

BY_KIND = {
    "HTTPRoute": GATEWAY,
    "IngressRoute": TRAEFIK_ROUTE,
    "Route": OPENSHIFT,
    "VirtualService": ISTIO,
    "Service": BALANCER,
}
"""Who serves the other kinds of ways in; a Service is one where its type is LoadBalancer."""
