import json
import time

import pytest

from stickyproxy.core.messages import accept_key, read_text
from stickyproxy.core.parking import PONG, Who
from stickyproxy.core.reopening import (
    UNKNOWN,
    Fit,
    Progress,
    Redialogue,
    ask_again,
    can_ask,
    fit,
    is_accepted,
    next_number,
    number_asked,
    pack,
    read_next_number,
    read_number,
    unpack,
    who_asked,
    with_event,
)
from tests.fakes.websocket import CONTINUATION, TEXT, close, frame, server

LINE = b"GET /_nicegui_ws/socket.io/?client_id=c&next_message_id=0&document_id=d&EIO=4&transport=websocket HTTP/1.1"
FIELDS = (
    b"\r\nHost: app.test\r\nCookie: a=b\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 10.0.0.1"
)
END = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
DEFLATE = b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"
HANDSHAKE = {"client_id": "c", "document_id": "d", "tab_id": "t", "old_tab_id": None, "next_message_id": 45}
OPENED = server(b'0{"sid":"abcdefghijklmnopqrst","upgrades":[],"pingTimeout":2000,"pingInterval":4000}')
CONNECTED = server(b'40{"sid":"abcdefghijklmnopqrst"}')


def event(number: int, **changed: object) -> bytes:
    """Build the event by which pages before 3.6 say who they are."""
    return f"42{number}".encode() + json.dumps(["handshake", HANDSHAKE | changed], separators=(",", ":")).encode()


def update(number: int, more: str = "") -> bytes:
    """Build a packet of the app's outbox, which puts the number in last."""
    return b"42" + json.dumps(["update", {"1": {"text": more}, "_id": number}], separators=(",", ":")).encode()


# Numbers.


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("text", ["", '"_id":5}]', "x" * 100_000])
def test_a_message_ends_with_its_number_whatever_else_it_holds(text: str, compressed: bool) -> None:
    assert read_number(server(update(17, text), compressed=compressed)) == 17


def test_numbers_are_read_as_pythons_own_json_writes_them_too() -> None:
    assert read_number(server(b"42" + json.dumps(["update", {"a": 1, "_id": 3}]).encode())) == 3


@pytest.mark.parametrize(
    "packet",
    [b"2", b"40", b'43["x"]', b'42["mine",{"_id":"7"}]', b'42["mine",{"a":{"_id":7}}]', b'42["mine",{"_id":7},1]', b""],
)
def test_what_an_app_sends_past_nicegui_has_no_number(packet: bytes) -> None:
    assert read_number(server(packet)) is None


def test_what_cannot_be_read_has_a_number_nobody_knows() -> None:
    parts = frame(update(1), TEXT, final=False) + frame(b"", CONTINUATION)
    assert read_number(parts) == UNKNOWN
    assert read_number(frame(b"\x00binary", 2)) == UNKNOWN
    assert read_number(b"\xc1\x03\xff\xff\xff") == UNKNOWN


def test_a_bomb_is_not_unpacked() -> None:
    bomb = server(update(1, "x" * (64 << 20)), compressed=True)
    began = time.process_time()
    assert read_number(bomb) == UNKNOWN
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("packets", "following"),
    [
        ([], 9),
        ([b"2"], 9),
        ([update(9), update(10)], 11),
        ([update(9), b"2", b'42["mine",{}]'], 10),
        ([update(9)] + [b'42["mine",{}]'] * 64, UNKNOWN),
    ],
)
def test_the_next_number_follows_the_last_that_is_kept(packets: list[bytes], following: int) -> None:
    assert next_number([server(packet) for packet in packets], 9) == following


def test_behind_what_cannot_be_read_no_number_is_known() -> None:
    parts = frame(update(9), TEXT, final=False) + frame(b"", CONTINUATION)
    assert next_number([server(update(8)), parts], 8) == UNKNOWN
    assert next_number([parts, server(update(10))], 8) == 11


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (LINE, 0),
        (b"/?next_message_id=48", 48),
        (b"/?client_id=a&next_message_id=48&EIO=4", 48),
        (b"/?next_message_id=&EIO=4", UNKNOWN),
        (b"/?next_message_id=-1", UNKNOWN),
        (b"/?next_message_id=1x", UNKNOWN),
        (b"/?old_next_message_id=1", UNKNOWN),
        (b"/", UNKNOWN),
        (event(0), 45),
    ],
)
def test_a_page_says_which_message_it_wants_next(said: bytes, number: int) -> None:
    assert read_next_number(said) == number


