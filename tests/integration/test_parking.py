"""A page outlives its browser's connection: who goes and comes back finds everything in its place, and nobody else does."""

import asyncio

import pytest

from .harness import Stage, eventually, request, soon, turns
from .parking import (
    CONNECTED,
    DEFLATE,
    OPENED,
    PARKING,
    End,
    Name,
    Page,
    beat,
    click,
    open_page,
    parking,
    switch,
    update,
)

IMPLICIT, EXPLICIT = Name(), Name(implicit=False)
BOTH = pytest.mark.parametrize("name", [IMPLICIT, EXPLICIT], ids=["3.6", "2.24"])


async def one(stage: Stage, name: Name = IMPLICIT, **more: str) -> Page:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    return await open_page(running, backend, name, **more)


# Going and coming back.


@BOTH
@pytest.mark.parametrize("how", ["reset", "closes", "empty close frame", "half-closes"])
async def test_who_comes_back_gets_what_came_meanwhile_once_and_in_order(stage: Stage, name: Name, how: str) -> None:
    page = await one(stage, name)
    await beat(page)
    page.app.say(update(0), update(1))
    await page.browser.hears(update(0), update(1))
    match how:
        case "reset":
            page.browser.peer.reset()
        case "closes":
            page.browser.peer.close()
        case "half-closes":
            page.browser.peer.half_close()
        case _:
            page.browser.close_frame()
            assert await page.browser.hear_control() == (0x88, b"")
    await page.parked()
    page.app.say(update(2), b"2", update(3))
    await page.app.hears(b"3")
    browser = await page.back(said=(click(1), click(2)))
    await browser.hears(update(0), update(1), update(2), update(3))
    await page.app.hears(click(1), click(2))
    assert not page.parking.away
    await beat(page, browser)
    page.app.say(update(4))
    await browser.hears(update(4))
    browser.say(click(3))
    await page.app.hears(click(3))
    assert page.running.proxy.counters.parked_returns == {"new": 1, "old": 0}
    browser.peer.close()
    await page.parked()
    await page.ends()


@pytest.mark.parametrize("code", [1001])
async def test_who_says_good_bye_is_not_waited_for(stage: Stage, code: int) -> None:
    page = await one(stage)
    page.browser.close_frame(code)
    assert await page.app.hear_control() == (0x88, code.to_bytes(2, "big"))
    page.browser.peer.close()
    assert await page.app.peer.gone()
    assert page.running.proxy.counters.parked == 0
    await page.ends()
