"""Set-ups in which nothing is wrong, and how a test makes one thing wrong in them."""

from copy import deepcopy
from typing import Any

import yaml

from stickyproxy.tools.doctor.findings import Finding, find_all
from stickyproxy.tools.doctor.objects import parse_object
from stickyproxy.tools.doctor.reading import Reading, Unread
from stickyproxy.tools.doctor.resources import CLUSTER_KINDS
from stickyproxy.tools.doctor.rules import RULES
from stickyproxy.tools.doctor.scene import Scene

Objects = list[dict[str, Any]]

GONE = object()
"""In the place of a value: take it out."""

_APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: app}}
spec:
  replicas: 3
  selector: {matchLabels: {app: app}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
        - name: app
          image: example.com/nicegui-app:1
          ports: [{name: http, containerPort: 8080}]
          env:
            - {name: STORAGE_SECRET, valueFrom: {secretKeyRef: {name: app, key: storage-secret}}}
            - {name: NICEGUI_REDIS_URL, value: "redis://redis:6379/0"}
            - {name: FORWARDED_ALLOW_IPS, value: "*"}
          readinessProbe: {httpGet: {path: /healthz, port: http}}
          livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 10, failureThreshold: 6}
          lifecycle: {preStop: {sleep: {seconds: 10}}}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec:
  selector: {app: app}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: app}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: app}}
"""

_PROXY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: stickyproxy}
spec:
  replicas: 2
  selector: {matchLabels: {app: stickyproxy}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: stickyproxy}}
    spec:
      serviceAccountName: stickyproxy
      automountServiceAccountToken: true
      terminationGracePeriodSeconds: 30
      containers:
        - name: stickyproxy
          image: example.com/stickyproxy:0.1.0
          args: [run]
          envFrom: [{configMapRef: {name: stickyproxy}}]
          env:
            - {name: STICKYPROXY_SECRET, valueFrom: {secretKeyRef: {name: stickyproxy, key: secret}}}
          ports: [{name: http, containerPort: 8080}, {name: admin, containerPort: 9090}]
          lifecycle: {preStop: {sleep: {seconds: 5}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: stickyproxy}
data: {STICKYPROXY_KUBERNETES_SERVICE: app, STICKYPROXY_DRAIN_TIMEOUT: 20s, STICKYPROXY_SHUTDOWN_DELAY: 0s}
---
apiVersion: v1
kind: Service
metadata: {name: stickyproxy}
spec:
  selector: {app: stickyproxy}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: stickyproxy}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: stickyproxy}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stickyproxy}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: stickyproxy}
rules: [{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: stickyproxy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: stickyproxy}
subjects: [{kind: ServiceAccount, name: stickyproxy, namespace: shop}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: app}
spec:
  podSelector: {matchLabels: {app: app}}
  policyTypes: [Ingress]
  ingress:
    - ports: [{port: http}]
      from: [{podSelector: {matchLabels: {app: stickyproxy}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: stickyproxy}
spec:
  podSelector: {matchLabels: {app: stickyproxy}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{port: http}]}]
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 443}]
    - to: [{podSelector: {matchLabels: {app: app}}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"}}
spec:
  ingressClassName: nginx
  rules:
    - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: stickyproxy, port: {name: http}}}}]}
"""

_INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, annotations: {nginx.ingress.kubernetes.io/affinity: cookie}}
spec:
  ingressClassName: nginx
  rules:
    - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {name: http}}}}]}
"""

_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: main}]
  rules:
    - timeouts: {request: 0s}
      sessionPersistence: {type: Cookie}
      backendRefs: [{name: app, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: main}
spec: {gatewayClassName: eg}
"""

_TRAEFIK = """
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: web}
spec:
  routes:
    - match: Host(`app.example.com`)
      kind: Rule
      services: [{name: app, port: 80, sticky: {cookie: {name: app}}}]
"""

_OPENSHIFT = """
apiVersion: route.openshift.io/v1
kind: Route
metadata: {name: web}
spec: {to: {kind: Service, name: app}, port: {targetPort: http}, tls: {termination: edge}}
"""

_ISTIO = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {http: [{route: [{destination: {host: app.shop.svc.cluster.local, port: {number: 80}}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app}
spec: {host: app, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: app, ttl: 0s}}}}}
"""

SETUPS = {
    "proxied": _APP + "---" + _PROXY,
    "direct": _APP + "---" + _INGRESS,
    "route": _APP + "---" + _ROUTE,
    "traefik": _APP + "---" + _TRAEFIK,
    "openshift": _APP + "---" + _OPENSHIFT,
    "istio": _APP + "---" + _ISTIO,
    "bare": _APP,
}


def setup(name: str) -> Objects:
    """Give a set-up's objects, for the caller to change."""
    return [deepcopy(one) for one in yaml.safe_load_all(SETUPS[name])]


Edit = tuple[str, str, Any]
"""KIND/NAME, a path of keys (or names or numbers of a list's elements; + appends) apart by blanks, and the value."""


def change(objects: Objects, edits: list[Edit]) -> Objects:
    """Change objects in place; with an empty path the whole object is taken out, or a new one is put in."""
    for identity, path, value in edits:
        kind, _, name = identity.partition("/")
        if not path:
            objects[:] = [o for o in objects if (o["kind"], o["metadata"]["name"]) != (kind, name)]
            if value is not GONE:
                objects.extend(yaml.safe_load_all(value))
            continue
        place: Any = next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
        *way, last = path.split(" ")
        for key in way:
            place = place[_index(place, key)] if isinstance(place, list) else place.setdefault(key, {})
        if last == "+":
            place.append(value)
        elif value is GONE:
            del place[_index(place, last) if isinstance(place, list) else last]
        else:
            place[_index(place, last) if isinstance(place, list) else last] = value
    return objects


def _index(place: list[Any], key: str) -> int:
    return int(key) if key.isdecimal() else next(i for i, one in enumerate(place) if one.get("name") == key)


def scene_of(
    objects: Objects, *, live: bool = True, chosen: tuple[str, ...] = (), unread: tuple[str, ...] = ()
) -> Scene:
    """Make the scene that the command would look at, in the namespace `shop`."""
    found = [parse_object(o, "" if o["kind"] in CLUSTER_KINDS else "shop") for o in objects]
    reading = Reading("test", live, [o for o in found if o], [Unread(kind, "should", "") for kind in unread])
    return reading.scene(chosen)


def findings(objects: Objects, **how: Any) -> list[Finding]:
    """Run all rules."""
    return find_all(scene_of(objects, **how), RULES)


def said(found: list[Finding]) -> str:
    """Give findings as lines, for a failing test's reader."""
    return "\n".join(f"{f.rule.id}: {f.fault.where} {f.fault.field}: {f.fault.why}" for f in found)
