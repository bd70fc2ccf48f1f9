import time
import zlib
from collections.abc import Callable, Iterable

import pytest

from stickyproxy.core.messages import (
    Cutter,
    close_code,
    is_message,
    pong_frame,
    read_text,
    short_text,
    text_frame,
    unmask,
)
from tests.fakes.websocket import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, close, deflated, frame, mask

MOST = 1 << 20
Pieces = list[tuple[bytes, bool]]


def cut(data: bytes, *, masked: bool = False, most: int = MOST, size: int = 0) -> Pieces:
    """Feed a stream in pieces of a size (0: at once)."""
    cutter = Cutter(masked=masked, most=most)
    return [piece for at in range(0, len(data), size or len(data)) for piece in feed(cutter, data, at, size)]


def feed(cutter: Cutter, data: bytes, at: int, size: int) -> Pieces:
    return cutter.feed(data[at : at + size] if size else data)


def joined(pieces: Iterable[tuple[bytes, bool]]) -> bytes:
    return b"".join(piece for piece, _ in pieces)


# One frame.


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535])
def test_one_whole_frame_is_a_message_and_nothing_less_or_more_is(size: int, key: bytes | None) -> None:
    data = frame(bytes(size), BINARY, key=key)
    masked = key is not None
    assert is_message(data, masked=masked)
    assert not is_message(data, masked=not masked), "the other side's"
    assert not is_message(data[:-1], masked=masked)
    assert not is_message(data + b"\x00", masked=masked)
    assert not is_message(data[:1], masked=masked)
    assert not is_message(b"", masked=masked)


@pytest.mark.parametrize(
    "data",
    [
        frame(b"x", final=False),
        frame(b"x", CONTINUATION),
        b"\x91\x01x",  # RSV3
        b"\xa1\x01x",  # RSV2
        b"\x83\x01x",  # an opcode that is not in use
        b"\xc9\x00",  # a compressed control frame
        b"\x89\x7e\x00\x7e" + bytes(126),  # a long one
        frame(bytes(65536)),  # rare, and told by the cutter
    ],
)
def test_what_is_not_surely_a_whole_message_is_left_to_the_cutter(data: bytes) -> None:
    assert not is_message(data, masked=False)


# Texts.

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "default": deflated,
    "fast": lambda text: deflated(text, level=1),
    "stored": lambda text: deflated(text, level=0),
    "fixed": lambda text: deflated(text, strategy=zlib.Z_FIXED),
}


@pytest.mark.parametrize("key", [None, KEY, b"\x00\x00\x00\x00", b"2333"])
@pytest.mark.parametrize("text", [b"2", b"3", b"41"])
def test_short_packets_are_read_in_every_coding(text: bytes, key: bytes | None) -> None:
    assert short_text(frame(text, key=key)) == text
    for name, coding in CODINGS.items():
        assert short_text(frame(coding(text), key=key, compressed=True)) == text, name


@pytest.mark.parametrize(
    "data",
    [
        frame(b"2", BINARY),
        frame(b"2", PING),
        frame(b"2", PONG),
        frame(b"2", final=False),
        frame(b"2", CONTINUATION),
        frame(b"2" * 9),
        frame(b"\xff", compressed=True),  # no deflate
        frame(b"\x03\x00", compressed=True),  # its end, and nothing
        frame(b""),
        frame(b"", key=KEY),
    ],
)
def test_all_else_is_no_short_packet(data: bytes) -> None:
    assert short_text(data) == b""


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [1, 125, 126, 4096, 65535, 65536, 70000])
def test_a_text_is_read_up_to_its_limit(size: int, key: bytes | None) -> None:
    text = (b"0123456789" * (size // 10 + 1))[:size]
    assert read_text(frame(text, key=key), size) == text
    assert read_text(frame(text, key=key), size - 1) is None
    for name, coding in CODINGS.items():
        data = frame(coding(text), key=key, compressed=True)
        assert read_text(data, size) == text, name
        assert read_text(data, size - 1) is None, name


def test_a_text_that_would_fill_the_memory_is_not_read_further_than_its_limit() -> None:
    bomb = frame(deflated(bytes(100 << 20), level=9), compressed=True)
    assert len(bomb) < 1 << 17
    began = time.process_time()
    for _ in range(20):
        assert read_text(bomb, 1 << 17) is None
        assert read_text(bomb[: 1 << 12], 4096) is None
    assert time.process_time() - began < 0.5, "2 GiB take ten times as long"


def test_a_long_text_that_is_not_wanted_is_not_even_unmasked() -> None:
    data = frame(bytes(1 << 20), key=KEY)
    began = time.process_time()
    for _ in range(100):
        assert read_text(data, 4096) is None
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize("opcode", [BINARY, CONTINUATION, PING, CLOSE])
def test_only_texts_are_texts(opcode: int) -> None:
    assert read_text(frame(b"2", opcode), 10) is None


@pytest.mark.parametrize("size", range(10))
def test_masking_is_the_rfcs(size: int) -> None:
    payload = bytes(range(200, 200 + size))
    assert unmask(payload, KEY) == mask(payload, KEY)
    assert unmask(unmask(payload, KEY), KEY) == payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535])
