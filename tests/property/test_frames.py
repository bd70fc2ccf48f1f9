"""Frames cut anywhere give the same state, and what `websockets` reads as whole messages is where we stand between."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from stickyproxy.core.frames import HEARTBEAT_BYTES, FrameTracker

EDGES = (0, 1, 2, HEARTBEAT_BYTES, HEARTBEAT_BYTES + 1, 124, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537)


@dataclass(frozen=True)
class Sequence:
    """Frames of whole messages: their bytes, the offsets at which a message (or a control frame outside) ends."""

    frames: tuple[Frame, ...]
    masked: bool

    @property
    def data(self) -> bytes:
        return b"".join(frame.serialize(mask=self.masked) for frame in self.frames)

    def rests(self) -> tuple[set[int], int]:
        """Give the offsets at which the stream stands between messages, and the count of larger data frames."""
        rests, at, inside, larger = {0}, 0, False, 0
        for frame in self.frames:
            at += len(frame.serialize(mask=self.masked))
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                inside = not frame.fin
                larger += len(frame.data) > HEARTBEAT_BYTES
            if not inside:
                rests.add(at)
        return rests, larger


sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, 300))
controls = st.builds(
    lambda opcode, size: Frame(opcode, bytes(size)), st.sampled_from([Opcode.PING, Opcode.PONG]), st.integers(0, 125)
)


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """A message of one frame or several, with control frames in between."""
    opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
    pieces = draw(st.lists(sizes, min_size=1, max_size=4))
    frames = []
    for index, size in enumerate(pieces):
        final = index == len(pieces) - 1
        frames.append(Frame(opcode if not index else Opcode.CONT, bytes(size), fin=final))
        if not final:
            frames += draw(st.lists(controls, max_size=2))
    return frames


sequences = st.builds(
    lambda parts, masked: Sequence(tuple(frame for part in parts for frame in part), masked),
    st.lists(st.one_of(messages(), controls.map(lambda frame: [frame])), max_size=6),
    st.booleans(),
)


def state(tracker: FrameTracker) -> tuple[bool, bool, int]:
    return tracker.between, tracker.lost, tracker.messages


def cut(data: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(offset for offset in at if offset <= len(data)), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


@settings(max_examples=80)  # some are of 200 kB
@given(sequences, st.lists(st.integers(0, 140_000), max_size=12), st.data())
def test_frames_cut_anywhere_give_the_same_state(sequence: Sequence, cuts: list[int], data: st.DataObject) -> None:
    raw = sequence.data
    rests, larger = sequence.rests()
    near = data.draw(st.lists(st.sampled_from(sorted(rests)), max_size=4))
    cuts = [*cuts, *(offset + by for offset in near for by in (-1, 0, 1, 2) if offset + by >= 0)]
    tracker = FrameTracker(masked=sequence.masked)
    at = 0
    for piece in cut(raw, cuts):
        tracker.feed(piece)
        at += len(piece)
        assert tracker.between is (at in rests), at
        assert not tracker.lost
    assert tracker.messages == larger


@given(st.binary(max_size=60), st.booleans(), st.lists(st.integers(0, 60), max_size=8))
@example(b"\x01\x00\x01\x00", False, [1, 2, 3])
@example(b"\x82\x7f\x80\x00", False, [2])
def test_any_bytes_cut_anywhere_give_the_same_state(raw: bytes, masked: bool, cuts: list[int]) -> None:
    whole, pieces = FrameTracker(masked=masked), FrameTracker(masked=masked)
    whole.feed(raw)
    for piece in cut(raw, cuts):
        pieces.feed(piece)
    assert state(pieces) == state(whole)


def judge(raw: bytes, *, masked: bool, complete: bool = False) -> tuple[bool, bool] | None:
    """Read frames as `websockets` does from a client (masked) or a server: stands between messages; is lost.

    complete: give the frame that has come in part zeros for the rest of it, since what is wrong with a head is said
    only when the frame is whole; None where that would be too many.
    """
    reader = StreamReader()
    reader.feed_data(raw)
    inside: bool | None = None
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=masked, extensions=[_Unread()])
        try:
            next(parser)
            if not complete:
                return False, False
            reader.feed_data(bytes(1 << 17))
            next(parser)
            return None
        except StopIteration as end:
            frame = end.value
        except ProtocolError:
            return False, True
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if inside is not None and inside is not (frame.opcode is Opcode.CONT):
                return False, True
            inside = not frame.fin
        if complete and len(reader.buffer) > 1 << 16:
            break
    return not inside, False


class _Unread(PerMessageDeflate):
    """permessage-deflate, as far as a frame's head tells of it."""

    def __init__(self) -> None:
        pass

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        return Frame(frame.opcode, frame.data, frame.fin, False, frame.rsv2, frame.rsv3)


heads = st.builds(
    lambda first, second, rest: bytes((first, second)) + rest,
    st.integers(0, 255),
    st.one_of(st.integers(0, 255), st.integers(0, 9), st.integers(128, 137)),
    st.binary(max_size=14),
)


@given(st.one_of(st.binary(max_size=40), st.lists(heads, max_size=4).map(b"".join)), st.booleans())
def test_websockets_agrees_on_what_is_whole_and_what_cannot_be(raw: bytes, masked: bool) -> None:
    tracker = FrameTracker(masked=masked)
    tracker.feed(raw)
    seen = judge(raw, masked=masked)
    if tracker.lost and seen == (False, False):  # a part of a head can be enough
        seen = judge(raw, masked=masked, complete=True)
        assert seen in (None, (False, True))
    else:
        assert (tracker.between, tracker.lost) == seen
