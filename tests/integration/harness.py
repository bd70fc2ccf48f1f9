"""A stage for the data plane: raw clients, one proxy in this process, and raw backends that do as they are told.

Laws: nothing waits for time to pass, only for bytes, ends and states, each with a bound; every socket, task and
connection that a test leaves behind is found by `Stage.judge`; ports are the kernel's choice.
"""

import asyncio
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.settings import Settings, TimeSettings
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.core.values import Address
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.proxy import Proxy

T = TypeVar("T")

BOUND_S = 10.0
"""Most seconds anything here may take that should happen at once: this machine may be busy, a hang must still end."""

HOST = "app.test"


async def soon(awaitable: Awaitable[T], *, bound_s: float = BOUND_S) -> T:
    """Await something that should happen at once; TimeoutError where it does not."""
    async with asyncio.timeout(bound_s):
        return await awaitable


async def eventually(condition: Callable[[], object], what: str, *, bound_s: float = BOUND_S) -> None:
    """Turn the event loop until a state is reached; for states that have no event of their own."""
    loop = asyncio.get_running_loop()
    end = loop.time() + bound_s
    while not condition():
        assert loop.time() < end, f"did not happen within {bound_s:g} s: {what}"
        await asyncio.sleep(0)


async def turns(count: int = 100) -> None:
    """Turn the event loop, so that whatever can happen by itself has happened: for what must *not* happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settles(count: Callable[[], int]) -> int:
    """Turn the event loop until a growing number stands still for long; give the number."""
    last, still = count(), 0
    for _ in range(2_000_000):
        await asyncio.sleep(0)
        now = count()
        still = still + 1 if now == last else 0
        last = now
        if still == 1000:
            return now
    raise AssertionError("never settled")


# Messages.


@dataclass(frozen=True)
class Message:
    """A request or a response as it was read: `start` is its first line, names of `fields` are in lower case."""

    raw: bytes
    start: str
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""
    trailers: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """Give a response's status code."""
        return int(self.start.split(" ")[1])

    @property
    def method(self) -> str:
        """Give a request's method."""
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """Give a request's target."""
        return self.start.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Give all values of a field."""
        return [value for key, value in self.fields if key == name]

    def get(self, name: str) -> str | None:
        """Give the value of a field that must not be there twice."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} is there {len(found)} times: {found}"
        return found[0] if found else None

    @property
    def reason(self) -> str | None:
        """Give the token by which the proxy says why it answered itself."""
        return self.get("x-stickyproxy-reason")

    @property
    def token(self) -> str | None:
        """Give the token of the pin that this response sets."""
        cookies = [c for c in self.all("set-cookie") if c.startswith("stickyproxy=")]
        assert len(cookies) <= 1
        return cookies[0].partition(";")[0].partition("=")[2] if cookies else None


def request(line: str = "GET / HTTP/1.1", *fields: str, body: bytes = b"") -> bytes:
    """Build a request; Host and Content-Length are added where they are needed and not given."""
    names = {f.partition(":")[0].lower() for f in fields}
    lines = [line, *fields]
    if "host" not in names and line.endswith("/1.1"):
        lines.insert(1, f"Host: {HOST}")
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def response(status: str = "200 OK", *fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """Build a response; Content-Length is added where no framing is given."""
    names = {f.partition(":")[0].lower() for f in fields}
    lines = [f"HTTP/{version} {status}", *fields]
    if not names & {"content-length", "transfer-encoding"} and "close" not in names:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, trailers: Iterable[str] = ()) -> bytes:
    """Build a chunked body."""
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join(parts) + b"0\r\n" + b"".join(t.encode() + b"\r\n" for t in trailers) + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked"


