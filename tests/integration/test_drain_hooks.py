"""/drain, /undrain and /backends on the admin port, and `stickyproxy drain` asking it: what a preStop hook sees."""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from stickyproxy.admin.server import AdminServer
from stickyproxy.cli import cli
from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.status import DiscoveryStatus
from stickyproxy.core.values import Address
from stickyproxy.dataplane.local import LocalPlane
from stickyproxy.fleet.fleet import Fleet
from stickyproxy.tools import drain as tool

from .command import command
from .harness import Message, Peer, RawBackend, Running, Stage, eventually, hello, request, soon, turns
from .test_backend_drain import identity, page_tunnel
from .test_tunnel import open_tunnel


class Admin:
    """The admin port of a proxy on a stage."""

    def __init__(self, running: Running, address: Address) -> None:
        self.proxy = running.proxy
        self.address = address

    async def ask(self, target: str, method: str = "GET") -> Message:
        peer = Peer(*await asyncio.open_connection(*self.address))
        try:
            peer.send(request(f"{method} {target} HTTP/1.1", "Connection: close"))
            return await peer.message()
        finally:
            peer.close()
            await peer.gone()

    async def json(self, target: str, method: str = "GET") -> Any:
        message = await self.ask(target, method)
        assert (message.status, message.get("cache-control")) == (200, "no-store"), message
        return json.loads(message.body)


@asynccontextmanager
async def admin_of(running: Running) -> AsyncIterator[Admin]:
    fleet = Fleet([LocalPlane(running.proxy)], None, logging.getLogger("stickyproxy"))
    fleet._listed = {b.identity: b for b in running.proxy.listed}
    server = AdminServer(lambda: fleet.status(DiscoveryStatus("a test", "")), fleet)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.listen(listener)
    try:
        yield Admin(running, Address(*listener.getsockname()[:2]))
    finally:
        await server.close()


NOTHING = {"pages": 0, "tunnels": 0, "exchanges": 0, "empty": True}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_drain_and_undrain_by_either_method(stage: Stage, method: str) -> None:
    a, b = await stage.backend(hello), await stage.backend(hello)
    running = await stage.proxy(a, b)
    async with admin_of(running) as admin:
        for target, ordered in ((f"/drain?backend={a.address}", True), (f"/undrain?backend={a.address}", False)):
            for _ in range(2):
                assert await admin.json(target, method) == {"backend": str(a.address), **NOTHING}
                assert running.proxy.drains.ordered(identity(a)) is ordered
        assert (await admin.ask(f"/drain?backend={a.address}", "DELETE")).status == 405


