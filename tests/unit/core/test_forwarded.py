import pytest

from stickyproxy.core.forwarded import (
    TrustedProxies,
    came_by_https,
    client_address,
    forwarded_lines,
    plain_address,
    relayed_lines,
)
from stickyproxy.core.values import PRIVATE_NETWORKS, parse_networks

PRIVATE = TrustedProxies(PRIVATE_NETWORKS)
NOBODY = TrustedProxies(())

Said = list[tuple[bytes, bytes]]


def xff(*values: bytes) -> Said:
    return [(b"x-forwarded-for", value) for value in values]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.1.2.3",
        "::FFFF:10.1.2.3",
        "::ffff:a01:203",
        b"10.1.2.3",
    ],
)
def test_a_private_address_may_speak_for_others(address: str | bytes) -> None:
    assert address in PRIVATE
    assert address not in NOBODY


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "::10.1.2.3",
        "64:ff9b::10.1.2.3",
        "10.1.2.3:80",
        "[::1]",
        "010.1.2.3",
        "10.1.2",
        "10.1.2.3 ",
        "127.1",
        "2130706433",
        "localhost",
        "unknown",
        "",
        b"\xff",
    ],
)
def test_nobody_else_may(address: str | bytes) -> None:
    assert address not in PRIVATE


def test_a_single_address_can_be_trusted() -> None:
    trusted = TrustedProxies(parse_networks("203.0.113.7"))
    assert "203.0.113.7" in trusted
    assert "203.0.113.8" not in trusted
    assert "10.0.0.1" not in trusted


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("1.2.3.4", b"1.2.3.4"),
        ("::ffff:1.2.3.4", b"1.2.3.4"),
        ("2001:db8::1", b"2001:db8::1"),
        ("fe80::1%eth0", b"fe80::1"),
        ("::1", b"::1"),
        ("::ffff:a01:203", b"::ffff:a01:203"),
    ],
)
def test_an_address_stands_in_a_header_without_zone_and_mapping(host: str, written: bytes) -> None:
    assert plain_address(host) == written


@pytest.mark.parametrize(("https", "proto"), [(False, b"http"), (True, b"https")])
def test_a_backend_hears_who_asked_and_how(https: bool, proto: bytes) -> None:
    assert forwarded_lines(b"1.2.3.4", b"app:8080", https=https) == (
        b"\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: " + proto + b"\r\n"
        b"X-Forwarded-Host: app:8080"
    )


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        (
            [],
            [
                b"X-Forwarded-For: 10.0.0.9",
                b"X-Real-IP: 10.0.0.9",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: app",
            ],
        ),
        (
            [
                (b"x-forwarded-for", b"1.2.3.4"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-host", b"shop.example"),
            ],
            [
                b"X-Forwarded-Proto: https",
                b"X-Forwarded-Host: shop.example",
                b"X-Forwarded-For: 1.2.3.4, 10.0.0.9",
                b"X-Real-IP: 1.2.3.4",
            ],
        ),
        (
            [(b"x-real-ip", b"5.6.7.8"), (b"x-forwarded-prefix", b"/a"), (b"forwarded", b"for=5.6.7.8")],
            [
                b"X-Real-IP: 5.6.7.8",
                b"X-Forwarded-Prefix: /a",
                b"Forwarded: for=5.6.7.8",
                b"X-Forwarded-For: 10.0.0.9",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: app",
            ],
        ),
        (  # the same name with underscores is a trick to be read as the real one by CGI-like servers
            [(b"x_forwarded_for", b"6.6.6.6"), (b"x-forwarded_proto", b"https"), (b"x_real_ip", b"6.6.6.6")],
            [
                b"X-Forwarded-For: 10.0.0.9",
                b"X-Real-IP: 10.0.0.9",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: app",
            ],
        ),
        (
            xff(b"1.2.3.4, 10.0.0.1", b"10.0.0.2"),
            [
                b"X-Forwarded-For: 1.2.3.4, 10.0.0.1, 10.0.0.2, 10.0.0.9",
                b"X-Real-IP: 1.2.3.4",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: app",
            ],
        ),
    ],
)
def test_the_word_of_a_trusted_proxy_is_kept_and_ours_added(said: Said, lines: list[bytes]) -> None:
    relayed = relayed_lines(said, b"10.0.0.9", b"app", PRIVATE, https=False)
    assert relayed == b"".join(b"\r\n" + line for line in lines)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ([], b"10.0.0.9"),
        (xff(b""), b"10.0.0.9"),
        (xff(b" , ,"), b"10.0.0.9"),
        (xff(b"1.2.3.4"), b"1.2.3.4"),
        (xff(b"1.2.3.4, 10.0.0.1"), b"1.2.3.4"),
        (xff(b"1.2.3.4", b"10.0.0.1", b"fd00::5"), b"1.2.3.4"),
        # What stands before the last address that is no proxy of ours was written by that address: not believed.
        (xff(b"6.6.6.6, 1.2.3.4"), b"1.2.3.4"),
        (xff(b"6.6.6.6", b"1.2.3.4, 10.0.0.1"), b"1.2.3.4"),
        (xff(b"10.6.6.6, 1.2.3.4"), b"1.2.3.4"),
        (xff(b"2001:db8::1, ::ffff:10.0.0.1"), b"2001:db8::1"),
        # All of them trusted: the farthest.
        (xff(b"10.0.0.1, 10.0.0.2"), b"10.0.0.1"),
        # What is no address is trusted by nobody.
        (xff(b"6.6.6.6, unknown, 10.0.0.1"), b"unknown"),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_proxy_of_ours(said: Said, address: bytes) -> None:
    assert client_address(said, b"10.0.0.9", PRIVATE) == address


def test_an_untrusted_peer_is_the_client_whatever_it_says() -> None:
    assert client_address(xff(b"6.6.6.6, 10.0.0.1"), b"8.8.8.8", PRIVATE) == b"8.8.8.8"
    assert client_address(xff(b"6.6.6.6"), b"10.0.0.9", NOBODY) == b"10.0.0.9"


@pytest.mark.parametrize(
    ("said", "https"),
    [
        ([], False),
        ([(b"x-forwarded-proto", b"https")], True),
        ([(b"x-forwarded-proto", b" HTTPS ")], True),
        ([(b"x-forwarded-proto", b"wss")], True),
        ([(b"x-forwarded-proto", b"https, http")], True),
        ([(b"x-forwarded-proto", b"http, https")], False),
        ([(b"x-forwarded-proto", b"http")], False),
        ([(b"x-forwarded-proto", b"httpsx")], False),
        ([(b"x-forwarded-host", b"https")], False),
        ([(b"x_forwarded_proto", b"https")], False),
    ],
)
def test_https_is_what_the_outermost_proxy_saw(said: Said, https: bool) -> None:
    assert came_by_https(said) is https


@pytest.mark.parametrize("here", [False, True])
def test_where_nobody_says_how_the_browser_came_our_own_connection_tells(here: bool) -> None:
    assert came_by_https([(b"x-forwarded-for", b"1.2.3.4")], here=here) is here
    assert came_by_https([(b"x-forwarded-proto", b"http")], here=here) is False
    assert came_by_https([(b"x-forwarded-proto", b"https")], here=here) is True
