"""TLS with a backend: connects, does the handshake, and says how it fails.

Laws: a backend that ends without a close_notify has failed in the middle of what it said; nothing of an exchange is
sent before the backend has proved its name.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING

from stickyproxy.dataplane.tls import TlsTransport, TruncatedError, Wire
from stickyproxy.dataplane.upstream import Upstream

if TYPE_CHECKING:
    from stickyproxy.dataplane.proxy import Proxy


class HandshakeError(OSError):
    """TLS with a backend has failed; its text says how."""


class CertificateRefusedError(HandshakeError):
    """A backend's certificate is not accepted; its text says why."""


class ClientTls(TlsTransport):
    """TLS with a backend; `ready` is done when the handshake is, or fails with a HandshakeError."""

    __slots__ = ("_context", "_name", "ready")

    def __init__(self, upstream: Upstream, wire: Wire, context: ssl.SSLContext, name: str) -> None:
        super().__init__(upstream, wire)
        self._context = context
        self._name = name
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake: here we speak first."""
        super().connection_made(transport)
        self.data_received(b"")

    def begin(self, data: bytes) -> bytes:
        """Begin; the name is the one to verify, and is sent where it is no address."""
        incoming, outgoing = self._wire.incoming, self._wire.outgoing
        self._session = self._context.wrap_bio(incoming, outgoing, server_side=False, server_hostname=self._name)
        return data

    def on_established(self) -> None:
        """Give the connection to its protocol."""
        self._protocol.connection_made(self)
        if not self.ready.done():
            self.ready.set_result(None)

    def on_raw_end(self) -> None:
        """Drop the connection: what has come of an answer may not be all of it."""
        self._problem = TruncatedError("the backend has ended the connection without a close_notify")
        self._raw.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say how a handshake has failed."""
        if self.established:
            super().connection_lost(exc)
            return
        self._session = None
        if not self.ready.done():
            self.ready.set_exception(_handshake_error(self._problem, exc))


def _handshake_error(problem: Exception | None, exc: Exception | None) -> HandshakeError:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return CertificateRefusedError(problem.verify_message.rstrip("."))
    if isinstance(problem, ssl.SSLError):
        reason = (problem.reason or "unknown error").lower().replace("_", " ")
        return HandshakeError(f"the TLS handshake failed: {reason}")
    return HandshakeError(f"the connection ended in the TLS handshake{f': {exc}' if exc else ''}")


async def connect_securely(proxy: "Proxy", upstream: Upstream, context: ssl.SSLContext, name: str) -> None:
    """Connect to a backend and do the handshake; OSError where one of the two fails."""
    tls = ClientTls(upstream, proxy.wire, context, name)
    try:
        transport, _ = await proxy.loop.create_connection(lambda: tls, *upstream.pool.backend.address)
        try:
            await tls.ready
        except BaseException:
            transport.abort()
            raise
    finally:
        tls.ready.cancel()
