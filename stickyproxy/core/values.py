"""Parse what a person writes in a setting: addresses, durations, sizes, networks.

Every function raises ValueError with a sentence that says what was expected and what was found; the caller adds the
name of the setting.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

PRIVATE_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # shared address space, RFC 6598: pod networks of several clouds
        "169.254.0.0/16",
        "fe80::/10",
        "fc00::/7",
    )
)
"""What `--trusted-proxy private` means: addresses that cannot come from the internet by themselves."""

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h)?\Z")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,15})\s*([kKmMgG])?(?:i?[bB])?\Z")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")  # RFC 1123 section 2.1, and underscores


class Address(NamedTuple):
    """A host (name, IPv4 or IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Give HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, lowest_port: int = 1) -> Address:
    """Parse HOST:PORT, [IPv6]:PORT or :PORT (all interfaces); a port lies in lowest_port..65535."""
    expected = f"expected HOST:PORT with a port from {lowest_port} to 65535, found {text!r}"
    host, colon, port_text = text.strip().rpartition(":")
    if not colon or not re.match(r"[0-9]{1,5}\Z", port_text):
        raise ValueError(expected)
    port = int(port_text)
    if not lowest_port <= port <= 65535:
        raise ValueError(expected)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(expected)
    elif ":" in host:
        raise ValueError(f"expected an IPv6 address in brackets, as in [::1]:8080, found {text!r}")
    if not host:
        return Address("0.0.0.0", port)  # noqa: S104  what :PORT means everywhere
    if ":" in host:
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(expected) from None
    elif not _HOSTNAME.match(host):
        raise ValueError(expected)
    return Address(host, port)


def parse_duration(text: str) -> float:
    """Parse a duration such as 3, 0.5, 500ms, 10s, 2m or 1h into seconds."""
    match = _DURATION.match(text.strip())
    if not match:
        raise ValueError(f"expected a duration such as 3, 500ms, 10s or 2m, found {text!r}")
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def parse_size(text: str) -> int:
    """Parse a size such as 65536, 64k or 10M into bytes (k, M and G are powers of 1024)."""
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"expected a size such as 65536, 64k or 10M, found {text!r}")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").lower()]


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse one `--trusted-proxy` value: an address, a CIDR, `private` or `none`."""
    word = text.strip().lower()
    if word == "private":
        return PRIVATE_NETWORKS
    if word == "none":
        return ()
    try:
        return (ip_network(word, strict=False),)
    except ValueError:
        raise ValueError(
            f"expected a CIDR such as 10.0.0.0/8, an address, 'private' or 'none', found {text!r}"
        ) from None
