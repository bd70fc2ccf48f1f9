"""What the data plane asks of the kernel about a connection beside reading and writing (Linux: tcp(7), socket(7))."""

import asyncio
import fcntl
import resource
import socket
import struct
import termios
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from stickyproxy.core.listeners import LONGEST_MARK, listens

PROC_NET = Path("/proc/net")

_FIRST_PIECE_BYTES, _LARGEST_PIECE_BYTES = 256, 1 << 16
_TCP_INFO_BYTES = 136
_LAST_DATA_RECV, _BYTES_RECEIVED = 52, 128  # tcpi_last_data_recv, tcpi_bytes_received: offsets in linux/tcp.h


def raise_descriptor_limit() -> None:
    """Let this process, and those it starts, open as many files as it may without asking anybody.

    The soft limit is often 1024 only for the sake of programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # the system has an upper bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """Give how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def tune_socket(connection: socket.socket, keepalive_s: float) -> None:
    """Set TCP_NODELAY, and TCP keep-alive that gives a dead peer up after three unanswered probes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not keepalive_s:
        return
    seconds = max(1, round(keepalive_s))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def reset_connection(transport: asyncio.Transport) -> None:
    """Drop a connection so that its peer sees a reset, not an end (SO_LINGER of 0 s, socket(7))."""
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Count the bytes that the peer has not taken: in our buffer, and in the kernel's until they are acknowledged.

    The kernel may hold some megabytes, at which a slow reader is busy for minutes; only both together tell slow from
    gone (SIOCOUTQ, tcp(7)).
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return 0
    queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(transport.get_write_buffer_size() + struct.unpack("i", queued)[0])


def is_own_host(host: str) -> bool:
    """Say whether a host is this machine: an address of it, or (without asking a resolver) its name.

    Nothing is sent: a UDP socket that is connected to one of our own addresses gets that very address as its source.
    Binding would tell too, but binds anything where net.ipv4.ip_nonlocal_bind is set. A name is ours if it is
    `localhost` or the host name, with or without a domain.
    """
    try:
        address = ip_address(host)
    except ValueError:
        name = socket.gethostname()
        return host == "localhost" or host == name or host.startswith(f"{name}.")
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:  # no route, or no such family: not ours in either case
        return False


def find_listener(marks: tuple[bytes, ...], folder: Path = PROC_NET) -> bool | None:
    """Look for a listening socket by its marks (core/listeners.py); None where the kernel does not show its sockets.

    The kernel lists what listens first, and walks its whole table of connections to fill a large piece: so the first
    pieces are small, and finding a listener costs little however many connections there are. Finding none takes
    milliseconds.
    """
    shown = False
    for name in ("tcp", "tcp6"):
        try:
            with open(folder / name, "rb", buffering=0) as file:
                text, size = b"", _FIRST_PIECE_BYTES
                while piece := file.read(size):
                    size = min(2 * size, _LARGEST_PIECE_BYTES)
                    text = text[-LONGEST_MARK:] + piece
                    if listens(text, marks):
                        return True
                shown = True
        except OSError:  # the kernel has no IPv6, or is none that has /proc
            continue
    return False if shown else None


def silence_s(transport: asyncio.BaseTransport) -> float:
    """Give the seconds since data came on a connection, by the kernel's own notes (TCP_INFO, tcp(7)).

    Infinite where nothing has ever come or the connection has ended; 0 where the system does not tell, since silence
    is what somebody is blamed for.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or transport.is_closing():
        return float("inf")
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (milliseconds,) = struct.unpack_from("=I", info, _LAST_DATA_RECV)
        (received,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED)
    except (OSError, AttributeError, struct.error):
        return 0.0
    return float(milliseconds) / 1000 if received else float("inf")
