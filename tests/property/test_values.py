"""What people write in settings: any text is a value or a sentence."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.core.values import parse_address, parse_duration, parse_networks, parse_size

TEXTS = st.one_of(st.text(max_size=30), st.text("0123456789.:ams[]/-", max_size=12))


@pytest.mark.parametrize("parse", [parse_address, parse_duration, parse_size, parse_networks])
@given(text=TEXTS)
def test_any_text_is_a_value_or_refused_in_a_sentence_that_shows_it(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        told = str(error)
    else:
        return
    assert told.startswith("expected ")
    assert repr(text) in told


@given(st.text("abz019.-_:[]%", max_size=20))
def test_an_address_that_is_read_is_written_alike(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
