"""The command: files, exit codes, what it prints, and what it does not load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from stickyproxy.tools.doctor.command import doctor
from stickyproxy.tools.doctor.reading import Reading, Unread

from .setups import SETUPS, Objects, change, setup

BROKEN = [("Ingress/web", "metadata annotations", {}), ("PodDisruptionBudget/app", "", "")]
"""An error and an info: no-affinity, no-pdb."""


def run(objects: Objects | str, *arguments: str) -> Result:
    """Run on what comes by standard input."""
    text = objects if isinstance(objects, str) else yaml.safe_dump_all(objects)
    return CliRunner().invoke(doctor, ["--file", "-", *arguments], input=text)


def broken() -> Objects:
    objects = change(setup("direct"), BROKEN[:1])
    return [o for o in objects if o["kind"] != "PodDisruptionBudget"]


def test_a_clean_setup_ends_with_0_and_says_what_was_looked_at() -> None:
    result = run(SETUPS["proxied"])
    assert result.exit_code == 0
    assert result.stdout == (
        "looked at the manifests in standard input\n"
        "  app    Deployment shop/app (3 replicas; it is behind Deployment stickyproxy)\n"
        "  proxy  Deployment shop/stickyproxy -> Service shop/app\n"
        "  way in Ingress shop/web (ingress-nginx) -> Service shop/stickyproxy\n"
        "\n"
        "nothing found\n"
    )


def test_a_finding_has_its_object_its_field_why_and_what_to_do() -> None:
    result = run(broken())
    assert result.exit_code == 1
    head = next(line for line in result.stdout.splitlines() if line.startswith("error"))
    assert head.split() == [
        "error", "no-affinity", "Ingress", "default/web",
        "metadata.annotations[nginx.ingress.kubernetes.io/affinity]",
    ]  # fmt: skip
    assert "    why  Ingress default/web leads to 3 replicas of Deployment default/app" in result.stdout
    assert "    fix  put stickyproxy between" in result.stdout
    assert "    more docs/doctor.md#no-affinity" in result.stdout
    assert result.stdout.endswith("1 error, 1 info; --patch prints what mends 2 of them\n")


@pytest.mark.parametrize(
    ("fail_on", "ignore", "code"),
    [
        ("error", (), 1),
        ("warning", (), 1),
        ("info", (), 1),
        ("never", (), 0),
        ("error", ("no-affinity",), 0),
        ("warning", ("no-affinity",), 0),
        ("info", ("no-affinity",), 1),
        ("info", ("no-affinity,no-pdb",), 0),
    ],
)
def test_the_exit_code_says_how_bad_it_is(fail_on: str, ignore: tuple[str, ...], code: int) -> None:
    options = [word for rule in ignore for word in ("--ignore", rule)]
    assert run(broken(), "--fail-on", fail_on, *options).exit_code == code


def test_json_holds_all_of_it() -> None:
    result = run(broken(), "--json")
    found = json.loads(result.stdout)
    assert found["exit_code"] == result.exit_code == 1
    assert found["apps"] == [
        {
            "kind": "Deployment",
            "namespace": "default",
            "name": "app",
            "why": "it has variables of NiceGUI",
            "replicas": 3,
        }
    ]
    assert found["entries"] == [
        {"object": "Ingress default/web", "service": "Service default/app", "by": "ingress-nginx"}
    ]
    first = found["findings"][0]
    assert (first["rule"], first["severity"], first["name"]) == ("no-affinity", "error", "web")
    assert first["patch"]["command"] == "kubectl -n default patch ingress web --type=merge --patch-file=/dev/stdin"
    assert "nginx.ingress.kubernetes.io/affinity" in first["patch"]["body"]["metadata"]["annotations"]


def test_patches_are_a_script_that_is_only_printed() -> None:
    result = run(broken(), "--patch")
    assert result.exit_code == 1
    blocks = result.stdout.split("\nEOF\n")
    assert "kubectl -n default patch ingress web --type=merge --patch-file=/dev/stdin <<'EOF'\n" in blocks[0]
    assert yaml.safe_load(blocks[0].partition("<<'EOF'\n")[2]) == {
        "metadata": {
            "annotations": {
                "nginx.ingress.kubernetes.io/affinity": "cookie",
                "nginx.ingress.kubernetes.io/affinity-mode": "persistent",
            }
        }
    }
    assert "kubectl -n default apply -f - <<'EOF'\napiVersion: policy/v1\nkind: PodDisruptionBudget\n" in blocks[1]
    checked = subprocess.run(["sh", "-n"], input=result.stdout, text=True, capture_output=True, timeout=20)
    assert checked.returncode == 0, checked.stderr


def test_a_list_and_json_and_several_files_are_read(tmp_path: Path) -> None:
    objects = setup("proxied")
    (tmp_path / "list.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects[:4]}))
    (tmp_path / "rest.yaml").write_text(yaml.safe_dump_all([*objects[4:], None, {"no": "object"}]))
    result = CliRunner().invoke(doctor, ["-f", str(tmp_path / "list.json"), "-f", str(tmp_path / "rest.yaml")])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "nothing found"), result.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "expected YAML in standard input, line 2, column 1: "),
        ("a: 1\nb: [c\nd: {", "expected YAML in standard input, line 3, column 2: did not find expected ',' or ']'"),
        ("{{ if .Values.x }}\na: 1\n{{ end }}", "line 1, column 2: found unhashable key; this looks like a template"),
        ("", "expected Kubernetes objects, found none in standard input"),
        ("just: text", "expected Kubernetes objects, found none in standard input"),
    ],
)
def test_what_is_no_manifest_ends_with_2_and_one_line(text: str, said: str) -> None:
    result = run(text)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("stickyproxy doctor: --file: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor, ["-f", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "expected a readable file" in result.stderr


def test_an_app_that_cannot_be_told_ends_with_2_and_says_how_to_name_it() -> None:
    objects = [o for o in setup("bare") if o["kind"] == "Deployment"]
    container = objects[0]["spec"]["template"]["spec"]["containers"][0]
    container |= {"image": "example.com/x:1", "env": []}
    result = run(objects)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "found Deployment default/app: name yours with --deployment NAME" in result.stderr
    named = run(objects, "--deployment", "app")
    assert named.exit_code == 1
    assert "Deployment default/app (3 replicas; you named it)" in named.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ignore", "no-afinity"], "expected ids of rules, found 'no-afinity'"),
        (["--json", "--patch"], "--json or --patch: expected one of them"),
        (["--context", "x"], "--file: expected without --kubeconfig and --context"),
    ],
)
def test_a_wrong_option_ends_with_2(arguments: list[str], said: str) -> None:
    result = run(SETUPS["proxied"], *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_must_be_seen_and_was_not_is_no_all_clear() -> None:
    from stickyproxy.tools.doctor.command import exit_code

    unseen = Reading("test", True, [], [Unread("Ingress", "must", "")])
    assert exit_code([], unseen, "warning") == 2
    assert exit_code([], Reading("test", True, [], [Unread("Pod", "should", "")]), "warning") == 0


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("import stickyproxy.cli", ["stickyproxy.tools", "yaml", "kubernetes", "aiohttp"]),
        (
            "from stickyproxy.cli import main\ntry: main(['doctor', '-f', '/dev/null'])\nexcept SystemExit: pass",
            ["kubernetes", "aiohttp"],
        ),
    ],
)
def test_nobody_loads_what_only_doctor_needs(command: str, unwanted: list[str]) -> None:
    """`run` begins with the first, and must not pay for tools; files need no client of the API."""
    loaded = f"[n for n in {unwanted} if any(m == n or m.startswith(n + '.') for m in sys.modules)]"
    script = f"{command}\nimport sys\nprint({loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
