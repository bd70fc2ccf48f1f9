"""`--park`: a page outlives minutes without its browser, and one whose tab is gone costs its replica nothing."""

import asyncio
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from needs import missing
from playwright.async_api import Browser, Page, async_playwright, expect

from benchmarks import chromium as chromium_browser

from .harness import PAGE_LIMIT_MS, Proxy, Replica, addresses, running_proxy, running_replicas
from .parking import WAYS, Outcome, Parkable, Way, survive
from .prepared import NotInstallableError, prepared_python
from .wire import Wire, running_wire

APP = Path(__file__).parent / "apps" / "parked.py"

ATTEMPTS = 3
STANDSTILL_S = 1.0
"""Where the machine stood still for longer, a replica may have given sockets up on its own (2 s without an answer that
it has read), which says nothing of parking: the test is tried again."""

PARK_S = 30
"""How long the short tests let pages be parked: no outage in them lasts as long."""

GONE_LIMIT_S = 12.0
"""For a page that is not parked to be deleted at its replica: NiceGUI waits for 3 s, a busy machine for some more."""

STILL_S = 3.0
"""For which a replica stands still: longer than it waits for an answer to a heartbeat (2 s)."""

AWAY_S = 5.0
"""Beyond the 6 s within which a page is parked: longer than NiceGUI would keep it then (3 s)."""

FORGOTTEN_S = 12.0
"""After which NiceGUI has no more of what it sent before: its history covers 9 s."""

BUSY = 3
"""Pages that load or come back at the same time."""

BOTH_WAYS = pytest.mark.parametrize(
    "silently", [pytest.param(True, id="silence"), pytest.param(False, id="reset")]
)  # fmt: skip

Launch = Callable[[], AbstractAsyncContextManager[Browser]]


@pytest.fixture(scope="module")
def replicas(nicegui: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Yield two replicas that the tests share: none may kill them."""
    with running_replicas(2, tmp_path_factory.mktemp("parked"), app=APP) as running:
        yield running


@pytest.fixture
def launch(chromium: str) -> Launch:
    """Return what runs one more Chromium while a block lasts."""

    @asynccontextmanager
    async def launch() -> AsyncIterator[Browser]:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=chromium_browser.FLAGS)
            try:
                yield browser
            finally:
                await browser.close()

    return launch


def ports_of(replicas: Sequence[Replica]) -> list[int]:
    return [replica.port for replica in replicas]


def metrics(proxy: Proxy) -> dict[str, float]:
    """Read what the proxy tells of parking, a line of the exposition each."""
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin_port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    names = "pages|total|(?:returned|released|reopened)_total"
    found = re.findall(rf"(?m)^stickyproxy_(parked_(?:{names}).*) ([0-9.e+]+)$", text)
    assert found, "nothing about parking among the metrics"
    return {name: float(value) for name, value in found}


def stood_still_s(proxy: Proxy) -> float:
    """Return for how long the proxy's process has once got no CPU; its replicas are likely to have got none either."""
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin_port}/metrics", timeout=30) as answer:
        (found,) = re.findall(r"(?m)^stickyproxy_event_loop_lag_max_seconds ([0-9.e+-]+)$", answer.read().decode())
    return float(found)


def returned(told: dict[str, float]) -> float:
    """Sum the returns by every kind of connection."""
    return sum(value for name, value in told.items() if name.startswith("parked_returned_total"))


def released(proxy: Proxy) -> dict[str, float]:
    """Return how many pages were let go by reason, without those for which none was."""
    prefix = 'parked_released_total{reason="'
    told = {name.removeprefix(prefix)[:-2]: value for name, value in metrics(proxy).items() if name.startswith(prefix)}
    return {reason: value for reason, value in told.items() if value}


async def parked(proxy: Proxy, count: int) -> None:
    """Wait until so many pages are parked."""
    deadline = time.monotonic() + 30
    while metrics(proxy)["parked_pages"] != count:
        assert time.monotonic() < deadline, f"expected {count} parked pages, found {metrics(proxy)}"
        await asyncio.sleep(0.1)  # a metric has no event to wait for


async def is_deleted(page: Parkable, limit_s: float = GONE_LIMIT_S) -> bool:
    """Say whether the page's replica forgets it within the time."""
    return await page.until(lambda kept: kept is None, limit_s)


