"""Everything in deploy/, the Dockerfile and the README against the command line: what they give it, it takes."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml

import stickyproxy
from stickyproxy.cli import cli, run
from stickyproxy.core.settings import ServiceSettings
from stickyproxy.core.values import parse_duration

from .objects import environment, proxies
from .tools import DEPLOY, KUBERNETES, chart, kustomizations, kustomize

ROOT = DEPLOY.parent
PREFIX = "STICKYPROXY_"
VARIABLES = {parameter.envvar for parameter in run.params} | {"STICKYPROXY_OPTION"}
FLAGS = {flag for command in (cli, run) for parameter in command.params for flag in parameter.opts} | {
    flag for parameter in run.params for flag in parameter.secondary_opts
}
"""Names of the options: `STICKYPROXY_<OPTION>` stands for any of them."""

TEXTS = [
    *(
        file
        for file in sorted(DEPLOY.rglob("*"))
        if file.is_file() and file.suffix in {".yaml", ".yml", ".env", ".md", ".toml", ".json", ".txt", ".tpl", ""}
    ),
    ROOT / "Dockerfile",
    ROOT / "README.md",
]

COMPOSE = yaml.safe_load((DEPLOY / "compose" / "docker-compose.yml").read_text())
FLY = tomllib.loads((DEPLOY / "fly" / "fly.toml").read_text())
ECS = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())


def settings(arguments: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """Read arguments and environment as the real command line does; it refuses what it does not know."""
    for name, value in variables.items():
        if name.startswith(PREFIX):
            assert name in VARIABLES, f"{name}: no option has this name, and nobody would complain"
            monkeypatch.setenv(name, value)
    assert arguments[:1] == ["run"], "what the image's entry point is given"
    with monkeypatch.context() as inner:
        taken: list[ServiceSettings] = []
        inner.setattr("stickyproxy.app.run", lambda settings, load, _: taken.append(settings))
        cli.main(args=arguments, prog_name="stickyproxy", standalone_mode=False)
    (found,) = taken
    return found


def test_every_text_names_options_that_exist() -> None:
    for file in TEXTS:
        text = file.read_text()
        unknown = set(re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*\b(?!\{{)", text)) - VARIABLES
        if file.suffix == ".tpl":
            unknown = {name for name in unknown if name != PREFIX}
        assert not unknown, file.relative_to(ROOT)
        for line in re.findall(r"stickyproxy run ([^`\n]*)", text):
            flags = {word.partition("=")[0] for word in line.split() if word.startswith("--")}
            assert {flag.strip(".,;:'\")") for flag in flags} <= FLAGS, file.relative_to(ROOT)


def test_every_option_of_the_command_line_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for parameter in run.params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}" in text, parameter.opts[0]


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", [*(str(f.relative_to(KUBERNETES)) for f in kustomizations()), "chart"])
def test_the_command_line_takes_what_a_manifest_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = chart() if name == "chart" else kustomize(KUBERNETES / name)
    found = list(proxies(manifests))
    assert bool(found) == (name != "example-app")
    for _, container in found:
        taken = settings(container["args"], environment(container, manifests), monkeypatch)
        ports = [port["containerPort"] for port in container["ports"]]
        assert taken.admin is not None
        assert [taken.listen.port, taken.admin.port] == ports, "first the data port, then the admin port"
        assert (taken.listen.host, taken.admin.host) == ("0.0.0.0", "0.0.0.0")


def test_compose_gives_what_the_command_line_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    service = COMPOSE["services"]["stickyproxy"]
    given = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in service["environment"].items()}
    taken = settings(service["command"], given, monkeypatch)
    assert taken.dns is not None
    assert taken.admin is not None
    app = COMPOSE["services"][taken.dns.host]
    assert app["deploy"]["replicas"] == 3
    assert taken.dns.port == exposed(ROOT / "deploy" / "example-app" / "Dockerfile")[0]
    assert service["ports"] == [
        f"{taken.listen.port}:{taken.listen.port}",
        f"127.0.0.1:{taken.admin.port}:{taken.admin.port}",
    ]
    assert parse_duration(service["stop_grace_period"]) >= taken.shutdown_delay_s + taken.drain_timeout_s + 5
    assert taken.data_plane.affinity.secrets == (), "an empty variable is no secret"


def test_compose_has_the_shape_of_the_compose_specification() -> None:
    assert COMPOSE.keys() <= {"name", "services", "networks", "volumes"}
    for name, service in COMPOSE["services"].items():
        known = {
            "build", "command", "deploy", "environment", "networks", "ports", "read_only", "tmpfs", "cap_drop",
            "security_opt", "depends_on", "restart", "stop_grace_period",
        }  # fmt: skip
        assert service.keys() <= known, name
        assert (DEPLOY / "compose" / service["build"] / "Dockerfile").is_file(), name
        assert set(service["networks"]) <= COMPOSE["networks"].keys() | {"default"}, name
        assert set(service.get("depends_on", [])) <= COMPOSE["services"].keys(), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
    assert set(COMPOSE["services"]["stickyproxy"]["networks"]) >= {"backends"}
    assert COMPOSE["services"]["app"]["networks"] == ["backends"], "nobody reaches the app but the proxy"
    assert "ports" not in COMPOSE["services"]["app"]


def test_compose_ships_no_secret_and_says_what_is_missing() -> None:
    value = COMPOSE["services"]["app"]["environment"]["STORAGE_SECRET"]
    assert re.fullmatch(r"\$\{STORAGE_SECRET:\?expected [^}$]+\}", value)


def test_fly_gives_what_the_command_line_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = settings(["run"], FLY["env"], monkeypatch)
    assert taken.dns is not None
    assert taken.admin is not None
    assert taken.admin.host == "::", "`fly proxy` comes by the private network, which is IPv6 only; [::] takes IPv4 too"
    assert taken.dns.host.endswith(".internal")
    service = FLY["http_service"]
    assert service["internal_port"] == taken.listen.port
    assert {check["path"].encode() for check in service["checks"]} == taken.data_plane.health.paths
    assert (FLY["checks"]["alive"]["port"], FLY["checks"]["alive"]["path"]) == (taken.admin.port, "/livez")
    assert (FLY["metrics"]["port"], FLY["metrics"]["path"]) == (taken.admin.port, "/metrics")
    assert FLY["kill_signal"] == "SIGTERM"
    assert parse_duration(FLY["kill_timeout"]) >= taken.shutdown_delay_s + taken.drain_timeout_s + 5
    assert (DEPLOY / "fly" / FLY["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert service["auto_stop_machines"] == "off"


def test_ecs_gives_what_the_command_line_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = ECS["containerDefinitions"]
    given = {variable["name"]: variable["value"] for variable in container["environment"]}
    assert {secret["name"] for secret in container["secrets"]} <= VARIABLES
    taken = settings(container["command"], given, monkeypatch)
    assert taken.admin is not None
    assert [p["containerPort"] for p in container["portMappings"]] == [taken.listen.port, taken.admin.port]
    assert container["stopTimeout"] >= taken.shutdown_delay_s + taken.drain_timeout_s + 5
    assert container["stopTimeout"] <= 120, "the most that Fargate takes"
    assert container["healthCheck"]["command"][:3] == ["CMD", "stickyproxy", "healthcheck"]
    assert container["readonlyRootFilesystem"] is True


def exposed(dockerfile: Any) -> list[int]:
    (line,) = re.findall(r"^EXPOSE (.*)$", dockerfile.read_text(), re.MULTILINE)
    return [int(port) for port in line.split()]


def shell_blocks(text: str) -> Iterator[str]:
    """Yield the commands of the sh blocks of a Markdown text, lines joined."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())


