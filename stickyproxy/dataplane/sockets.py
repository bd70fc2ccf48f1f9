"""What the data plane asks of the kernel about a connection beside reading and writing (Linux: tcp(7), socket(7))."""

import asyncio
import fcntl
import socket
import struct
import termios


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
