"""For every rule: a set-up with that one thing wrong, and its sound twin, which looks nearly the same."""

from dataclasses import dataclass
from typing import Any

from .setups import GONE, Edit

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


def ingress(**annotations: str) -> list[Edit]:
    """Give the Ingress these annotations and no others, and no class (its annotations say who it is for)."""
    return [("Ingress/web", NOTE, annotations), ("Ingress/web", "spec ingressClassName", GONE)]


def notes(prefix: str, class_: str, bad: dict[str, str], twin: dict[str, str], **more: Any) -> dict[str, Any]:
    """Give a bad Ingress and its twin by their annotations."""

    def edits(found: dict[str, str]) -> list[Edit]:
        return [
            ("Ingress/web", NOTE, {prefix + key: value for key, value in found.items()}),
            ("Ingress/web", "spec ingressClassName", class_),
        ]

    return {"base": "direct", "bad": edits(bad), "twin": edits(twin), "where": "Ingress shop/web", **more}


LOADBALANCER: list[Edit] = [("Ingress/web", "", GONE), ("Service/app", "spec type", "LoadBalancer")]
SECOND_PROXY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: second}
spec:
  selector: {matchLabels: {app: second}}
  template:
    metadata: {labels: {app: stickyproxy, number: second}}
    spec:
      serviceAccountName: stickyproxy
      automountServiceAccountToken: true
      containers:
        - name: stickyproxy
          image: example.com/stickyproxy:0.1.0
          args: [run, --kubernetes-service, app]
          env:
            - {name: STICKYPROXY_SECRET, valueFrom: {secretKeyRef: {name: SECRET, key: secret}}}
          ports: [{name: http, containerPort: 8080}]
"""
HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: app}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}
  maxReplicas: 10
"""
SLOW = {"stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}]}
FAST = {"stabilizationWindowSeconds": 600, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}
MIDDLEWARE = """
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: slow}
spec: {%s: {}}
"""
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
BTP = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: app}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}], %s}
"""
BY_APP = {"matchLabels": {"app": "app"}}
DNS: list[Edit] = [
    ("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", GONE),
    ("ConfigMap/stickyproxy", "data STICKYPROXY_DNS", "app:8080"),
]
HEADLESS: Edit = ("Service/app", "spec clusterIP", "None")


def pods(*builds: str, image: str = "example.com/nicegui-app:1") -> list[Edit]:
    """Make ready pods of the app, one for each build."""
    made = [
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: app-{n}, labels: {{app: app}}}}
spec: {{containers: [{{name: app, image: "{image}"}}]}}
status:
  conditions: [{{type: Ready, status: "True"}}]
  containerStatuses: [{{name: app, imageID: "{build}"}}]
"""
        for n, build in enumerate(builds)
    ]
    return [(f"Pod/app-{n}", "", text) for n, text in enumerate(made)]


