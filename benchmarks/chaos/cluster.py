"""A cluster in miniature: pods of NiceGUI, their EndpointSlices as the controller writes them, two proxies, a Service.

Laws: a pod leaves as in Kubernetes: terminating and serving while its preStop hook runs, then SIGTERM, then absent; a
proxy's Service hears of a change later than it happens; every process ends with the block that started it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.chaos.service import Service
from stickyproxy.tools.children import Child, free_port
from tests.fakes.kubernetes import FakeApi
from tests.fakes.slices import endpoint, make_slice

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).parent / "app.py"
SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes random names of (apimachinery's util/rand)."""

START_S = 60.0
PROBE_S = 0.25
"""Between two readiness probes while a pod starts; Kubernetes' shortest period is a second, which would only delay."""

GRACE_S = 30.0
"""Between SIGTERM and SIGKILL, Kubernetes' default."""


@dataclass(frozen=True)
class Times:
    """What is shortened against a real deployment; seconds."""

    view_s: float = 1.0
    """Until the Service acts on a change of its endpoints."""
    shutdown_delay_s: float = 2.0
    drain_timeout_s: float = 10.0
    pre_stop_s: float = 8.0
    """Longest time of the app's preStop hook, `stickyproxy drain --wait`."""
    pre_stop_idle_s: float = 1.0
    slow_start_s: float = 3.0
    click_s: float = 5.0

    def told(self) -> str:
        """Say what was shortened."""
        return (
            f"shortened: --shutdown-delay {self.shutdown_delay_s:g}s (5s), --drain-timeout {self.drain_timeout_s:g}s "
            f"(20s), --slow-start {self.slow_start_s:g}s (30s), preStop stickyproxy drain --wait {self.pre_stop_s:g}s "
            f"--idle {self.pre_stop_idle_s:g}s; the Service follows endpoints after {self.view_s:g}s"
        )


@dataclass(eq=False)
class Pod:
    """One replica of the app."""

    name: str
    port: int
    child: Child
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    ready: bool = False
    terminating: bool = False
    terminated_at: float = 0.0
    """When its end was ordered (monotonic time)."""


@dataclass(eq=False)
class ProxyPod:
    """One replica of the proxy."""

    port: int
    admin_port: int
    child: Child
    ready: bool = False

    @property
    def admin(self) -> str:
        """Give the admin port's address."""
        return f"127.0.0.1:{self.admin_port}"


