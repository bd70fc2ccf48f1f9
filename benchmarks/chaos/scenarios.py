"""The scenarios of the bar: each is run on a cluster with open pages and a parallel load, and gives its figures."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.chaos.browser import Browser, Crowd
from benchmarks.chaos.cluster import Cluster, Pod, Times, gather, start
from benchmarks.chaos.load import Load
from benchmarks.chaos.report import Outcome, summary

SETTLE_S = 20.0
"""For every page to be connected again and every click answered, once all is over."""

SPREAD = 2.0
"""Times its even share that a second may hold of the reconnects."""

MANY = 50
"""So many reconnects are enough to judge their spread."""

LONGEST_WAIT_S = 3.0
UNEVEN = 0.2
FLAPS = 5
KILL_EVERY_S = 2.0


@dataclass(frozen=True)
class Plan:
    """How much is run: pages open, pages a second of the parallel load, time for `FLAPS` flaps."""

    pages: int = 200
    load: float = 3.0
    flapping_s: float = 30.0
    killing_s: float = 60.0
    times: Times = field(default_factory=Times)
    seed: int = 1


QUICK = Plan(
    pages=30,
    flapping_s=5.0,
    killing_s=8.0,
    times=Times(shutdown_delay_s=1.5, drain_timeout_s=5.0, pre_stop_s=4.0, pre_stop_idle_s=0.5, slow_start_s=1.0),
)


@dataclass
class Stage:
    """A cluster, its crowd and its load, and the marks from which a scenario counts."""

    plan: Plan
    cluster: Cluster
    crowd: Crowd
    load: Load
    _reloads: dict[int, int] = field(default_factory=dict)
    _waits: dict[int, int] = field(default_factory=dict)
    _problems: dict[int, int] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _began: float = 0.0

    def begin(self) -> None:
        """Count from now on."""
        for browser in self.crowd.browsers:
            self._reloads[id(browser)] = browser.reloads
            self._waits[id(browser)] = len(browser.waits)
            self._problems[id(browser)] = len(browser.problems)
        self._counts = Counter(clicks=self._sum("clicks"), replayed=self._sum("replayed"))
        self._counts |= Counter(requests=self.load.requests, errors=len(self.load.errors))
        self._began = time.monotonic()

    def _sum(self, name: str) -> int:
        return sum(getattr(browser, name) for browser in self.crowd.browsers)

    def reloads(self, browser: Browser) -> int:
        """Count a page's reloads since the mark."""
        return browser.reloads - self._reloads.get(id(browser), 0)

    def waits(self) -> list[float]:
        """Give how long pages were without a working socket since the mark."""
        now = time.monotonic()
        waits = [wait for b in self.crowd.browsers for wait in b.waits[self._waits.get(id(b), 0) :]]
        return waits + [now - b.waiting_since for b in self.crowd.browsers if b.waiting_since is not None]

    def reconnects(self, since: float) -> list[float]:
        """Give the seconds from a moment on at which pages had a socket again."""
        return sorted(at - since for b in self.crowd.browsers for at in b.opened_at[1:] if at >= since)

    def losses(self, since: float) -> list[float]:
        """Give the seconds from a moment on at which pages lost their socket."""
        return sorted(at - since for b in self.crowd.browsers for at in b.lost_at if at >= since)

    async def finish(self, outcome: Outcome, *, crash: bool = False) -> None:
        """Wait until all is quiet, then add what every scenario must keep: clicks, and HTTP errors of the load.

        crash: what was on its way through a process that was killed may be lost.
        """
        settled = await self.crowd.settled(SETTLE_S, answered=not crash)
        crowd, load = self.crowd.browsers, self.load
        outcome.figure("pages", len(crowd))
        outcome.exact("pages without a socket at the end", sum(not b.connected.is_set() for b in crowd), 0)
        clicks = self._sum("clicks") - self._counts["clicks"]
        outcome.figure("clicks", clicks)
        outcome.figure("of these kept and sent later", self._sum("replayed") - self._counts["replayed"])
        lost = sum(max(0, b.unanswered) for b in crowd)
        if not crash:
            for browser in [b for b in crowd if b.unanswered][:3]:
                outcome.notes.append(f"a click was lost: {browser.tale(self._began)}")
        for browser in crowd:
            browser.forget_unanswered()
        requests, errors = load.requests - self._counts["requests"], load.errors[self._counts["errors"] :]
        outcome.figure("requests", requests)
        for name, count in (("clicks lost", lost), ("HTTP errors", len(errors))):
            if crash:
                outcome.figure(name, count)
            else:
                outcome.exact(name, count, 0)
        if errors:
            outcome.notes.append(f"HTTP errors: {summary([text for _, text in errors])}")
        if waits := self.waits():
            longest = max(crowd, key=lambda b: max(b.waits[self._waits.get(id(b), 0) :], default=0.0))
            if max(waits) > LONGEST_WAIT_S:
                outcome.notes.append(f"the longest wait: {longest.tale(self._began)}")
        if not settled and not crash:
            outcome.notes.append("some pages had no socket or no answer when the time was up")
        problems = [text for b in crowd for text in b.problems[self._problems.get(id(b), 0) :]]
        if problems:
            outcome.notes.append(f"pages: {summary(problems)}")

    def reloaded(self, among: Iterable[Browser] | None = None) -> int:
        """Count reloads since the mark."""
        return sum(self.reloads(browser) for browser in (self.crowd.browsers if among is None else among))

    def most_reloads(self) -> int:
        """Give the most reloads of one page since the mark."""
        return max(self.reloads(browser) for browser in self.crowd.browsers)

    def pages_of(self, pod: Pod) -> list[Browser]:
        """Give the pages that live on a pod."""
        return [b for b in self.crowd.browsers if b.replicas and b.replicas[-1] == pod.name]


