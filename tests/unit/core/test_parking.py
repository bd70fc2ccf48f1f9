import json
import time

import pytest

from stickyproxy.core.messages import read_text
from stickyproxy.core.parking import (
    OVERHEAD_BYTES,
    PONG,
    Dialogue,
    Step,
    Tail,
    Who,
    agree_stateless,
    is_stateless,
    offer_stateless,
    read_extensions,
    read_handshake,
    read_opening,
    read_who,
)
from tests.fakes.websocket import CONTINUATION, KEY, client, frame, server

SOCKET = b"/_nicegui_ws/socket.io/?client_id=c"
OPENED = b'0{"sid":"abcdefghijklmnopqrst","upgrades":[],"pingTimeout":2000,"pingInterval":4000,"maxPayload":1000000}'
DEFLATE = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
HANDSHAKE = {"client_id": "c", "document_id": "d", "tab_id": "t", "old_tab_id": None, "next_message_id": 45}


def packet(number: int | str, **changed: object) -> bytes:
    """Build the event by which pages before 3.6 say who they are, as socket.io's client writes it."""
    return f"42{number}".encode() + json.dumps(["handshake", HANDSHAKE | changed], separators=(",", ":")).encode()


def test_a_pong_of_our_own_is_a_clients() -> None:
    assert read_text(PONG, 1) == b"3"
    assert PONG[1] & 0x80


# Who a socket belongs to.


@pytest.mark.parametrize(
    ("query", "who"),
    [
        (b"&next_message_id=0&document_id=d&tab_id=t", Who(b"d", b"t")),
        (b"&next_message_id=0&implicit_handshake=true&document_id=d-1&tab_id=t-1&old_tab_id=null", Who(b"d-1", b"t-1")),
        (b"&next_message_id=7", Who(b"", b"")),
        (b"&next_message_id=", Who(b"", b"")),
        (b"&next_message_id=0&document_id=%41%2f&tab_id=", Who(b"", b"")),
        (b"&next_message_id=0&old_tab_id=o&old_document_id=o", Who(b"", b"")),
        (b"&next_message_id=0&document_id=" + b"d" * 129, None),
        (b"&document_id=d&tab_id=t", None),
        (b"&x_next_message_id=0", None),
        (b"", None),
    ],
)
def test_a_socket_that_numbers_what_it_gets_says_whose_it_is(query: bytes, who: Who | None) -> None:
    if query.endswith(b"d" * 129):
        found = read_who(SOCKET + query)
        assert found is not None
        assert found.document != b"d" * 129
        assert len(found.document) <= 128
    else:
        assert read_who(SOCKET + query) == who


@pytest.mark.parametrize("number", ["", "0", "17"])
def test_an_older_page_says_it_by_an_event(number: str) -> None:
    assert read_handshake(packet(number)) == (number.encode(), Who(b"d", b"t"))


@pytest.mark.parametrize("told", [b"", b"40", b"2", b'42["event",{}]', b'42["handshake"', b'43["handshake",{}]'])
def test_another_packet_says_nothing(told: bytes) -> None:
    assert read_handshake(told) is None


def test_what_cannot_be_a_document_is_none() -> None:
    said = read_handshake(packet(1, document_id='a"b', tab_id="t" * 129))
    assert said == (b"1", Who(b"", b""))
    assert read_handshake(packet(1, document_id=None, tab_id=17)) == (b"1", Who(b"", b""))


def test_a_session_opens_with_everything_but_its_own_id() -> None:
    opening = read_opening(OPENED)
    assert opening is not None
    assert opening % b"new" == OPENED.replace(b"abcdefghijklmnopqrst", b"new")
    assert opening == read_opening(OPENED.replace(b"abc", b"xyz"))


@pytest.mark.parametrize("more", [b"100%s", b"%b", b"%%", b"%"])
def test_percent_signs_of_an_opening_are_no_places(more: bytes) -> None:
    opened = b'0{"sid":"x","more":"%b"}' % more.replace(b"%", b"%")
    opening = read_opening(opened)
    assert opening is not None
    assert opening % b"x" == opened


@pytest.mark.parametrize("told", [b"", b"0", b"0{}", b'40{"sid":"x"}', b'0{"sid":"x"', b'0{"sid":"x\\"y"}', b"2"])
def test_another_packet_is_no_opening(told: bytes) -> None:
    assert read_opening(told) is None


# Extensions.


def head(*extensions: str, name: str = "Sec-WebSocket-Extensions") -> bytes:
    lines = ["", "Host: a", *(f"{name}: {line}" for line in extensions), "X-After: 1", "", ""]
    return "\r\n".join(lines).encode()


