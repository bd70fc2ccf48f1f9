"""Send every case through the proxy over real sockets, and judge what the backend and the client really received.

A case is *safe* when all of this holds; everything else is unsafe:

- All readers of `readers.py`, the strict one, h11, llhttp with every leniency and three careless ones, read the same
  requests in the bytes of each backend connection: as many, with the same methods, targets and bodies. So no byte of a
  body can be a request for any of them, and there is one framing at most.
- Only the last request of a connection may be unfinished; then the proxy has closed that connection.
- No request carries a hop-by-hop field (but the Upgrade that we wrote), a cookie of ours, or a client's word about who
  it is: `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP` are there once and say what the proxy saw.
- The client's stream is read by the letter too: interim answers, then for each request the backend's answer to just
  that request, in order, or at the end one answer of the proxy's own; no hop-by-hop field but `Connection: close`.
- Somebody else who asks next, over the connections that the case has left in the pool, gets the answer to what they
  asked, and the backend has seen just that.

A case is *as expected* when besides it came out as its table says. The proxy trusts nobody here (`trusted=()`).
"""

import asyncio
import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from stickyproxy.core.backends import Backend
from stickyproxy.core.settings import Settings, TimeSettings
from stickyproxy.core.values import Address
from stickyproxy.dataplane.proxy import Proxy

from .case import Broken, Expected, Passed, Refused, RequestCase, ResponseCase, Switched, Unanswered
from .readers import REQUEST_READERS, Read, UnreadableError, strict
from .recorder import SCRIPTED, TURN_S, VICTIM, Line, Recorder, thirds

BOUND_S = 10.0
"""Most seconds for one connection of a case: all of them should end by themselves, at once."""

HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"))

SAID = {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "x-forwarded-proto": "http"}


class UnsafeError(Exception):
    """What makes a case unsafe."""


class UnexpectedError(Exception):
    """What makes a safe case another one than its table says."""


@dataclass(frozen=True)
class Verdict:
    """How a case came out; `problem` is empty where it is as expected."""

    case: RequestCase | ResponseCase
    safe: bool
    problem: str = ""


@dataclass(frozen=True)
class Heard:
    """What a client received, and how it ended."""

    data: bytes
    clean: bool


