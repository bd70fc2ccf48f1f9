"""The replicas of the lab, shared by its tests, and the command."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import ROOT, Replica, running_replicas
from needs import missing

APP = Path(__file__).parent / "app.py"

LIMIT_S = 120.0
"""For a run of the command on a busy machine; how long one may take is tested apart."""


TEST_LIMIT_S = 300
"""Of a test that says none of its own: several runs, on a machine where twenty other processes run."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here the longer limit."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))


@pytest.fixture(scope="session")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Yield two replicas that several tests share: none may kill them."""
    if importlib.util.find_spec("nicegui") is None:
        missing("NiceGUI (pip install 'stickyproxy[demo]')")
    with running_replicas(2, tmp_path_factory.mktemp("replicas"), app=APP) as running:
        yield running


@pytest.fixture
def ports(replicas: list[Replica]) -> list[int]:
    return [replica.port for replica in replicas]


@dataclass(frozen=True)
class Report:
    """What a run said."""

    code: int
    said: dict[str, Any]
    text: str

    def ids(self, *weights: str) -> set[str]:
        """Give the ids of the findings of some weights; of all where none is named."""
        return {f["id"] for f in self.said["findings"] if not weights or f["weight"] in weights}

    def evidence(self, id: str) -> str:
        return " ".join(next(f["evidence"] for f in self.said["findings"] if f["id"] == id))


async def run_verify(url: str, *options: str, environment: dict[str, str] | None = None) -> Report:
    """Run the command with `--json` in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STICKYPROXY_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stickyproxy", "verify", url, "--json", *options,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=kept | (environment or {}), cwd=ROOT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert errors == b"", errors.decode()
    text = out.decode()
    print(text)
    assert process.returncode is not None
    return Report(process.returncode, json.loads(text), text)