def offered(raw: bytes) -> list[bytes]:
    assert raw.endswith(b"\r\n\r\n")
    lines = raw[:-4].split(b"\r\n")
    assert lines[0] == b""
    assert {b"Host: a", b"X-After: 1"} <= set(lines)
    return [line.partition(b": ")[2] for line in lines if line.lower().startswith(b"sec-websocket-extensions")]


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ((), []),
        (("permessage-deflate",), [DEFLATE]),
        (("permessage-deflate; client_max_window_bits",), [DEFLATE + b"; client_max_window_bits"]),
        (("PerMessage-Deflate; Client_Max_Window_Bits",), [DEFLATE + b"; client_max_window_bits"]),
        (("permessage-deflate; server_no_context_takeover",), [DEFLATE]),
        (("permessage-deflate;client_no_context_takeover ;server_no_context_takeover",), [DEFLATE]),
        (("permessage-deflate", "permessage-deflate"), [DEFLATE]),
        (("permessage-deflate; client_max_window_bits, permessage-deflate",), [DEFLATE + b"; client_max_window_bits"]),
        (("x-webkit-deflate-frame",), []),
        (("x-webkit-deflate-frame; max_window_bits=12, permessage-deflate",), [DEFLATE]),
        (("x-webkit-deflate-frame", "permessage-deflate; client_max_window_bits"),
         [DEFLATE + b"; client_max_window_bits"]),
        (("",), []),
        ((", permessage-deflate,",), [DEFLATE]),
    ],
)  # fmt: skip
def test_compression_is_offered_only_message_by_message(extensions: tuple[str, ...], expected: list[bytes]) -> None:
    for name in ("Sec-WebSocket-Extensions", "SEC-WEBSOCKET-EXTENSIONS"):
        raw = offer_stateless(head(*extensions, name=name))
        assert raw is not None
        assert offered(raw) == expected


@pytest.mark.parametrize(
    "extensions",
    [
        ("permessage-deflate; server_max_window_bits=10",),
        ("permessage-deflate; client_max_window_bits=10",),
        ("permessage-deflate; client_max_window_bits = 10",),
        ('permessage-deflate; server_max_window_bits="10", permessage-deflate',),
        ("permessage-deflate", "permessage-deflate; server_no_context_takeover; server_max_window_bits=9"),
        ('permessage-deflate; x="a;b"',),
        ('permessage-deflate; x="a, permessage-deflate"',),
        ("permessage-deflate;",),
        ("permessage-deflate; server_no_context_takeover=1",),
        ("x-other",),
        ("x-other, permessage-deflate",),
        ("permessage-deflate; client_max_window_bits", "x-other; a=1"),
        ("xpermessage-deflate",),
        ("x-webkit-deflate-frames",),
    ],
)
def test_an_offer_with_more_conditions_cannot_be_made_message_by_message(extensions: tuple[str, ...]) -> None:
    assert offer_stateless(head(*extensions)) is None
    assert offer_stateless(head(*extensions, name="SEC-WEBSOCKET-EXTENSIONS")) is None


SERVER_ONLY = "permessage-deflate; server_no_context_takeover"


@pytest.mark.parametrize(
    ("extensions", "stateless"),
    [
        ((), True),
        ((DEFLATE.decode(),), True),
        ((DEFLATE.decode() + "; client_max_window_bits=12",), True),
        ((DEFLATE.decode().upper(),), True),
        (("permessage-deflate;client_no_context_takeover;server_no_context_takeover",), True),
        ((SERVER_ONLY,), False),
        (("permessage-deflate",), False),
        (("permessage-deflate; client_no_context_takeover",), False),
        ((DEFLATE.decode() + ", x-other",), False),
        (("x-other, " + DEFLATE.decode(),), False),
        ((DEFLATE.decode(), "x-other"), False),
        ((DEFLATE.decode(), DEFLATE.decode()), False),
        (("x-other; server_no_context_takeover; client_no_context_takeover",), False),
        (("permessage-deflate; server_no_context_takeover; x_client_no_context_takeovers",), False),
        (("x-other",), False),
    ],
)
def test_what_was_agreed_on_is_read_strictly(extensions: tuple[str, ...], stateless: bool) -> None:
    assert is_stateless(read_extensions(head(*extensions))) is stateless


@pytest.mark.parametrize(
    "extensions", [SERVER_ONLY, "permessage-deflate;server_no_context_takeover", SERVER_ONLY.upper()]
)
def test_the_browser_too_is_told_to_compress_message_by_message(extensions: str) -> None:
    raw = agree_stateless(b"HTTP/1.1 101 S" + head(extensions))
    assert raw.count(b"client_no_context_takeover") == 1
    assert is_stateless(read_extensions(raw))


