"""Any bytes, in any pieces: a header is found at the same place with the same address, or refused."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.core.proxy_protocol import MOST_V2_BYTES, SIGNATURE, BadHeaderError, Source, parse_header

ports = st.integers(0, 65535)
v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(IPv6Address)


def plain(address: IPv4Address | IPv6Address) -> bytes:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address).encode()


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, bytes | None]:
    """Give a header as a balancer writes it, and the address that it names."""
    addresses = draw(st.one_of(st.tuples(v4, v4), st.tuples(v6, v6)))
    source, destination = addresses
    here, there = draw(ports), draw(ports)
    if draw(st.booleans()):
        line = f"PROXY TCP{source.version} {source} {destination} {here} {there}\r\n"
        return line.encode(), plain(source)
    tlvs = draw(st.binary(max_size=300))
    family = 0x11 if source.version == 4 else 0x21
    body = source.packed + destination.packed + here.to_bytes(2, "big") + there.to_bytes(2, "big") + tlvs
    local = draw(st.booleans())
    command = 0x20 if local else 0x21
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body, None if local else plain(source)


def read(data: bytes, pieces: list[int]) -> tuple[Source | None, int] | None:
    """Read as a connection gives it, so many bytes more each time; None where it is refused."""
    end = 0
    for piece in [*pieces, len(data)]:
        end = min(len(data), end + piece)
        try:
            source, length = parse_header(data[:end])
        except BadHeaderError:
            return None
        if source is not None:
            return source, length
        assert length == end
    return None, len(data)


@given(headers(), st.binary(max_size=50), st.lists(st.integers(1, 40), max_size=30))
def test_a_header_is_read_the_same_in_any_pieces(
    header: tuple[bytes, bytes | None], behind: bytes, pieces: list[int]
) -> None:
    data, address = header
    assert read(data + behind, pieces) == (Source(address), len(data))


likely = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda rest: b"PROXY " + rest),
    st.binary(max_size=60).map(lambda rest: b"PROXY TCP4 1.2.3.4 " + rest),
    st.binary(max_size=60).map(lambda rest: SIGNATURE + rest),
    st.tuples(st.sampled_from([0x20, 0x21]), st.integers(0, 255), st.integers(0, 300), st.binary(max_size=300)).map(
        lambda t: SIGNATURE + bytes(t[:2]) + t[2].to_bytes(2, "big") + t[3]
    ),
    headers().flatmap(lambda h: st.integers(0, len(h[0]) - 1).map(lambda at: h[0][:at] + b"\xff" + h[0][at + 1 :])),
)


@given(likely, st.lists(st.integers(1, 40), max_size=30))
def test_any_bytes_are_judged_the_same_in_any_pieces(data: bytes, pieces: list[int]) -> None:
    whole = read(data, [])
    assert read(data, pieces) == whole
    if whole is not None and whole[0] is not None:
        source, length = whole
        assert length <= min(len(data), MOST_V2_BYTES)
        if source.address is not None:
            ip_address(source.address.decode())
            assert b"%" not in source.address


@given(v6, v6)
def test_an_address_of_version_2_is_written_as_the_system_writes_it(
    source: IPv6Address, destination: IPv6Address
) -> None:
    body = source.packed + destination.packed + bytes(4)
    found, _ = parse_header(SIGNATURE + b"\x21\x21" + len(body).to_bytes(2, "big") + body)
    assert found is not None
    assert found.address is not None
    text = found.address.decode()
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    assert socket.inet_pton(family, text) == (source.ipv4_mapped or source).packed