@pytest.mark.parametrize(
    ("packet", "found"),
    [(update(7), Fit.NEXT), (update(6), Fit.AGAIN), (update(8), Fit.GAP), (b'42["mine",{}]', Fit.APART)],
)
def test_a_message_goes_on_where_it_is_the_next(packet: bytes, found: Fit) -> None:
    assert fit(server(packet), 7) is found


def test_a_message_that_cannot_be_read_may_hide_a_gap() -> None:
    assert fit(frame(b"\x00binary", 2), 7) is Fit.GAP


# The request.


def test_the_app_is_asked_with_what_the_page_said_but_for_number_and_key() -> None:
    asked = pack(LINE + FIELDS + DEFLATE + END)
    assert number_asked(asked) == 0
    request, said = ask_again(asked, 52, KEY)
    assert request == (
        LINE.replace(b"next_message_id=0", b"next_message_id=52")
        + FIELDS.replace(b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"")
        + DEFLATE
        + END[:-4]
        + b"\r\nSec-WebSocket-Key: "
        + KEY
        + b"\r\n\r\n"
    )
    assert said == b""


def test_what_a_header_says_of_numbers_is_left_alone() -> None:
    field = b"\r\nReferer: http://app.test/?next_message_id=7&a"
    request, _ = ask_again(pack(LINE + FIELDS + field + END), 3, KEY)
    assert field in request
    assert request.count(b"next_message_id=3&") == 1


def test_the_event_is_said_again_with_another_number() -> None:
    asked = with_event(pack(LINE + FIELDS + END), event(0))
    key = b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert unpack(asked) == (LINE + FIELDS.replace(key, b"") + END, event(0))
    assert number_asked(asked) == 45
    assert ask_again(asked, 52, KEY)[1] == event(0, next_message_id=52)


def test_whose_socket_was_asked_for_is_said_by_the_query_or_the_event() -> None:
    query = LINE.replace(b"document_id=d", b"document_id=e&tab_id=f")
    assert who_asked(pack(query + END)) == Who(b"e", b"f")
    assert who_asked(pack(LINE.replace(b"&document_id=d", b"") + END)) == Who(b"", b"")
    assert who_asked(with_event(pack(LINE.replace(b"&document_id=d", b"") + END), event(0))) == Who(b"d", b"t")
    assert who_asked(pack(b"GET / HTTP/1.1" + END)) == Who(b"", b"")


def test_a_request_as_browsers_make_it_takes_a_third_of_its_bytes() -> None:
    fields = (
        b"\r\nHost: app.example.com\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 "
        b"(Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36\r\n"
        b"Origin: https://app.example.com\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en"
        b"\r\nCookie: session=eyJpZCI6ICI5ZjFiNWU3Yy0zYTJkLTRjNmUtOGYwYS0xYjJjM2Q0ZTVmNjAifQ==.aLz8Vg.x1Yt9qV0\r\n"
        b"X-Forwarded-For: 203.0.113.17\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: app.example.com"
    )
    query = b"client_id=%b&next_message_id=0&implicit_handshake=true&document_id=%b&tab_id=%b&old_tab_id=null"
    query %= (
        b"8e1f2c2a-4f5b-4a57-9c56-0d1d2f3a4b5c",
        b"3b9ac9ff-7d61-4b0e-a3c7-6a5f4e3d2c1b",
        b"c0ffee00-1234-4321-8765-abcdefabcdef",
    )
    head = b"GET /_nicegui_ws/socket.io/?" + query + b"&EIO=4&transport=websocket HTTP/1.1" + fields + DEFLATE + END
    assert len(pack(head)) < len(head) / 3


@pytest.mark.parametrize("long", ["cookie", "query"])
def test_of_a_request_that_is_too_long_only_that_is_kept_which_says_whose_it_is(long: str) -> None:
    noise = b"".join(b"%02x" % (number * number % 251) + b"%d" % number for number in range(20_000))
    line = LINE.replace(b"document_id=d", b"document_id=d&tab_id=t" + (b"&x=" + noise if long == "query" else b""))
    asked = pack(line + FIELDS + (b"\r\nCookie: " + noise if long == "cookie" else b"") + END)
    assert not can_ask(asked)
    assert len(asked) < 200
    assert who_asked(asked) == Who(b"d", b"t")
    assert number_asked(asked) == UNKNOWN
    said = with_event(asked, event(0))
    assert not can_ask(said)
    assert (who_asked(said), number_asked(said)) == (Who(b"d", b"t"), 45)
    assert can_ask(pack(LINE + FIELDS + END))