@asynccontextmanager
async def staged(plan: Plan, pods: int, pages: int, *, proxies: int = 2, workers: int = 1) -> AsyncIterator[Stage]:
    """Run a cluster with so many pods, two proxies, open pages and a load."""
    rng = random.Random(plan.seed)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=30)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        async with (
            Cluster(Path(folder), plan.times, rng) as cluster,
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as http,
        ):
            cluster.workers = workers
            await start(cluster, pods, proxies)
            crowd = Crowd(cluster.service.url, http, rng, plan.times.click_s)
            try:
                await crowd.join(pages)
                async with Load(cluster.service.url, plan.load, rng) as load:
                    stage = Stage(plan, cluster, crowd, load)
                    stage.begin()
                    yield stage
                    crowd.check()
            finally:
                await crowd.leave()


# (a)


def spread(outcome: Outcome, name: str, at: list[float], span_s: float, *, judged: bool = True) -> None:
    """Hold ends or reconnects against their even share in each second of the time that they were to be spread over."""
    if not at:
        return
    share = len(at) / span_s
    fullest = max(Counter(int(one - min(at)) for one in at).values())
    what, shares = f"{name} in even shares of {share:.1f}/s: fullest second", round(fullest / share, 2)
    if judged:
        outcome.bar(what, shares, SPREAD)
    else:
        outcome.figure(what, shares)


async def proxies_restart(stage: Stage) -> Outcome:
    """Restart both proxies one after the other: end, start, ready."""
    outcome = Outcome("rolling restart of both proxies")
    stage.begin()
    for number, proxy in enumerate(list(stage.cluster.proxies), 1):
        began = time.monotonic()
        await stage.cluster.end_proxy(proxy)
        took = time.monotonic() - began
        outcome.figure(f"proxy {number} ended after", f"{took:.1f}s")
        await stage.cluster.start_proxy()
        await stage.crowd.settled(SETTLE_S)
        reconnects, span_s = stage.reconnects(began), stage.plan.times.drain_timeout_s
        spread(outcome, f"{len(reconnects)} sockets ended by it", stage.losses(began), span_s)
        # Browsers wait for 0.5-1.5 s by lot: of a few that says nothing about the proxy.
        spread(outcome, "reconnects", reconnects, span_s, judged=len(reconnects) >= MANY)
    await stage.finish(outcome)
    outcome.exact("reloads", stage.reloaded(), 0)
    outcome.figure("longest wait", f"{max(stage.waits(), default=0):.1f}s")
    return outcome


# (b)


async def backends_roll(stage: Stage) -> Outcome:
    """Replace all pods: maxSurge 1, maxUnavailable 0; a pod that terminates no longer counts, as in a Deployment."""
    outcome = Outcome("rolling replacement of all backends")
    cluster = stage.cluster
    stage.begin()
    old = list(cluster.pods)
    cluster.new_revision()
    async with asyncio.TaskGroup() as ending:
        for pod in old:
            await cluster.start_pod()
            ending.create_task(cluster.end_pod(pod))
    await stage.finish(outcome)
    outcome.figure("reloads", stage.reloaded())
    outcome.bar("most reloads of a page", stage.most_reloads(), 1)
    outcome.bar("longest wait", round(max(stage.waits(), default=0), 2), LONGEST_WAIT_S, "s")
    left = Counter(b.replicas[-1] for b in stage.crowd.browsers)
    outcome.figure("pages for each pod", "/".join(str(left[pod.name]) for pod in cluster.pods))
    return outcome


