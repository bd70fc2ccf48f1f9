"""Fixtures of the integration tests: the stage, and the event loops they run on (uvloop, as in production)."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from stickyproxy.core.values import Address

from .harness import Stage


def pytest_configure(config: pytest.Config) -> None:
    """Register this folder's marker."""
    config.addinivalue_line("markers", "both_loops: run on uvloop and on asyncio's own event loop")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on uvloop, and where a test asks for it on asyncio's loop too."""
    if item.get_closest_marker("both_loops"):
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Yield an empty stage; at the end close what is on it and fail on everything that is left behind."""
    stage = Stage()
    try:
        yield stage
    except BaseException:
        await stage.close()
        raise
    await stage.close()
    stage.judge()


@pytest.fixture
def deaf() -> Iterator[tuple[Address, list[socket.socket]]]:
    """Give an address that listens and answers no connection attempt: its backlog is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    sockets = [listener]
    for _ in range(10):
        filler = socket.socket()
        filler.settimeout(0.2)
        sockets.append(filler)
        try:
            filler.connect(listener.getsockname())
        except TimeoutError:
            break
    yield Address(*listener.getsockname()), sockets
    for one in sockets:
        one.close()
