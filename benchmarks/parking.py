"""Take the network from open NiceGUI pages, direct and through every proxy: ``python -m benchmarks.parking``.

Two real replicas of each version of NiceGUI with its own ``reconnect_timeout`` (``tests/e2e/apps/parked.py``), each
proxy in front of each version as it is in the other benchmarks, and a real Chromium. Each page has a wire of its own
(``tests/e2e/wire.py``), so all are cut at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.metadata
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, Error, async_playwright

from benchmarks import chromium as chromium_browser
from benchmarks import proxies, report, system
from benchmarks.peers import SUBJECT
from benchmarks.proxies import Installed, ProxyError
from tests.e2e.harness import Replica, running_replicas
from tests.e2e.parking import WAYS, Outcome, Way, survive
from tests.e2e.prepared import NotInstallableError, prepared_python

SCHEMA = 1
REPLICAS = 2
DIRECT = "none"
PARKING = f"{SUBJECT}-parking"
PATHS = (DIRECT, "haproxy", "nginx", "caddy", SUBJECT, PARKING)
CURRENT = "current"
"""The version of NiceGUI that this project's own environment has."""

_VERSIONS = ("2.24.2", "3.6.0", CURRENT)
_DURATIONS = (10.0, 60.0, 240.0)
_PARK_S = 300
_TABS = 12
_BUSY = 3
"""Pages that load or come back at the same time."""

_APP = Path(__file__).parents[1] / "tests" / "e2e" / "apps" / "parked.py"


@dataclass(frozen=True, slots=True)
class Case:
    """One page that loses its network."""

    path: str
    version: str
    way: Way
    seconds: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path in front of a version is."""

    port: int
    replicas: list[Replica]


Results = dict[Case, Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; returns the exit code: 1 when something did not run, or a parked page was lost."""
    options = _parser().parse_args(arguments)
    system.end_on_sigterm()
    chromium = chromium_browser.find()
    if chromium is None:
        print("missing: Chromium (apt-get install chromium)", file=sys.stderr)
        return 1
    system.raise_file_limit()
    machine = system.facts(cores := system.choose_cores())
    failures: list[str] = []
    with (
        contextlib.redirect_stdout(sys.stderr),  # what the replicas say
        tempfile.TemporaryDirectory(prefix="stickyproxy-parking-") as directory,
        ExitStack() as stack,
    ):
        places: dict[tuple[str, str], Place] = {}
        for version in options.versions:
            folder = Path(directory) / version
            folder.mkdir()
            try:
                python = sys.executable if version == CURRENT else prepared_python(f"nicegui-{version}")
                replicas = stack.enter_context(running_replicas(REPLICAS, folder, app=_APP, python=python))
            except (NotInstallableError, OSError, AssertionError) as error:
                failures.append(f"NiceGUI {version}: {_first_line(error)}")
                continue
            for path in options.through:
                try:
                    place = _place(stack, path, replicas, cores.proxy, options.park)
                except (ProxyError, OSError) as error:
                    failures.append(f"{path}, NiceGUI {version}: {_first_line(error)}")
                else:
                    if place is not None:
                        places[path, version] = place
        cases = [
            Case(path, version, way, seconds)
            # The long ones first, so that none is left over at the end.
            for seconds, (path, version), way in itertools.product(
                sorted(options.durations, reverse=True), places, options.ways
            )
        ]
        results = asyncio.run(_run(chromium, cases, places, options.tabs, failures))
    print(table(results, options.through))
    for failure in failures:
        print(f"FAILED {failure}")
    if options.json is not None:
        report.write_json(options.json, _document(results, machine, failures))
    lost = [case for case, outcome in results.items() if case.path == PARKING and not outcome.kept]
    return 1 if failures or lost else 0


def _place(stack: ExitStack, path: str, replicas: list[Replica], core: int, park_s: int) -> Place | None:
    """Start what is in the path, if anything is; None where it is not installed. Raises what starting raises."""
    if path == DIRECT:
        return Place(replicas[0].port, replicas[:1])
    proxy = proxies.installed(SUBJECT if path == PARKING else path)
    if proxy is None:
        print(f"{path} is not installed", file=sys.stderr)
        return None
    if path == PARKING:
        proxy = _parking(proxy, park_s)
    running = stack.enter_context(proxies.running(proxy, [replica.port for replica in replicas], core))
    running.sessions()
    return Place(running.port, replicas)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _parking(proxy: Installed, park_s: int) -> Installed:
    plain = proxy.peer.arguments
    peer = dataclasses.replace(
        proxy.peer,
        name=PARKING,
        arguments=lambda place, version: [*plain(place, version), "--park", str(park_s)],
    )
    return dataclasses.replace(proxy, peer=peer)


