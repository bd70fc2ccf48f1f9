"""However bytes are cut, and whoever takes turns on the shared buffers, what was said is what is heard."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration.tls import Authority

from stickyproxy.dataplane.tls import TlsTransport, Wire

AUTHORITY = Authority()
CLIENT = AUTHORITY.client()


def server_context() -> ssl.SSLContext:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return AUTHORITY.issue("127.0.0.1").server(Path(folder))


SERVER = server_context()


class Socket(asyncio.Transport):
    """Stands for a socket's transport: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.out = b""
        self.stuck = 0
        self.closing = self.aborted = self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended, "nothing may follow an end"
        self.out += bytes(data)

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def take(self) -> bytes:
        out, self.out = self.out, b""
        return out


class Ears(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.heard = b""
        self.pieces = 0
        self.ended = False
        self.keep_open = True
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.pieces += 1

    def eof_received(self) -> bool:
        self.ended = True
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Server(TlsTransport):
    """The transport with nothing around it."""

    established_times = 0
    raw_ended = False

    def begin(self, data: bytes) -> bytes:
        self._session = SERVER.wrap_bio(self._wire.incoming, self._wire.outgoing, server_side=True)
        return data

    def on_established(self) -> None:
        self.established_times += 1

    def on_raw_end(self) -> None:
        self.raw_ended = True
        self._on_end()


class Pair:
    """A client in memory, and the server's transport on a socket in memory."""

    def __init__(self, wire: Wire, context: ssl.SSLContext = CLIENT) -> None:
        self.socket, self.ears = Socket(), Ears()
        self.server = Server(self.ears, wire)
        self.server.connection_made(self.socket)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        self.heard = b""

    def shake(self) -> "Pair":
        for _ in range(4):
            with suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            if self.outgoing.pending:
                self.server.data_received(self.outgoing.read())
            self.incoming.write(self.socket.take())
        return self

    def seal(self, data: bytes) -> bytes:
        self.client.write(data)
        return self.outgoing.read()

    def listen(self) -> bytes:
        self.incoming.write(self.socket.take())
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self.client.read(1 << 16):
                self.heard += piece
        return self.heard


MESSAGES = st.lists(st.binary(min_size=1, max_size=40) | st.binary(min_size=1, max_size=40).map(lambda b: b * 1000))


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_connections_on_one_wire_hear_their_own_messages(spoken: list[list[bytes]], data: st.DataObject) -> None:
    wire = Wire()
    pairs = [Pair(wire) for _ in spoken]
    streams = []
    for pair, messages in zip(pairs, spoken, strict=True):
        pair.shake()
        streams.append(b"".join(pair.seal(message) for message in messages))
    while any(streams):
        number = data.draw(st.sampled_from([n for n, stream in enumerate(streams) if stream]))
        count = data.draw(st.integers(1, 60) | st.integers(1, len(streams[number])))
        piece, streams[number] = streams[number][:count], streams[number][count:]
        pairs[number].server.data_received(piece)
        pairs[number].server.write(b"%d" % number)
        assert not wire.incoming.pending
        assert not wire.outgoing.pending
    for number, (pair, messages) in enumerate(zip(pairs, spoken, strict=True)):
        assert pair.ears.heard == b"".join(messages)
        assert pair.server.established_times == 1
        assert set(pair.listen()) <= {ord(f"{number}")}


@given(st.binary(max_size=600), st.integers(0, 400))
def test_noise_at_any_point_leaves_the_wire_empty(noise: bytes, after: int) -> None:
    wire = Wire()
    bad, good = Pair(wire), Pair(wire)
    with suppress(ssl.SSLWantReadError):
        bad.client.do_handshake()
    bad.server.data_received(bad.outgoing.read()[:after] + noise + b"x")
    assert not wire.incoming.pending
    assert not wire.outgoing.pending
    good.shake()
    good.server.data_received(good.seal(b"hello"))
    assert good.ears.heard == b"hello"


def test_all_that_came_at_once_is_delivered_at_once() -> None:
    pair = Pair(Wire()).shake()
    pair.server.data_received(b"".join(pair.seal(b"%05d" % number) for number in range(50)))
    assert pair.ears.heard == b"".join(b"%05d" % number for number in range(50))
    assert pair.ears.pieces == 1


def test_what_came_before_an_end_is_delivered_before_it() -> None:
    pair = Pair(Wire()).shake()
    data = pair.seal(b"last words")
    with suppress(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.server.data_received(data + pair.outgoing.read() + b"what nobody may say any more")
    assert (pair.ears.heard, pair.ears.ended) == (b"last words", True)
    assert not pair.socket.closing, "the protocol keeps its side open"
    pair.server.write(b"answer")
    assert pair.listen() == b"answer"


def test_what_came_before_a_broken_record_is_delivered_and_the_error_told() -> None:
    pair = Pair(Wire()).shake()
    data = pair.seal(b"good")
    bad = bytearray(pair.seal(b"bad"))
    bad[-1] ^= 1
    pair.server.data_received(data + bytes(bad))
    assert pair.ears.heard == b"good"
    assert pair.socket.closing
    pair.server.connection_lost(None)
    assert isinstance(pair.ears.lost[0], ssl.SSLError)


def test_reading_goes_on_after_our_own_end() -> None:
    pair = Pair(Wire()).shake()
    pair.server.write(b"all")
    pair.server.write_eof()
    pair.server.write(b"too late")
    assert pair.listen() == b"all"
    assert pair.socket.ended
    pair.server.data_received(pair.seal(b"still heard"))
    assert pair.ears.heard == b"still heard"
    pair.server.close()
    assert pair.socket.closing
    assert not pair.socket.aborted


def test_an_end_of_the_socket_is_told_once_and_nothing_is_written_after_it() -> None:
    pair = Pair(Wire()).shake()
    assert pair.server.eof_received()
    assert pair.server.raw_ended
    assert pair.ears.ended
    pair.ears.ended = False
    assert pair.server.eof_received()
    assert not pair.ears.ended


def test_an_end_in_the_handshake_ends_the_connection() -> None:
    pair = Pair(Wire())
    assert not pair.server.eof_received()
    pair.server.connection_lost(None)
    assert pair.ears.lost == [None]


@pytest.mark.parametrize("stuck", [0, 10_000_000])
def test_a_peer_that_makes_the_protocol_answer_and_takes_nothing_is_dropped(stuck: int) -> None:
    pair = Pair(Wire())
    pair.socket.stuck = stuck
    pair.shake()
    assert pair.socket.aborted is bool(stuck)
