"""Read, strip and write the cookie that carries a pin (RFC 6265)."""

import re
from dataclasses import dataclass
from typing import Literal

SameSite = Literal["Lax", "Strict", "None"]
Secure = Literal["auto", "always", "never"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # token, RFC 9110 section 5.6.2
_ATTRIBUTE = re.compile(r"[ -:<-~]*\Z")  # no control characters and no semicolon, RFC 6265 section 4.1.1


@dataclass(frozen=True, slots=True)
class CookieSettings:
    """The attributes of the pin's cookie; a wrong combination raises ValueError with the sentence for the user."""

    name: str = "stickyproxy"
    path: str = "/"
    domain: str = ""
    """Empty: the cookie belongs to the very host that set it."""
    samesite: SameSite = "Lax"
    secure: Secure = "auto"
    """`auto`: when the request came by https, as far as a trusted proxy in front or the listener itself can tell."""
    partitioned: bool = False
    """CHIPS: a cookie jar of its own for every top-level site, for apps in iframes."""
    max_age_s: int | None = None
    """None: until the browser ends, as long as the page that needs it."""

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"cookie-name: expected letters, digits and !#$%&'*+-.^_`|~, found {self.name!r}")
        if not self.path.startswith("/") or not _ATTRIBUTE.match(self.path):
            raise ValueError(f"cookie-path: expected a path that begins with /, found {self.path!r}")
        if not re.match(r"[A-Za-z0-9.-]*\Z", self.domain):
            raise ValueError(f"cookie-domain: expected a domain name, found {self.domain!r}")
        if self.samesite == "None" and self.secure == "never":
            raise ValueError("cookie-samesite: None needs cookie-secure auto or always: browsers drop the cookie else")
        if self.partitioned and self.secure == "never":
            raise ValueError("cookie-partitioned: needs cookie-secure auto or always: browsers drop the cookie else")


class CookieWriter:
    """Writes `Set-Cookie` lines for tokens."""

    __slots__ = ("_after", "_before", "_secure")

    def __init__(self, settings: CookieSettings) -> None:
        self._before = f"\r\nSet-Cookie: {settings.name}=".encode()
        parts = [f"; Path={settings.path}", "; HttpOnly", f"; SameSite={settings.samesite}"]
        if settings.domain:
            parts.append(f"; Domain={settings.domain}")
        if settings.max_age_s is not None:
            parts.append(f"; Max-Age={settings.max_age_s}")
        if settings.partitioned:
            parts.append("; Partitioned")
        self._after = "".join(parts).encode()
        self._secure = settings.secure

    def line(self, token: bytes, *, https: bool) -> bytes:
        """Give the header line behind a CRLF; `https` says how the browser reached the outermost proxy."""
        secure = self._secure == "always" or (self._secure == "auto" and https)
        return b"%b%b%b%b" % (self._before, token, self._after, b"; Secure" if secure else b"")


def split_cookie(value: bytes, name: bytes) -> tuple[bytes, list[bytes]]:
    """Take the cookies of one name out of a Cookie header's value.

    Returns what is left (empty where nothing is) and the values taken, in order; quotes around a value are dropped.
    Names are case-sensitive (RFC 6265 section 5.4).
    """
    left: list[bytes] = []
    taken: list[bytes] = []
    for pair in value.split(b";"):
        key, _, held = pair.partition(b"=")
        if key.strip() == name:
            taken.append(held.strip().strip(b'"'))
        elif stripped := pair.strip():
            left.append(stripped)
    return b"; ".join(left), taken
