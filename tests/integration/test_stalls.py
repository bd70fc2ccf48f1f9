"""An event loop that stands still is seen from outside: in the log with its stack, and in the metrics."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .command import Command, command
from .harness import Stage, hello, request, soon
from .workers import children, state, until

SLOW = """
import time
from stickyproxy.core.request import RequestReader

parse = RequestReader.parse_head

def parse_slowly(self, raw):
    if b" /slow " in raw:
        time.sleep(0.6)
    return parse(self, raw)

RequestReader.parse_head = parse_slowly
"""
"""Makes the data plane stand still where a request asks for it, as only a defect could."""


@asynccontextmanager
async def slow_command(folder: Path, *arguments: str) -> AsyncIterator[Command]:
    """Run the command, and its workers, with a data plane that can be made to stand still."""
    (folder / "sitecustomize.py").write_text(SLOW)
    async with command(*arguments, environment={"PYTHONPATH": str(folder)}) as running:
        yield running


async def stalls(running: Command) -> float:
    scraped = (await running.look("/metrics")).body.decode()
    (sample,) = (
        sample
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
        if sample.name == "stickyproxy_event_loop_stalls_total"
    )
    return float(sample.value)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stall_is_logged_with_its_stack_and_counted_and_what_waited_is_served(
    stage: Stage, tmp_path: Path, workers: int
) -> None:
    backend = await stage.backend(hello)
    options = ("--backend", str(backend.address), "--stall-log-after", "200ms", "--workers", str(workers))
    async with slow_command(tmp_path, *options) as running:
        assert await stalls(running) == 0
        slow, other = await asyncio.gather(
            running.ask(request("GET /slow HTTP/1.1")), running.ask(request("GET /other HTTP/1.1"))
        )
        assert (slow.body, other.body) == (b"hello", b"hello")
        line = await running.says("the event loop has not turned")
        assert re.search(
            r"WARNING stickyproxy\S*: the event loop has not turned for 0\.2 s: every connection waits", line
        )
        await running.says("in parse_slowly")
        await running.says(r"WARNING stickyproxy\S*: the event loop turns again, after 0\.\d s")
        assert await stalls(running) == 1

        await running.ask(request("GET /slow HTTP/1.1"))
        await running.says("the event loop turns again")
        assert await stalls(running) == 2
        assert "".join(running.log).count("has not turned") <= workers, "one stack a minute for each process"


async def test_zero_never_looks(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend(hello)
    async with slow_command(tmp_path, "--backend", str(backend.address), "--stall-log-after", "0") as running:
        assert (await running.ask(request("GET /slow HTTP/1.1"))).body == b"hello"
        assert await stalls(running) == 0
        running.send(signal.SIGTERM)
        assert await running.ends() == 0
        assert "has not turned" not in "".join(running.log)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_process_that_was_stopped_has_not_stalled_and_serves_on(stage: Stage, workers: int) -> None:
    """As a suspended laptop or a frozen container."""
    backend = await stage.backend(hello)
    async with command(
        "--backend", str(backend.address), "--stall-log-after", "400ms", "--workers", str(workers)
    ) as running:
        client = await running.client()
        client.send(request())
        assert (await client.message()).body == b"hello"
        pids = [running.process.pid, *children(running.process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await until(lambda: all(state(pid) == "T" for pid in pids), "all are stopped")
            await asyncio.sleep(1.5)  # time is the subject here
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        client.send(request())
        assert (await client.message()).body == b"hello", "its connection is still there"
        assert await soon(stalls(running)) == 0
        running.send(signal.SIGTERM)
        assert await running.ends() == 0
        assert "has not turned" not in "".join(running.log)
