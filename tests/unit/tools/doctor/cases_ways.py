"""Cases about the ways in: who keeps a browser on its pod, and what cuts a socket."""

from .case import APP, BACKEND_CONFIG, ENV, GOOGLE, HPA, NGINX, NOTE, SLOW, Case, notes
from .setups import GONE, Edit

LOADBALANCER: list[Edit] = [("Ingress/web", "", GONE), ("Service/app", "spec type", "LoadBalancer")]
MIDDLEWARE = """
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: slow}
spec: {%s: {}}
"""
CTP = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: main}
spec: {targetRef: {kind: Gateway, name: main}, timeout: {http: {idleTimeout: %s}}}
"""
GCP_POLICY = """
apiVersion: networking.gke.io/v1
kind: GCPBackendPolicy
metadata: {name: app}
spec: {targetRef: {group: "", kind: Service, name: app}, default: {%s}}
"""
BTP = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: app}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}], %s}
"""


CASES = [
    # Who keeps a browser on its pod.
    Case(
        "no-affinity", **notes(NGINX, "nginx", {"proxy-read-timeout": "3600"}, {"affinity": "cookie"}),
         field="affinity",
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
        **notes("haproxy-ingress.github.io/", "haproxy-ingress", {"balance-algorithm": "leastconn"},
         {"affinity": "cookie"}),
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
        "no-affinity", "openshift", [("Route/web", NOTE, {"haproxy.router.openshift.io/disable_cookies": "true"})],
        "Route shop/web", "disable_cookies", [], name="OpenShift without its cookie",
    ),
    Case(
        "client-ip-affinity", "openshift", [("Route/web", "spec tls termination", "passthrough")], "Route shop/web",
        "termination", [("Route/web", "spec tls termination", "reencrypt")], name="OpenShift's passthrough",
    ),
    Case(
        "idle-timeout", "openshift", [("Route/web", NOTE, {"haproxy.router.openshift.io/timeout-tunnel": "5s"})],
        "Route shop/web", "timeout-tunnel", [("Route/web", NOTE, {"haproxy.router.openshift.io/timeout": "5s"})],
        name="OpenShift's tunnels",
    ),
    Case(
        "no-affinity", "istio",
        [("DestinationRule/app", "spec trafficPolicy loadBalancer", {"simple": "LEAST_REQUEST"})],
        "DestinationRule shop/app", "consistentHash", [], name="Istio without a hash",
    ),
    Case(
        "affinity-unproven", "istio", [("DestinationRule/app", "", GONE)], "VirtualService shop/web", "spec.http",
        [("DestinationRule/app", "spec host", "app.shop")], name="Istio without a rule",
    ),
    Case(
        "no-affinity", "direct", [("Ingress/web", "spec ingressClassName", "gce"), ("Ingress/web", NOTE, {})],
        "Service shop/app", "backend-config", [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "GENERATED_COOKIE",
         "/x"))],
        also=frozenset({"socket-lifetime"}), name="GKE without a BackendConfig",
    ),
    Case(
        "no-affinity", "route",
        [("HTTPRoute/web", "spec rules 0 sessionPersistence", GONE), ("Gateway/main", "spec gatewayClassName",
         "gke-l7-gxlb"),
         ("X/x", "", GCP_POLICY % "timeoutSec: 86400")],
        "HTTPRoute shop/web", "sessionPersistence",
        [("HTTPRoute/web", "spec rules 0 sessionPersistence", GONE), ("Gateway/main", "spec gatewayClassName",
         "gke-l7-gxlb"),
         ("X/x", "", GCP_POLICY % "timeoutSec: 86400, sessionAffinity: {type: GENERATED_COOKIE}")],
        name="GKE's Gateway without affinity",
    ),
    Case(
        "client-ip-affinity", "route",
        [("HTTPRoute/web", "spec rules 0 sessionPersistence", GONE),
         ("X/x", "", BTP % "loadBalancer: {type: ConsistentHash, consistentHash: {type: SourceIP}}")],
        "BackendTrafficPolicy shop/app", "consistentHash", [], name="Envoy Gateway by address",
    ),
    Case(
        "client-ip-affinity", **notes("haproxy.org/", "haproxy", {"load-balance": "source"},
         {"cookie-persistence": "x"}),
        field="load-balance", name="HAProxy by address",
    ),
    Case(
        "client-ip-affinity",
        **notes("haproxy-ingress.github.io/", "haproxy-ingress", {"balance-algorithm": "source"},
         {"affinity": "cookie"}),
        field="balance-algorithm", name="HAProxy Ingress by address",
    ),
    Case(
        "no-affinity",
        **notes("haproxy-ingress.github.io/", "haproxy-ingress", {"affinity": "cookie", "service-upstream": "true"},
                {"affinity": "cookie"}),
        field="service-upstream", name="HAProxy Ingress with service-upstream",
    ),
    Case(
        "no-affinity", "traefik", [("IngressRoute/web", "spec routes 0 services app nativeLB", True)],
        "IngressRoute shop/web", "nativeLB", [("IngressRoute/web", "spec routes 0 services app nativeLB", False)],
        name="IngressRoute with nativeLB",
    ),
    Case(
        "no-affinity", **notes("nginx.org/", "nginx", {"websocket-services": "app"},
                               {"websocket-services": "app",
                                "sticky-cookie-services": "serviceName=app srv_id expires=1h path=/"}),
        field="lb-method", name="F5 without a sticky cookie",
    ),
    Case(
        "client-ip-affinity", **notes("nginx.org/", "nginx", {"websocket-services": "app", "lb-method": "ip_hash"},
                                      {"websocket-services": "app",
                                       "sticky-cookie-services": "serviceName=app srv_id"}),
        field="lb-method", name="F5 by address",
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
    Case("affinity-unproven", "bare", [], "Deployment shop/app", "spec.replicas", [("Deployment/app", "spec replicas",
     1)]),
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
        "idle-timeout", **notes("nginx.org/", "nginx",
                                {"websocket-services": "app", "proxy-read-timeout": "10s",
                                 "sticky-cookie-services": "serviceName=app srv_id"},
                                {"websocket-services": "app", "proxy-read-timeout": "1m",
                                 "sticky-cookie-services": "serviceName=app srv_id"}),
        field="proxy-read-timeout", name="F5's read time-out",
    ),
    Case(
        "idle-timeout",
        **notes("haproxy-ingress.github.io/", "haproxy-ingress", {"affinity": "cookie", "timeout-tunnel": "10s"},
                {"affinity": "cookie", "timeout-tunnel": "1h", "timeout-server": "10s"}),
        field="timeout-tunnel", name="HAProxy Ingress's tunnels",
    ),
    Case(
        "idle-timeout", "route", [("X/x", "", CTP % "5s")], "ClientTrafficPolicy shop/main", "idleTimeout",
        [("X/x", "", CTP % "0s")], name="Envoy's client idle time-out",
    ),
    Case(
        "socket-lifetime", "route", [("HTTPRoute/web", "spec rules 0 timeouts", {"backendRequest": "1m30s"})],
        "HTTPRoute shop/web", "timeouts.backendRequest", [("HTTPRoute/web", "spec rules 0 timeouts", {})],
        name="a route's backendRequest",
    ),
    Case(
        "socket-lifetime", "route", [("X/x", "", GCP_POLICY % "timeoutSec: 30")], "GCPBackendPolicy shop/app",
         "timeoutSec",
        [("X/x", "", GCP_POLICY % "timeoutSec: 3600")], name="GKE's Gateway policy",
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
]  # fmt: skip