def answer(*lines: bytes, status: bytes = b"101 Switching Protocols", key: bytes = KEY) -> bytes:
    """Build a backend's answer."""
    accept = b"Sec-WebSocket-Accept: " + accept_key(key)
    return b"\r\n".join(
        (b"HTTP/1.1 " + status, b"Connection: upgrade", b"upgrade: WebSocket", accept, *lines, b"", b"")
    )


def test_the_key_is_answered_as_the_rfc_says() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_an_answer_accepts_the_socket_with_what_was_agreed_on() -> None:
    server_only = DEFLATE[2:].replace(b"; client_no_context_takeover", b"")
    assert is_accepted(answer(), KEY, b"")
    assert is_accepted(answer(DEFLATE[2:]), KEY, DEFLATE)
    assert is_accepted(answer(server_only), KEY, DEFLATE), "as it is completed for the browser"


@pytest.mark.parametrize(
    ("head", "extensions"),
    [
        (answer(status=b"404 Not Found"), b""),
        (answer(status=b"200 OK"), b""),
        (answer(key=b"other"), b""),
        (answer().replace(b"Sec-WebSocket-Accept", b"Other"), b""),
        (answer().replace(b"WebSocket\r\n", b"other\r\n"), b""),
        (answer(DEFLATE[2:]), b""),
        (answer(), DEFLATE),
        (answer(DEFLATE[2:] + b"; server_max_window_bits=10"), DEFLATE),
        (b"HTTP/1.1 101 x\r\n: \x00\r\n\r\n", b""),
        (b"nonsense\r\n\r\n", b""),
    ],
)
def test_anything_else_is_no_acceptance(head: bytes, extensions: bytes) -> None:
    assert not is_accepted(head, KEY, extensions)


# The dialogue.


def talk(handshake: bytes, *units: bytes) -> tuple[Progress, list[bytes], list[bytes]]:
    """Feed what an app sends; give how far it has come, what it was answered and what came for the browser."""
    dialogue = Redialogue(handshake)
    answers = [answered for unit in units if (answered := dialogue.feed(unit))]
    return dialogue.progress, [read_text(each, 4096) or b"" for each in answers], dialogue.came


def test_a_page_that_says_in_its_query_who_it_is_is_connected_with_that() -> None:
    first, second = server(update(5)), server(update(6), compressed=True)
    found = talk(b"", OPENED, first, CONNECTED, second)
    assert found == (Progress.OPEN, [b"40"], [first, second])


def test_an_older_page_says_who_it_is_and_is_connected_when_that_is_accepted() -> None:
    said, early, late = event(3), server(update(5)), server(update(6))
    assert talk(said, OPENED, CONNECTED, early) == (Progress.ASKED, [b"40", said], [early])
    found = talk(said, OPENED, CONNECTED, early, server(b"433[true]"), late)
    assert found == (Progress.OPEN, [b"40", said], [early, late])


@pytest.mark.parametrize(
    ("said", "units"),
    [
        (b"", [OPENED, server(b'44{"message":"Implicit handshake failed"}')]),
        (event(3), [OPENED, server(b'44{"message":"no"}')]),
        (event(3), [OPENED, CONNECTED, server(b"433[false]")]),
        (event(3), [OPENED, CONNECTED, server(b"433[]")]),
        (event(3), [OPENED, CONNECTED, server(b"41")]),
        (b"", [OPENED, server(b"41")]),
        (b"", [OPENED, server(b"1")]),
        (b"", [OPENED, close(1000)]),
        (b"", [close()]),
    ],
)
def test_a_refusal_is_told(said: bytes, units: list[bytes]) -> None:
    assert talk(said, *units)[0] is Progress.REFUSED


def test_answers_to_other_events_say_nothing() -> None:
    assert talk(event(3), OPENED, CONNECTED, server(b"430[true]"))[0] is Progress.ASKED


def test_heartbeats_are_answered_and_the_sockets_own_frames_are_not_for_the_browser() -> None:
    dialogue = Redialogue(b"")
    assert dialogue.feed(server(b"2")) == PONG
    assert dialogue.feed(frame(b"x", 0x9)) == b""
    assert (dialogue.progress, dialogue.came) == (Progress.ASKED, [])


def test_all_that_comes_behind_the_connection_is_for_the_browser() -> None:
    rest = [server(b"2"), close(1000)]
    assert talk(b"", OPENED, CONNECTED, *rest) == (Progress.OPEN, [b"40"], rest)
