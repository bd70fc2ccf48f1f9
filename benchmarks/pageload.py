"""Measure how long a NiceGUI page takes to load, direct and through every proxy: ``python -m benchmarks.pageload``.

Two real replicas (``pageload_app.py``) and a real headless Chromium, with a fresh context, so without cookies and with
a cold cache, for each visit. All proxies run throughout; none of them probes the replicas, so those that wait for their
turn cost nothing. Only the proxies are pinned, each to the same core; Chromium and the replicas take what is free.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, Response, async_playwright

from benchmarks import chromium as chromium_browser
from benchmarks import proxies, report, system
from benchmarks.pageload_app import CONNECTED, Counters
from benchmarks.peers import PEERS, SUBJECT
from benchmarks.proxies import Installed, ProxyError, Running

SCHEMA = 1
REPLICAS = 2
DIRECT = "direct"
CACHED = f"{SUBJECT} +cache"
CACHE_SIZE = "64M"
"""What ``--asset-cache`` gets: more than all of NiceGUI's files."""

_VISITS = 7
_READY_S = 30.0
_PAGE_LIMIT_S = 20.0
_QUIET_S = 0.3
"""Nothing may have reached the replicas for so long before a visit's CPU time and requests are read."""
_SETTLE_S = 5.0
"""Seconds to wait at most for that quiet, and for the replica to delete the page of a visit that is over."""
_POLL_S = 0.02


_MARK: Final = "pageload benchmark: "
_WATCH = """
(() => {
  const first = Number(sessionStorage.pageloadFirst ??= performance.timeOrigin);
  const documents = sessionStorage.pageloadDocuments = Number(sessionStorage.pageloadDocuments ?? 0) + 1;
  const shown = selector => document.querySelector(selector)?.getClientRects().length > 0;
  const loaded = () => window.did_handshake === true
    && document.querySelector("[data-testid=CONNECTED]")?.textContent === "CONNECTED"
    && ["[data-testid=CONNECTED]", ".q-table td", ".nicegui-markdown strong", ".nicegui-echart canvas"].every(shown);
  const report = () => console.log("MARK" + JSON.stringify(
    {loaded_s: (performance.timeOrigin + performance.now() - first) / 1000, documents}));
  const observer = new MutationObserver(() => {
    if (loaded()) {
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(report));
    }
  });
  observer.observe(document, {subtree: true, childList: true, characterData: true});
})();
""".replace("CONNECTED", CONNECTED).replace("MARK", _MARK)
"""Tell the seconds from the beginning of the first navigation (a page that reloads itself goes on counting) until the
frame after the one in which all is there: the socket, what the server set over it, table, markdown and chart."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One page load.

    ``loaded_s``: seconds from navigation to the page rendered and connected. ``documents``: 1, or more when the page
    reloaded itself. ``asked``: HTTP requests of the browser, ``errors``: answers of 400 and above. ``app_http`` and
    ``app_websockets``: what reached the replicas. ``app_cpu_ms`` and ``proxy_cpu_ms``: milliseconds of CPU, user and
    system, of both replicas and of the proxy, until quiet.
    """

    loaded_s: float
    documents: int
    asked: int
    errors: int
    app_http: int
    app_websockets: int
    app_cpu_ms: float
    proxy_cpu_ms: float


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas that run: their ports, their processes and what they count."""

    ports: list[int]
    pids: list[int]
    counters: Counters

    def reached(self) -> tuple[int, int]:
        """Return how many HTTP requests and WebSocket handshakes came in so far."""
        return self.counters.total(Counters.HTTP), self.counters.total(Counters.WEBSOCKETS)


@dataclass(frozen=True, slots=True)
class Route:
    """A way to the page: straight to a replica's port, or through a proxy."""

    name: str
    port: int
    proxy: Running | None = None


