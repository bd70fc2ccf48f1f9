"""The example app, run as its image runs it: on a read-only file system, with nothing but what its manifest gives."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import missing

from stickyproxy.tools.children import free_port, leashed

from .tools import KUBERNETES, kustomize

APP = Path(__file__).parents[2] / "deploy" / "example-app" / "main.py"
BOUND_S = 60.0

READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift || exit 99
[ -w / ] && exit 98
exec "$@"
"""


@contextmanager
def running(folder: Path, host: str) -> Iterator[str]:
    """Run the app until the block ends; yield its address when it answers."""
    unshare = shutil.which("unshare") or missing("unshare (apt-get install util-linux)")
    port = free_port("127.0.0.1")
    work = folder / "storage"
    work.mkdir()
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "STORAGE_SECRET": "not for production",
        "HOST": host, "PORT": str(port), "NICEGUI_STORAGE_PATH": str(work), "FORWARDED_ALLOW_IPS": "*",
        "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(work),
    }  # fmt: skip
    process = subprocess.Popen(
        leashed([unshare, "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh", str(work),
                 sys.executable, str(APP)]),
        env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    base = f"http://{'[::1]' if host == '::' else '127.0.0.1'}:{port}"
    try:
        end = time.monotonic() + BOUND_S
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end, "did not answer in time"
            try:
                with urllib.request.urlopen(f"{base}/healthz", timeout=1):
                    break
            except OSError:
                time.sleep(0.05)  # from outside there is no event to wait for
        yield base
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=BOUND_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_its_health_route_builds_no_page_and_its_page_is_served(host: str, tmp_path: Path) -> None:
    """`::` is what fly.io's private network needs."""
    with running(tmp_path, host) as base:
        with urllib.request.urlopen(f"{base}/healthz", timeout=BOUND_S) as answer:
            assert answer.status == 200
            assert answer.headers["X-NiceGUI-Content"] is None
        with urllib.request.urlopen(f"{base}/", timeout=BOUND_S) as answer:
            page = answer.read().decode()
            assert answer.headers["X-NiceGUI-Content"] == "page"
            assert "This page lives on" in page


@pytest.mark.usefixtures("programs")
def test_its_manifest_gives_what_it_asks_for() -> None:
    (deployment,) = [m for m in kustomize(KUBERNETES / "example-app") if m["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = {variable["name"] for variable in container["env"]}
    assert {"STORAGE_SECRET", "NICEGUI_STORAGE_PATH", "FORWARDED_ALLOW_IPS"} <= names
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    storage = next(variable["value"] for variable in container["env"] if variable["name"] == "NICEGUI_STORAGE_PATH")
    assert {storage, "/tmp"} <= places, "all else is read-only"


def test_without_a_storage_secret_it_does_not_start(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "NICEGUI_STORAGE_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, str(APP)], env=environment, capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode != 0
    assert "KeyError: 'STORAGE_SECRET'" in done.stderr


def test_the_version_of_nicegui_is_pinned() -> None:
    (line,) = (APP.parent / "requirements.txt").read_text().splitlines()
    assert line.startswith("nicegui[redis]==")
