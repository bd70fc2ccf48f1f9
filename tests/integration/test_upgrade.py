"""SIGUSR2: a new version takes over on the same ports, and nobody is refused."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from .command import Command
from .harness import Stage, hello, request, soon
from .test_command import tunnel_through
from .test_tunnel import ASK, SWITCH
from .test_workers import App, passes, socket_of
from .workers import children, client_at, state, until, workers


async def upgraded(running: Command) -> int:
    """Upgrade; give the new version's pid."""
    running.send(signal.SIGUSR2)
    line = await running.says(r"stickyproxy \S+ \(pid \d+\) serves now; this one leaves")
    return int(re.search(r"\(pid (\d+)\)", line)[1])  # type: ignore[index]


async def end(pid: int) -> None:
    """End the new version, which is nobody's child any more."""
    os.kill(pid, signal.SIGTERM)
    await until(lambda: not state(pid), "the new version ends at SIGTERM")


@pytest.mark.parametrize("count", [1, 2])
async def test_nobody_is_refused_under_load_and_tunnels_drain(stage: Stage, count: int) -> None:
    backend, answers = await stage.backend(), await stage.backend(hello)
    options = ("--backend", str(answers.address), "--drain-timeout", "3s")
    async with workers(*options, count=count) as running:
        over = asyncio.Event()
        served = 0

        async def visit() -> None:
            nonlocal served
            while not over.is_set():
                client = await running.client()  # raises where it is refused
                client.send(request("GET / HTTP/1.1", "Connection: close"))
                assert (await client.message()).body == b"hello"
                served += 1
                client.close()

        visits = [asyncio.ensure_future(visit()) for _ in range(4)]
        new = 0
        try:
            old = running.process.pid
            new = await upgraded(running)
            await running.says("draining: new connections are served for 0 s more")
            await until(lambda: state(old) in ("", "Z"), "the old version ends")
            before = served
            await until(lambda: served > before + 20, "the new version serves")
            assert (await running.look("/readyz")).status == 200
        finally:
            over.set()
            if new:
                await end(new)  # first: if a visit has failed, nobody else would
            await asyncio.gather(*visits)
        assert served > 50
        assert backend.connections == 0


async def test_tunnels_of_the_old_version_live_on_until_it_has_drained(stage: Stage) -> None:
    backend = await stage.backend()
    async with workers("--backend", str(backend.address), "--drain-timeout", "30s") as running:
        client, upstream = await tunnel_through(running, backend)
        new = await upgraded(running)
        await running.says("draining: .* 1 tunnels have 30 s")
        await passes(client, upstream)
        fresh = await client_at(running, children(new)[0], new)  # the old workers may accept for a moment yet
        fresh.send(ASK)
        other = await backend.accepted()
        await other.head()
        other.send(SWITCH)
        assert (await fresh.head()).status == 101
        await passes(fresh, other)
        client.reset()
        assert await soon(running.process.wait(), bound_s=10) == 0
        await passes(fresh, other)
        await end(new)
        await fresh.gone()


@pytest.mark.parametrize("count", [1, 2])
async def test_the_new_version_knows_the_pages_of_browsers_without_cookies(stage: Stage, count: int) -> None:
    apps = [await stage.backend(App(name)) for name in ("one", "two", "three")]
    options = [option for backend in apps for option in ("--backend", str(backend.address))]
    async with workers(*options, "--drain-timeout", "1s", count=count) as running:
        built = [await running.ask(request("GET / HTTP/1.1", "Connection: close")) for _ in range(10)]
        new = await upgraded(running)
        await soon(running.process.wait())
        try:
            for page in built:
                answer = await running.ask(socket_of(page.get("x-page")))
                assert answer.get("x-app") == page.get("x-app")
        finally:
            await end(new)


async def test_the_number_of_workers_may_change(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend(hello)
    config = tmp_path / "proxy.toml"
    config.write_text(f'backend = "{backend.address}"\nworkers = 3\n')
    async with workers("--config", str(config), count=0) as running:
        assert b"3 of 3 workers" in (await running.look("/readyz")).body
        config.write_text(f'backend = "{backend.address}"\nworkers = 1\n')
        new = await upgraded(running)
        await soon(running.process.wait())
        for _ in range(20):  # the only data plane accepts on all three sockets
            assert (await running.ask(request())).body == b"hello"
        assert b"workers" not in (await running.look("/readyz")).body
        await end(new)


async def test_a_new_version_that_does_not_start_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend(hello)
    config = tmp_path / "proxy.toml"
    config.write_text(f'backend = "{backend.address}"\n')
    async with workers("--config", str(config)) as running:
        config.write_text('backend = "nonsense"\n')
        await running.says("the old settings stay in force")
        for _ in range(2):
            running.send(signal.SIGUSR2)
            line = await running.says("SIGUSR2: the new version does not serve, so this one goes on: ")
            assert "--backend" in line, "it says why"
        assert (await running.ask(request())).body == b"hello"
        assert (await running.look("/readyz")).status == 200


@pytest.mark.parametrize("handed", ["listen=99", "nonsense", "listen=1 control=0", "control=4"])
async def test_what_is_not_handed_down_is_refused_in_one_line(handed: str) -> None:
    from .command import start

    process = await start(
        "run", "--backend", "a:1", "--listen", "127.0.0.1:0", environment={"STICKYPROXY_INHERIT": handed}
    )
    _, said = await soon(process.communicate(), bound_s=20)
    assert process.returncode == 2
    assert said.decode().startswith("stickyproxy: STICKYPROXY_INHERIT: expected open sockets of an older version")
    assert said.count(b"\n") == 1