@dataclass(slots=True)
class Results:
    """All visits by route, None where one failed; versions, None where not installed; failures in words."""

    visits: dict[str, list[Visit | None]] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def median(self, route: str, figure: Callable[[Visit], float]) -> float | None:
        """Return the median of a figure over the visits that did not fail."""
        known = [figure(visit) for visit in self.visits.get(route, []) if visit is not None]
        return statistics.median(known) if known else None

    def fail(self, reason: str) -> None:
        """Note the first line; the log behind it, which may name paths of this machine, is only shown."""
        self.failures.append(reason.splitlines()[0])
        _tell(f"FAILED {reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code: 1 when a proxy or a visit failed."""
    options = _parser().parse_args(arguments)
    system.end_on_sigterm()
    chromium = chromium_browser.find()
    if chromium is None:
        print("missing: Chromium (apt-get install chromium)", file=sys.stderr)
        return 1
    started = datetime.now(UTC).isoformat(timespec="seconds")
    cores = system.choose_cores()
    machine = system.facts(cores)
    results = Results()
    with _replicas() as replicas, contextlib.ExitStack() as stack:
        routes = [Route(DIRECT, replicas.ports[0])]
        for name, proxy in _candidates(options.proxies, results):
            try:
                running = stack.enter_context(proxies.running(proxy, replicas.ports, cores.proxy))
                running.sessions()
            except (ProxyError, OSError) as error:
                results.fail(f"{name}: {error}")
            else:
                routes.append(Route(name, running.port, running))
        asyncio.run(_measure(chromium, routes, replicas, options.visits, results))
    machine["load_average_after"] = round(os.getloadavg()[0], 2)
    print(table(results))
    for failure in results.failures:
        print(f"FAILED {failure}")
    if options.json is not None:
        report.write_json(options.json, _document(results, machine, started))
    return 1 if results.failures else 0


def table(results: Results) -> str:
    """Lay out medians, one row for each way to the page."""
    columns: list[tuple[str, int, Callable[[Visit], float]]] = [
        ("loaded s", 3, lambda visit: visit.loaded_s),
        ("app requests", 0, lambda visit: visit.app_http),
        ("app sockets", 0, lambda visit: visit.app_websockets),
        ("app CPU ms", 0, lambda visit: visit.app_cpu_ms),
        ("proxy CPU ms", 1, lambda visit: visit.proxy_cpu_ms),
        ("documents", 0, lambda visit: visit.documents),
    ]
    rows = [["", "version", *(title for title, _, _ in columns), "min s", "max s", "vs direct", "failed"]]
    for name, version in results.versions.items():
        row = [name, "not installed" if version is None else version]
        visits = results.visits.get(name, [])
        for _, digits, figure in columns:
            median = results.median(name, figure)
            row.append("-" if median is None else f"{median:.{digits}f}")
        seconds = [visit.loaded_s for visit in visits if visit is not None]
        row += [f"{min(seconds):.3f}", f"{max(seconds):.3f}"] if seconds else ["-", "-"]
        ratio = _ratio_to_direct(results, name)
        row += ["-" if ratio is None else f"{ratio:.2f}x", f"{visits.count(None)}/{len(visits)}"]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    legend = "Medians over the visits; vs direct: the median of the ratios of seconds within each round."
    return "\n".join([*lines, "", legend])


def _ratio_to_direct(results: Results, name: str) -> float | None:
    pairs = zip(results.visits.get(name, []), results.visits.get(DIRECT, []), strict=False)
    ratios = [visit.loaded_s / direct.loaded_s for visit, direct in pairs if visit and direct]
    return statistics.median(ratios) if ratios else None


def _document(results: Results, machine: dict[str, object], started: str) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "started": started,
        "machine": machine,
        "versions": results.versions,
        "visits": {
            name: [None if visit is None else asdict(visit) for visit in visits]
            for name, visits in results.visits.items()
        },
        "failures": results.failures,
    }


def _candidates(names: Sequence[str], results: Results) -> Iterator[tuple[str, Installed]]:
    """Find the proxies that are here; stickyproxy twice, without and with its cache."""
    results.versions[DIRECT] = f"NiceGUI {importlib.metadata.version('nicegui')}"
    for name in names:
        proxy = proxies.installed(name)
        variants = [name, CACHED] if name == SUBJECT else [name]
        for variant in variants:
            results.versions[variant] = None if proxy is None else proxy.version
            if proxy is not None:
                yield variant, _with_cache(proxy) if variant == CACHED else proxy


def _with_cache(proxy: Installed) -> Installed:
    plain = proxy.peer.arguments
    peer = dataclasses.replace(
        proxy.peer,
        name=CACHED,
        arguments=lambda place, version: [*plain(place, version), "--asset-cache", CACHE_SIZE],
    )
    return dataclasses.replace(proxy, peer=peer)


