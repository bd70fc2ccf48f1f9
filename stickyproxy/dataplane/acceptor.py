"""Accepts connections on one listening socket, so many each turn of the event loop, and pauses when it is told to.

Laws: who is not accepted waits in the kernel's queue and is neither refused nor lost; a turn accepts a bounded number,
so that a flood of new connections does not stop those that are there; nothing is accepted that has no place.
"""

import asyncio
import errno
import socket
from typing import Any, Protocol

BACKLOG = 4096
"""Connections that may wait to be accepted: after a restart every browser comes at once."""

MOST_PER_TURN = 32
"""Connections accepted in one turn of the event loop, some 20 us each: others wait for a millisecond at the most."""

EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""What accept(2) says when this process, or the machine, can have no more connections for now."""


class Door(Protocol):
    """Who says how many may come in, and takes them."""

    def room(self) -> int:
        """Give how many connections may be accepted now; with 0 the acceptor is paused by whoever says so."""

    def enter(self, connection: socket.socket, address: Any) -> None:
        """Take an accepted connection, which is not blocking, and the address of its peer."""

    def nobody_waits(self) -> None:
        """Hear that all who wanted to come in are in."""

    def exhausted(self, error: OSError) -> None:
        """Hear that no connection can be accepted for now; whoever is told pauses the acceptor."""


class Acceptor:
    """Accepts on a bound socket, which it owns; must be made inside a running event loop."""

    def __init__(self, listener: socket.socket, door: Door) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._door = door
        self._reading = False
        self.closed = False

    def start(self) -> None:
        """Listen, and accept from the next turn on."""
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self.resume()

    def resume(self) -> None:
        """Go on accepting; idempotent."""
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self._listener, self._on_readable)

    def pause(self) -> None:
        """Accept nobody until `resume`; idempotent."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._listener)

    def close(self) -> None:
        """Accept nobody any more, and close the socket; idempotent. Others may go on listening on the same one."""
        if not self.closed:
            self.pause()
            self.closed = True
            self._listener.close()

    def _on_readable(self) -> None:
        for _ in range(min(MOST_PER_TURN, self._door.room())):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                self._door.nobody_waits()
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._door.exhausted(error)
                    return
                continue  # it is the new connection's trouble, which has ended before it was accepted (accept(2))
            connection.setblocking(False)
            self._door.enter(connection, address)
