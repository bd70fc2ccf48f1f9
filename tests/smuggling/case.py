"""What one case of the corpus is: bytes, what they try, where that is written down, and what must become of them."""

from dataclasses import dataclass, field
from typing import Literal

Then = Literal["close", "keep", "reset"]


@dataclass(frozen=True)
class Passed:
    """The message is passed on as exactly one, so normalised.

    target, body: of the request as the backend must read it; of a response `target` is empty and the body is what the
    client must read. lines: header lines that must be there, absent: names of fields that must not.
    """

    target: str = ""
    body: bytes = b""
    lines: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    status: int = 200


@dataclass(frozen=True)
class Refused:
    """The proxy answers by itself with `status` and closes; what it answers, none of it reached the backend whole.

    after: requests before it on the connection that are passed on. cut: the head was good and had been passed on when
    the body went wrong, so the backend has seen the beginning of one request, and the end of its connection.
    """

    status: int
    reason: str = ""
    after: tuple[Passed, ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Unanswered:
    """The bytes are no whole request; nothing is passed on and the end is just an end."""

    cut: bool = False


@dataclass(frozen=True)
class Broken:
    """A response whose head had been passed on ends visibly broken: the client cannot take it for whole."""

    status: int = 200


@dataclass(frozen=True)
class Switched:
    """A tunnel: the client gets the 101, then these bytes as they are, and no more answers."""

    behind: bytes = b""


Expected = tuple[Passed, ...] | Refused | Unanswered


@dataclass(frozen=True)
class RequestCase:
    """Bytes of a client. tries: the attack in words; source: where it is described;"""

    id: str
    category: str
    tries: str
    source: str
    raw: bytes
    expected: Expected


@dataclass(frozen=True)
class ResponseCase:
    """Bytes of a backend that answers `asks`, and what it does then."""

    id: str
    category: str
    tries: str
    source: str
    raw: bytes
    expected: Passed | Refused | Broken | Switched
    then: Then = "close"
    asks: str = "GET"
    upgrade: str = ""
    interim: tuple[int, ...] = field(default=())
    """Statuses of the interim responses that must come before."""


def one(target: str, body: bytes = b"", *lines: str, absent: tuple[str, ...] = ()) -> tuple[Passed, ...]:
    """Expect exactly one request."""
    return (Passed(target, body, lines, absent),)


def bad(status: int = 400, reason: str = "", *after: Passed) -> Refused:
    """Expect a refusal of which nothing reaches the backend."""
    return Refused(status, reason, after)


CUT = Refused(400, "bad-chunk", cut=True)
"""Expect that a bad body ends its request half way."""

RFC9110 = "RFC 9110"
RFC9112 = "RFC 9112"
LINHART = "Linhart, Klein, Heled, Orrin: HTTP Request Smuggling (Watchfire, 2005)"
KETTLE_2019 = "Kettle: HTTP Desync Attacks (Black Hat USA 2019)"
KETTLE_2022 = "Kettle: Browser-Powered Desync Attacks (Black Hat USA 2022)"
KETTLE_2025 = "Kettle: HTTP/1.1 Must Die (Black Hat USA 2025)"
KLEIN_2020 = "Klein: HTTP Request Smuggling in 2020 (Black Hat USA 2020)"
JABIYEV = "Jabiyev, Sprecher, Onarlioglu, Kirda: T-Reqs (CCS 2021)"
CHUNK_EXT = "Weikop: Funky chunks (2025)"
BISHOP = "Bishop Fox: h2c Smuggling (2020)"
UPGRADE = "WebSocket smuggling by an Upgrade that fails (0ang3el, 2019)"
HOST = "Kettle: Practical HTTP Host Header Attacks (2013); Chen and others: Host of Troubles (CCS 2016)"
HOP = "Davison: Abusing HTTP Hop-by-hop Request Headers (2019)"
CWE113 = "CWE-113 (response splitting)"
QUEUE = "Kettle: response queue poisoning (2021)"