async def _measure(chromium: str, routes: Sequence[Route], replicas: Replicas, visits: int, results: Results) -> None:
    """Visit every route in every round, each round beginning with another one; the first visits only warm up."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=chromium_browser.FLAGS)
        try:
            warm = [*(Route(DIRECT, port) for port in replicas.ports), *routes[1:]]
            for route in warm:
                try:
                    await _visit(browser, route, replicas)
                except Error:  # what cannot hold the page shows in the rounds
                    if _over(browser):
                        raise
            results.visits = {route.name: [] for route in routes}
            for number in range(visits):
                first = number % len(routes)
                for route in [*routes[first:], *routes[:first]]:
                    results.visits[route.name].append(await _noted(browser, route, replicas, results, number + 1))
        finally:
            await browser.close()


async def _noted(browser: Browser, route: Route, replicas: Replicas, results: Results, number: int) -> Visit | None:
    try:
        visit = await _visit(browser, route, replicas)
    except Error as error:
        if _over(browser):
            raise
        results.fail(f"visit {number}, {route.name}: {error.message}")
        return None
    _tell(
        f"visit {number}  {route.name:18} {visit.loaded_s:.3f} s  {visit.app_http} requests  "
        f"app {visit.app_cpu_ms:.0f} ms  proxy {visit.proxy_cpu_ms:.1f} ms  {visit.errors} errors"
    )
    return visit


def _over(browser: Browser) -> bool:
    """Tell whether no more visits make sense: the browser has ended, or we are being ended (Playwright hides that)."""
    task = asyncio.current_task()
    return not browser.is_connected() or (task is not None and task.cancelling() > 0)


async def _visit(browser: Browser, route: Route, replicas: Replicas) -> Visit:
    """Load the page once with a fresh context; raises Playwright's ``Error`` when it does not get ready."""
    asked = errors = 0

    def on_request(_request: Request) -> None:
        nonlocal asked
        asked += 1

    def on_response(response: Response) -> None:
        nonlocal errors
        errors += response.status >= 400

    context = await browser.new_context()
    try:
        await context.add_init_script(_WATCH)
        page = await context.new_page()
        page.on("request", on_request)
        page.on("response", on_response)
        app_clocks = system.cpu_clocks(replicas.pids)
        proxy_clocks = system.cpu_clocks(route.proxy.pids() if route.proxy else [])
        http, websockets = replicas.reached()
        app_ns, proxy_ns = system.cpu_ns(app_clocks), system.cpu_ns(proxy_clocks)
        told = await _loaded(page, f"http://127.0.0.1:{route.port}/")
        await _until_quiet(replicas)
        app_ns, proxy_ns = system.cpu_ns(app_clocks) - app_ns, system.cpu_ns(proxy_clocks) - proxy_ns
        http, websockets = (
            after - before for after, before in zip(replicas.reached(), (http, websockets), strict=True)
        )
    finally:
        await context.close()
        await _until_deleted(replicas)
    return Visit(
        loaded_s=float(told["loaded_s"]),
        documents=int(told["documents"]),
        asked=asked,
        errors=errors,
        app_http=http,
        app_websockets=websockets,
        app_cpu_ms=app_ns / 1e6,
        proxy_cpu_ms=proxy_ns / 1e6,
    )


async def _loaded(page: Page, url: str) -> dict[str, float]:
    """Navigate, and return what ``_WATCH`` tells."""

    def is_mark(message: ConsoleMessage) -> bool:
        return message.text.startswith(_MARK)

    limit_ms = _PAGE_LIMIT_S * 1000
    async with page.expect_console_message(is_mark, timeout=limit_ms) as waiting:
        await page.goto(url, wait_until="commit", timeout=limit_ms)
    told: dict[str, float] = json.loads((await waiting.value).text.removeprefix(_MARK))
    return told


async def _until_quiet(replicas: Replicas) -> None:
    """Wait until nothing has reached the replicas for ``_QUIET_S``, ``_SETTLE_S`` at most."""
    deadline = time.monotonic() + _SETTLE_S
    seen, since = replicas.reached(), time.monotonic()
    while time.monotonic() < min(deadline, since + _QUIET_S):
        await asyncio.sleep(_POLL_S)
        if (now := replicas.reached()) != seen:
            seen, since = now, time.monotonic()


async def _until_deleted(replicas: Replicas) -> None:
    """Wait until the replicas have deleted every page they built, ``_SETTLE_S`` at most."""
    deadline = time.monotonic() + _SETTLE_S
    counters = replicas.counters
    while time.monotonic() < deadline:
        if counters.total(Counters.DELETED) >= counters.total(Counters.BUILT):
            return
        await asyncio.sleep(_POLL_S)


@contextlib.contextmanager
def _replicas() -> Iterator[Replicas]:
    """Run the replicas; raises ``RuntimeError`` when one does not get ready."""
    with tempfile.TemporaryDirectory(prefix="stickyproxy-bench-") as directory, contextlib.ExitStack() as stack:
        path = Path(directory) / "counters"
        path.touch()
        counters = Counters(path, REPLICAS)
        ports = proxies.free_ports(REPLICAS)
        processes = [stack.enter_context(_replica(index, port, path)) for index, port in enumerate(ports)]
        for process in processes:
            _wait_until_ready(process)
        yield Replicas(ports, [process.pid for process in processes], counters)


@contextlib.contextmanager
def _replica(index: int, port: int, counters: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.pageload_app", "--port", str(port), "--replica", str(index)]
    process = subprocess.Popen(
        [*command, "--replicas", str(REPLICAS), "--counters", str(counters)],
        stdin=subprocess.PIPE,  # ends with us, and the replica with it
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("NICEGUI_")},
        start_new_session=True,  # Ctrl-C is for the benchmark, which then ends us in order
    )
    try:
        yield process
    finally:
        system.stop(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is None:
        raise AssertionError("asked for a pipe")
    if not select.select([process.stdout], [], [], _READY_S)[0] or process.stdout.readline() != b"ready\n":
        raise RuntimeError("a replica did not start")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pageload",
        description="Measure how long a NiceGUI page takes to load in Chromium, direct and through every proxy.",
    )
    parser.add_argument(
        "--proxies", type=_names, default=list(PEERS), metavar="A,B", help=f"of {', '.join(PEERS)}; default all"
    )
    parser.add_argument("--visits", type=_positive, default=_VISITS, metavar="N", help=f"of each; default {_VISITS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return parser


def _names(text: str) -> list[str]:
    wanted = {word.strip() for word in text.split(",")}
    if unknown := wanted.difference(PEERS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return [name for name in PEERS if name in wanted]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
