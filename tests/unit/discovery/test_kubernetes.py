import asyncio
import gc
import json
import logging
import selectors
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from fakes.kubernetes import CERTIFICATE, OTHER_CERTIFICATE, Answer, FakeApi, Pulse, forbidden
from fakes.slices import endpoint, make_slice

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.endpoint_slices import ServiceRef
from stickyproxy.core.events import Happening, Kind
from stickyproxy.discovery.kubernetes import (
    LONGEST_BACKOFF_S,
    SHORTEST_BACKOFF_S,
    Access,
    Connect,
    DiscoveryError,
    KubernetesDiscovery,
    connect,
)

A, B, C = (endpoint(f"10.0.0.{n}", uid) for n, uid in enumerate("abc", 1))
APP = ServiceRef("shop", "app")
NEVER_S = 3600.0

OLD_LIST = Answer(body=json.dumps({"metadata": {"resourceVersion": "101"}, "items": [make_slice("one", [A])]}).encode())
"""The list of the moment after the first change."""


class Beats(logging.Handler):
    """Beats whenever discovery says something: whatever changes its status is logged."""

    def __init__(self, pulse: Pulse) -> None:
        super().__init__()
        self.pulse = pulse
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))
        self.pulse.beat()


class Following:
    """A discovery that runs against a fake API server, and what came of it."""

    def __init__(
        self, api: FakeApi, service: ServiceRef, connect: Connect, shortest_s: float, silence_s: float
    ) -> None:
        self.api = api
        self.sets: list[list[Backend]] = []
        self.told: list[Happening] = []
        self.failures_to_come = 0
        self.beats = Beats(api.pulse)
        self.discovery = KubernetesDiscovery(
            service, self._apply, Random(1), connect,
            shortest_backoff_s=shortest_s, silence_s=silence_s, saw=self.told.extend,
        )  # fmt: skip
        self.task = asyncio.ensure_future(self.discovery.run())

    def _apply(self, backends: Sequence[Backend]) -> None:
        self.api.pulse.beat()
        if self.failures_to_come:
            self.failures_to_come -= 1
            raise RuntimeError("told to fail")
        self.sets.append(list(backends))

    @property
    def now(self) -> list[str] | None:
        """Give the identities in force; None while nothing was applied."""
        return [backend.identity for backend in self.sets[-1]] if self.sets else None

    @property
    def problem(self) -> str:
        return self.discovery.status.problem

    async def has(self, *identities: str) -> None:
        await self.api.pulse.until(lambda: self.now == list(identities), f"{identities}, found {self.now}")

    async def is_healthy(self) -> None:
        await self.api.pulse.until(lambda: not self.problem, f"healthy, found {self.problem}")
        assert self.discovery.status.reason == ""

    async def says(self, reason: str) -> str:
        """Wait for a problem; give its text, which is one line."""
        await self.api.pulse.until(
            lambda: self.discovery.status.reason == reason, f"{reason}, found {self.discovery.status}"
        )
        assert self.problem
        assert self.problem.isprintable()
        return self.problem

    def logged(self, level: int) -> list[str]:
        return [line for at, line in self.beats.lines if at == level]


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as api:
        yield api


@asynccontextmanager
async def following(
    api: FakeApi,
    service: ServiceRef = APP,
    connect: Connect | None = None,
    *,
    shortest_s: float = 0.001,
    silence_s: float = NEVER_S,
) -> AsyncIterator[Following]:
    """Run a discovery until the block ends, and see that nothing of it is left."""
    log = logging.getLogger("stickyproxy.discovery")
    before = asyncio.all_tasks(), log.level
    found = Following(api, service, connect or api.connect, shortest_s, silence_s)
    log.addHandler(found.beats)
    log.setLevel(logging.INFO)
    try:
        yield found
        assert not found.task.done(), "discovery never ends by itself"
    finally:
        found.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await found.task
        log.removeHandler(found.beats)
        log.setLevel(before[1])
    await api.deserted()
    gc.collect()  # an unclosed session or socket says so now, which fails the test
    left = {repr(task) for task in asyncio.all_tasks() - before[0]}
    assert not {task for task in left if "RequestHandler" not in task}, "no task but those of the fake's own"


# What is followed.


