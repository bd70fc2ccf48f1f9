"""Read the header of the PROXY protocol, versions 1 and 2, by which a balancer says whose connection it passes on.

The clauses are those of HAProxy's `doc/proxy-protocol.txt` ("The PROXY protocol, Versions 1 & 2").

Laws: a parser says how many bytes belong to the header, so that none behind it is taken; what is no header is refused
with its first wrong byte, and nothing is guessed; a header is at most MOST_V1_BYTES or MOST_V2_BYTES long.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""The first 12 bytes of version 2 (section 2.2), which begin no request of any protocol."""

MOST_V1_BYTES = 107
"""Of the longest line of version 1, with its CRLF (section 2.1)."""

MOST_V2_BYTES = 4096
"""Of a header of version 2 that we read. Addresses take at most 216 bytes (AF_UNIX), the rest is TLVs, which are
skipped: names and identifiers of some hundred bytes. The protocol allows 64 KiB, and says that a header is always
smaller than a segment (section 2.2)."""

_FIRST = b"PROXY "
_ADDRESS_BYTES = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}  # by family; section 2.2
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")


@dataclass(frozen=True, slots=True)
class Source:
    """Whose connection it is: `address` as text; None where that of the connection itself counts, which the balancer
    has opened for a purpose of its own (a health check), or where it does not know, or cannot say by an IP address.
    """

    address: bytes | None


class HeaderProblem(StrEnum):
    """Why a connection is closed before it is served."""

    UNTRUSTED = "untrusted"
    MALFORMED = "malformed"
    TIMEOUT = "timeout"
    CLOSED = "closed"


class BadHeaderError(Exception):
    """Bytes that are no header of the protocol; the connection must be closed (section 2)."""


def parse_header(data: bytes) -> tuple[Source | None, int]:
    """Read a header that begins with these bytes, which may hold too few or too many.

    Gives the source and how many of the bytes are the header's. Source is None while the header is not whole: then all
    bytes belong to it, and more must come. Raises BadHeaderError.
    """
    if data[:12] == SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == _FIRST[: len(data)]:
        return _parse_v1(data)
    raise BadHeaderError(f"expected the signature of version 1 or 2, found {data[:12]!r}")


def _parse_v1(data: bytes) -> tuple[Source | None, int]:
    """Read version 1: one line of text (section 2.1)."""
    end = data.find(b"\r\n", 0, MOST_V1_BYTES) + 2
    line = data[:end] if end > 1 else data[:MOST_V1_BYTES]
    within = line[:-2] if end > 1 else line.removesuffix(b"\r")
    if b"\r" in within or b"\n" in within:
        raise BadHeaderError("expected a line that ends with CRLF, found a line break of another kind")
    if end < 2:
        if len(data) >= MOST_V1_BYTES:
            raise BadHeaderError(f"expected a line of at most {MOST_V1_BYTES} bytes, found no end of it")
        return None, len(data)
    if line[:-2] == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Source(None), end  # the rest of the line must be ignored (section 2.1)
    match = _V1.fullmatch(line)
    if match is None:
        raise BadHeaderError(f"expected PROXY TCP4|TCP6|UNKNOWN and addresses, found {line!r}")
    family, *hosts, source_port, destination_port = (part.decode("ascii") for part in match.groups())
    kind: type[IPv4Address | IPv6Address] = IPv4Address if family == "TCP4" else IPv6Address
    try:
        source, _ = [kind(host) for host in hosts]  # IPv4Address refuses leading zeros, as the protocol does
    except ValueError as error:
        raise BadHeaderError(f"expected addresses of {family}: {error}") from None
    for port in (source_port, destination_port):
        if int(port) > 65535 or (port[0] == "0" and port != "0"):
            raise BadHeaderError(f"expected a port from 0 to 65535 without leading zeros, found {port}")
    return Source(_plain(source)), end


def _parse_v2(data: bytes) -> tuple[Source | None, int]:
    """Read version 2: 16 bytes, addresses, and TLVs (section 2.2)."""
    if len(data) > 12:
        version, command = data[12] >> 4, data[12] & 0xF
        if version != 2 or command > 1:
            raise BadHeaderError(f"expected version 2 and the command LOCAL or PROXY, found {data[12]:#04x}")
    if len(data) > 13:
        family, protocol = data[13] >> 4, data[13] & 0xF
        if command and (family not in _ADDRESS_BYTES or protocol > 2):  # of a LOCAL connection it is ignored
            raise BadHeaderError(f"expected a known family and protocol, found {data[13]:#04x}")
    if len(data) < 16:
        return None, len(data)
    command, family, protocol = data[12] & 0xF, data[13] >> 4, data[13] & 0xF
    end = 16 + int.from_bytes(data[14:16], "big")
    if end > MOST_V2_BYTES:
        raise BadHeaderError(f"expected a header of at most {MOST_V2_BYTES} bytes, found one of {end}")
    proxied = bool(command and family and protocol)  # else addresses are to be ignored, whatever they are
    if proxied and end < 16 + _ADDRESS_BYTES[family]:
        raise BadHeaderError(f"expected {_ADDRESS_BYTES[family]} bytes of addresses, found {end - 16}")
    if len(data) < end:
        return None, len(data)
    if not proxied or family == 0x3 or protocol != 1:
        return Source(None), end  # the path of a Unix socket names nobody; what we do not support is UNSPEC to us
    if family == 0x1:
        return Source(_plain(IPv4Address(data[16:20]))), end
    return Source(_plain(IPv6Address(data[16:32]))), end


def _plain(address: IPv4Address | IPv6Address) -> bytes:
    """Write an address as it belongs into a header: IPv4 where it is mapped into IPv6."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address).encode()
