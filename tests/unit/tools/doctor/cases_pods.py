"""Cases about pods and the proxy: probes, ends, scaling, storage, rights and networks."""

from .case import APP, BACKEND_CONFIG, ENV, GOOGLE, HPA, NGINX, NOTE, POD, PROXY, SLOW, Case, notes
from .setups import GONE, Edit

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
FAST = {"stabilizationWindowSeconds": 600, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}
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
                {"target-type": "ip", "target-group-attributes": "stickiness.enabled=true",
                 "healthcheck-path": "/healthz"}),
        field="healthcheck-path",
    ),
    Case(
        "check-builds-pages", "direct", [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "GENERATED_COOKIE", "/"))],
        "BackendConfig shop/app", "requestPath",
        [*GOOGLE, ("X/x", "", BACKEND_CONFIG % ("86400", "GENERATED_COOKIE", "/healthz"))],
         name="Google's health check",
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
        "no-prestop", "proxied", [("Deployment/stickyproxy", f"{PROXY} lifecycle", GONE)],
         "Deployment shop/stickyproxy",
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
        [("X/x", "", HPA), ("HorizontalPodAutoscaler/app", "spec behavior",
         {"scaleDown": {"selectPolicy": "Disabled"}})],
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
         ("Deployment/app", f"{APP} lifecycle preStop", {"httpGet": {"port": 9090,
          "path": "/drain?backend=x&wait=60s"}})],
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
        "pdb-blocks", "proxied", [("PodDisruptionBudget/app", "spec maxUnavailable", 0)],
         "PodDisruptionBudget shop/app",
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
        "proxy-role", "proxied", [("Role/stickyproxy", "rules 0 verbs", ["get", "list"])],
         "Deployment shop/stickyproxy",
        "serviceAccountName", [("Role/stickyproxy", "rules 0", {"apiGroups": ["*"], "resources": ["*"],
         "verbs": ["*"]})],
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
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "my-app")], "Deployment shop/stickyproxy",
         "env",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "shop/app:http")],
        also=frozenset({"affinity-unproven"}),
    ),
    Case(
        "service-selects-nothing", "proxied", [("Service/app", "spec selector", {"app": "ap"})], "Service shop/app",
        "selector", [], also=frozenset({"affinity-unproven"}),
    ),
    Case(
        "proxy-port", "proxied",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "app:web")], "Deployment shop/stickyproxy",
         "env",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "app:8080")],
    ),
    Case(
        "proxy-port", "proxied",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_KUBERNETES_SERVICE", "app:80")], "Deployment shop/stickyproxy",
         "env",
        [("Service/app", "spec ports +", {"name": "metrics", "port": 9000})], name="the Service's own port",
    ),
    Case(
        "target-port", "proxied", [("Service/app", "spec ports http targetPort", "web")], "Service shop/app",
         "targetPort",
        [("Service/app", "spec ports http targetPort", 8080)],
    ),
    Case(
        "not-headless", "proxied", DNS, "Deployment shop/stickyproxy", "env", [*DNS, HEADLESS],
    ),
    Case(
        "not-headless", "proxied", [*DNS, HEADLESS, ("ConfigMap/stickyproxy", "data STICKYPROXY_DNS",
         "app.shop.svc:80")],
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
    Case(
        "parking-not-sticky", "proxied", [("ConfigMap/stickyproxy", "data STICKYPROXY_PARK", "300")],
        "Ingress shop/web", "affinity",
        [("ConfigMap/stickyproxy", "data STICKYPROXY_PARK", "300"),
         ("Ingress/web", NOTE, {f"{NGINX}affinity": "cookie", f"{NGINX}proxy-read-timeout": "3600"})],
    ),
    Case(
        "parking-not-sticky", "proxied",
        [("Deployment/stickyproxy", f"{PROXY} args", ["run", "--park", "5m"]),
         ("Ingress/web", NOTE,
          {f"{NGINX}upstream-hash-by": "$remote_addr", f"{NGINX}proxy-read-timeout": "3600"})],
        "Ingress shop/web", "upstream-hash-by",
        [("Deployment/stickyproxy", f"{PROXY} args", ["run", "--park", "0"])],
        name="parking behind a way in by address",
    ),
    Case(
        "parking-not-sticky", "proxied",
        [("Deployment/stickyproxy", f"{PROXY} args", ["run", "--park=5m"]),
         ("Deployment/stickyproxy", "spec replicas", 1), ("X/x", "", HPA.replace("name: app}", "name: stickyproxy}"))],
        "Ingress shop/web", "affinity",
        [("Deployment/stickyproxy", f"{PROXY} args", ["run", "--park=5m"]),
         ("Deployment/stickyproxy", "spec replicas", 1)],
        name="parking with one replica that an autoscaler multiplies",
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
        "policy-blocks-proxy", "proxied", [("NetworkPolicy/stickyproxy", "spec ingress",
         [{"ports": [{"port": 9090}]}])],
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
        "Deployment shop/stickyproxy", "env", [("ConfigMap/stickyproxy", "data STICKYPROXY_TRUSTED_PROXY",
         "10.0.0.0/8")],
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
        "forwarded-unbelieved", "proxied", [("Deployment/app", f"{ENV} FORWARDED_ALLOW_IPS", GONE)],
         "Deployment shop/app",
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
    Case("version-skew", "proxied", pods("r/app@sha256:1", "r/app@sha256:2"), "Deployment shop/app", "image",
         pods("r/app@sha256:1", "mirror/app@sha256:1", "sha256:3")),
    Case(
        "version-skew", "proxied",
        [*pods("r/app@sha256:1"), ("Y/y", "", pods("", "r/app@sha256:2", image="example.com/nicegui-app:2")[1][2]),
         ("Deployment/app", "spec paused", True)],
        "Deployment shop/app", "image",
        [*pods("r/app@sha256:1"), ("Y/y", "", pods("", "r/app@sha256:2", image="example.com/nicegui-app:2")[1][2])],
        name="a rollout that is paused",
    ),
]  # fmt: skip
