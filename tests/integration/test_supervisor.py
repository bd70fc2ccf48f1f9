"""The supervisor in this process, with workers that do as a test says: what many deaths cost."""

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stickyproxy.core import workers as rules
from stickyproxy.core.counters import Counters
from stickyproxy.core.health import Readiness
from stickyproxy.core.plane import Report
from stickyproxy.core.settings import ServiceSettings
from stickyproxy.core.values import Address
from stickyproxy.fleet.supervisor import Supervisor

from .harness import soon
from .workers import children, state, until

SPEAKS = """
import pickle, socket, struct, sys
control = socket.socket(fileno=int(sys.argv[2]))
body = pickle.dumps(("serves", ()))
control.sendall(struct.pack("!I", len(body)) + body)
"""
DIES = "pass"
HANGS = SPEAKS + "import time; time.sleep(60)"
CARRIES = (
    SPEAKS
    + """
sys.path.append(sys.argv[1])
from stickyproxy.core.news import News
for count in (7, 3):
    body = pickle.dumps(("news", (News(tunnels={"one": count, "two": 0}),)))
    control.sendall(struct.pack("!I", len(body)) + body)
import time; time.sleep(60)
"""
)
WAITS = SPEAKS + "\nwhile control.recv(65536): pass"


@asynccontextmanager
async def supervised(program: str, *, count: int = 2, soon_s: float = 5.0, **more: float) -> AsyncIterator[Supervisor]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    settings = ServiceSettings(Address("127.0.0.1", 0), None, workers=count)
    supervisor = Supervisor(settings, listeners, logging.getLogger("test"), **more)
    supervisor.shared.python = (sys.executable, "-I", "-S", "-c", program)
    supervisor.shared.soon_s = soon_s
    try:
        yield supervisor
    finally:
        await soon(asyncio.gather(*(slot.close() for slot in supervisor.slots)))
        supervisor.close()


async def test_200_restarts_leak_no_descriptor_no_child_and_no_zombie() -> None:
    others = set(children(os.getpid()))  # of fixtures that live as long as the whole run, as an API server
    async with supervised(SPEAKS, soon_s=0.0) as supervisor:  # each worker ends as soon as it serves
        await supervisor.start()
        await until(lambda: sum(s.restarts for s in supervisor.slots) >= 20, "some restarts")
        gc.collect()
        before, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        await until(lambda: sum(s.restarts for s in supervisor.slots) >= 200, "200 restarts", bound_s=90)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 4, "two that are starting have two each"
        assert len(asyncio.all_tasks()) <= tasks + 4
        assert len(set(children(os.getpid())) - others) <= 4
    assert not [pid for pid in children(os.getpid()) if state(pid) == "Z"]


async def test_who_dies_at_once_again_and_again_is_started_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    async with supervised(DIES, count=1) as supervisor:
        await supervisor.start()
        await until(lambda: supervisor.slots[0].restarts >= 4, "it dies four times")
        said = [r.getMessage() for r in caplog.records if "again and again" in r.getMessage()]
        assert said[:3] == [f"worker 0 dies again and again; the next one starts in {s:.1f} s" for s in (0.1, 0.2, 0.4)]
        report = await supervisor.slots[0].report()
        assert not report.serving
        assert report.restarts == supervisor.slots[0].restarts


async def test_a_silent_worker_is_killed_by_the_limit_and_its_socket_goes_to_another() -> None:
    async with supervised(HANGS, silent_s=1.0, cover_s=0.2, soon_s=0.0) as supervisor:
        supervisor.shared.beat_s = 0.05
        await supervisor.start()
        pids = [slot.pid for slot in supervisor.slots]
        await until(lambda: all(slot.restarts for slot in supervisor.slots), "both are killed")
        assert not set(pids) & set(children(os.getpid()))


async def test_the_tunnels_of_a_worker_that_is_killed_for_its_silence_are_counted_as_ended() -> None:
    async with supervised(CARRIES, count=1, silent_s=1.0, soon_s=0.0) as supervisor:
        supervisor.shared.beat_s = 0.05
        await supervisor.start()
        (slot,) = supervisor.slots
        await until(lambda: supervisor._tunnels == {slot: {"one": 3}}, "it has told, and what is none is not kept")
        await until(lambda: slot.restarts, "it is killed")
        assert slot._dead.tunnel_ends["error"] == 3


async def test_who_dies_between_its_answer_and_its_hearing_is_not_counted_twice() -> None:
    counters = Counters()
    counters.connections = 5
    async with supervised(WAITS, count=1) as supervisor:
        await supervisor.start()
        (slot,) = supervisor.slots

        class LastWords:
            async def call(self, *_: Any, **__: Any) -> Report:
                os.kill(slot.pid, 9)
                await until(lambda: slot.restarts, "it is dead")
                return Report(Readiness(True, "ready"), counters)

        await until(lambda: slot.serving, "it serves")
        slot._last = counters
        slot._channel = LastWords()  # type: ignore[assignment]
        assert (await slot.report()).counters.connections == 5


async def test_the_sockets_of_who_does_not_serve_are_accepted_on_by_another() -> None:
    async with supervised(WAITS) as supervisor:
        await supervisor.start()
        one, two = supervisor.slots
        numbers = one.accepts, two.accepts
        await until(lambda: one.serving and two.serving, "both serve")
        assert len(numbers[0]) == len(numbers[1]) == 1
        os.kill(one.pid, 9)
        await until(lambda: not one.serving, "it is dead")
        assert set(two.accepts) == {*numbers[0], *numbers[1]}
        await until(lambda: one.serving, "the next serves")
        assert (one.accepts, two.accepts) == numbers


@pytest.mark.parametrize(
    ("deaths", "wait_s"), [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (8, 6.4), (9, 10.0), (99, 10.0)]
)
def test_the_first_death_costs_no_time_and_many_cost_at_most_10_seconds(deaths: int, wait_s: float) -> None:
    assert rules.backoff_s(deaths) == pytest.approx(wait_s)


def test_every_state_ends_when_the_proxy_does() -> None:
    def step(state_: rules.State, event: rules.Event) -> rules.State:
        return rules.TABLE.get((state_, event), (state_, rules.Effect.NOTHING))[0]

    for state_ in rules.State:
        for end in (rules.Event.LEAVE, rules.Event.CLOSE):
            left = step(step(state_, end), rules.Event.DEATH)
            assert left is rules.State.ENDED, (state_, end)


async def test_who_is_killed_now_and_then_is_always_replaced_at_once() -> None:
    async with supervised(WAITS, count=1, soon_s=0.05) as supervisor:
        await supervisor.start()
        (slot,) = supervisor.slots
        for deaths in range(1, 6):
            await until(lambda: slot.serving, "it serves")
            await asyncio.sleep(0.1)  # it has lived for longer than what counts as at once
            os.kill(slot.pid, 9)
            await until(lambda deaths=deaths: slot.restarts == deaths, "it is dead")
            assert slot._deaths == 0
