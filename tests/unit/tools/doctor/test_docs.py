"""The documents and the rules say the same."""

import re
from pathlib import Path

import click
import yaml
from click.testing import CliRunner

from stickyproxy.cli import run
from stickyproxy.tools.doctor.command import doctor
from stickyproxy.tools.doctor.findings import PAGE
from stickyproxy.tools.doctor.proxies import DEFAULTS
from stickyproxy.tools.doctor.resources import CONFIG_MAP, RESOURCES
from stickyproxy.tools.doctor.rules import RULES

ROOT = Path(__file__).parents[4]
NAIVE = ROOT / "tests" / "cluster" / "doctor" / "faulty" / "naive" / "app.yaml"
TEXT = (ROOT / PAGE).read_text("utf-8")


def test_every_rule_has_its_anchor_and_every_anchor_its_rule() -> None:
    """In the order of the rules, with the severity and the title that the command says."""
    found = re.findall(r"^### ([a-z-]+)\n\n\*\*(error|warning|info)\*\*: ([^\n]+)\.\n", TEXT, re.MULTILINE)
    assert found == [(rule.id, rule.severity.word, rule.title) for rule in RULES]
    assert len(re.findall(r"^### ", TEXT, re.MULTILINE)) == len(RULES)


def test_every_option_is_in_the_document() -> None:
    for param in doctor.params:
        assert isinstance(param, click.Option)
        assert f"`{max(param.opts, key=len)}" in TEXT, param.opts


def test_defaults_of_the_proxy_are_those_of_its_command_line_and_its_image() -> None:
    options = {param.opts[0].removeprefix("--"): param for param in run.params}
    image = dict(re.findall(r"STICKYPROXY_(\w+)=(\S+)", (ROOT / "Dockerfile").read_text("utf-8")))
    for name, value in DEFAULTS.items():
        default = options[name].default
        given = default[0] if isinstance(default, tuple) else default
        assert image.get(name.upper().replace("-", "_"), given) == value, name


def test_the_readmes_example_is_what_is_printed() -> None:
    """Between its first line and the places where it says that it leaves something out."""
    block = (ROOT / "README.md").read_text("utf-8").partition("```console\n$ stickyproxy doctor")[2].partition("```")[0]
    _, _, *lines = block.splitlines()
    printed = CliRunner().invoke(doctor, ["-n", "shop", "-f", str(NAIVE)]).stdout
    parts = "\n".join(lines).split("[...]\n")
    assert len(parts) > 1
    for part in parts:
        assert part in printed, part


def test_the_role_names_every_kind_that_is_listed_in_a_namespace() -> None:
    """And no other: a kind that is forgotten there would never be seen by who follows the example."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "doctor" / "rbac.yaml").read_text())
    role = next(d for d in documents if d["kind"] == "Role")
    named = {(g, r) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"]}
    assert named == {(r.group, r.plural) for r in (*RESOURCES, CONFIG_MAP) if r.namespaced}