async def test_the_first_list_is_applied_whole(api: FakeApi) -> None:
    api.put(
        make_slice("one", [A, endpoint("10.0.0.2", "b", ready=False, serving=False)]),
        make_slice("two", [endpoint("10.0.0.3", "c", ready=False, serving=True, terminating=True)]),
        make_slice("else", [endpoint("10.0.9.9", "x")], service="other"),
        make_slice("one", [endpoint("10.0.9.9", "y")], namespace="elsewhere"),
    )
    async with following(api) as found:
        await found.has("a", "b", "c")
        assert found.discovery.status.source == "Kubernetes Service shop/app"
        await found.is_healthy()
    assert len(found.sets) == 1
    assert [backend.phase for backend in found.sets[0]] == [Phase.READY, Phase.PAUSED, Phase.DRAINING]
    assert [seen.version for seen in api.seen] == ["", "104"], "a list of what is now, and a watch from there on"
    assert {seen.query["labelSelector"] for seen in api.seen} == {"kubernetes.io/service-name=app"}


async def test_before_the_first_list_the_status_says_so(api: FakeApi) -> None:
    answer = asyncio.Event()
    api.lists = [Answer(until=answer)]
    async with following(api) as found:
        await api.listed(1)
        assert found.discovery.status.reason == "starting"
        assert found.problem == "not listed yet"
        assert (found.discovery.status.synced, found.discovery.status.errors) == (False, 0)
        assert found.now is None


