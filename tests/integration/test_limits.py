"""At a limit the proxy waits, refuses or drops as docs/limits.md says, counts it, and serves on as soon as it can."""

import asyncio
import os
import resource
import socket
from dataclasses import replace
from typing import Any

import pytest

from stickyproxy.core.limits import Limit
from stickyproxy.core.settings import LimitSettings, Settings
from stickyproxy.core.values import parse_networks

from .command import command
from .harness import QUICK, Peer, RawBackend, Running, Stage, eventually, hello, named, request, response, soon, turns
from .workers import metrics

pytestmark = pytest.mark.both_loops


def limited(*, trusted: str = "none", **limits: Any) -> Settings:
    return Settings(times=QUICK, limits=LimitSettings(**limits), trusted=parse_networks(trusted))


def hits(running: Running, limit: Limit) -> int:
    return running.proxy.counters.limits[limit]


async def busy(running: Running, backend: RawBackend) -> tuple[Peer, Peer]:
    """Give a client whose request is being worked on, and the backend's end."""
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    return client, upstream


# Connections in all.


async def test_who_comes_when_all_places_are_taken_waits_and_is_served(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(connections=2))
    first, answering = await busy(running, backend)
    await busy(running, backend)
    late = await running.client()
    late.send(request("GET /late HTTP/1.1"))
    await eventually(lambda: hits(running, Limit.CONNECTIONS), "the limit is hit")
    await turns()
    assert len(running.downstreams) == 2
    answering.send(response(body=b"done"))
    message = await first.message()
    assert message.get("connection") == "close", "somebody waits for the place"
    assert await first.rest() == b""
    upstream = await backend.accepted() if not running.idle else answering
    assert (await upstream.head()).target == "/late"
    upstream.send(response(body=b"at last"))
    assert (await late.message()).body == b"at last"


async def test_connections_are_kept_alive_again_when_nobody_waits_any_more(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(connections=2))
    first, _ = await busy(running, backend)
    second, _ = await busy(running, backend)
    late, later = await running.client(), await running.client()
    await eventually(lambda: running.proxy.parting, "answers end their connections")
    for client in (first, second):
        client.reset()
    await eventually(lambda: len(running.downstreams) == 2, "both come in")
    for client in (late, later):
        client.reset()
    await eventually(lambda: not running.proxy.parting, "nobody waits")
    client, upstream = await busy(running, backend)
    upstream.send(response(body=b"kept"))
    assert (await client.message()).get("connection") is None
    assert running.proxy.counters.limits[Limit.CONNECTIONS] == 1


async def test_idle_connections_make_place_for_new_ones_and_busy_ones_do_not(stage: Stage) -> None:
    backend = await stage.backend()
    settings = replace(limited(connections=3), times=replace(QUICK, fresh_s=0.0))
    running = await stage.proxy(backend, settings=settings)
    working, upstream = await busy(running, backend)
    idle = [await running.client() for _ in range(2)]
    await eventually(lambda: len(running.downstreams) == 3, "all are in")
    for _ in range(5):
        fresh = await running.client()
        fresh.send(request("GET /fresh HTTP/1.1"))
        other = await backend.accepted()
        assert (await other.head()).target == "/fresh"
        other.send(response("200 OK", "Connection: close", body=b"in"))
        assert (await fresh.message()).body == b"in"
        idle.append(fresh)
    assert await idle[0].rest() == b"", "it had been idle for longest"
    assert hits(running, Limit.IDLE_CLOSED) >= 1
    upstream.send(response(body=b"undisturbed"))
    assert (await working.message()).body == b"undisturbed"