class Peer:
    """One end of a connection that does only what a test says: a client's, or a backend's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def flush(self) -> None:
        """Wait until the kernel has nearly all that was sent."""
        await soon(self.writer.drain())

    async def exactly(self, count: int) -> bytes:
        """Read so many bytes."""
        return await soon(self.reader.readexactly(count))

    async def head(self) -> Message:
        """Read one head, of a request or of a response."""
        raw = await soon(self.reader.readuntil(b"\r\n\r\n"))
        start, *lines = raw[:-4].decode("latin-1").split("\r\n")
        fields = tuple((n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines))
        return Message(raw, start, fields)

    async def message(self, *, method: str = "GET") -> Message:
        """Read a whole message; `method` is the one a response answers. The end of a broken one raises."""
        head = await self.head()
        is_response = head.start.startswith("HTTP/")
        trailers: tuple[str, ...] = ()
        if is_response and (method == "HEAD" or head.status < 200 or head.status in (204, 304)):
            body = b""
        elif head.get("transfer-encoding") == "chunked":
            body, trailers = await self.chunks()
        elif (length := head.get("content-length")) is not None:
            body = await self.exactly(int(length))
        else:
            body = await self.rest() if is_response else b""
        return Message(head.raw, head.start, head.fields, body, trailers)

    async def final(self, *, method: str = "GET") -> Message:
        """Read a whole response, passing over interim ones."""
        while True:
            message = await self.message(method=method)
            if message.status >= 200:
                return message

    async def chunks(self) -> tuple[bytes, tuple[str, ...]]:
        """Read a chunked body and its trailers."""
        parts: list[bytes] = []
        while size := int(await soon(self.reader.readuntil(b"\r\n")), 16):
            parts.append(await self.exactly(size))
            assert await self.exactly(2) == b"\r\n"
        trailers: list[str] = []
        while line := (await soon(self.reader.readuntil(b"\r\n")))[:-2]:
            trailers.append(line.decode())
        return b"".join(parts), tuple(trailers)

    async def rest(self) -> bytes:
        """Read to the clean end of the stream; a reset raises ConnectionResetError."""
        parts = []
        while piece := await soon(self.reader.read(1 << 18)):
            parts.append(piece)
        return b"".join(parts)

    async def gone(self) -> bool:
        """Wait for the other side's end, whatever still comes; say whether it was a clean one."""
        try:
            await self.rest()
        except ConnectionError:
            return False
        return True

    def half_close(self) -> None:
        """Send an end, and stay able to read."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close after what was sent."""
        self.writer.close()

    def reset(self) -> None:
        """Close by a reset."""
        connection = self.writer.get_extra_info("socket")
        if not self.writer.transport.is_closing():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()

    def drop(self) -> None:
        """Close at once, whatever state it is in."""
        with suppress(AttributeError):  # asyncio's transport has lost its loop when it closed by flushing
            self.writer.transport.abort()


Answer = Callable[[Message], bytes]


