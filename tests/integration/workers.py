"""The real command with several workers: their processes, which of them a client has reached, and its metrics."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stickyproxy.dataplane.shared import GATHER_S

from .command import Command, reserved
from .harness import Peer, soon

QUICK = "import stickyproxy.core.workers as w; w.SILENT_S, w.COVER_S, w.BEAT_S = 1.5, 0.6, 0.2"
"""Makes the supervisor see in a second what takes it ten."""

LOOK_S = 0.01


def about(pid: int, name: str) -> bytes:
    """Read what the kernel tells about a process."""
    return Path(f"/proc/{pid}/{name}").read_bytes()


def children(pid: int) -> list[int]:
    """Give the child processes of a process, zombies too."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def state(pid: int) -> str:
    """Give the state letter of a process; empty where there is none."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


async def until(condition: object, what: str, *, bound_s: float = 20.0) -> None:
    """Look at other processes until they are in a state; they have no event for us."""
    assert callable(condition)
    for _ in range(round(bound_s / LOOK_S)):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"did not happen within {bound_s:g} s: {what}")


def worker_of(running: Command, client: Peer, parent: int = 0) -> int | None:
    """Give the child process (of `parent`, else of the command) that has accepted a connection; None: none yet."""
    _, port = client.writer.get_extra_info("sockname")
    pattern = rf"^\s*\d+: \w+:{running.listen.port:04X} \w+:{port:04X} 01 .*"
    found = re.search(pattern, Path("/proc/net/tcp").read_text(), re.MULTILINE)
    if found is None:
        return None
    link = f"socket:[{found[0].split()[9]}]"
    for pid in children(parent or running.process.pid):
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{number}") == link:
                        return pid
    return None


async def client_at(running: Command, pid: int, parent: int = 0) -> Peer:
    """Connect until a certain worker accepts."""
    for _ in range(200):
        client = await running.client()
        for _ in range(100):  # of an older version, it is seen as accepted by nobody
            if worker_of(running, client, parent) is not None:
                break
            await asyncio.sleep(LOOK_S)
        if worker_of(running, client, parent) == pid:
            return client
        client.drop()
    raise AssertionError("200 connections and none reached the worker")


async def metrics(running: Command) -> dict[str, float]:
    """Scrape; labels stand behind the name as in the text."""
    text = (await running.look("/metrics")).body.decode()
    return {
        s.name + "".join(f"{{{k}={v}}}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


async def ready_with(running: Command, words: str, *, bound_s: float = 20.0) -> None:
    """Wait until /readyz says something."""
    for _ in range(round(bound_s / LOOK_S)):
        if words in (await running.look("/readyz")).body.decode():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"/readyz does not say {words!r} within {bound_s:g} s")


async def told(running: Command) -> None:
    """Wait until every worker has heard what the others have learned by now.

    A worker gathers news for a moment (GATHER_S), and then sends them on the way by which it is asked for its report.
    So the first report that is asked for behind that moment may come before them, a second comes behind them, and by
    a third the others have been told.
    """
    await asyncio.sleep(2 * GATHER_S)
    for _ in range(3):
        await metrics(running)


@asynccontextmanager
async def workers(*arguments: str, count: int = 2, quick: bool = False) -> AsyncIterator[Command]:
    """Run the proxy with workers until the block ends; then nothing of it may be left. count: 0 leaves it open."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STICKYPROXY_")}
    with reserved() as listen, reserved() as admin:
        program = ["-m", "stickyproxy"]
        if quick:
            program = ["-c", f"{QUICK}; from stickyproxy.__main__ import main; main()"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *program, "run", "--listen", str(listen), "--admin", str(admin), "--shutdown-delay", "0",
            *(["--workers", str(count)] if count else []), *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, env=kept, cwd=Path(__file__).parents[2], start_new_session=True,
        )  # fmt: skip
        running = Command(process, listen, admin)
        below: list[int] = []
        try:
            await running.says("serves on")
            yield running
        finally:
            below = children(process.pid)
            if process.returncode is None:
                process.kill()
            await running.close()
            await until(lambda: not any(state(pid) for pid in below), "the workers end with the supervisor")
            await soon(asyncio.sleep(0))
