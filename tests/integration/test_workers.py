"""`--workers N`: several processes are one proxy, and none of them is missed when it dies."""

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from stickyproxy.fleet.cores import usable_cores

from .command import Command
from .harness import Message, Peer, RawBackend, Stage, hello, named, request, response
from .test_nicegui_wire import PAGE
from .test_tunnel import ASK, SWITCH
from .workers import about, children, client_at, metrics, ready_with, state, told, until, worker_of, workers


async def tunnel_at(running: Command, pid: int, backend: RawBackend) -> tuple[Peer, Peer]:
    client = await client_at(running, pid)
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    return client, upstream


async def passes(client: Peer, upstream: Peer) -> None:
    client.send(b"there")
    assert await upstream.exactly(5) == b"there"
    upstream.send(b"back")
    assert await client.exactly(4) == b"back"


async def test_two_workers_are_one_proxy_whose_reports_add_up(stage: Stage) -> None:
    backend, other = await stage.backend(), await stage.backend(hello)
    async with workers("--backend", str(backend.address)) as running:
        assert (await running.look("/readyz")).body.startswith(b"ready: 1 of 1 backends usable, 2 of 2 workers\n")
        one, two = children(running.process.pid)
        tunnels = [await tunnel_at(running, pid, backend) for pid in (one, two, two)]
        assert f"backend {backend.address}: ready, 3 open tunnels\n" in (await running.look("/readyz")).body.decode()
        scraped = await metrics(running)
        assert scraped["stickyproxy_workers"] == 2
        assert scraped["stickyproxy_worker_restarts_total"] == 0
        assert scraped["stickyproxy_open_tunnels"] == scraped["stickyproxy_tunnels_total"] == 3
        assert scraped[f"stickyproxy_backend_tunnels{{backend={backend.address}}}"] == 3
        assert '"tunnels": 3' in (await running.look("/backends")).body.decode()
        for client, upstream in tunnels:
            await passes(client, upstream)
    assert other.connections == 0


async def test_connections_are_spread_over_the_workers(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address)) as running:
        clients = [await running.client() for _ in range(100)]
        reached: list[int | None] = []
        for client in clients:
            await until(lambda client=client: worker_of(running, client), "it is accepted")
            reached.append(worker_of(running, client))
        counts = [reached.count(pid) for pid in children(running.process.pid)]
        assert sum(counts) == 100
        assert min(counts) > 25, counts  # by chance less than once in a million runs


async def test_workers_load_the_data_plane_and_nothing_else(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address)) as running:
        for pid in children(running.process.pid):
            loaded = about(pid, "maps")
            assert b"uvloop" in loaded
            assert b"aiohttp" not in loaded
            assert b"multidict" not in loaded


