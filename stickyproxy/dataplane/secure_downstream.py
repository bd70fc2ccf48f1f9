"""TLS with clients.

Laws: a client's connection is one from its first moment, so that places, deadlines and the end hold for it in the
handshake too; OpenSSL gets to see a client when that has said hello in full; a client that ends without a close_notify
has ended all the same.
"""

import asyncio
import ssl

from stickyproxy.core.tls import Handshake
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.tls import HANDSHAKE_RECORD, RECORD_BYTES, RECORD_HEAD_BYTES, TlsTransport, Wire


class ServerTls(TlsTransport):
    """TLS with a client."""

    __slots__ = ("_context", "_downstream", "_hello")

    def __init__(self, downstream: Downstream, wire: Wire, context: ssl.SSLContext) -> None:
        super().__init__(downstream, wire)
        downstream.https = True
        self._downstream: Downstream | None = downstream  # until the handshake is done
        self._hello = b""  # as much of the first record as has come
        self._context: ssl.SSLContext | None = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection be known before it says anything."""
        super().connection_made(transport)
        self._protocol.connection_made(self)

    def begin(self, data: bytes) -> bytes:
        """Begin where the first byte is one of TLS, and its record is there in full; from the first on time is short.

        OpenSSL would take 50 KiB for a handshake as soon as it sees its first byte, and keep them until the last.
        """
        downstream, context = self._downstream, self._context
        assert downstream is not None
        assert context is not None
        data = self._hello + data
        if data[0] != HANDSHAKE_RECORD:
            self._downstream = None
            downstream.proxy.counters.handshakes[Handshake.PLAIN] += 1
            downstream.speak_plain(self._raw, data)
            return b""
        proxy = downstream.proxy
        if not downstream.shaking:
            downstream.shaking = True
            downstream.deadline = proxy.time() + proxy.times.head_s
        record_bytes = RECORD_HEAD_BYTES + int.from_bytes(data[3:RECORD_HEAD_BYTES], "big")
        whole = len(data) >= record_bytes or record_bytes > RECORD_HEAD_BYTES + RECORD_BYTES  # which is none of TLS
        if len(data) < RECORD_HEAD_BYTES or not whole:
            self._hello = data
            proxy.buffered.hold(downstream, len(data))
            return b""
        if self._hello:
            self._hello = b""
            proxy.buffered.hold(downstream, 0)
        self._session = context.wrap_bio(self._wire.incoming, self._wire.outgoing, server_side=True)
        return data

    def on_established(self) -> None:
        """Await the first request; not for long, where this proxy is about to end."""
        downstream, self._downstream, self._context = self._downstream, None, None
        assert downstream is not None
        assert self._session is not None
        proxy = downstream.proxy
        downstream.shaking = False
        downstream.deadline = proxy.time() + (proxy.times.linger_s if proxy.draining else proxy.times.idle_s)
        proxy.counters.handshakes[Handshake.RESUMED if self._session.session_reused else Handshake.FULL] += 1

    def on_raw_end(self) -> None:
        """Take the end for one: browsers and load balancers often leave out the close_notify."""
        self._on_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of a handshake that has failed, if it had not been given up."""
        downstream, self._downstream = self._downstream, None
        if downstream is not None and downstream.shaking:
            downstream.shaking = False
            downstream.proxy.counters.handshakes[Handshake.FAILED] += 1
            problem = self._problem or exc or "the client has gone"
            downstream.proxy.log.debug("TLS handshake with %s failed: %s", downstream.peer.decode("latin-1"), problem)
        super().connection_lost(exc)
