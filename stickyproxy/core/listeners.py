"""Tell from the text of /proc/net/tcp and /proc/net/tcp6 (proc(5)) whether anybody listens on an address.

Laws: what is looked for is written as the kernel writes it, so that reading costs one substring search and no parsing;
a listener that may serve the address counts.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from stickyproxy.core.values import Address

ByteOrder = Literal["little", "big"]

LONGEST_MARK = 96
"""Bytes of the longest mark, rounded up: so much of one piece of text must be looked at again with the next."""

_ANY_4, _ANY_6 = IPv4Address(0), IPv6Address(0)


def listening_marks(address: Address, byteorder: ByteOrder) -> tuple[bytes, ...]:
    """Write the parts of lines that stand for a socket that listens (state 0A) and serves connections to `address`.

    The host is an IP address or `localhost`, which stands for both loopback addresses. byteorder: the machine's, since
    the kernel prints addresses as numbers of 32 bits. A socket of `::` counts for IPv4 too: the text does not say
    whether it takes IPv6 only.
    """
    hosts = ("127.0.0.1", "::1") if address.host == "localhost" else (address.host,)
    served: list[IPv4Address | IPv6Address] = []
    for host in map(ip_address, hosts):
        if isinstance(host, IPv4Address):
            served += [host, _ANY_4, _mapped(host), _mapped(_ANY_4), _ANY_6]
        else:
            served += [host, _ANY_6]
    return tuple(dict.fromkeys(_mark(host, address.port, byteorder) for host in served))


def listens(text: bytes, marks: tuple[bytes, ...]) -> bool:
    """Say whether one of the marks stands in the text."""
    return any(mark in text for mark in marks)


def _mapped(host: IPv4Address) -> IPv6Address:
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + host.packed)  # RFC 4291 section 2.5.5.2


def _mark(host: IPv4Address | IPv6Address, port: int, byteorder: ByteOrder) -> bytes:
    packed = host.packed
    words = [int.from_bytes(packed[at : at + 4], byteorder) for at in range(0, len(packed), 4)]
    own = "".join(f"{word:08X}" for word in words)
    return f": {own}:{port:04X} {'0' * len(own)}:0000 0A ".encode()
