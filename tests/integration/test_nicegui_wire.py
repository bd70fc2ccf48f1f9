"""What the proxy does for NiceGUI on the wire: pages lead their sockets, and assets are found."""

import asyncio
import gzip

import pytest

from stickyproxy.core.nicegui import added
from stickyproxy.core.settings import AffinitySettings, HelpSettings, Settings, TimeSettings

from .harness import (
    CHUNKED,
    QUICK,
    Answer,
    Message,
    Stage,
    chunked,
    eventually,
    named,
    request,
    response,
    settles,
    soon,
    turns,
)
from .test_streaming import MB, SMALL
from .test_tunnel import SWITCH

PAGE_ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
HTML = (
    b"<!doctype html><html><body><script>createApp(parseElements(String.raw`{}`), {\n"
    b'        version: "3.18.0",\n        prefix: "",\n'
    b"        query: {'client_id': '%b', 'next_message_id': 0},\n"
    b"      });</script>%b</body></html>"
) % (PAGE_ID.encode(), b"x" * 20_000)
PAGE = ("X-NiceGUI-Content: page", "Cache-Control: no-store", "Content-Type: text/html; charset=utf-8")
ASSET = "/_nicegui/3.18.0/static/nicegui.js"
FOREVER = "Cache-Control: public, max-age=31536000, immutable"
NOBODY = Message(b"", "", ())

SOCKET = request(
    f"GET /_nicegui_ws/socket.io/?client_id={PAGE_ID}&EIO=4&transport=websocket HTTP/1.1",
    "Connection: Upgrade", "Upgrade: websocket",
)  # fmt: skip

CACHING = Settings(times=QUICK, help=HelpSettings(asset_cache_bytes=64 * MB))


def page(asked: Message) -> bytes:
    return response("200 OK", *PAGE, body=HTML)


def missing(_: Message) -> bytes:
    return response("404 Not Found", FOREVER, body=b"nothing")


@pytest.mark.parametrize("coding", ["plain", "gzip", "chunked", "gzip-chunked", "close"])
async def test_a_page_passes_untouched_and_its_socket_follows_it_without_a_cookie(stage: Stage, coding: str) -> None:
    content = gzip.compress(HTML) if "gzip" in coding else HTML
    lines = [*PAGE, *(["Content-Encoding: gzip"] if "gzip" in coding else [])]
    one, two, three = [await stage.backend() for _ in range(3)]
    running = await stage.proxy(one, two, three)
    client = await running.client()
    client.send(request("GET / HTTP/1.1", running.cookie(two)))
    upstream = await two.accepted()
    await upstream.head()
    if "chunked" in coding:
        data = response("200 OK", *lines, CHUNKED, body=chunked(content[:100], content[100:]))
    elif coding == "close":
        data = response("200 OK", *lines, "Close: 1", body=content)
    else:
        data = response("200 OK", *lines, body=content)
    for at in range(0, len(data), 97):
        upstream.send(data[at : at + 97])
        await turns(1)
    if coding == "close":
        upstream.close()
    message = await client.message()
    assert message.body == content
    for _ in range(3):
        socket = await running.client()
        socket.send(SOCKET)
        upstream = await two.accepted()
        await upstream.head()
        upstream.send(SWITCH)
        head = await socket.head()
        assert head.status == 101


