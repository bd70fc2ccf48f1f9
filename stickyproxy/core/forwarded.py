"""Tell the backend who asked, and believe only trusted proxies about it.

What a client that is no trusted proxy says of `X-Forwarded-*`, `X-Real-IP` and `Forwarded` is dropped; a trusted
proxy's word is kept and our own view of it appended to `X-Forwarded-For`.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from stickyproxy.core.values import Network


class TrustedProxies:
    """Answers whether an address may speak for others; an empty list of networks trusts nobody."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: object) -> bool:
        """Say whether an address (text or bytes) lies in a trusted network; what is no address is not trusted."""
        text = address.decode("latin-1") if isinstance(address, bytes) else str(address)
        try:
            parsed: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)


def plain_address(host: str) -> bytes:
    """Give a socket's address as it belongs into a header: no zone, IPv4 where it is mapped into IPv6."""
    address = host.partition("%")[0]
    return (address[7:] if address.startswith("::ffff:") and "." in address else address).encode()


def forwarded_lines(peer: bytes, host: bytes, *, https: bool) -> bytes:
    """Build the header lines for a request whose sender says nothing that we believe; each stands behind a CRLF."""
    return b"\r\nX-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b" % (
        peer, peer, b"https" if https else b"http", host,
    )  # fmt: skip


def relayed_lines(
    said: Sequence[tuple[bytes, bytes]], peer: bytes, host: bytes, trusted: TrustedProxies, *, https: bool
) -> bytes:
    """Build the header lines for a request that a trusted proxy relays.

    said: what it sent (names in lower case). `X-Forwarded-For` grows by the proxy's own address; `X-Real-IP`, where it
    is absent, is the last address of that chain that is no trusted proxy; everything else is kept as it came.
    """
    lines: list[bytes] = []
    present = set()
    for name, value in said:
        if name == b"x-forwarded-for":
            continue
        if b"_" not in name:  # X_Forwarded_For is a trick to be read as X-Forwarded-For by CGI-like servers
            present.add(name)
            lines.append(b"%b: %b" % (_canonical(name), value))
    lines.append(b"X-Forwarded-For: " + b", ".join(_chain(said, peer)))
    if b"x-real-ip" not in present:
        lines.append(b"X-Real-IP: " + client_address(said, peer, trusted))
    if b"x-forwarded-proto" not in present:
        lines.append(b"X-Forwarded-Proto: " + (b"https" if https else b"http"))
    if b"x-forwarded-host" not in present:
        lines.append(b"X-Forwarded-Host: " + host)
    return b"\r\n" + b"\r\n".join(lines)


def client_address(said: Sequence[tuple[bytes, bytes]], peer: bytes, trusted: TrustedProxies) -> bytes:
    """Give the last address of `X-Forwarded-For` and peer that is no trusted proxy; the first where all are."""
    chain = _chain(said, peer)
    return next((hop for hop in reversed(chain) if hop not in trusted), chain[0])


def came_by_https(said: Sequence[tuple[bytes, bytes]], *, here: bool = False) -> bool:
    """Say whether a trusted proxy's words mean that the browser spoke https (the first hop of X-Forwarded-Proto).

    here: whether the connection to us is https, which counts where nothing is said.
    """
    for name, value in said:
        if name == b"x-forwarded-proto":
            return value.partition(b",")[0].strip().lower() in (b"https", b"wss")
    return here


def _chain(said: Sequence[tuple[bytes, bytes]], peer: bytes) -> list[bytes]:
    hops = [hop.strip() for name, value in said if name == b"x-forwarded-for" for hop in value.split(b",")]
    return [*filter(None, hops), peer]


def _canonical(name: bytes) -> bytes:
    return b"X-Real-IP" if name == b"x-real-ip" else name.title()
