"""Read certificates and keys, and make of them what OpenSSL works with; what cannot be used is said in one line.

Laws: nothing is asked of a terminal (an encrypted key is refused); what was read is what is used, so that files which
change meanwhile cannot mix: the texts go to OpenSSL by an anonymous file in memory, since it reads a key from files
only, and a container's disk may be read-only.
"""

import hashlib
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stickyproxy.core.tls import TlsFiles, TlsMaterial

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2); TLS 1.3 has no others."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class CertificateError(Exception):
    """Something that cannot be used; its text names the option, what was expected and what was found."""


def read_material(files: TlsFiles) -> TlsMaterial:
    """Read and try all files; CertificateError where one cannot be used."""
    material = TlsMaterial(
        _read("--tls-cert", files.certificate),
        _read("--tls-key", files.key),
        files.backends,
        _read("--backend-ca", files.backend_ca),
    )
    server_context(material)
    backend_context(material)
    return material


def fingerprint(material: TlsMaterial) -> str:
    """Give what tells the server's certificate from others: the beginning of its SHA-256."""
    found = _CERTIFICATE.search(material.certificate)
    der = ssl.PEM_cert_to_DER_cert(found[0].decode("ascii")) if found else b""
    return f"sha256:{hashlib.sha256(der).hexdigest()[:16]}"


def server_context(material: TlsMaterial) -> ssl.SSLContext | None:
    """Make the context for clients; None where they speak plain HTTP."""
    if not material.certificate:
        return None
    if b"ENCRYPTED" in material.key:
        raise CertificateError(
            "--tls-key: expected a key without a passphrase, found an encrypted one; decrypt it first: "
            "openssl pkey -in KEY -out PLAIN"
        )
    if b"PRIVATE KEY-----" not in material.key:
        raise CertificateError("--tls-key: expected a private key in PEM, found a file that holds none")
    _certificates("--tls-cert", material.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    try:
        with _file_of(material.certificate) as certificate, _file_of(material.key) as key:
            context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                "--tls-key: expected the key of the first certificate in --tls-cert, found another; a chain begins "
                "with the server's own certificate"
            ) from None
        raise CertificateError(
            f"--tls-cert, --tls-key: expected a certificate and a key that OpenSSL takes, found {_reason(error)}"
        ) from None
    return context


def backend_context(material: TlsMaterial) -> ssl.SSLContext | None:
    """Make the context for backends; None where they speak plain HTTP."""
    if not material.backends:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # whatever is given is believed, not roots only
    if material.backend_ca:
        context.load_verify_locations(cadata=_certificates("--backend-ca", material.backend_ca))
        return context
    paths = ssl.get_default_verify_paths()
    if not any((paths.cafile, paths.capath)):
        raise CertificateError(
            "--backend-ca: expected a file with the authority of the backends' certificates, found none, and this "
            "system has no authorities of its own (package ca-certificates)"
        )
    context.load_default_certs()
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _read(option: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(f"{option}: expected a readable file, found {path!r}: {error.strerror}") from None
    if not text.strip():  # which must not pass for a text that nobody asked for
        raise CertificateError(f"{option}: expected a file in PEM, found {path!r}, which is empty")
    return text


def _certificates(option: str, text: bytes) -> str:
    """Give the certificates of a text that may hold other things too."""
    found = _CERTIFICATE.findall(text)
    if not found:
        raise CertificateError(f"{option}: expected certificates in PEM, found a file that holds none")
    try:
        certificates = b"\n".join(found).decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        reason = _reason(error) if isinstance(error, ssl.SSLError) else "bytes that are no PEM"
        raise CertificateError(f"{option}: expected certificates in PEM, found {reason}") from None
    return certificates


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _no_password() -> str:
    raise CertificateError("--tls-key: expected a key without a passphrase, found an encrypted one")


@contextmanager
def _file_of(text: bytes) -> Iterator[str]:
    """Give a path at which OpenSSL reads a text; nobody else can, and it is gone afterwards."""
    number = os.memfd_create("stickyproxy")
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