async def test_a_backend_is_meant_by_name_identity_address_or_host(stage: Stage) -> None:
    pods = [
        Backend("uid-1", Address("10.1.2.3", 8080), name="app-1"),
        Backend("uid-2", Address("fd00::2", 8080), name="app-2"),
        Backend("uid-3", Address("10.1.2.4", 8080)),
    ]
    running = await stage.proxy(*pods)
    names = {
        "uid-1": ("uid-1", "app-1", "10.1.2.3:8080", "10.1.2.3"),
        "uid-2": ("app-2", "[fd00::2]:8080", "fd00::2", "[fd00::2]"),
        "uid-3": ("uid-3", "10.1.2.4"),
    }
    async with admin_of(running) as admin:
        for one, texts in names.items():
            for text in texts:
                await admin.json(f"/drain?backend={quote(text)}")
                assert running.proxy.drains.ordered(one), text
                await admin.json(f"/undrain?backend={quote(text)}")


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/drain", 400, "backend: expected a pod's name, IP or HOST:PORT, as in /drain?backend=10.1.2.3&wait=30s"),
        ("/undrain?backend=", 400, "backend: expected a pod's name, IP or HOST:PORT, as in /drain?backend="),
        ("/drain?backend=app-9", 404, "backend: expected one that is listed at /readyz, found 'app-9'"),
        ("/drain?backend=a%0Ab", 404, "backend: expected one that is listed at /readyz, found 'a?b'"),
        ("/drain?backend=10.1.2.3", 400, "backend: expected one, found several at '10.1.2.3': 10.1.2.3:81, app-1"),
        ("/drain?backend=app-1&wait=soon", 400, "wait: expected a duration such as 3, 500ms, 10s or 2m, found 'soon'"),
        ("/drain?backend=app-1&wait=-1s", 400, "wait: expected a duration"),
        ("/drain?backend=app-1&wait=61m", 400, "wait: expected at most 1h, found '61m'"),
        ("/drain?backend=app-1&wait=1s&idle=x", 400, "idle: expected a duration"),
        (
            "/drain?backend=app-1&idle=1s",
            400,
            "idle: expected together with wait, the time within which pages are moved",
        ),
        ("/drain?backend=app-1&wait=0&idle=1s", 400, "idle: expected together with wait"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line_and_not_done(
    stage: Stage, target: str, status: int, said: str
) -> None:
    pods = (Backend("uid-1", Address("10.1.2.3", 80), name="app-1"), Backend.at(Address("10.1.2.3", 81)))
    nameless = Backend("uid-4", Address("10.1.2.5", 80))
    running = await stage.proxy(*pods, nameless)
    async with admin_of(running) as admin:
        for method in ("GET", "POST"):
            message = await admin.ask(target, method)
            assert (message.status, message.get("cache-control")) == (status, "no-store")
            text = message.body.decode()
            assert text.startswith(said)
            assert text.count("\n") == 1
    assert not running.proxy.drains._ordered


async def test_a_wait_ends_with_the_last_page_and_tells_what_is_left_at_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.drains.LOADING_S", 0.0)
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b)
    client, upstream = await page_tunnel(running, a)
    async with admin_of(running) as admin:
        left = await admin.json(f"/drain?backend={a.address}&wait=200ms")
        assert left == {"backend": str(a.address), "pages": 1, "tunnels": 1, "exchanges": 0, "empty": False}
        wait = asyncio.ensure_future(admin.json(f"/drain?backend={a.address}&wait=1h"))
        await eventually(lambda: running.proxy.drains._waiting, "it waits")
        client.close()
        upstream.close()
        assert await soon(wait) == {"backend": str(a.address), **NOTHING}


async def test_a_wait_does_not_hold_up_the_end_of_the_admin_port(stage: Stage) -> None:
    a = await stage.backend()
    running = await stage.proxy(a)
    client, upstream = await page_tunnel(running, a)
    async with admin_of(running) as admin:
        wait = asyncio.ensure_future(admin.ask(f"/drain?backend={a.address}&wait=1h"))
        await eventually(lambda: running.proxy.drains._waiting, "it waits")
    await asyncio.gather(wait, return_exceptions=True)
    assert not running.proxy.drains._waiting
    client.close()
    upstream.close()
    await running.quiet()


async def test_backends_are_listed_with_what_is_open(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b.at(Phase.PAUSED))
    ends = [await page_tunnel(running, a), await open_tunnel(running, a)]
    running.proxy.drains.drain(identity(a))
    async with admin_of(running) as admin:
        found = {one["name"]: one for one in await admin.json("/backends")}
    base = {"identity": str(a.address), "name": str(a.address), "address": str(a.address)}
    assert found[str(a.address)] == {**base, "phase": "draining", "drained": True, "pages": 1, "tunnels": 2}
    assert found[str(b.address)]["phase"] == "paused"
    assert found[str(b.address)]["drained"] is False
    for client, upstream in ends:
        client.close()
        upstream.close()
    await running.quiet()


# The command.


async def run_tool(*arguments: str) -> Result:
    """Run `stickyproxy drain` beside the event loop that the proxies turn on."""
    return await soon(asyncio.to_thread(CliRunner().invoke, cli, ["drain", *arguments]), bound_s=30)


