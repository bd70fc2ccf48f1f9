"""deploy/observability: alerts that fire when they should, on metrics that exist, scraped by a real Prometheus."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from integration.command import command, reserved
from integration.harness import Peer, RawBackend, hello, request, soon
from needs import missing
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stickyproxy.core.values import Address

from .objects import by_identity, containers, pods, selects
from .tools import DEPLOY, KUBERNETES, Manifest, chart, kustomize

FOLDER = DEPLOY / "observability"
UNIT_TESTS = Path(__file__).with_name("rules_test.yaml")
LIMIT_S = 60.0
LOOK_S = 0.1

PROMETHEUS_OWN_LABELS = {"namespace", "job", "pod", "instance", "le"}
"""Labels that come from the scrape and not from the proxy, and the one of every histogram."""

NAME = re.compile(r"\bstickyproxy_[a-z_]+")
SELECTOR = re.compile(r"\b(stickyproxy_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
GROUPED = re.compile(r"\bby \(([^)]*)\)")

Series = dict[str, list[dict[str, str]]]
"""Label sets by the name of their sample, as one scrape gave them."""


def rules() -> list[dict[str, Any]]:
    spec = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())["spec"]
    return [rule for group in spec["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Yield what the dashboard asks, each after where it stands, with its variables as if all were chosen."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], plain(target["expr"])
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["name"], plain(annotation["expr"])


def plain(expression: str) -> str:
    for variable, value in {"$namespace": ".*", "$job": ".*", "$__rate_interval": "1m"}.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


def expressions() -> list[tuple[str, str]]:
    return [(rule["alert"], rule["expr"]) for rule in rules()] + list(dashboard_expressions())


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(f"{name} (apt-get install prometheus)")
    return found


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rules(folder: Path, *, annotations: tuple[str, ...] = ("summary", "description", "action")) -> Path:
    """Write what a Prometheus without the operator would load; of the annotations only those named."""
    spec = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())["spec"]
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        rule["annotations"] = {name: rule["annotations"][name] for name in annotations}
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


# Rules.


def test_the_rules_are_valid(tmp_path: Path) -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(write_rules(tmp_path)), folder=tmp_path)


def test_each_alert_fires_when_it_should_and_stays_silent_when_it_should(tmp_path: Path) -> None:
    write_rules(tmp_path, annotations=("summary",))
    promtool("test", "rules", str(shutil.copy(UNIT_TESTS, tmp_path)), folder=tmp_path)


def test_no_alert_is_without_a_test_that_makes_it_fire_and_one_in_which_its_metric_is_well() -> None:
    groups = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    fire = {t["alertname"] for g in groups for t in g.get("alert_rule_test", []) if t.get("exp_alerts")}
    assert fire == {rule["alert"] for rule in rules()}
    ordinary = " ".join(series["series"] for series in groups[0]["input_series"])
    for rule in rules():
        assert set(NAME.findall(rule["expr"])) <= set(NAME.findall(ordinary)), rule["alert"]


def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description", "action"}, rule["alert"]
        for name in ("description", "action"):
            text = rule["annotations"][name]
            assert "{{" not in text, f"{rule['alert']}: only the summary is a template, and tested as one"
            assert len(text) > 80, f"{rule['alert']}: {name}"


def test_the_readme_lists_all_alerts_with_their_severity() -> None:
    listed = re.findall(r"^\| (Stickyproxy\w+) \| (\w+) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]


# Dashboard.


def test_every_panel_can_be_understood_by_itself_and_stands_where_no_other_does() -> None:
    taken: set[tuple[int, int]] = set()
    identities = [panel["id"] for panel in dashboard()["panels"]]
    assert len(identities) == len(set(identities))
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_the_dashboard_has_its_rows_and_takes_its_data_source_from_a_variable() -> None:
    board = dashboard()
    assert [p["title"] for p in board["panels"] if p["type"] == "row"] == [
        "Are sessions kept?", "Backends", "Traffic", "Proxy",
    ]  # fmt: skip
    assert board["schemaVersion"] >= 38, "Grafana 10"
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = [panel["datasource"] for panel in panels()]
    sources += [target["datasource"] for panel in panels() for target in panel["targets"]]
    sources += [variable["datasource"] for variable in variables.values() if variable["type"] == "query"]
    sources += [annotation["datasource"] for annotation in board["annotations"]["list"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    for panel in panels():
        for target in panel["targets"]:
            assert target["expr"].count('job=~"$job"') == len(NAME.findall(target["expr"])) + target["expr"].count(
                "up{"
            )


# Manifests.


@pytest.mark.usefixtures("programs")
def test_it_renders_into_the_apps_namespace_with_the_label_that_prometheus_looks_for() -> None:
    found = by_identity(kustomize(FOLDER))
    assert found.keys() == {
        "ConfigMap/stickyproxy-dashboard", "PodMonitor/stickyproxy-sidecar", "PrometheusRule/stickyproxy",
        "ServiceMonitor/stickyproxy",
    }  # fmt: skip
    for name, manifest in found.items():
        assert manifest["metadata"]["labels"]["release"] == "kube-prometheus-stack", name
        assert manifest["metadata"]["namespace"] == "default", name
    board = found["ConfigMap/stickyproxy-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["stickyproxy.json"]) == dashboard()
    assert found["PrometheusRule/stickyproxy"]["spec"]["groups"]


def scraped_ports(monitor: Manifest, manifests: list[Manifest]) -> list[int]:
    """Give the ports of pods to which a ServiceMonitor leads: by Service, port's name and pod, as the operator goes."""
    found = []
    templates = [pod for _, pod in pods(manifests)]
    (endpoint,) = monitor["spec"]["endpoints"]
    for service in (m for m in manifests if m["kind"] == "Service"):
        if not selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]):
            continue
        assert service["metadata"]["namespace"] == monitor["metadata"]["namespace"]
        for port in (p for p in service["spec"]["ports"] if p["name"] == endpoint["port"]):
            for pod in templates:
                if selects(service["spec"]["selector"], pod["metadata"]["labels"]):
                    found += pod_ports(pod, port["targetPort"])
    return found