@pytest.mark.parametrize(
    "extensions",
    [(), ("permessage-deflate",), (DEFLATE.decode(),), (SERVER_ONLY + ", x-other",), ("x-other",), (SERVER_ONLY, "x")],
)
def test_a_response_that_is_no_use_or_good_already_stays_as_it_is(extensions: tuple[str, ...]) -> None:
    raw = b"HTTP/1.1 101 S" + head(*extensions)
    assert agree_stateless(raw) == raw


# What may not have been received.

PING = server(b"2")


def update(number: int) -> bytes:
    return server(b'42["update",{"_id":%d}]' % number)


def weight(*units: bytes) -> int:
    return sum(len(unit) + OVERHEAD_BYTES for unit in units)


def filled(*units: bytes, fresh: bool = False) -> Tail:
    tail = Tail(fresh=fresh)
    for unit in units:
        taken = tail.keep_ping(unit) if unit == PING else tail.keep(unit)
        assert taken == weight(unit)
    assert tail.size == weight(*units)
    return tail


def test_an_answer_to_a_heartbeat_frees_all_that_was_sent_before_it() -> None:
    tail = filled(update(0), update(1), PING, update(2))
    assert tail.acknowledge() == weight(update(0), update(1), PING)
    assert tail.units == [update(2)]
    assert tail.size == weight(update(2))
    assert tail.acknowledge() == 0, "an answer to nothing"
    assert tail.units == [update(2)]


def test_each_answer_is_to_the_oldest_heartbeat() -> None:
    tail = filled(PING, update(0), PING, PING, update(1))
    assert [tail.acknowledge() for _ in range(4)] == [weight(PING), weight(update(0), PING), weight(PING), 0]
    assert tail.units == [update(1)]


def test_heartbeats_in_another_coding_are_heartbeats_too() -> None:
    tail = Tail()
    tail.keep_ping(server(b"2"))
    tail.keep(update(0))
    tail.keep_ping(server(b"2", compressed=True))
    tail.keep(update(1))
    tail.acknowledge()
    assert tail.units[0] == update(0)
    tail.acknowledge()
    assert tail.units == [update(1)]
    assert tail.size == weight(update(1))
    tail.keep_ping(server(b"2", compressed=True))
    tail.rewind()
    assert tail.units == [update(1)]


def test_what_was_dropped_is_a_gap_until_a_later_heartbeat_is_answered() -> None:
    tail = filled(update(0), PING, update(1), PING)
    assert tail.drop() == weight(update(0), PING, update(1), PING)
    assert (tail.units, tail.size, tail.gap, tail.idle) == ([], 0, True, False)
    assert tail.keep(update(2)) == 0, "it is of no use"
    tail.keep_ping(PING)
    assert tail.keep(update(3)) == weight(update(3))
    assert [tail.acknowledge(), tail.acknowledge()] == [0, 0], "the heartbeats that were dropped"
    assert tail.gap
    assert tail.acknowledge() == weight(PING)
    assert not tail.gap
    assert tail.units == [update(3)]
    assert tail.size == weight(update(3))


def test_what_is_of_no_use_but_still_unsent_is_kept() -> None:
    tail = filled(update(0))
    tail.drop()
    assert tail.keep(update(1), unsent=True) == weight(update(1))
    assert tail.units == [update(1)]


def test_dropped_twice_all_heartbeats_are_still_owed() -> None:
    tail = filled(PING)
    tail.drop()
    tail.keep_ping(PING)
    tail.drop()
    tail.keep_ping(PING)
    for _ in range(2):
        assert tail.acknowledge() == 0
        assert tail.gap
    assert tail.acknowledge() == weight(PING)
    assert tail.idle


def test_for_another_connection_heartbeats_are_left_out() -> None:
    tail = filled(update(0), PING, update(1), PING)
    tail.sent = 3
    assert tail.rewind() == weight(PING, PING)
    assert tail.units == [update(0), update(1)]
    assert tail.size == weight(update(0), update(1))
    assert tail.sent == 0
    assert tail.acknowledge() == 0, "of the connection before"


@pytest.mark.parametrize("compressed", [False, True])
def test_the_greetings_of_a_first_connection_are_not_for_the_second(compressed: bool) -> None:
    greetings = [server(text, compressed=compressed) for text in (OPENED, b'40{"sid":"y"}', b"430[true]")]
    tail = filled(*greetings[:2], update(0), greetings[2], update(1), fresh=True)
    tail.rewind()
    assert tail.units == [update(0), update(1)]
    tail.keep(greetings[1])
    tail.rewind()
    assert tail.units[-1] == greetings[1], "by now it is something of the app's own"