@asynccontextmanager
async def proxies(stage: Stage, count: int, *backends: RawBackend) -> AsyncIterator[tuple[list[Running], list[str]]]:
    async with AsyncExitStack() as stack:
        running = [await stage.proxy(*backends) for _ in range(count)]
        admins = [await stack.enter_async_context(admin_of(one)) for one in running]
        yield running, [word for admin in admins for word in ("--proxy", str(admin.address))]


@pytest.mark.parametrize("count", [1, 2])
async def test_every_proxy_is_asked_and_asked_back(stage: Stage, count: int) -> None:
    a, b = await stage.backend(), await stage.backend()
    async with proxies(stage, count, a, b) as (running, options):
        done = await run_tool(*options, "--backend", str(a.address))
        assert (done.exit_code, done.output.count("drains, nothing of it is open\n")) == (0, count), done.output
        assert all(one.proxy.drains.ordered(identity(a)) for one in running)
        done = await run_tool(*options, "--backend", str(a.address), "--undo", "--wait", "1s")
        assert (done.exit_code, done.output.count("takes new sessions again\n")) == (0, count), done.output
        assert not any(one.proxy.drains.ordered(identity(a)) for one in running)


async def test_it_waits_for_the_last_page_of_all_proxies(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.drains.LOADING_S", 0.0)
    a, b = await stage.backend(), await stage.backend()
    async with proxies(stage, 2, a, b) as (running, options):
        client, upstream = await page_tunnel(running[1], a)
        left = await run_tool(*options, "--backend", str(a.address), "--wait", "300ms")
        assert left.exit_code == 1
        assert "drains, nothing of it is open" in left.output
        assert "drains, 1 pages, 1 sockets and 0 requests are open" in left.output
        told = await run_tool(*options, "--backend", str(a.address))
        assert told.exit_code == 0, "without --wait what is open is only told"
        assert "1 pages" in told.output
        waiting = asyncio.ensure_future(run_tool(*options, "--backend", str(a.address), "--wait", "1h"))
        await eventually(lambda: running[1].proxy.drains._waiting, "it waits")
        client.close()
        upstream.close()
        assert (await waiting).exit_code == 0


async def test_idle_moves_pages(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.drains.LOADING_S", 0.0)
    a, b = await stage.backend(), await stage.backend()
    async with proxies(stage, 1, a, b) as (running, options):
        client, upstream = await page_tunnel(running[0], a)
        moving = asyncio.ensure_future(run_tool(*options, "--backend", str(a.address), "--wait", "8s", "--idle", "0"))
        assert await client.rest() == b""
        client.close()
        upstream.close()
        done = await moving
        assert done.exit_code == 0, done.output


async def test_one_that_does_not_answer_is_told_and_the_others_are_asked(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = str(Address(*closed.getsockname()))
        async with proxies(stage, 1, a, b) as (running, options):
            done = await run_tool("--proxy", nobody, *options, "--backend", str(a.address))
    assert done.exit_code == 1
    assert f"{nobody}: expected a stickyproxy's admin port, found " in done.output
    assert "refused" in done.output
    assert running[0].proxy.drains.ordered(identity(a))


async def test_one_out_of_reach_is_given_up_long_before_the_wait_is_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue of a listener drops what comes, as a dead node's address does."""
    monkeypatch.setattr(tool, "ANSWER_S", 0.3)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        done = await run_tool("--proxy", str(Address(*full.getsockname())), "--backend", "a", "--wait", "1h")
    assert done.exit_code == 1
    assert "timed out" in done.output


async def test_what_is_no_stickyproxy_is_told(stage: Stage) -> None:
    other = await stage.backend(hello)
    done = await run_tool("--proxy", str(other.address), "--backend", "a")
    assert done.exit_code == 1
    assert done.output.startswith(f"{other.address}: expected a stickyproxy's admin port, found ")
    assert done.output.count("\n") == 1


async def test_what_a_proxy_refuses_is_passed_on(stage: Stage) -> None:
    async with proxies(stage, 1, await stage.backend()) as (_, options):
        done = await run_tool(*options, "--backend", "no-such-pod")
    assert done.exit_code == 1
    assert "backend: expected one that is listed at /readyz, found 'no-such-pod'" in done.output


async def test_without_a_backend_it_is_this_very_pod(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    a = await stage.backend()
    async with proxies(stage, 1, a) as (running, options):
        monkeypatch.setattr(tool, "own_address", lambda: "127.0.0.1")
        done = await run_tool(*options)
        assert done.exit_code == 0, done.output
        assert running[0].proxy.drains.ordered(identity(a))


def test_this_pods_address_is_what_its_name_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.0.7")
    assert tool.own_address() == "127.0.0.7"


async def test_a_pod_whose_address_cannot_be_found_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(tool, "own_address", fail)
    done = await run_tool("--proxy", "127.0.0.1:1")
    assert done.exit_code == 2
    assert "--backend: expected the name, IP or HOST:PORT of a pod" in done.output


async def test_all_addresses_behind_a_name_are_asked_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await stage.backend(), await stage.backend()
    async with proxies(stage, 2, a, b) as (running, options):
        found = [Address("127.0.0.1", int(word.rpartition(":")[2])) for word in options[1::2]]
        asked: list[list[Address]] = []

        def resolve(names: list[Address]) -> list[Address]:
            asked.append(list(names))
            return found

        monkeypatch.setattr(tool, "resolve", resolve)
        done = await run_tool("--proxy", "stickyproxy.default:9090", "--backend", str(a.address))
        assert (done.exit_code, done.output.count("\n")) == (0, 2), done.output
        assert asked == [[Address("stickyproxy.default", 9090)]]
        assert all(one.proxy.drains.ordered(identity(a)) for one in running)


def test_a_name_gives_each_of_its_addresses_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [(2, 1, 6, "", (host, 9090)) for host in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: records)
    assert tool.resolve([Address("headless", 9090)]) == [Address("10.0.0.1", 9090), Address("10.0.0.2", 9090)]


async def test_a_name_that_means_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(_: object) -> list[Address]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(tool, "resolve", resolve)
    done = await run_tool("--proxy", "nobody.invalid:9090", "--backend", "a")
    assert done.exit_code == 1
    assert done.output.startswith("expected the name of a headless Service or a proxy's address, found none: Name or")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--proxy", "nowhere"), "--proxy"),
        (("--wait", "soon"), "--wait"),
        (("--idle", "soon", "--wait", "1s"), "--idle"),
        (("--idle", "1s"), "--idle: expected together with --wait"),
    ],
)
async def test_a_wrong_option_ends_with_2(arguments: tuple[str, ...], said: str) -> None:
    done = await run_tool("--backend", "a", *arguments)
    assert done.exit_code == 2
    assert said in done.output


async def test_the_real_command_drains_a_backend_of_the_real_proxy(stage: Stage) -> None:
    a, b = await stage.backend(hello), await stage.backend(hello)
    options = ("--backend", str(a.address), "--backend", str(b.address))
    async with command(*options) as running:
        arguments = ("drain", "--proxy", str(running.admin), "--backend", str(a.address), "--wait", "5s")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stickyproxy", *arguments, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await soon(process.communicate(), bound_s=30)
        assert process.returncode == 0
        assert said.decode() == f"{running.admin}: {a.address} drains, nothing of it is open\n"
        for _ in range(5):
            await running.ask(request())
        await turns()
        assert (len(a.requests), len(b.requests)) == (0, 5)
        listed = json.loads((await running.look("/backends")).body)
        assert {one["address"]: one["drained"] for one in listed} == {str(a.address): True, str(b.address): False}