# (c)


async def backend_killed(stage: Stage) -> Outcome:
    """Kill a backend; its container is started again."""
    outcome = Outcome("SIGKILL of a backend")
    stage.begin()
    pod = stage.cluster.pods[0]
    victims = stage.pages_of(pod)
    others = [b for b in stage.crowd.browsers if b not in victims]
    reconnects = sum(len(b.opened_at) for b in others)
    await stage.cluster.kill_pod(pod)
    await stage.finish(outcome, crash=True)
    outcome.figure("pages of it", len(victims))
    outcome.exact("pages of it that reloaded exactly once", sum(stage.reloads(b) == 1 for b in victims), len(victims))
    outcome.exact("reloads of others", stage.reloaded(others), 0)
    outcome.exact("reconnects of others", sum(len(b.opened_at) for b in others) - reconnects, 0)
    outcome.figure("longest wait", f"{max(stage.waits(), default=0):.1f}s")
    return outcome


async def proxy_killed(stage: Stage) -> Outcome:
    """Kill a proxy behind something that tries the next one where a connection is refused, as ingresses do."""
    return await _proxy_killed(stage, retries=True)


async def proxy_killed_bare(stage: Stage) -> Outcome:
    """Kill a proxy behind kube-proxy alone, which goes on sending connections there until it hears of the end."""
    return await _proxy_killed(stage, retries=False)


async def _proxy_killed(stage: Stage, *, retries: bool) -> Outcome:
    outcome = Outcome(f"SIGKILL of a proxy behind {'an ingress' if retries else 'kube-proxy alone'}")
    cluster = stage.cluster
    cluster.service.retries = retries
    stage.begin()
    refused = cluster.service.refused
    began = time.monotonic()
    cluster.kill_proxy(cluster.proxies[0])
    await asyncio.sleep(cluster.service.delay_s)
    await stage.crowd.settled(SETTLE_S, answered=False)
    lost = len(stage.reconnects(began))
    await cluster.start_proxy()
    await stage.finish(outcome, crash=True)
    cluster.service.retries = False
    outcome.figure("reconnects", lost)
    outcome.figure("connections refused", cluster.service.refused - refused)
    if retries:
        outcome.exact("reloads", stage.reloaded(), 0)
    else:
        outcome.figure("reloads", stage.reloaded())
    outcome.figure("longest wait", f"{max(stage.waits(), default=0):.1f}s")
    return outcome


# (d)


async def readiness_flaps(stage: Stage) -> Outcome:
    """Let a backend's readiness fail and come back; some of its pages lose their network meanwhile."""
    outcome = Outcome(f"readiness of a backend flaps {FLAPS} times in {stage.plan.flapping_s:g} s")
    cluster, half_s = stage.cluster, stage.plan.flapping_s / FLAPS / 2
    stage.begin()
    moved = await cluster.metric("stickyproxy_moves_total")
    pod = cluster.pods[0]
    pages = stage.pages_of(pod)
    asked: list[str] = []
    for number in range(FLAPS):
        for ready in (False, True):
            cluster.set_ready(pod, ready)
            for browser in pages[number::FLAPS]:
                browser.sever()
                asked.append(await _replica_for(stage, browser))
            await asyncio.sleep(half_s)
    await stage.finish(outcome)
    outcome.figure("pages of it", len(pages))
    outcome.figure("sockets broken meanwhile", len(asked))
    outcome.exact("documents with its cookie from elsewhere", sum(name != pod.name for name in asked), 0)
    outcome.exact("reloads", stage.reloaded(), 0)
    outcome.exact("pins moved", await cluster.metric("stickyproxy_moves_total") - moved, 0)
    return outcome


async def _replica_for(stage: Stage, browser: Browser) -> str:
    """Ask for a document with a page's cookie, as another tab would; give who built it."""
    cookie = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    headers = {"Cookie": cookie, "Sec-Fetch-Mode": "navigate"}
    async with stage.cluster.http.get(stage.cluster.service.url, headers=headers) as response:
        text = await response.text()
    return next((pod.name for pod in stage.cluster.pods if f'"{pod.name}"' in text), f"{response.status}")


# (e)


