"""`stickyproxy doctor` against a real API server: twenty set-ups with faults, five without; what it may and does do.

The set-ups are kustomizations in `doctor/`, most of them the repository's own manifests with one thing changed. Each
says in its second line which rules shall speak; any other that speaks is a false alarm.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.tools import KUBERNETES, Manifest, NotThereError, kubectl, kustomizations, kustomize
from needs import missing

from .api import MERGE, ApiError, Namespace
from .kinds import loose_kind, path_of, teach

FOLDER = Path(__file__).parent / "doctor"
FAULTY = sorted((FOLDER / "faulty").iterdir())
SOUND = sorted((FOLDER / "sound").iterdir())
OWN = [f for f in kustomizations() if f.name != "example-app" or f.parent.name == "overlays"]
"""The repository's own ways to deploy; `example-app` alone is no way, since nothing stands before it."""

RUN_LIMIT_S = 60.0

KINDS = (
    ("BackendTrafficPolicy", "gateway.envoyproxy.io", "v1alpha1"),
    ("IngressRoute", "traefik.io", "v1alpha1"),
    ("Middleware", "traefik.io", "v1alpha1"),
    ("BackendConfig", "cloud.google.com", "v1"),
)


@pytest.fixture(scope="session", autouse=True)
def kubectl_path() -> Path:
    """Return the path of kubectl."""
    try:
        return kubectl()
    except NotThereError as error:
        missing(str(error))


@pytest.fixture(autouse=True)
async def kinds(namespace: Namespace, gateway_api: None) -> None:
    """Teach the API server the kinds of Envoy Gateway, Traefik and GKE."""
    for kind in KINDS:
        await teach(namespace.api, loose_kind(*kind))


def expected(folder: Path) -> set[str]:
    """Read which rules shall speak."""
    line = re.search(r"^# expect: (.*)$", (folder / "kustomization.yaml").read_text(), re.MULTILINE)
    return set(line[1].split(", ")) if line else set()


async def apply(namespace: Namespace, manifests: Sequence[Manifest]) -> None:
    """Make objects in the test's namespace, with their status."""
    for manifest in manifests:
        manifest["metadata"].pop("namespace", None)
        for subject in manifest.get("subjects", ()):
            subject["namespace"] = namespace.name
        path = await path_of(namespace.api, manifest, namespace.name)
        try:
            await namespace.api.call("POST", path, manifest)
        except ApiError as error:
            # The controller that makes it in a cluster does not run here; pods are not let in without.
            if "serviceaccount" not in str(error) or manifest["kind"] != "Pod":
                raise
            await namespace.api.call("POST", f"{namespace.core}/serviceaccounts", {"metadata": {"name": "default"}})
            await namespace.api.call("POST", path, manifest)
        if "status" in manifest:
            name = manifest["metadata"]["name"]
            await namespace.api.call("PATCH", f"{path}/{name}/status", {"status": manifest["status"]}, content=MERGE)


@dataclass(frozen=True)
class Said:
    """What the command said."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Read it as JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def rules(self) -> set[str]:
        """Give the rules that spoke."""
        return {finding["rule"] for finding in self.report["findings"]}


async def doctor(namespace: Namespace, *arguments: str, kubeconfig: Path | None = None) -> Said:
    """Look at the test's namespace, as the administrator or with another kubeconfig."""
    config = kubeconfig or namespace.plane.write_admin_kubeconfig(namespace.folder / "admin.kubeconfig")
    return await run(namespace, config, "-n", namespace.name, *arguments)


