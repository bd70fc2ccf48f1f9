"""The Dockerfile: what it says, and what its commands make when they run in an empty environment."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.command import reserved
from needs import missing

from stickyproxy.admin.dashboard import KINDS

from .image import Room, Stage, ignored, parse

ROOT = Path(__file__).parents[2]
BUILD, FINAL = parse((ROOT / "Dockerfile").read_text())
EXAMPLE = parse((ROOT / "deploy" / "example-app" / "Dockerfile").read_text())

pytestmark = pytest.mark.timeout(660)  # whichever test comes first builds, which a slow registry makes long

BOUND_S = 30.0
MOST_MB = 140
"""Of what is laid over the base image; the Kubernetes client is more than half of it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """Perform the build stage in an empty environment, with a fresh Python in the place of the base image's."""
    works = ["unshare", "--map-root-user", "--mount", "true"]
    if not shutil.which("unshare") or subprocess.run(works, capture_output=True, timeout=BOUND_S).returncode:
        missing("a mount namespace of one's own (unshare --map-root-user --mount, as root or with user namespaces)")
    folder = tmp_path_factory.mktemp("image")
    base = folder / "base"
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True, timeout=120)
    room = Room(folder, base / "bin" / "python")
    room.perform(BUILD, ROOT)
    return room


