"""The real command: starts, is watched, is told of changes, and ends as Kubernetes expects it."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .command import Command, command, reserved, start
from .harness import Peer, RawBackend, Stage, hello, named, request, response, soon
from .test_tunnel import ASK, SWITCH


async def tunnel_through(running: Command, backend: RawBackend) -> tuple[Peer, Peer]:
    client = await running.client()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await client.head()).status == 101
    return client, upstream


async def test_it_is_ready_in_time_and_forwards(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address)) as running:
        assert (await running.look("/livez")).status == 200
        ready = await running.look("/readyz")
        assert ready.status == 200
        assert ready.body.startswith(b"ready: 1 of 1 backends usable\n")
        message = await running.ask(request())
        assert message.body == b"hello"
        assert message.token is not None


async def test_everything_can_be_set_in_the_environment(stage: Stage) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    environment = {"STICKYPROXY_BACKEND": f"{one.address},{two.address}", "STICKYPROXY_COOKIE_NAME": "pin"}
    async with command(environment=environment) as running:
        assert {(await running.ask(request())).body for _ in range(2)} == {b"one", b"two"}
        (cookie,) = (await running.ask(request())).all("set-cookie")
        assert cookie.startswith("pin=")


async def test_a_backend_that_fails_is_seen_in_readyz_metrics_and_log(stage: Stage) -> None:
    backend = await stage.backend(hello)
    with reserved() as nobody:
        async with command(
            "--backend", str(backend.address), "--backend", str(nobody), "--eject-after", "1"
        ) as running:
            for _ in range(2):  # one of them is sent there first
                assert (await running.ask(request())).body == b"hello"
            ready = (await running.look("/readyz")).body.decode()
            assert re.search(
                rf"^backend {nobody}: ready, 0 open tunnels, no new sessions (for \d\.\d s|but one that tries it): "
                r"1 failure \(connection refused\)$", ready, re.MULTILINE,
            )  # fmt: skip
            assert f"backend {backend.address}: ready, 0 open tunnels\n" in ready
            scraped = (await running.look("/metrics")).body.decode()
            samples = {
                (s.name, *sorted(s.labels.items())): s.value
                for family in text_string_to_metric_families(scraped)
                for s in family.samples
            }
            assert samples[("stickyproxy_ejections_total",)] == 1
            assert samples[("stickyproxy_returns_total",)] == 0
            assert samples[("stickyproxy_retries_denied_total",)] == 0
            assert samples[("stickyproxy_backend_failures_total", ("kind", "refused"))] == 1
            assert samples[("stickyproxy_backend_ejected", ("backend", str(nobody)))] == 1
            assert samples[("stickyproxy_backend_ejected", ("backend", str(backend.address)))] == 0
            await running.says(rf"WARNING stickyproxy: backend {nobody} gets no new sessions for \d\.\d s: 1 failure")


async def test_metrics_are_valid_openmetrics_and_tell_what_happened(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address), "--health-path", "/healthz") as running:
        token = (await running.ask(request())).token
        for _ in range(2):
            await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={token}"))
        await running.ask(request("GET / HTTP/1.1", "Cookie: stickyproxy=unknown"))
        await running.ask(request("GET /healthz HTTP/1.1"))
        await running.ask(b"nonsense\r\n\r\n")
        scraped = await running.look("/metrics")
        assert (scraped.get("content-type") or "").startswith("application/openmetrics-text")
        samples = {
            (s.name, *sorted(s.labels.items())): s.value
            for family in text_string_to_metric_families(scraped.body.decode())
            for s in family.samples
        }
        assert samples[("stickyproxy_ready",)] == 1
        assert samples[("stickyproxy_backends", ("phase", "ready"))] == 1
        assert samples[("stickyproxy_pins_total", ("pin", "new"))] == 1
        assert samples[("stickyproxy_pins_total", ("pin", "kept"))] == 2
        assert samples[("stickyproxy_pins_total", ("pin", "moved"))] == 1
        assert samples[("stickyproxy_moves_total", ("cause", "gone"))] == 1
        assert samples[("stickyproxy_probes_total",)] == 1
        for pin, count in (("new", 1), ("kept", 2), ("moved", 1), ("none", 0)):
            assert samples[("stickyproxy_requests_total", ("class", "2xx"), ("pin", pin))] == count
        assert samples[("stickyproxy_requests_total", ("class", "4xx"), ("pin", "none"))] == 1
        assert samples[("stickyproxy_backend_requests_total", ("backend", str(backend.address)))] == 4
        assert samples[("stickyproxy_backend_moved_to_total", ("backend", str(backend.address)))] == 1
        assert (
            samples[("stickyproxy_request_seconds_count",)] == samples[("stickyproxy_first_byte_seconds_count",)] == 4
        )
        assert samples[("stickyproxy_received_bytes_total",)] > 0
        assert samples[("stickyproxy_sent_bytes_total",)] > samples[("stickyproxy_received_bytes_total",)]
        assert samples[("stickyproxy_faults_total", ("reason", "bad-request-line"))] == 1
        assert samples[("stickyproxy_connections_total",)] == 6
        assert samples[("stickyproxy_backend_tunnels", ("backend", str(backend.address)))] == 0


async def test_the_admin_port_dials_no_backend(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address)) as running:
        for target in ("/livez", "/readyz", "/metrics"):
            assert (await running.look(target)).status == 200
        assert (await running.look("/nothing")).status == 404
    assert backend.connections == 0


async def test_the_admin_port_can_be_off(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address), "--admin", "off") as running:
        assert (await running.ask(request())).status == 200
        with pytest.raises(ConnectionError):
            await running.look("/livez")


async def test_a_name_is_resolved(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--dns", f"localhost:{backend.address.port}") as running:
        async with asyncio.timeout(10):
            while (await running.look("/readyz")).status != 200:
                pass  # the port is open before the name is resolved, and readiness says so
        assert (await running.ask(request())).body == b"hello"
        assert b"discovery: DNS localhost" in (await running.look("/readyz")).body


async def test_it_lives_and_is_not_ready_while_a_name_cannot_be_resolved(stage: Stage) -> None:
    async with command("--dns", "no-such-name.invalid:80", "--dns-interval", "100ms") as running:
        await running.says("cannot resolve no-such-name.invalid")
        assert (await running.look("/livez")).status == 200
        ready = await running.look("/readyz")
        assert (ready.status, b"PROBLEM" in ready.body) == (503, True)
        message = await running.ask(request())
        assert (message.status, message.reason) == (503, "no-backend")


# Changes while it runs.


async def test_sighup_reads_the_backends_again_and_drops_no_tunnel(stage: Stage, tmp_path: Path) -> None:
    one, two = await stage.backend(), await stage.backend(named("two"))
    config = tmp_path / "proxy.toml"
    config.write_text(f'backend = "{one.address}"\n')
    async with command("--config", str(config)) as running:
        client, upstream = await tunnel_through(running, one)
        config.write_text(f'backend = "{two.address}"\n')
        running.send(signal.SIGHUP)
        await running.says(rf"reload \(.*\): backends are now {two.address}")
        assert (await running.ask(request())).body == b"two"
        client.send(b"still")
        assert await upstream.exactly(5) == b"still"
        upstream.send(b"open")
        assert await client.exactly(4) == b"open"


async def test_a_changed_file_is_read_again_without_a_signal_and_drops_no_tunnel(stage: Stage, tmp_path: Path) -> None:
    """As a ConfigMap changes: by a link that is swapped."""
    one, two = await stage.backend(), await stage.backend(named("two"))
    for backend, name in ((one, "first"), (two, "second")):
        (tmp_path / name).write_text(f'backend = ["{backend.address}"]\n')
    config = tmp_path / "proxy.toml"
    config.symlink_to("first")
    async with command("--config", str(config)) as running:
        client, upstream = await tunnel_through(running, one)
        (tmp_path / "link").symlink_to("second")
        os.replace(tmp_path / "link", config)
        await running.says(r"reload \(the configuration file has changed\): backends are now")
        assert (await running.ask(request())).body == b"two"
        client.send(b"still")
        assert await upstream.exactly(5) == b"still"


@pytest.mark.parametrize("broken", ["backend = [", 'backend = "nonsense"', 'backnd = "a:1"', "backend = []", ""])
async def test_a_broken_file_changes_nothing(stage: Stage, tmp_path: Path, broken: str) -> None:
    backend = await stage.backend(hello)
    config = tmp_path / "proxy.toml"
    config.write_text(f'backend = "{backend.address}"\n')
    async with command("--config", str(config)) as running:
        config.write_text(broken)
        running.send(signal.SIGHUP)
        await running.says("the old settings stay in force")
        assert (await running.ask(request())).body == b"hello"


async def test_a_setting_that_needs_a_restart_is_named(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend(hello)
    config = tmp_path / "proxy.toml"
    config.write_text(f'backend = "{backend.address}"\n')
    async with command("--config", str(config)) as running:
        config.write_text(f'backend = "{backend.address}"\ndrain-timeout = "3s"\n')
        running.send(signal.SIGHUP)
        await running.says("needs a restart: drain_timeout_s")


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_drains_and_exits_0(stage: Stage, number: signal.Signals) -> None:
    backend = await stage.backend()
    async with command("--backend", str(backend.address), "--drain-timeout", "60s") as running:
        idle, client = await running.client(), await running.client()
        client.send(request())
        upstream = await backend.accepted()
        await upstream.head()
        running.send(number)
        await running.says("draining: ")
        assert await idle.rest() == b""
        ready = await running.look("/readyz")
        assert (ready.status, ready.body.startswith(b"not ready: draining")) == (503, True)
        assert (await running.look("/livez")).status == 200
        upstream.send(response(body=b"finished"))
        message = await client.message()
        assert (message.body, message.get("connection")) == (b"finished", "close")
        assert await running.ends() == 0
        assert "Traceback" not in "".join(running.log)


async def test_it_ends_at_the_drain_timeout(stage: Stage) -> None:
    backend = await stage.backend()
    async with command("--backend", str(backend.address), "--drain-timeout", "300ms") as running:
        client, upstream = await tunnel_through(running, backend)
        asking = await running.client()
        asking.send(request())
        await (await backend.accepted()).head()
        running.send(signal.SIGTERM)
        assert await running.ends() == 0
        assert "Traceback" not in "".join(running.log)
        await upstream.gone()
        await client.gone()


async def test_a_second_signal_ends_it_at_once(stage: Stage) -> None:
    backend = await stage.backend()
    async with command("--backend", str(backend.address), "--drain-timeout", "600s") as running:
        client = await running.client()
        client.send(request())
        await (await backend.accepted()).head()
        running.send(signal.SIGTERM)
        await running.says("draining: ")
        running.send(signal.SIGTERM)
        await running.ends()
        assert running.process.returncode == 0
        assert "Traceback" not in "".join(running.log)


async def test_an_open_admin_connection_does_not_hold_up_the_end(stage: Stage) -> None:
    backend = await stage.backend()
    async with command("--backend", str(backend.address)) as running:
        watcher = await running.client(running.admin)
        watcher.send(request("GET /livez HTTP/1.1"))
        assert (await watcher.message()).status == 200
        running.send(signal.SIGTERM)
        assert await running.ends() == 0


async def test_sigterm_right_after_the_start_ends_it(stage: Stage) -> None:
    backend = await stage.backend()
    async with command("--backend", str(backend.address)) as running:
        running.send(signal.SIGTERM)
        assert await running.ends() == 0


# What is wrong is said in one line.


async def refused(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run a command that must end with exit code 2; give the one line it says."""
    process = await start(*arguments, environment=environment)
    _, said = await soon(process.communicate(), bound_s=20)
    assert process.returncode == 2, said.decode()
    lines = said.decode().splitlines()
    assert len(lines) == 1, said.decode()
    return lines[0]