async def run(namespace: Namespace, config: Path, *arguments: str) -> Said:
    """Run the real command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stickyproxy", "doctor", *arguments,
        env={**os.environ, "KUBECONFIG": str(config), "HOME": str(namespace.folder)}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(RUN_LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


@pytest.mark.parametrize("folder", FAULTY, ids=lambda folder: folder.name)
async def test_every_fault_is_named_and_no_other_and_its_patch_mends_it(
    namespace: Namespace, folder: Path, kubectl_path: Path
) -> None:
    """The patches are typed into a shell as they are printed; the API server takes them."""
    await apply(namespace, kustomize(folder))
    before = await doctor(namespace, "--json", "--fail-on", "info")
    assert before.code == 1, before.err
    assert before.rules == expected(folder), before.out
    assert not before.report["unread"]

    script = (await doctor(namespace, "--patch")).out
    for finding in before.report["findings"]:
        assert f"# {finding['rule']}: {finding['kind']} {namespace.name}/{finding['name']}, " in script
    await type_in(namespace, script, kubectl_path)
    after = await doctor(namespace, "--json")
    left = {place(finding) for finding in after.report["findings"]}
    mended = {place(finding) for finding in before.report["findings"] if finding["patch"] is not None}
    assert not left & mended, script


def place(finding: dict[str, Any]) -> tuple[str, ...]:
    """Give what makes a finding the same one."""
    return finding["rule"], finding["kind"], finding["name"], finding["field"]


@pytest.mark.parametrize("folder", SOUND, ids=lambda folder: folder.name)
async def test_a_sound_setup_comes_out_clean(namespace: Namespace, folder: Path) -> None:
    await apply(namespace, kustomize(folder))
    said = await doctor(namespace, "--json")
    assert (said.code, said.rules) == (0, expected(folder)), said.out + said.err


@pytest.mark.parametrize("folder", OWN, ids=lambda folder: str(folder.relative_to(KUBERNETES)))
async def test_the_repositorys_own_manifests_come_out_clean(namespace: Namespace, folder: Path) -> None:
    """Those that bring only the proxy stand before the example app here, whose Service they name."""
    manifests = kustomize(folder)
    if not any(m["metadata"]["name"] == "nicegui-app" for m in manifests):
        manifests += kustomize(KUBERNETES / "example-app")
    await apply(namespace, manifests)
    said = await doctor(namespace, "--json")
    assert said.code == 0, said.out + said.err
    assert said.rules <= {"no-redis", "forwarded-from-anyone"}, said.out  # what its comments leave to the reader


async def test_the_example_app_alone_is_told_what_it_lacks(namespace: Namespace) -> None:
    await apply(namespace, kustomize(KUBERNETES / "example-app"))
    said = await doctor(namespace, "--json")
    assert (said.code, said.rules) == (1, {"affinity-unproven", "no-redis"}), said.out


async def type_in(namespace: Namespace, script: str, kubectl: Path) -> None:
    """Run a script of the shell as the administrator, with kubectl."""
    programs = namespace.folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "kubectl").symlink_to(kubectl)
    admin = namespace.plane.write_admin_kubeconfig(namespace.folder / "admin.kubeconfig")
    process = await asyncio.create_subprocess_exec(
        "sh", "-e",
        env={"PATH": f"{programs}:/usr/bin:/bin", "KUBECONFIG": str(admin), "HOME": str(namespace.folder)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(RUN_LIMIT_S):
        said, _ = await process.communicate(script.encode())
    assert process.returncode == 0, f"{said.decode()}\n{script}"


async def with_role(namespace: Namespace, keep: Sequence[str] = ()) -> Path:
    """Give an account the repository's Role (or only these resources of it); return its kubeconfig."""
    manifests = list(yaml.safe_load_all((KUBERNETES / "doctor" / "rbac.yaml").read_text()))
    role = next(m for m in manifests if m["kind"] == "Role")
    if keep:
        for rule in role["rules"]:
            rule["resources"] = [name for name in rule["resources"] if name in keep]
        role["rules"] = [rule for rule in role["rules"] if rule["resources"]]
    await apply(namespace, manifests)
    return await namespace.write_kubeconfig("stickyproxy-doctor")


