"""Parking beside all else: TLS, the access log, metrics, several workers, pages, cookies."""

import asyncio
import gzip
from random import Random

import pytest

from stickyproxy.core.access_log import LogFormat
from stickyproxy.core.nicegui import PATIENCE
from stickyproxy.core.settings import LogSettings
from stickyproxy.dataplane.access_log import AccessLog

from .command import start
from .harness import Peer, Running, Stage, eventually, request, response, soon
from .parking import DEFLATE, PARKING, SEC_ACCEPT, Name, beat, click, open_page, update
from .test_access_log import Lines, story, told
from .test_nicegui import NAVIGATE, PAGE, html
from .test_parking import BOTH, IMPLICIT
from .test_tls import Authority

OFFER = "permessage-deflate; client_max_window_bits"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@BOTH
@pytest.mark.both_loops
@pytest.mark.parametrize("offer", ["", OFFER])
async def test_by_tls_a_page_is_parked_and_comes_back(
    stage: Stage, authority: Authority, name: Name, offer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING, material=authority.material())

    async def client(**_: object) -> Peer:
        streams = await soon(
            asyncio.open_connection(*running.address, ssl=authority.client(), server_hostname="127.0.0.1")
        )
        peer = Peer(*streams)
        stage.clients.append(peer)
        return peer

    monkeypatch.setattr(running, "client", client)
    page = await open_page(running, backend, name, offer=offer, agreed=DEFLATE if offer else "")
    await beat(page)
    page.browser.peer.reset()
    await page.parked()
    page.app.say(update(0), b"2", update(1, "x" * 200_000))
    await page.app.hears(b"3")
    browser = await page.back(extensions=offer, said=(click(1),))
    await browser.hears(update(0), update(1, "x" * 200_000))
    await page.app.hears(click(1))
    again = await page.back(extensions=offer)
    await again.hears(update(0), update(1, "x" * 200_000))
    await beat(page, again)
    again.close_frame()
    assert await again.hear_control() == (0x88, b"")
    await page.parked()
    for peer in (browser.peer, again.peer):
        peer.close()
    await page.ends()


# The access log.


async def logged(stage: Stage) -> tuple[Running, Lines]:
    backend = await stage.backend()
    running, lines = await stage.proxy(backend, settings=PARKING), Lines()
    running.proxy.access_log = AccessLog(LogSettings(LogFormat.JSON, 1.0), Random(1), lines)
    return running, lines


async def test_each_connection_of_a_browser_is_a_line_with_its_own_bytes(stage: Stage) -> None:
    running, lines = await logged(stage)
    (backend,) = stage.backends
    page = await open_page(running, backend)
    page.browser.say(click(1))
    await page.app.hears(click(1))
    page.browser.peer.reset()
    await page.parked()
    (first,) = await told(lines)
    name = str(backend.address)
    assert story(first) == (101, "kept", None, name, "client")
    assert first["tunnel"] is True
    page.app.say(update(0))
    browser = await page.back()
    await browser.hears(update(0))
    browser.say(click(2))
    await page.app.hears(click(2))
    again = await page.back()
    await browser.peer.gone()
    _, second = await told(lines, 2)
    assert story(second) == (101, "kept", None, name, "client")
    assert 0 < second["received_bytes"] < first["received_bytes"]
    assert second["sent_bytes"] > 0
    again.peer.reset()
    await page.parked()
    page.app.leaves()
    await running.quiet()
    _, _, third = await told(lines, 3)
    assert third["end"] == "client"
    assert third["received_bytes"] > 0
    assert third["sent_bytes"] > 0
    for secret in (IMPLICIT.page, IMPLICIT.document, IMPLICIT.tab):
        assert secret not in str(lines.kept)
    page.empty()


async def test_a_return_that_fails_and_a_poll_that_is_refused_are_told(stage: Stage) -> None:
    running, lines = await logged(stage)
    (backend,) = stage.backends
    page = await open_page(running, backend)
    page.browser.peer.reset()
    await page.parked()
    await running.ask(request(f"GET {IMPLICIT.target('polling')} HTTP/1.1"))
    peer = await running.client()
    peer.send(IMPLICIT.ask())
    await peer.head()
    peer.reset()
    told_lines = await told(lines, 3)
    assert [line["end"] for line in told_lines] == ["client", "come-by-socket", "client"]
    assert [line["status"] for line in told_lines] == [101, 503, 101]
    await page.ends()


# Metrics, cookies, pages.


async def test_the_report_says_what_is_parked_and_kept(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    page = await open_page(running, backend)
    await beat(page)
    page.browser.peer.reset()
    await page.parked()
    page.app.say(update(0))
    await eventually(lambda: page.parking.kept_bytes, "it is kept")
    gauges = running.proxy.report().gauges
    assert gauges is not None
    assert page.parking.kept_bytes in vars_of(gauges)
    browser = await page.back()
    counters = running.proxy.counters
    assert sum(counters.parked_gaps.counts) == counters.parked_returns["new"] == 1
    browser.peer.reset()
    await page.parked()
    await page.ends()


def vars_of(value: object) -> list[object]:
    return [getattr(value, name) for name in value.__slots__]  # type: ignore[attr-defined]


async def test_who_comes_back_without_its_cookie_gets_it_again(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b, settings=PARKING)
    page = await open_page(running, b)
    page.browser.peer.reset()
    await page.parked()
    peer = await running.client()
    peer.send(IMPLICIT.ask())
    head = await peer.head()
    assert head.get("sec-websocket-accept") == SEC_ACCEPT
    peer.reset()
    peer = await running.client()
    peer.send(IMPLICIT.ask(running.cookie(b)))
    assert (await peer.head()).token is None
    peer.reset()
    await eventually(lambda: not running.downstreams, "both are gone")
    await page.ends()


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("parks", [False, True])
async def test_pages_are_made_patient_where_they_can_be_parked(stage: Stage, parks: bool, coding: str) -> None:
    content = html("3fa85f64", "3.18.0")
    body = gzip.compress(content) if coding else content
    lines = (*PAGE, *(("Content-Encoding: gzip",) if coding else ()))
    backend = await stage.backend(lambda _: response("200 OK", *lines, body=body))
    running = await stage.proxy(backend, settings=PARKING if parks else None)
    answer = await running.ask(request("GET / HTTP/1.1", *NAVIGATE))
    got = gzip.decompress(answer.body) if coding else answer.body
    assert got.count(PATIENCE) == parks
    assert got.replace(PATIENCE, b"") == content
    assert running.proxy.pages.find(b"3fa85f64") is not None


async def test_with_several_workers_it_is_refused_in_one_line_with_exit_code_2() -> None:
    process = await start("run", "--backend", "127.0.0.1:1", "--park", "300", "--workers", "2")
    _, said = await soon(process.communicate(), bound_s=30)
    assert process.returncode == 2
    assert b"--park: expected --workers 1, found 2" in said
    assert b"Traceback" not in said
