"""`run` from its command line on: what the child that reads it leaves behind, and what becomes of either."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

BOUND_S = 30.0

INSTEAD = """
import json, sys
import stickyproxy.app
def instead(settings, load, arguments):
    before = "click" in sys.modules
    again = load()
    print(json.dumps([before, "click" in sys.modules, repr(settings), repr(again), arguments]))
stickyproxy.app.run = instead
from stickyproxy.__main__ import main
main()
"""
"""Tells what would have been served."""

DIES = """
import os, signal
import stickyproxy.cli
stickyproxy.cli.main = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from stickyproxy.__main__ import main
main()
"""


def ended(code: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code with a command line to its end."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)


def test_who_serves_has_the_settings_but_nothing_that_reads_a_command_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of some length")
    arguments = [
        "run", "--backend", "app:8080", "--secret-file", str(secret), "--affinity", "hash", "--hash-key", "header:X",
        "--trusted-proxy", "10.0.0.0/8", "--park", "5m", "--access-log", "json", "--local-backend", "127.0.0.1:1",
    ]  # fmt: skip
    done = ended(INSTEAD, arguments)
    assert done.stderr == ""
    before, after, settings, again, told = json.loads(done.stdout)
    assert (before, after) == (False, True)
    assert settings == again
    assert "header" in settings
    assert told == arguments


@pytest.mark.parametrize(
    ("arguments", "code", "out", "error"),
    [
        (["--help"], 0, "Usage: stickyproxy run", ""),
        (["--backend", "x"], 2, "", "stickyproxy: --backend"),
        (["--backend", "a:1", "--listen", "203.0.113.1:1"], 2, "", "stickyproxy: --listen: cannot listen on"),
    ],
)
def test_what_the_child_says_and_how_it_ends_is_ours(arguments: list[str], code: int, out: str, error: str) -> None:
    done = ended("from stickyproxy.__main__ import main; main()", ["run", *arguments])
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == bool(error)


def test_a_child_that_is_killed_is_told_as_shells_tell_it() -> None:
    done = ended(DIES, ["run", "--backend", "a:1"])
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGKILL, "", "")


async def waiting_for(fifo: Path) -> asyncio.subprocess.Process:
    """Start `run` whose child reads a secret from a FIFO; give it when it waits there."""
    os.mkfifo(fifo)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stickyproxy", "run", "--backend", "a:1", "--secret-file", str(fifo),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


async def test_ctrl_c_while_the_command_line_is_read_ends_both_without_a_word(tmp_path: Path) -> None:
    fifo = tmp_path / "secret"
    process = await waiting_for(fifo)
    with await asyncio.to_thread(open, fifo, "wb"):  # which waits until the child has opened it
        os.killpg(process.pid, signal.SIGINT)
        out, error = await asyncio.wait_for(process.communicate(), BOUND_S)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in error


async def test_a_child_whose_parent_was_ended_ends_without_a_word(tmp_path: Path) -> None:
    fifo = tmp_path / "secret"
    process = await waiting_for(fifo)
    with await asyncio.to_thread(open, fifo, "wb") as secret:
        process.terminate()
        await asyncio.wait_for(process.wait(), BOUND_S)
        secret.write(b"a secret of some length")
    # Both ends of the pipes are closed only when the child has ended too.
    assert await asyncio.wait_for(process.communicate(), BOUND_S) == (b"", b"")
    assert process.returncode == -signal.SIGTERM