class Judge:
    """One proxy before one recording backend, for as many cases as wanted.

    cut: requests and responses come in three pieces. What is refused may then be refused for what stands in the first
    of them, by another status, so only safety is judged.
    """

    def __init__(self, *, cut: bool = False) -> None:
        self.recorder = Recorder(cut=cut)
        self._cut = cut
        self._port = 0
        self._proxy: Proxy | None = None

    async def start(self) -> None:
        """Start the backend and the proxy before it."""
        backend = await self.recorder.start()
        times = TimeSettings(sweep_s=0.05)
        self._proxy = Proxy(Settings(times=times, trusted=()), Random(1))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self._proxy.listen(listener)
        self._proxy.apply([Backend.at(Address("127.0.0.1", backend))])

    async def close(self) -> None:
        """End everything."""
        if self._proxy is not None:
            await self._proxy.close()
        self.recorder.close()
        await asyncio.sleep(0)

    async def judge(self, cases: Iterable[RequestCase | ResponseCase]) -> list[Verdict]:
        """Judge cases one after another, since what one leaves behind is part of what is judged."""
        verdicts = []
        for case in cases:
            try:
                await (self._request(case) if isinstance(case, RequestCase) else self._response(case))
            except UnsafeError as error:
                verdicts.append(Verdict(case, safe=False, problem=str(error)))
            except UnexpectedError as error:
                verdicts.append(Verdict(case, safe=True, problem=str(error)))
            except TimeoutError:
                verdicts.append(Verdict(case, safe=False, problem=f"hangs for {BOUND_S:g} s"))
            else:
                verdicts.append(Verdict(case, safe=True))
        return verdicts

    async def _send(self, data: bytes) -> Heard:
        """Send bytes and an end; give what comes until the other side ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        heard = b""
        try:
            async with asyncio.timeout(BOUND_S):
                try:
                    for piece in thirds(data) if self._cut else [data]:
                        writer.write(piece)
                        if self._cut:
                            await asyncio.sleep(TURN_S)
                    if not writer.is_closing():  # or the proxy has heard enough
                        writer.write_eof()
                    while piece := await reader.read(1 << 16):
                        heard += piece
                except OSError as error:
                    # ENOTCONN: ours was to be the second end, and the other side's reset came before it.
                    if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                        raise
                    return Heard(heard, clean=False)
            return Heard(heard, clean=True)
        finally:
            writer.transport.abort()

    async def _request(self, case: RequestCase) -> None:
        self.recorder.begin()
        heard = await self._send(case.raw)
        await self._victim()
        # The unfinished and the last connection end when the proxy lets go of them.
        lines = self.recorder.lines
        requests = [request for line in lines for request in await self._read(line)]
        received = [r for r in requests if r.start[-1] != VICTIM]
        answers = _answers(heard, [r.start[0] for r in received if r.whole])
        whole = [r for r in received if r.whole]
        own = _own_answer(answers)
        finals = [a for a in answers if int(a.start[0]) >= 200 and a is not own]
        for answer, request in zip(finals, whole, strict=False):
            if answer.all("x-echo") != [request.start[1][:64]]:
                raise UnsafeError(f"{request.start[1]} was answered by {answer.all('x-echo')}")
        if len(finals) > len(whole):
            raise UnsafeError(f"{len(finals)} answers to {len(whole)} requests")
        if len(received) - len(whole) > 1:
            raise UnsafeError(f"{len(received) - len(whole)} requests were cut")
        _compare_requests(case.expected, received, finals, own, heard)

    async def _victim(self) -> None:
        """Ask as somebody else; only the answer to that very question will do."""
        ask = f"GET {VICTIM} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n".encode()
        heard = await self._send(ask)
        (answer, *more) = _answers(heard, ["GET"]) or [None]
        if answer is None or more or answer.all("x-echo") != [VICTIM] or answer.body != VICTIM.encode():
            raise UnsafeError(f"somebody else got {heard.data[:200]!r}")

    async def _read(self, line: Line) -> list[Read]:
        """Read what a backend connection received with all readers; they must agree."""
        if line.switched:
            return strict(line.received[: line.received.find(b"\r\n\r\n") + 4])
        if line.unreadable:
            raise UnsafeError(f"the backend received what it cannot read: {line.unreadable}")
        readings = {}
        for name, read in REQUEST_READERS.items():
            try:
                readings[name] = read(line.received)
            except UnreadableError as error:
                raise UnsafeError(f"{name} cannot read what the backend received: {error}") from None
        requests = readings["strict"]
        for name, others in readings.items():
            keys = [r.key for r in others if r.whole]
            if keys != [r.key for r in requests if r.whole] or len(others) != len(requests):
                raise UnsafeError(f"{name} reads {[r.key for r in others]}, strict {[r.key for r in requests]}")
        for request in requests[:-1]:
            if not request.whole:
                raise UnsafeError("an unfinished request has one behind it")
        for request in requests:
            if request.whole:
                _look_at_request(request)
        if requests and not requests[-1].whole:
            async with asyncio.timeout(BOUND_S):
                await line.lost.wait()
        return requests

    async def _response(self, case: ResponseCase) -> None:
        self.recorder.begin(case)
        upgrade = f"Connection: Upgrade\r\nUpgrade: {case.upgrade}\r\n" if case.upgrade else ""
        ask = f"{case.asks} {SCRIPTED} HTTP/1.1\r\nHost: app.test\r\n{upgrade}\r\n"
        switched = isinstance(case.expected, Switched)
        after = "" if switched else "GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n"
        heard = await self._send((ask + after).encode())
        await self._victim()
        for line in self.recorder.lines:
            await self._read(line)
        answers = _answers(heard, [case.asks, "GET"], tunnel=switched)
        interim = tuple(int(a.start[0]) for a in answers if int(a.start[0]) < 200 and a.start[0] != "101")
        if switched:
            _compare_tunnel(case, answers, heard)
            return
        finals = [a for a in answers if int(a.start[0]) >= 200 or a.start[0] == "101"]
        if any(a.start[0] == "101" for a in finals):
            raise UnsafeError("a tunnel that was not to be")
        if len(finals) > 2:
            raise UnsafeError(f"{len(finals)} answers to 2 requests")
        if any(a.all("x-evil") for a in finals):
            raise UnsafeError("an answer that nobody asked for reached the client")
        if len(finals) == 2 and finals[1].whole and finals[1].all("x-echo") != ["/next"]:
            raise UnsafeError(f"the next request was answered by {finals[1].start} {finals[1].fields}")
        _compare_response(case.expected, finals, heard)
        if interim != case.interim:
            raise UnexpectedError(f"expected the interim answers {case.interim}, found {interim}")


def _answers(heard: Heard, methods: list[str], *, tunnel: bool = False) -> list[Read]:
    """Read what a client received by the letter."""
    data = heard.data
    if tunnel:
        data = data[: data.rfind(b"\r\n\r\n") + 4]
    try:
        answers = strict(data, methods, ended=heard.clean)
    except UnreadableError as error:
        raise UnsafeError(f"the client received what cannot be read: {error}") from None
    for answer in answers:
        for name, value in answer.fields:
            ours = (name, value) == ("connection", "close") or (tunnel and name in ("connection", "upgrade"))
            if name in HOP_BY_HOP and not ours:
                raise UnsafeError(f"the client received {name}: {value}")
            if "_" in name and name.replace("_", "-") in ("content-length", "transfer-encoding"):
                raise UnsafeError(f"the client received {name}: {value}")
    return answers


def _own_answer(answers: list[Read]) -> Read | None:
    """Give the proxy's own answer, which is the last."""
    own = [a for a in answers if a.all("x-stickyproxy-reason")]
    if own and (len(own) > 1 or answers[-1] is not own[0]):
        raise UnsafeError("something behind a refusal was answered")
    return own[0] if own else None


