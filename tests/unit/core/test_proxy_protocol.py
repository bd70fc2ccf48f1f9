"""The header of the PROXY protocol: what is one, whose address it gives, and that nothing behind it is taken."""

import socket

import pytest

from stickyproxy.core.proxy_protocol import (
    MOST_V1_BYTES,
    MOST_V2_BYTES,
    SIGNATURE,
    BadHeaderError,
    Source,
    parse_header,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LONGEST_UNKNOWN = b"PROXY UNKNOWN " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"

V4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + b"\x12\x34\x01\xbb"
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") + socket.inet_pton(socket.AF_INET6, "::1") + b"\x12\x34\x01\xbb"
MAPPED = (
    socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.9")
    + socket.inet_pton(socket.AF_INET6, "::1")
    + b"\x12\x34\1\xbb"
)
UNIX = b"/run/app.sock".ljust(108, b"\0") * 2


def v2(body: bytes = b"", *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + (len(body) if length is None else length).to_bytes(2, "big") + body


HEADERS = {
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n": b"203.0.113.9",
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": b"255.255.255.255",
    b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n": b"0.0.0.0",
    b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n": b"2001:db8::9",
    b"PROXY TCP6 2001:DB8:0:0:0:0:0:9 ::1 4711 80\r\n": b"2001:db8::9",
    b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 80\r\n": b"203.0.113.9",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN nobody knows what this is\r\n": None,
    LONGEST_UNKNOWN: None,
    v2(V4): b"203.0.113.9",
    v2(V6, family=0x21): b"2001:db8::9",
    v2(MAPPED, family=0x21): b"203.0.113.9",
    v2(V4 + b"\x04\x00\x03abc\x03\x00\x04\0\0\0\0"): b"203.0.113.9",  # TLVs
    v2(V4 + b"\xff" * (MOST_V2_BYTES - 16 - len(V4))): b"203.0.113.9",
    v2(UNIX, family=0x31): None,
    v2(UNIX, family=0x32): None,
    v2(V4, family=0x12): None,  # UDP: what is not supported is UNSPEC
    v2(b"", family=0x00): None,
    v2(b"whatever", family=0x00): None,
    v2(V4, family=0x10): None,
    v2(b"", command=0x20, family=0x00): None,
    v2(V4, command=0x20): None,  # LOCAL: addresses do not count, a health check comes from the balancer itself
    v2(b"odd", command=0x20, family=0xFF): None,
}


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: repr(header[:40]))
@pytest.mark.parametrize("behind", [b"", REQUEST, b"\r\n", SIGNATURE])
def test_a_header_gives_its_address_and_leaves_what_is_behind_it(header: bytes, behind: bytes) -> None:
    assert parse_header(header + behind) == (Source(HEADERS[header]), len(header))


def test_the_longest_line_of_version_1_is_as_long_as_the_protocol_says() -> None:
    assert len(LONGEST_UNKNOWN) == MOST_V1_BYTES


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: repr(header[:40]))
def test_every_beginning_of_a_header_waits_for_the_rest(header: bytes) -> None:
    for length in range(len(header)):
        assert parse_header(header[:length]) == (None, length)


BAD = [
    REQUEST,
    b"\x16\x03\x01\x02\0",  # TLS
    b"PROXZ",
    b"proxy TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
    b" PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY\tTCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY  TCP4 203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4  203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80 \r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80 9\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r",
    b"PROXY TCP4 203.0.113.9\n10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n\r\n",
    b"PROXY UNKNOWN a\rb\r\n",
    b"PROXY UNKNOWN a\nb\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY TCP5 203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY UDP4 203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 2001:db8::9 ::1 4711 80\r\n",
    b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 80\r\n",
    b"PROXY TCP6 2001:db8::9 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 203.0.113.09 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 203.0.113 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 203.0.113.256 10.0.0.1 4711 80\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 04711 80\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 80\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 -1 80\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 +80\r\n",
    b"PROXY TCP6 2001:db8::9::1 ::1 4711 80\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 4711 80\r\n",
    LONGEST_UNKNOWN[:-2] + b"x\r\n",
    b"PROXY UNKNOWN " + b"x" * MOST_V1_BYTES,
    v2(V4, command=0x11),  # version 1 in binary
    v2(V4, command=0x31),
    v2(V4, command=0x22),
    v2(V4, family=0x41),
    v2(V4, family=0x13),
    v2(V4[:-1]),
    v2(V4, family=0x21),
    v2(UNIX[:-1], family=0x31),
    v2(b"", length=MOST_V2_BYTES - 15),
    v2(b"", length=0xFFFF),
    SIGNATURE[:-1] + b"X" + b"\x21\x11\0\x0c" + V4,
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: repr(data[:60]))
def test_what_is_no_header_is_refused_however_it_is_split(data: bytes) -> None:
    if data.endswith(b"\r"):  # not refused yet: its line feed may come
        data += b"G"
    with pytest.raises(BadHeaderError):
        parse_header(data)
    for length in range(len(data)):
        try:
            source, taken = parse_header(data[:length])
        except BadHeaderError:
            continue
        assert (source, taken) == (None, length), "no beginning of it may pass for a header"
