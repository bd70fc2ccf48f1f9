"""Run the soak: ``python -m benchmarks.soak --duration 20m``; exit code 1 for growth, a leak or a problem."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

import uvloop

from benchmarks import system
from benchmarks.soak import backends, plot
from benchmarks.soak.run import Plan, Result, soak
from stickyproxy.core.values import parse_duration

_PICTURE = Path(__file__).parents[1] / "soak.svg"


def main() -> int:
    """Run, print, draw; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--duration", type=parse_duration, default=120.0, metavar="DURATION", help="default 2m")
    parser.add_argument("--rate", type=float, default=20.0, metavar="N", help="visits a second; default 20")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the visitors' lots; printed, so that a run can be redone"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of the proxy; default 1")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw what was measured")
    parser.add_argument("--save", action="store_true", help=f"draw it as {_PICTURE.name} beside the benchmarks")
    options = parser.parse_args()
    system.end_on_sigterm()
    system.raise_file_limit()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    plan = Plan(options.duration, options.rate, seed, options.workers)
    if plan.duration_s < plan.shortest_s:
        parser.error(f"--duration: expected at least {plan.shortest_s:g}s, found {options.duration:g}s")
    print(f"soak of {plan.duration_s:g} s with {plan.rate:g} visits a second, seed {seed}", flush=True)
    began = time.monotonic()
    with backends.running(plan.replicas) as replicas, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(soak(plan, replicas))
    print(result.text())
    print(f"{'HELD' if result.held else 'NOT HELD'} after {time.monotonic() - began:.0f} s")
    for path in (options.svg, _PICTURE if options.save else None):
        if path is not None:
            path.write_text(_draw(plan, result))
    return 0 if result.held else 1


def _draw(plan: Plan, result: Result) -> str:
    samples = result.samples
    counts = result.counts
    said = (
        f"{counts['visits']:,} visits, {counts['harm']:,} hostile clients, {counts['faults']:,} faults of replicas, "
        f"{counts['replacements']} replicas replaced and {counts['kills']} killed; shaded: not judged yet"
    )
    panels = [
        plot.Panel(
            "Resident memory, MiB", result.said("memory"), {"rss": [s.rss_bytes / 2**20 for s in samples]}, digits=1
        ),
        plot.Panel(
            "Open descriptors", result.said("descriptors"),
            {"all": [s.descriptors for s in samples], "not accounted for": [s.unaccounted for s in samples]},
        ),
        plot.Panel(
            "Event loop lag, ms", result.said("lag"), {"worst of 10 s": [s.lag_s * 1000 for s in samples]}
        ),
        plot.Panel(
            "A second", "",
            {"requests": [s.requests_per_s for s in samples], "visits": [s.visits_per_s for s in samples]},
        ),
    ]  # fmt: skip
    return plot.draw("stickyproxy under everything at once", said, [s.time_s for s in samples], panels, plan.warm_s)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