def _look_at_request(request: Read) -> None:
    """Look for what must not reach a backend."""
    for name, value in request.fields:
        plain = name.replace("_", "-")
        upgraded = (name, value) == ("connection", "Upgrade") or name == "upgrade"
        if name in HOP_BY_HOP and not (upgraded and request.all("upgrade") and request.all("connection")):
            raise UnsafeError(f"the backend received {name}: {value}")
        if name == "upgrade" and "h2" in value.lower():
            raise UnsafeError(f"the backend received {name}: {value}")
        if plain != name and plain in (*SAID, "x-forwarded-host", "content-length", "transfer-encoding", "forwarded"):
            raise UnsafeError(f"the backend received {name}: {value}")
        if name == "cookie" and "stickyproxy=" in value:
            raise UnsafeError("the backend received our cookie")
    for name, value in SAID.items():
        if request.all(name) != [value]:
            raise UnsafeError(f"the backend received {name}: {request.all(name)}")
    if len(request.all("x-forwarded-host")) != 1:
        raise UnsafeError(f"the backend received X-Forwarded-Host: {request.all('x-forwarded-host')}")


def _compare_requests(
    expected: Expected, received: list[Read], finals: list[Read], own: Read | None, heard: Heard
) -> None:
    """Compare with the table."""
    passes = expected if isinstance(expected, tuple) else expected.after if isinstance(expected, Refused) else ()
    whole = [r for r in received if r.whole]
    targets = [r.start[1] for r in whole]
    if targets != [p.target for p in passes]:
        raise UnexpectedError(f"expected {[p.target for p in passes]} at the backend, found {targets}")
    for passed, request in zip(passes, whole, strict=True):
        _compare_message(passed, request)
    cut = not isinstance(expected, tuple) and expected.cut
    if len(received) > len(whole) and not cut:
        raise UnexpectedError("a request was cut")
    if isinstance(expected, Refused):
        if own is None or int(own.start[0]) != expected.status:
            raise UnexpectedError(f"expected a refusal with {expected.status}, found {heard.data[:200]!r}")
        if expected.reason and own.all("x-stickyproxy-reason") != [expected.reason]:
            raise UnexpectedError(f"expected the reason {expected.reason}, found {own.fields}")
        if own.all("connection") != ["close"]:
            raise UnsafeError("a refusal that leaves the connection open")
    elif own is not None:
        raise UnexpectedError(f"refused with {own.start} {own.all('x-stickyproxy-reason')}")
    if len(finals) != len(passes):
        raise UnexpectedError(f"expected {len(passes)} answers, found {len(finals)}")
    if isinstance(expected, Unanswered) and heard.data:
        raise UnexpectedError(f"expected no answer, found {heard.data[:200]!r}")


def _compare_message(passed: Passed, message: Read) -> None:
    if message.body != passed.body:
        raise UnexpectedError(f"expected the body {passed.body[:80]!r}, found {message.body[:80]!r}")
    lines = [f"{name}: {value}" for name, value in message.fields]
    for line in passed.lines:
        if line not in lines:
            raise UnexpectedError(f"expected {line!r} among {lines}")
    for name in passed.absent:
        if message.all(name):
            raise UnexpectedError(f"expected no {name} among {lines}")


def _compare_response(expected: Passed | Refused | Broken | Switched, finals: list[Read], heard: Heard) -> None:
    if not finals:
        raise UnexpectedError(f"no answer, the end was {'clean' if heard.clean else 'a reset'}")
    first = finals[0]
    reason = first.all("x-stickyproxy-reason")
    if isinstance(expected, Refused):
        if int(first.start[0]) != expected.status or reason != [expected.reason]:
            raise UnexpectedError(f"expected {expected.status} {expected.reason}, found {first.start} {first.fields}")
    elif isinstance(expected, Broken):
        if first.whole and heard.clean:
            raise UnsafeError(f"a broken answer passes for whole: {heard.data[:200]!r}")
        if len(finals) > 1:
            raise UnsafeError("something behind a broken answer was answered")
    elif isinstance(expected, Passed):
        if not first.whole or int(first.start[0]) != expected.status:
            raise UnexpectedError(f"expected {expected.status}, found {first.start} {reason} {heard.data[:120]!r}")
        _compare_message(expected, first)


def _compare_tunnel(case: ResponseCase, answers: list[Read], heard: Heard) -> None:
    assert isinstance(case.expected, Switched)
    last = answers[-1] if answers else None
    if last is None or last.start[0] != "101":
        raise UnexpectedError(f"expected a tunnel, found {heard.data[:200]!r}")
    if [n for n, _ in last.fields if n in ("content-length", "transfer-encoding")]:
        raise UnsafeError("a 101 with a length")
    behind = heard.data[heard.data.rfind(b"\r\n\r\n") + 4 :]
    if behind != case.expected.behind:
        raise UnexpectedError(f"expected {case.expected.behind!r} behind the 101, found {behind!r}")
