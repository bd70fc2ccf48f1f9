"""All rules in their order: from what was seen to findings.

Laws: a rule is a function of `Seen` alone and gives findings in any number; the order of findings is by weight, then as
the rules stand here; that all is well is said only where there is neither a fault nor a doubt.
"""

from stickyproxy.tools.verify import rules_sessions, rules_web
from stickyproxy.tools.verify.catalogue import Weight
from stickyproxy.tools.verify.findings import Finding
from stickyproxy.tools.verify.seen import Seen


def judge(seen: Seen) -> tuple[Finding, ...]:
    """Give all findings, the gravest first."""
    order = list(Weight)
    findings = [
        finding for rule in (*rules_web.FIRST, *rules_sessions.RULES, *rules_web.RULES) for finding in rule(seen)
    ]
    if any(finding.weight is Weight.FAULT for finding in findings):
        findings = [finding for finding in findings if finding.id != "few-visitors"]  # a fault is no luck
    if not any(finding.weight in (Weight.FAULT, Weight.DOUBT) for finding in findings):
        findings += rules_sessions.spread(seen)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.weight)))
