"""Know a health probe when it comes, so that it is answered here and no backend is dialled."""

PROBERS: tuple[str, ...] = (
    "kube-probe/",  # kubelet
    "GoogleHC/",  # Google Cloud load balancers
    "ELB-HealthChecker/",  # AWS ALB, NLB, CLB
    "Amazon-Route53-Health-Check-Service",
    "Edge Health Probe",  # Azure Front Door
    "Load Balancer Agent",  # Azure load balancer
    "Azure Traffic Manager Endpoint Monitor",
    "Envoy/HC",
    "Consul Health Check",  # Consul, fly.io
    "Blackbox Exporter/",
)
"""Beginnings of the User-Agent of probers: those that clusters and clouds send by themselves."""
