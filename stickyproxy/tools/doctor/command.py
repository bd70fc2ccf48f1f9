"""`stickyproxy doctor`: what in a namespace, or in manifests, will break sessions.

Laws: it reads and never writes; exit code 0: nothing found, 1: something as bad as --fail-on or worse, 2: it could
not tell.
"""

import asyncio
import sys
from collections.abc import Sequence

import click

from stickyproxy.tools.doctor.findings import Finding, Severity, find_all
from stickyproxy.tools.doctor.reading import ReadError, Reading
from stickyproxy.tools.doctor.report import as_json, patches, table
from stickyproxy.tools.doctor.rules import RULES
from stickyproxy.tools.doctor.scene import UnclearError

CLEAN, FOUND, UNTOLD = 0, 1, 2


def exit_code(findings: Sequence[Finding], reading: Reading, fail_on: str) -> int:
    """Decide the exit code: what was found counts before what could not be looked at."""
    if fail_on != "never" and any(f.rule.severity.word in _as_bad_as(fail_on) for f in findings):
        return FOUND
    return UNTOLD if any(lost.need == "must" for lost in reading.unread) else CLEAN


def _as_bad_as(word: str) -> list[str]:
    least = Severity[word.upper()]
    return [severity.word for severity in Severity if severity >= least]


def read(files: Sequence[str], namespaces: Sequence[str], kubeconfig: str, context: str) -> Reading:
    """Read the cluster or the files; ReadError."""
    if files:
        from stickyproxy.tools.doctor.files import read_files

        return read_files(files, next(iter(namespaces), ""))
    from stickyproxy.tools.doctor.api import read_cluster

    return asyncio.run(read_cluster(namespaces, kubeconfig=kubeconfig, context=context))


def _rule_ids(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> frozenset[str]:
    ids = {part.strip() for text in value for part in text.split(",") if part.strip()}
    known = {rule.id for rule in RULES}
    if unknown := sorted(ids - known):
        raise click.BadParameter(f"expected ids of rules, found {unknown[0]!r}; known: {', '.join(sorted(known))}", ctx,
                                 param)  # fmt: skip
    return frozenset(ids)


@click.command("doctor")
@click.option(
    "-n", "--namespace", "namespaces", multiple=True, metavar="NAME",
    help="Namespace to look at; without it, the kubeconfig's. Repeatable, where proxy and app are apart.",
)  # fmt: skip
@click.option(
    "--deployment", "deployments", multiple=True, metavar="NAME",
    help="Deployment or StatefulSet that is the app; without it, what looks like NiceGUI. Repeatable.",
)  # fmt: skip
@click.option("--kubeconfig", default="", metavar="FILE", help="In the place of $KUBECONFIG or ~/.kube/config.")
@click.option("--context", default="", metavar="NAME", help="Context of the kubeconfig.")
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE",
    help="Look at these manifests and ask no cluster; - is the standard input. Repeatable.",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option("--patch", is_flag=True, help="Print the patches with their kubectl commands; nothing is applied.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning", "info", "never"]), default="warning", show_default=True,
    help="How bad a finding makes the exit code 1.",
)  # fmt: skip
@click.option("--ignore", multiple=True, metavar="RULE", callback=_rule_ids, help="Leave rules out. Repeatable.")
def doctor(
    namespaces: tuple[str, ...], deployments: tuple[str, ...], kubeconfig: str, context: str, files: tuple[str, ...],
    json_: bool, patch: bool, fail_on: str, ignore: frozenset[str],
) -> None:  # fmt: skip
    """Find what will break sessions in a namespace, or in manifests.

    Reads (get and list) what stands around a NiceGUI app: Services, ingresses, probes, how pods end, autoscalers, the
    proxy's own rights. Says of each fault the object, the field, why, and the patch. Never writes.

    Exit code: 0 nothing found, 1 something as bad as --fail-on, 2 it could not tell.
    """
    if json_ and patch:
        raise click.UsageError("--json or --patch: expected one of them (the JSON holds the patches), found both")
    if files and (kubeconfig or context):
        raise click.UsageError("--file: expected without --kubeconfig and --context, since no cluster is asked")
    try:
        reading = read(files, namespaces, kubeconfig, context)
        scene = reading.scene(deployments)
        findings = find_all(scene, RULES, ignore)
    except (ReadError, UnclearError) as error:
        click.echo(f"stickyproxy doctor: {error}", err=True)
        sys.exit(UNTOLD)
    code = exit_code(findings, reading, fail_on)
    if json_:
        click.echo(as_json(reading, scene, findings, code))
    elif patch:
        click.echo(patches(findings), nl=False)
    else:
        click.echo(table(reading, scene, findings))
    sys.exit(code)