async def test_secrets_are_in_no_argument_and_no_environment_of_a_worker(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend(hello)
    (tmp_path / "secret").write_text("a-very-secret-secret\n")
    async with workers("--backend", str(backend.address), "--secret-file", str(tmp_path / "secret")) as running:
        assert (await running.ask(request())).token
        for pid in children(running.process.pid):
            for name in ("cmdline", "environ"):
                assert b"a-very-secret-secret" not in about(pid, name)


async def test_a_pin_means_the_same_in_every_worker(stage: Stage) -> None:
    backends = [await stage.backend(named(name)) for name in ("one", "two", "three")]
    options = [option for backend in backends for option in ("--backend", str(backend.address))]
    async with workers(*options) as running:
        pids = children(running.process.pid)
        first = await client_at(running, pids[0])
        first.send(request())
        built = await first.message()
        for pid in pids * 3:
            client = await client_at(running, pid)
            client.send(request("GET / HTTP/1.1", f"Cookie: stickyproxy={built.token}"))
            answer = await client.message()
            assert (answer.body, answer.token) == (built.body, None)


# NiceGUI without cookies.


class App:
    """A replica that builds pages and accepts sockets, and says who it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.page = ""

    def __call__(self, asked: Message) -> bytes:
        if "socket.io" in asked.target:
            return response("400 Bad Request", f"X-App: {self.name}")
        self.page = str(uuid4())
        html = (
            "<!doctype html><html><body><script>createApp(parseElements(String.raw`{}`), {\n"
            f"        version: \"3.18.0\",\n        prefix: \"\",\n        query: {{'client_id': '{self.page}'}},\n"
            "      });</script></body></html>"
        )
        return response("200 OK", *PAGE, f"X-App: {self.name}", f"X-Page: {self.page}", body=html.encode())


def socket_of(page: str | None) -> bytes:
    return request(
        f"GET /_nicegui_ws/socket.io/?client_id={page}&EIO=4&transport=websocket HTTP/1.1",
        "Connection: Upgrade", "Upgrade: websocket",
    )  # fmt: skip


async def test_a_page_of_one_worker_is_known_to_the_others_within_50_ms(stage: Stage) -> None:
    """A browser without cookies, whose socket always lands on another worker than its page."""
    apps = [await stage.backend(App(name)) for name in ("one", "two", "three")]
    options = [option for backend in apps for option in ("--backend", str(backend.address))]
    right = 0
    async with workers(*options) as running:
        one, two = children(running.process.pid)
        pages = []
        for turn in range(20):
            here, there = (one, two) if turn % 2 else (two, one)
            loads, opens = await client_at(running, here), await client_at(running, there)
            loads.send(request("GET / HTTP/1.1", "Connection: close"))
            built = await loads.message()
            await asyncio.sleep(0.05)  # what is promised
            opens.send(socket_of(built.get("x-page")))
            right += (await opens.message()).get("x-app") == built.get("x-app")
            pages.append((built.get("x-page"), built.get("x-app")))
        # For a machine that stood still meanwhile; by chance so many are right once in 40,000 times.
        assert right >= 16, f"{right} of 20; by chance it would be 7"
        os.kill(one, signal.SIGKILL)
        await running.says("it is replaced")
        await ready_with(running, "2 of 2 workers")
        (new,) = set(children(running.process.pid)) - {two}
        for page, app in pages[-10:]:
            client = await client_at(running, new)
            client.send(socket_of(page))
            assert (await client.message()).get("x-app") == app, "a new worker is told what the others know"


async def test_the_fewest_pages_counts_all_workers(stage: Stage) -> None:
    full, empty = await stage.backend(), await stage.backend(named("empty"))
    options = ("--backend", str(full.address), "--backend", str(empty.address), "--slow-start", "0")
    async with workers(*options) as running:
        one, two = children(running.process.pid)
        pinned = []
        for _ in range(8):  # without a cookie they would be spread
            client = await client_at(running, one)
            client.send(ASK.replace(b"\r\n\r\n", b"\r\nCookie: stickyproxy=%b\r\n\r\n" % token(full)))
            upstream = await full.accepted()
            await upstream.head()
            upstream.send(SWITCH)
            await client.head()
            pinned.append((client, upstream))
        await told(running)
        for _ in range(3):
            client = await client_at(running, two)
            client.send(request())
            assert (await client.message()).body == b"empty"


def token(backend: RawBackend) -> bytes:
    from stickyproxy.core.backends import Secrets

    return Secrets().tokens(str(backend.address))[0]


# Drains.


async def test_a_drain_is_ordered_everywhere_and_waits_for_all(stage: Stage) -> None:
    backend, other = await stage.backend(), await stage.backend(hello)
    async with workers("--backend", str(backend.address), "--backend", str(other.address)) as running:
        one, two = children(running.process.pid)
        client = await client_at(running, one)
        client.send(ASK.replace(b"\r\n\r\n", b"\r\nCookie: stickyproxy=%b\r\n\r\n" % token(backend)))
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(SWITCH)
        await client.head()
        waits = asyncio.ensure_future(running.look(f"/drain?backend={backend.address}&wait=20s"))
        await ready_with(running, f"backend {backend.address}: draining, 1 open tunnels")
        os.kill(two, signal.SIGKILL)
        await running.says("it is replaced")
        await ready_with(running, "2 of 2 workers")
        (new,) = set(children(running.process.pid)) - {one}
        for pid in (one, new):
            for _ in range(3):
                asks = await client_at(running, pid)
                asks.send(request())
                assert (await asks.message()).body == b"hello", "a worker that comes later has the order too"
        assert not waits.done()
        client.reset()
        assert b'"empty": true' in (await waits).body


# Deaths.


async def test_a_killed_worker_is_replaced_and_the_others_do_not_notice(stage: Stage) -> None:
    backend = await stage.backend()
    async with workers("--backend", str(backend.address)) as running:
        one, two = children(running.process.pid)
        lost, kept = await tunnel_at(running, one, backend), await tunnel_at(running, two, backend)
        before = await metrics(running)
        os.kill(one, signal.SIGKILL)
        await lost[0].gone()
        await running.says(r"worker 0 \(pid \d+\) has ended with signal SIGKILL; it is replaced")
        await passes(*kept)
        await ready_with(running, "2 of 2 workers")
        after = await metrics(running)
        fallen = {n for n, v in before.items() if n.endswith("_total") and after[n] < v}
        assert not fallen, "no counter goes backwards"
        assert after["stickyproxy_worker_restarts_total"] == 1
        assert after["stickyproxy_open_tunnels"] == 1
        assert after["stickyproxy_tunnels_total"] == 2
        (new,) = set(children(running.process.pid)) - {two}
        await passes(*await tunnel_at(running, new, backend))


async def test_nobody_is_refused_while_workers_die(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address), quick=True) as running:
        served = broken = 0
        counted: list[float] = []
        over = asyncio.Event()

        async def visit() -> None:
            nonlocal served, broken
            while not over.is_set():
                client = await running.client()  # raises where it is refused
                client.send(request("GET / HTTP/1.1", "Connection: close"))
                try:
                    served += (await client.message()).body == b"hello"
                except (ConnectionError, asyncio.IncompleteReadError):
                    broken += 1  # it was in the middle of a worker that was killed
                client.close()

        async def kill() -> None:
            try:
                for _ in range(4):
                    counted.append((await metrics(running))["stickyproxy_connections_total"])
                    os.kill(children(running.process.pid)[0], signal.SIGKILL)
                    before = served
                    await running.says("it is replaced")
                    await ready_with(running, "2 of 2 workers")
                    await until(lambda before=before: served > before + 10, "visitors are served")
            finally:
                over.set()

        await asyncio.gather(kill(), *(visit() for _ in range(4)))
        assert counted == sorted(counted)
        assert broken <= 4 * len(counted), "only what a killed worker had in its hands is lost"


async def test_a_hung_worker_is_covered_then_killed_and_replaced(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address), quick=True) as running:
        one, two = children(running.process.pid)
        os.kill(one, signal.SIGSTOP)
        waiting = [await running.client() for _ in range(12)]
        for client in waiting:
            client.send(request())
        for client in waiting:
            assert (await client.message()).body == b"hello", "another accepts in its place before it is killed"
        assert state(one) == "T"
        await running.says(r"worker 0 \(pid \d+\) hangs: no heartbeat for \d+ s; it is killed")
        await running.says("SIGKILL; it is replaced")
        await ready_with(running, "2 of 2 workers")
        assert two in children(running.process.pid)
        assert one not in children(running.process.pid)


async def test_the_supervisors_death_ends_the_workers_even_one_that_hangs(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address)) as running:
        pids = children(running.process.pid)
        os.kill(pids[0], signal.SIGSTOP)
        running.send(signal.SIGKILL)
        await until(lambda: not any(state(pid) for pid in pids), "all end")
        with pytest.raises(ConnectionError):
            await running.client()


# Signals.


async def test_sighup_reaches_all_workers(stage: Stage, tmp_path: Path) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    config = tmp_path / "proxy.toml"
    config.write_text(f'backend = "{one.address}"\n')
    async with workers("--config", str(config)) as running:
        config.write_text(f'backend = "{two.address}"\n')
        os.killpg(running.process.pid, signal.SIGHUP)
        await running.says("backends are now")
        for pid in children(running.process.pid):
            client = await client_at(running, pid)
            client.send(request())
            assert (await client.message()).body == b"two"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_all_processes_drains_once_and_spreads_the_ends(stage: Stage, number: signal.Signals) -> None:
    backend = await stage.backend()
    async with workers("--backend", str(backend.address), "--drain-timeout", "2s") as running:
        pids = children(running.process.pid)
        tunnels = [await tunnel_at(running, pid, backend) for pid in pids * 4]
        asking = await client_at(running, pids[0])
        asking.send(request())
        upstream = await backend.accepted()
        await upstream.head()
        for pid in (*pids, running.process.pid):
            os.kill(pid, number)
        await running.says("draining: .* 8 tunnels have 2 s")
        upstream.send(response(body=b"finished"))
        assert (await asking.message()).body == b"finished"
        clock, ends = asyncio.get_running_loop().time, []
        began = clock()

        async def end(client: Peer) -> None:
            assert await client.gone(), "closed, not reset"
            ends.append(clock() - began)

        await asyncio.gather(*(end(client) for client, _ in tunnels))
        assert max(ends) - min(ends) > 0.6, ends
        assert await running.ends() == 0
        said = "".join(running.log)
        assert said.count("draining:") == 1
        assert "replaced" not in said
        assert "Traceback" not in said
        with pytest.raises(ConnectionError):
            await running.client()


async def test_a_second_signal_ends_all_at_once(stage: Stage) -> None:
    backend = await stage.backend()
    async with workers("--backend", str(backend.address), "--drain-timeout", "600s") as running:
        client, _ = await tunnel_at(running, children(running.process.pid)[1], backend)
        running.send(signal.SIGTERM)
        await running.says("draining: ")
        running.send(signal.SIGTERM)
        assert await running.ends() == 0
        await client.gone()


async def test_auto_means_the_cores_that_may_be_used(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with workers("--backend", str(backend.address), "--workers", "auto") as running:
        cores = usable_cores()
        assert len(children(running.process.pid)) == (cores if cores > 1 else 0)