async def test_a_tunnel_holds_its_place_until_both_sides_have_ended(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(connections=1))
    client = await running.client()
    client.send(request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: echo"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    assert (await client.head()).status == 101
    late = await running.client()
    late.send(request("GET /late HTTP/1.1"))
    await eventually(lambda: hits(running, Limit.CONNECTIONS), "the limit is hit")
    client.close()
    assert await upstream.rest() == b""
    await turns()
    assert not running.downstreams, "the backend's side is still open"
    upstream.close()
    assert (await (await backend.accepted()).head()).target == "/late"


async def test_more_clients_than_places_are_all_served_one_after_another(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(named("a")), settings=limited(connections=4))

    async def visit() -> bytes:
        client = await running.client()
        bodies = []
        for _ in range(3):
            client.send(request())
            message = await client.message()
            bodies.append(message.body)
            if message.get("connection") == "close":
                break
        client.close()
        return bodies[-1]

    assert await soon(asyncio.gather(*(visit() for _ in range(100)))) == [b"a"] * 100
    await eventually(lambda: not running.proxy.parting, "nobody waits")


async def test_who_has_just_connected_or_been_answered_is_not_closed_for_others(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=limited(connections=2))
    answered, new = await running.client(), await running.client()
    answered.send(request())
    assert (await answered.message()).body == b"hello"
    late = await running.client()
    late.send(request())
    await eventually(lambda: hits(running, Limit.CONNECTIONS), "the limit is hit")
    for client in (answered, new):
        client.send(request())
        assert (await client.message()).body == b"hello"
    assert (await late.message()).body == b"hello"


@pytest.mark.parametrize("after", range(6))
async def test_closing_leaves_nobody_behind_who_is_on_the_way_in(stage: Stage, after: int) -> None:
    """Whatever turn of the event loop it comes in: accepted and not begun, begun, made, or in the queue."""
    running = await stage.proxy(settings=limited(connections=20))
    for _ in range(40):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(running.address)
        stage.plain.append(client)
    for _ in range(after):
        await asyncio.sleep(0)
    await soon(running.proxy.close())
    assert running.proxy.admission.places.taken == 0


# Connections of one address.


async def test_an_address_that_has_enough_connections_gets_no_more_until_it_ends_one(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=limited(connections_per_client=2))
    first, second = await running.client(), await running.client()
    for client in (first, second):
        client.send(request())
        assert (await client.message()).body == b"hello"
    await (await running.client()).gone()
    assert hits(running, Limit.CLIENT_CONNECTIONS) == 1
    first.close()
    await eventually(lambda: len(running.downstreams) == 1, "it has ended")
    assert (await running.ask(request())).body == b"hello"


async def test_a_trusted_proxy_brings_as_many_as_it_likes(stage: Stage) -> None:
    running = await stage.proxy(
        await stage.backend(hello), settings=limited(connections_per_client=1, trusted="127.0.0.1")
    )
    clients = [await running.client() for _ in range(5)]
    for client in clients:
        client.send(request())
        assert (await client.message()).body == b"hello"
    assert not hits(running, Limit.CLIENT_CONNECTIONS)


async def test_a_tunnel_counts_for_its_address(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=limited(connections_per_client=1))
    client = await running.client()
    client.send(request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: echo"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    assert (await client.head()).status == 101
    await (await running.client()).gone()
    assert hits(running, Limit.CLIENT_CONNECTIONS) == 1
    client.reset()
    await upstream.gone()
    upstream.close()
    await running.quiet()
    again = await running.client()
    again.send(request("GET /again HTTP/1.1"))
    assert (await (await backend.accepted()).head()).target == "/again"


# Descriptors.


async def test_out_of_descriptors_accepting_pauses_and_recovers(stage: Stage) -> None:
    """The real command with its real limit lowered under it: who cannot be accepted waits and is served later."""
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address)) as running:
        pid = running.process.pid
        assert (await running.ask(request())).body == b"hello"
        most = lowest_free_descriptor(pid) + 8
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        clients = [await running.client() for _ in range(40)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\n")  # not idle, so that nobody is closed to make room
        await running.says("cannot accept: Too many open files")
        served = 0
        for client in clients:
            client.send(b"Host: app.test\r\nConnection: close\r\n\r\n")
            message = await client.message()
            assert (message.status, message.reason) in ((200, None), (503, "out-of-resources"))
            client.close()
            served += 1
        assert served == 40
        assert (await running.ask(request())).body == b"hello"
        assert (await metrics(running))["stickyproxy_limits_hit_total{limit=descriptors}"] >= 1


def lowest_free_descriptor(pid: int) -> int:
    used = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    return min(set(range(len(used) + 1)) - used)
