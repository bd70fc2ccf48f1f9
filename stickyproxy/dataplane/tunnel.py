"""The relay after `101 Switching Protocols`: moves bytes between two transports, and nothing else.

Laws: bytes go through untouched and in order; half-close and backpressure are passed on; the loss of one leg ends the
other; the load of the backend is released exactly once; the first reason for its end stays.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Protocol

from stickyproxy.core.balance import Load
from stickyproxy.core.tunnels import Close, End, read_close
from stickyproxy.dataplane.sockets import silence_s, unsent_bytes

CLOSE_FRAME = 0x88
"""First byte of a WebSocket's Close frame; whether one follows is looked at only then."""


class Leg(asyncio.Protocol):
    """One of a tunnel's two connections; `other` is where its bytes go, `received_bytes` counts them."""

    __slots__ = ("ended", "other", "received_bytes", "transport", "tunnel")

    other: "Leg"

    def __init__(self, transport: asyncio.Transport, tunnel: "Tunnel") -> None:
        self.transport = transport
        self.tunnel = tunnel
        self.ended = False  # its sender has closed its half
        self.received_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self.received_bytes += len(data)
        self.other.transport.write(data)
        if data[0] == CLOSE_FRAME:
            self.tunnel.close_seen(self, data)

    def eof_received(self) -> bool:
        """Pass a half-close on; keep this side open for writing until the other side ends too."""
        self.ended = True
        self.tunnel.side_ended(self)
        other = self.other
        if other.ended or other.transport.is_closing():
            other.transport.close()
            return False
        other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Stop reading from the other side: this one takes no more for now."""
        self.tunnel.stalled()
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading from the other side."""
        self.tunnel.flows()
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side, after what is still to be written there."""
        self.tunnel.side_ended(self, exc)
        self.tunnel.leg_lost(self)


LINGER_S = 1.0
"""For a client to end its side of a tunnel that has ended towards it; browsers do so in the next moment."""


class _DeafLeg(Leg):
    """The backend's leg of a tunnel whose stream towards the client has ended."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Drop what nobody can be given any more."""
        self.received_bytes += len(data)

    def eof_received(self) -> bool:
        """End the tunnel: nobody takes anything any more."""
        self.ended = True
        self.tunnel.side_ended(self)
        self.other.transport.close()
        return False


class TunnelOwner(Protocol):
    """Who keeps the list of tunnels."""

    def tunnel_stalled(self, tunnel: "Tunnel") -> None:
        """Hear that one leg takes no more for now, so that the end of the other might not be noticed."""

    def tunnel_flows(self, tunnel: "Tunnel") -> None:
        """Hear that a leg takes again what comes."""

    def tunnel_side_ended(self, tunnel: "Tunnel", error: Exception | None, *, client: bool) -> None:
        """Hear which side has ended first by itself, before anything is lost; once at the most."""

    def tunnel_closing(self, tunnel: "Tunnel") -> None:
        """Hear that the first leg is lost and the second is being flushed."""

    def tunnel_ended(self, tunnel: "Tunnel") -> None:
        """Hear that both legs are lost."""


class Line(Protocol):
    """A tunnel's line in the access log, to be written at its end."""

    def ended(self, end: End, now: float, received_bytes: int, sent_bytes: int) -> None:
        """Write it; now: by the clock of the tunnel's owner."""


