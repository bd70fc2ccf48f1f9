import struct

import pytest

from stickyproxy.core.frames import CONTROL, HEARTBEAT_BYTES, NO_FRAME, FrameTracker, frame_end

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = False, rsv: int = 0) -> bytes:
    """Build a frame as RFC 6455 section 5.2 has it; the mask is all zeros, since nobody here reads content."""
    size, mask = len(payload), 0x80 if masked else 0
    first = (0x80 if final else 0) | rsv | opcode
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 1 << 16:
        head = bytes((first, mask | 126)) + struct.pack("!H", size)
    else:
        head = bytes((first, mask | 127)) + struct.pack("!Q", size)
    return head + (bytes(4) if masked else b"") + payload


def tracker(data: bytes, *, masked: bool = False) -> FrameTracker:
    found = FrameTracker(masked=masked)
    found.feed(data)
    return found


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize("at", [0, 3])
def test_an_end_is_found_as_soon_as_the_head_is_whole(size: int, masked: bool, at: int) -> None:
    data = bytes(at) + frame(BINARY, bytes(size), masked=masked)
    head = len(data) - size
    for there in range(at, head):
        assert frame_end(data[:there], at, masked=masked) == 0
    for there in (head, min(head + 1, len(data)), len(data)):
        assert frame_end(data[:there], at, masked=masked) == len(data)
    assert frame_end(bytearray(data) + b"\xff", at, masked=masked) == len(data)


@pytest.mark.parametrize("first", range(256))
def test_a_first_byte_is_judged_as_soon_as_it_is_there(first: int) -> None:
    opcode = first & 0x0F
    good = not first & 0x30 and opcode in (TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG)
    good = good and (first >= 0x80 or opcode not in (CLOSE, PING, PONG))
    assert frame_end(bytes((first,)), 0, masked=False) == (0 if good else NO_FRAME)
    assert frame_end(bytes((first, 5)), 0, masked=False) == (7 if good else NO_FRAME)
    if good:
        assert bool(first & CONTROL) is (opcode in (CLOSE, PING, PONG))


@pytest.mark.parametrize(
    ("data", "masked"),
    [(b"\x82\x05", True), (b"\x82\x85", False), (b"\x89\x7e", False), (b"\x88\xff", True), (b"\x82\x7f\x80", False)],
)
def test_what_cannot_be_a_head_is_none_before_it_is_whole(data: bytes, masked: bool) -> None:
    assert frame_end(data, 0, masked=masked) == NO_FRAME
    assert frame_end(data + bytes(20), 0, masked=masked) == NO_FRAME


def test_a_fresh_stream_stands_between_messages() -> None:
    fresh = FrameTracker(masked=True)
    assert fresh.between
    assert not fresh.lost
    assert fresh.messages == 0


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537])
def test_a_frame_of_any_length_ends_with_its_last_byte(size: int, masked: bool) -> None:
    data = frame(BINARY, bytes(size), masked=masked)
    found = FrameTracker(masked=masked)
    found.feed(data[:-1])
    assert not found.between
    found.feed(data[-1:])
    assert found.between
    assert found.messages == (size > HEARTBEAT_BYTES)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [5, 200, 65536])
def test_every_byte_before_the_last_leaves_it_in_the_middle(size: int, masked: bool) -> None:
    data = frame(TEXT, bytes(size), masked=masked)
    found = FrameTracker(masked=masked)
    for at in range(min(len(data), 40)):
        found.feed(data[at : at + 1])
        assert found.between is (at + 1 == len(data))
    found.feed(data[40:])
    assert found.between


def test_a_fragmented_message_ends_with_its_final_frame() -> None:
    found = FrameTracker(masked=False)
    for piece, between in (
        (frame(TEXT, b"a", final=False), False),
        (frame(PING, b"?"), False),
        (frame(CONTINUATION, b"b", final=False), False),
        (frame(PONG), False),
        (frame(CONTINUATION, b"", final=True), True),
    ):
        found.feed(piece)
        assert found.between is between
    assert not found.lost


def test_a_control_frame_between_messages_is_none() -> None:
    found = tracker(frame(PING, bytes(125)) + frame(PONG) + frame(CLOSE, b"\x03\xe8"))
    assert found.between
    assert found.messages == 0


def test_heartbeats_are_not_counted_as_messages() -> None:
    found = tracker(frame(TEXT, b"2") + frame(TEXT, b"3") + frame(TEXT, bytes(HEARTBEAT_BYTES)))
    assert found.messages == 0
    found.feed(frame(TEXT, bytes(HEARTBEAT_BYTES + 1)))
    assert found.messages == 1


def test_compressed_messages_are_followed() -> None:
    """RSV1 is permessage-deflate's (RFC 7692 section 6)."""
    found = tracker(frame(TEXT, b"squeezed", rsv=0x40) * 2)
    assert found.between
    assert not found.lost


def test_a_stream_that_is_followed_from_within_a_fragmented_message_is_not_lost() -> None:
    """A gap may stand between two of its frames."""
    found = tracker(frame(CONTINUATION, b"x", final=False))
    assert not found.between
    found.feed(frame(CONTINUATION, b"x"))
    assert found.between
    assert not found.lost


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        pytest.param(frame(0x3, b"x"), False, id="reserved data opcode"),
        pytest.param(frame(0xB), False, id="reserved control opcode"),
        pytest.param(frame(TEXT, b"x", rsv=0x20), False, id="RSV2"),
        pytest.param(frame(TEXT, b"x", rsv=0x10), False, id="RSV3"),
        pytest.param(frame(PING, b"x", final=False), False, id="fragmented control frame"),
        pytest.param(frame(PING, bytes(126)), False, id="control frame longer than 125 bytes"),
        pytest.param(frame(TEXT, b"x"), True, id="a client that does not mask"),
        pytest.param(frame(TEXT, b"x", masked=True), False, id="a server that masks"),
        pytest.param(b"\x82\x7f\x80" + bytes(7), False, id="64 bits of length"),
        pytest.param(frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), False, id="a message within a message"),
        pytest.param(frame(TEXT, b"x") + frame(CONTINUATION, b"y"), False, id="a continuation of nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", True, id="HTTP"),
        pytest.param(b"\xff" * 20, False, id="noise"),
    ],
)
def test_what_cannot_be_frames_is_lost_for_good(data: bytes, masked: bool) -> None:
    whole, piecemeal = tracker(data, masked=masked), FrameTracker(masked=masked)
    for at in range(len(data)):
        piecemeal.feed(data[at : at + 1])
    for found in (whole, piecemeal):
        assert found.lost
        assert not found.between
        count = found.messages
        found.feed(frame(TEXT, bytes(20), masked=masked))
        assert found.lost
        assert found.messages == count


def test_it_is_lost_with_the_very_byte_that_cannot_be() -> None:
    found = FrameTracker(masked=True)
    found.feed(b"\x81")
    assert not found.lost
    found.feed(b"\x05")  # no mask
    assert found.lost