def test_after_a_first_answer_nothing_is_taken_for_a_greeting() -> None:
    tail = filled(server(OPENED), PING, server(b"43[1]"), fresh=True)
    tail.acknowledge()
    tail.rewind()
    assert tail.units == [server(b"43[1]")]


@pytest.mark.parametrize(("sent", "left"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2)])
def test_what_was_given_to_a_slow_connection_stays_counted(sent: int, left: int) -> None:
    tail = filled(update(0), PING, update(1), update(2))
    tail.sent = sent
    tail.acknowledge()
    assert tail.sent == left


def test_answers_to_nothing_cost_nothing_however_much_is_kept() -> None:
    """Else a browser that sends nothing but answers holds up everybody."""
    tail = filled(*([update(1)] * 30_000))
    began = time.process_time()
    for _ in range(30_000):
        tail.acknowledge()
    assert time.process_time() - began < 0.5


# A browser that comes back.


def told(answer: bytes) -> bytes:
    return read_text(answer, 4096) or b""


def implicit() -> Dialogue:
    return Dialogue(implicit=True, is_ours=lambda _: pytest.fail("its query has told"))


def explicit(document: bytes = b"d") -> Dialogue:
    return Dialogue(implicit=False, is_ours=lambda who: who.document == document)


CONNECT = client(b"40")
CLICK = client(b'42["event",{"x":1}]')


def test_the_greeting_is_the_openings_with_a_new_id() -> None:
    opening = read_opening(OPENED)
    assert opening is not None
    assert told(Dialogue.greeting(opening, b"S")) == OPENED.replace(b"abcdefghijklmnopqrst", b"S")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_newer_page_is_back_when_it_connects(compressed: bool) -> None:
    dialogue = implicit()
    assert dialogue.step is Step.OPEN
    assert told(dialogue.feed(client(b"40", compressed=compressed), b"S")) == b'40{"sid":"S"}'
    assert dialogue.step is Step.RETURNED
    assert dialogue.waiting == []


@pytest.mark.parametrize("compressed", [False, True])
def test_an_older_page_is_back_when_it_has_said_who_it_is(compressed: bool) -> None:
    dialogue = explicit()
    assert told(dialogue.feed(CONNECT, b"S")) == b'40{"sid":"S"}'
    assert dialogue.step is Step.OPEN
    assert dialogue.feed(CLICK, b"S") == b""
    assert told(dialogue.feed(client(packet(7), compressed=compressed), b"S")) == b"437[true]"
    assert dialogue.step is Step.RETURNED
    assert dialogue.feed(CLICK, b"S") == b""
    assert dialogue.waiting == [CLICK, CLICK], "all that is for the backend, in order, and no more"


def test_another_document_is_refused_as_the_app_would() -> None:
    dialogue = explicit()
    dialogue.feed(CONNECT, b"S")
    assert told(dialogue.feed(client(packet(3, document_id="other")), b"S")) == b"433[false]"
    assert dialogue.step is Step.STRANGER


def test_who_has_not_connected_cannot_say_who_he_is() -> None:
    dialogue = explicit()
    assert dialogue.feed(client(packet(3)), b"S") == b""
    assert dialogue.step is Step.OPEN


@pytest.mark.parametrize("dialogue", [implicit(), explicit()])
def test_who_connects_again_and_again_is_answered_once(dialogue: Dialogue) -> None:
    assert dialogue.feed(CONNECT, b"S")
    for _ in range(3):
        assert dialogue.feed(CONNECT, b"S") == b""
    assert dialogue.waiting == [CONNECT] * 3


@pytest.mark.parametrize("unit", [client(b"x" * 1000), client(b"")])
def test_who_says_much_before_that_is_a_stranger(unit: bytes) -> None:
    dialogue = explicit()
    dialogue.feed(CONNECT, b"S")
    count = 0
    while dialogue.step is Step.OPEN:
        dialogue.feed(unit, b"S")
        count += 1
    assert 900 < count * (len(unit) + OVERHEAD_BYTES) / 1024 < 1200


@pytest.mark.parametrize(
    "unit",
    [
        frame(b"40", 0x2, key=KEY),
        frame(b"4", final=False, key=KEY) + frame(b"0", CONTINUATION, key=KEY),
        client(b"41"),
        client(b"4"),
        frame(b"", 0x9, key=KEY),
    ],
)
def test_what_is_no_plain_word_is_for_the_backend(unit: bytes) -> None:
    dialogue = implicit()
    assert dialogue.feed(unit, b"S") == b""
    assert dialogue.step is Step.OPEN
    assert dialogue.waiting == [unit]
