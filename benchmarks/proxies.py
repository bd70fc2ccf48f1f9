"""Start a proxy on a core, wait until it serves, prove that it is sticky, and end it whatever happens."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import system, wire
from benchmarks.peers import PEERS, Peer, Place

_READY_S = 15.0
_RETRY_S = 0.001
_ANSWER_S = 2.0
_STARTS = 3
"""Starts tried: a free port that we hand over may be taken by somebody else before the proxy listens on it."""
_NEW_SESSIONS = 64
"""Sessions begun at most, until one was seen on each backend."""
_STICKY_REQUESTS = 20


class ProxyError(Exception):
    """A proxy did not start, or does not do what it is measured for."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A proxy that is here: its command and its version."""

    peer: Peer
    command: list[str]
    version: str


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves: where, since when (seconds from spawn), and in which session (the id of its leader)."""

    name: str
    port: int
    ready_s: float
    session: int
    backends: int
    tls: ssl.SSLContext | None = None

    def pids(self) -> list[int]:
        """List the processes that the proxy consists of now."""
        return system.session_pids(self.session)

    def sessions(self) -> list[str]:
        """Begin a session on each backend and return their sticky cookies (``name=value``), by backend.

        Proves what is measured: a new session gets a cookie, and 20 requests with it reach the same backend. Raises
        ``ProxyError`` if not.
        """
        cookies: dict[int, str] = {}
        for _ in range(_NEW_SESSIONS):
            head, backend = get(self.port, "", self.tls)
            cookies.setdefault(backend, _set_cookie(head))
            if len(cookies) == self.backends:
                break
        else:
            raise ProxyError(f"{_NEW_SESSIONS} new sessions reached only backends {sorted(cookies)}")
        for expected, cookie in cookies.items():
            reached = {get(self.port, cookie, self.tls)[1] for _ in range(_STICKY_REQUESTS)}
            if reached != {expected}:
                raise ProxyError(f"the cookie of backend {expected} led to {sorted(reached)}")
        return [cookies[backend] for backend in range(self.backends)]


def installed(name: str) -> Installed | None:
    """Find a proxy by its name in ``PEERS``; None when it is not installed."""
    peer = PEERS[name]
    command = peer.find()
    return None if command is None else Installed(peer, command, peer.version(command))


@contextlib.contextmanager
def running(proxy: Installed, backends: list[int], core: int) -> Iterator[Running]:
    """Run a proxy on ``core`` before ``backends`` (ports); raises ``ProxyError`` when it does not get ready."""
    with tempfile.TemporaryDirectory(prefix="stickyproxy-bench-") as directory:
        for attempt in range(1, _STARTS + 1):
            with _started(proxy, backends, core, Path(directory)) as (process, port, spawned):
                try:
                    ready_s = _wait_until_ready(process, port, spawned, proxy.peer.tls)
                except ProxyError as error:
                    if attempt < _STARTS and process.poll() is not None:
                        continue
                    log = (Path(directory) / "log").read_text(errors="replace")[-2000:]
                    raise ProxyError(f"{error}\n{log}".rstrip()) from error
                yield Running(proxy.peer.name, port, ready_s, process.pid, len(backends), proxy.peer.tls)
                return


@contextlib.contextmanager
def _started(
    proxy: Installed, backends: list[int], core: int, directory: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    port, admin_port = free_ports(2)
    place = Place(port, admin_port, tuple(backends), directory)
    command = [*proxy.command, *proxy.peer.arguments(place, proxy.version)]
    # Compiled bytecode is kept, as it is in an installed package; no setting comes from outside; nobody's home is
    # written to.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("STICKYPROXY_")
    }
    environment |= {name: str(directory) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    environment |= proxy.peer.environment
    with (directory / "log").open("wb") as log:
        spawned = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # one session holds the proxy and all its children
            preexec_fn=lambda: system.pin(core),
        )
    try:
        yield process, port, spawned
    finally:
        system.stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, spawned: float, tls: ssl.SSLContext | None) -> float:
    """Poll every millisecond until a request through the proxy answers 200; returns seconds since ``spawned``."""
    reason = "no attempt"
    while time.perf_counter() - spawned < _READY_S:
        if process.poll() is not None:
            raise ProxyError(f"ended with {process.returncode} before it was ready")
        try:
            get(port, "", tls)
        except (OSError, ProxyError) as error:  # not listening yet, or listening without its backends
            reason = str(error)
            time.sleep(_RETRY_S)
        else:
            return time.perf_counter() - spawned
    raise ProxyError(f"not ready after {_READY_S:.0f} s: {reason}")


def get(port: int, sticky_cookie: str, tls: ssl.SSLContext | None = None) -> tuple[bytes, int]:
    """Request ``/small`` on a connection of its own; returns the response's head and the backend that answered.

    Raises ``ProxyError`` unless it is a 200 of a backend with a Content-Length, ``OSError`` when there is no answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as plain, _spoken(plain, tls) as connection:
        connection.sendall(wire.request(wire.SMALL_PATH, port, sticky_cookie))
        received = b""
        head, found, body = received, b"", b""
        while not found or len(body) < wire.SMALL_BODY_BYTES:
            data = connection.recv(65536)
            if not data:
                raise ProxyError(f"closed after {received[:200]!r}")
            received += data
            head, found, body = received.partition(wire.HEAD_END)
            if found and not head.startswith(wire.STATUS_OK):
                raise ProxyError(f"answered {head[:80]!r}")
    if f"content-length: {wire.SMALL_BODY_BYTES}".encode() not in head.lower():
        raise ProxyError(f"changed the framing: {head!r}")
    try:
        return head, wire.backend_of(body)
    except ValueError as error:
        raise ProxyError(str(error)) from error


def _spoken(connection: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    return connection if tls is None else tls.wrap_socket(connection)


def _set_cookie(head: bytes) -> str:
    """Take what a browser would send back out of a response head: ``name=value``, several apart by semicolons."""
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    cookies = [value.partition(";")[0].strip() for header, _, value in lines if header.lower() == "set-cookie"]
    if not cookies:
        raise ProxyError(f"set no cookie for a new session: {head!r}")
    return "; ".join(cookies)


def free_ports(count: int) -> list[int]:
    """Let the kernel choose free ports; they are bound all at once, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
