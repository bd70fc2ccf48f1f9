"""The real command with `--kubernetes-service`, against an API server that does as it is told."""

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.kubernetes import Answer, FakeApi
from fakes.slices import Slice, endpoint, make_slice
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .command import Command, command
from .harness import RawBackend, Stage, hello, named, request

MB = 1 << 20
LIMIT = 100 * MB


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as api:
        yield api


@pytest.fixture
def environment(api: FakeApi, tmp_path: Path) -> dict[str, str]:
    return {"KUBECONFIG": str(api.kubeconfig(tmp_path))}


def slice_of(backend: RawBackend) -> Slice:
    """Make a slice for one backend: each has a port of its own."""
    return make_slice(
        f"app-{backend.address.port}",
        [endpoint(backend.address.host, f"uid-{backend.address.port}")],
        ports=[{"name": "http", "port": backend.address.port}],
    )


async def problems(running: Command) -> dict[str, str]:
    """Give what the metrics say is wrong with discovery: texts by reason."""
    scraped = await running.look("/metrics")
    return {
        sample.labels["reason"]: sample.labels["problem"]
        for family in text_string_to_metric_families(scraped.body.decode())
        for sample in family.samples
        if sample.name == "stickyproxy_discovery_problem"
    }


def resident(running: Command) -> dict[str, float]:
    """Give the resident size of the process and its peak (MB)."""
    text = Path(f"/proc/{running.process.pid}/status").read_text()
    return {name: int(kb) / 1024 for name, kb in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text)}


async def test_a_missing_service_is_said_everywhere_in_one_line_and_waited_for(
    stage: Stage, api: FakeApi, environment: dict[str, str]
) -> None:
    backend = await stage.backend(hello)
    async with command("--kubernetes-service", "shop/app", environment=environment) as running:
        await running.says("Service shop/app has no EndpointSlices")
        assert (await running.look("/livez")).status == 200
        ready = await running.look("/readyz")
        assert ready.status == 503
        (line,) = [line for line in ready.body.decode().splitlines() if "PROBLEM" in line]
        assert line.startswith(
            "discovery: Kubernetes Service shop/app: PROBLEM: Service shop/app has no EndpointSlices"
        )
        assert line.endswith("kubectl -n shop expose deployment YOUR-APP --name=app --port=8080")
        ((reason, problem),) = (await problems(running)).items()
        assert (reason, line.endswith(problem)) == ("no-service", True)
        assert (await running.ask(request())).reason == "no-backend"

        api.put(slice_of(backend))
        await running.says("Service shop/app is followed")
        ready = await running.look("/readyz")
        assert ready.status == 200
        assert b"discovery: Kubernetes Service shop/app: ok\n" in ready.body
        assert b"backend pod-uid-" in ready.body
        assert await problems(running) == {}
        assert (await running.ask(request())).body == b"hello"


async def test_an_api_server_that_is_away_costs_nobody_a_backend(
    stage: Stage, api: FakeApi, environment: dict[str, str]
) -> None:
    backend = await stage.backend(hello)
    api.put(slice_of(backend))
    async with command("--kubernetes-service", "shop/app", environment=environment) as running:
        await running.says("is followed")
        await api.stop()
        await running.says("cannot reach the API server .*; keeping the last 1 backends")
        ready = await running.look("/readyz")
        assert (ready.status, b"PROBLEM: cannot reach the API server" in ready.body) == (200, True)
        assert set(await problems(running)) == {"unreachable"}
        assert (await running.ask(request())).body == b"hello"
        await api.start()
        await running.says("is followed")
        assert await problems(running) == {}


async def test_sighup_lists_again(stage: Stage, api: FakeApi, environment: dict[str, str]) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    api.put(slice_of(one))
    async with command("--kubernetes-service", "shop/app:http", environment=environment) as running:
        await running.says("is followed")
        api.freeze()
        api.put(slice_of(two))
        running.send(signal.SIGHUP)
        await running.says("Service shop/app has 2 backends")
        assert b"2 of 2 backends" in (await running.look("/readyz")).body


async def test_a_change_moves_only_who_must_move(stage: Stage, api: FakeApi, environment: dict[str, str]) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    api.put(slice_of(one), slice_of(two))
    async with command("--kubernetes-service", "shop/app:http", environment=environment) as running:
        await running.says("is followed")
        first, second = [await running.ask(request()) for _ in range(2)]
        assert {first.body, second.body} == {b"one", b"two"}
        api.delete(slice_of(one)["metadata"]["name"])
        await running.says("Service shop/app has 1 backends")
        for before in (first, second):
            after = await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={before.token}"))
            assert after.body == b"two"
            assert (after.token is None) == (before.body == b"two"), "a new cookie for who was moved alone"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_while_it_watches_or_waits(
    api: FakeApi, environment: dict[str, str], number: signal.Signals
) -> None:
    api.put(make_slice("one", [endpoint("127.0.0.1", "a")]))
    for refusal, said in ((None, "is followed"), (Answer.of(500), "answers 500")):
        api.list_always = refusal
        async with command("--kubernetes-service", "shop/app", environment=environment) as running:
            await running.says(said)
            running.send(number)
            assert await running.ends() == 0
            assert "Traceback" not in "".join(running.log)
            assert "nclosed" not in "".join(running.log)
    await api.deserted()


async def test_it_takes_no_more_than_100_mb_and_nothing_where_it_is_off(
    stage: Stage, api: FakeApi, environment: dict[str, str]
) -> None:
    backend = await stage.backend(hello)
    api.put(slice_of(backend))
    environment = environment | {"PYTHONPROFILEIMPORTTIME": "1"}
    imports = re.compile(r"\| +(kubernetes|aiohttp_retry)\b")
    async with command("--backend", str(backend.address), environment=environment) as running:
        assert (await running.look("/metrics")).status == 200
        off = resident(running)
        running.send(signal.SIGTERM)
        await running.ends()
        assert not imports.search("".join(running.log)), "off, it is not even imported"
    async with command("--kubernetes-service", "shop/app:http", environment=environment) as running:
        await running.says("is followed")
        assert imports.search("".join(running.log))
        for count in range(2, 12):
            api.end()
            running.send(signal.SIGHUP)
            await api.watched(count)
        assert (await running.look("/metrics")).status == 200
        assert (await running.ask(request())).body == b"hello"
        on = resident(running)
    print(f"resident (MB): {off} without, {on} with --kubernetes-service")
    assert on["VmHWM"] * MB <= LIMIT
