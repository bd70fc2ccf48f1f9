"""What TLS needs to be spoken, as it was read from files: certificates and keys, told to every data plane alike."""

from dataclasses import dataclass, field
from enum import StrEnum


class Handshake(StrEnum):
    """What became of a client's TLS handshake; the value is its label in `stickyproxy_tls_handshakes_total`."""

    FULL = "full"
    RESUMED = "resumed"
    """By a ticket of an earlier connection, which spares both sides most of the work."""
    FAILED = "failed"
    """Broken, refused by one of the two sides, or left by the client."""
    TIMEOUT = "timeout"
    """Given up after `--head-timeout`."""
    PLAIN = "plain"
    """Something else than TLS came."""


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM texts. Empty `certificate`: clients speak plain HTTP; `backends`: these speak TLS.

    backend_ca: certificates of authorities (or of backends) that are believed; empty: those of the system.
    """

    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    backends: bool = False
    backend_ca: bytes = b""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the texts are; empty: there is none."""

    certificate: str = ""
    key: str = ""
    backends: bool = False
    backend_ca: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """Give the files that are watched."""
        return tuple(filter(None, (self.certificate, self.key, self.backend_ca)))
