"""Nothing is lost when pods and proxies come and go: the run of `benchmarks/chaos` with few pages and short times.

Real NiceGUI replicas, two proxies that follow an API server, scripted pages and a parallel load; rollouts with real
Chromium pages beside them. What is held against which bar stands in `benchmarks/chaos/scenarios.py`.
"""

import dataclasses
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Browser

from benchmarks.chaos.report import Outcome
from benchmarks.chaos.scenarios import QUICK, SCENARIOS, Plan, staged

from .harness import Visit, leave, visits

CHROMIUM_PAGES = 3

EXTENDED = dataclasses.replace(QUICK, pages=60, flapping_s=30.0)


def expect_held(outcome: Outcome) -> None:
    print(outcome.line())
    assert outcome.held, "; ".join([*outcome.missed(), *outcome.notes])


async def with_chromium(browser: Browser, scenario: str) -> tuple[list[Visit], Outcome]:
    """Run a scenario with some pages of Chromium, each with two clicks on its counter before and one after."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(staged(QUICK, 3, QUICK.pages))
        pages = await visits(browser, stage.cluster.service.url, CHROMIUM_PAGES)
        for page in pages:
            await page.click(1)
            await page.click(2)
        outcome = await SCENARIOS[scenario](stage)
        for page in pages:
            await page.connected()
            await page.click(3 if len(page.documents) == 1 else 1)
        await leave(pages)
    return pages, outcome


async def test_a_rolling_restart_of_both_proxies_costs_no_page_its_state(browser: Browser) -> None:
    pages, outcome = await with_chromium(browser, "proxies")
    expect_held(outcome)
    for page in pages:
        assert len(page.documents) == 1, f"reloaded: {page.complaints}"
        assert len(page.websockets) >= 2, "no proxy has closed its socket, so nothing was tested"
        assert not page.failures
        assert not [text for text in page.complaints if text.startswith("reloading")]


async def test_a_rolling_replacement_of_all_backends_reloads_each_page_once(browser: Browser) -> None:
    pages, outcome = await with_chromium(browser, "backends")
    expect_held(outcome)
    for page in pages:
        assert len(page.documents) == 2, f"loaded {len(page.documents)} times: {page.complaints}"
        assert not page.failures


async def test_a_killed_backend_costs_its_pages_one_reload_and_a_killed_proxy_nobody_any(nicegui: None) -> None:
    await expect_all_held(dataclasses.replace(QUICK, flapping_s=5.0), "kill-backend", "kill-proxy", "flapping")


async def test_old_sessions_stay_while_the_app_scales_up_and_new_ones_are_spread(nicegui: None) -> None:
    async with staged(QUICK, 1, QUICK.pages // 10) as stage:
        expect_held(await SCENARIOS["scale"](stage))


async def test_workers_that_are_killed_again_and_again_cost_no_page_its_state(nicegui: None) -> None:
    async with staged(QUICK, 3, QUICK.pages, proxies=1, workers=2) as stage:
        expect_held(await SCENARIOS["kill-workers"](stage))


@pytest.mark.extended
@pytest.mark.timeout(300)
async def test_readiness_that_flaps_for_half_a_minute_moves_no_pin(nicegui: None) -> None:
    await expect_all_held(EXTENDED, "flapping", "kill-backend")


async def expect_all_held(plan: Plan, *scenarios: str) -> None:
    """Run several scenarios on one cluster."""
    async with staged(plan, 3, plan.pages) as stage:
        for scenario in scenarios:
            expect_held(await SCENARIOS[scenario](stage))
