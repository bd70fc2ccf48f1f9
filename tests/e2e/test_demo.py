"""`stickyproxy demo` comes up, heals itself, and leaves nothing behind."""

import importlib.metadata
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.async_api import Browser, expect

from stickyproxy.core.values import Address
from stickyproxy.tools import demo as demo_module

from .harness import START_LIMIT_S, Process, Visit, descendants, running, watching

PROMPTLY_S = 5.0
"""A person who pressed Ctrl-C waits no longer than this."""


@dataclass
class Demo:
    """A running demo, up and introduced."""

    process: Process
    url: str


@contextmanager
def running_demo(folder: Path, *options: str) -> Iterator[Demo]:
    command = [sys.executable, "-m", "stickyproxy", "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with running("demo", [*command, *options], folder) as process:
        url = process.read_until("  page  ", 2 * START_LIMIT_S).split()[1]
        process.read_until("Ctrl-C")
        yield Demo(process, url)


async def test_it_shows_a_page_and_ctrl_c_ends_it_with_all_its_children(browser: Browser, tmp_path: Path) -> None:
    with running_demo(tmp_path, "--replicas", "3") as demo:
        visit = await Visit.begin(browser, demo.url)
        await visit.click(1)
        await expect(visit.page.get_by_test_id("chart").locator("svg, canvas").first).to_be_visible()
        assert visit.documents == [demo.url]
        assert visit.complaints == []

        children = descendants(demo.process.pid)
        assert len(children) >= 4, "three replicas and the proxy"
        with watching(children) as watch:
            demo.process.popen.send_signal(signal.SIGINT)
            assert demo.process.popen.wait(PROMPTLY_S) == 0
            assert watch.survivors(0) == []
        await visit.page.context.close()
        assert "Traceback" not in demo.process.said()


def test_with_park_it_parks_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stickyproxy", "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with running("demo", [*command, "--replicas", "1", "--park", "5m"], tmp_path) as process:
        dashboard = process.read_until("  dashboard ", 2 * START_LIMIT_S).split()[1]
        process.read_until("lock it for a minute: it is as you left it")
        with urllib.request.urlopen(f"{dashboard}api/v1/status", timeout=START_LIMIT_S) as answer:
            assert json.load(answer)["park_s"] == 300


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_polite_signals_end_it_as_well(number: signal.Signals, tmp_path: Path) -> None:
    with running_demo(tmp_path, "--replicas", "1") as demo, watching(descendants(demo.process.pid)) as watch:
        demo.process.popen.send_signal(number)
        assert demo.process.popen.wait(PROMPTLY_S) == 0
        assert watch.survivors(0) == []


def test_ctrl_c_while_it_starts_ends_it_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stickyproxy", "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with running("demo", command, tmp_path) as process:
        process.read_until("Starting")
        with watching(descendants(process.pid)) as watch:
            process.popen.send_signal(signal.SIGINT)
            assert process.popen.wait(PROMPTLY_S) == 0
            assert watch.survivors(0) == []
        assert "Traceback" not in process.said()


def test_no_child_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--replicas", "2") as demo:
        children = descendants(demo.process.pid)
        assert len(children) >= 3, "two replicas and the proxy"
        with watching(children) as watch:
            demo.process.kill()
            assert watch.survivors(PROMPTLY_S) == []


async def test_a_replica_that_dies_is_started_again_and_its_page_goes_on(browser: Browser, tmp_path: Path) -> None:
    with running_demo(tmp_path, "--replicas", "2") as demo:
        visit = await Visit.begin(browser, demo.url)
        await visit.click(1)
        name, process = await visit.replica(), await process_of(visit)
        os.kill(int(process.split()[1]), signal.SIGKILL)

        assert demo.process.read_until(f"{name} ended").endswith("ended with signal SIGKILL; starting it again.")
        demo.process.read_until(f"{name} is back")
        await expect(visit.page.get_by_test_id("process")).not_to_have_text(process)
        await visit.connected()
        await visit.click(1)
        await visit.page.context.close()


async def test_kill_every_kills_a_replica_which_comes_back(browser: Browser, tmp_path: Path) -> None:
    with running_demo(tmp_path, "--replicas", "1", "--kill-every", "8s") as demo:
        visit = await Visit.begin(browser, demo.url)
        process = await process_of(visit)
        assert process in demo.process.read_until("Killing blue")
        demo.process.read_until("blue is back")
        await expect(visit.page.get_by_test_id("process")).not_to_have_text(process)
        await visit.connected()
        await visit.click(1)
        await visit.page.context.close()


async def process_of(visit: Visit) -> str:
    """Return the page's line about the process that serves it, such as `process 4711`."""
    return await visit.page.get_by_test_id("process").inner_text()


@pytest.fixture
def taken() -> Iterator[Address]:
    """Yield an address on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address(*server.getsockname())


@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_port_asked_for_that_is_taken_ends_it_with_one_line(option: str, taken: Address) -> None:
    other = {"--listen": "--admin", "--admin": "--listen"}[option]
    result = CliRunner().invoke(demo_module.demo, [option, str(taken), other, "127.0.0.1:0"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"Error: {option}: port {taken.port} on 127.0.0.1 is taken; end what listens there, or give another port "
        f"(0 for any free one): {option} 127.0.0.1:0"
    ]


def test_a_default_port_that_is_taken_is_replaced_with_one_line(
    taken: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = demo_module.choose_address("--listen", taken, given=False)
    assert chosen.port not in (0, taken.port)
    assert capsys.readouterr().out.splitlines() == [f"Port {taken.port} is taken, so --listen is {chosen}."]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--replicas", "0"], "--replicas: expected a whole number from 1 to 32, found '0'"),
        (["--replicas", "many"], "--replicas: expected a whole number from 1 to 32, found 'many'"),
        (["--kill-every", "0"], "--kill-every: expected 1 s or more, found '0'"),
        (["--kill-every", "often"], "--kill-every: expected a duration such as 3, 500ms, 10s or 2m, found 'often'"),
        (["--listen", "8080"], "--listen: expected HOST:PORT with a port from 0 to 65535, found '8080'"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(demo_module.demo, arguments)
    assert (result.exit_code, result.stderr) == (2, f"Error: {complaint}\n")


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (None, "the demo needs NiceGUI, which is not installed: pip install 'stickyproxy[demo]'"),
        ("3.5.0", "the demo needs NiceGUI 3.6 or newer, found 3.5.0: pip install 'stickyproxy[demo]'"),
    ],
)
def test_without_a_fitting_nicegui_it_says_how_to_install_one(
    found: str | None, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(_: str) -> str:
        if found is None:
            raise importlib.metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    result = CliRunner().invoke(demo_module.demo, [])
    assert (result.exit_code, result.stderr) == (2, f"Error: {complaint}\n")
