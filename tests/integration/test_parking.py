"""A page outlives its browser's connection: who goes and comes back finds everything in its place, and who else not."""

import asyncio
from collections.abc import Callable

import pytest

from stickyproxy.dataplane.tunnel import Tunnel
from tests.fakes.websocket import client

from .harness import Peer, Stage, eventually, soon, turns
from .parking import (
    DEFLATE,
    OPENED,
    PARKING,
    End,
    Name,
    Page,
    beat,
    click,
    open_page,
    open_socket,
    parking,
    update,
)

IMPLICIT, EXPLICIT = Name(), Name(implicit=False)
BOTH = pytest.mark.parametrize("name", [IMPLICIT, EXPLICIT], ids=["3.6", "2.24"])

pytestmark = pytest.mark.both_loops


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


async def test_a_page_that_leaves_socket_io_is_not_waited_for(stage: Stage) -> None:
    page = await one(stage)
    page.browser.say(b"41")
    await page.app.hears(b"41")
    page.browser.peer.close()
    assert await page.app.peer.gone()
    assert page.running.proxy.counters.parked == 0
    await page.ends()


@BOTH
@pytest.mark.parametrize(
    "offer",
    ["permessage-deflate; client_max_window_bits", "permessage-deflate", ""],
    ids=["Chromium, Firefox", "Safari", "none"],
)
async def test_compressed_or_not_everything_is_read_and_comes_again(stage: Stage, name: Name, offer: str) -> None:
    agreed = DEFLATE if offer else ""
    page = await one(stage, name, offer=offer, agreed=agreed)
    asked = page.asked.get("sec-websocket-extensions")
    assert asked == (offer and offer.replace("permessage-deflate", DEFLATE)) or asked is None
    assert (page.head.get("sec-websocket-extensions") or "") == agreed
    await beat(page)
    page.browser.peer.reset()
    await page.parked()
    page.app.say(update(0), b"2", update(1, "x" * 100_000))
    await page.app.hears(b"3")
    browser = await page.back(extensions=offer)
    await browser.hears(update(0), update(1, "x" * 100_000))
    browser.peer.close()
    await page.parked()
    await page.ends()


async def test_a_compression_of_old_safaris_alone_is_taken_off_so_that_the_page_can_be_parked(stage: Stage) -> None:
    page = await one(stage, offer="x-webkit-deflate-frame")
    assert page.asked.get("sec-websocket-extensions") is None
    page.browser.peer.reset()
    await page.parked()
    page.app.say(update(0))
    peer = await page.running.client()
    peer.send(IMPLICIT.ask(extensions="x-webkit-deflate-frame"))
    assert (await peer.head()).get("sec-websocket-extensions") is None
    browser = End(peer, masks=True)
    await browser.hear()
    browser.say(b"40")
    await browser.hear()
    await browser.hears(update(0))
    browser.peer.close()
    await page.parked()
    await page.ends()


async def test_a_server_that_lets_the_browser_keep_its_context_has_it_keep_none(stage: Stage) -> None:
    page = await one(stage, offer="permessage-deflate", agreed="permessage-deflate; server_no_context_takeover")
    assert page.head.get("sec-websocket-extensions") == DEFLATE
    page.browser.peer.reset()
    await page.parked()
    await page.ends()


@pytest.mark.parametrize("agreed", ["permessage-deflate", "x-other", f"{DEFLATE}, x-other"])
async def test_what_cannot_be_read_message_by_message_passes_untouched_and_is_not_parked(
    stage: Stage, agreed: str
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    ask = IMPLICIT.ask(extensions="permessage-deflate")
    opened = await open_socket(running, backend, ask, agreed=agreed, behind=b"\xc1\x01\x00")
    assert opened.head.get("sec-websocket-extensions") == agreed
    assert await opened.browser.peer.exactly(3) == b"\xc1\x01\x00"
    opened.browser.peer.close()
    assert await opened.app.peer.gone()
    opened.app.peer.close()
    assert running.proxy.counters.parked == 0
    await running.quiet()


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=9, permessage-deflate",
        "x-other, permessage-deflate",
    ],
)
@pytest.mark.parametrize("agreed", ["permessage-deflate; server_no_context_takeover", DEFLATE, ""])
async def test_an_offer_that_cannot_be_made_message_by_message_passes_untouched_and_is_not_parked(
    stage: Stage, offer: str, agreed: str
) -> None:
    page = await one(stage, offer=offer, agreed=agreed)
    assert page.asked.get("sec-websocket-extensions") == offer
    assert page.head.get("sec-websocket-extensions") == (agreed or None)
    (tunnel,) = page.running.proxy.tunnels
    assert type(tunnel) is Tunnel
    await beat(page)
    page.browser.peer.close()
    assert await page.app.peer.gone()
    assert page.running.proxy.counters.parked == 0
    await page.ends()


