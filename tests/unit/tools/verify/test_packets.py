import json

import pytest

from stickyproxy.tools.verify.document import NiceguiPage
from stickyproxy.tools.verify.packets import Opened, Speaker, parse_open, split_payload
from stickyproxy.tools.verify.seen import Outcome

OPEN = '0{"sid":"s1","upgrades":["websocket"],"pingInterval":4000,"pingTimeout":2000}'


def page(*, implicit: bool) -> NiceguiPage:
    query = {"client_id": "c1", "next_message_id": 0, **({"implicit_handshake": True} if implicit else {})}
    return NiceguiPage("3.18.0", "", query)


def test_a_page_that_asks_in_its_query_is_accepted_by_the_connection() -> None:
    speaker = Speaker(page(implicit=True))
    assert speaker.on_packet(OPEN) == ["40"]
    assert speaker.opened == Opened("s1", 4.0, 2.0)
    assert speaker.outcome is None
    assert speaker.on_packet('40{"sid":"x"}') == []
    assert speaker.outcome is Outcome.ACCEPTED


def test_a_page_that_asks_by_an_event_waits_for_its_answer() -> None:
    speaker = Speaker(page(implicit=False))
    speaker.on_packet(OPEN)
    (asked,) = speaker.on_packet('40{"sid":"x"}')
    assert asked.startswith("420")
    name, body = json.loads(asked[3:])
    assert name == "handshake"
    assert body["client_id"] == "c1"
    assert speaker.outcome is None
    assert speaker.on_packet("430[true]") == []
    assert speaker.outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("packet", ['44{"message":"Implicit handshake failed"}', "430[false]", "44{garbage"])
def test_a_refusal_is_one_in_whatever_words(packet: str) -> None:
    speaker = Speaker(page(implicit=packet.startswith("44")))
    speaker.on_packet(OPEN)
    speaker.on_packet(packet)
    assert speaker.outcome is Outcome.REFUSED
    assert speaker.said


def test_an_outcome_stays_as_it_is() -> None:
    speaker = Speaker(page(implicit=True))
    speaker.on_packet('44{"message":"Implicit handshake failed"}')
    speaker.on_packet('40{"sid":"x"}')
    assert speaker.outcome is Outcome.REFUSED


def test_pings_are_answered_and_messages_are_counted() -> None:
    speaker = Speaker(page(implicit=True))
    assert speaker.on_packet("2") == ["3"]
    for packet in ('42["update",{"_id":4}]', '42["update",{"_id":2}]', '42["notify"]', "42[", '42["x",{"_id":"y"}]'):
        assert speaker.on_packet(packet) == []
    assert speaker.page.next_message_id == 5


@pytest.mark.parametrize("packet", ["1", "41"])
def test_an_end_is_known(packet: str) -> None:
    speaker = Speaker(page(implicit=True))
    speaker.on_packet(packet)
    assert speaker.ended


@pytest.mark.parametrize(
    "packet", ["", "0", "0{", '0{"sid":"a"}', '0{"sid":"a","pingInterval":"x","pingTimeout":1}', "<p>"]
)
def test_garbage_is_no_open_packet(packet: str) -> None:
    assert parse_open(packet) is None


def test_a_payload_has_none_or_many_packets() -> None:
    assert split_payload("") == []
    assert split_payload(f'{OPEN}\x1e40{{"sid":"x"}}') == [OPEN, '40{"sid":"x"}']
