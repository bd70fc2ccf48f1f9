"""Reads the header of the PROXY protocol off a fresh connection, before there is any other protocol on it.

Laws: not a byte behind the header is taken from the socket, so that whatever follows finds its beginning; a header
that is not there in time, or is none, closes the connection without a word.
"""

import asyncio
import socket
from typing import Protocol

from stickyproxy.core.proxy_protocol import MOST_V2_BYTES, BadHeaderError, HeaderProblem, Source, parse_header


class Reader(Protocol):
    """Who hears of the header."""

    def preface_read(self, preface: "Preface", source: Source) -> None:
        """Take the connection, whose next byte is the first behind the header."""

    def preface_failed(self, preface: "Preface", reason: HeaderProblem, problem: str) -> None:
        """Hear that the connection has been closed."""


class Preface:
    """The beginning of one connection; `peer` is who has opened it, `deadline` in loop time."""

    __slots__ = ("_loop", "_read", "_reader", "_reading", "connection", "deadline", "peer")

    def __init__(self, connection: socket.socket, peer: bytes, deadline: float, reader: Reader) -> None:
        self._loop = asyncio.get_running_loop()
        self.connection = connection
        self.peer = peer
        self.deadline = deadline
        self._reader = reader
        self._reading = False
        self._read = b""

    def start(self) -> None:
        """Read what is there already, and wait for the rest."""
        self._on_readable()

    def _on_readable(self) -> None:
        try:
            coming = self.connection.recv(MOST_V2_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait()
            return
        except OSError as error:
            self._fail(HeaderProblem.CLOSED, str(error))
            return
        if not coming:
            self._fail(HeaderProblem.CLOSED, "it ended before a header was there")
            return
        try:
            source, length = parse_header(self._read + coming)
        except BadHeaderError as error:
            self._fail(HeaderProblem.MALFORMED, str(error))
            return
        taken = self.connection.recv(length - len(self._read))
        if source is None:
            self._read += taken
            self._wait()
            return
        self._stop()
        self._reader.preface_read(self, source)

    def _wait(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self.connection, self._on_readable)

    def _stop(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self.connection)

    def timed_out(self) -> None:
        """Close the connection: its header has not come."""
        self._fail(HeaderProblem.TIMEOUT, "expected a whole header within --head-timeout")

    def _fail(self, reason: HeaderProblem, problem: str) -> None:
        self.close()
        self._reader.preface_failed(self, reason, problem)

    def close(self) -> None:
        """Close the connection without telling anybody; idempotent."""
        self._stop()
        self.connection.close()
