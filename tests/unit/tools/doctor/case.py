"""What a rule's case is, and what the tables of cases share."""

from dataclasses import dataclass
from typing import Any

from .setups import Edit

NGINX = "nginx.ingress.kubernetes.io/"
POD = "spec template spec"
APP = f"{POD} containers app"
PROXY = f"{POD} containers stickyproxy"
ENV = f"{APP} env"
NOTE = "metadata annotations"


@dataclass(frozen=True)
class Case:
    """bad: the edits that make it wrong. twin: those that only look so. where, field: what must be named."""

    rule: str
    base: str
    bad: list[Edit]
    where: str
    field: str
    twin: list[Edit]
    also: frozenset[str] = frozenset()
    """Other rules that rightly speak in the bad one."""
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.rule


def notes(prefix: str, class_: str, bad: dict[str, str], twin: dict[str, str], **more: Any) -> dict[str, Any]:
    """Give a bad Ingress and its twin by their annotations."""

    def edits(found: dict[str, str]) -> list[Edit]:
        return [
            ("Ingress/web", NOTE, {prefix + key: value for key, value in found.items()}),
            ("Ingress/web", "spec ingressClassName", class_),
        ]

    return {"base": "direct", "bad": edits(bad), "twin": edits(twin), "where": "Ingress shop/web", **more}


HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: app}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}
  maxReplicas: 10
"""
SLOW = {"stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}]}
BACKEND_CONFIG = """
apiVersion: cloud.google.com/v1
kind: BackendConfig
metadata: {name: app}
spec: {timeoutSec: %s, sessionAffinity: {affinityType: %s}, healthCheck: {requestPath: %s}}
"""
GOOGLE: list[Edit] = [
    ("Ingress/web", "spec ingressClassName", "gce"),
    ("Ingress/web", NOTE, {}),
    ("Service/app", NOTE, {"cloud.google.com/backend-config": '{"default": "app"}'}),
]