async def expect_whole(page: Parkable, clicks: int = 2) -> None:
    """Expect that a page is what it was, has all its updates, and works."""
    kept = await page.kept()
    assert kept is not None, "deleted at its replica"
    assert await page.back(kept["pushed"]) is not None, f"not back: {page.said[-5:]}"
    faults, _ = await page.judge(clicks)
    assert faults == []


async def survive_all(
    launch: Launch, proxy: Proxy, replicas: Sequence[Replica], cases: Sequence[tuple[Way, float]]
) -> dict[str, Outcome]:
    """Let a page go through each way of losing its network, all at the same time."""
    busy = asyncio.Semaphore(BUSY)
    async with launch() as shared:
        outcomes = await asyncio.gather(
            *(survive(launch, shared, proxy.port, ports_of(replicas), *case, busy) for case in cases)
        )
    return {f"{way} {seconds:g} s": outcome for (way, seconds), outcome in zip(cases, outcomes, strict=True)}


async def test_pages_survive_ten_seconds_without_their_network(
    launch: Launch, replicas: list[Replica], tmp_path: Path
) -> None:
    """Cut, reset and frozen, all at the same time: the same document, every update once, and the first click counts."""
    cases: list[tuple[Way, float]] = [(way, 10.0) for way in WAYS]
    for attempt in range(ATTEMPTS):
        with running_proxy(tmp_path, addresses(replicas), "--park", str(PARK_S)) as proxy:
            found = await survive_all(launch, proxy, replicas, cases)
            told, stood_still = metrics(proxy), stood_still_s(proxy) > STANDSTILL_S
        lost = {case: str(outcome) for case, outcome in found.items() if not outcome.kept}
        if not (lost and stood_still and attempt + 1 < ATTEMPTS):
            break
    assert lost == {}
    assert told["parked_total"] >= len(cases)  # and once more for a page whose wire ends before its good-bye is through
    assert returned(told) >= len(cases)


async def test_without_parking_pages_are_lost_after_ten_seconds(
    launch: Launch, replicas: list[Replica], tmp_path: Path
) -> None:
    """What the test above would show if it could not fail."""
    cases: list[tuple[Way, float]] = [("cut-new", 10.0), ("reset", 10.0), ("frozen", 10.0)]
    with running_proxy(tmp_path, addresses(replicas)) as proxy:
        found = await survive_all(launch, proxy, replicas, cases)
        assert metrics(proxy)["parked_total"] == 0
    assert [case for case, outcome in found.items() if outcome.kept] == []


async def goes_away_by_closing(page: Page) -> None:
    await page.close()


async def goes_away_by_navigating(page: Page) -> None:
    await page.goto(page.url + "other")


async def goes_away_by_reloading(page: Page) -> None:
    await page.reload()


async def goes_away_by_crashing(page: Page) -> None:
    session = await page.context.new_cdp_session(page)
    crash = asyncio.create_task(session.send("Page.crash"))  # it is never answered
    await page.wait_for_event("crash", timeout=PAGE_LIMIT_MS)
    crash.cancel()


@pytest.mark.parametrize(
    "go_away",
    [
        goes_away_by_closing,
        goes_away_by_navigating,
        goes_away_by_reloading,
        # Whether Chromium says good-bye for a page that has crashed is not ours to promise: once it has not.
        pytest.param(goes_away_by_crashing, marks=pytest.mark.extended),
    ],
)
async def test_a_page_that_says_good_bye_is_not_parked(
    browser: Browser, replicas: list[Replica], tmp_path: Path, go_away: Callable[[Page], AsyncIterator[None]]
) -> None:
    with running_proxy(tmp_path, addresses(replicas), "--park", str(PARK_S)) as proxy:
        context = await browser.new_context()
        page = await Parkable.begin(await context.new_page(), proxy.url, ports_of(replicas))
        await go_away(page.page)
        assert await is_deleted(page), "its replica kept the page"
        assert metrics(proxy)["parked_pages"] == 0
        await context.close()


@asynccontextmanager
async def parked_page(
    browser: Browser, proxy: Proxy, replicas: Sequence[Replica], *, silently: bool = True
) -> AsyncIterator[tuple[Parkable, Wire]]:
    """Yield a page that is parked, and the wire on which all is silent, or else was reset."""
    async with running_wire(proxy.port) as wire:
        context = await browser.new_context()
        page = await Parkable.begin(await context.new_page(), wire.url, ports_of(replicas))
        if silently:
            wire.cut("fail")
        else:
            wire.break_off()
        await parked(proxy, 1)
        yield page, wire
        await context.close()


