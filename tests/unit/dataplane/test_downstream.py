"""A client's connection over a transport that only remembers; without backends every request is answered 503."""

import asyncio
from random import Random
from typing import Any

import h11
import pytest

from stickyproxy.core.settings import Settings
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.proxy import Proxy

GET = b"GET /a HTTP/1.1\r\nHost: app.example\r\n\r\n"


class Wire(asyncio.Transport):
    """What the client sees: every byte, and how the connection ends."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.1", 4711)})
        self.sent = b""
        self.eof = False
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.eof, "a write behind the end of the connection's half"
        self.sent += data

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    @property
    def statuses(self) -> list[int]:
        """Give the status codes of all whole answers, as h11 reads them one after another."""
        statuses, rest = [], self.sent
        while rest:
            client = h11.Connection(h11.CLIENT)
            client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
            client.send(h11.EndOfMessage())
            client.receive_data(rest)
            events = [client.next_event(), client.next_event(), client.next_event()]
            assert [type(event) for event in events] == [h11.Response, h11.Data, h11.EndOfMessage]
            statuses.append(events[0].status_code)
            rest = client.trailing_data[0]
        return statuses


@pytest.fixture
async def wire() -> tuple[Downstream, Wire]:
    downstream = Downstream(Proxy(Settings(), Random(1)), b"10.0.0.1")
    transport = Wire()
    downstream.connection_made(transport)
    return downstream, transport


async def test_requests_of_one_connection_are_answered_one_after_another(wire: tuple[Downstream, Wire]) -> None:
    downstream, transport = wire
    downstream.data_received(GET)
    downstream.data_received(GET)
    downstream.data_received(GET + GET)
    assert transport.statuses == [503, 503, 503, 503]
    assert not transport.closed


@pytest.mark.parametrize(
    "refused",
    [
        b"GET / HTTP/1.1 \r\nHost: app.example\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02",
    ],
)
async def test_nothing_behind_a_refused_request_is_understood_as_a_request(
    wire: tuple[Downstream, Wire], refused: bytes
) -> None:
    # Bytes behind a head whose end is in doubt may be its body: answering them would be request smuggling.
    downstream, transport = wire
    downstream.data_received(GET)
    downstream.data_received(refused)
    assert transport.statuses == [503, 400]
    assert transport.eof
    downstream.data_received(GET)
    assert transport.statuses == [503, 400]


async def test_a_head_that_comes_byte_by_byte_is_one_request(wire: tuple[Downstream, Wire]) -> None:
    downstream, transport = wire
    for at in range(len(GET)):
        downstream.data_received(GET[at : at + 1])
    assert transport.statuses == [503]


@pytest.mark.parametrize("pieces", [(b"\r\n",), (b"\r", b"\n"), (b"\r\n", b"\r\n")])
async def test_an_empty_line_before_a_request_is_ignored_however_it_is_split(
    wire: tuple[Downstream, Wire], pieces: tuple[bytes, ...]
) -> None:
    # RFC 9112 section 2.2.
    downstream, transport = wire
    for piece in pieces:
        downstream.data_received(piece)
    downstream.data_received(GET)
    assert transport.statuses == [503]
