"""A finding, and what findings come to: the verdict and its one line.

Law: every finding has evidence in plain words.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from stickyproxy.tools.verify.catalogue import DOCUMENT, KINDS, SERVERS, SPECIAL_FIXES, Weight
from stickyproxy.tools.verify.seen import Seen


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    id: str
    weight: Weight
    title: str
    evidence: tuple[str, ...]
    fix: str

    @property
    def anchor(self) -> str:
        """Give where the finding is explained."""
        return f"{DOCUMENT}#{self.id}"


Rule = Callable[[Seen], Iterable[Finding]]


class Verdict(IntEnum):
    """The exit code."""

    STICKY = 0
    FAULTY = 1
    UNKNOWN = 2


def found(seen: Seen, id: str, *evidence: str) -> Finding:  # noqa: A002  it is called so everywhere
    """Make a finding; its fix is told for the server that stands before the app, where that has said its name."""
    kind = KINDS[id]
    special = SPECIAL_FIXES.get((id, server_of(seen)), "")
    return Finding(id, kind.weight, kind.title, evidence, f"{kind.fix} {special}".rstrip())


def server_of(seen: Seen) -> str:
    """Give whose configuration a fix can be told for, by the name that the server says; empty where it is not known."""
    said = (seen.landing.server if seen.landing else "").lower()
    return next((name for begin, name in SERVERS.items() if said.startswith(begin)), "")


def verdict(findings: Iterable[Finding]) -> Verdict:
    """Give the verdict: a fault beats a doubt, and without either the sessions are sticky."""
    weights = {finding.weight for finding in findings}
    if Weight.FAULT in weights:
        return Verdict.FAULTY
    return Verdict.UNKNOWN if Weight.DOUBT in weights else Verdict.STICKY


AFFINITY: Final = frozenset({"socket-elsewhere", "reload-loop", "reconnect-lost", "poll-split"})
"""Findings that say that sessions are not sticky."""


def headline(seen: Seen, findings: Iterable[Finding]) -> str:
    """Say the verdict in one line."""
    findings = tuple(findings)
    ids = {finding.id for finding in findings}
    faults = sum(finding.weight is Weight.FAULT for finding in findings)
    judged = verdict(findings)
    if judged is Verdict.UNKNOWN:
        return f"could not tell: {next(f for f in findings if f.weight is Weight.DOUBT).title}"
    if judged is Verdict.STICKY:
        return "sticky: every page kept its process" if seen.attempts else "the WebSocket works as it should"
    if ids & AFFINITY:
        return f"NOT sticky: {next(f for f in findings if f.id in AFFINITY).title}"
    more = f", and {faults - 1} more" if faults > 1 else ""
    return f"broken: {findings[0].title}{more}"


def in_bytes(size: int) -> str:
    """Say a number of bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"
