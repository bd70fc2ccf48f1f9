"""Run the benchmarks: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import backend, chart, measure, report, system
from benchmarks.peers import PEERS, SUBJECT
from benchmarks.scenarios import FULL, QUICK, SCENARIOS, Plan

_HERE = Path(__file__).parent
_FILES_BESIDE_WEBSOCKETS = 200
"""Open files a proxy needs for all else than its idle WebSockets, which take two each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code: 1 when a proxy failed or, with --check, a bar was missed."""
    options = _parser().parse_args(arguments)
    system.end_on_sigterm()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    cores = system.choose_cores()
    machine = system.facts(cores)
    plan = _plan(options.quick, options.rounds, system.raise_file_limit())
    system.pin(cores.load)
    with backend.running(cores.backend) as backends:
        scenarios = [SCENARIOS[name] for name in options.only]
        results = measure.run(options.proxies, scenarios, plan, backends, cores)
    machine["load_average_after"] = round(os.getloadavg()[0], 2)
    print(report.table(results))
    for failure in results.failures:
        print(f"FAILED {failure}")
    document = report.document(results, machine, started)
    for path in [options.json, _HERE / "results.json" if options.save else None]:
        if path is not None:
            report.write_json(path, document)
    for path in [options.chart, _HERE / "results.svg" if options.save else None]:
        if path is not None:
            chart.write(path, results)
    good = not results.failures
    if options.check:
        lines, held = report.verdicts(results)
        print(f"\n{lines}")
        good = good and held
    return 0 if good else 1


def _plan(quick: bool, rounds: int | None, files: int) -> Plan:
    plan = QUICK if quick else FULL
    websockets = min(plan.idle_websockets, (files - _FILES_BESIDE_WEBSOCKETS) // 2)
    if websockets < plan.idle_websockets:
        print(f"only {files} open files allowed: {websockets} idle WebSockets", file=sys.stderr)
    return dataclasses.replace(plan, rounds=rounds or plan.rounds, idle_websockets=websockets)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure {SUBJECT} and every other proxy that is installed, side by side, on this machine.",
    )
    parser.add_argument(
        "--proxies", type=_names(PEERS), default=list(PEERS), metavar="A,B", help=f"of {', '.join(PEERS)}; default all"
    )
    parser.add_argument(
        "--only",
        type=_names(SCENARIOS),
        default=list(SCENARIOS),
        metavar="A,B",
        help=f"scenarios, of {', '.join(SCENARIOS)}; default all",
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"rounds; default {FULL.rounds}, and {QUICK.rounds} with --quick",
    )
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works; rough figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw the medians")
    parser.add_argument("--save", action="store_true", help="write results.json and results.svg beside the benchmarks")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed (see bars.py)")
    return parser


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Make a parser of a comma-separated list of ``known`` names, which come out once each and in the known order."""

    def parse(text: str) -> list[str]:
        wanted = {word.strip() for word in text.split(",")}
        if unknown := wanted.difference(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return [name for name in known if name in wanted]

    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
