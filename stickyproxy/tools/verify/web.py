"""One visitor's way to ask: as a browser does, with cookies of its own, and each time by a fresh connection.

Laws: what the user gave (headers, cookies, a password) goes to the address's own origin and nowhere else; a failure is
an `Answer` with status 0 and a reason, never an exception. Fresh connections, since balancers that know nothing but
connections would else hide behind a browser's kept-alive ones, which live for seconds only.
"""

import asyncio
import os
import time
import zlib
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext, SSLError
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from stickyproxy import __version__

USER_AGENT: Final = f"Mozilla/5.0 (X11; Linux x86_64) stickyproxy-verify/{__version__}"

MOST_BYTES: Final = 8 << 20
"""Of an answer; the rest is not read."""

MOST_HOPS: Final = 10
"""Redirects that are followed; browsers follow 20."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    url: str
    visitors: int = 8
    idle_s: float = 10.0
    upload_bytes: int = 0
    ws_path: str = ""
    stream_path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()
    user: tuple[str, str] | None = None
    ssl: SSLContext | bool = True
    timeout_s: float = 10.0
    """For each request and each handshake."""

    @property
    def most_pages(self) -> int:
        """Give how many pages are opened at the most: all visitors five times and once more, and the probes'."""
        return 6 * self.visitors + 4


@dataclass(slots=True)
class Clock:
    """The run's clock and stop watches; all times in seconds."""

    began: float = field(default_factory=time.monotonic)
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def now(self) -> float:
        """Give the time since the run began."""
        return time.monotonic() - self.began

    def note(self, name: str, since: float) -> float:
        """Note how long a step took since a moment of `now`; give it."""
        took = self.now() - since
        self.steps[name].append(took)
        return took


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0 and a problem in words where nothing did."""

    url: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    set_cookies: tuple[str, ...] = ()
    body: bytes = b""
    problem: str = ""

    @property
    def text(self) -> str:
        """Give the body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def location(self) -> str | None:
        """Give where a redirect leads, as an absolute address; None where it is none, or leads to no address."""
        target = self.headers.get("Location")
        return absolute(self.url, target) if target and 300 <= self.status < 400 else None


def origin_of(url: str) -> str:
    """Give scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def absolute(base: str, address: str) -> str | None:
    """Give an address as it is meant on a page; None where it is none that can be asked."""
    try:
        url = urljoin(base, address)
        parts = urlsplit(url)
        return url if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:  # such as http://[/ or a port that is no number
        return None


def without_query(url: str) -> str:
    """Give an address without its query, in which secrets may stand."""
    return url.partition("?")[0].partition("#")[0]


def why(error: BaseException) -> str:
    """Say in one line what kept a request from being answered."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, SSLError):
        # Its number is OpenSSL's own, which as one of the system's would mean something else.
        cause = (error.os_error.reason or "no handshake").lower().replace("_", " ")
        return f"no TLS with {error.host}:{error.port} ({cause}); is it http:// there?"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0  # of a name that is not known it is negative, and has words of its own
        cause = os.strerror(number) if number > 0 else error.os_error.strerror or str(error.os_error)
        return f"no connection to {error.host}:{error.port}: {cause}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed instead of an answer"
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]