class RawBackend:
    """A backend: answers by a function, or leaves its connections to the test (`accepted`)."""

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer
        self._queue: asyncio.Queue[Peer] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers: list[Peer] = []
        self.requests: list[Message] = []
        """What `answer` was asked, in order."""
        self.address = Address("127.0.0.1", 0)

    @property
    def connections(self) -> int:
        """Count the connections ever accepted."""
        return len(self.peers)

    def at(self, phase: Phase = Phase.READY) -> Backend:
        """Give what the proxy knows of this backend."""
        return Backend.at(self.address, phase)

    async def start(self, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen, on the port it had if it listened before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(self.address)
        self._server = await asyncio.start_server(self._on_connection, sock=listener, limit=1 << 17, ssl=tls)
        self.address = Address(*listener.getsockname()[:2])

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if self._answer is None:
            self._queue.put_nowait(peer)
        else:
            task = asyncio.ensure_future(self._serve(peer, self._answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: Peer, answer: Answer) -> None:
        try:
            while True:
                head = await peer.reader.readuntil(b"\r\n\r\n")
                start, *lines = head[:-4].decode("latin-1").split("\r\n")
                fields = tuple((n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines))
                asked = Message(head, start, fields)
                body = b""
                if asked.get("transfer-encoding"):
                    body, _ = await peer.chunks()
                elif length := asked.get("content-length"):
                    body = await peer.exactly(int(length))
                asked = Message(head, start, fields, body)
                self.requests.append(asked)
                answered = answer(asked)
                peer.send(answered)
                if b"\r\nConnection: close\r\n" in answered:
                    peer.close()
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            peer.close()

    async def accepted(self) -> Peer:
        """Give the next connection that the proxy opened."""
        return await soon(self._queue.get())

    async def stop_listening(self) -> None:
        """Refuse connections from now on; the open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End everything."""
        await self.stop_listening()
        for peer in self.peers:
            peer.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def hello(_: Message) -> bytes:
    """Answer in the smallest way."""
    return response(body=b"hello")


def named(name: str) -> Answer:
    """Answer with a name, to tell backends apart."""
    return lambda _: response(body=name.encode())


class Running:
    """A proxy that listens."""

    def __init__(self, proxy: Proxy, address: Address, stage: "Stage") -> None:
        self.proxy = proxy
        self.address = address
        self._stage = stage

    @property
    def counters(self) -> dict[str, int]:
        """Give the pins' counters."""
        counters = self.proxy.counters
        return {"new": counters.new, "kept": counters.kept, **+counters.moved}

    @property
    def idle(self) -> int:
        """Count the pooled connections."""
        return sum(pool.idle for pool in self.proxy.pools.values())

    def cookie(self, backend: RawBackend) -> str:
        """Give the header line that pins a client to a backend."""
        return f"Cookie: stickyproxy={self.proxy.snapshot.token_of(backend.at()).decode()}"

    def apply(self, *backends: Backend) -> None:
        """Put another snapshot in force."""
        self.proxy.apply(backends)

    async def client(self, *, receive_buffer: int = 0, limit: int = 1 << 17) -> Peer:
        """Connect a client."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        try:
            await soon(asyncio.get_running_loop().sock_connect(connection, self.address))
        except BaseException:
            connection.close()
            raise
        peer = Peer(*await asyncio.open_connection(sock=connection, limit=limit))
        self._stage.clients.append(peer)
        return peer

    async def ask(self, data: bytes) -> Message:
        """Send one request on a connection of its own and give the final answer."""
        client = await self.client()
        client.send(data)
        message = await client.final(method=data.partition(b" ")[0].decode())
        client.close()
        return message

    # What tests see of the inside stands here, so that a change there is a change in one place.

    @property
    def downstreams(self) -> list[Downstream]:
        """Give the client connections that are no tunnels."""
        return list(self.proxy.downstreams)

    async def downstream(self) -> Downstream:
        """Give the only client connection, once it is there."""
        await eventually(lambda: self.downstreams, "a client is connected")
        (downstream,) = self.downstreams
        return downstream

    @property
    def half_heads(self) -> int:
        """Count the clients of which a head has come in part."""
        return sum(1 for downstream in self.downstreams if downstream._held)

    @property
    def waiting(self) -> int:
        """Count the exchanges that wait for another's fetch."""
        return sum(map(len, self.proxy.assets._waiting.values())) if self.proxy.assets is not None else 0

    async def stalls(self) -> Downstream:
        """Wait until the only client connection takes no more; give it."""
        downstream = await self.downstream()
        transport = downstream.transport
        high = transport.get_write_buffer_limits()[1]
        await eventually(lambda: transport.get_write_buffer_size() > high, "the client is slow")
        return downstream

    async def quiet(self) -> None:
        """Wait until no client is connected and no upstream connection is in use."""
        proxy = self.proxy
        await eventually(lambda: not self.downstreams and not proxy.tunnels, "all client connections end")
        await eventually(lambda: not any(pool.load.tunnels for pool in proxy.pools.values()), "no tunnel is counted")


QUICK = TimeSettings(sweep_s=0.05)


class Clock:
    """The time of a running proxy, which stands still until a test lets it pass; to be set before anybody connects.

    So that who is in time by a little is so on a machine that stands still for a while, too.
    """

    def __init__(self, running: Running) -> None:
        self._proxy = running.proxy
        self._now = running.proxy.time()
        self._proxy.time = lambda: self._now
        self._rounds = self._proxy.lags = deque()

    def moves(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    async def passes(self, seconds: float) -> None:
        """Let time pass, and the proxy look at all deadlines."""
        self.moves(seconds)
        begun = len(self._rounds)  # the round that runs now may have looked at some of them before
        await eventually(lambda: len(self._rounds) >= begun + 2, "all deadlines were looked at")


@dataclass
class Stage:
    """Everything one test puts up; `close` takes it down, `judge` tells what was left."""

    clients: list[Peer] = field(default_factory=list)
    backends: list[RawBackend] = field(default_factory=list)
    proxies: list[Running] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    plain: list[socket.socket] = field(default_factory=list)
    """Sockets of clients that do nothing."""

    def __post_init__(self) -> None:
        """Look at what is there before, and listen for what the loop has to say."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(f"the event loop says: {context}"))
        self._tasks_before = asyncio.all_tasks()
        self._sockets_before = open_sockets()

    async def backend(
        self, answer: Answer | None = None, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None
    ) -> RawBackend:
        """Start a backend."""
        backend = RawBackend(answer)
        self.backends.append(backend)
        await backend.start(receive_buffer=receive_buffer, tls=tls)
        return backend

    async def proxy(
        self, *backends: RawBackend | Backend, settings: Settings | None = None, material: TlsMaterial | None = None
    ) -> Running:
        """Start a proxy in front of backends; with none it knows an empty list."""
        proxy = Proxy(settings or Settings(times=QUICK), Random(1))
        if material is not None:
            proxy.secure(material)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        address = Address(*listener.getsockname()[:2])
        proxy.listen(listener)
        proxy.apply([b.at() if isinstance(b, RawBackend) else b for b in backends])
        running = Running(proxy, address, self)
        self.proxies.append(running)
        return running

    async def close(self) -> None:
        """Take everything down and look whether it went."""
        try:
            for running in self.proxies:
                await self._close_proxy(running)
        finally:  # whatever happened: uvloop cannot close while transports are open
            for client in self.clients:
                client.drop()
            for plain in self.plain:
                plain.close()
            for backend in self.backends:
                await backend.close()
        me = asyncio.current_task()
        left_over: dict[str, Callable[[], object]] = {
            "tasks": lambda: asyncio.all_tasks() - self._tasks_before - {me},
            "sockets": lambda: open_sockets() - self._sockets_before,
        }
        for what, left in left_over.items():
            try:
                await eventually(lambda left=left: not left(), what)  # type: ignore[misc]
            except AssertionError:
                self.problems.append(f"left {what}: {left()}")

    async def _close_proxy(self, running: Running) -> None:
        proxy = running.proxy
        try:
            await soon(proxy.close())
        except TimeoutError:
            self.problems.append("the proxy's close() did not end")

        def dialling() -> list[str]:
            return [str(pool.backend) for pool in proxy.pools.values() if pool.dialling]

        with suppress(AssertionError):  # who is told to give up a dial does so a turn or two later
            await eventually(lambda: not dialling(), "all attempts to connect are given up")
        things: dict[str, object] = {
            "downstreams": running.downstreams,
            "tunnels": proxy.tunnels,
            "open connections": proxy.counters.open_connections,
            "bytes that wait": proxy.buffered.total or len(proxy.buffered),
            "tunnels to look at": proxy.tunnel_idle_checks,
            "attempts to connect": dialling(),
            "places": proxy.admission.places.taken,
            "places by client": list(proxy.admission.places.clients()),
            "idle upstreams": running.idle,
            "loads": [load for load in proxy.balancer.loads.values() if load.tunnels],
            "waiting exchanges": running.waiting,
            "watched tunnels": proxy.watched_tunnels,
        }
        self.problems += [f"left {name}: {thing}" for name, thing in things.items() if thing]

    def judge(self) -> None:
        """Fail on everything that was left."""
        assert not self.problems


def open_sockets() -> set[str]:
    """Name every open TCP socket of this process; an event loop's own pair of sockets is none."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(number))) as copy:
                    if copy.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(target)
        except OSError:  # the descriptor of the listing itself
            continue
    return found
