"""Run the chaos scenarios: ``python -m benchmarks.chaos --help``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import time
from collections.abc import Sequence

import uvloop

from benchmarks import system
from benchmarks.chaos.report import HEAD
from benchmarks.chaos.scenarios import QUICK, SCENARIOS, Plan, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a table; returns the exit code: 1 when a bar was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description="Roll, kill and flap real NiceGUI replicas and proxies under open pages, and hold the figures "
        "against the bar.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default all")
    parser.add_argument(
        "--pages", type=int, metavar="N", help=f"open pages; default {Plan.pages}, --quick {QUICK.pages}"
    )
    parser.add_argument("--seed", type=int, default=Plan.seed, metavar="N", help="of all that is drawn by lot")
    parser.add_argument("--quick", action="store_true", help="few pages and short times: to see that it works")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenarios).difference(SCENARIOS):
        parser.error(f"expected scenarios of {', '.join(SCENARIOS)}, found {', '.join(sorted(unknown))}")
    plan = QUICK if options.quick else Plan()
    if options.pages is not None and options.pages < 5:
        parser.error(f"--pages: expected 5 or more, found {options.pages}")
    plan = dataclasses.replace(plan, pages=options.pages or plan.pages, seed=options.seed)
    system.raise_file_limit()
    began = time.monotonic()
    print(f"{plan.pages} pages, 2 proxies, NiceGUI; {plan.times.told()}\n\n{HEAD}", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(run(options.scenarios or SCENARIOS, plan, lambda line: print(line, flush=True)))
    print(f"\n{sum(o.held for o in outcomes)} of {len(outcomes)} held, in {time.monotonic() - began:.0f} s")
    return 0 if all(outcome.held for outcome in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
