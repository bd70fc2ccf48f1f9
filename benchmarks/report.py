"""Tell the results: a table for people, JSON with every round for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.bars import BARS, Verdict
from benchmarks.measure import Results
from benchmarks.peers import SUBJECT

SCHEMA = 1


def table(results: Results) -> str:
    """Lay out medians, one row for each metric; behind a peer's figure stands the ratio stickyproxy / peer."""
    names = list(results.versions)
    rows = [["", "", *names], ["", "", *(_version(results, name) for name in names)]]
    for metric in results.metrics():
        row = [metric.label, metric.unit]
        for name in names:
            median = results.median(metric.key, name)
            ratio = None if name == SUBJECT else results.ratio(metric.key, name)
            figure = "-" if median is None else f"{median:.{metric.digits}f}"
            row.append(figure if ratio is None else f"{figure} ({ratio:.2f}x)")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
    legend = (
        f"Medians of {results.plan.rounds} rounds; less is better. (x): {SUBJECT} / peer, "
        "the median of the ratios within each round."
    )
    return "\n".join([*lines, "", legend])


def verdicts(results: Results) -> tuple[str, bool]:
    """Judge every bar; returns the lines to print, and whether none was missed.

    A bar whose peer or scenario was not measured is not missed, but stickyproxy itself has to be there.
    """
    lines, good = [], results.versions.get(SUBJECT) is not None
    if not good:
        lines.append(f"{SUBJECT} was not measured")
    for bar in BARS:
        verdict, figure = bar.judge(results)
        good = good and verdict is not Verdict.MISSED
        lines.append(f"{verdict.value:12}  {bar}" + ("" if figure is None else f"  (is {figure:.3g})"))
    return "\n".join(lines), good


def document(results: Results, machine: Mapping[str, object], started: str) -> dict[str, object]:
    """Put everything that was measured into one document that JSON can hold."""
    names = list(results.versions)
    metrics = {
        metric.key: {
            "label": metric.label,
            "unit": metric.unit,
            "median": {name: _rounded(results.median(metric.key, name)) for name in names},
            f"ratio_{SUBJECT}_to": {
                name: _rounded(results.ratio(metric.key, name)) for name in names if name != SUBJECT
            },
            "rounds": {name: [_rounded(figure) for figure in results.rounds(metric.key, name)] for name in names},
        }
        for metric in results.metrics()
    }
    details = {
        scenario: {
            name: [
                None if outcome is None else {key: _rounded(value) for key, value in outcome.details.items()}
                for outcome in outcomes
            ]
            for name, outcomes in by_proxy.items()
        }
        for scenario, by_proxy in results.outcomes.items()
    }
    return {
        "schema": SCHEMA,
        "started": started,
        "machine": dict(machine),
        "plan": asdict(results.plan),
        "versions": results.versions,
        "metrics": metrics,
        "details": details,
        "failures": results.failures,
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a document, readable."""
    path.write_text(json.dumps(content, indent=1) + "\n")


def _version(results: Results, name: str) -> str:
    version = results.versions[name]
    return "not installed" if version is None else version


def _cells(row: list[str], widths: list[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column < 2 else cell.rjust(width)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