@pytest.mark.parametrize("file", [f for f in TEXTS if f.suffix == ".md"], ids=lambda f: str(f.relative_to(ROOT)))
def test_commands_of_the_pages_name_files_that_are_there(file: Any) -> None:
    for command in shell_blocks(file.read_text()):
        for word in shlex.split(command, comments=True):
            if word.startswith("deploy/") and not word.startswith("deploy/kubernetes/overlays/my-app"):
                assert (ROOT / word).exists(), command
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", file.read_text()):
        assert (file.parent / link).exists(), link


def test_every_image_of_the_proxy_has_the_projects_version() -> None:
    found = set()
    for file in TEXTS:
        found |= set(re.findall(r"ghcr\.io/OWNER/stickyproxy:([0-9][\w.]*[\w])", file.read_text()))
    assert found == {stickyproxy.__version__}
    assert f'image.version="{stickyproxy.__version__}"' in (ROOT / "Dockerfile").read_text()


@pytest.mark.usefixtures("programs")
def test_the_readmes_commands_lead_from_a_clone_to_ones_own_image_and_service(tmp_path: Any) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    commands = list(shell_blocks((ROOT / "README.md").read_text()))
    for command in commands:
        if command.startswith("sed "):
            own = command.replace("OWNER", "me").replace("namespace: default", "namespace: mine")
            subprocess.run(own, shell=True, check=True, cwd=tmp_path, timeout=10)
    folders = [command.split()[3] for command in commands if command.startswith("kubectl apply -k")]
    assert folders == ["deploy/kubernetes/base"]
    manifests = kustomize(tmp_path / folders[0])
    ((_, container),) = proxies(manifests)
    assert container["image"] == "ghcr.io/me/stickyproxy:0.1.0"
    assert environment(container, manifests)["STICKYPROXY_KUBERNETES_SERVICE"] == "my-app"
    assert {m["metadata"]["namespace"] for m in manifests} == {"mine"}


@pytest.mark.usefixtures("programs")
def test_the_readmes_chart_command_takes_its_values() -> None:
    text = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"`helm install (.*?)`", text)
    release, folder, *options = shlex.split(command)
    assert (ROOT / folder / "Chart.yaml").is_file()
    manifests = chart(*(value for value in options if value != "--set"), release=release)
    ((_, container),) = proxies(manifests)
    assert environment(container, manifests)["STICKYPROXY_KUBERNETES_SERVICE"] == "my-app"
