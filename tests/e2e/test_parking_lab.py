"""The lab of parking: its wire does to connections what networks do, and no update can be missing unseen."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import pytest

from .parking import LOG_LINES, gaps
from .wire import UPGRADE, Wire, running_wire

LIMIT_S = 20.0
QUIET_S = 0.3
"""For what must not come: on loopback it would have come within a millisecond."""

UPGRADES = b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n\r\n"


@dataclass
class Far:
    """What stands behind the wire: it has the connections that came through, in order."""

    port: int = 0
    came: "asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]" = field(default_factory=asyncio.Queue)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.came.put_nowait((reader, writer))


@dataclass
class Ends:
    """Both ends of a connection through the wire."""

    near: asyncio.StreamReader
    near_writer: asyncio.StreamWriter
    far: asyncio.StreamReader
    far_writer: asyncio.StreamWriter


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    far = Far()
    server = await asyncio.start_server(far.accept, "127.0.0.1", 0)
    far.port = server.sockets[0].getsockname()[1]
    yield far
    server.close()
    for writer in far.writers:
        await drop(writer)
    await server.wait_closed()


@pytest.fixture
async def wire(far: Far) -> AsyncIterator[Wire]:
    async with running_wire(far.port) as wire:
        yield wire


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def drop(writer: asyncio.StreamWriter) -> None:
    """End a connection, and wait until it is gone."""
    writer.close()
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def connect(stack: AsyncExitStack, wire: Wire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    stack.push_async_callback(drop, writer)
    return reader, writer


async def through(stack: AsyncExitStack, wire: Wire, far: Far, first: bytes = UPGRADES) -> Ends:
    """Open a connection and say something through it."""
    near, near_writer = await connect(stack, wire)
    near_writer.write(first)
    async with asyncio.timeout(LIMIT_S):
        far_reader, far_writer = await far.came.get()
        assert await far_reader.readexactly(len(first)) == first
    return Ends(near, near_writer, far_reader, far_writer)


async def silent(reader: asyncio.StreamReader) -> bool:
    """Say whether nothing comes: no byte, no end, no reset."""
    try:
        await asyncio.wait_for(reader.read(1), QUIET_S)
    except TimeoutError:
        return True
    except ConnectionError:
        pass
    return False


async def is_reset(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(LIMIT_S):
            await reader.read(1)
    except ConnectionResetError:
        return True
    return False


async def test_what_is_sent_in_an_outage_comes_after_it_in_order(wire: Wire, far: Far, stack: AsyncExitStack) -> None:
    ends = await through(stack, wire, far)
    wire.cut("fail")
    ends.near_writer.write(b"up")
    ends.far_writer.write(b"down")
    ends.far_writer.write_eof()
    assert await silent(ends.near)
    assert await silent(ends.far)
    wire.restore("same network")
    async with asyncio.timeout(LIMIT_S):
        assert await ends.far.readexactly(2) == b"up"
        assert await ends.near.read() == b"down"


async def test_on_another_network_the_far_end_never_hears_of_the_old_one_again(
    wire: Wire, far: Far, stack: AsyncExitStack
) -> None:
    ends = await through(stack, wire, far)
    wire.cut("fail")
    ends.near_writer.write(b"lost")
    ends.far_writer.write(b"lost")
    wire.restore("another network")
    assert await is_reset(ends.near)
    assert await silent(ends.far)
    ends.far_writer.write(b"lost")
    assert await silent(ends.far)
    await through(stack, wire, far)


async def test_an_attempt_in_an_outage_fails_or_hangs_as_is_wanted(wire: Wire, far: Far, stack: AsyncExitStack) -> None:
    wire.cut("fail")
    reader, _ = await connect(stack, wire)
    assert await is_reset(reader)
    wire.restore("same network")
    wire.cut("hang")
    reader, writer = await connect(stack, wire)
    writer.write(b"hello")
    assert await silent(reader)
    assert far.came.empty()
    wire.restore("same network")
    async with asyncio.timeout(LIMIT_S):
        far_reader, _ = await far.came.get()
        assert await far_reader.readexactly(5) == b"hello"


async def test_a_device_without_network_drops_its_idle_connections_and_keeps_its_sockets(
    wire: Wire, far: Far, stack: AsyncExitStack
) -> None:
    socket, idle = await through(stack, wire, far), await through(stack, wire, far, b"GET / HTTP/1.1\r\n\r\n")
    wire.cut("fail")
    assert await is_reset(idle.near)
    assert await silent(idle.far)
    assert await silent(socket.near)


async def test_a_break_resets_both_ends_and_every_attempt_until_it_is_over(
    wire: Wire, far: Far, stack: AsyncExitStack
) -> None:
    ends = await through(stack, wire, far)
    wire.break_off()
    assert await is_reset(ends.near)
    assert await is_reset(ends.far)
    reader, _ = await connect(stack, wire)
    assert await is_reset(reader)
    wire.restore("same network")
    await through(stack, wire, far)


def seen(numbers: Iterable[int], lines: Iterable[int]) -> dict[str, list[object]]:
    return {"numbers": list(numbers), "lines": [f"line {number}" for number in lines]}


@pytest.mark.parametrize("count", [1, LOG_LINES, LOG_LINES + 50])
def test_a_page_that_has_every_update_once_has_no_fault(count: int) -> None:
    shown = range(max(1, count - LOG_LINES + 1), count + 1)
    assert gaps(seen(range(1, count + 1), shown)) == []


@pytest.mark.parametrize(
    ("numbers", "lines", "fault"),
    [
        ([1, 2, 4], [1, 2, 3, 4], "missing 1"),
        ([1, 2, 2, 3], [1, 2, 3], "doubled 1"),
        ([1, 3, 2], [1, 2, 3], "out of order"),
        ([1, 2, 3], [1, 3], "other lines in the log than should be: 2 of 3"),
        ([1, 2, 3], [1, 2, 2, 3], "other lines in the log than should be: 4 of 3"),
        ([1, 2, 3], [1], "the log ends with line 1 of 3"),
        ([1, 2, 3], [], "the log ends with line 0 of 3"),
    ],
)
def test_every_kind_of_hole_is_a_fault(numbers: list[int], lines: list[int], fault: str) -> None:
    assert fault in gaps(seen(numbers, lines))