@pytest.mark.parametrize("name", ["faulty/naive", "faulty/envoy", "faulty/no-rights", "sound/complete"])
async def test_the_role_of_the_repository_is_enough(namespace: Namespace, name: str) -> None:
    """It lists and gets, in one namespace; what it lacks in the whole cluster is said, and changes no finding."""
    folder = FOLDER / name
    await apply(namespace, kustomize(folder))
    said = await doctor(namespace, "--json", kubeconfig=await with_role(namespace))
    assert said.rules == expected(folder), said.out
    assert said.code == int(bool(expected(folder)))
    assert {lost["kind"] for lost in said.report["unread"]} == {"IngressClass", "ClusterRoleBinding"}


async def test_the_role_of_the_repository_reads_and_sees_no_secret() -> None:
    role = next(m for m in yaml.safe_load_all((KUBERNETES / "doctor" / "rbac.yaml").read_text()) if m["kind"] == "Role")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list"}
    assert "secrets" not in {resource for rule in role["rules"] for resource in rule["resources"]}


async def test_a_right_that_is_missing_is_said_and_costs_only_what_needs_it(namespace: Namespace) -> None:
    await apply(namespace, kustomize(FOLDER / "faulty" / "naive"))
    config = await with_role(namespace, ["deployments", "statefulsets", "services", "pods"])
    said = await doctor(namespace, kubeconfig=config)
    needs = f"could not look at ingresses: needs list on ingresses.networking.k8s.io in namespace {namespace.name}\n"
    assert needs in said.out
    assert "probe-builds-pages" in said.out
    assert "no-affinity" not in said.out  # the Ingress was not seen,
    assert "affinity-unproven" not in said.out  # so nobody can say that there is none
    assert said.code == 1


async def test_where_the_ingresses_are_not_seen_nothing_found_is_no_all_clear(namespace: Namespace) -> None:
    await apply(namespace, kustomize(FOLDER / "sound" / "nginx-cookie"))
    said = await doctor(namespace, kubeconfig=await with_role(namespace, ["deployments", "statefulsets", "services"]))
    assert said.code == 2, said.out
    assert "could not look at ingresses" in said.out


async def test_without_any_right_it_says_what_it_needs(namespace: Namespace) -> None:
    await namespace.make_account("nobody", verbs=())
    said = await doctor(namespace, kubeconfig=await namespace.write_kubeconfig("nobody"))
    assert (said.code, said.out) == (2, "")
    assert "needs list on deployments.apps" in said.err


async def test_an_app_is_named_or_guessed_and_what_is_unclear_is_said(namespace: Namespace) -> None:
    await apply(namespace, kustomize(FOLDER / "sound" / "neighbours"))
    named = await doctor(namespace, "--json", "--deployment", "api")
    assert {"no-affinity", "recreate", "probe-builds-pages"} <= named.rules
    lost = await doctor(namespace, "--deployment", "ap")
    assert (lost.code, lost.out) == (2, "")
    assert "found none named 'ap', only: api, nicegui-app, nicegui-app-postgres" in lost.err


async def test_a_context_of_the_kubeconfig_says_where_to_look(namespace: Namespace) -> None:
    """Its user, its cluster and its namespace; without one, those of the current context."""
    await apply(namespace, kustomize(FOLDER / "faulty" / "naive"))
    admin = namespace.plane.write_admin_kubeconfig(namespace.folder / "admin.kubeconfig")
    config = json.loads(admin.read_text())
    here = {"cluster": "test", "user": "test", "namespace": namespace.name}
    config["contexts"].append({"name": "here", "context": here})
    admin.write_text(json.dumps(config))
    said = await run(namespace, admin, "--context", "here", "--json")
    assert f"namespace {namespace.name} at" in said.report["source"]
    assert said.rules == expected(FOLDER / "faulty" / "naive")
    elsewhere = await run(namespace, admin)
    assert (elsewhere.code, elsewhere.out) == (2, "")  # `default` has no app
    lost = await run(namespace, admin, "--context", "nowhere")
    assert lost.code == 2
    assert "nowhere" in lost.err
