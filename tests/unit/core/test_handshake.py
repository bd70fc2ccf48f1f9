import zlib

import pytest

from stickyproxy.core.handshake import Handshake, Outcome, read_poll, understood

OPENED = b'0{"sid":"YpuQfFrd5K8eb9z2AAAA","upgrades":[],"pingTimeout":2000,"pingInterval":4000,"maxPayload":1000000}'
CONNECTED = b'40{"sid":"euiOu3QXMDkzOjnYAAAB"}'
REJECTED = b'44{"message":"Connection rejected by server"}'
FAILED = b'44{"message":"Implicit handshake failed"}'
TIMEOUT = b'44{"message":"timeout"}'
EVENT = b'42["update",{"4":null}]'
MOST_MESSAGES = 16


def frame(message: bytes, *, first: int = 0x81) -> bytes:
    """Build a frame as servers send it."""
    size = bytes((len(message),)) if len(message) < 126 else b"\x7e" + len(message).to_bytes(2, "big")
    return bytes((first,)) + size + message


def frames(*messages: bytes, deflate: bool = False) -> bytes:
    """Build frames, with `deflate` compressed with one context (RFC 7692 section 7.2.1)."""
    if not deflate:
        return b"".join(map(frame, messages))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -12)
    return b"".join(
        frame((deflater.compress(m) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], first=0xC1) for m in messages
    )


def read(data: bytes, *, implicit: bool = True, version: bytes = b"", size: int = 0) -> tuple[Outcome, bytes]:
    """Feed bytes in pieces of `size` (0: whole); give the outcome and what was passed on."""
    handshake = Handshake(implicit=implicit, version=version)
    size = size or len(data) or 1
    out = b"".join(handshake.feed(data[at : at + size]) for at in range(0, len(data), size))
    outcome = handshake.outcome
    return outcome, out + handshake.end()


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(
    ("implicit", "answers", "outcome"),
    [
        (True, [CONNECTED], Outcome.ACCEPTED),
        (True, [EVENT, CONNECTED], Outcome.ACCEPTED),
        (True, [FAILED], Outcome.REFUSED),
        (True, [], Outcome.PENDING),
        (False, [CONNECTED], Outcome.PENDING),
        (False, [CONNECTED, EVENT, b"430[true]"], Outcome.ACCEPTED),
        (False, [CONNECTED, b"4317[false]"], Outcome.REFUSED),
        (False, [FAILED], Outcome.REFUSED),
    ],
)
def test_the_outcome_is_read_and_the_bytes_pass_untouched(
    implicit: bool, answers: list[bytes], outcome: Outcome, size: int, deflate: bool
) -> None:
    data = frames(OPENED, *answers, deflate=deflate)
    assert read(data, implicit=implicit, size=size) == (outcome, data)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize(
    ("refusal", "version", "told"),
    [
        (REJECTED, b"3.6.0", TIMEOUT),
        (REJECTED, b"", TIMEOUT),
        (REJECTED, b"3.18.0", FAILED),
        (FAILED, b"3.6.0", TIMEOUT),
        (FAILED, b"2.24.2", TIMEOUT),
        (FAILED, b"1.4.37", TIMEOUT),
        (FAILED, b"3.7.0", FAILED),
        (FAILED, b"4.0.0rc1", FAILED),
        (FAILED, b"", FAILED),
        (TIMEOUT, b"3.18.0", FAILED),
        (b'44{"message":"of the app\'s own"}', b"3.6.0", b'44{"message":"of the app\'s own"}'),
        (b'44{"message":"timeout","data":{}}', b"3.18.0", b'44{"message":"timeout","data":{}}'),
    ],
)
def test_a_refusal_is_told_in_the_words_that_the_page_understands(
    refusal: bytes, version: bytes, told: bytes, size: int, deflate: bool
) -> None:
    assert understood(refusal, version) == told
    data = frames(OPENED, refusal, deflate=deflate)
    before = frames(OPENED, deflate=deflate)
    behind = frame(b"2") + frame(b"", first=0x88)
    outcome, out = read(data + behind, version=version, size=size)
    assert outcome is Outcome.REFUSED
    assert out == (data if told == refusal else before + frame(told)) + behind


