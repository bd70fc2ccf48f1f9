"""Time single requests from outside, with plain blocking sockets: less overhead, and steadier, than an event loop.

All times are nanoseconds of ``time.perf_counter_ns``, from just before a request is written until its response is
complete.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import wire
from benchmarks.load import LoadError

_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What an open loop saw: the latency of every request, and how late each was sent by the generator's own fault."""

    latency_ns: list[int]
    late_ns: list[int]


def percentile(values: list[int], share: float) -> int:
    """Return the value that ``share`` (0 to 1) of ``values`` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def closed_loop(port: int, request: bytes, warm_s: float, window_s: float) -> list[int]:
    """Send one request after the other on one connection; return the latencies of the window."""
    latencies: list[int] = []
    now = time.perf_counter_ns
    with _connections(port, 1) as (connection,):
        begin = now() + int(warm_s * 1e9)
        end = begin + int(window_s * 1e9)
        sent = now()
        while sent < end:
            connection.sendall(request)
            _receive(connection)
            received = now()
            if sent >= begin:
                latencies.append(received - sent)
            sent = now()
    return latencies


def open_loop(port: int, request: bytes, connections: int, rate_per_s: int, window_s: float) -> OpenLoop:
    """Send at a fixed rate whatever the answers do; return the latencies.

    The clock of a request starts when its turn comes, also when all connections wait for answers and it has to queue
    (else a stalled proxy would be asked less, and its stall seen once: coordinated omission). When the generator
    itself wakes late, that is not the proxy's latency; it is returned beside it.
    """
    interval = 1_000_000_000 // rate_per_s
    count = int(window_s * rate_per_s)
    result = OpenLoop([], [])
    turns: deque[int] = deque()
    started: dict[socket.socket, int] = {}
    now = time.perf_counter_ns
    with _connections(port, connections) as opened:
        free = list(opened)
        first = now() + interval
        sent = 0
        give_up = first + count * interval + int(_ANSWER_S * 1e9)
        while len(result.latency_ns) < count:
            at = now()
            if at > give_up:
                raise LoadError(f"{count - len(result.latency_ns)} of {count} requests got no answer in time")
            while sent < count and first + sent * interval <= at:
                result.late_ns.append(at - (first + sent * interval))
                turns.append(at)
                sent += 1
            while turns and free:
                connection = free.pop()
                started[connection] = turns.popleft()
                connection.sendall(request)
            next_turn = first + sent * interval if sent < count else give_up
            wait_s = max(0, next_turn - now()) / 1e9
            for connection in select.select(list(started), (), (), wait_s)[0]:
                _receive(connection)
                result.latency_ns.append(now() - started.pop(connection))
                free.append(connection)
    return result


def _receive(connection: socket.socket) -> None:
    """Read one whole small response; raises ``LoadError`` when it is not one."""
    data = connection.recv(65536)
    while True:
        end = data.find(wire.HEAD_END)
        if end >= 0 and len(data) - end - len(wire.HEAD_END) >= wire.SMALL_BODY_BYTES:
            break
        more = connection.recv(65536)
        if not more:
            raise LoadError(f"the proxy closed a connection after {data[:80]!r}")
        data += more
    if not data.startswith(wire.STATUS_OK):
        raise LoadError(f"answered {data[:80]!r}")


@contextlib.contextmanager
def _connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.append(connection)
        yield opened
