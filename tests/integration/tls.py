"""Certificates made on the spot, and a client that speaks TLS by hand, so that a test says which bytes go when."""

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stickyproxy.core.tls import TlsMaterial

from .harness import Peer, soon

T = TypeVar("T")

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Pair:
    """A certificate (with its chain) and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, stem: str = "tls") -> tuple[Path, Path]:
        """Write both files as a mounted Secret has them."""
        certificate, key = folder / f"{stem}.crt", folder / f"{stem}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key

    def server(self, folder: Path, *, most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Give a context for a backend."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.write(folder, "backend"))
        if most is not None:
            context.maximum_version = most
        return context


class Authority:
    """A certificate authority that issues what is asked."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._build(self._name, self._key.public_key(), ca=True)
        self.pem = self._certificate.public_bytes(PEM)

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *names: x509.GeneralName, ca: bool = False,
        days: float = 1.0,
    ) -> x509.Certificate:  # fmt: skip
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )  # fmt: skip
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, *names: str, days: float = 1.0, password: bytes = b"") -> Pair:
        """Issue a certificate for names and addresses; negative `days`: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._build(subject, key.public_key(), *map(_general_name, names), days=days)
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return Pair(
            certificate.public_bytes(PEM),
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption),
        )

    def material(self, *names: str) -> TlsMaterial:
        """Give what a proxy serves with."""
        pair = self.issue(*(names or ("127.0.0.1",)))
        return TlsMaterial(pair.certificate, pair.key)

    def client(self, **more: ssl.TLSVersion) -> ssl.SSLContext:
        """Give a context for clients that believe this authority; `more`: attributes of it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.pem.decode())
        for name, value in more.items():
            setattr(context, name, value)
        return context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class HandTls:
    """TLS over a raw peer, as client; nothing is sent or read but what is asked."""

    def __init__(
        self, peer: Peer, context: ssl.SSLContext, name: str = "127.0.0.1", session: ssl.SSLSession | None = None
    ) -> None:
        self.peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._received = bytearray()

    def flush(self) -> None:
        """Send what TLS has to say."""
        if self._outgoing.pending:
            self.peer.send(self._outgoing.read())

    async def _do(self, act: Callable[[], T]) -> T:
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                self.flush()
                data = await soon(self.peer.reader.read(1 << 16))
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                self.flush()
                return result

    async def shake(self) -> "HandTls":
        """Do the handshake."""
        await self._do(self.session.do_handshake)
        return self

    def hello(self) -> bytes:
        """Give the first message of the handshake without sending it."""
        with suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        """Encrypt without sending."""
        self.session.write(data)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self.peer.send(self.seal(data))

    def say_end(self) -> None:
        """Send a close_notify; the socket stays open."""
        with suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        self.flush()

    async def read(self) -> bytes:
        """Give what comes next; empty at a close_notify, ssl.SSLEOFError at an end without one."""
        try:
            return await self._do(lambda: self.session.read(1 << 16))
        except ssl.SSLZeroReturnError:
            return b""

    async def until(self, mark: bytes) -> bytes:
        """Read up to a mark."""
        looked_at = 0
        while (at := self._received.find(mark, looked_at)) < 0:
            looked_at = max(0, len(self._received) - len(mark) + 1)
            piece = await self.read()
            assert piece, f"ended before {mark!r}: {bytes(self._received[-1000:])!r}"
            self._received += piece
        found = bytes(self._received[: at + len(mark)])
        del self._received[: at + len(mark)]
        return found

    async def rest(self) -> bytes:
        """Read to the close_notify."""
        parts = [bytes(self._received)]
        while piece := await self.read():
            parts.append(piece)
        return b"".join(parts)