async def test_every_change_is_followed_by_one_watch(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        api.put(make_slice("two", [B]))  # ADDED
        await found.has("a", "b")
        api.put(make_slice("two", [B, C]))  # MODIFIED
        await found.has("a", "b", "c")
        api.delete("one")  # DELETED
        await found.has("b", "c")
        api.put(make_slice("two", [endpoint("10.0.0.2", "b", terminating=True)]))
        await found.has("b")
        assert found.sets[-1][0].phase is Phase.DRAINING
        api.put(make_slice("two", []))  # the Service is there, and its last pod has gone
        await found.has()
        await found.is_healthy()
    assert len(api.seen) == 2


async def test_what_changed_between_list_and_watch_is_not_missed(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    api.watches = [Answer.of(500)]
    async with following(api) as found:
        await found.has("a")
        api.put(make_slice("two", [B]))
        await found.has("a", "b")
    assert all(int(seen.version) >= 101 for seen in api.seen if seen.watch)


async def test_a_slice_that_leaves_the_service_takes_its_endpoints_along(api: FakeApi) -> None:
    api.put(make_slice("one", [A]), make_slice("two", [B]))
    async with following(api) as found:
        await api.watched()
        api.put(make_slice("two", [B], service="other"))
        await found.has("a")


async def test_what_changes_no_backend_applies_nothing(api: FakeApi) -> None:
    api.put(make_slice("one", [A, B]))
    async with following(api) as found:
        await api.watched()
        api.put(make_slice("one", [B, A]))
        api.bookmark()
        api.put(make_slice("two", [A]))
        api.put(make_slice("three", [C]))
        await found.has("a", "b", "c")
    assert len(found.sets) == 2


async def test_bookmarks_are_taken_for_life(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        for _ in range(3):
            api.bookmark()
        api.put(make_slice("one", [A, B]))
        await found.has("a", "b")
    assert len(api.seen) == 2
    assert api.seen[1].query["allowWatchBookmarks"] in ("true", "True")
    assert 300 <= int(api.seen[1].query["timeoutSeconds"]) < 600


async def test_the_port_is_the_one_that_was_asked_for(api: FakeApi) -> None:
    api.put(make_slice("one", [A], ports=[{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}]))
    for port, expected in (("", 8080), ("admin", 9090), ("9090", 9090)):
        async with following(api, ServiceRef("shop", "app", port)) as found:
            await found.has("a")
            assert found.sets[0][0].address.port == expected


async def test_without_a_namespace_it_is_our_own(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api, ServiceRef("", "app")) as found:
        await found.has("a")
        assert found.discovery.status.source == "Kubernetes Service shop/app"
    assert {seen.namespace for seen in api.seen} == {"shop"}


async def test_a_slice_of_a_thousand_endpoints_fits(api: FakeApi) -> None:
    many = [endpoint(f"10.1.{n // 250}.{n % 250}", f"uid-{n:04}", name="n" * 200, ready=True) for n in range(1000)]
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        api.put(make_slice("one", many))  # one line of 400 kB
        await api.pulse.until(lambda: len(found.sets) == 2)
    assert len(found.sets[-1]) == 1000
    assert len(api.seen) == 2


# Whatever ends a watch, a fresh list follows; it never empties anything.


ENDS: dict[str, Callable[[FakeApi], None]] = {
    "410 as event": lambda api: api.fail(410),
    "another error as event": lambda api: api.fail(500),
    "an error without a code": lambda api: api.send({"type": "ERROR", "object": {}}),
    "an error that is none": lambda api: api.send({"type": "ERROR", "object": None}),
    "an error with an odd code": lambda api: api.send({"type": "ERROR", "object": {"code": "gone"}}),
    "an unknown event": lambda api: api.send({"type": "RENAMED", "object": make_slice("one", [])}),
    "an event without a type": lambda api: api.send({"object": make_slice("one", [])}),
    "an event without an object": lambda api: api.send({"type": "MODIFIED"}),
    "a slice that is none": lambda api: api.send({"type": "MODIFIED", "object": make_slice("one", [{}])}),
    "no object": lambda api: api.send([1]),
    "no JSON": lambda api: api.send_bytes(b"<html>\n"),
    "no UTF-8": lambda api: api.send_bytes(b'{"type": "\xff\xfe"}\n'),
    "depth": lambda api: api.send_bytes(b"[" * 100_000 + b"\n"),
    "an empty line": lambda api: api.send_bytes(b"\n"),
    "an endless line": lambda api: api.send_bytes(b"x" * 9_000_000),
    "its regular end": lambda api: api.end(),
    "an end within a line": lambda api: api.end(b'{"type": "DELETED", "obj'),
    "a lost connection": lambda api: api.cut(),
    "a connection lost within a line": lambda api: api.cut(b'{"type": "DELETED", "obj'),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_watch_that_ends_is_followed_by_a_fresh_list(api: FakeApi, end: str) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        api.freeze()  # what changes now, only a list tells
        api.put(make_slice("two", [B]))
        ENDS[end](api)
        await found.has("a", "b")
        await api.watched(2)
        await found.is_healthy()
        api.put(make_slice("three", [C]))
        await found.has("a", "b", "c")
    assert len(found.sets) == 3, "nothing was emptied in between"
    assert not found.logged(logging.ERROR)


@pytest.mark.parametrize("end", ["410 as event", "its regular end", "an end within a line", "a lost connection"])
async def test_what_happens_to_every_watch_is_no_problem(api: FakeApi, end: str) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        for count in (2, 3):
            ENDS[end](api)
            await api.watched(count)
            assert found.problem == ""
    assert not found.logged(logging.WARNING)


@pytest.mark.parametrize("by_status", [False, True])
async def test_a_compacted_version_is_listed_anew_and_is_no_problem(api: FakeApi, by_status: bool) -> None:
    api.gone_by_status = by_status
    api.put(make_slice("one", [A]))
    api.list_always = OLD_LIST
    api.put(make_slice("one", [A, B]))
    api.compact()
    async with following(api) as found:
        await api.listed(2)
        await found.has("a")
        api.list_always = None
        await found.has("a", "b")
        await found.is_healthy()
    assert not found.logged(logging.WARNING)


async def test_a_silent_watch_counts_as_dead(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api, silence_s=0.05) as found:
        await api.watched()
        api.freeze()
        api.put(make_slice("one", [A, B]))
        await found.has("a", "b")
        assert found.problem == ""
    assert not found.logged(logging.WARNING)


async def test_a_garbled_answer_is_said_with_what_was_found(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    api.watch_always = Answer(body=b'{"type": "RENAMED", "object": {}}\n')
    async with following(api) as found:
        problem = await found.says("garbage")
        assert "RENAMED" in problem
        assert api.url in problem


# The API server misbehaves.


LISTS: dict[str, tuple[Answer, str]] = {
    "401": (Answer.of(401), "unauthorized"),
    "403": (forbidden(), "forbidden"),
    "404": (Answer.of(404), "unreachable"),
    "410": (Answer.of(410), "unreachable"),
    "429": (Answer.of(429), "unreachable"),
    "500": (Answer.of(500), "unreachable"),
    "503 without a word": (Answer(503), "unreachable"),
    "nothing": (Answer(200), "garbage"),
    "a page": (Answer(200, b"<html>log in</html>"), "garbage"),
    "half of it": (Answer(200, b'{"metadata": {"resourceVersion": "1"}, "items": ['), "garbage"),
    "no items": (Answer(200, b'{"metadata": {"resourceVersion": "1"}}'), "garbage"),
    "items that are none": (Answer(200, b'{"metadata": {"resourceVersion": "1"}, "items": 0}'), "garbage"),
    "no version": (Answer(200, b'{"metadata": {}, "items": []}'), "garbage"),
    "one slice that is none": (
        Answer(200, json.dumps({"metadata": {"resourceVersion": "1"}, "items": [make_slice("one"), {}]}).encode()),
        "garbage",
    ),
    "depth": (Answer(200, b"[" * 100_000), "garbage"),
    "a number": (Answer(200, b"1"), "garbage"),
    "a cut connection": (Answer(200, b'{"metadata"', cut=True), "unreachable"),
    "a cut refusal": (Answer(500, b'{"metadata"', cut=True), "unreachable"),
}


@pytest.mark.parametrize("fault", LISTS)
async def test_a_list_that_fails_keeps_the_last_good_one_and_is_said(api: FakeApi, fault: str) -> None:
    answer, reason = LISTS[fault]
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        await found.is_healthy()
        api.list_always = answer
        api.end()
        problem = await found.says(reason)
        before = found.discovery.status
        await api.listed(api.count(watch=False) + 2)
        assert found.sets == found.sets[:1], "the last good set stays"
        assert found.discovery.status.synced
        assert found.discovery.status.errors > before.errors > 0
        assert found.discovery.status.age_s > before.age_s, "nothing confirms it"
        assert found.logged(logging.WARNING) == [f"{problem}; keeping the last 1 backends"], "said once"
        api.put(make_slice("one", [A, B]))
        api.list_always = None
        await found.has("a", "b")
        await found.is_healthy()
    assert not found.logged(logging.ERROR), "no fault of ours"


@pytest.mark.parametrize("fault", LISTS)
async def test_a_list_that_fails_at_the_start_applies_nothing_and_is_said(api: FakeApi, fault: str) -> None:
    answer, reason = LISTS[fault]
    api.put(make_slice("one", [A]))
    api.list_always = answer
    async with following(api) as found:
        problem = await found.says(reason)
        await api.listed(3)
        assert found.now is None
        assert found.logged(logging.WARNING) == [f"{problem}; no backends yet"]
        api.list_always = None
        await found.has("a")
        await found.is_healthy()


async def test_an_api_server_that_is_away_empties_nothing(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        await found.is_healthy()
        await api.stop()
        problem = await found.says("unreachable")
        assert problem.startswith(f"cannot reach the API server {api.url}: ")
        assert found.now == ["a"]
        api.put(make_slice("one", [B]))
        await api.start()
        await found.has("b")
        await found.is_healthy()
    assert [[b.identity for b in backends] for backends in found.sets] == [["a"], ["b"]]


async def test_an_api_server_that_is_away_at_the_start_is_waited_for(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    await api.stop()
    async with following(api) as found:
        await found.says("unreachable")
        await api.start()
        await found.has("a")


async def test_a_watch_that_is_refused_is_a_problem_that_does_not_flap(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    api.watch_always = forbidden("watch")
    async with following(api) as found:
        await found.has("a")
        await found.says("forbidden")
        await api.listed(api.count(watch=False) + 3)
        api.put(make_slice("one", [A, B]))
        await found.has("a", "b")  # by lists alone, which is late but not lost
        await found.says("forbidden")
        assert len(found.logged(logging.WARNING)) == 1
        assert not [line for line in found.logged(logging.INFO) if "is followed" in line]
        api.watch_always = None
        await found.is_healthy()


async def test_a_watch_that_never_begins_is_a_problem(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    api.watch_always = Answer(503, b"", cut=True)
    async with following(api) as found:
        assert (await found.says("unreachable")).startswith(f"cannot watch at the API server {api.url}: ")
        assert found.now == ["a"]
        api.watch_always = None
        await found.is_healthy()


# The Service is missing.


@pytest.mark.parametrize(("port", "expected"), [("", "8080"), ("9000", "9000"), ("http", "8080")])
async def test_a_missing_service_is_said_with_what_makes_it_and_waited_for(
    api: FakeApi, port: str, expected: str
) -> None:
    async with following(api, ServiceRef("shop", "app", port)) as found:
        problem = await found.says("no-service")
        assert problem.startswith("Service shop/app has no EndpointSlices")
        assert "kubectl -n shop get services" in problem
        assert problem.endswith(f"kubectl -n shop expose deployment YOUR-APP --name=app --port={expected}")
        await api.listed(3)
        assert found.now is None
        api.put(make_slice("one", [A], ports=[{"name": port if port == "http" else "", "port": int(expected)}]))
        await found.has("a")
        await found.is_healthy()


async def test_a_service_that_is_deleted_leaves_the_last_good_set(api: FakeApi) -> None:
    api.put(make_slice("one", [A]), make_slice("two", [B]))
    async with following(api) as found:
        await api.watched()
        api.delete("one")
        await found.has("b")
        api.delete("two")
        await found.says("no-service")
        await api.listed(api.count(watch=False) + 2)
        assert found.now == ["b"]
        api.put(make_slice("three", [C]))
        await found.has("c")
        await found.is_healthy()


async def test_a_port_that_is_missing_is_said_and_waited_for(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api, ServiceRef("shop", "app", "http")) as found:
        assert (await found.says("no-port")) == (
            "Service shop/app: its pods have no port http, only 8080: "
            "name one of these (the pods' port, not the Service's)"
        )
        assert found.now is None
        api.put(make_slice("one", [A], ports=[{"name": "http", "port": 8081}]))
        await found.has("a")
        await found.is_healthy()


async def test_a_port_that_vanishes_leaves_the_last_good_set(api: FakeApi) -> None:
    api.put(make_slice("one", [A], ports=[{"name": "http", "port": 8080}]))
    async with following(api, ServiceRef("shop", "app", "http")) as found:
        await api.watched()
        api.put(make_slice("one", [A, B], ports=[{"name": "web", "port": 8080}]))
        await found.says("no-port")
        assert found.now == ["a"]


# Credentials.


async def test_a_refusal_names_the_service_account_that_must_be_allowed(api: FakeApi) -> None:
    api.list_always = forbidden(user="system:serviceaccount:web:stickyproxy")
    async with following(api) as found:
        problem = await found.says("forbidden")
    assert (
        "kubectl -n shop create role stickyproxy --verb=get,list,watch "
        "--resource=endpointslices.discovery.k8s.io && kubectl -n shop create rolebinding stickyproxy "
        "--role=stickyproxy --serviceaccount=web:stickyproxy"
    ) in problem


async def test_a_refusal_of_a_person_names_no_service_account(api: FakeApi) -> None:
    api.list_always = forbidden(user="jane")
    async with following(api) as found:
        assert "--role=stickyproxy --user=YOUR-USER" in await found.says("forbidden")


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be outside of any cluster, with an empty home."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
async def pod(outside: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[tuple[FakeApi, Path]]:
    """Be inside a pod: yield the API server and the folder of the service account."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_text(CERTIFICATE.read_text())
    (folder / "namespace").write_text("shop\n")
    (folder / "token").write_text("first")
    async with FakeApi(tls=True) as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        api.tokens = {"first"}
        api.put(make_slice("one", [A]))
        yield api, folder


async def test_in_a_pod_the_service_account_is_used_and_a_new_token_taken_up(pod: tuple[FakeApi, Path]) -> None:
    api, folder = pod
    async with following(api, ServiceRef("", "app"), lambda: connect(folder)) as found:
        await found.has("a")
        await found.is_healthy()
        assert found.discovery.status.source == "Kubernetes Service shop/app"
        api.tokens = {"second"}  # rotated: the old one has expired
        api.put(make_slice("one", [A, B]))
        await found.has("a", "b")  # by the watch that runs
        api.end()
        problem = await found.says("unauthorized")
        assert "(401)" in problem
        assert api.url in problem
        (folder / "token").write_text("second\n")  # a line's end behind it is no part of it
        api.put(make_slice("one", [B]))
        await found.has("b")
        await found.is_healthy()


@pytest.mark.parametrize("name", ["ca.crt", "namespace"])
async def test_a_service_account_that_is_not_whole_is_said(pod: tuple[FakeApi, Path], name: str) -> None:
    api, folder = pod
    whole = (folder / name).read_text()
    (folder / name).unlink()
    async with following(api, connect=lambda: connect(folder)) as found:
        problem = await found.says("credentials")
        assert "automountServiceAccountToken: true" in problem
        (folder / name).write_text(whole)
        await found.has("a")


async def test_an_api_server_with_an_unknown_certificate_is_not_believed(pod: tuple[FakeApi, Path]) -> None:
    api, folder = pod
    (folder / "ca.crt").write_text(OTHER_CERTIFICATE.read_text())
    async with following(api, connect=lambda: connect(folder)) as found:
        assert "certificate" in (await found.says("unreachable")).lower()
    assert api.seen == []


async def test_a_kubeconfig_is_used_with_its_namespace_and_token_file(
    outside: None, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    (tmp_path / "token").write_text("first\n")
    api.tokens = {"first"}
    api.put(make_slice("one", [A]))
    async with following(api, ServiceRef("", "app"), connect) as found:
        await found.has("a")
        assert found.discovery.status.source == "Kubernetes Service shop/app"
        (tmp_path / "token").write_text("second")
        api.tokens = {"second"}
        api.put(make_slice("one", [B]))
        api.end()
        await found.has("b")
        await api.watched(2)
        assert {seen.authorization for seen in api.seen} == {"Bearer first", "Bearer second"}


async def test_kubeconfig_counts_before_the_pods_account_and_that_before_the_home(
    pod: tuple[FakeApi, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, folder = pod
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    async with FakeApi() as other:
        other.kubeconfig(home, namespace="of-home").rename(home / "config")
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{other.kubeconfig(tmp_path, namespace='of-variable')}")
        assert await namespace_of(folder) == "of-variable"
        monkeypatch.delenv("KUBECONFIG")
        assert await namespace_of(folder) == "shop"
        (folder / "token").unlink()
        assert await namespace_of(folder) == "of-home"
    assert api.seen == []


async def test_a_context_without_a_namespace_means_default(
    outside: None, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path, namespace="")))
    assert await namespace_of(tmp_path) == "default"


async def namespace_of(folder: Path) -> str:
    access = await connect(folder)
    await access.client.close()
    return access.namespace


async def test_without_any_credentials_it_says_where_it_looked(outside: None, tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError) as refusal:
        await connect(tmp_path / "none")
    assert refusal.value.reason == "credentials"
    expected = f"found neither {tmp_path / 'none' / 'token'} nor {tmp_path / 'home' / '.kube' / 'config'}"
    assert expected in str(refusal.value)
    assert str(refusal.value).endswith("elsewhere set KUBECONFIG")


@pytest.mark.parametrize("text", ["", "\n", "{", "[]", "text", "{}", '{"current-context": "x"}', "\x00", "a: &a [*a]"])
async def test_a_broken_kubeconfig_is_said(
    outside: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(DiscoveryError, match="expected the pod's service account or a kubeconfig, found") as refusal:
        await connect(tmp_path)
    assert refusal.value.reason == "credentials"
    assert str(refusal.value).isprintable()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(DiscoveryError, match=f"found no file {tmp_path / 'none'}"):
        await connect(tmp_path)


async def test_missing_credentials_are_waited_for(api: FakeApi) -> None:
    there = False

    async def late() -> Access:
        api.pulse.beat()
        if not there:
            raise DiscoveryError("credentials", "none yet")
        return await api.connect()

    api.put(make_slice("one", [A]))
    async with following(api, connect=late) as found:
        await found.says("credentials")
        there = True
        await found.has("a")
        await found.is_healthy()


# Asked to look now.


async def test_a_refresh_lists_at_once_while_watching(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api, shortest_s=NEVER_S) as found:
        await api.watched()
        await found.is_healthy()
        api.freeze()
        api.put(make_slice("one", [A, B]))
        found.discovery.refresh()
        await found.has("a", "b")
        await api.watched(2)
        assert found.problem == ""
    assert len(api.seen) == 4, "one refresh, one list"


async def test_a_refresh_lists_at_once_while_backing_off(api: FakeApi) -> None:
    async with following(api, shortest_s=NEVER_S) as found:
        await found.says("no-service")
        api.put(make_slice("one", [A]))
        found.discovery.refresh()
        await found.has("a")


async def test_a_refresh_while_listing_lists_once_more(api: FakeApi) -> None:
    """The list under way may be from before the change that somebody wants to see."""
    answer = asyncio.Event()
    api.lists = [replace(OLD_LIST, until=answer)]
    async with following(api, shortest_s=NEVER_S) as found:
        await api.listed(1)
        found.discovery.refresh()
        answer.set()
        api.put(make_slice("one", [A]), make_slice("one", [A, B]))
        await found.has("a", "b")
    assert [seen.watch for seen in api.seen[:2]] == [False, False]


async def test_refreshes_in_any_number_do_no_harm(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await found.is_healthy()
        for count in range(1, 20):
            found.discovery.refresh()
            if count % 4:
                await asyncio.sleep(0)  # the watch is about to end when the next one comes
        api.put(make_slice("one", [A, B]))
        await found.has("a", "b")
        await found.is_healthy()
    assert not found.logged(logging.ERROR)


# Faults of our own, and time.


async def test_a_fault_in_applying_ends_nothing_and_the_set_is_applied_later(api: FakeApi) -> None:
    api.put(make_slice("one", [A]))
    async with following(api) as found:
        await api.watched()
        await found.is_healthy()
        found.failures_to_come = 2
        api.put(make_slice("one", [A, B]))
        await found.says("fault")
        await found.has("a", "b")
        await found.is_healthy()
    assert len(found.logged(logging.ERROR)) == 2


async def test_cancelled_anywhere_it_leaves_nothing_behind(api: FakeApi) -> None:
    held = asyncio.Event()
    api.put(make_slice("one", [A]))
    for lists, watches in (([Answer(until=held)], []), ([], [Answer(until=held)]), ([Answer.of(500)], []), ([], [])):
        api.lists, api.watches = list(lists), list(watches)
        before = len(api.seen)
        async with following(api, shortest_s=NEVER_S):
            await api.pulse.until(lambda wanted=before + 1 + (not lists): len(api.seen) >= wanted)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes at once where nothing else is to do: waits are measured, not waited for."""

    def __init__(self) -> None:
        super().__init__(_Jump(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _Jump(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self._clock.now += timeout
        return found


def waits(count: int, random: Random) -> Iterator[float]:
    """Give the seconds between attempts that all fail."""
    times: list[float] = []

    async def run() -> None:
        loop, enough = asyncio.get_running_loop(), asyncio.Event()

        async def refuse() -> Access:
            times.append(loop.time())
            if len(times) > count:
                enough.set()
            raise DiscoveryError("credentials", "none")

        task = asyncio.ensure_future(
            KubernetesDiscovery(ServiceRef("a", "b"), lambda backends: None, random, refuse).run()
        )
        await enough.wait()
        task.cancel()

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(run())
    return (after - before for before, after in pairwise(times))


def test_the_time_between_lists_doubles_has_jitter_and_is_bounded() -> None:
    seen: list[list[float]] = []
    for seed in range(20):
        found = list(waits(12, Random(seed)))
        for failures, wait in enumerate(found, 1):
            longest = min(LONGEST_BACKOFF_S, SHORTEST_BACKOFF_S * 2**failures)
            assert longest / 2 <= wait <= longest + 0.001
        seen.append(found)
    for waited in zip(*seen, strict=True):
        assert max(waited) - min(waited) > 0.2 * max(waited), "they differ from proxy to proxy"


def test_a_thousand_failures_are_no_more_than_many() -> None:
    assert list(waits(1100, Random(1)))[-1] <= LONGEST_BACKOFF_S


async def test_problems_are_told_as_they_begin_and_end(api: FakeApi) -> None:
    api.put(make_slice("a", [endpoint("10.0.0.1", "uid-1")]))
    api.list_always = forbidden()
    async with following(api) as found:
        problem = await found.says("forbidden")
        assert [(h.kind, h.cause) for h in found.told] == [(Kind.DISCOVERY, "forbidden")]
        assert found.told[0].detail == f"{problem}; no backends yet"
        api.list_always = None
        await found.is_healthy()
        assert [h.cause for h in found.told] == ["forbidden", "healthy"]