# What is half sent when the browser goes.


@pytest.mark.parametrize("fragmented", [False, True])
async def test_half_a_message_of_the_browsers_never_reaches_the_app_and_whole_ones_do_once(
    stage: Stage, fragmented: bool
) -> None:
    page = await one(stage)
    half = page.browser.frame(b"42[1", 0x1, final=False) + page.browser.frame(b",2", 0x0, final=False)
    if not fragmented:
        half = page.browser.frame(b"x" * 1000, 0x1)[:-1]
    page.browser.say(click(1))
    page.browser.peer.send(half)
    await page.app.hears(click(1))
    await eventually(lambda: page.running.proxy.buffered.total == len(half), "half a message is held, and counted")
    page.browser.peer.reset()
    await page.parked()
    assert not page.running.proxy.buffered.total
    browser = await page.back()
    browser.say(click(2))
    await page.app.hears(click(2))
    browser.peer.close()
    await page.parked()
    await page.ends()


async def test_a_message_that_passes_in_pieces_when_its_browser_goes_ends_the_page(stage: Stage) -> None:
    """The app has its beginning, and nobody can give it the end."""
    page = await one(stage)
    long = page.browser.frame(bytes(2 << 20), 0x2)
    page.browser.peer.send(long[: 3 << 19])
    await page.app.peer.exactly(1 << 20)
    page.browser.peer.reset()
    assert await page.app.peer.gone() in (True, False)
    assert page.running.proxy.counters.parked == 0
    await page.running.quiet()
    page.empty()


@pytest.mark.parametrize("how", ["whole", "byte by byte", "fragmented"])
async def test_what_the_app_has_said_in_part_comes_whole_to_who_is_back(stage: Stage, how: str) -> None:
    page = await one(stage)
    await beat(page)
    said = page.app.frame(update(0), 0x1)
    if how == "fragmented":
        said = page.app.frame(update(0)[:9], 0x1, final=False) + page.app.frame(update(0)[9:], 0x0)
    page.app.peer.send(said[:12])
    await eventually(lambda: page.running.proxy.buffered.total == 12, "it is held until it is whole")
    page.browser.peer.reset()
    await page.parked()
    for byte in said[12:-1]:
        page.app.peer.send(bytes((byte,)))
        if how == "byte by byte":
            await turns(3)
    browser = await page.back()
    page.app.peer.send(said[-1:])
    assert await browser.peer.exactly(len(said)) == said
    await beat(page, browser)
    browser.peer.close()
    await page.parked()
    await page.ends()


# What becomes of a parked page.


async def test_the_app_closes_while_its_browser_is_away(stage: Stage) -> None:
    page = await one(stage)
    page.browser.peer.reset()
    await page.parked()
    page.app.say(b"41")
    page.app.close_frame(1000)
    page.app.peer.close()
    await page.released("backend")
    await page.running.quiet()
    page.empty()
    assert page.running.proxy.counters.tunnel_ends["backend"] == 1


async def test_its_pod_is_gone_and_the_browser_is_sent_to_another_which_refuses(stage: Stage) -> None:
    page = await one(stage)
    page.browser.peer.reset()
    await page.parked()
    other = await stage.backend()
    await page.backend.stop_listening()
    page.app.peer.reset()
    await page.released("backend")
    page.running.apply(other.at())
    opened = await open_socket(page.running, other, IMPLICIT.ask(page.running.cookie(other)))
    opened.app.say(OPENED, b'44{"message":"Implicit handshake failed"}')
    await opened.browser.hears(OPENED)
    assert (await opened.browser.hear()).startswith(b"44{"), "upon which the page reloads"
    opened.browser.peer.close()
    opened.app.peer.close()
    await page.running.quiet()
    page.empty()
    assert page.running.proxy.counters.tunnel_ends["backend_gone"] == 1


