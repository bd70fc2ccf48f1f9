"""Who ended a tunnel, by what was seen of its end."""

import pytest

from stickyproxy.core.tunnels import VANISHED_S, Close, End, judge, read_close


def masked(length: int) -> bytes:
    return bytes((0x88, 0x80 | length)) + bytes(4 + length)


@pytest.mark.parametrize("length", [0, 2, 20, 125])
def test_a_clients_close_frame_is_read_whatever_its_mask_hides(length: int) -> None:
    assert read_close(masked(length), by_client=True) == Close(by_client=True, code=0)


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4000])
def test_a_backends_close_frame_tells_its_code(code: int) -> None:
    frame = b"\x88\x05" + code.to_bytes(2, "big") + b"bye"
    assert read_close(frame, by_client=False) == Close(by_client=False, code=code)
    assert read_close(b"\x88\x00", by_client=False) == Close(by_client=False, code=0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x88", b"\x88\x02\x03", b"\x88\x02\x03\xe8more", b"\x88\x7e\x00\x80" + bytes(128), b"\x81\x02\x03\xe8"],
)
def test_what_only_begins_like_one_is_none(data: bytes) -> None:
    assert read_close(data, by_client=False) is None
    assert read_close(data, by_client=True) is None


def test_masks_tell_whose_frame_it_is() -> None:
    assert read_close(masked(2), by_client=False) is None
    assert read_close(b"\x88\x02\x03\xe8", by_client=True) is None


CLIENTS, NORMAL, GOING, RESTART = Close(True, 0), Close(False, 1000), Close(False, 1001), Close(False, 1012)
RESET, NO_ROUTE = ConnectionResetError(), OSError(113, "No route to host")


@pytest.mark.parametrize(
    ("error", "close", "client", "expected"),
    [
        (None, None, True, End.CLIENT),
        (RESET, None, True, End.CLIENT),
        (TimeoutError(), None, True, End.ERROR),
        (NO_ROUTE, None, True, End.ERROR),
        (NO_ROUTE, CLIENTS, True, End.CLIENT),
        (None, CLIENTS, False, End.CLIENT),  # RFC 6455: the server closes the connection first, whoever asked for it
        (None, NORMAL, True, End.BACKEND),
        (None, NORMAL, False, End.BACKEND),
        (RESET, NORMAL, False, End.BACKEND),
        (None, GOING, False, End.BACKEND_GONE),
        (None, RESTART, True, End.BACKEND_GONE),
        (None, None, False, End.BACKEND_GONE),
        (RESET, None, False, End.BACKEND_GONE),
        (NO_ROUTE, None, False, End.ERROR),
    ],
)
def test_who_said_so_first_or_else_ended_first_is_the_one(
    error: Exception | None, close: Close | None, client: bool, expected: End
) -> None:
    assert judge(error, close, client=client, websocket=True, gone=False, client_silent_s=1.0) is expected


@pytest.mark.parametrize("close", [None, NORMAL])
def test_a_backend_that_is_gone_is_blamed_whatever_it_said(close: Close | None) -> None:
    assert judge(NO_ROUTE, close, client=False, websocket=True, gone=True, client_silent_s=99.0) is End.BACKEND_GONE


def test_a_gone_backend_is_not_blamed_for_a_client_that_left() -> None:
    assert judge(None, CLIENTS, client=False, websocket=True, gone=True, client_silent_s=0.0) is End.CLIENT


def test_a_backend_that_closes_on_a_client_that_has_vanished_did_not_end_it() -> None:
    for silent_s, expected in ((VANISHED_S - 0.1, End.BACKEND), (VANISHED_S, End.CLIENT)):
        assert judge(None, NORMAL, client=False, websocket=True, gone=False, client_silent_s=silent_s) is expected


def test_other_protocols_have_no_last_word_to_miss() -> None:
    assert judge(None, None, client=False, websocket=False, gone=False, client_silent_s=0.0) is End.BACKEND
