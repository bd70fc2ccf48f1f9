from ipaddress import ip_network

import pytest

from stickyproxy.core.values import (
    PRIVATE_NETWORKS,
    Address,
    parse_address,
    parse_duration,
    parse_networks,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a:1", ("a", 1)),
        ("app.example:65535", ("app.example", 65535)),
        ("app.example.:80", ("app.example.", 80)),
        (" a:80 ", ("a", 80)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:80", ("::1", 80)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("[::]:80", ("::", 80)),
        (":80", ("0.0.0.0", 80)),
        ("app-0.app_headless:80", ("app-0.app_headless", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


def test_an_address_is_written_as_it_is_read() -> None:
    for text in ("a:1", "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80"):
        assert str(parse_address(text)) == text
    assert str(Address("::1", 80)) == "[::1]:80"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:",
        ":",
        "a:0",
        "a:65536",
        "a:-1",
        "a:+1",
        "a:8_0",
        "a:80x",
        "a: 80",
        "a:\u0668\u0660",
        "a:" + "9" * 5000,
        "::1:80",
        "[::1]",
        "[::1",
        "[]:80",
        "[a]:80",
        "[:]:80",
        "[::g]:80",
        "a b:80",
        "a/b:80",
        "http://a:80",
        "user@a:80",
        "-a:80",
        "a-:80",
        "ä:80",
        "a\n:80",
        "x" * 254 + ":80",
        # No such name can exist (RFC 1035 section 2.3.4); resolvers answer with a UnicodeError, which is no OSError.
        "a..b:80",
        ".a:80",
        "x" * 64 + ".example:80",
    ],
)
def test_what_is_no_address_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected .*, found "):
        parse_address(text)


def test_port_0_is_for_those_who_let_the_system_choose() -> None:
    assert parse_address("a:0", lowest_port=0).port == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("10s", 10.0),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        (" 3 s ", 3.0),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "+1", "1d", "1S", "1 2", "1,5", ".5", "5.", "1e3", "inf", "nan", "1s\n2", "9" * 400]
)
def test_what_is_no_duration_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a duration such as .*, found "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("65536", 65536), ("64k", 65536), ("64K", 65536), ("64KiB", 65536), ("1kB", 1024), ("10M", 10 << 20),
     ("1g", 1 << 30), ("7 b", 7)],
)  # fmt: skip
def test_a_size_is_a_whole_number_with_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "+1", "1.5k", "1t", "1kk", "1 000", "1_000", "0x10"])
def test_what_is_no_size_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a size such as .*, found "):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.1.2.3/8", ["10.0.0.0/8"]),
        ("1.2.3.4", ["1.2.3.4/32"]),
        ("2001:db8::/32", ["2001:db8::/32"]),
        ("::1", ["::1/128"]),
        (" NONE ", []),
    ],
)
def test_a_network_is_a_cidr_or_an_address(text: str, networks: list[str]) -> None:
    assert list(parse_networks(text)) == [ip_network(network) for network in networks]


def test_private_means_what_cannot_come_from_the_internet() -> None:
    assert parse_networks("Private") == PRIVATE_NETWORKS
    assert all(network.is_private or str(network) == "100.64.0.0/10" for network in PRIVATE_NETWORKS)


@pytest.mark.parametrize("text", ["", "all", "10.0.0.0/33", "10.0.0", "a.example", "10.0.0.0/8,::1", "::1%eth0/x"])
def test_what_is_no_network_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a CIDR such as .*, found "):
        parse_networks(text)