def test_a_text_frame_is_a_servers(size: int) -> None:
    assert text_frame(b"x" * size) == frame(b"x" * size)


@pytest.mark.parametrize("payload", [b"", b"abcd", bytes(125)])
def test_a_ping_is_answered_with_what_it_holds_by_a_client(payload: bytes) -> None:
    answer = pong_frame(frame(payload, PING))
    assert is_message(answer, masked=True)
    assert answer[0] == 0x80 | PONG
    assert unmask(answer[6:], answer[2:6]) == payload


@pytest.mark.parametrize("key", [None, KEY])
def test_a_close_frames_code_is_read(key: bytes | None) -> None:
    assert close_code(close(1001, key=key)) == 1001
    assert close_code(close(key=key)) == 0
    assert close_code(frame(b"\x03", CLOSE, key=key)) == 0, "half a code is none"
    assert close_code(frame(b"\x03\xe9bye", CLOSE, key=key)) == 1001


# The cutter.


def messages(key: bytes | None) -> list[bytes]:
    """Give whole messages and control frames of all kinds, some in several frames with control frames between them."""
    return [
        frame(b"2", key=key),
        frame(b"", key=key),
        frame(bytes(126), BINARY, key=key),
        frame(b"ping", PING, key=key),
        frame(b"", PONG, key=key),
        frame(bytes(65536), key=key),
        frame(b"one", final=False, key=key) + frame(b"two", CONTINUATION, key=key),
        frame(b"one", final=False, key=key) + frame(b"p", PING, key=key) + frame(b"", CONTINUATION, key=key),
        frame(deflated(b"x" * 999), final=False, compressed=True, key=key)
        + frame(b"", CONTINUATION, final=False, key=key)
        + frame(b"", PONG, key=key)
        + frame(b"\x00", CONTINUATION, key=key),
        close(1001, key=key),
    ]


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 1000])
def test_a_stream_is_cut_into_its_messages_however_it_comes(size: int, key: bytes | None) -> None:
    whole = messages(key)
    assert cut(b"".join(whole), masked=key is not None, size=size) == [(message, True) for message in whole]


@pytest.mark.parametrize("key", [None, KEY])
def test_a_stream_is_cut_into_its_messages_wherever_it_is_split(key: bytes | None) -> None:
    whole = [message for message in messages(key) if len(message) < 1000]
    data = b"".join(whole)
    for at in range(len(data) + 1):
        cutter = Cutter(masked=key is not None, most=MOST)
        assert cutter.feed(data[:at]) + cutter.feed(data[at:]) == [(message, True) for message in whole]
        assert cutter.idle
        assert cutter.held_bytes == 0


def test_it_is_idle_only_between_two_messages() -> None:
    data = frame(b"one", final=False) + frame(b"p", PING) + frame(b"two", CONTINUATION)
    cutter = Cutter(masked=False, most=MOST)
    assert cutter.idle
    for at in range(len(data) - 1):
        assert cutter.feed(data[at : at + 1]) == []
        assert not cutter.idle
        assert cutter.held_bytes == at + 1
    assert cutter.feed(data[-1:]) == [(data, True)]
    assert cutter.idle


@pytest.mark.parametrize("size", [0, 1, 2, 50, 99])
def test_a_message_that_is_too_long_comes_in_pieces_and_the_next_one_whole(size: int) -> None:
    long, after = frame(bytes(300)), frame(b"after")
    cutter = Cutter(masked=False, most=100)
    pieces: Pieces = []
    passed = False
    for at in range(0, len(long), size or 200):
        pieces += cutter.feed(long[at : at + (size or 200)])
        passed |= cutter.passing
        assert cutter.held_bytes < 200
    assert joined(pieces) == long
    assert {whole for _, whole in pieces} == {False}
    assert passed
    assert not cutter.passing
    assert cutter.feed(after) == [(after, True)]


