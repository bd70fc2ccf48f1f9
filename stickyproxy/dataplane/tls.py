"""TLS on one connection: stands between a socket's transport and the protocol that would stand there without it.

Laws: who stands on it sees an ordinary transport, with half-close and backpressure; OpenSSL never touches a socket, it
turns bytes into bytes (`ssl.MemoryBIO`); the two buffers of that are shared by all connections of an event loop, which
is right because they are empty again before anything else is called; all that has come is decrypted at once and
delivered in one piece, so that nothing waits here for a paused reader.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Any, cast

RECORD_BYTES = 16384
"""Most plaintext of one TLS record (RFC 8446 section 5.1); who reads less leaves bytes where nobody looks for them."""

RECORD_HEAD_BYTES = 5
"""Type, version and length, before a record's content."""

LARGEST_REPLY_BYTES = 1 << 18
"""Unwritten bytes at which a peer that makes the protocol itself answer (key updates) is dropped."""

HANDSHAKE_RECORD = 0x16
"""First byte of a TLS connection (RFC 8446 section 5.1); no request line begins with it."""


class TruncatedError(ConnectionError):
    """The connection has ended without the peer's close_notify, so what came may not be all (RFC 8446 section 6.1)."""


class Wire:
    """The buffers between OpenSSL and the sockets of one event loop: what came in, and what is to go out."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One connection: a protocol to the socket's transport, and a transport to the protocol above.

    `established`: the handshake is done.
    """

    __slots__ = ("_ended", "_problem", "_protocol", "_raw", "_session", "_shut", "_wire", "established")

    _protocol: Any  # asyncio.Protocol, but Protocol's callbacks may return what they like

    def __init__(self, protocol: asyncio.Protocol, wire: Wire) -> None:
        self._protocol = protocol
        self._wire = wire
        self._session: ssl.SSLObject | None = None
        self._problem: Exception | None = None
        self.established = False
        self._ended = False  # the peer sends no more
        self._shut = False  # we have said that we send no more

    # What subclasses say.

    def begin(self, data: bytes) -> bytes:
        """Make the session with the first bytes from the peer, and give those to begin with; or wait for more."""
        raise NotImplementedError

    def on_established(self) -> None:
        """Hear that the handshake is done."""
        raise NotImplementedError

    def on_raw_end(self) -> None:
        """Hear that the connection has ended without a close_notify."""
        raise NotImplementedError

    # From the socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket's transport."""
        self._raw = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Decrypt what has come and hand it on."""
        if self._ended or self._raw.is_closing():
            return
        session = self._session
        if session is None:
            data = self.begin(data)
            session = self._session
            if session is None:
                return
        incoming = self._wire.incoming
        incoming.write(data)
        established = False
        pieces = []
        try:
            if not self.established:
                session.do_handshake()
                established = self.established = True
            while incoming.pending:
                piece = session.read(RECORD_BYTES)
                if not piece:
                    self._ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._problem = error
        finally:  # whatever happened: what is left would be taken for the next connection's
            if incoming.pending:
                incoming.read()
        if self._wire.outgoing.pending:
            self._reply()
        if established:
            self.on_established()
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._problem is not None:
            self._break()
        elif self._ended:
            self._on_end()

    def _reply(self) -> None:
        """Send what the protocol itself has to say: handshake, alerts, key updates."""
        out = self._wire.outgoing.read()
        if self._shut:  # nothing may follow a close_notify
            return
        if self._raw.get_write_buffer_size() > LARGEST_REPLY_BYTES:
            self._raw.abort()
        else:
            self._raw.write(out)

    def _break(self) -> None:
        """End after an error; the alert that tells the peer is on its way if it was not stuck behind other bytes."""
        if self._raw.get_write_buffer_size() > RECORD_BYTES:
            self._raw.abort()
        else:
            self._raw.close()

    def _on_end(self) -> None:
        if not self._raw.is_closing() and not self._protocol.eof_received():
            self.close()

    def eof_received(self) -> bool:
        """Take the socket's end; what is still to be written is written."""
        if not self.established:
            return False
        if not self._ended:
            self._ended = True
            self.on_raw_end()
        return True

    def pause_writing(self) -> None:
        """Pass on that the peer takes no more for now."""
        if self.established:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the peer takes more."""
        if self.established:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go; what broke TLS tells more than how the socket ended."""
        protocol, self._session = self._protocol, None
        del self._protocol  # it holds us as its transport: without the cycle both are freed at once
        protocol.connection_lost(self._problem or exc)

    # From the protocol above.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; nothing is sent any more on a connection that is closing."""
        session = self._session
        if not data or self._shut or session is None or self._raw.is_closing():
            return
        try:
            session.write(data)
        except ssl.SSLError as error:
            self._problem = error
            self._raw.abort()
        self._raw.write(self._wire.outgoing.read())

    def write_eof(self) -> None:
        """Say that no more will be sent; reading goes on (RFC 8446 section 6.1)."""
        if not self._raw.is_closing():
            self._say_end()
            self._raw.write_eof()

    def can_write_eof(self) -> bool:
        """Say that half-close works."""
        return True

    def _say_end(self) -> None:
        session = self._session
        if self._shut or session is None or not self.established:
            return
        self._shut = True
        with suppress(ssl.SSLError):  # it also looks for the peer's own close_notify, which has not come
            session.unwrap()
        self._raw.write(self._wire.outgoing.read())

    def close(self) -> None:
        """Say the end, and close when all is written; idempotent."""
        if not self._raw.is_closing():
            self._say_end()
            self._raw.close()

    def abort(self) -> None:
        """Drop the connection at once, so that the peer can tell that not all has come; idempotent."""
        self._raw.abort()

    def is_closing(self) -> bool:
        """Say whether it is closing or closed."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """Read no more from the socket."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Say whether the socket is read."""
        return self._raw.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol stand here."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give who stands here."""
        return cast(asyncio.BaseProtocol, self._protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give what the socket's transport knows."""
        return self._raw.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Count the encrypted bytes that the kernel has not taken."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give the limits of the socket's transport."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the socket's transport."""
        self._raw.set_write_buffer_limits(high, low)