async def _run(
    chromium: str,
    cases: Sequence[Case],
    places: dict[tuple[str, str], Place],
    tabs: int,
    failures: list[str],
) -> Results:
    """Run all cases, `tabs` at the same time."""
    results: Results = {}
    open_tabs, busy = asyncio.Semaphore(tabs), asyncio.Semaphore(_BUSY)
    async with async_playwright() as playwright:

        @contextlib.asynccontextmanager
        async def launch() -> AsyncIterator[Browser]:
            browser = await playwright.chromium.launch(executable_path=chromium, args=chromium_browser.FLAGS)
            try:
                yield browser
            finally:
                await browser.close()

        async def run(shared: Browser, case: Case) -> None:
            place = places[case.path, case.version]
            ports = [replica.port for replica in place.replicas]
            async with open_tabs:
                try:
                    outcome = await survive(launch, shared, place.port, ports, case.way, case.seconds, busy)
                except (Error, AssertionError, TimeoutError) as error:
                    failures.append(f"{_told(case)}: {_first_line(error)}")
                else:
                    results[case] = outcome
                    print(f"{_told(case)}: {outcome}", file=sys.stderr, flush=True)

        async with launch() as shared:
            await asyncio.gather(*(run(shared, case) for case in cases))
    return results


def _told(case: Case) -> str:
    return f"{case.path}, NiceGUI {case.version}, {case.way} for {case.seconds:g} s"


def table(results: Results, paths: Sequence[str]) -> str:
    """Lay out what became of the pages: a row for each way, duration and version, a column for each path."""
    rows = sorted(
        {(case.way, case.seconds, case.version) for case in results}, key=lambda row: (WAYS.index(row[0]), row[1:])
    )
    lines = ["| offline by | for, s | NiceGUI | " + " | ".join(paths) + " |", "|---" * (3 + len(paths)) + "|"]
    for way, seconds, version in rows:
        cells = [results.get(Case(path, version, way, seconds)) for path in paths]
        told = " | ".join("-" if cell is None else str(cell) for cell in cells)
        lines.append(f"| {way} | {seconds:g} | {_version(version)} | {told} |")
    return "\n".join(lines)


def _version(name: str) -> str:
    return importlib.metadata.version("nicegui") if name == CURRENT else name


def _document(results: Results, machine: dict[str, object], failures: list[str]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "machine": machine,
        "cases": [
            {**dataclasses.asdict(case), "version": _version(case.version), **dataclasses.asdict(outcome)}
            for case, outcome in results.items()
        ],
        "failures": failures,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parking",
        description="Take the network from open NiceGUI pages for a while, and tell which of them were kept.",
    )
    parser.add_argument(
        "--durations", type=_durations, default=list(_DURATIONS), metavar="S,S", help="seconds; default 10,60,240"
    )
    parser.add_argument("--ways", type=_names(WAYS), default=list(WAYS), metavar="A,B", help=f"of {', '.join(WAYS)}")
    parser.add_argument(
        "--versions", type=_names(_VERSIONS), default=list(_VERSIONS), metavar="A,B", help=f"of {', '.join(_VERSIONS)}"
    )
    parser.add_argument(
        "--through", type=_names(PATHS), default=list(PATHS), metavar="A,B", help=f"of {', '.join(PATHS)}"
    )
    parser.add_argument("--park", type=int, default=_PARK_S, metavar="S", help=f"of {PARKING}; default {_PARK_S}")
    parser.add_argument("--tabs", type=int, default=_TABS, metavar="N", help=f"open at the same time; default {_TABS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was seen")
    return parser


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        wanted = {word.strip() for word in text.split(",")}
        if unknown := wanted.difference(known):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, found {', '.join(sorted(unknown))}")
        return [name for name in known if name in wanted]

    return parse


def _durations(text: str) -> list[float]:
    found = [float(word) for word in text.split(",")]
    if not all(seconds > 0 for seconds in found):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, found {text}")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
