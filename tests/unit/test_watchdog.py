"""A stalled event loop is told by name, counted, and not told too often."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from stickyproxy.watchdog import Watchdog

AFTER_S = 0.05
LOG = logging.getLogger("stickyproxy")
BOUND_S = 10.0

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Counted:
    """How many stalls were told, and by which thread."""

    def __init__(self) -> None:
        self.count = 0
        self.threads: set[int] = set()

    def stalled(self) -> None:
        self.count += 1
        self.threads.add(threading.get_ident())


@contextmanager
def watched(counted: Counted, *, log_every_s: float = 60.0) -> Iterator[Watchdog]:
    watchdog = Watchdog(AFTER_S, counted.stalled, LOG, log_every_s=log_every_s)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.close()


def stand_still_until(condition: Callable[[], object]) -> None:
    """Hold the event loop up, as a blocking call would, until the watchdog has done something."""
    end = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end, "the watchdog did nothing"
        time.sleep(0.001)


async def turn_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0)


def stacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "It stands here" in r.getMessage()]


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


def test_a_stall_is_logged_while_it_lasts_with_the_stack_that_causes_it(
    runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        counted = Counted()
        with watched(counted):
            stand_still_until(lambda: stacks(caplog))
            assert counted.count == 0, "it is counted by the loop, which stands"
            await turn_until(lambda: counted.count)
        assert (counted.count, counted.threads) == (1, {threading.get_ident()})

    with caplog.at_level("WARNING", "stickyproxy"):
        runner.run(main())
    (said,) = stacks(caplog)
    assert "the event loop has not turned for 0.05 s: every connection waits. It stands here:" in said
    assert "in stand_still_until" in said
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert caplog.records[-1].getMessage().startswith("the event loop turns again, after 0.")


def test_every_stall_is_counted_and_one_in_a_while_is_logged(
    runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        counted = Counted()
        with watched(counted) as watchdog:
            for number in range(1, 4):
                stand_still_until(lambda number=number: len(stacks(caplog)) + watchdog._unsaid >= number)
                await turn_until(lambda number=number: counted.count == number)

    with caplog.at_level("WARNING", "stickyproxy"):
        runner.run(main())
    assert len(stacks(caplog)) == 1


def test_what_was_not_said_is_said_with_the_next_stack(
    runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        counted = Counted()
        with watched(counted, log_every_s=3600.0) as watchdog:
            for number in range(1, 4):
                stand_still_until(lambda number=number: len(stacks(caplog)) + watchdog._unsaid >= number)
                await turn_until(lambda number=number: counted.count == number)
            watchdog._log_every_s = 0.0
            stand_still_until(lambda: len(stacks(caplog)) == 2)

    with caplog.at_level("WARNING", "stickyproxy"):
        runner.run(main())
    assert "(2 more since the last stack)" in stacks(caplog)[1]


def test_a_loop_that_turns_is_left_alone(runner: asyncio.Runner, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        counted = Counted()
        with watched(counted):
            for _ in range(200):  # time is the subject here
                await asyncio.sleep(0.002)
        assert counted.count == 0 or stacks(caplog), "a busy machine may stall us; then it is said"

    with caplog.at_level("WARNING", "stickyproxy"):
        runner.run(main())


def test_its_thread_ends_when_it_is_closed_even_in_a_stall(runner: asyncio.Runner) -> None:
    async def main() -> None:
        counted = Counted()
        watchdog = Watchdog(AFTER_S, counted.stalled, LOG)
        watchdog.start()
        stand_still_until(lambda: watchdog._logged_at)
        watchdog.close()
        watchdog.close()
        assert not watchdog._thread.is_alive()
        await asyncio.sleep(0)
        assert counted.count == 0

    runner.run(main())


def test_it_ends_by_itself_when_the_loop_is_closed(runner: asyncio.Runner) -> None:
    async def main() -> Watchdog:
        watchdog = Watchdog(AFTER_S, Counted().stalled, LOG)
        watchdog.start()
        return watchdog

    watchdog = runner.run(main())
    runner.close()
    watchdog._turned.set()  # what the loop would have done
    watchdog._thread.join(BOUND_S)
    assert not watchdog._thread.is_alive()