ASKING_ERRORS: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""What asking raises where the network or the other side fails; ValueError for what can be no address or header."""


class Web:
    """The requests of one visitor."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self._own = origin_of(options.url)
        jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        if options.cookies:
            jar.update_cookies(dict(options.cookies), URL(f"{self._own}/"))  # for all of the host's paths
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=options.ssl),
            cookie_jar=jar,
            headers={"User-Agent": USER_AGENT, "Accept-Language": "en", "Accept-Encoding": "gzip, deflate"},
            auto_decompress=False,  # which undoes one coding; see `unpacked`
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.timeout_s),
            trace_configs=[self._trace()],
        )

    def _trace(self) -> aiohttp.TraceConfig:
        trace = aiohttp.TraceConfig()

        async def begin(_: Any, context: Any, __: Any) -> None:
            context.began = self.clock.now()

        async def look_up(_: Any, context: Any, __: Any) -> None:
            context.looked_up = self.clock.now()

        async def found(_: Any, context: Any, __: Any) -> None:
            self.clock.note("name looked up", context.looked_up)

        async def connected(_: Any, context: Any, __: Any) -> None:
            self.clock.note("connection", context.began)

        trace.on_dns_resolvehost_start.append(look_up)
        trace.on_dns_resolvehost_end.append(found)
        trace.on_connection_create_start.append(begin)
        trace.on_connection_create_end.append(connected)
        return trace

    async def close(self) -> None:
        """Forget all."""
        await self.session.close()

    def headers(self, url: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Give what a request to an address carries: the user's own headers only to the origin they were given for."""
        headers = dict(more or {})
        if self._is_own(url):
            headers |= dict(self.options.headers)
            if self.options.user is not None:
                name_and_password = ":".join(self.options.user).encode()  # RFC 7617
                headers["Authorization"] = f"Basic {b64encode(name_and_password).decode()}"
        return headers

    def _is_own(self, url: str) -> bool:
        """Say whether an address is of the origin that the user named, or of the same host by https instead of http."""
        if origin_of(url) == self._own:
            return True
        named, there = urlsplit(self._own), urlsplit(url)
        return named.hostname == there.hostname and (named.scheme, there.scheme) == ("http", "https")

    @asynccontextmanager
    async def asked(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, data: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask; what fails raises one of `ASKING_ERRORS`. The time is the caller's matter."""
        request = self.session.request(
            method, URL(url, encoded=True), headers=self.headers(url, headers), data=data, allow_redirects=False
        )
        async with request as response:
            yield response

    async def ask(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, data: Any = None,
        step: str = "", timeout_s: float = 0.0,
    ) -> Answer:  # fmt: skip
        """Ask and read the whole answer; step: under which name its time is noted."""
        began = self.clock.now()
        try:
            async with (
                asyncio.timeout(timeout_s or self.options.timeout_s),
                self.asked(url, method=method, headers=headers, data=data) as response,
            ):
                if step:
                    self.clock.note(f"{step}: first byte", began)
                body = await _read(response)
                if step:
                    self.clock.note(f"{step}: whole", began)
                body = unpacked(body, response.headers.getall("Content-Encoding", ()))
                return Answer(
                    url, response.status, dict(response.headers), tuple(response.headers.getall("Set-Cookie", ())), body
                )
        except ASKING_ERRORS as error:
            return Answer(url, problem=why(error))

    async def navigate(self, url: str, *, step: str = "page") -> tuple[Answer, list[Answer]]:
        """Open an address as a browser does that a person gave it to; give the last answer and the redirects to it."""
        hops: list[Answer] = []
        headers = {
            "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
            "Upgrade-Insecure-Requests": "1",
        }
        while True:
            answer = await self.ask(url, headers=headers, step=step)
            target = answer.location
            if target is None or len(hops) >= MOST_HOPS:
                return answer, hops
            hops.append(answer)
            url = target.partition("#")[0]


def unpacked(body: bytes, lines: Iterable[str]) -> bytes:
    """Undo all codings that the lines of Content-Encoding name, the last one first (RFC 9110 section 8.4).

    There may be two: long polls of NiceGUI's are packed by Engine.IO and once more by Starlette, and browsers read
    them. At most `MOST_BYTES` are given. What is in a coding that was not asked for stays as it is, since browsers know
    more of them; ValueError where it is not what the lines say.
    """
    for coding in reversed([coding.strip().lower() for line in lines for coding in line.split(",")]):
        if body and coding in ("gzip", "x-gzip", "deflate"):
            try:
                body = zlib.decompressobj(wbits=47).decompress(body, MOST_BYTES)  # 47: whichever of the two it is
            except zlib.error as error:
                raise ValueError(f"an answer that is not {coding}, as it says: {error}") from None
        elif coding not in ("identity", ""):
            break
    return body


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer's body up to `MOST_BYTES`."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size >= MOST_BYTES:
            break
    return b"".join(pieces)