@asynccontextmanager
async def running(room: Room, *arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the entry point of the image as its user would."""
    process = await asyncio.create_subprocess_exec(
        *room.command("/opt/stickyproxy/bin/stickyproxy", *arguments),
        env=room.environment() | {"PYTHONDONTWRITEBYTECODE": "1"} | variables,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def says(process: asyncio.subprocess.Process, pattern: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    async with asyncio.timeout(BOUND_S):
        while line := (await process.stderr.readline()).decode():
            lines.append(line)
            if re.search(pattern, line):
                return lines
    raise AssertionError(f"ended without {pattern!r}:\n{''.join(lines)}")


def test_it_runs_as_a_numbered_user_that_is_not_root() -> None:
    for stage in (FINAL, EXAMPLE[-1]):
        assert stage.values("USER") == ["65532:65532"]


def test_its_base_is_slim_pinned_and_the_same_in_both_stages() -> None:
    assert BUILD.base == FINAL.base == EXAMPLE[0].base
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", FINAL.base)


def test_its_final_stage_gets_the_finished_environment_and_no_tools() -> None:
    assert FINAL.values("COPY") == [f"--from={BUILD.name} /opt/stickyproxy /opt/stickyproxy"]
    assert FINAL.values("RUN") == ["python -m pip uninstall --quiet --yes --root-user-action ignore pip"]
    assert not any("apt" in line for line in BUILD.values("RUN")), "nothing is compiled, so nothing is needed for it"


def test_its_start_its_stop_and_its_health_are_said() -> None:
    assert json.loads(FINAL.values("ENTRYPOINT")[0]) == ["stickyproxy"]
    assert json.loads(FINAL.values("CMD")[0]) == ["run"]
    assert FINAL.values("STOPSIGNAL") == ["SIGTERM"]
    assert FINAL.values("EXPOSE") == ["8080 9090"]
    options, _, check = FINAL.values("HEALTHCHECK")[0].partition("CMD ")
    assert json.loads(check) == ["stickyproxy", "healthcheck"]
    assert "--timeout=5s" in options, "longer than the health check takes"
    assert "/opt/stickyproxy/bin:" in FINAL.values("ENV")[0]
    assert "org.opencontainers.image.licenses=" in FINAL.values("LABEL")[0]


def test_pip_keeps_no_cache() -> None:
    for stage in (BUILD, EXAMPLE[0]):
        pips = [
            command
            for line in stage.values("RUN")
            for command in line.split("&&")
            if re.search(r"-m pip .*\b(install|wheel)\b", command)
        ]
        assert pips
        assert all("--no-cache-dir" in command for command in pips)


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    patterns = [p for p in (ROOT / ".dockerignore").read_text().splitlines() if p and not p.startswith("#")]
    for wanted in ("pyproject.toml", "README.md", "LICENSE", "deploy/constraints.txt", "stickyproxy/core/nicegui.py"):
        assert not ignored(wanted, patterns), wanted
    for unwanted in (
        ".git/config", ".venv/bin/python", "tests/needs.py", "deploy/fly/fly.toml", "stickyproxy/__pycache__/x.pyc",
        "stickyproxy/core/__pycache__/y.pyc", "secrets.env",
    ):  # fmt: skip
        assert ignored(unwanted, patterns), unwanted


def test_constraints_pin_all_that_is_installed(built: Room) -> None:
    listed = built.shell("python -m pip --python /opt/stickyproxy/bin/python list --format json", "/opt")
    installed = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)}
    lines = (ROOT / "deploy" / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    installed.pop("stickyproxy")
    assert installed == {name: pinned.get(name) for name in installed}
    assert not {"nicegui", "pip", "setuptools"} & installed.keys()


def test_it_is_small(built: Room) -> None:
    tree = built.opt / "stickyproxy"
    sizes = {file: file.lstat().st_size for file in tree.rglob("*") if file.is_file()}
    total = sum(sizes.values()) / 1e6
    client = sum(size for file, size in sizes.items() if "/kubernetes/" in file.as_posix()) / 1e6
    print(f"\n/opt/stickyproxy: {total:.0f} MB in {len(sizes)} files, {client:.0f} MB of them the Kubernetes client")
    assert total < MOST_MB


def test_the_dashboard_is_in_it_with_the_licence_of_its_charts(built: Room) -> None:
    (folder,) = built.opt.glob("stickyproxy/lib/python*/site-packages/stickyproxy/admin/dashboard")
    source = ROOT / "stickyproxy" / "admin" / "dashboard"
    for name in KINDS:
        assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    assert "Leon Sorokin" in (folder / "uPlot.LICENSE").read_text()


def test_bytecode_is_there_for_all_that_a_start_loads(built: Room) -> None:
    code = (
        "import sys, stickyproxy.app, stickyproxy.cli, stickyproxy.admin.server, stickyproxy.admin.metrics,"
        " stickyproxy.discovery.dns\n"
        "print(*(m.__spec__.origin for m in list(sys.modules.values()) if getattr(m, '__spec__', None)"
        " and str(m.__spec__.origin).startswith('/opt') and str(m.__spec__.origin).endswith('.py')"
        " and not __import__('os').path.exists(m.__spec__.cached)), sep='\\n')"
    )
    (built.folder / "check.py").write_text(code)
    assert built.shell(f"/opt/stickyproxy/bin/python -B {built.folder / 'check.py'}", "/opt").split() == []


async def test_its_command_serves_is_found_healthy_and_ends_on_sigterm(built: Room) -> None:
    with reserved() as admin:
        given = {
            "STICKYPROXY_LISTEN": "127.0.0.1:0", "STICKYPROXY_ADMIN": str(admin), "STICKYPROXY_BACKEND": "127.0.0.1:9",
            "STICKYPROXY_SECRET": "",
        }  # fmt: skip
        async with running(built, "run", **given) as proxy:
            await says(proxy, "serves on")
            began = time.perf_counter()
            assert await check(built, str(admin)) == (0, "ready: 1 of 1 backends usable\n")
            print(f"\nhealth check: {time.perf_counter() - began:.3f} s")
            proxy.send_signal(signal.SIGTERM)
            lines = await says(proxy, "stopped")
            assert await asyncio.wait_for(proxy.wait(), BOUND_S) == 0, lines
        code, line = await check(built, str(admin))
        assert code == 1
        assert line.startswith(f"no answer from {admin}: Connection refused")


async def check(built: Room, admin: str) -> tuple[int | None, str]:
    """Run the image's health check; give its exit code and what it says."""
    async with running(built, "healthcheck", STICKYPROXY_ADMIN=admin) as process:
        out, err = await asyncio.wait_for(process.communicate(), BOUND_S)
    assert err == b""
    return process.returncode, out.decode()


async def test_its_kubernetes_client_works_without_its_models_compiled(built: Room) -> None:
    given = {"STICKYPROXY_LISTEN": "127.0.0.1:0", "STICKYPROXY_ADMIN": "off", "STICKYPROXY_KUBERNETES_SERVICE": "app"}
    async with running(built, "run", **given) as proxy:
        await says(proxy, "expected the pod's service account or a kubeconfig")
    code = "from kubernetes.aio import client; client.DiscoveryV1Api; client.V1EndpointSliceList"
    (built.folder / "client.py").write_text(code)
    built.shell(f"/opt/stickyproxy/bin/python -B {built.folder / 'client.py'}", "/opt")


async def test_without_backends_it_ends_with_one_line_that_says_what_to_give(built: Room) -> None:
    async with running(built, "run") as proxy:
        _, err = await asyncio.wait_for(proxy.communicate(), BOUND_S)
    assert proxy.returncode == 2
    assert err.decode().count("\n") == 1
    assert "--dns" in err.decode()


def test_the_parser_reads_what_a_dockerfile_means() -> None:
    text = 'ARG BASE=a:1\n# c\nFROM ${BASE} AS b\nRUN x \\\n# inside\n && y\nFROM ${BASE}\nCMD ["z"]\n'
    assert parse(text) == [Stage("a:1", "b", [("RUN", "x && y")]), Stage("a:1", "", [("CMD", '["z"]')])]
