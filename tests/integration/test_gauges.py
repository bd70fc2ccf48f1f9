"""What a report tells of the moment: how late the event loop is, and what the cache and the retries take."""

import time

from stickyproxy.core.settings import HelpSettings, Settings

from .harness import QUICK, Message, Stage, eventually, hello, request, response
from .test_nicegui import FOREVER


async def test_a_loop_that_was_held_up_is_late_for_a_while_and_has_ever_been(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    time.sleep(0.4)  # noqa: ASYNC251  what is to be seen
    await eventually(lambda: running.proxy.report().gauges.lag_s >= 0.25, "it is seen")
    await eventually(lambda: running.proxy.report().gauges.lag_s < 0.25, "and over some sweeps later")
    assert running.proxy.report().gauges.longest_lag_s >= 0.25


async def test_the_cache_tells_what_it_takes(stage: Stage) -> None:
    def asset(_: Message) -> bytes:
        return response("200 OK", FOREVER, body=b"x" * 1000)

    settings = Settings(times=QUICK, help=HelpSettings(asset_cache_bytes=1 << 20))
    running = await stage.proxy(await stage.backend(asset), settings=settings)
    assert running.proxy.report().gauges.asset_cache_bytes == 0
    await running.ask(request("GET /_nicegui/3.18.0/static/nicegui.js HTTP/1.1"))
    assert 1000 < running.proxy.report().gauges.asset_cache_bytes < 3000


async def test_without_retries_none_of_their_budget_is_used(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    await running.ask(request())
    assert running.proxy.report().gauges.retry_budget_used == 0