class Cluster:
    """Runs while the block lasts; `logs` is what the processes printed."""

    def __init__(self, folder: Path, times: Times, random: random.Random) -> None:
        self.times = times
        self.workers = 1  # of each proxy
        self.random = random
        self.api = FakeApi()
        self.service = Service(times.view_s)
        self.pods: list[Pod] = []
        self.proxies: list[ProxyPod] = []
        self.logs: list[str] = []
        self._folder = folder
        self._stack = AsyncExitStack()
        self._children: list[Child] = []
        self._ports: set[int] = set()
        self._revision = self._word(9)
        self._environment: dict[str, str] = {}

    async def __aenter__(self) -> Cluster:
        await self._stack.enter_async_context(self.api)
        await self._stack.enter_async_context(self.service)
        self._stack.push_async_callback(self._end_all)
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        hidden = ("STICKYPROXY_", "NICEGUI_", "PYTEST_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self._environment |= {"KUBECONFIG": str(self.api.kubeconfig(self._folder)), "PYTHONUNBUFFERED": "1"}
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _end_all(self) -> None:
        for child in self._children:
            child.signal(signal.SIGKILL)
        await asyncio.gather(*(child.end() for child in self._children))

    # The app's Deployment.

    def new_revision(self) -> None:
        """Change the pod template: pods that start from now on belong to another ReplicaSet."""
        self._revision = self._word(9)

    async def start_pod(self) -> Pod:
        """Start a pod and wait until it is ready and published."""
        name = f"app-{self._revision}-{self._word(5)}"
        port = self._port()
        child = self._child(name, [sys.executable, str(APP), "--port", str(port), "--replica", name])
        pod = Pod(name, port, child)
        self.pods.append(pod)
        self.publish(pod)
        await self._run(pod)
        return pod

    async def _run(self, pod: Pod) -> None:
        """Start a pod's container and wait until it is ready."""
        await pod.child.start(self._environment)
        async with asyncio.timeout(START_S):
            await pod.child.ready.wait()
            while not await self._answers(pod.port):  # noqa: ASYNC110  a probe polls
                await asyncio.sleep(PROBE_S)
        self.set_ready(pod, True)

    async def _answers(self, port: int) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    def set_ready(self, pod: Pod, ready: bool) -> None:
        """Let a pod's readiness probe succeed or fail."""
        pod.ready = ready
        self.publish(pod)

    def publish(self, pod: Pod) -> None:
        """Write the pod's slice: one for each, as their ports differ, which pods of a real cluster need not."""
        conditions = {
            "ready": pod.ready and not pod.terminating,
            "serving": pod.ready,
            "terminating": pod.terminating,
        }
        self.api.put(
            make_slice(
                f"app-{pod.name}",
                [endpoint("127.0.0.1", pod.uid, name=pod.name, **conditions)],
                ports=[{"name": "http", "port": pod.port, "protocol": "TCP"}],
            )
        )

    async def end_pod(self, pod: Pod) -> None:
        """Delete a pod as Kubernetes does; return when it is gone."""
        pod.terminating = True
        pod.terminated_at = time.monotonic()
        self.publish(pod)
        await self._pre_stop(pod)
        pod.child.signal(signal.SIGTERM)
        self.set_ready(pod, False)
        await self._gone(pod.child)
        self._forget(pod)

    async def _pre_stop(self, pod: Pod) -> None:
        """Run what a preStop hook would: `stickyproxy drain` against all proxies."""
        command = [sys.executable, "-m", "stickyproxy", "drain", "--backend", pod.name]
        command += ["--wait", f"{self.times.pre_stop_s:g}s", "--idle", f"{self.times.pre_stop_idle_s:g}s"]
        for proxy in self.proxies:
            command += ["--proxy", proxy.admin]
        child = self._child(f"preStop of {pod.name}", command)
        await child.start(self._environment)
        await child.ended()

    async def kill_pod(self, pod: Pod) -> None:
        """Let a pod's container crash; its endpoint is unready when the kubelet knows, then it is started again."""
        pod.child.signal(signal.SIGKILL)
        await pod.child.ended()
        await asyncio.sleep(self.times.view_s)
        self.set_ready(pod, False)
        await self._run(pod)

    def _forget(self, pod: Pod) -> None:
        self.api.delete(f"app-{pod.name}")
        self.pods.remove(pod)

    async def _gone(self, child: Child) -> None:
        try:
            await asyncio.wait_for(child.ended(), GRACE_S)
        except TimeoutError:
            self.logs.append(f"{child.name}: did not end within {GRACE_S:g} s of SIGTERM, killed")
            child.signal(signal.SIGKILL)
            await child.ended()

    # The proxies.

    async def start_proxy(self) -> ProxyPod:
        """Start a proxy and wait until the Service sends connections there."""
        port, admin_port = self._port(), self._port()
        times = self.times
        command = [
            sys.executable, "-m", "stickyproxy", "run", "--kubernetes-service", "shop/app:http",
            "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}",
            "--shutdown-delay", f"{times.shutdown_delay_s:g}s", "--drain-timeout", f"{times.drain_timeout_s:g}s",
            "--slow-start", f"{times.slow_start_s:g}s", "--secret", "the same in every replica",
            "--workers", str(self.workers),
        ]  # fmt: skip
        proxy = ProxyPod(port, admin_port, self._child(f"proxy-{port}", command))
        await proxy.child.start(self._environment)
        async with asyncio.timeout(START_S):
            while not await self._probe(proxy):  # noqa: ASYNC110  a probe polls
                await asyncio.sleep(PROBE_S)
        proxy.ready = True
        self.proxies.append(proxy)
        self.service.see([p.port for p in self.proxies])
        await asyncio.sleep(self.service.delay_s)
        return proxy

    async def _probe(self, proxy: ProxyPod) -> bool:
        try:
            async with self.http.get(f"http://{proxy.admin}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def end_proxy(self, proxy: ProxyPod) -> None:
        """Delete a proxy's pod as Kubernetes does; return when it is gone."""
        self.proxies.remove(proxy)
        self.service.see([p.port for p in self.proxies])
        proxy.child.signal(signal.SIGTERM)
        await self._gone(proxy.child)

    def kill_proxy(self, proxy: ProxyPod) -> None:
        """Let a proxy crash; the Service hears of it after its delay."""
        self.proxies.remove(proxy)
        proxy.child.signal(signal.SIGKILL)
        self.service.see([p.port for p in self.proxies])

    def kill_worker(self) -> None:
        """Let a worker crash, any of those that there are."""
        pids = [
            int(pid)
            for proxy in self.proxies
            for pid in Path(f"/proc/{proxy.child.pid}/task/{proxy.child.pid}/children").read_text().split()
        ]
        with suppress(ProcessLookupError):  # it is being replaced right now
            os.kill(self.random.choice(pids), signal.SIGKILL)

    async def metric(self, name: str) -> float:
        """Sum a counter's samples over all proxies."""
        total = 0.0
        for proxy in self.proxies:
            async with self.http.get(f"http://{proxy.admin}/metrics") as response:
                for line in (await response.text()).splitlines():
                    if line.startswith(name):
                        total += float(line.split()[-1])
        return total

    # Processes.

    def _child(self, name: str, command: list[str]) -> Child:
        child = Child(name, command, lambda line: self.logs.append(f"{name}: {line}"))
        self._children.append(child)
        return child

    def _port(self) -> int:
        port = free_port("127.0.0.1", self._ports)
        self._ports.add(port)
        return port

    def _word(self, length: int) -> str:
        return "".join(self.random.choice(SAFE) for _ in range(length))


async def start(cluster: Cluster, pods: int, proxies: int = 2) -> None:
    """Start so many pods and proxies."""
    await gather(cluster.start_pod() for _ in range(pods))
    await gather(cluster.start_proxy() for _ in range(proxies))


async def gather(work: Iterable[object]) -> None:
    """Run things at the same time; the first failure is raised."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)  # type: ignore[arg-type]
