"""Run the rounds and reduce them: medians, and ratios between figures of the same round.

Proxies take turns within each scenario of each round, so that what else happens on the machine meets them all alike.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import proxies
from benchmarks.load import LoadError
from benchmarks.peers import SUBJECT
from benchmarks.proxies import Installed, ProxyError
from benchmarks.scenarios import Metric, Outcome, Plan, Scenario
from benchmarks.system import Cores


@dataclass(slots=True)
class Results:
    """What was measured.

    ``outcomes`` holds, by scenario and proxy, one entry for each round, None where it failed; ``versions`` holds None
    for a proxy that is not installed; ``failures`` says in words what went wrong.
    """

    plan: Plan
    scenarios: Sequence[Scenario]
    versions: dict[str, str | None] = field(default_factory=dict)
    outcomes: dict[str, dict[str, list[Outcome | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def metrics(self) -> list[Metric]:
        """List the metrics of the scenarios that were run."""
        return [metric for scenario in self.scenarios for metric in scenario.metrics]

    def rounds(self, key: str, proxy: str) -> list[float | None]:
        """Return a metric's figure for each round; empty when the proxy was not measured."""
        for scenario in self.scenarios:
            if any(metric.key == key for metric in scenario.metrics):
                outcomes = self.outcomes.get(scenario.name, {}).get(proxy, [])
                return [None if outcome is None else outcome.figures[key] for outcome in outcomes]
        return []

    def median(self, key: str, proxy: str) -> float | None:
        """Return the median over the rounds."""
        return _median(self.rounds(key, proxy))

    def ratio(self, key: str, peer: str) -> float | None:
        """Return the median of the ratios stickyproxy / ``peer``, each taken within one round.

        A difference that noise has made negative (added latency) has no ratio.
        """
        pairs = zip(self.rounds(key, SUBJECT), self.rounds(key, peer), strict=False)
        return _median([ours / theirs for ours, theirs in pairs if ours and theirs and min(ours, theirs) > 0])


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def run(names: Sequence[str], scenarios: Sequence[Scenario], plan: Plan, backends: list[int], cores: Cores) -> Results:
    """Measure the proxies of these names that are installed; what fails is noted, and the others go on."""
    results = Results(plan, scenarios)
    working = _verified(names, backends, cores, results)
    for number in range(1, plan.rounds + 1):
        for scenario in scenarios:
            for name, proxy in working.items():
                outcome = _measured(scenario, proxy, plan, backends, cores, results)
                results.outcomes.setdefault(scenario.name, {}).setdefault(name, []).append(outcome)
                if outcome is not None:
                    figures = "  ".join(
                        f"{outcome.figures[metric.key]:.{metric.digits}f} {metric.unit}" for metric in scenario.metrics
                    )
                    _tell(f"round {number}/{plan.rounds}  {scenario.name:8} {name:12} {figures}")
    return results


def _verified(names: Sequence[str], backends: list[int], cores: Cores, results: Results) -> Mapping[str, Installed]:
    """Start every proxy once, unmeasured (its files are then in memory, its bytecode compiled), and prove it sticky."""
    working = {}
    for name in names:
        proxy = proxies.installed(name)
        results.versions[name] = None if proxy is None else proxy.version
        if proxy is None:
            _tell(f"{name}: not installed")
            continue
        try:
            with proxies.running(proxy, backends, cores.proxy) as running:
                running.sessions()
        except (ProxyError, OSError) as error:
            _fail(results, f"{name}: {error}")
        else:
            working[name] = proxy
            _tell(f"{name} {proxy.version}: works, and is sticky")
    return working


def _measured(
    scenario: Scenario, proxy: Installed, plan: Plan, backends: list[int], cores: Cores, results: Results
) -> Outcome | None:
    try:
        with proxies.running(proxy, backends, cores.proxy) as running:
            return scenario.measure(running, plan, backends)
    except (ProxyError, LoadError, OSError) as error:
        _fail(results, f"{scenario.name} {proxy.peer.name}: {error}")
        return None


def _fail(results: Results, reason: str) -> None:
    """Note the first line; the log behind it, which may name paths of this machine, is only shown."""
    results.failures.append(reason.splitlines()[0])
    _tell(f"FAILED {reason}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
