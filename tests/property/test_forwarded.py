"""Who asked: what a client says of itself changes nothing behind the first proxy that is honest."""

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.core.forwarded import TrustedProxies, client_address
from stickyproxy.core.values import PRIVATE_NETWORKS

HOPS = st.sampled_from(
    [b"10.0.0.1", b"fd00::1", b"127.0.0.1", b"8.8.8.8", b"2001:db8::1", b"unknown", b"", b"10.0.0.1:80"]
)


@given(st.lists(st.lists(HOPS, max_size=4), max_size=3), st.sampled_from([b"10.0.0.9", b"9.9.9.9"]), st.lists(HOPS))
def test_a_client_cannot_change_its_address_by_what_it_says_before_the_first_honest_proxy(
    lines: list[list[bytes]], peer: bytes, lies: list[bytes]
) -> None:
    # An honest proxy appends the address it sees: all that stands before an untrusted hop was written by that hop.
    trusted = TrustedProxies(PRIVATE_NETWORKS)
    honest = [(b"x-forwarded-for", b"8.8.4.4")] + [(b"x-forwarded-for", b", ".join(line)) for line in lines]
    spoofed = [(b"x-forwarded-for", b", ".join(lies)), *honest]
    assert client_address(spoofed, peer, trusted) == client_address(honest, peer, trusted)