@pytest.mark.parametrize("option", ["--listen", "--admin"])
async def test_a_taken_port_is_said(stage: Stage, option: str) -> None:
    taken = await stage.backend()
    with reserved() as free:
        other = "--admin" if option == "--listen" else "--listen"
        line = await refused("run", option, str(taken.address), other, str(free), "--backend", "127.0.0.1:1")
    assert option in line
    assert str(taken.address) in line


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--backend", "nonsense"], "--backend"),
        ([], "--backend"),
        (["--backend", "a:1", "--dns", "b:1"], "--dns"),
        (["--backend", "a:1", "--listen", "a:70000"], "--listen"),
        (["--backend", "a:1", "--head-timeout", "0"], "--head-timeout"),
        (["--backend", "a:1", "--config", "/no/such/file"], "--config"),
        (["--backend", "a:1", "--secret", "short"], "--secret"),
        (["--backend", "a:1", "--bakend", "b:1"], "--bakend"),
        (["--backend", "a:1", "--cookie-samesite", "None", "--cookie-secure", "never"], "--cookie-samesite"),
        (["--backend", "a:1", "--listen", "no-such-name.invalid:80", "--admin", "off"], "--listen"),
    ],
)
async def test_a_wrong_setting_is_named(arguments: list[str], option: str) -> None:
    assert option in await refused("run", *arguments)


async def test_a_wrong_setting_of_the_environment_is_named() -> None:
    assert "STICKYPROXY_BACKEND" in await refused("run", environment={"STICKYPROXY_BACKEND": "nonsense"})


async def test_a_port_of_the_kernels_choice_is_said(stage: Stage) -> None:
    backend = await stage.backend(hello)
    process = await start("run", "--listen", "127.0.0.1:0", "--admin", "off", "--backend", str(backend.address))
    try:
        assert process.stderr is not None
        line = (await soon(process.stderr.readline(), bound_s=20)).decode()
        port = int(line.rstrip().rpartition(":")[2])
        assert port != 0, line
        peer = Peer(*await soon(asyncio.open_connection("127.0.0.1", port)))
        peer.send(request())
        assert (await peer.message()).body == b"hello"
        peer.drop()
    finally:
        process.kill()
        await process.communicate()