def pod_ports(pod: Manifest, name: str) -> list[int]:
    ports = [port for container in containers(pod) for port in container.get("ports", [])]
    return [port["containerPort"] for port in ports if port["name"] == name]


@pytest.mark.usefixtures("programs")
def test_the_service_monitor_finds_the_admin_port_once() -> None:
    monitor = by_identity(kustomize(FOLDER))["ServiceMonitor/stickyproxy"]
    assert scraped_ports(monitor, kustomize(KUBERNETES / "base")) == [9090]
    assert scraped_ports(monitor, chart(release="web")) == [9090]
    assert scraped_ports(monitor, kustomize(KUBERNETES / "overlays/sidecar")) == []


@pytest.mark.usefixtures("programs")
def test_the_pod_monitor_finds_the_sidecars_admin_port() -> None:
    monitor = by_identity(kustomize(FOLDER))["PodMonitor/stickyproxy-sidecar"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    def found(folder: str) -> list[int]:
        return [
            port
            for _, pod in pods(kustomize(KUBERNETES / folder))
            if selects(monitor["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"])
            for port in pod_ports(pod, endpoint["port"])
        ]

    assert found("overlays/sidecar") == [9090]
    assert found("base") == []


@pytest.mark.usefixtures("programs")
def test_the_charts_monitor_scrapes_its_own_release_as_the_one_here_does() -> None:
    manifests = chart("serviceMonitor.enabled=true", release="web")
    monitor = by_identity(manifests)["ServiceMonitor/web-stickyproxy"]
    here = by_identity(kustomize(FOLDER))["ServiceMonitor/stickyproxy"]
    assert scraped_ports(monitor, manifests) == [9090]
    assert monitor["spec"]["endpoints"] == here["spec"]["endpoints"]
    assert monitor["metadata"]["labels"]["release"] == here["metadata"]["labels"]["release"]
    other = chart(release="other")
    for service in (m for m in other if m["kind"] == "Service"):
        assert not selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])


# A real proxy and a real Prometheus.


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Address, Address]]:
    """Run the real command with a backend that has been asked once; give the listening and the admin address."""
    backend = RawBackend(hello)
    await backend.start()
    try:
        async with command("--backend", str(backend.address), "--asset-cache", "1M") as running:
            assert (await running.ask(request())).status == 200
            yield running.listen, running.admin
    finally:
        await backend.close()


async def get(address: Address, target: str) -> str:
    peer = Peer(*await soon(asyncio.open_connection(*address)))
    try:
        peer.send(request(f"GET {target} HTTP/1.1", "Connection: close"))
        message = await peer.message()
    finally:
        peer.drop()
    assert message.status == 200, message
    return message.body.decode()


async def scrape(admin: Address) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(await get(admin, "/metrics")):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


