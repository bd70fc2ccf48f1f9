"""What a run says in the end: a text with tables for people, or JSON for programs. Pure."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Final

from stickyproxy.tools.verify import chance
from stickyproxy.tools.verify.findings import Finding, headline, in_bytes, verdict
from stickyproxy.tools.verify.rules_sessions import chance_of_luck
from stickyproxy.tools.verify.seen import Outcome, Seen, Step

STEPS: Final = (
    "name looked up",
    "connection",
    "page: first byte",
    "page: whole",
    "file: first byte",
    "file: whole",
    "socket opened",
    "page's handshake",
    "echo on the socket",
    "reconnect",
    "first poll",
    "page's handshake by polls",
)
"""In the order of a page's life."""


def proof(seen: Seen, findings: Iterable[Finding]) -> list[str]:
    """Say what a verdict stands on."""
    ids = {finding.id for finding in findings}
    lines = []
    accepted = [a for a in seen.attempts if a.outcome is Outcome.ACCEPTED]
    if seen.attempts:
        rounds = Counter("after a cut" if a.round == "cut" else "of new pages" for a in accepted)
        parts = " and ".join(f"{count} {name}" for name, count in sorted(rounds.items(), reverse=True))
        lines.append(f"{len(accepted)} of {len(seen.attempts)} sockets were accepted{f': {parts}' if parts else ''}")
        if len(accepted) == len(seen.attempts):
            lines.append(f"by chance, without affinity and with two replicas: {chance.in_words(chance_of_luck(seen))}")
    if seen.plain:
        opened = sum(p.status == 101 for p in seen.plain)
        lines.append(f"{opened} of {len(seen.plain)} plain WebSockets opened")
    held = [s.silent_s for s in seen.silences if not s.cut]
    if held and not ids & {"idle-cut", "idle-cut-long"}:
        lines.append(f"{len(held)} WebSockets stayed open through {max(held):.0f} s of silence")
    if seen.upload is not None and 400 <= seen.upload.status < 500 and seen.upload.status != 413:
        lines.append(f"an upload of {in_bytes(seen.upload.size_bytes)} was let through")
    if seen.stream is not None and len(seen.stream.pieces) > 1 and not ids & {"response-buffered", "stream-unclear"}:
        lines.append(f"the streamed answer came in {len(seen.stream.pieces)} pieces")
    return lines


def subject(seen: Seen, took_s: float) -> str:
    """Say what was looked at, and at what expense."""
    app = f"NiceGUI {seen.landing.version}" if seen.landing and seen.landing.version else "no page of NiceGUI"
    left = f", {seen.pages_left} of them left to the app to forget" if seen.pages_left else " and closed again"
    pages = f"{seen.pages_opened} pages opened{left}" if seen.pages_opened else "no page opened"
    return f"{seen.url}: {app}; {seen.visitors} visitors, {pages}; {took_s:.1f} s"


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lay rows out in columns, of which those numbered in `right` stand at the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if n in right else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def steps_table(steps: Iterable[Step]) -> list[str]:
    """Show how long each step took."""
    known = {step.name: step.took_s for step in steps}
    rows = [("step", "times", "median ms", "slowest ms")]
    for name in STEPS:
        if times := known.get(name):
            rows.append((name, str(len(times)), f"{median(times) * 1000:.0f}", f"{max(times) * 1000:.0f}"))
    return table(rows, right=(1, 2, 3)) if len(rows) > 1 else []


def in_words(seen: Seen, findings: Sequence[Finding], took_s: float, width: int = 100) -> str:
    """Write the report for people, in lines of a width."""
    lines = [subject(seen, took_s), "", headline(seen, findings), *(f"  {line}" for line in proof(seen, findings))]
    if findings:
        rows = [("weight", "finding", "what")]
        rows += [(f.weight.value, f.id, f.title) for f in findings]
        lines += ["", *table(rows)]
        for finding in findings:
            lines += ["", f"{finding.id} ({finding.anchor})"]
            for text in finding.evidence:
                lines += textwrap.wrap(
                    text, width, break_on_hyphens=False, initial_indent="  seen: ", subsequent_indent="        "
                )
            lines += textwrap.wrap(
                finding.fix, width, break_on_hyphens=False, initial_indent="  fix:  ", subsequent_indent="        "
            )
    if steps := steps_table(seen.steps):
        lines += ["", *steps]
    return "\n".join(lines)


def _ms(took_s: float) -> float:
    return round(took_s * 1000, 2)


def in_json(seen: Seen, findings: Sequence[Finding], took_s: float) -> str:
    """Write the report for programs."""
    known = {step.name: step.took_s for step in seen.steps}
    report: dict[str, Any] = {
        "url": seen.url,
        "verdict": verdict(findings).name.lower(),
        "exit_code": int(verdict(findings)),
        "headline": headline(seen, findings),
        "proof": proof(seen, findings),
        "chance_of_luck": chance_of_luck(seen) if seen.attempts else None,
        "app": {"nicegui": (seen.landing.version if seen.landing else "") or None},
        "visitors": seen.visitors,
        "pages": {"opened": seen.pages_opened, "not_closed": seen.pages_left},
        "took_s": round(took_s, 3),
        "findings": [
            {"id": f.id, "weight": f.weight.value, "title": f.title, "evidence": list(f.evidence), "fix": f.fix,
             "document": f.anchor}
            for f in findings
        ],
        "steps": [
            {"name": name, "times": len(times), "median_ms": _ms(median(times)), "slowest_ms": _ms(max(times))}
            for name in STEPS if (times := known.get(name))
        ],
    }  # fmt: skip
    return json.dumps(report, indent=2)
