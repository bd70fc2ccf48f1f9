"""A Service with 1,000 endpoints: how soon a change is in force, and how much memory it takes."""

import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from integration.command import command

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.endpoint_slices import ServiceRef
from stickyproxy.core.settings import Settings
from stickyproxy.dataplane.proxy import Proxy
from stickyproxy.tools.children import leashed

from .api import Endpoint, Namespace
from .follow import Followed, following

SLICES, EACH = 10, 100  # 100 endpoints are the most that Kubernetes' controller puts into one slice

ROUNDS = 20

IN_FORCE_S = 0.050
"""From the API server's event to the snapshot; the median of the rounds, as other processes use this machine too."""

RESIDENT_MB = 100

EVENT_LIMIT_S = 30.0


def pods(number: int) -> list[Endpoint]:
    """Give the endpoints of one slice, with names and UIDs as long as real ones."""
    return [
        Endpoint(
            f"10.{number}.0.{index + 1}",
            f"{number:08x}-1111-4222-8333-{index:012x}",
            f"my-nicegui-app-7d4b9c6f5d-{number:02d}{index:03d}",
        )
        for index in range(EACH)
    ]


async def make_thousand(namespace: Namespace) -> None:
    """Make the Service and its slices."""
    await namespace.make_service()
    for number in range(SLICES):
        await namespace.make_slice(f"app-{number}", pods(number))


@asynccontextmanager
async def plain_watch(namespace: Namespace) -> AsyncIterator[asyncio.StreamReader]:
    """Watch the slices in another process."""
    listed = await namespace.api.call("GET", namespace.slices)
    version = listed["metadata"]["resourceVersion"]
    certificates = namespace.plane.certificates
    process = await asyncio.create_subprocess_exec(
        *leashed(
            [
                sys.executable, str(Path(__file__).parent / "plainwatch.py"), str(namespace.plane.port),
                str(certificates.authority), str(certificates.admin.certificate), str(certificates.admin.key),
                f"{namespace.slices}?watch=1&resourceVersion={version}",
            ]
        ),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(EVENT_LIMIT_S):
            assert await process.stdout.readline() == b"watching\n"
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def frozen() -> Iterator[Callable[[], None]]:
    """Give what keeps the garbage collector from all that is here already, as the app does when it begins to serve."""
    yield gc.freeze
    gc.unfreeze()


async def test_a_change_of_one_pod_of_a_thousand_is_in_force_within_50_ms_of_its_event(
    namespace: Namespace, frozen: Callable[[], None]
) -> None:
    """Measured against a plain watch; `in force` is the proxy's own snapshot."""
    proxy = Proxy(Settings(), Random(1))
    applied: list[float] = []

    class Timed(Followed):
        def _apply(self, backends: object) -> None:
            assert isinstance(backends, list)
            proxy.apply(backends)
            applied.append(time.monotonic())
            super()._apply(backends)

    connect = await namespace.account_connect()
    await make_thousand(namespace)
    frozen()
    took: list[float] = []
    async with plain_watch(namespace) as events, following(Timed(ServiceRef("", "app"), connect)) as followed:
        await followed.until(lambda: not followed.problem)
        assert len(proxy.snapshot.ready) == SLICES * EACH
        for round_ in range(ROUNDS):
            number, paused = round_ % SLICES, round_ % EACH
            changed = pods(number)
            one = changed[paused]
            changed[paused] = Endpoint(one.address, one.uid, one.pod, ready=False, serving=False)
            before = len(applied)
            made = await namespace.change_slice(f"app-{number}", changed)
            async with asyncio.timeout(EVENT_LIMIT_S):
                came, version = json.loads(await events.readline())
            assert version == made["metadata"]["resourceVersion"]
            await followed.until(lambda before=before: len(applied) > before)
            backend: Backend = proxy.snapshot.by_identity[one.uid]
            assert backend.phase is Phase.PAUSED
            took.append(applied[-1] - came)
    median, worst = statistics.median(took), max(took)
    print(f"in force after the event, 1,000 endpoints: median {median * 1000:.1f} ms, most {worst * 1000:.1f} ms")
    assert median <= IN_FORCE_S, f"{ROUNDS} rounds, ms: {[round(s * 1000, 1) for s in took]}"


async def test_the_command_stays_below_100_mb_with_a_thousand_endpoints(namespace: Namespace) -> None:
    """After the first list, some changes, and a few more lists."""
    await namespace.make_account()
    await make_thousand(namespace)
    kubeconfig = await namespace.write_kubeconfig()
    options = ("--kubernetes-service", f"{namespace.name}/app")
    async with command(*options, environment={"KUBECONFIG": str(kubeconfig)}) as running:
        await running.says(f"has {SLICES * EACH} backends")
        await running.says("is followed")
        for left in range(1, 6):
            await namespace.change_slice("app-0", pods(0)[left:])
            await running.says(f"has {SLICES * EACH - left} backends")
        assert f"ready: {SLICES * EACH - 5} of" in (await running.look("/readyz")).body.decode()
        assert (await running.look("/metrics")).status == 200
        resident = resident_mb(running.process.pid)
    print(f"resident with 1,000 endpoints: {resident:.1f} MB")
    assert resident <= RESIDENT_MB


def resident_mb(pid: int) -> float:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


GARBAGE_S = 0.030
"""A full round of the garbage collector: it stops everything. Without its modules the proxy has little to walk through;
with them it was measured at 0.1 s."""

TIMED = f"""
import atexit, gc, time
from stickyproxy.__main__ import main

def collect():
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        gc.collect()
        took.append(time.perf_counter() - begin)
    assert min(took) < {GARBAGE_S}, took
    print("garbage collected in", took, flush=True)

atexit.register(collect)
main()
"""


async def test_a_full_round_of_the_garbage_collector_is_short(namespace: Namespace) -> None:
    """The real command with a thousand endpoints, asked at its end."""
    await namespace.make_account()
    await make_thousand(namespace)
    environment = {**os.environ, "KUBECONFIG": str(await namespace.write_kubeconfig())}
    process = await asyncio.create_subprocess_exec(
        *leashed(
            [
                sys.executable, "-c", TIMED, "run", "--kubernetes-service", f"{namespace.name}/app",
                "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain-timeout", "1s",
            ]
        ),
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(EVENT_LIMIT_S):
            while b"is followed" not in (line := await process.stderr.readline()):
                assert line, "ended early"
            process.terminate()
            printed, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"garbage collected in" in printed, said.decode()