async def test_a_page_arrives_as_it_is_written(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", *PAGE, f"Content-Length: {len(HTML)}"))
    await client.head()
    for at in range(0, len(HTML), 1000):
        piece = HTML[at : at + 1000]
        upstream.send(piece)
        assert await client.exactly(len(piece)) == piece


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("coding", ["plain", "gzip", "chunked"])
async def test_with_page_tokens_a_page_carries_its_token_and_is_whole(stage: Stage, coding: str, version: str) -> None:
    content = gzip.compress(HTML) if coding == "gzip" else HTML
    lines = [*PAGE, *(["Content-Encoding: gzip"] if coding == "gzip" else [])]
    data = (
        response("200 OK", *lines, CHUNKED, body=chunked(content[:999], content[999:]))
        if coding == "chunked"
        else response("200 OK", *lines, body=content)
    )
    backend = await stage.backend(lambda _: data)
    running = await stage.proxy(backend, settings=Settings(times=QUICK, affinity=AffinitySettings(page_token=True)))
    client = await running.client()
    client.send(request(f"GET / HTTP/{version}"))
    message = await client.message()
    body = gzip.decompress(message.body) if coding == "gzip" else message.body
    token = running.proxy.snapshot.token_of(backend.at())
    assert body.replace(added(token), b"") == HTML
    assert len(body) > len(HTML)
    if version == "1.1":
        client.send(request())
        assert (await client.message()).status == 200


async def test_a_token_in_the_query_is_a_pin(stage: Stage) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    running = await stage.proxy(one, two)
    for backend, name in ((one, b"one"), (two, b"two")):
        token = running.proxy.snapshot.token_of(backend.at()).decode()
        for _ in range(2):
            assert (await running.ask(request(f"GET /x?a=1&_stickyproxy={token} HTTP/1.1"))).body == name


# Assets.


async def test_an_asset_that_one_backend_does_not_have_comes_from_another(stage: Stage) -> None:
    has_not, has = await stage.backend(missing), await stage.backend(named("file"))
    running = await stage.proxy(has_not, has)
    client = await running.client()
    for _ in range(3):
        client.send(request(f"GET {ASSET} HTTP/1.1", running.cookie(has_not)))
        message = await client.message()
        assert (message.status, message.body, message.token) == (200, b"file", None)
    assert +running.proxy.counters.moved == {}


async def test_an_asset_that_no_backend_has_is_a_404_that_nobody_keeps(stage: Stage) -> None:
    backends = [await stage.backend(missing) for _ in range(3)]
    running = await stage.proxy(*backends)
    message = await running.ask(request(f"GET {ASSET} HTTP/1.1"))
    assert (message.status, message.body, message.get("cache-control")) == (404, b"nothing", "no-store")
    assert [len(b.requests) for b in backends] == [1, 1, 1]


@pytest.mark.parametrize("cut", [5, 15, 30, 60])
async def test_a_404_in_two_pieces_leaves_nothing_in_the_other_backends_answer(stage: Stage, cut: int) -> None:
    has_not, has = await stage.backend(), await stage.backend(named("file"))
    running = await stage.proxy(has_not, has)
    client = await running.client()
    client.send(request(f"GET {ASSET} HTTP/1.1", running.cookie(has_not)))
    upstream = await has_not.accepted()
    await upstream.head()
    data = missing(NOBODY)
    upstream.send(data[:cut])
    await turns()
    upstream.send(data[cut:])
    message = await client.message()
    assert (message.start, message.body) == ("HTTP/1.1 200 OK", b"file")


async def test_an_asked_body_is_not_lost_by_asking_another_backend(stage: Stage) -> None:
    """A GET may have a body (RFC 9110 section 9.3.1): it is gone once sent, so such a request is asked once."""
    has_not = await stage.backend(missing)
    other = await stage.backend(named("file"))
    running = await stage.proxy(has_not, other, settings=Settings(times=TimeSettings(sweep_s=0.05, response_s=2)))
    message = await running.ask(request(f"GET {ASSET} HTTP/1.1", running.cookie(has_not), body=b"body"))
    assert message.status in (200, 404), "the second backend waits for a body that never comes"
    assert all(r.body == b"body" for r in other.requests)


def asset(size: int) -> Answer:
    return lambda _: response("200 OK", FOREVER, 'ETag: "1"', "Content-Type: text/javascript", body=bytes(size))


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_asset_is_fetched_once(stage: Stage, framing: str) -> None:
    body = bytes(range(256)) * 1000
    lines = [CHUNKED] if framing == "chunked" else []
    data = response("200 OK", FOREVER, 'ETag: "1"', *lines, body=chunked(body[:9], body[9:]) if lines else body)
    backend = await stage.backend(lambda _: data)
    running = await stage.proxy(backend, settings=CACHING)
    ask = request(f"GET {ASSET} HTTP/1.1")
    for _ in range(5):
        message = await running.ask(ask)
        assert (message.status, message.body) == (200, body)
    assert (await running.ask(request(f"GET {ASSET} HTTP/1.0", "Host: app.test"))).body == body
    not_modified = await running.ask(request(f"GET {ASSET} HTTP/1.1", 'If-None-Match: "1"'))
    assert not_modified.status == 304
    assert len(backend.requests) == 1


async def test_many_who_ask_at_once_wait_for_one_fetch(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=CACHING)
    clients = [await running.client() for _ in range(20)]
    for client in clients:
        client.send(request(f"GET {ASSET} HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    await turns()
    upstream.send(asset(1000)(NOBODY))
    for client in clients:
        assert len((await client.message()).body) == 1000
    assert backend.connections == 1


async def test_600_cached_assets_in_one_write_are_answered_in_order(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(asset(100)), settings=CACHING)
    client = await running.client()
    client.send(request(f"GET {ASSET} HTTP/1.1") * 600)
    for _ in range(600):
        assert len((await client.message()).body) == 100


async def test_cached_assets_are_not_piled_up_for_a_client_that_does_not_read(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(asset(300_000)), settings=CACHING)
    await running.ask(request(f"GET {ASSET} HTTP/1.1"))
    client = await running.client(receive_buffer=SMALL, limit=SMALL)
    client.send(request(f"GET {ASSET} HTTP/1.1") * 500)
    counters = running.proxy.counters
    assert await settles(lambda: counters.asset_hits) < 300
    (downstream,) = [d for d in running.downstreams if d.transport.get_write_buffer_size()]
    assert downstream.transport.get_write_buffer_size() < 2 * MB
    client.reset()


@pytest.mark.parametrize("how", ["vanishes", "fails", "breaks off"])
async def test_who_waits_for_a_fetch_that_ends_badly_is_served_all_the_same(stage: Stage, how: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=CACHING)
    first, second = await running.client(), await running.client()
    first.send(request(f"GET {ASSET} HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    second.send(request(f"GET {ASSET} HTTP/1.1"))
    await eventually(lambda: running.waiting, "the second waits")
    if how == "vanishes":
        first.reset()
    elif how == "fails":
        upstream.send(response("500 Internal Server Error", body=b"oops"))
        assert (await first.message()).status == 500
    else:
        upstream.send(asset(1000)(NOBODY)[:-10])
        await first.head()
        upstream.close()
    again = await backend.accepted()
    await again.head()
    again.send(asset(1000)(NOBODY))
    assert len((await second.message()).body) == 1000


async def test_nobody_waits_for_another_client_that_reads_slowly(stage: Stage) -> None:
    """Else one stalled phone holds up the page of every other visitor."""
    size = 15 * MB
    backend = await stage.backend(asset(size))
    running = await stage.proxy(backend, settings=CACHING)
    slow = await running.client(receive_buffer=SMALL, limit=SMALL)
    slow.send(request(f"GET {ASSET} HTTP/1.1"))
    await running.stalls()
    quick = await running.client()
    quick.send(request(f"GET {ASSET} HTTP/1.1"))
    message = await soon(quick.message())
    assert len(message.body) == size
    slow.reset()


async def test_a_client_that_vanishes_while_it_waits_for_a_fetch_is_forgotten(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=CACHING)
    first, second = await running.client(), await running.client()
    first.send(request(f"GET {ASSET} HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    second.send(request(f"GET {ASSET} HTTP/1.1"))
    await eventually(lambda: running.waiting, "the second waits")
    second.reset()
    await eventually(lambda: len(running.downstreams) == 1, "the second is gone")
    upstream.send(asset(1000)(NOBODY))
    assert len((await first.message()).body) == 1000
    assert not running.waiting


async def test_a_drain_with_clients_that_wait_for_a_fetch_ends(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=CACHING)
    clients = [await running.client() for _ in range(3)]
    for client in clients:
        client.send(request(f"GET {ASSET} HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    await turns()
    draining = asyncio.ensure_future(running.proxy.drain(60))
    await turns()
    upstream.send(asset(1000)(NOBODY))
    for client in clients:
        message = await client.message()
        assert (len(message.body), message.get("connection")) == (1000, "close")
    await soon(draining)