@pytest.mark.parametrize(
    "data",
    [
        frame(b"x" * 200, first=0x82),
        frame(b"x" * 5000),
        b"\x81\x7f" + bytes(8),
        b"\x81\x85" + bytes(9),
        frame(OPENED, first=0xC1),
        frame(OPENED, first=0xA1),
        frame(OPENED, first=0x01) + frame(b"", first=0x80),
        frames(b"0" * 100_000, deflate=True),
        frames(*[EVENT] * (MOST_MESSAGES + 1)),
    ],
    ids=["binary", "long", "very long", "masked", "not compressed", "another extension", "fragment", "bomb", "many"],
)
@pytest.mark.parametrize("size", [0, 1])
def test_what_cannot_be_read_is_no_refusal_and_passes_untouched(data: bytes, size: int) -> None:
    data += frames(REJECTED)
    assert read(data, size=size) == (Outcome.UNKNOWN, data)


def test_control_frames_are_no_messages() -> None:
    data = frame(b"", first=0x89) * 100 + frames(OPENED, CONNECTED)
    assert read(data) == (Outcome.ACCEPTED, data)


def test_only_a_frame_that_has_not_come_in_whole_is_held_back() -> None:
    handshake = Handshake(implicit=True, version=b"")
    data = frames(OPENED, EVENT)
    assert handshake.feed(data[:-1]) == frames(OPENED)
    assert handshake.feed(data[-1:]) == frames(EVENT)
    assert handshake.feed(frames(CONNECTED)[:5]) == b""
    assert handshake.end() == frames(CONNECTED)[:5]
    assert handshake.outcome is Outcome.UNKNOWN


def test_behind_the_outcome_nothing_is_read() -> None:
    handshake = Handshake(implicit=True, version=b"3.6.0")
    data = frames(CONNECTED, FAILED)
    assert handshake.feed(data) == data
    assert handshake.feed(b"\x81") == b"\x81"
    assert handshake.outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("payload", "version", "outcome", "told"),
    [
        (REJECTED, b"3.6.0", Outcome.REFUSED, TIMEOUT),
        (REJECTED, b"3.18.0", Outcome.REFUSED, FAILED),
        (FAILED, b"3.6.0", Outcome.REFUSED, TIMEOUT),
        (EVENT + b"\x1e" + REJECTED + b"\x1e2", b"", Outcome.REFUSED, EVENT + b"\x1e" + TIMEOUT + b"\x1e2"),
        (FAILED, b"3.18.0", Outcome.REFUSED, FAILED),
        (b"44{", b"3.18.0", Outcome.REFUSED, b"44{"),
        (CONNECTED + b"\x1e" + EVENT, b"3.6.0", Outcome.ACCEPTED, CONNECTED + b"\x1e" + EVENT),
        (EVENT, b"3.6.0", Outcome.PENDING, EVENT),
        (b"\x1e\x1e", b"3.6.0", Outcome.PENDING, b"\x1e\x1e"),
    ],
)
def test_a_refusal_in_a_polls_answer_is_told_in_as_many_bytes(
    payload: bytes, version: bytes, outcome: Outcome, told: bytes
) -> None:
    found, out = read_poll(payload, implicit=True, version=version)
    assert (found, len(out)) == (outcome, len(payload))
    assert out.replace(b" ", b"") == told.replace(b" ", b"")


def test_an_older_page_that_polls_gets_its_answer_as_an_acknowledgement() -> None:
    for answer, outcome in ((b"true", Outcome.ACCEPTED), (b"false", Outcome.REFUSED)):
        payload = b"430[%b]" % answer
        assert read_poll(payload, implicit=False, version=b"2.24.2") == (outcome, payload)
