"""The sweep goes over all connections, and never does much at once."""

from random import Random
from typing import Any

from stickyproxy.core.settings import Settings
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.proxy import Proxy
from stickyproxy.dataplane.sweep import ACTED_ON, LOOKED_AT

from .test_downstream import Wire

COUNT = 2 * LOOKED_AT + 300


def crowd() -> tuple[Proxy, list[Wire]]:
    """Give a proxy with many connections, of each of which half a head has come."""
    proxy, wires = Proxy(Settings(), Random(1)), []
    for _ in range(COUNT):
        downstream, wire = Downstream(proxy, b"192.0.2.1"), Wire()
        downstream.connection_made(wire)
        downstream.data_received(b"GET / HTTP/1.1\r\n")
        wires.append(wire)
    return proxy, wires


def answered(wires: list[Wire]) -> int:
    return sum(1 for wire in wires if wire.sent)


async def test_who_has_passed_no_deadline_is_left_alone() -> None:
    proxy, wires = crowd()
    slices = list(proxy.sweep._slices())
    assert len(slices) >= COUNT // LOOKED_AT
    assert not answered(wires)


async def test_all_who_have_passed_their_deadline_are_answered_a_few_at_a_time() -> None:
    proxy, wires = crowd()
    for downstream in proxy.downstreams:
        downstream.deadline = proxy.time() - 1
    done = 0
    for _ in proxy.sweep._slices():
        now = answered(wires)
        assert now - done <= ACTED_ON
        done = now
    assert answered(wires) == COUNT
    assert all(wire.sent.startswith(b"HTTP/1.1 408 ") for wire in wires)


async def test_who_has_moved_on_between_two_slices_is_not_answered() -> None:
    proxy, wires = crowd()
    for downstream in proxy.downstreams:
        downstream.deadline = proxy.time() - 1
    slices = proxy.sweep._slices()
    next(slices)
    before = answered(wires)
    for downstream in proxy.downstreams:
        downstream.data_received(b"Host: app.example\r\n\r\n")  # there is no backend: a 503
    for _ in slices:
        pass
    assert sum(1 for wire in wires if wire.sent.startswith(b"HTTP/1.1 408 ")) == before


async def test_who_is_lost_between_two_slices_is_not_touched() -> None:
    proxy, wires = crowd()
    for downstream in proxy.downstreams:
        downstream.deadline = proxy.time() - 1
    slices = proxy.sweep._slices()
    next(slices)
    before = answered(wires)
    for downstream in list(proxy.downstreams):
        downstream.connection_lost(None)
    for _ in slices:
        pass
    assert answered(wires) == before


class SlowTunnel:
    """A tunnel of which nothing is taken."""

    at_rest = False
    unwritten = 100

    def __init__(self) -> None:
        self.ended = False

    def drop(self) -> None:
        self.ended = True


async def test_a_tunnel_that_stalls_anew_between_two_slices_has_its_time_again() -> None:
    proxy = Proxy(Settings(), Random(1))
    tunnels: list[Any] = [SlowTunnel() for _ in range(ACTED_ON + 1)]
    proxy.watched_tunnels = {tunnel: (proxy.time() - 1, 100) for tunnel in tunnels}
    slices = proxy.sweep._waiting_tunnels()
    next(slices)
    proxy.watched_tunnels[tunnels[-1]] = (proxy.time() + 60, 50)
    list(slices)
    assert [tunnel.ended for tunnel in tunnels] == [*[True] * ACTED_ON, False]
