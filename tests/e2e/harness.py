"""Processes and pages of the end-to-end tests.

Laws: every wait is for an event and has a limit; a process ends with the `with` block that started it, and, should the
test run itself be killed, with the test run (see `stickyproxy.tools.children`).
"""

import asyncio
import os
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, WebSocket, expect

from stickyproxy.tools.children import free_port, leashed

ROOT = Path(__file__).resolve().parents[2]
PAGE_APP = Path(__file__).parent / "apps" / "page.py"

START_LIMIT_S = 90.0
"""For a process to become ready: NiceGUI needs 1-2 s on an idle core, and half a minute where twenty others run."""

STOP_LIMIT_S = 10.0
"""For a process to end after SIGTERM."""

PAGE_LIMIT_MS = 60_000
"""For what a page shows: a busy machine with two cores may need seconds to load one."""

WAIT_TO_BEGIN = """
import sys
import aiohttp.web, stickyproxy.app, stickyproxy.admin.server, stickyproxy.cli
print("loaded", flush=True)
open(sys.argv.pop(1)).close()
stickyproxy.cli.main()
"""

LOST = "end-to-end test: the page said that its connection was lost"

WATCH_POPUP = f"""
document.addEventListener("DOMContentLoaded", () => {{
  const popup = document.getElementById("popup");
  const look = () => popup.getAttribute("aria-hidden") === "false" && console.log("{LOST}");
  if (popup) new MutationObserver(look).observe(popup, {{attributes: true}});
}});
"""

AT_ONCE = 4
"""Browsers that load at the same time; more would only make two cores queue."""

RECONNECTED = "session => window.socket.connected && window.socket.id !== session"

SHOWN_AND_CONNECTED = """
name => document.querySelector("[data-testid=replica]")?.textContent === name && window.did_handshake === true
"""

expect.set_options(timeout=PAGE_LIMIT_MS)