async def test_a_second_tab_is_undisturbed_while_the_first_is_parked(
    browser: Browser, replicas: list[Replica], tmp_path: Path
) -> None:
    """They share cookies, since these do not know ports."""
    with running_proxy(tmp_path, addresses(replicas), "--park", str(PARK_S)) as proxy:
        async with parked_page(browser, proxy, replicas) as (first, wire):
            context = first.page.context
            second = await Parkable.begin(await context.new_page(), proxy.url, ports_of(replicas))
            await asyncio.sleep(AWAY_S)
            faults, _ = await second.judge(clicks=2)
            assert faults == []
            wire.restore("another network")
            await expect_whole(first)
            faults, _ = await second.judge(clicks=3)
            assert faults == []


async def test_a_page_that_is_reloaded_while_it_is_parked_is_let_go(
    browser: Browser, replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(replicas), "--park", str(PARK_S)) as proxy:
        async with parked_page(browser, proxy, replicas) as (page, wire):
            wire.restore("another network")
            await page.page.reload(timeout=PAGE_LIMIT_MS)
            assert await is_deleted(page), "its replica kept the page"
            await expect(page.page.get_by_test_id("serial")).not_to_have_text(page.serial)
            assert released(proxy) == {"reloaded": 1}


async def test_a_browser_that_comes_back_too_late_loads_its_page_anew(
    browser: Browser, replicas: list[Replica], tmp_path: Path
) -> None:
    with running_proxy(tmp_path, addresses(replicas), "--park", "5") as proxy:
        async with parked_page(browser, proxy, replicas) as (page, wire):
            assert await is_deleted(page, 5 + GONE_LIMIT_S), "its replica kept the page"
            assert released(proxy) == {"timeout": 1}
            wire.restore("another network")
            await expect(page.page.get_by_test_id("serial")).not_to_have_text(page.serial)
            await page.page.get_by_test_id("increment").click()
            await expect(page.page.get_by_test_id("count")).to_have_text("1")


async def test_a_page_that_comes_back_through_another_proxy_works(
    browser: Browser, replicas: list[Replica], tmp_path: Path
) -> None:
    """It is loaded anew, as without parking: what the first proxy kept is nobody else's."""
    backends = addresses(replicas)
    with (
        running_proxy(tmp_path, backends, "--park", str(PARK_S)) as first,
        running_proxy(tmp_path, backends, "--park", str(PARK_S)) as second,
    ):
        async with parked_page(browser, first, replicas) as (page, wire):
            await asyncio.sleep(FORGOTTEN_S)
            wire.target = second.port
            wire.restore("another network")
            await expect(page.page.get_by_test_id("serial")).not_to_have_text(page.serial)
            await page.page.get_by_test_id("increment").click()
            await expect(page.page.get_by_test_id("count")).to_have_text("1")


@BOTH_WAYS
async def test_a_page_whose_replica_dies_while_it_is_parked_is_loaded_from_another(
    browser: Browser, nicegui: None, tmp_path: Path, silently: bool
) -> None:
    """It is let go at once, whether the browser's end is gone or only silent."""
    with (
        running_replicas(2, tmp_path, app=APP) as replicas,
        running_proxy(tmp_path, addresses(replicas), "--park", str(PARK_S)) as proxy,
    ):
        async with parked_page(browser, proxy, replicas, silently=silently) as (page, wire):
            lost = await page.page.get_by_test_id("replica").inner_text()
            next(replica for replica in replicas if replica.name == lost).process.kill()
            await parked(proxy, 0)
            assert released(proxy) == {"backend": 1}
            wire.restore("another network")
            await expect(page.page.get_by_test_id("replica")).not_to_have_text(lost)
            await page.page.get_by_test_id("increment").click()
            await expect(page.page.get_by_test_id("count")).to_have_text("1")


async def stands_still(page: Parkable) -> None:
    """Block the event loop of the page's replica from right after a heartbeat, such that it closes its sockets."""
    port = await page.port()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/block"
        async with session.get(url, params={"seconds": STILL_S, "beat": "true"}) as answer:
            assert answer.status == 200


