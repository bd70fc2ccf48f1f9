"""What the machine takes away from the real command comes back, and then all is as before: descriptors, names, time."""

import asyncio
import os
import resource
import signal
from contextlib import suppress

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .command import Command, command
from .harness import Peer, Stage, hello, request, response, soon
from .workers import state, until


async def metrics(running: Command) -> dict[str, float]:
    """Scrape; samples of one name are added up."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families((await running.look("/metrics")).body.decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def descriptors(running: Command) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


def cpu_s(running: Command) -> float:
    """Give the CPU seconds of the process."""
    with open(f"/proc/{running.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_at_the_limit_of_descriptors_it_waits_without_spinning_and_recovers(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address), "--upstream-idle-timeout", "100ms") as running:
        assert (await running.ask(request())).status == 200
        await metrics(running)
        before = descriptors(running)
        _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (before + 20, hard))

        clients = [await running.client() for _ in range(60)]  # more than it may open: the kernel queues them
        await until(lambda: descriptors(running) >= before + 19, "it has none left")
        spent_s = cpu_s(running)
        await asyncio.sleep(1)  # time is the subject here
        assert cpu_s(running) - spent_s < 0.5, "it waits, and does not try again without end"
        for client in clients[:5]:
            assert await asked(client) in (200, 503, None), (
                "who is in is served, told, or cut off, but never left alone"
            )

        for client in clients:
            client.drop()
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert (await soon(running.ask(request()), bound_s=20)).status == 200
        await until_empty(running)
        await until(lambda: descriptors(running) <= before, "all that was opened is closed")


async def asked(client: Peer) -> int | None:
    """Ask where there may be no answer; give the status."""
    client.send(request())
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        return (await client.message()).status
    return None


async def test_look_ups_of_a_name_that_does_not_exist_do_not_pile_up(stage: Stage) -> None:
    """`tests/deploy/test_dns.py` holds what happens to a name that was there before, with a real DNS server."""
    async with command("--dns", "no-such-name.invalid:80", "--dns-interval", "50ms") as running:
        assert (await running.ask(request())).status == 503
        await running.says("cannot resolve")
        for _ in range(3):
            assert (await running.ask(request())).status == 503
        found = await metrics(running)
        assert found["stickyproxy_discovery_errors_total"] >= 1
        assert found["stickyproxy_open_connections"] == 0
        assert found["stickyproxy_event_loop_tasks"] < 20, "look-ups do not pile up"


async def test_after_a_stop_longer_than_all_its_limits_sockets_live_and_requests_are_served(stage: Stage) -> None:
    """A suspended laptop, a frozen container, a live migration: time jumps for everybody at once."""
    backend = await stage.backend()
    times = [f"--{name}-timeout=1s" for name in ("connect", "response", "head", "body", "idle", "upstream-idle")]
    async with command("--backend", str(backend.address), *times) as running:
        tunnel = await running.client()
        tunnel.send(request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"))
        socket = await backend.accepted()
        await socket.head()
        socket.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await tunnel.head()
        waiting = await running.client()
        waiting.send(request())
        upstream = await backend.accepted()
        await upstream.head()

        running.send(signal.SIGSTOP)
        try:
            await until(lambda: state(running.process.pid) == "T", "it is stopped")
            await asyncio.sleep(2.5)  # time is the subject here
        finally:
            running.send(signal.SIGCONT)

        tunnel.send(b"still there")
        assert await socket.exactly(11) == b"still there"
        socket.send(b"yes")
        assert await tunnel.exactly(3) == b"yes"
        # Who has waited for longer than the limit is told so, or served where the answer comes first.
        upstream.send(response(body=b"late"))
        assert (await waiting.message()).status in (200, 504)
        fresh = await running.client()
        fresh.send(request("GET /works HTTP/1.1", "Connection: close"))
        peer = await soon(next_request(backend))
        peer.send(response(body=b"works"))
        assert (await fresh.message()).body == b"works"
        for one in (tunnel, waiting, fresh, socket, upstream, peer):
            one.drop()
        await until_empty(running)


async def next_request(backend: object) -> Peer:
    """Give the connection on which the next request came, a pooled one or a new one."""
    from .harness import RawBackend

    assert isinstance(backend, RawBackend)
    reads = {asyncio.ensure_future(p.reader.readuntil(b"\r\n\r\n")): p for p in backend.peers if not p.reader.at_eof()}
    accept = asyncio.ensure_future(backend._queue.get())
    done, pending = await asyncio.wait({*reads, accept}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        if task is accept:
            peer = accept.result()
            await peer.head()
            return peer
        if task.exception() is None:
            return reads[task]
    return await next_request(backend)


async def until_empty(running: Command) -> None:
    """Wait until the command says that nothing is open."""
    for _ in range(200):
        found = await metrics(running)
        names = ("open_connections", "open_tunnels", "backend_idle_connections")
        if not any(found[f"stickyproxy_{name}"] for name in names):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"something is left open: {found}")
