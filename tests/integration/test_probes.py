"""Health probes end at the proxy: no backend is dialled, whatever the probe looks like."""

import pytest

from stickyproxy.core.probes import PROBERS
from stickyproxy.core.settings import HealthSettings, Settings

from .harness import CHUNKED, QUICK, Stage, eventually, hello, request

SETTINGS = Settings(times=QUICK, health=HealthSettings(paths=frozenset((b"/healthz",))))


@pytest.mark.parametrize("agent", [*PROBERS, "kube-probe/1.33"])
async def test_a_known_prober_is_answered_and_no_backend_is_dialled(stage: Stage, agent: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    message = await running.ask(request("GET / HTTP/1.1", f"User-Agent: {agent}"))
    assert (message.status, message.body) == (200, b"ready: 1 of 1 backends usable\n")
    assert message.token is None
    assert backend.connections == 0
    assert running.proxy.counters.probes == 1
    assert running.proxy.counters.responses == [0] * 6


async def test_a_browser_that_only_mentions_a_prober_is_none(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    message = await running.ask(request("GET / HTTP/1.1", "User-Agent: Mozilla/5.0 kube-probe/1"))
    assert message.body == b"hello"


@pytest.mark.parametrize("target", ["/healthz", "/healthz?verbose=1", "http://app.test/healthz"])
async def test_a_health_path_is_answered_and_no_backend_is_dialled(stage: Stage, target: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=SETTINGS)
    assert (await running.ask(request(f"GET {target} HTTP/1.1"))).body.startswith(b"ready")
    assert (await running.ask(request(f"HEAD {target} HTTP/1.1"))).status == 200
    assert backend.connections == 0


@pytest.mark.parametrize("target", ["/healthz/", "/Healthz", "/healthzz", "/a/healthz", "/?x=/healthz"])
async def test_other_paths_are_forwarded(stage: Stage, target: str) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=SETTINGS)
    assert (await running.ask(request(f"GET {target} HTTP/1.1"))).body == b"hello"


async def test_probes_and_requests_share_a_connection_in_order(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=SETTINGS)
    client = await running.client()
    probe = request("GET /healthz HTTP/1.1")
    client.send(request() + probe + probe + request())
    assert [(await client.message()).body[:5] for _ in range(4)] == [b"hello", b"ready", b"ready", b"hello"]


@pytest.mark.parametrize(
    "data",
    [
        request("POST /healthz HTTP/1.1", body=b"x" * 1000),
        request("POST /healthz HTTP/1.1", CHUNKED, body=b"0\r\n\r\n"),
    ],
)
async def test_a_probe_with_a_body_is_answered_and_closed(stage: Stage, data: bytes) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=SETTINGS)
    client = await running.client()
    client.send(data)
    message = await client.message()
    assert (message.status, message.get("connection")) == (200, "close")
    client.half_close()
    assert await client.rest() == b""
    assert backend.connections == 0


async def test_a_bare_connection_dials_no_backend(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    for how in ("close", "reset", "half_close"):
        client = await running.client()
        await eventually(lambda: running.downstreams, "the proxy accepts")
        getattr(client, how)()
        await running.quiet()
    assert backend.connections == 0
    assert running.proxy.counters.dials == 0


async def test_a_probe_is_told_that_nothing_works_only_where_that_is_wished(stage: Stage) -> None:
    wished = Settings(times=QUICK, health=HealthSettings(paths=frozenset((b"/healthz",)), ready_needs_backend=True))
    probe = request("GET /healthz HTTP/1.1")
    assert (await (await stage.proxy(settings=SETTINGS)).ask(probe)).status == 200
    running = await stage.proxy(settings=wished)
    message = await running.ask(probe)
    assert (message.status, message.body) == (503, b"not ready: 0 of 0 backends usable\n")
    backend = await stage.backend()
    running.apply(backend.at())
    assert (await running.ask(probe)).status == 200
    assert backend.connections == 0