CASES = [
    # Who keeps a browser on its pod.
    Case(
        "no-affinity", **notes(NGINX, "nginx", {"proxy-read-timeout": "3600"}, {"affinity": "cookie"}), field="affinity",
        name="ingress-nginx without affinity",
    ),
    Case(
        "no-affinity",
        **notes(NGINX, "nginx", {"affinity": "cookie", "service-upstream": "true"},
                {"affinity": "cookie", "service-upstream": "false"}),
        field="service-upstream", name="ingress-nginx with service-upstream",
    ),
    Case(
        "no-affinity", "direct", [("Ingress/web", NOTE, {})], "Ingress shop/web", "affinity",
        [("Ingress/web", NOTE, {}), ("Deployment/app", "spec replicas", 1)], name="one replica needs no affinity",
    ),
    Case(
        "no-affinity", "direct",
        [("Ingress/web", NOTE, {}), ("Deployment/app", "spec replicas", 1), ("X/x", "", HPA),
         ("HorizontalPodAutoscaler/app", "spec behavior", {"scaleDown": SLOW})],
        "Ingress shop/web", "affinity",
        [("Deployment/app", "spec replicas", 1), ("X/x", "", HPA),
         ("HorizontalPodAutoscaler/app", "spec behavior", {"scaleDown": SLOW})],
        name="one replica that an autoscaler multiplies",
    ),
    Case(
        "no-affinity", "direct",
        [("Ingress/web", NOTE, {"traefik.ingress.kubernetes.io/service.sticky.cookie": "true"}),
         ("Ingress/web", "spec ingressClassName", "traefik")],
        "Service shop/app", "sticky.cookie",
        [("Ingress/web", "spec ingressClassName", "traefik"),
         ("Service/app", NOTE, {"traefik.ingress.kubernetes.io/service.sticky.cookie": "true"})],
        name="Traefik's annotation on the Ingress",
    ),
    Case(
        "no-affinity", "direct",
        [("Ingress/web", "spec ingressClassName", "traefik"),
         ("Service/app", NOTE, {"traefik.ingress.kubernetes.io/service.sticky.cookie": "true",
                                "traefik.ingress.kubernetes.io/service.nativelb": "true"})],
        "Service shop/app", "nativelb",
        [("Ingress/web", "spec ingressClassName", "traefik"),
         ("Service/app", NOTE, {"traefik.ingress.kubernetes.io/service.sticky.cookie": "true",
                                "traefik.ingress.kubernetes.io/service.nativelb": "false"})],
        name="Traefik with nativelb",
    ),
    Case(
        "no-affinity", "traefik", [("IngressRoute/web", "spec routes 0 services app sticky", GONE)],
        "IngressRoute shop/web", "sticky", [], name="IngressRoute without sticky",
    ),
    Case(
        "no-affinity", **notes("haproxy.org/", "haproxy", {"load-balance": "leastconn"}, {"cookie-persistence": "x"}),
        field="cookie-persistence", name="HAProxy Technologies without cookie-persistence",
    ),
    Case(
        "no-affinity",
        **notes("haproxy-ingress.github.io/", "haproxy-ingress", {"balance-algorithm": "leastconn"}, {"affinity": "cookie"}),
        field="affinity", name="HAProxy Ingress without affinity",
    ),
    Case(
        "no-affinity",
        **notes("alb.ingress.kubernetes.io/", "alb",
                {"target-type": "ip", "healthcheck-path": "/healthz"},
                {"target-type": "ip", "healthcheck-path": "/healthz",
                 "target-group-attributes": "stickiness.enabled=true,stickiness.lb_cookie.duration_seconds=600"}),
        field="target-group-attributes", name="ALB without stickiness",
    ),
    Case(
        "no-affinity",
        **notes("alb.ingress.kubernetes.io/", "alb",
                {"target-type": "instance", "healthcheck-path": "/healthz",
                 "target-group-attributes": "stickiness.enabled=true"},
                {"target-type": "ip", "healthcheck-path": "/healthz",
                 "target-group-attributes": "stickiness.enabled=true"}),
        field="target-type", name="ALB that sticks to nodes",
    ),
    Case(
        "no-affinity",
        "direct", [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "NONE", "/healthz"))],
        "BackendConfig shop/app", "affinityType",
        [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "GENERATED_COOKIE", "/healthz"))], name="GKE without affinity",
    ),
    Case(
        "no-affinity",
        **notes("appgw.ingress.kubernetes.io/", "azure-application-gateway", {"request-timeout": "300"},
                {"cookie-based-affinity": "true"}),
        field="cookie-based-affinity", name="AGIC without affinity",
    ),
    Case(
        "no-affinity", "route", [("HTTPRoute/web", "spec rules 0 sessionPersistence", GONE)], "HTTPRoute shop/web",
        "sessionPersistence",
        [("HTTPRoute/web", "spec rules 0 sessionPersistence", GONE),
         ("X/x", "", BTP % "loadBalancer: {type: ConsistentHash, consistentHash: {type: Cookie}}")],
        name="Envoy Gateway without persistence",
    ),
    Case(
        "no-affinity", "direct", LOADBALANCER, "Service shop/app", "sessionAffinity",
        [*LOADBALANCER, ("Deployment/app", "spec replicas", 1)], name="a load balancer of connections",
    ),
    Case(
        "proxy-bypassed", "proxied",
        [("Ingress/web", "spec rules 0 http paths 0 backend service", {"name": "app", "port": {"name": "http"}})],
        "Ingress shop/web", "backend", [],
    ),
    Case(
        "client-ip-affinity", "direct", [*LOADBALANCER, ("Service/app", "spec sessionAffinity", "ClientIP")],
        "Service shop/app", "sessionAffinity", [("Service/app", "spec sessionAffinity", "ClientIP")],
    ),
    Case(
        "client-ip-affinity", "direct",
        [("Ingress/web", NOTE, {}), ("Service/app", "spec sessionAffinity", "ClientIP")],
        "Service shop/app", "sessionAffinity", [("Service/app", "spec sessionAffinity", "None")],
        also=frozenset({"no-affinity"}), name="ClientIP behind an ingress",
    ),
    Case(
        "client-ip-affinity", **notes(NGINX, "nginx", {"upstream-hash-by": "$remote_addr"}, {"affinity": "cookie"}),
        field="upstream-hash-by", name="ingress-nginx by address",
    ),
    Case("affinity-unproven", "bare", [], "Deployment shop/app", "spec.replicas", [("Deployment/app", "spec replicas", 1)]),
    Case(
        "affinity-unproven", "direct", [("Ingress/web", "spec ingressClassName", "kong"), ("Ingress/web", NOTE, {})],
        "Ingress shop/web", "spec", [], name="an unknown controller",
    ),
    Case(
        "affinity-unproven", "route",
        [("HTTPRoute/web", "spec rules 0 sessionPersistence", GONE), ("Gateway/main", "", GONE)], "HTTPRoute shop/web",
        "sessionPersistence", [("Gateway/main", "", GONE)], name="a Gateway elsewhere",
    ),
    Case(
        "several-workers", "proxied", [("Deployment/app", f"{ENV} +", {"name": "WEB_CONCURRENCY", "value": "4"})],
        "Deployment shop/app", "env", [("Deployment/app", f"{ENV} +", {"name": "WEB_CONCURRENCY", "value": "1"})],
    ),
    Case(
        "several-workers", "proxied",
        [("Deployment/app", f"{APP} command", ["sh", "-c", "exec uvicorn main:app --port 8080 --workers 4"])],
        "Deployment shop/app", "args",
        [("Deployment/app", f"{APP} command", ["sh", "-c", "exec uvicorn main:app --port 8080 --workers 1"])],
        name="uvicorn with workers",
    ),
    # Time-outs.
    Case(
        "idle-timeout", "proxied", [("Ingress/web", f"{NOTE} {NGINX}proxy-read-timeout", "5")], "Ingress shop/web",
        "proxy-read-timeout", [("Ingress/web", f"{NOTE} {NGINX}proxy-read-timeout", "15")],
    ),
    Case(
        "idle-timeout", **notes("haproxy.org/", "haproxy", {"cookie-persistence": "x", "timeout-tunnel": "5000"},
                                {"cookie-persistence": "x", "timeout-tunnel": "60000"}),
        field="timeout-tunnel", name="HAProxy's milliseconds",
    ),
    Case(
        "idle-timeout",
        **notes("alb.ingress.kubernetes.io/", "alb",
                {"target-type": "ip", "healthcheck-path": "/healthz",
                 "target-group-attributes": "stickiness.enabled=true",
                 "load-balancer-attributes": "idle_timeout.timeout_seconds=4"},
                {"target-type": "ip", "healthcheck-path": "/healthz",
                 "target-group-attributes": "stickiness.enabled=true",
                 "load-balancer-attributes": "idle_timeout.timeout_seconds=60"}),
        field="load-balancer-attributes", name="ALB's idle time-out",
    ),
    Case(
        "idle-timeout",
        **notes("appgw.ingress.kubernetes.io/", "azure-application-gateway",
                {"cookie-based-affinity": "true", "request-timeout": "10"},
                {"cookie-based-affinity": "true", "request-timeout": "30"}),
        field="request-timeout", name="AGIC's request-timeout",
    ),
    Case(
        "idle-timeout", "route", [("X/x", "", BTP % "timeout: {http: {streamIdleTimeout: 5s}}")],
        "BackendTrafficPolicy shop/app", "streamIdleTimeout",
        [("X/x", "", BTP % "timeout: {http: {streamIdleTimeout: 1m}}")], name="Envoy's stream idle time-out",
    ),
    Case(
        "idle-timeout", "proxied",
        [("Service/stickyproxy", "spec type", "LoadBalancer"),
         ("Service/stickyproxy", NOTE, {"service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout": "5"})],
        "Service shop/stickyproxy", "connection-idle-timeout",
        [("Service/stickyproxy", "spec type", "LoadBalancer"),
         ("Service/stickyproxy", NOTE, {"service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout": "60"})],
        name="a Classic Load Balancer's idle time-out",
    ),
    Case(
        "socket-lifetime", "route", [("HTTPRoute/web", "spec rules 0 timeouts request", "30s")], "HTTPRoute shop/web",
        "timeouts.request", [("HTTPRoute/web", "spec rules 0 timeouts request", "1h")],
    ),
    Case(
        "socket-lifetime", "direct", [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("30", "GENERATED_COOKIE", "/healthz"))],
        "BackendConfig shop/app", "timeoutSec",
        [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("3600", "GENERATED_COOKIE", "/healthz"))], name="GKE's timeoutSec",
    ),
    Case(
        "socket-lifetime", "route", [("X/x", "", BTP % "timeout: {http: {maxStreamDuration: 60s}}")],
        "BackendTrafficPolicy shop/app", "maxStreamDuration",
        [("X/x", "", BTP % "timeout: {http: {maxStreamDuration: 0s}}")], name="Envoy's stream duration",
    ),
    Case(
        "buffering", "proxied", [("Ingress/web", f"{NOTE} {NGINX}proxy-buffering", "on")], "Ingress shop/web",
        "proxy-buffering", [("Ingress/web", f"{NOTE} {NGINX}proxy-buffering", "off")],
    ),
    Case(
        "buffering", "traefik",
        [("X/x", "", MIDDLEWARE % "buffering"), ("IngressRoute/web", "spec routes 0 middlewares", [{"name": "slow"}])],
        "IngressRoute shop/web", "middlewares",
        [("X/x", "", MIDDLEWARE % "compress"), ("IngressRoute/web", "spec routes 0 middlewares", [{"name": "slow"}])],
        name="Traefik's buffering",
    ),
    Case(
        "buffering", "route", [("X/x", "", BTP % "requestBuffer: {limit: 1Mi}")], "BackendTrafficPolicy shop/app",
        "requestBuffer", [("X/x", "", BTP % "requestBuffer: {limit: 1Mi, mode: LimitOnly}")], name="Envoy's buffer",
    ),
    Case(
        "no-upgrade", "proxied", [("Ingress/web", f"{NOTE} {NGINX}proxy-http-version", "1.0")], "Ingress shop/web",
        "proxy-http-version", [("Ingress/web", f"{NOTE} {NGINX}proxy-http-version", "1.1")],
    ),
    Case(
        "no-upgrade", "proxied", [("Ingress/web", f"{NOTE} {NGINX}connection-proxy-header", "keep-alive")],
        "Ingress shop/web", "connection-proxy-header",
        [("Ingress/web", f"{NOTE} {NGINX}connection-proxy-header", "upgrade")], name="a fixed Connection header",
    ),
    Case(
        "no-upgrade", "proxied",
        [("Ingress/web", NOTE, {"nginx.org/proxy-read-timeout": "60s"})], "Ingress shop/web", "websocket-services",
        [("Ingress/web", NOTE, {"nginx.org/websocket-services": "other, stickyproxy"})], name="F5's list of Services",
    ),
    Case(
        "no-upgrade", "proxied",
        [("Service/stickyproxy", "spec type", "LoadBalancer"),
         ("Service/stickyproxy", NOTE, {"service.beta.kubernetes.io/aws-load-balancer-backend-protocol": "http"})],
        "Service shop/stickyproxy", "backend-protocol",
        [("Service/stickyproxy", "spec type", "LoadBalancer"),
         ("Service/stickyproxy", NOTE, {"service.beta.kubernetes.io/aws-load-balancer-backend-protocol": "tcp"})],
        name="a Classic Load Balancer with HTTP",
    ),
    # Probes.
    Case(
        "probe-builds-pages", "proxied", [("Deployment/app", f"{APP} readinessProbe httpGet path", "/")],
        "Deployment shop/app", "readinessProbe.httpGet.path",
        [("Deployment/app", f"{APP} readinessProbe", {"tcpSocket": {"port": "http"}})],
    ),
    Case(
        "probe-builds-pages", "proxied",
        [("Deployment/app", f"{APP} livenessProbe",
          {"exec": {"command": ["sh", "-c", "curl -f http://localhost:8080/ || exit 1"]}, "failureThreshold": 6})],
        "Deployment shop/app", "livenessProbe.exec.command",
        [("Deployment/app", f"{APP} livenessProbe",
          {"exec": {"command": ["sh", "-c", "curl -f http://localhost:8080/healthz"]}, "failureThreshold": 6})],
        name="a probe by curl",
    ),
    Case(
        "check-builds-pages",
        **notes("alb.ingress.kubernetes.io/", "alb",
                {"target-type": "ip", "target-group-attributes": "stickiness.enabled=true"},
                {"target-type": "ip", "target-group-attributes": "stickiness.enabled=true", "healthcheck-path": "/healthz"}),
        field="healthcheck-path",
    ),
    Case(
        "check-builds-pages", "direct", [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "GENERATED_COOKIE", "/"))],
        "BackendConfig shop/app", "requestPath",
        [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "GENERATED_COOKIE", "/healthz"))], name="Google's health check",
    ),
    Case(
        "hasty-liveness", "proxied",
        [("Deployment/app", f"{APP} livenessProbe",
          {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 3, "failureThreshold": 2})],
        "Deployment shop/app", "failureThreshold",
        [("Deployment/app", f"{APP} livenessProbe",
          {"tcpSocket": {"port": "http"}, "periodSeconds": 3, "failureThreshold": 2})],
    ),
    # How pods end.
    Case(
        "grace-too-short", "proxied", [("ConfigMap/stickyproxy", "data STICKYPROXY_DRAIN_TIMEOUT", "60s")],
        "Deployment shop/stickyproxy", "terminationGracePeriodSeconds",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_DRAIN_TIMEOUT", "25s")],
    ),
    Case(
        "grace-too-short", "proxied",
        [("Deployment/app", f"{APP} lifecycle preStop", {"exec": {"command": ["sh", "-c", "sleep 60"]}})],
        "Deployment shop/app", "terminationGracePeriodSeconds",
        [("Deployment/app", f"{APP} lifecycle preStop", {"exec": {"command": ["sh", "-c", "sleep 20"]}})],
        name="an app's long preStop",
    ),
    Case(
        "grace-too-short", "proxied",
        [("Deployment/app", f"{APP} lifecycle preStop",
          {"exec": {"command": ["stickyproxy", "drain", "--wait", "60s", "--idle", "15s"]}})],
        "Deployment shop/app", "terminationGracePeriodSeconds",
        [("Deployment/app", f"{APP} lifecycle preStop",
          {"exec": {"command": ["stickyproxy", "drain", "--wait", "60s", "--idle", "15s"]}}),
         ("Deployment/app", f"{POD} terminationGracePeriodSeconds", 90)],
        name="a drain that is cut short",
    ),
    Case(
        "no-prestop", "proxied", [("Deployment/app", f"{APP} lifecycle", GONE)], "Deployment shop/app",
        "lifecycle.preStop", [("Deployment/app", f"{APP} lifecycle", GONE), ("Deployment/app", "spec replicas", 1)],
    ),
    Case(
        "no-prestop", "proxied", [("Deployment/stickyproxy", f"{PROXY} lifecycle", GONE)], "Deployment shop/stickyproxy",
        "lifecycle.preStop",
        [("Deployment/stickyproxy", f"{PROXY} lifecycle", GONE),
         ("ConfigMap/stickyproxy", "data STICKYPROXY_SHUTDOWN_DELAY", "5s")],
        name="a proxy that leaves at once",
    ),
    Case(
        "recreate", "proxied", [("Deployment/app", "spec strategy", {"type": "Recreate"})], "Deployment shop/app",
        "strategy.type",
        [("Deployment/app", "spec strategy", {"type": "Recreate"}), ("Deployment/app", "spec replicas", 1)],
    ),
    Case(
        "max-unavailable", "proxied", [("Deployment/app", "spec strategy rollingUpdate maxUnavailable", "34%")],
        "Deployment shop/app", "maxUnavailable",
        [("Deployment/app", "spec strategy rollingUpdate maxUnavailable", "33%")],
    ),
    # What takes pods away.
    Case(
        "hpa-kills-pages", "proxied", [("X/x", "", HPA)], "HorizontalPodAutoscaler shop/app", "scaleDown",
        [("X/x", "", HPA), ("HorizontalPodAutoscaler/app", "spec behavior", {"scaleDown": {"selectPolicy": "Disabled"}})],
    ),
    Case(
        "hpa-kills-pages", "proxied",
        [("X/x", "", HPA), ("HorizontalPodAutoscaler/app", "spec behavior", {"scaleDown": FAST})],
        "HorizontalPodAutoscaler shop/app", "scaleDown",
        [("X/x", "", HPA), ("HorizontalPodAutoscaler/app", "spec behavior", {"scaleDown": SLOW})],
        name="half of the pods a minute",
    ),
    Case(
        "hpa-kills-pages", "proxied", [("X/x", "", HPA)], "HorizontalPodAutoscaler shop/app", "scaleDown",
        [("X/x", "", HPA), ("Deployment/app", f"{POD} terminationGracePeriodSeconds", 90),
         ("Deployment/app", f"{APP} lifecycle preStop", {"httpGet": {"port": 9090, "path": "/drain?backend=x&wait=60s"}})],
        name="an autoscaler of pods that drain",
    ),
    Case(
        "no-pdb", "proxied", [("PodDisruptionBudget/app", "", GONE)], "Deployment shop/app", "spec.replicas",
        [("PodDisruptionBudget/app", "", GONE), ("Deployment/app", "spec replicas", 1)],
    ),
    Case(
        "pdb-blocks", "proxied", [("PodDisruptionBudget/app", "spec", {"minAvailable": 3, "selector": BY_APP})],
        "PodDisruptionBudget shop/app", "minAvailable",
        [("PodDisruptionBudget/app", "spec", {"minAvailable": 2, "selector": BY_APP})],
    ),
    Case(
        "pdb-blocks", "proxied", [("PodDisruptionBudget/app", "spec", {"minAvailable": "100%", "selector": BY_APP})],
        "PodDisruptionBudget shop/app", "minAvailable",
        [("PodDisruptionBudget/app", "spec", {"minAvailable": 3, "selector": {}})], name="a budget for all pods",
    ),
    Case(
        "pdb-blocks", "proxied", [("PodDisruptionBudget/app", "spec maxUnavailable", 0)], "PodDisruptionBudget shop/app",
        "maxUnavailable", [("PodDisruptionBudget/app", "spec maxUnavailable", "1%")], name="a budget of none",
    ),
    # What replicas share.
    Case(
        "storage-secret", "proxied", [("Deployment/app", f"{ENV} STORAGE_SECRET", GONE)], "Deployment shop/app", "env",
        [("Deployment/app", f"{ENV} STORAGE_SECRET", GONE),
         ("Deployment/app", f"{POD} volumes", [{"name": "s", "secret": {"secretName": "app"}}])],
    ),
    Case(
        "storage-secret", "proxied", [("Deployment/app", f"{ENV} STORAGE_SECRET", GONE)], "Deployment shop/app", "env",
        [("Deployment/app", f"{ENV} STORAGE_SECRET", GONE),
         ("Deployment/app", NOTE, {"stickyproxy/doctor-ignore": "no-redis, storage-secret"})],
        name="silenced by an annotation",
    ),
    Case(
        "storage-secret-in-plain", "proxied",
        [("Deployment/app", f"{ENV} STORAGE_SECRET", {"name": "STORAGE_SECRET", "value": "hunter22"})],
        "Deployment shop/app", "STORAGE_SECRET",
        [("Deployment/app", f"{ENV} +", {"name": "STORAGE_SECRET_FILE", "value": "/run/secret"})],
    ),
    Case(
        "no-redis", "proxied", [("Deployment/app", f"{ENV} NICEGUI_REDIS_URL", GONE)], "Deployment shop/app", "env",
        [("Deployment/app", f"{ENV} NICEGUI_REDIS_URL", GONE),
         ("Deployment/app", f"{APP} envFrom", [{"secretRef": {"name": "app"}}])],
    ),
    # The proxy's own.
    Case(
        "proxy-role", "proxied", [("Role/stickyproxy", "rules 0 verbs", ["get", "list"])], "Deployment shop/stickyproxy",
        "serviceAccountName", [("Role/stickyproxy", "rules 0", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})],
    ),
    Case(
        "proxy-role", "proxied", [("RoleBinding/stickyproxy", "subjects 0 namespace", "other")],
        "Deployment shop/stickyproxy", "serviceAccountName",
        [("RoleBinding/stickyproxy", "subjects",
          [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts:shop"}])],
        name="a binding for another namespace's account",
    ),
    Case(
        "proxy-no-token", "proxied", [("Deployment/stickyproxy", f"{POD} automountServiceAccountToken", GONE)],
        "Deployment shop/stickyproxy", "automountServiceAccountToken",
        [("Deployment/stickyproxy", f"{POD} automountServiceAccountToken", GONE),
         ("Deployment/stickyproxy", f"{PROXY} volumeMounts",
          [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])],
    ),
    Case(
        "proxy-service-missing", "proxied",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "my-app")], "Deployment shop/stickyproxy", "env",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "shop/app:http")],
        also=frozenset({"affinity-unproven"}),
    ),
    Case(
        "service-selects-nothing", "proxied", [("Service/app", "spec selector", {"app": "ap"})], "Service shop/app",
        "selector", [], also=frozenset({"affinity-unproven"}),
    ),
    Case(
        "proxy-port", "proxied",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "app:web")], "Deployment shop/stickyproxy", "env",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "app:8080")],
    ),
    Case(
        "proxy-port", "proxied",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "app:80")], "Deployment shop/stickyproxy", "env",
        [("Service/app", "spec ports +", {"name": "metrics", "port": 9000})], name="the Service's own port",
    ),
    Case(
        "target-port", "proxied", [("Service/app", "spec ports http targetPort", "web")], "Service shop/app", "targetPort",
        [("Service/app", "spec ports http targetPort", 8080)],
    ),
    Case(
        "not-headless", "proxied", DNS, "Deployment shop/stickyproxy", "env", [*DNS, HEADLESS],
    ),
    Case(
        "not-headless", "proxied", [*DNS, HEADLESS, ("ConfigMap/stickyproxy", "data STICKYPROXY_DNS", "app.shop.svc:80")],
        "Deployment shop/stickyproxy", "env",
        [*DNS, HEADLESS, ("ConfigMap/stickyproxy", "data STICKYPROXY_DNS", "app.shop.svc:8080")],
        name="the Service's port by DNS",
    ),
    Case(
        "not-headless", "proxied",
        [("ConfigMap/stickyproxy", "data", {"STICKYPROXY_BACKEND": "app:80", "STICKYPROXY_DRAIN_TIMEOUT": "20s"})],
        "Deployment shop/stickyproxy", "env",
        [("ConfigMap/stickyproxy", "data", {"STICKYPROXY_BACKEND": "app:80", "STICKYPROXY_DRAIN_TIMEOUT": "20s"}),
         ("Deployment/app", "spec replicas", 1)],
        name="a Service as one backend",
    ),
    Case(
        "publish-not-ready", "proxied", [("Service/app", "spec publishNotReadyAddresses", True)], "Service shop/app",
        "publishNotReadyAddresses", [("Service/stickyproxy", "spec publishNotReadyAddresses", True)],
    ),
    Case(
        "proxy-secret-in-plain", "proxied",
        [("Deployment/stickyproxy", f"{PROXY} env 0", {"name": "STICKYPROXY_SECRET", "value": "hunter2hunter2"})],
        "Deployment shop/stickyproxy", "env",
        [("Deployment/stickyproxy", f"{PROXY} env 0", {"name": "STICKYPROXY_SECRET_FILE", "value": "/run/secret"})],
    ),
    Case(
        "proxy-no-key", "proxied", [*DNS, HEADLESS, ("Deployment/stickyproxy", f"{PROXY} env", [])],
        "Deployment shop/stickyproxy", "env", [("Deployment/stickyproxy", f"{PROXY} env", [])],
    ),
    Case(
        "proxy-keys-differ", "proxied", [("X/x", "", SECOND_PROXY.replace("SECRET, key", "other, key"))],
        "Deployment shop/second", "env", [("X/x", "", SECOND_PROXY.replace("SECRET, key", "stickyproxy, key"))],
    ),
    # Who may talk to whom.
    Case(
        "policy-blocks-app", "proxied",
        [("NetworkPolicy/app", "spec ingress 0 from 0 podSelector", {"matchLabels": {"app": "ingress"}})],
        "NetworkPolicy shop/app", "spec.ingress",
        [("NetworkPolicy/app", "spec ingress 0 from 0 podSelector",
          {"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "stickyproxy"]}]})],
    ),
    Case(
        "policy-blocks-app", "proxied",
        [("NetworkPolicy/stickyproxy", "spec egress", [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 443}]}])],
        "NetworkPolicy shop/stickyproxy", "spec.egress",
        [("NetworkPolicy/stickyproxy", "spec egress", [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])],
        name="a policy on the proxy's way out",
    ),
    Case(
        "policy-blocks-proxy", "proxied", [("NetworkPolicy/stickyproxy", "spec ingress", [{"ports": [{"port": 9090}]}])],
        "NetworkPolicy shop/stickyproxy", "spec.ingress",
        [("NetworkPolicy/stickyproxy", "spec ingress", [{"ports": [{"port": 8000, "endPort": 8100}]}])],
    ),
    Case(
        "admin-exposed", "proxied",
        [("Service/stickyproxy", "spec type", "LoadBalancer"),
         ("Service/stickyproxy", "spec ports +", {"name": "admin", "port": 9090, "targetPort": "admin"})],
        "Service shop/stickyproxy", "spec",
        [("Service/stickyproxy", "spec ports +", {"name": "admin", "port": 9090, "targetPort": "admin"})],
    ),
    Case(
        "trusted-proxy", "proxied", [("ConfigMap/stickyproxy", "data STICKYPROXY_TRUSTED_PROXY", "none")],
        "Deployment shop/stickyproxy", "env", [("ConfigMap/stickyproxy", "data STICKYPROXY_TRUSTED_PROXY", "10.0.0.0/8")],
    ),
    Case(
        "trusted-proxy", "proxied",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_TRUSTED_PROXY", "private,0.0.0.0/0"),
         ("Service/stickyproxy", "spec type", "LoadBalancer")],
        "Deployment shop/stickyproxy", "env",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_TRUSTED_PROXY", "private"),
         ("Service/stickyproxy", "spec type", "LoadBalancer")],
        name="everybody is believed",
    ),
    Case(
        "forwarded-unbelieved", "proxied", [("Deployment/app", f"{ENV} FORWARDED_ALLOW_IPS", GONE)], "Deployment shop/app",
        "env",
        [("Deployment/app", f"{ENV} FORWARDED_ALLOW_IPS", GONE),
         ("Deployment/app", f"{APP} command", ["uvicorn", "main:app", "--forwarded-allow-ips=*"])],
    ),
    Case(
        "forwarded-from-anyone", "proxied", [("NetworkPolicy/app", "", GONE)], "Deployment shop/app", "env",
        [("NetworkPolicy/app", "", GONE),
         ("Deployment/app", f"{ENV} FORWARDED_ALLOW_IPS", {"name": "FORWARDED_ALLOW_IPS", "value": "10.0.0.0/8"})],
    ),
    # Replicas that should be the same.
    Case("version-skew", "proxied", pods("sha256:1", "sha256:2"), "Deployment shop/app", "image",
         pods("sha256:1", "sha256:1")),
    Case(
        "version-skew", "proxied",
        [*pods("sha256:1"), ("Y/y", "", pods("", "sha256:2", image="example.com/nicegui-app:2")[1][2]),
         ("Deployment/app", "spec paused", True)],
        "Deployment shop/app", "image",
        [*pods("sha256:1"), ("Y/y", "", pods("", "sha256:2", image="example.com/nicegui-app:2")[1][2])],
        name="a rollout that is paused",
    ),
]  # fmt: skip
