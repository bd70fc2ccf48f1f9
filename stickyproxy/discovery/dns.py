"""Backends by `--dns HOST:PORT`: every A and AAAA record of a name, asked again and again.

Laws: a failing resolver keeps the last answer; an empty answer is a failure, since a Service that scales to nothing and
a resolver that has lost its mind look the same, and dialling a dead address costs less than forgetting a living one.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Thread

from stickyproxy.core.backends import Backend
from stickyproxy.core.events import Happening, Kind
from stickyproxy.core.status import DiscoveryStatus
from stickyproxy.core.values import Address
from stickyproxy.discovery import Apply, Saw

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host name (the port is for the resolver's hints only); raises OSError."""


async def resolve(host: str, port: int) -> list[str]:
    """Resolve by the system's resolver, IPv4 and IPv6.

    In a daemon thread of its own: the loop's `getaddrinfo` cannot be given up, and a process whose resolver hangs would
    not end before that does (5 s for each server, attempt and search domain).
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def answered(addresses: list[str], error: Exception | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(error)

    def look_up() -> None:
        addresses: list[str] = []
        problem: Exception | None = None
        try:
            addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            problem = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(answered, addresses, problem)

    Thread(target=look_up, name="stickyproxy-dns", daemon=True).start()
    return await answer


class DnsDiscovery:
    """Resolves a name every `interval_s` seconds and applies what has changed.

    hint: what to look at where the name has never had an address.
    clock: gives seconds; the running loop's unless given.
    """

    def __init__(
        self,
        name: Address,
        interval_s: float,
        apply: Apply,
        resolve: Resolve = resolve,
        *,
        hint: str = "",
        saw: Saw | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._name = name
        self._interval_s = interval_s
        self._apply = apply
        self._resolve = resolve
        self._hint = hint
        self._saw = saw
        self._told = ""  # the problem of the last event
        self._wake = asyncio.Event()
        self._last: frozenset[str] = frozenset()
        self._problem = "not resolved yet"
        self._time = clock or asyncio.get_running_loop().time
        self._confirmed = self._time()  # or when it began
        self._errors = 0
        self._log = logging.getLogger("stickyproxy.discovery")

    @property
    def status(self) -> DiscoveryStatus:
        """Say what is being resolved and what the last failure was."""
        hint = f"; {self._hint}" if self._hint and self._problem and not self._last else ""
        return DiscoveryStatus(
            f"DNS {self._name}", self._problem + hint, "unresolved" if self._problem else "",
            synced=bool(self._last), age_s=self._time() - self._confirmed, errors=self._errors,
        )  # fmt: skip

    def refresh(self) -> None:
        """Resolve now instead of at the interval's end."""
        self._wake.set()

    async def run(self) -> None:
        """Resolve until cancelled."""
        while True:
            self._wake.clear()
            await self.resolve_once()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                continue  # the interval is over: what we wait for

    async def resolve_once(self) -> None:
        """Resolve and apply; a failure is kept for `status` and logged when it begins."""
        name = self._name
        try:
            addresses = frozenset(await self._resolve(name.host, name.port))
            problem = "" if addresses else "the name has no address"
        except OSError as error:
            addresses, problem = frozenset(), str(error.strerror or error)
        except UnicodeError as error:  # what the resolver makes of a name that cannot be one
            addresses, problem = frozenset(), str(error)
        if problem:
            self._errors += 1
            if problem != self._problem or not self._last:
                kept = (
                    f"keeping the last {len(self._last)} addresses" if self._last else "no backends until it resolves"
                )
                self._log.warning("cannot resolve %s: %s; %s", name.host, problem, kept)
                self._tell(problem, f"cannot resolve {name.host}: {problem}; {kept}")
            self._problem = problem
            return
        if self._problem and self._last:
            self._log.info("%s resolves again", name.host)
        self._tell("", f"{name.host} resolves again")
        self._problem = ""
        self._confirmed = self._time()
        if addresses != self._last:
            self._last = addresses
            self._log.info("%s has %d addresses: %s", name.host, len(addresses), ", ".join(sorted(addresses)))
            self._apply([Backend.at(Address(host, name.port)) for host in sorted(addresses)])

    def _tell(self, problem: str, text: str) -> None:
        """Tell what is new: the log says a failure again and again until the name has resolved once."""
        if self._saw is not None and problem != self._told:
            self._saw([Happening(Kind.DISCOVERY, cause="unresolved" if problem else "healthy", detail=text)])
        self._told = problem