async def test_its_pod_leaves_the_list_and_lives_on_until_it_ends(stage: Stage) -> None:
    page = await one(stage)
    other = await stage.backend()
    page.browser.peer.reset()
    await page.parked()
    page.running.apply(other.at())
    client = await page.running.client()
    client.send(IMPLICIT.ask())
    app = await other.accepted()
    await app.head()
    app.close()
    client.close()
    page.app.peer.close()
    await page.released("backend")
    await page.running.quiet()
    page.empty()


@pytest.mark.parametrize("how", ["announces", "drains", "closes"])
async def test_a_proxy_that_leaves_lets_its_pages_go_at_once(stage: Stage, how: str) -> None:
    page = await one(stage)
    page.browser.peer.reset()
    await page.parked()
    proxy = page.running.proxy
    draining = None
    match how:
        case "announces":
            proxy.announce()
        case "drains":
            draining = asyncio.ensure_future(proxy.drain(60))
        case _:
            await proxy.close()
    assert await page.app.peer.gone() or how == "closes"
    if draining is not None:
        await soon(draining)
    if how != "closes":
        await page.released("drain")
    await page.running.quiet()
    page.empty()


async def test_a_proxy_that_leaves_parks_nobody_any_more(stage: Stage) -> None:
    page = await one(stage)
    page.running.proxy.announce()
    page.browser.peer.reset()
    assert await page.app.peer.gone()
    assert page.running.proxy.counters.parked == 0
    await page.running.quiet()
    page.empty()


async def test_a_backend_that_is_emptied_lets_its_pages_go_and_others_stay(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b, settings=PARKING)
    leaves = await open_page(running, a, Name(page="a", document="a", tab="a"))
    stays = await open_page(running, b, Name(page="b", document="b", tab="b"))
    leaves.browser.peer.reset()
    stays.browser.peer.reset()
    await stays.parked(2)
    identity = a.at().identity
    running.proxy.drains.drain(identity)
    waiting = asyncio.ensure_future(running.proxy.drains.wait(identity, 30, 0.0))
    assert await leaves.app.peer.gone()
    await leaves.released("drain")
    leaves.app.peer.close()
    assert [tunnel.identity for tunnel in stays.parking.away] == [b.at().identity]
    await stays.back()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_is_only_silent_when_its_backend_is_emptied_is_counted_as_let_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.parking.PATIENCE_S", 0.01)
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b, settings=PARKING)
    page = await open_page(running, a)
    page.app.say(b"2")
    await page.browser.hears(b"2")
    await page.away()
    identity = a.at().identity
    running.proxy.drains.drain(identity)
    waiting = asyncio.ensure_future(running.proxy.drains.wait(identity, 0.5, 0.0))
    await page.released("drain")
    page.browser.peer.close()
    page.app.peer.close()
    await soon(waiting)
    await running.quiet()
    page.empty()