@pytest.mark.parametrize("size", [1, 2, 9, 64])
def test_fragments_that_are_too_long_together_come_in_pieces_to_their_messages_end(size: int) -> None:
    fragment, ping, end = frame(bytes(20), CONTINUATION, final=False), frame(b"p", PING), frame(b"x", CONTINUATION)
    long = frame(bytes(20), final=False) + (fragment + ping) * 10 + end
    cutter = Cutter(masked=False, most=100)
    pieces: Pieces = []
    most_held = 0
    for at in range(0, len(long), size):
        pieces += cutter.feed(long[at : at + size])
        most_held = max(most_held, cutter.held_bytes)
    assert joined(pieces) == long
    assert {whole for _, whole in pieces} == {False}
    assert most_held <= 200
    assert cutter.idle
    assert cutter.feed(ping) == [(ping, True)]


def test_between_the_pieces_of_a_long_message_it_stands_in_its_middle() -> None:
    cutter = Cutter(masked=False, most=10)
    cutter.feed(frame(bytes(50), final=False))
    assert cutter.passing
    cutter.feed(frame(b"p", PING))
    assert cutter.passing
    cutter.feed(frame(b"", CONTINUATION))
    assert not cutter.passing
    assert cutter.idle


LOST = {
    "another side's": frame(b"x", key=KEY),
    "a continuation of nothing": frame(b"x", CONTINUATION),
    "RSV2": b"\xa1\x01x",
    "RSV3": b"\x91\x01x",
    "an opcode that is not in use": b"\x83\x01x",
    "a control frame in parts": b"\x09\x00",
    "a long control frame": b"\x89\x7e\x00\x80",
    "a compressed control frame": b"\xc9\x00",
    "a compressed continuation": frame(b"x", final=False) + b"\xc0\x01x",
    "a message within a message": frame(b"x", final=False) + frame(b"x"),
    "a length of 64 bits": b"\x82\x7f\x80" + bytes(7),
    "a close within a message": frame(b"x", final=False) + close(1000),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("size", [0, 1])
def test_what_cannot_be_followed_comes_out_as_it_came(name: str, size: int) -> None:
    before, after = frame(b"before"), b"\x00whatever follows\x81\x00"
    data = before + LOST[name] + after
    cutter = Cutter(masked=False, most=MOST)
    pieces: Pieces = []
    for at in range(0, len(data), size or len(data)):
        pieces += feed(cutter, data, at, size)
    assert joined(pieces) == data
    assert pieces[0] == (before, True)
    assert {whole for _, whole in pieces[1:]} == {False}
    assert cutter.lost
    assert not cutter.idle
    assert cutter.held_bytes == 0
    assert cutter.feed(b"more") == [(b"more", False)]


def test_a_first_byte_that_cannot_be_a_frames_waits_for_no_second() -> None:
    cutter = Cutter(masked=False, most=MOST)
    assert cutter.feed(frame(b"a") + b"\x83") == [(frame(b"a"), True), (b"\x83", False)]
    assert cutter.lost


def test_given_up_it_gives_back_what_it_held() -> None:
    cutter = Cutter(masked=False, most=MOST)
    assert cutter.feed(frame(b"abc", final=False) + b"\x00") == []
    assert cutter.give_up() == frame(b"abc", final=False) + b"\x00"
    assert cutter.lost
    assert cutter.give_up() == b""
    assert cutter.feed(b"x") == [(b"x", False)]


# What it costs.


def seconds(data: bytes, size: int, *, masked: bool) -> float:
    cutter = Cutter(masked=masked, most=4 << 20)
    began = time.process_time()
    for at in range(0, len(data), size):
        cutter.feed(data[at : at + size])
    assert cutter.idle
    return time.process_time() - began


@pytest.mark.parametrize(
    ("name", "size", "most_s"),
    [("one long frame", 100, 0.5), ("one long frame", 1, 3.0), ("fragments", 1, 3.0), ("fragments", 1 << 18, 1.5)],
)
def test_long_messages_cost_as_much_for_each_byte_as_short_ones(name: str, size: int, most_s: float) -> None:
    """Looking at everything anew with each piece would take minutes."""
    if name == "fragments":
        data = (
            frame(b"", TEXT, final=False) + frame(b"x", CONTINUATION, final=False) * 100_000 + frame(b"", CONTINUATION)
        )
    else:
        data = frame(bytes(1 << 20))
    assert seconds(data, size, masked=False) < most_s
