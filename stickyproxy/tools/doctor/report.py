"""Say what was found: as a table for people, as JSON, or as patches with the commands that apply them."""

import json
import textwrap
from collections.abc import Iterator, Sequence

from stickyproxy.tools.doctor.entries import Entry
from stickyproxy.tools.doctor.findings import Finding, Patch, Severity
from stickyproxy.tools.doctor.proxies import Proxy
from stickyproxy.tools.doctor.reading import Reading
from stickyproxy.tools.doctor.scene import Scene

WIDTH = 120


def looked_at(reading: Reading, scene: Scene) -> Iterator[str]:
    """Say what was looked at, a line each."""
    yield f"looked at {reading.source}"
    for app in scene.apps:
        most = scene.replicas(app.workload)
        replicas = f"{app.workload.declared} replica{'s' * (app.workload.declared != 1)}"
        replicas += f", up to {most}" if most > app.workload.declared else ""
        yield f"  app    {app.obj} ({replicas}; {app.why})"
    for proxy in scene.fronts:
        follows = _follows(scene, proxy)
        yield f"  proxy  {proxy.workload.obj}{' (sidecar)' if proxy.sidecar else ''}" + (
            f" -> {follows}" if follows else ""
        )
    for entry in _by_object(scene.looked_entries):
        yield f"  way in {entry.obj} ({entry.vendor.name}) -> {entry.service}"


def _follows(scene: Scene, proxy: Proxy) -> str:
    return ", ".join(str(service) for service in scene.followed(proxy))


def _by_object(entries: Sequence[Entry]) -> list[Entry]:
    return list({(str(e.obj), str(e.service)): e for e in entries}.values())


def table(reading: Reading, scene: Scene, findings: Sequence[Finding]) -> str:
    """Give the whole report for people."""
    lines = list(looked_at(reading, scene))
    lines += [lost.text for lost in reading.unread]
    lines.append("")
    if findings:
        rows = [(f.rule.severity.word, f.rule.id, str(f.fault.where), f.fault.field) for f in findings]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for finding, row in zip(findings, rows, strict=True):
            head = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
            lines.append(f"{head}  {row[3]}".rstrip())
            lines += textwrap.wrap(finding.fault.why, WIDTH, initial_indent="    why  ", subsequent_indent="         ")
            lines += textwrap.wrap(finding.fault.fix, WIDTH, initial_indent="    fix  ", subsequent_indent="         ")
            lines.append(f"    more {finding.rule.doc}")
        lines.append("")
    lines.append(summary(findings))
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    """Give the last line."""
    if not findings:
        return "nothing found"
    parts = []
    for severity in sorted(Severity, reverse=True):
        count = sum(f.rule.severity is severity for f in findings)
        if count:
            plural = "" if count == 1 or severity is Severity.INFO else "s"
            parts.append(f"{count} {severity.word}{plural}")
    patched = sum(f.fault.patch is not None for f in findings)
    return ", ".join(parts) + (f"; --patch prints what mends {patched} of them" if patched else "")


def as_json(reading: Reading, scene: Scene, findings: Sequence[Finding], code: int) -> str:
    """Give the whole report for programs."""
    found = {
        "source": reading.source,
        "apps": [{"kind": a.obj.kind, "namespace": a.obj.namespace, "name": a.obj.name, "why": a.why,
                  "replicas": scene.replicas(a.workload)} for a in scene.apps],
        "proxies": [str(p.workload.obj) for p in scene.fronts],
        "entries": [{"object": str(e.obj), "service": str(e.service), "by": e.vendor.name}
                    for e in _by_object(scene.looked_entries)],
        "unread": [{"kind": lost.kind, "need": lost.need, "text": lost.text} for lost in reading.unread],
        "findings": [_finding(f) for f in findings],
        "exit_code": code,
    }  # fmt: skip
    return json.dumps(found, indent=2)


def _finding(finding: Finding) -> dict[str, object]:
    fault, rule = finding.fault, finding.rule
    patch = fault.patch
    return {
        "rule": rule.id,
        "severity": rule.severity.word,
        "kind": fault.where.kind,
        "namespace": fault.where.namespace,
        "name": fault.where.name,
        "field": fault.field,
        "why": fault.why,
        "fix": fault.fix,
        "doc": rule.doc,
        "patch": None
        if patch is None
        else {"type": patch.type, "first": patch.first, "command": patch.command, "body": patch.body},
    }


def patches(findings: Sequence[Finding]) -> str:
    """Give all patches as a shell script that a person may read and run; nothing is applied here."""
    blocks, seen = [], []
    for finding in findings:
        patch = finding.fault.patch
        head = f"# {finding.rule.id}: {finding.fault.where}, {finding.fault.field}\n"
        head += "\n".join(textwrap.wrap(finding.fault.fix, WIDTH, initial_indent="# ", subsequent_indent="# "))
        if patch is None:
            blocks.append(f"{head}\n# (no patch: this is for you to decide)\n")
        elif (patch.command, patch.body) not in seen:
            seen.append((patch.command, patch.body))
            blocks.append(f"{head}\n{script(patch)}")
    return "\n".join(blocks)


def script(patch: Patch) -> str:
    """Give one patch as a command of the shell."""
    import yaml

    body = yaml.safe_dump(patch.body, sort_keys=False, default_flow_style=False, width=WIDTH)
    first = f"{patch.first}\n" if patch.first else ""
    return f"{first}{patch.command} <<'EOF'\n{body}EOF\n"