async def test_every_metric_and_label_that_rules_and_dashboard_name_is_in_a_real_scrape() -> None:
    async with served() as (_, admin):
        series = await scrape(admin)
    problems = []
    for where, expression in expressions():
        named = set(NAME.findall(expression))
        problems += [f"{where}: no metric {name}" for name in named - series.keys()]
        for name, matchers in SELECTOR.findall(expression):
            for label, operator, value in MATCHER.findall(matchers):
                if operator == "=" and name in series and all(labels.get(label) != value for labels in series[name]):
                    problems.append(f'{where}: no {name}{{{label}="{value}"}}')
        known = {label for name in named for labels in series.get(name, []) for label in labels}
        for grouped in GROUPED.findall(expression) if known else ():
            unknown = {label.strip() for label in grouped.split(",")} - known - PROMETHEUS_OWN_LABELS
            problems += [f"{where}: no label {label} on {', '.join(sorted(named))}" for label in unknown]
    assert not problems, "\n".join(problems)


@asynccontextmanager
async def prometheus(folder: Path, target: Address) -> AsyncIterator[Address]:
    """Run a Prometheus that scrapes the target each second and has the rules; give its address."""
    write_rules(folder)
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yaml"],
                "scrape_configs": [
                    {
                        "job_name": "stickyproxy",
                        "static_configs": [{"targets": [str(target)], "labels": {"namespace": "apps"}}],
                    }
                ],
            }
        )
    )
    with reserved() as address:
        process = await asyncio.create_subprocess_exec(
            program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
            f"--web.listen-address={address}", "--storage.tsdb.retention.time=1h",
            cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        said = []
        try:
            async with asyncio.timeout(LIMIT_S):
                while b"Server is ready to receive web requests" not in (line := await process.stderr.readline()):
                    said.append(line.decode())
                    assert line, f"Prometheus ended:\n{''.join(said)}"
            drain = asyncio.ensure_future(process.stderr.read())  # so that it never waits for us to read
            yield address
            process.terminate()
            await soon(drain)
        finally:
            if process.returncode is None:
                process.kill()
            await soon(process.wait())


async def ask(address: Address, target: str) -> Any:
    answer = json.loads(await get(address, f"/api/v1/{target}"))
    assert answer["status"] == "success", answer
    return answer["data"]


async def query(address: Address, expression: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(address, f"query?query={quote(expression)}"))["result"]
    return found


async def test_a_real_prometheus_scrapes_the_proxy_and_evaluates_all_that_is_asked_of_it(tmp_path: Path) -> None:
    async with served() as (_, admin), prometheus(tmp_path, admin) as address:
        await comes(address, "up == 1")
        await comes(address, "count_over_time(stickyproxy_build_info[1m]) >= 2")
        (target,) = (await ask(address, "targets"))["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        await all_rules_are_evaluated(address)

        for _, expression in expressions():
            await query(address, expression)  # fails on what Prometheus cannot evaluate
        assert await query(address, 'stickyproxy_backends{phase="ready"} == 1')
        assert await query(address, 'stickyproxy_pins_total{pin="new"} == 1')
        # Nothing is wrong, so what every alert waits for is not there.
        for rule in rules():
            assert await query(address, rule["expr"]) == [], rule["alert"]


async def test_a_real_prometheus_sees_the_alert_of_a_proxy_without_backends(tmp_path: Path) -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == "StickyproxyNoReadyBackend"]
    async with command("--dns", "no-such-name.invalid:80") as running, prometheus(tmp_path, running.admin) as address:
        (found,) = await comes(address, rule["expr"])
        assert found["metric"] == {"namespace": "apps", "job": "stickyproxy"}
        await comes(address, 'ALERTS{alertname="StickyproxyNoReadyBackend", alertstate="pending"}')
        await comes(address, 'ALERTS{alertname="StickyproxyDiscoveryStale", alertstate="pending"}')


async def comes(address: Address, expression: str) -> list[dict[str, Any]]:
    """Ask until there is an answer; scrapes and evaluations have no event for us."""
    for _ in range(round(LIMIT_S / LOOK_S)):
        if found := await query(address, expression):
            return found
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"Prometheus never found {expression}")


async def all_rules_are_evaluated(address: Address) -> None:
    for _ in range(round(LIMIT_S / LOOK_S)):
        loaded = [rule for group in (await ask(address, "rules"))["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in loaded} == {rule["alert"] for rule in rules()}
        health = {rule["name"]: (rule["health"], rule.get("lastError")) for rule in loaded}
        if all(state == ("ok", None) for state in health.values()):
            return
        assert all(state in {("ok", None), ("unknown", None)} for state in health.values()), health
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"not all rules were evaluated: {health}")
