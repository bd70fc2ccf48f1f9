"""Rules about what replicas of an app must share."""

import re
from collections.abc import Iterator
from dataclasses import replace

from stickyproxy.tools.doctor.findings import IGNORE, Fault, Patch, Rule, Severity, secret_first
from stickyproxy.tools.doctor.scene import App, Scene

SECRET_NAME = re.compile(r"((STORAGE|SESSION|COOKIE)_?(SECRET|KEY)|^SECRET(_KEY)?)\Z")
INJECTORS = ("vault.hashicorp.com/", "secrets.infisical.com/", "conjur.org/", "vault.security.banzaicloud.io/")
"""Beginnings of annotations by which others put secrets into a pod."""


def _may_have_secret(app: App) -> bool:
    """Say whether anything shows where the app could get a secret from."""
    environment = app.container.environment
    if environment.secret or not environment.complete:
        return True
    if any("SECRET" in name or "PASSWORD" in name for name in environment.values):
        return True
    volumes = list(app.workload.pod["volumes"].items())
    if any(volume["secret"] or volume["csi"] for volume in volumes):
        return True
    if any(source["secret"] for volume in volumes for source in volume.at("projected.sources").items()):
        return True
    template = app.obj.spec.at("template.metadata.annotations").texts()
    return any(key.startswith(INJECTORS) for key in template)


def no_storage_secret(scene: Scene) -> Iterator[Fault]:
    """Find apps with several replicas and nothing that could be a shared secret."""
    for app in scene.apps:
        if scene.replicas(app.workload) > 1 and not _may_have_secret(app):
            yield Fault(
                app.obj,
                app.container.node["env"].path,
                "it gets no Secret: several replicas need the same storage_secret, or the session cookie of one is "
                "refused by the next, and app.storage.user and app.storage.browser are lost when a browser changes "
                "its pod",
                "ui.run(storage_secret=os.environ['STORAGE_SECRET']) from a Secret; where the app uses no such "
                f"storage, or gets the secret otherwise, say so with the annotation {IGNORE}: storage-secret",
                _from_secret(app, "STORAGE_SECRET"),
            )


def _from_secret(app: App, name: str, **more: None) -> Patch:
    """Patch a variable that comes from a Secret of its own, which is made first."""
    secret, key = f"{app.obj.name}-storage-secret", "secret"
    variable = {"name": name, **more, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
    patch = app.workload.patch_container(app.container, {"env": [variable]})
    return replace(patch, first=secret_first(app.obj.namespace, secret, key))


def secret_in_plain(scene: Scene) -> Iterator[Fault]:
    """Find secrets that stand in a manifest."""
    for app in scene.apps:
        for variable in app.container.node["env"].items():
            name = variable["name"].text
            if SECRET_NAME.search(name) and variable["value"].text and not variable["valueFrom"]:
                yield Fault(
                    app.obj,
                    variable["value"].path,
                    f"{name} stands in the manifest: who may read the Deployment can make session cookies of any user",
                    "a Secret, and valueFrom.secretKeyRef (the patch makes a new secret: everybody's session begins "
                    "anew)",
                    _from_secret(app, name, value=None),
                )


def no_redis(scene: Scene) -> Iterator[Fault]:
    """Find apps with several replicas that keep storage in files of their own."""
    for app in scene.apps:
        if scene.replicas(app.workload) > 1 and not app.container.environment.may_have("NICEGUI_REDIS_URL"):
            yield Fault(
                app.obj,
                app.container.node["env"].path,
                "without NICEGUI_REDIS_URL each pod keeps app.storage.user, .tab and .general in files of its own: "
                "what a user has there is gone when the browser's pod is",
                "a Redis (deploy/kubernetes/components/redis), if the app uses these",
            )


RULES = (
    Rule("storage-secret", Severity.WARNING, "several replicas without a shared storage_secret", no_storage_secret),
    Rule("storage-secret-in-plain", Severity.WARNING, "the storage_secret stands in the manifest", secret_in_plain),
    Rule("no-redis", Severity.INFO, "several replicas without a shared storage", no_redis),
)
