"""TLS with clients.

Laws: a client's connection is one from its first moment, so that places, deadlines and the end hold for it in the
handshake too; memory for TLS is taken with the first byte that is TLS; a client that ends without a close_notify has
ended all the same.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING

from stickyproxy.core.faults import PLAIN_ON_TLS
from stickyproxy.core.request import looks_like_head
from stickyproxy.core.tls import Handshake
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.tls import HANDSHAKE_RECORD, TlsTransport, Wire

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy


class SecureDownstream(Downstream):
    """A client's connection on a port that speaks TLS."""

    __slots__ = ("_shaking",)

    def __init__(self, proxy: "Proxy", peer: bytes, place: bytes | None = None) -> None:
        super().__init__(proxy, peer, place)
        self.https = True
        self._shaking = False

    @property
    def idle(self) -> bool:
        """Say whether the connection stands between two requests, or has not begun to speak."""
        return not self._shaking and super().idle

    def handshake_begun(self) -> None:
        """Hear the first byte of TLS: from now on time is short."""
        self._shaking = True
        self.deadline = self.proxy.time() + self.proxy.times.head_s

    def handshake_done(self, *, resumed: bool) -> None:
        """Await the first request; not for long, where this proxy is about to end."""
        times = self.proxy.times
        self._shaking = False
        self.proxy.counters.handshakes[Handshake.RESUMED if resumed else Handshake.FULL] += 1
        self.deadline = self.proxy.time() + (times.linger_s if self.proxy.draining else times.idle_s)

    def handshake_failed(self, problem: Exception) -> None:
        """Count and say what was wrong, if there was a handshake that had not been given up."""
        if not self._shaking:
            return
        self._shaking = False
        self.proxy.counters.handshakes[Handshake.FAILED] += 1
        self.proxy.log.debug("TLS handshake with %s failed: %s", self.peer.decode("latin-1"), problem)

    def spoke_plain(self, transport: asyncio.Transport, data: bytes) -> None:
        """Go on without TLS, to say in words that it was expected; close where even words would not be understood."""
        self.proxy.counters.handshakes[Handshake.PLAIN] += 1
        self.transport = transport
        self.https = False
        transport.set_protocol(self)
        if looks_like_head(data):
            self._refuse(PLAIN_ON_TLS)
            self._settle()
        else:
            self.last = True
            self._close()

    def close_if_idle(self) -> None:
        """Let who is in the middle of a handshake ask once; it has little time for that."""
        if not self._shaking:
            super().close_if_idle()

    def deadline_passed(self) -> None:
        """Drop a handshake that takes too long."""
        if self._shaking:
            self._shaking = False
            self.proxy.counters.handshakes[Handshake.TIMEOUT] += 1
            self.transport.abort()
        else:
            super().deadline_passed()


class ServerTls(TlsTransport):
    """TLS with a client."""

    __slots__ = ("_context", "_downstream")

    def __init__(self, downstream: SecureDownstream, wire: Wire, context: ssl.SSLContext) -> None:
        super().__init__(downstream, wire)
        self._downstream: SecureDownstream | None = downstream
        self._context: ssl.SSLContext | None = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection be known before it says anything."""
        super().connection_made(transport)
        self._protocol.connection_made(self)

    def begin(self, data: bytes) -> ssl.SSLObject | None:
        """Begin, where the first byte is one of TLS."""
        downstream, context = self._downstream, self._context
        assert downstream is not None
        assert context is not None
        if data[0] != HANDSHAKE_RECORD:
            self._downstream = None
            downstream.spoke_plain(self._raw, data)
            return None
        downstream.handshake_begun()
        return context.wrap_bio(self._wire.incoming, self._wire.outgoing, server_side=True)

    def on_established(self) -> None:
        """Forget what only the handshake needed."""
        downstream, self._downstream, self._context = self._downstream, None, None
        assert downstream is not None
        downstream.handshake_done(resumed=bool(self._session and self._session.session_reused))

    def on_raw_end(self) -> None:
        """Take the end for one: browsers and load balancers often leave out the close_notify."""
        self._on_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of a handshake that has failed."""
        downstream, self._downstream = self._downstream, None
        if downstream is not None:
            downstream.handshake_failed(self._problem or exc or ConnectionResetError("the client has gone"))
        super().connection_lost(exc)