async def expect_kept_through_a_standstill(
    browser: Browser, replicas: Sequence[Replica], folder: Path, *, silently: bool
) -> None:
    """Let a replica stand still while a page of its is parked, and expect that the page is what it was."""
    with running_proxy(folder, addresses(replicas), "--park", str(PARK_S)) as proxy:
        async with parked_page(browser, proxy, replicas, silently=silently) as (page, wire):
            await stands_still(page)
            assert not await is_deleted(page, AWAY_S), "its replica deleted the page"
            told = metrics(proxy)
            assert (told['parked_reopened_total{outcome="kept"}'], told["parked_pages"]) == (1, 1)
            wire.restore("another network" if silently else "same network")
            await expect_whole(page)
            assert released(proxy) == {}


@BOTH_WAYS
async def test_a_page_whose_replica_stands_still_while_it_is_parked_is_kept(
    browser: Browser, replicas: list[Replica], tmp_path: Path, silently: bool
) -> None:
    """The replica closes the page's socket, as its loop was blocked over a heartbeat, and gets a new one."""
    await expect_kept_through_a_standstill(browser, replicas, tmp_path, silently=silently)


async def test_a_proxy_that_drains_lets_its_parked_pages_go(
    browser: Browser, replicas: list[Replica], tmp_path: Path
) -> None:
    """At once, since nobody is there to be told; so it ends long before the page's time is over."""
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(replicas), "--park", "300"))
        async with parked_page(browser, proxy, replicas) as (page, _):
            proxy.process.popen.terminate()
            assert await is_deleted(page, 2 * GONE_LIMIT_S), "its replica kept the page"
            await asyncio.to_thread(proxy.process.popen.wait, 60)


async def test_of_two_returns_the_last_has_the_page(browser: Browser, replicas: list[Replica], tmp_path: Path) -> None:
    """A browser that gave up an attempt without a word tries again: the first of its sockets is still there."""
    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(running_proxy(tmp_path, addresses(replicas), "--park", str(PARK_S)))
        page, wire = await stack.enter_async_context(parked_page(browser, proxy, replicas))
        for _ in range(2):
            session = await page.page.evaluate("window.socket.id ?? null")
            wire.restore("another network")
            await page.page.wait_for_function(
                "before => window.socket.connected && window.socket.id !== before", arg=session, timeout=PAGE_LIMIT_MS
            )
            wire.cut("fail")
            wire.restore("another network")  # the proxy never hears that the browser's end is gone
        await expect_whole(page)


@dataclass(frozen=True)
class Version:
    """A version of NiceGUI and two replicas that run it."""

    name: str
    replicas: list[Replica]


@pytest.fixture(scope="module", params=["2.24.2", "3.6.0", "newest"])
def version(
    nicegui: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Version]:
    folder = tmp_path_factory.mktemp("versions")
    if request.param == "newest":
        with running_replicas(2, folder, app=APP) as replicas:
            yield Version(request.param, replicas)
        return
    try:
        python = prepared_python(f"nicegui-{request.param}")
    except NotInstallableError as error:
        missing(str(error))
    with running_replicas(2, folder, app=APP, python=python) as replicas:
        yield Version(request.param, replicas)


@pytest.mark.extended
@pytest.mark.timeout(300)
@BOTH_WAYS
async def test_pages_of_every_version_are_kept_through_a_standstill_of_their_replica(
    browser: Browser, version: Version, tmp_path: Path, silently: bool
) -> None:
    await expect_kept_through_a_standstill(browser, version.replicas, tmp_path, silently=silently)


@pytest.mark.extended
@pytest.mark.timeout(900)
async def test_pages_of_every_version_survive_minutes_without_their_network(
    launch: Launch, version: Version, tmp_path: Path
) -> None:
    """Where packets are lost on the way, NiceGUI's page by itself would reload after 20 s."""
    cases: list[tuple[Way, float]] = [(way, seconds) for seconds in (240.0, 60.0, 10.0) for way in WAYS]
    with running_proxy(tmp_path, addresses(version.replicas), "--park", "300") as proxy:
        found = await survive_all(launch, proxy, version.replicas, cases)
    assert {case: str(outcome) for case, outcome in found.items() if not outcome.kept} == {}