async def test_a_second_tab_is_left_alone(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    first = await open_page(running, backend, Name(page="a", document="a", tab="a"))
    second = await open_page(running, backend, Name(page="b", document="b", tab="b"))
    first.browser.peer.reset()
    await first.parked()
    await beat(second)
    second.app.say(update(0))
    await second.browser.hears(update(0))
    browser = await first.back()
    await beat(first, browser)
    await beat(second)
    assert running.proxy.counters.parked == 1
    for end in (browser.peer, second.browser.peer):
        end.close()
    await first.parked(2)
    for end in (first.app, second.app):
        end.leaves()
    await running.quiet()
    first.empty()


@BOTH
async def test_a_tab_that_shows_another_page_by_now_costs_its_old_page_nothing_more(stage: Stage, name: Name) -> None:
    page = await one(stage, name)
    page.browser.peer.reset()
    await page.parked()
    new = await open_page(page.running, page.backend, Name("c0de", "d-2", "t-1", implicit=name.implicit))
    assert await page.app.peer.gone()
    await page.released("reloaded")
    page.app.peer.close()
    await beat(new)
    new.browser.peer.reset()
    await new.parked()
    await new.ends()


async def test_a_page_that_its_app_takes_in_anew_ends_the_parked_one(stage: Stage) -> None:
    """Another document of the same page, which is none of ours to judge."""
    page = await one(stage)
    page.browser.peer.reset()
    await page.parked()
    new = await open_page(page.running, page.backend, Name(document="d-2", tab="t-2"))
    assert await page.app.peer.gone()
    await page.released("reloaded")
    page.app.peer.close()
    new.browser.close_frame(1001)
    await new.app.hear_control()
    await new.ends()


async def test_after_the_limit_the_page_is_let_go_and_who_comes_later_goes_to_its_app(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=parking(park_s=0.05))
    page = await open_page(running, backend)
    page.browser.peer.reset()
    assert await page.app.peer.gone()
    await page.released("timeout")
    page.app.peer.close()
    await running.quiet()
    page.empty()
    client = await running.client()
    client.send(IMPLICIT.ask())
    app = await backend.accepted()
    assert (await app.head()).target == IMPLICIT.target()
    app.close()
    client.close()


async def test_a_silent_browser_whose_time_is_over_is_cut_off(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.parking.PATIENCE_S", 0.01)
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=parking(park_s=0.05))
    page = await open_page(running, backend)
    page.app.say(b"2")
    await page.app.hears(b"3")
    assert await page.app.peer.gone()
    await page.released("timeout")
    await page.browser.hears(b"2")
    await page.browser.peer.gone()
    await page.ends()


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
async def test_the_end_of_the_app_ends_a_page_whose_browser_is_silent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, end: Callable[[Peer], None]
) -> None:
    monkeypatch.setattr("stickyproxy.dataplane.parking.PATIENCE_S", 0.01)
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=parking())
    page = await open_page(running, backend)
    page.app.say(b"2")
    await page.app.hears(b"3")
    await backend.stop_listening()
    end(page.app.peer)
    await page.released("backend")
    await page.browser.hears(b"2")
    await page.browser.peer.gone()
    await page.ends()
    assert running.proxy.counters.tunnel_ends["backend_gone"] == 1


async def test_a_backend_that_takes_no_new_sessions_keeps_its_parked_pages(stage: Stage) -> None:
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b, settings=PARKING)
    page = await open_page(running, a)
    page.browser.peer.reset()
    await page.parked()
    running.proxy.drains.drain(a.at().identity)
    page.app.say(update(0))
    browser = await page.back()
    await browser.hears(update(0))
    await beat(page, browser)
    browser.peer.reset()
    await page.parked()
    await page.ends()


async def test_who_waits_for_a_backend_to_be_empty_waits_for_its_parked_pages(
    stage: Stage,
) -> None:
    """With an order to move pages they are let go at once; without, they are somebody's work like all others."""
    a, b = await stage.backend(), await stage.backend()
    running = await stage.proxy(a, b, settings=PARKING)
    page = await open_page(running, a)
    page.browser.peer.reset()
    await page.parked()
    identity = a.at().identity
    running.proxy.drains.drain(identity)
    waiting = asyncio.ensure_future(running.proxy.drains.wait(identity, 30))
    await turns(1000)
    assert not waiting.done()
    assert running.proxy.drains.remaining(identity).tunnels == 1
    page.app.peer.close()
    await page.released("backend")
    await running.quiet()
    await soon(waiting)
    page.empty()


@pytest.mark.parametrize("size", [1, 40, 200])
async def test_an_older_page_that_says_in_pieces_who_it_is_is_known_all_the_same(stage: Stage, size: int) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=PARKING)
    opened = await open_socket(running, backend, EXPLICIT.ask())
    await opened.connect()
    browser, app = opened.browser, opened.app
    said = client(EXPLICIT.handshake(0))
    for at in range(0, len(said), size):
        browser.peer.send(said[at : at + size])
        await turns(5)
    await app.hears(EXPLICIT.handshake(0))
    app.say(b"430[true]")
    await browser.hears(b"430[true]")
    page = Page(running, backend, EXPLICIT, browser, app, opened.head, opened.asked)
    browser.peer.reset()
    await page.parked()
    page.app.say(update(0))
    again = await page.back()
    await again.hears(update(0))
    again.peer.reset()
    await page.parked()
    await page.ends()
