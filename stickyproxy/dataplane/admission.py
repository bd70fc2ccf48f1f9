"""Lets clients in while there are places for them, and makes places where there are none.

Laws: at a limit accepting pauses, and goes on by the event that ends the reason: a place that becomes free; idle
connections are closed first, those that have been idle for longest before the others; while somebody waits outside,
every answer is its connection's last.
"""

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from stickyproxy.core.forwarded import plain_address
from stickyproxy.core.limits import Limit
from stickyproxy.core.places import Places, descriptors_for
from stickyproxy.core.proxy_protocol import HeaderProblem, Source
from stickyproxy.dataplane.acceptor import Acceptor
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.preface import Preface
from stickyproxy.dataplane.secure_downstream import ServerTls

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy

CLOSED_AT_ONCE = 16
"""Idle connections that are closed when a place is needed: one each time would cost a pause for each new client."""

SAID_AGAIN_S = 60.0
"""Seconds between two lines of the log about the same limit."""


class Admission:
    """The acceptors of one data plane, and the places of its clients."""

    def __init__(self, proxy: "Proxy", places: Places) -> None:
        self._proxy = proxy
        self._loop = proxy.loop
        self.places = places
        self.acceptors: list[Acceptor] = []
        self.crowded = False  # somebody waits outside, and no idle connection could be closed
        self._paused = False
        self.prefaces: set[Preface] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._idle: list[tuple[float, Downstream]] = []  # by deadline, the longest idle last
        self._seen: list[tuple[float, Downstream]] = []  # the same, while the sweep is looking
        self._said: dict[str, float] = {}
        wanted = proxy.settings.limits.connections
        if wanted > places.most:
            proxy.log.warning(
                "--max-connections: expected a limit of open files of at least %d for %d connections, found one that "
                "allows %d; raise it (ulimit -n)", descriptors_for(wanted), wanted, places.most,
            )  # fmt: skip

    def listen(self, listener: socket.socket) -> Acceptor:
        """Accept on one more bound socket."""
        acceptor = Acceptor(listener, self)
        self.acceptors.append(acceptor)
        acceptor.start()
        if self._paused:
            acceptor.pause()
        return acceptor

    def stop(self, acceptor: Acceptor | None = None) -> None:
        """Accept on a socket no more, or on none at all; idempotent."""
        for one in [acceptor] if acceptor is not None else self.acceptors:
            one.close()
        self.acceptors = [one for one in self.acceptors if not one.closed]

    async def close(self) -> None:
        """Accept nobody any more; wait until nobody is on the way in, which takes a turn of the event loop or two.

        They are not cancelled: uvloop would forget to tell a protocol of its end that has just been told of its
        beginning.
        """
        self.stop()
        for preface in list(self.prefaces):
            preface.close()
            self.prefaces.discard(preface)
            self._proxy.leave_place(None)
        await asyncio.gather(*self._arriving, return_exceptions=True)

    # What the acceptors ask and tell.

    def room(self) -> int:
        """Give the number of free places; where there is none, pause and see who can be closed."""
        free = self.places.free
        if not free:
            self._shut(Limit.CONNECTIONS, "--max-connections: all %d places are taken", self.places.most)
        return free

    def enter(self, connection: socket.socket, address: Any) -> None:
        """Take in an accepted connection, or close it where its client has enough of them."""
        self.places.take()
        self._proxy.someone_enters()
        peer = plain_address(address[0])
        if not self._proxy.settings.proxy_protocol:
            self._admit(connection, peer)
        elif peer not in self._proxy.trusted:
            connection.close()
            self._refuse_header(HeaderProblem.UNTRUSTED, peer, "expected it from a --trusted-proxy only")
        else:
            preface = Preface(connection, peer, self._proxy.time() + self._proxy.times.head_s, self)
            self.prefaces.add(preface)
            preface.start()

    # The header of the PROXY protocol.

    def preface_read(self, preface: Preface, source: Source) -> None:
        """Let in a connection whose header has said whose it is."""
        self.prefaces.discard(preface)
        self._admit(preface.connection, source.address or preface.peer)

    def hasten(self, deadline: float) -> None:
        """Wait no longer for headers that have not come: the proxy is about to end."""
        for preface in self.prefaces:
            preface.deadline = min(preface.deadline, deadline)

    def preface_failed(self, preface: Preface, reason: HeaderProblem, problem: str) -> None:
        """Hear that a connection whose header could not be had has been closed."""
        self.prefaces.discard(preface)
        self._refuse_header(reason, preface.peer, problem)

    def _refuse_header(self, reason: HeaderProblem, peer: bytes, problem: str) -> None:
        self._proxy.counters.refused_headers[reason] += 1
        self._say(
            f"header {reason}",
            "--accept-proxy-protocol: connection of %s closed (%s): %s",
            peer.decode(),
            reason,
            problem,
        )
        self._proxy.leave_place(None)

    def _say(self, about: str, message: str, *arguments: object) -> None:
        """Warn of something that may happen again and again, now and then."""
        now = self._proxy.time()
        if now >= self._said.get(about, 0.0):
            self._said[about] = now + SAID_AGAIN_S
            self._proxy.log.warning(message, *arguments)

    # Those who come in.

    def _admit(self, connection: socket.socket, client: bytes) -> None:
        """Begin to serve a connection that has a place, now that it is known who is there."""
        place = client if self.places.per_client and client not in self._proxy.trusted else None
        if not self.places.name(place):
            self._proxy.counters.limits[Limit.CLIENT_CONNECTIONS] += 1
            connection.close()
            self._proxy.leave_place(None)
            return
        downstream = self._proxy.make_downstream(client, place)
        task = self._loop.create_task(self._serve(connection, downstream))
        self._arriving.add(task)
        task.add_done_callback(partial(self._arrived, connection, downstream))

    async def _serve(self, connection: socket.socket, downstream: Downstream) -> None:
        """Give a connection to its protocol, which leaves the place when the connection ends."""
        protocol: asyncio.Protocol = downstream
        if self._proxy.client_tls is not None:
            protocol = ServerTls(downstream, self._proxy.wire, self._proxy.client_tls)
        await self._loop.connect_accepted_socket(lambda: protocol, connection)

    def _arrived(self, connection: socket.socket, downstream: Downstream, task: "asyncio.Task[None]") -> None:
        """Leave the place of a connection that ended on its way in."""
        self._arriving.discard(task)
        error = task.exception()
        if error is None:
            return
        if not isinstance(error, OSError):
            self._proxy.log.error("a connection could not be served", exc_info=error)
        if not downstream.made:
            connection.close()
            self._proxy.leave_place(downstream.place)

    def nobody_waits(self) -> None:
        """Let connections be kept alive again: all who waited outside are in."""
        if self.crowded:
            self.crowded = False
            self._proxy.set_parting()

    def exhausted(self, error: OSError) -> None:
        """Pause: no file can be opened. Idle connections to backends are given up too."""
        for pool in self._proxy.pools.values():
            pool.close_idle(float("inf"))
        self._shut(Limit.DESCRIPTORS, "cannot accept: %s; raise the limit of open files", error.strerror)

    # Places.

    def left(self, place: bytes | None) -> None:
        """Free a place, for whoever waits outside."""
        self.places.leave(place)
        if self._paused:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        for acceptor in self.acceptors:
            acceptor.resume()

    def _shut(self, limit: Limit, message: str, *arguments: object) -> None:
        """Pause accepting; close idle connections, or wait until others end and let them end sooner."""
        self._paused = True
        for acceptor in self.acceptors:
            acceptor.pause()
        if self._close_idle() or self.crowded:
            return
        self.crowded = True
        self._proxy.counters.limits[limit] += 1
        self._proxy.set_parting()
        self._proxy.sweep.hurry()
        self._say(limit, message + "; who comes waits until one is free", *arguments)

    def _close_idle(self) -> int:
        """Close some of the connections that have been idle for longest; give their number."""
        closed = 0
        while self._idle and closed < CLOSED_AT_ONCE:
            deadline, downstream = self._idle.pop()
            if downstream.idle and downstream.deadline == deadline and not downstream.transport.is_closing():
                downstream.close_if_idle()
                closed += 1
        self._proxy.counters.limits[Limit.IDLE_CLOSED] += closed
        return closed

    # What the sweep finds.

    @property
    def scarce(self) -> bool:
        """Say whether it is worth knowing who is idle: places are nearly used up."""
        return self._paused or self.places.free < self.places.most >> 3

    def found_idle(self, downstream: Downstream) -> None:
        """Hear of an idle connection."""
        self._seen.append((downstream.deadline, downstream))

    def all_seen(self) -> None:
        """Hear that the sweep has looked at every connection, or at none; close idle ones if somebody waits."""
        seen, self._seen = self._seen, []
        seen.sort(key=lambda idle: -idle[0])
        self._idle = seen
        if self._paused:
            self._close_idle()
            if self.places.free:  # paused for want of descriptors, which may have come back by themselves
                self._resume()
        else:  # for a while by now, and nobody has come who found no place
            self.nobody_waits()