class Tunnel:
    """Both legs of one tunnel; `page` is the client id of the page whose open socket it is counted as, or empty.

    `identity`: of its backend. `said`: the first Close frame. `end`: why it ended or is about to, None before. `log`:
    its line in the access log, if there is to be one. Made when the two heads of the upgrade have been written; it
    takes over at once.
    """

    __slots__ = (
        "_ended_first", "_lost_bytes", "_owner", "downstream", "end", "identity", "load", "log", "page", "place",
        "said", "upstream", "websocket", "witness",
    )  # fmt: skip

    client_leg: ClassVar[type[Leg]] = Leg
    backend_leg: ClassVar[type[Leg]] = Leg

    def __init__(
        self,
        downstream: asyncio.Transport,
        upstream: asyncio.Transport,
        load: Load,
        owner: TunnelOwner,
        identity: str = "",
        *,
        websocket: bool = False,
    ) -> None:
        self.downstream: Leg | None = self.client_leg(downstream, self)
        self.upstream: Leg | None = self.backend_leg(upstream, self)
        self.downstream.other, self.upstream.other = self.upstream, self.downstream
        self.page = b""
        self.place: bytes | None = None  # of its client, which it keeps to the end (core/places.py)
        self.witness: Callable[[], None] | None = None  # makes who stands before the backend's leg step aside
        self.load = load
        self.identity = identity
        self.websocket = websocket
        self.said: Close | None = None
        self.end: End | None = None
        self.log: Line | None = None
        self._ended_first = False  # a side has ended by itself
        self._lost_bytes = (0, 0)  # received from client and backend by legs that are lost
        self._owner = owner
        load.tunnels += 1
        downstream.set_protocol(self.downstream)
        upstream.set_protocol(self.upstream)

    def replace_legs(self, replace: Callable[[Leg], Leg]) -> None:
        """Let other legs take over where both are still there; whoever calls gives legs that move all that comes."""
        if self.downstream is None or self.upstream is None:
            return
        if self.witness is not None:
            self.witness()
        downstream, upstream = replace(self.downstream), replace(self.upstream)
        downstream.other, upstream.other = upstream, downstream
        downstream.received_bytes = self.downstream.received_bytes
        upstream.received_bytes = self.upstream.received_bytes
        del self.downstream.other, self.upstream.other
        self.downstream, self.upstream = downstream, upstream
        downstream.transport.set_protocol(downstream)
        upstream.transport.set_protocol(upstream)

    def take_held(self, data: bytes) -> None:
        """Pass on what the client sent behind the request, which is counted with it."""
        if self.upstream is not None:
            self.upstream.transport.write(data)

    def side_ended(self, leg: Leg, error: Exception | None = None) -> None:
        """Pass on which side has ended by itself, unless the tunnel's end is known or begun already."""
        if self.end is None and not self._ended_first:
            self._ended_first = True
            self._owner.tunnel_side_ended(self, error, client=leg is self.downstream)

    def close_seen(self, leg: Leg, data: bytes) -> None:
        """Keep the first Close frame."""
        if self.said is None and self.websocket:
            self.said = read_close(data, by_client=leg is self.downstream)

    @property
    def moved_bytes(self) -> tuple[int, int]:
        """Count the bytes that came from the client and from the backend."""
        received, sent = self._lost_bytes
        if self.downstream is not None:
            received += self.downstream.received_bytes
        if self.upstream is not None:
            sent += self.upstream.received_bytes
        return received, sent

    def leg_lost(self, leg: Leg) -> None:
        """Release what the first lost leg frees, and all with the second."""
        received, sent = self._lost_bytes
        if leg is self.downstream:
            self._lost_bytes = received + leg.received_bytes, sent
            self.downstream = None
        else:
            self._lost_bytes = received, sent + leg.received_bytes
            self.upstream = None
        other = leg.other
        if self.downstream is None and self.upstream is None:
            del leg.other, other.other  # the legs are a cycle: without it they are freed at once
            self._owner.tunnel_ended(self)
            return
        self.load.tunnels -= 1
        if not other.transport.is_closing():
            other.transport.close()
        self._owner.tunnel_closing(self)

    def stalled(self) -> None:
        """Pass on that a leg takes no more for now."""
        self._owner.tunnel_stalled(self)

    def flows(self) -> None:
        """Pass on that a leg takes again what comes."""
        self._owner.tunnel_flows(self)

    @property
    def seated(self) -> bool:
        """Say whether its client has a place."""
        return True

    @property
    def waiting_bytes(self) -> int:
        """Count the bytes that wait here for either side."""
        return sum(leg.transport.get_write_buffer_size() for leg in (self.upstream, self.downstream) if leg is not None)

    @property
    def silence_s(self) -> float:
        """Give the seconds since a byte came from either side; 0 where the system does not tell."""
        return min(
            (silence_s(leg.transport) for leg in (self.upstream, self.downstream) if leg is not None), default=0.0
        )

    @property
    def open(self) -> bool:
        """Say whether neither leg is lost or closing."""
        legs = (self.upstream, self.downstream)
        return all(leg is not None and not leg.transport.is_closing() for leg in legs) and type(legs[0]) is not _DeafLeg

    @property
    def unwritten(self) -> int:
        """Count the bytes that the peers have not taken, on both legs."""
        return sum(unsent_bytes(leg.transport) for leg in (self.upstream, self.downstream) if leg is not None)

    @property
    def at_rest(self) -> bool:
        """Say whether both legs are open and take what comes."""
        legs = (self.upstream, self.downstream)
        return all(leg is not None and not leg.transport.get_write_buffer_size() for leg in legs)

    def part(self, end: End) -> None:
        """End the stream towards the client; what it has sent before it hears of that still goes upstream.

        The client's own end then ends the tunnel. What the backend sends from now on is dropped: it was for a socket
        that has ended. After a while the tunnel is closed all the same, as a client may not react.
        """
        upstream, downstream = self.upstream, self.downstream
        if not self.open or upstream is None or downstream is None or upstream.ended or downstream.ended:
            self.close(end)
            return
        self.end = self.end or end
        self.replace_legs(lambda leg: (_DeafLeg if leg is upstream else Leg)(leg.transport, self))
        downstream.transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self.close, end)

    def close(self, end: End) -> None:
        """Close both legs after what is still to be written; idempotent."""
        self._give_reason(end)
        for leg in (self.upstream, self.downstream):
            if leg is not None and not leg.transport.is_closing():
                leg.transport.close()

    def drop(self) -> None:
        """End at once: a peer takes nothing, or has been slow for longest where too much waits for slow ones."""
        self.abort(End.IDLE)

    def abort(self, end: End) -> None:
        """Drop both legs at once; idempotent."""
        self._give_reason(end)
        for leg in (self.upstream, self.downstream):
            if leg is not None:
                leg.transport.abort()

    def _give_reason(self, end: End) -> None:
        if not self._ended_first:
            self.end = self.end or end
