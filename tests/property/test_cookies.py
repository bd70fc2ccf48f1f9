"""Our cookie among others: it is always taken out, and nothing else ever is."""

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.core.cookies import split_cookie

NAMES = st.text("pinPINx_", min_size=1, max_size=4).map(str.encode)
VALUES = st.text("aZ09=._-", max_size=8).map(str.encode)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.sampled_from([b";", b"; ", b" ;\t"]))
def test_the_pairs_of_one_name_are_taken_and_the_others_left_in_order(
    pairs: list[tuple[bytes, bytes]], separator: bytes
) -> None:
    left, taken = split_cookie(separator.join(name + b"=" + value for name, value in pairs), b"pin")
    assert taken == [value for name, value in pairs if name == b"pin"]
    assert left == b"; ".join(name + b"=" + value for name, value in pairs if name != b"pin")
    assert split_cookie(left, b"pin") == (left, [])