def environment() -> dict[str, str]:
    """Return the environment for children: none of the settings of this shell, and NiceGUI must not see pytest."""
    hidden = ("STICKYPROXY_", "NICEGUI_", "PYTEST_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ours["PYTHONUNBUFFERED"] = "1"
    return ours


@dataclass
class Process:
    """A command that runs; its standard error goes to `log`, its standard output is read by `read_until`."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    _seen: bytes = b""

    @property
    def pid(self) -> int:
        return self.popen.pid

    def read_until(self, wanted: str, limit_s: float = START_LIMIT_S) -> str:
        """Read standard output until a line contains `wanted`; return that line. Earlier lines are gone."""
        assert self.popen.stdout is not None
        deadline = time.monotonic() + limit_s
        while True:
            while b"\n" in self._seen:
                line, _, self._seen = self._seen.partition(b"\n")
                with self.log.open("ab") as log:
                    log.write(line + b"\n")
                if wanted.encode() in line:
                    return line.decode()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self.popen.stdout], [], [], left_s)[0]:
                raise AssertionError(f"{self.name} did not print {wanted!r} within {limit_s} s:\n{self.said()}")
            data = os.read(self.popen.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"{self.name} ended before it printed {wanted!r}:\n{self.said()}")
            self._seen += data

    def read_log_until(self, wanted: str, limit_s: float = START_LIMIT_S) -> None:
        """Wait until the log, which the process writes by itself, contains `wanted`."""
        deadline = time.monotonic() + limit_s
        while wanted not in self.said():
            assert time.monotonic() < deadline, f"{self.name} did not say {wanted!r} within {limit_s} s"
            time.sleep(0.05)  # a file has no event to wait for

    def said(self) -> str:
        """Return what the process printed so far, for people."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it as a crash does, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(STOP_LIMIT_S)

    def end(self) -> None:
        """End it politely, else by force."""
        self.popen.terminate()
        try:
            self.popen.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(name: str, command: list[str], folder: Path) -> Iterator[Process]:
    """Run `command` in `folder` while the block lasts; what it printed is shown with a failing test."""
    log = folder / f"{name}-{time.monotonic_ns()}.log"
    with log.open("ab") as errors:
        popen = subprocess.Popen(
            leashed(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=environment(),
        )
    with popen:
        process = Process(name, popen, log)
        try:
            yield process
        finally:
            process.end()
            if text := process.said():
                print(f"--- {name} (exit {popen.returncode}) ---\n{text[-8000:]}")


@dataclass
class Replica:
    """A running NiceGUI replica."""

    name: str
    port: int
    process: Process
    journal: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def counts(self) -> Counter[str]:
        """Return how often each kind of thing happened, by the first word of the journal's lines."""
        return Counter(line.split()[0] for line in self.journal.read_text().splitlines())


def addresses(replicas: list[Replica]) -> list[str]:
    """Return what `--backend` takes."""
    return [replica.address for replica in replicas]


def total(replicas: list[Replica]) -> Counter[str]:
    """Return the counts of all replicas together."""
    return sum((replica.counts() for replica in replicas), Counter())


@dataclass
class Proxy:
    """A running `stickyproxy run`."""

    port: int
    admin_port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def running_replicas(
    count: int, folder: Path, *options: str, app: Path = PAGE_APP, python: Path | str = sys.executable, port: int = 0
) -> Iterator[list[Replica]]:
    """Run `count` replicas of `app`, all listening; `port` 0 stands for any free one, else it is the first one's."""
    with ExitStack() as stack:
        replicas: list[Replica] = []
        for number in range(count):
            name, own_port = f"replica-{number}", port or free_port("127.0.0.1", [other.port for other in replicas])
            port = 0
            journal = folder / f"{name}-{own_port}.journal"
            command = [str(python), str(app), "--port", str(own_port), "--replica", name]
            command += ["--journal", str(journal), *options]
            replicas.append(Replica(name, own_port, stack.enter_context(running(name, command, folder)), journal))
        for replica in replicas:
            replica.process.read_until("ready")
        yield replicas


@contextmanager
def running_proxy(
    folder: Path, backends: list[str], *options: str, port: int = 0, admin_port: int = 0, until: str = "readyz"
) -> Iterator[Proxy]:
    """Run the proxy in front of `backends`, ready (or alive, with `until` livez); port 0 stands for any free one."""
    port = port or free_port("127.0.0.1")
    admin_port = admin_port or free_port("127.0.0.1", [port])
    command = [sys.executable, "-m", "stickyproxy", *run_options(port, admin_port, backends), *options]
    with running("proxy", command, folder) as process:
        wait_until_ready(process, f"http://127.0.0.1:{admin_port}/{until}")
        yield Proxy(port, admin_port, process)


@contextmanager
def running_successor(killed: Proxy, folder: Path, backends: list[str], *options: str) -> Iterator[Proxy]:
    """Kill a proxy and run another one in its place, which knows nothing of it.

    The new process has loaded its modules before and waits to begin: on a busy machine Python takes longer to start
    than a replica keeps a page without its browser (3 s), which says nothing about the proxy.
    """
    admin_port = free_port("127.0.0.1", [killed.port])
    gate = folder / f"gate-{time.monotonic_ns()}"
    os.mkfifo(gate)
    arguments = [str(gate), *run_options(killed.port, admin_port, backends), *options]
    with running("proxy", [sys.executable, "-c", WAIT_TO_BEGIN, *arguments], folder) as process:
        process.read_until("loaded")
        killed.process.kill()
        gate.write_bytes(b"")
        wait_until_ready(process, f"http://127.0.0.1:{admin_port}/readyz")
        yield Proxy(killed.port, admin_port, process)


def run_options(port: int, admin_port: int, backends: list[str]) -> list[str]:
    """Return what stands behind `stickyproxy` on the command line."""
    options = ["run", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}"]
    options += ["--shutdown-delay", "0"]  # nothing here has to learn that it goes
    return options + [part for backend in backends for part in ("--backend", backend)]


def wait_until_ready(process: Process, url: str) -> None:
    """Ask `url` until it answers 200; fail when the process ends or the time is up."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=START_LIMIT_S):
                return
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            pass  # nobody listens yet
        try:
            process.popen.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"{process.name} ended with {process.popen.returncode}:\n{process.said()}")
    raise AssertionError(f"{process.name} did not answer {url} with 200 within {START_LIMIT_S} s:\n{process.said()}")


def descendants(pid: int) -> list[int]:
    """Return the process ids of the children of `pid`, their children and so on."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(parents.get(pid, []))
    for child in found:
        found.extend(parents.get(child, []))
    return found


@contextmanager
def watching(pids: list[int]) -> Iterator["Watch"]:
    """Hold on to processes, so that their end can be waited for and their ids cannot be given to others unseen."""
    handles = {pid: os.pidfd_open(pid) for pid in pids}
    try:
        yield Watch(handles)
    finally:
        for handle in handles.values():
            os.close(handle)


@dataclass
class Watch:
    """Processes that are held on to."""

    handles: dict[int, int]

    def survivors(self, limit_s: float) -> list[int]:
        """Wait until all processes have ended, `limit_s` at most; return the ids of those that have not."""
        deadline = time.monotonic() + limit_s
        alive = dict(self.handles)
        while alive:
            ended = select.select(list(alive.values()), [], [], max(deadline - time.monotonic(), 0))[0]
            if not ended:
                break
            alive = {pid: handle for pid, handle in alive.items() if handle not in ended}
        return list(alive)


@dataclass
class Visit:
    """A page, by default in a browser of its own (cookies, cache), and what was seen of it."""

    page: Page
    documents: list[str] = field(default_factory=list)
    websockets: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Answers of 400 and above, as `STATUS URL`."""

    @classmethod
    async def begin(cls, browser: Browser, url: str) -> "Visit":
        """Open `url` with a fresh context and wait until the page's socket has shaken hands."""
        context = await browser.new_context(accept_downloads=True)
        await context.add_init_script(WATCH_POPUP)
        return await cls.begin_in(context, url)

    @classmethod
    async def begin_in(cls, context: BrowserContext, url: str) -> "Visit":
        """Open `url` in one more tab of `context` and wait until the page's socket has shaken hands."""
        visit = cls(await context.new_page())
        visit.page.on("request", visit._on_request)
        visit.page.on("response", visit._on_response)
        visit.page.on("websocket", visit._on_websocket)
        visit.page.on("console", visit._on_console)
        visit.page.on("pageerror", lambda error: visit.complaints.append(f"page error: {error}"))
        await visit.page.goto(url, timeout=PAGE_LIMIT_MS)
        await visit.connected()
        return visit

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        if request.is_navigation_request() and request.frame == self.page.main_frame:
            self.documents.append(request.url)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.failures.append(f"{response.status} {response.url}")

    def _on_websocket(self, websocket: WebSocket) -> None:
        self.websockets.append(websocket.url)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.text == LOST or message.text.startswith("reloading because") or message.type == "error":
            self.complaints.append(message.text)

    async def connected(self) -> None:
        """Wait until the page's socket has shaken hands."""
        await self.page.wait_for_function("window.did_handshake === true", timeout=PAGE_LIMIT_MS)

    async def replica(self) -> str:
        """Return the name of the replica that built the page, as the page shows it."""
        return await self.page.get_by_test_id("replica").inner_text()

    async def at(self, name: str) -> None:
        """Wait until the page shows that the replica of that name built it, and its socket has shaken hands."""
        await self.page.wait_for_function(SHOWN_AND_CONNECTED, arg=name, timeout=PAGE_LIMIT_MS)

    async def click(self, expected: int) -> None:
        """Click +1 and expect the counter to show `expected`."""
        await self.page.get_by_test_id("increment").click()
        await expect(self.page.get_by_test_id("count")).to_have_text(str(expected))


async def visits(browser: Browser, url: str, count: int) -> list[Visit]:
    """Open `url` in `count` browsers of their own."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def visit() -> Visit:
        async with gate:
            return await Visit.begin(browser, url)

    return await asyncio.gather(*(visit() for _ in range(count)))


async def visits_to_several(browser: Browser, url: str, count: int) -> list[Visit]:
    """Open `url` in `count` browsers or some more, so that two replicas at least have a page."""
    pages = await visits(browser, url, count)
    while len({await page.replica() for page in pages}) < 2:
        assert len(pages) < 4 * count, "all visitors are sent to one replica"
        pages.append(await Visit.begin(browser, url))
    return pages


async def leave(visits: list[Visit]) -> None:
    """Close the pages: a proxy that is told to end gives open ones time."""
    for visit in visits:
        await visit.page.context.close()


async def sessions(visits: list[Visit]) -> list[str]:
    """Return the ids of the pages' sockets, which change with every reconnect."""
    return [await visit.page.evaluate("window.socket.id") for visit in visits]


async def reconnected(visits: list[Visit], before: list[str]) -> None:
    """Wait until each page has another socket than before; a click in between could be lost, as on any network."""
    for visit, session in zip(visits, before, strict=True):
        await visit.page.wait_for_function(RECONNECTED, arg=session, timeout=PAGE_LIMIT_MS)
