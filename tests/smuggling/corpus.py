"""All cases of the corpus, and a table of their verdicts by category."""

from collections.abc import Iterable

from . import requests_framing, requests_heads, requests_hops, responses
from .case import RequestCase, ResponseCase
from .judge import Verdict

REQUESTS: tuple[RequestCase, ...] = (*requests_framing.CASES, *requests_heads.CASES, *requests_hops.CASES)
RESPONSES: tuple[ResponseCase, ...] = responses.CASES


def expectation(case: RequestCase | ResponseCase) -> str:
    """Name what a case expects, for the table."""
    return "passed" if isinstance(case.expected, tuple) else type(case.expected).__name__.lower()


def table(verdicts: Iterable[Verdict]) -> str:
    """Print verdicts by category, requests first."""
    rows: dict[tuple[str, str], list[int]] = {}
    for verdict in verdicts:
        case = verdict.case
        kind = "request" if isinstance(case, RequestCase) else "response"
        row = rows.setdefault((kind, case.category), [0, 0, 0, 0])
        row[0] += 1
        row[1] += expectation(case) in ("passed", "switched")
        row[2] += bool(verdict.problem) and verdict.safe
        row[3] += not verdict.safe
    lines = [
        "| | category | cases | expected to pass | safe, but not as expected | unsafe |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {kind} | {category} | {' | '.join(map(str, row))} |" for (kind, category), row in rows.items()]
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines.append(f"| | **all** | {' | '.join(map(str, sums))} |")
    return "\n".join(lines)