async def scales(stage: Stage) -> Outcome:
    """Scale from 1 to 5 and down to 2; all but a tenth of the pages come after the slow start.

    The tenth is less than an even share even if all of it came through one proxy: each proxy balances what it sees,
    and sessions that live are never moved to make a count even.
    """
    outcome = Outcome("scale 1 -> 5 -> 2")
    cluster, crowd = stage.cluster, stage.crowd
    stage.begin()
    first = list(crowd.browsers)
    await gather(cluster.start_pod() for _ in range(4))
    await asyncio.sleep(stage.plan.times.slow_start_s)
    outcome.exact("reloads at 1 -> 5", stage.reloaded(first), 0)
    await crowd.join(stage.plan.pages - len(first))
    even = len(crowd.browsers) / len(cluster.pods)
    counts = [len(stage.pages_of(pod)) for pod in cluster.pods]
    outcome.figure("pages for each of 5 pods", "/".join(map(str, counts)))
    uneven = max(abs(count - even) for count in counts) / even
    whole = len(cluster.proxies) / even  # each proxy gives away whole pages, and so may be one off
    outcome.bar("furthest from even", round(uneven, 2), max(UNEVEN, round(whole, 2)))
    stage.begin()
    leaving = cluster.pods[2:]
    leavers = {pod.name: pod for pod in leaving}
    homes = {id(b): b.replicas[-1] for b in crowd.browsers}
    await gather(cluster.end_pod(pod) for pod in leaving)
    await stage.finish(outcome)
    staying = [b for b in crowd.browsers if homes[id(b)] not in leavers]
    going = [b for b in crowd.browsers if homes[id(b)] in leavers]
    early = sum(b.reloaded_at[-1] < leavers[homes[id(b)]].terminated_at for b in going if stage.reloads(b))
    outcome.exact("reloads at 5 -> 2 of pages whose pod stays", stage.reloaded(staying), 0)
    outcome.exact(
        "pages whose pod leaves that reloaded exactly once", sum(stage.reloads(b) == 1 for b in going), len(going)
    )
    outcome.exact("of these before it left", early, 0)
    outcome.bar("longest wait", round(max(stage.waits(), default=0), 2), LONGEST_WAIT_S, "s")
    return outcome


async def workers_killed(stage: Stage) -> Outcome:
    """Kill one of a proxy's workers every two seconds: pages reconnect to the others, and lose nothing."""
    outcome = Outcome(f"SIGKILL of a worker every {KILL_EVERY_S:g} s for {stage.plan.killing_s:g} s")
    stage.begin()
    began = time.monotonic()
    kills = 0
    while time.monotonic() - began < stage.plan.killing_s:
        stage.cluster.kill_worker()
        kills += 1
        await asyncio.sleep(KILL_EVERY_S)
    await stage.finish(outcome, crash=True)
    outcome.figure("kills", kills)
    outcome.figure("reconnects", len(stage.reconnects(began)))
    restarts = await stage.cluster.metric("stickyproxy_worker_restarts_total")
    outcome.exact("workers replaced", restarts, kills)
    outcome.exact("reloads", stage.reloaded(), 0)
    outcome.figure("longest wait", f"{max(stage.waits(), default=0):.1f}s")
    return outcome


Scenario = Callable[[Stage], Awaitable[Outcome]]

SCENARIOS: dict[str, Scenario] = {
    "proxies": proxies_restart,
    "backends": backends_roll,
    "kill-backend": backend_killed,
    "kill-proxy": proxy_killed,
    "kill-proxy-bare": proxy_killed_bare,
    "flapping": readiness_flaps,
    "scale": scales,
    "kill-workers": workers_killed,
}


async def run(names: Iterable[str], plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Run scenarios one after another; those that need three pods share one cluster and its pages."""
    outcomes: list[Outcome] = []

    async def one(name: str, stage: Stage) -> None:
        outcome = await SCENARIOS[name](stage)
        outcomes.append(outcome)
        say(outcome.line())
        for note in outcome.notes:
            say(f"  note: {note}")
        if not outcome.held:
            for line in [line for line in stage.cluster.logs if "INFO" not in line][-20:]:
                say(f"  log: {line}")

    wanted = list(names)
    shared = [name for name in wanted if name not in ("scale", "kill-workers")]
    if shared:
        async with staged(plan, 3, plan.pages) as stage:
            for name in shared:
                await one(name, stage)
    if "scale" in wanted:
        async with staged(plan, 1, plan.pages // 10) as stage:
            await one("scale", stage)
    if "kill-workers" in wanted:
        async with staged(plan, 3, plan.pages, proxies=1, workers=2) as stage:
            await one("kill-workers", stage)
    return outcomes
