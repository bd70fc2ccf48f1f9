"""The proxy before replicas that speak NiceGUI's wire: pages lead, assets are found, loops are told, nothing leaks."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from uuid import NAMESPACE_DNS, uuid5

import pytest

from stickyproxy.core.backends import Phase
from stickyproxy.core.nicegui import added
from stickyproxy.core.reloads import YOUNG_S
from stickyproxy.core.settings import AffinitySettings, HelpSettings, Settings, TimeSettings
from stickyproxy.dataplane.dispersal import Watch

from .harness import (
    CHUNKED,
    QUICK,
    Message,
    Peer,
    RawBackend,
    Running,
    Stage,
    chunked,
    eventually,
    request,
    response,
    turns,
)

PAGE = ("X-NiceGUI-Content: page", "Cache-Control: no-store", "Content-Type: text/html; charset=utf-8")
FOREVER = "Cache-Control: public, max-age=31536000, immutable, stale-while-revalidate=31536000"
NAVIGATE = ("Sec-Fetch-Mode: navigate", "Accept: text/html")
ACCEPTED = b'40{"sid":"yyyyyyyyyyyyyyyyyyyy"}'
REFUSED = b'44{"message":"Implicit handshake failed"}'
REFUSED_IN_3_6 = b'44{"message":"Connection rejected by server"}'
REFUSED_AS_LONG_AGO = b'44{"message":"timeout"}'
OPENED = b'0{"sid":"xxxxxxxxxxxxxxxxxxxx","upgrades":[],"pingTimeout":2000,"pingInterval":4000}'

CACHING = Settings(times=QUICK, help=HelpSettings(asset_cache_bytes=1 << 20))
WITH_TOKENS = Settings(times=QUICK, affinity=AffinitySettings(page_token=True))


def html(client_id: str, version: str, shows: str = "") -> bytes:
    return (
        '<!DOCTYPE html>\n<html><body><script type="module">\n      const app = createApp(parseElements(String.raw`'
        f'{{"1":{{"tag":"div","text":"query: {{\'client_id\': \'{uuid5(NAMESPACE_DNS, "decoy")}\'}},",'
        f'"src":"{shows}"}}}}`), {{\n'
        f'        version: "{version}",\n        prefix: "",\n'
        f"        query: {{'q': '}}\\'', 'client_id': '{client_id}', 'next_message_id': 0}},\n"
        "        extraHeaders: {},\n      });\n    </script>" + "<p>x</p>" * 500 + "</body></html>\n"
    ).encode()


def frame(message: bytes) -> bytes:
    return b"\x81%c%b" % (len(message), message)


class App:
    """A scripted replica: answers as NiceGUI does, and tells by `X-App` which one it is."""

    def __init__(self, name: str, version: str = "3.18.0", **files: bytes) -> None:
        self.name = name
        self.version = version
        self.files = files
        """Contents by the asset's last path segment without its dots."""
        self.pages: list[str] = []
        self.coding = "length"
        self.close = False
        self.refusal = b""
        """What it says on every socket; empty: it accepts those of its own pages and refuses others as 3.18 does."""
        self.rest = b""
        """Bytes that follow on every socket."""
        self.shows = ""
        """Path of a file that its pages show."""
        self.lines: tuple[str, ...] = ()
        """Further header lines of assets."""

    def __call__(self, asked: Message) -> bytes:
        """Answer one request."""
        path, _, query = asked.target.partition("?")
        close = ("Connection: close",) if self.close else ()
        me = (f"X-App: {self.name}", *close)
        if "/_nicegui_ws/" in path:
            return self._socket(asked, query, me)
        if found := re.search("/_nicegui/client/([^/]+)/", path):
            mine = found[1] in self.pages
            return response("200 OK" if mine else "404 Not Found", *me, body=self.name.encode())
        if found := re.search("/_nicegui/([0-9][^/]*)/", path):
            content = self.files.get(path.rpartition("/")[2].replace(".", ""))
            if content is None or found[1] != self.version:
                return self._answer(asked, "404 Not Found", *me, FOREVER, "Content-Type: application/json", body=b"{}")
            return self._answer(asked, "200 OK", *me, FOREVER, *self.lines, body=content)
        if self.shows and path.endswith(self.shows):
            return self._answer(asked, "200 OK", *me, body=b"file")
        if "/_nicegui/" in path:
            return response("404 Not Found", *me, *PAGE, body=html("in-a-404", self.version))
        return self._page(me)

    def _answer(self, asked: Message, status: str, *lines: str, body: bytes) -> bytes:
        whole = response(status, *lines, body=body)
        return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if asked.method == "HEAD" else whole

    def _socket(self, asked: Message, query: str, me: tuple[str, ...]) -> bytes:
        if asked.get("upgrade"):
            head = "\r\n".join(("HTTP/1.1 101 Switching Protocols", *me, "Upgrade: websocket", "Connection: Upgrade"))
            mine = re.search("client_id=([^&]+)", query)
            told = self.refusal or (ACCEPTED if mine and mine[1] in self.pages else REFUSED)
            return head.encode() + b"\r\n\r\n" + frame(OPENED) + frame(told) + self.rest
        sid = dict(part.partition("=")[::2] for part in query.split("&")).get("sid")
        if sid is not None and sid != f"sid-of-{self.name}":
            return response("400 Bad Request", *me, body=b'"Invalid session"')
        if sid is not None and self.refusal:
            return response("200 OK", *me, body=self.refusal)
        return response("200 OK", *me, body=OPENED)

    def _page(self, me: tuple[str, ...]) -> bytes:
        self.pages.append(str(uuid5(NAMESPACE_DNS, f"{self.name} {len(self.pages)}")))
        content = html(self.pages[-1], self.version, self.shows)
        lines = [*me, *PAGE]
        if "gzip" in self.coding:
            content = gzip.compress(content)
            lines.append("Content-Encoding: gzip")
        elif "deflate" in self.coding:
            content = zlib.compress(content)
            lines.append("Content-Encoding: deflate")
        elif "br" in self.coding:
            lines.append("Content-Encoding: br")
        if "chunked" in self.coding:
            return response("200 OK", *lines, CHUNKED, body=chunked(content[:300], content[300:301], content[301:]))
        return response("200 OK", *lines, body=content)


class Fleet:
    """Replicas and a proxy before them."""

    def __init__(self, running: Running, apps: list[App], backends: list[RawBackend]) -> None:
        self.running = running
        self.apps = apps
        self.backends = backends

    def cookie(self, number: int) -> str:
        """Give the header line that pins a client to a replica."""
        return self.running.cookie(self.backends[number])

    def token(self, number: int) -> str:
        """Give a replica's token."""
        return self.cookie(number).rpartition("=")[2]

    def asked(self, part: str) -> list[int]:
        """Count the requests of each replica whose target has a part."""
        return [sum(part in message.target for message in backend.requests) for backend in self.backends]

    async def page(self, number: int, *fields: str, target: str = "/") -> str:
        """Load a page from a replica and give its client id."""
        message = await self.running.ask(request(f"GET {target} HTTP/1.1", self.cookie(number), *fields))
        assert (message.status, message.get("x-app")) == (200, self.apps[number].name)
        return self.apps[number].pages[-1]

    async def socket(self, client_id: str, *fields: str, more: str = "") -> tuple[Peer, Message]:
        """Open a page's socket; gives the client and the head of the answer."""
        client = await self.running.client()
        client.send(
            request(
                f"GET /_nicegui_ws/socket.io/?{more}client_id={client_id}&implicit_handshake=true&EIO=4"
                "&transport=websocket HTTP/1.1",
                "Connection: Upgrade", "Upgrade: websocket", *fields,
            )
        )  # fmt: skip
        head = await client.head()
        if head.status == 101:
            assert await client.exactly(2 + len(OPENED)) == frame(OPENED)
        return client, head

    async def refused(self, client_id: str, *fields: str) -> bytes:
        """Open a page's socket and give the refusal that the page is told."""
        client, head = await self.socket(client_id, *fields)
        assert head.status == 101
        told = await client.exactly((await client.exactly(2))[1])
        client.close()
        await eventually(lambda: not self.running.proxy.tunnels, "the socket has ended")
        return told

    async def poll(self, client_id: str, *fields: str, sid: str = "", method: str = "GET") -> Message:
        """Poll for a page."""
        query = f"client_id={client_id}&EIO=4&transport=polling&t=abcdefgh{f'&sid={sid}' if sid else ''}"
        return await self.running.ask(request(f"{method} /_nicegui_ws/socket.io/?{query} HTTP/1.1", *fields))

    async def asset(self, name: str, *fields: str, method: str = "GET", version: str = "3.18.0") -> Message:
        """Ask for an asset."""
        return await self.running.ask(request(f"{method} /_nicegui/{version}/components/1/{name} HTTP/1.1", *fields))


async def fleet(stage: Stage, *apps: App, settings: Settings | None = None) -> Fleet:
    backends = [await stage.backend(app) for app in apps]
    return Fleet(await stage.proxy(*backends, settings=settings), list(apps), backends)


async def trio(stage: Stage, settings: Settings | None = None) -> Fleet:
    return await fleet(stage, App("one"), App("two"), App("three"), settings=settings)


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture(autouse=True)
async def discreet(stage: Stage, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fail where any line of any logger tells a client id, a token, a cookie or an upload path."""
    caplog.set_level("DEBUG")
    yield
    tokens = {t.decode() for running in stage.proxies for t in running.proxy.snapshot.kept}
    for record in caplog.records:
        told = record.getMessage() + (record.exc_text or "")
        assert not UUID.search(told), told
        assert not [word for word in ("client_id", "_nicegui", "ookie", "upload", *tokens) if word in told], told


# Pages lead their sockets.


@pytest.mark.parametrize("http", ["1.0", "1.1"])
@pytest.mark.parametrize("coding", ["length", "chunked", "gzip", "gzip chunked", "deflate", "deflate chunked"])
async def test_a_page_decides_for_its_socket_uploads_and_polls_against_the_cookie(
    stage: Stage, coding: str, http: str
) -> None:
    scene = await trio(stage)
    scene.apps[1].coding = coding
    message = await scene.running.ask(request(f"GET / HTTP/{http}", scene.cookie(1)))
    (client_id,) = scene.apps[1].pages
    decoded = {"g": gzip.decompress, "d": zlib.decompress}.get(coding[0], bytes)(message.body)
    assert decoded == html(client_id, "3.18.0")
    _, head = await scene.socket(client_id, scene.cookie(0))
    assert (head.status, head.get("x-app"), head.token) == (101, "two", None)
    upload = request(f"POST /gui/_nicegui/client/{client_id}/upload/6 HTTP/1.1", scene.cookie(0), body=b"file")
    assert (await scene.running.ask(upload)).body == b"two"
    for method in ("GET", "POST"):
        assert (await scene.poll(client_id, scene.cookie(2), method=method)).get("x-app") == "two"


async def test_a_page_that_cannot_be_read_follows_its_cookie(stage: Stage) -> None:
    scene = await trio(stage, WITH_TOKENS)
    scene.apps[1].coding = "br"
    message = await scene.running.ask(request("GET / HTTP/1.1", scene.cookie(1)))
    (client_id,) = scene.apps[1].pages
    assert message.body == html(client_id, "3.18.0")
    assert len(scene.running.proxy.pages) == 0
    assert (await scene.socket(client_id, scene.cookie(2)))[1].get("x-app") == "three"


async def test_a_404_under_niceguis_own_paths_is_no_page_to_learn(stage: Stage) -> None:
    scene = await trio(stage)
    for path in ("auto/static/0/a.png", "client/x/upload/1", "3.18.0/static/none.js"):
        await scene.running.ask(request(f"GET /_nicegui/{path} HTTP/1.1"))
    assert len(scene.running.proxy.pages) == 0


@pytest.mark.parametrize("target", ["/?next=/_nicegui", "/_nicegui_like/page", "/?a=b&_stickyproxy={token}"])
async def test_a_page_whose_address_only_looks_like_niceguis_is_learned_like_any_other(
    stage: Stage, target: str
) -> None:
    scene = await trio(stage, WITH_TOKENS)
    scene.apps[1]._page(())  # its client ids are not those of the others
    token = scene.token(1)
    message = await scene.running.ask(request(f"GET {target.format(token=token)} HTTP/1.1", scene.cookie(1)))
    client_id = scene.apps[1].pages[-1]
    assert client_id.encode() in message.body
    assert (await scene.socket(client_id, scene.cookie(0)))[1].get("x-app") == "two"
    assert added(token.encode()) in message.body


async def test_a_page_stays_on_a_draining_backend_against_the_cookie(stage: Stage) -> None:
    scene = await trio(stage)
    client_id = await scene.page(0)
    scene.running.apply(scene.backends[0].at(Phase.DRAINING), scene.backends[1].at(), scene.backends[2].at())
    for fields in ((), (scene.cookie(1),)):
        _, head = await scene.socket(client_id, *fields)
        assert (head.get("x-app"), head.token) == ("one", None)
    assert (await scene.poll(client_id)).get("x-app") == "one"


@pytest.mark.parametrize("cookie", [False, True])
@pytest.mark.parametrize("how", ["leaves the list", "refuses"])
async def test_a_page_whose_backend_is_gone_moves_with_the_new_cookie_in_the_101(
    stage: Stage, how: str, cookie: bool
) -> None:
    scene = await trio(stage)
    scene.apps[0].close = True
    fields = [scene.cookie(0)] if cookie else []
    client_id = await scene.page(0)
    if how == "refuses":
        await scene.backends[0].stop_listening()
    else:
        scene.running.apply(scene.backends[1].at(), scene.backends[2].at())
    client, head = await scene.socket(client_id, *fields)
    assert (head.status, head.get("x-app")) in ((101, "two"), (101, "three"))
    moved_to = scene.apps.index(next(app for app in scene.apps if app.name == head.get("x-app")))
    assert head.token == scene.token(moved_to)
    assert scene.running.counters["gone" if how != "refuses" else "refused"] == 1
    assert await client.exactly(2 + len(REFUSED)) == frame(REFUSED)
    known = scene.running.proxy.pages.find(client_id.encode())
    assert known is not None
    assert known.identity == scene.backends[0].at().identity, "who refuses a page is not taken for its backend"
    assert known.sockets == 0


@pytest.mark.parametrize(
    ("version", "refusal", "told"),
    [
        ("1.4.37", REFUSED, REFUSED_AS_LONG_AGO),
        ("3.6.0", REFUSED_IN_3_6, REFUSED_AS_LONG_AGO),
        ("3.6.0", REFUSED, REFUSED_AS_LONG_AGO),
        ("3.7.0", REFUSED_IN_3_6, REFUSED),
        ("3.18.0", REFUSED_IN_3_6, REFUSED),
        ("3.18.0", REFUSED, REFUSED),
        ("3.18.0", b'44{"message":"own words"}', b'44{"message":"own words"}'),
    ],
)
async def test_a_page_is_refused_in_the_words_on_which_its_version_reloads(
    stage: Stage, version: str, refusal: bytes, told: bytes
) -> None:
    scene = await fleet(stage, App("one", version), App("two"))
    client_id = await scene.page(0)
    scene.apps[1].refusal = refusal
    scene.running.apply(scene.backends[1].at())
    assert await scene.refused(client_id) == told


@pytest.mark.parametrize(("refusal", "told"), [(REFUSED, REFUSED), (REFUSED_IN_3_6, REFUSED_AS_LONG_AGO)])
async def test_a_page_that_this_proxy_has_not_seen_is_taken_to_be_as_old_as_who_refuses_it(
    stage: Stage, refusal: bytes, told: bytes
) -> None:
    scene = await fleet(stage, App("one"))
    scene.apps[0].refusal = refusal
    assert await scene.refused("unknown") == told
    assert len(scene.running.proxy.pages) == 0, "a flood of client ids of nobody pushes no page out"


async def test_what_comes_behind_the_handshake_passes_untouched_whatever_it_is(stage: Stage) -> None:
    scene = await fleet(stage, App("one"))
    scene.apps[0].rest = bytes(range(256)) * 4000
    client, _ = await scene.socket(await scene.page(0))
    behind = frame(ACCEPTED) + scene.apps[0].rest
    assert await client.exactly(len(behind)) == behind


@pytest.mark.parametrize("end", ["half-close", "reset"])
async def test_a_backend_that_ends_in_its_handshake_ends_the_socket(stage: Stage, end: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(
        request("GET /_nicegui_ws/socket.io/?client_id=a&EIO=4 HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")
    )
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.head()
    half = frame(OPENED)[:-1]
    upstream.send(half)
    await turns()
    if end == "half-close":
        upstream.close()
        assert await client.exactly(len(half)) == half
    else:
        upstream.reset()
    client.close()
    await eventually(lambda: not running.proxy.tunnels, "both ends are gone")
    assert len(running.proxy.pages) == 0


async def test_a_tunnel_that_is_watched_for_its_end_loses_no_byte_of_its_handshake(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(
        request("GET /_nicegui_ws/socket.io/?client_id=a&EIO=4 HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket")
    )
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.head()
    upstream.send(frame(OPENED)[:9])
    await turns()
    (tunnel,) = running.proxy.tunnels
    Watch(tunnel, running.proxy.time)
    upstream.send(frame(OPENED)[9:] + frame(ACCEPTED))
    whole = frame(OPENED) + frame(ACCEPTED)
    assert await client.exactly(len(whole)) == whole
    page = running.proxy.pages.find(b"a")
    assert page is not None
    assert page.sockets == 1
    client.close()


# Files that only the backend of a page has.


FILE_OF_PAGE = "/_nicegui/auto/static/0123/picture.png"


async def test_a_file_that_a_page_shows_comes_from_its_backend_without_a_cookie(stage: Stage) -> None:
    scene = await trio(stage)
    for number in (2, 1, 0, 1):
        scene.apps[number].shows = FILE_OF_PAGE
        await scene.page(number)
        for prefix in ("", "/gui"):
            for method in ("GET", "HEAD"):
                message = await scene.running.ask(request(f"{method} {prefix}{FILE_OF_PAGE}?a=1 HTTP/1.1"))
                assert (message.get("x-app"), message.token) == (scene.apps[number].name, None)
    assert (await scene.running.ask(request(f"GET {FILE_OF_PAGE} HTTP/1.1", scene.cookie(2)))).get("x-app") == "three"
    target = f"{FILE_OF_PAGE}?_stickyproxy={scene.token(0)}"
    assert (await scene.running.ask(request(f"GET {target} HTTP/1.1", scene.cookie(2)))).get("x-app") == "one"
    scene.running.apply(scene.backends[0].at(), scene.backends[2].at())
    assert (await scene.running.ask(request(f"GET {FILE_OF_PAGE} HTTP/1.1"))).get("x-app") in ("one", "three")


# Tokens in pages.


@pytest.mark.parametrize("http", ["1.0", "1.1"])
@pytest.mark.parametrize("coding", ["length", "chunked", "gzip", "gzip chunked", "deflate"])
async def test_the_token_of_a_page_leads_through_a_proxy_that_never_saw_it(
    stage: Stage, coding: str, http: str
) -> None:
    scene = await trio(stage, WITH_TOKENS)
    scene.apps[1].coding = coding
    client = await scene.running.client()
    client.send(request(f"GET / HTTP/{http}", scene.cookie(1)))
    message = await client.message()
    (client_id,) = scene.apps[1].pages
    assert message.get("content-length") is None
    assert message.get("transfer-encoding") == ("chunked" if http == "1.1" else None)
    body = {"g": gzip.decompress, "d": zlib.decompress}.get(coding[0], bytes)(message.body)
    addition = added(scene.token(1).encode())
    assert body.replace(b"query: {" + addition, b"query: {") == html(client_id, "3.18.0")
    assert body.count(addition) == 1
    if http == "1.1":
        client.send(request("GET / HTTP/1.1", scene.cookie(1)))
        assert (await client.message()).status == 200, "the connection goes on"
    other = Fleet(await stage.proxy(*scene.backends), scene.apps, scene.backends)
    _, head = await other.socket(client_id, scene.cookie(0), more=f"_stickyproxy={scene.token(1)}&")
    assert (head.get("x-app"), head.token) == ("two", None)


@pytest.mark.parametrize("forged", ["AAAAAAAAAAAAAAAA", "", "%00", "a" * 100])
async def test_a_token_that_names_nobody_leaves_the_word_to_the_cookie(stage: Stage, forged: str) -> None:
    scene = await trio(stage)
    _, head = await scene.socket("unknown", scene.cookie(2), more=f"_stickyproxy={forged}&")
    assert (head.get("x-app"), head.token) == ("three", None)


async def test_a_page_that_is_only_called_gzip_still_arrives_with_tokens(stage: Stage) -> None:
    """Without tokens it arrives as it is; to break it off would take away what works."""
    backend = await stage.backend(lambda _: response("200 OK", *PAGE, "Content-Encoding: gzip", body=html("a", "3.1")))
    running = await stage.proxy(backend, settings=WITH_TOKENS)
    assert (await running.ask(request())).body == html("a", "3.1")


# Polls.


async def test_only_a_poll_of_an_established_session_shows_where_an_unknown_page_lives(stage: Stage) -> None:
    scene = await trio(stage)
    pages = scene.running.proxy.pages
    assert (await scene.poll("page-1", scene.cookie(1))).status == 200
    assert pages.find(b"page-1") is None, "any backend accepts a first poll"
    assert (await scene.poll("page-1", scene.cookie(0), sid="sid-of-two")).status == 400
    assert pages.find(b"page-1") is None
    assert (await scene.poll("page-1", scene.cookie(1), sid="sid-of-two", method="POST")).status == 200
    assert (await scene.poll("page-1", scene.cookie(0), sid="sid-of-two")).get("x-app") == "two"


async def test_a_parameter_of_the_app_is_not_taken_for_a_session(stage: Stage) -> None:
    scene = await trio(stage)
    target = "/_nicegui_ws/socket.io/?visid=7&client_id=page-1&EIO=4&transport=polling&t=a"
    assert (await scene.running.ask(request(f"GET {target} HTTP/1.1"))).status == 200
    assert scene.running.proxy.pages.find(b"page-1") is None


# Assets that not every backend has.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("settings", [None, CACHING], ids=["plain", "caching"])
async def test_an_asset_that_is_missing_is_asked_of_each_of_the_others_once(
    stage: Stage, method: str, settings: Settings | None
) -> None:
    scene = await fleet(stage, *[App(f"no{n}") for n in range(4)], App("has", tablejs=b"file"), settings=settings)
    for number in range(4):
        message = await scene.asset("table.js", scene.cookie(number), method=method)
        assert (message.status, message.get("x-app"), message.token) == (200, "has", None)
        assert message.body == (b"file" if method == "GET" else b"")
        assert "immutable" in (message.get("cache-control") or "")
        if settings is CACHING and method == "GET":
            break
        assert max(scene.asked("table.js")) == number + 1
    assert +scene.running.proxy.counters.moved == {}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("settings", [None, CACHING], ids=["plain", "caching"])
async def test_a_404_that_remains_is_kept_by_nobody(stage: Stage, method: str, settings: Settings | None) -> None:
    scene = await trio(stage, settings)
    for times in (1, 2):
        message = await scene.asset("none.js", scene.cookie(0), method=method)
        assert (message.status, message.get("cache-control")) == (404, "no-store")
        assert b"immutable" not in message.raw
        assert scene.asked("none.js") == [times] * 3


@pytest.mark.parametrize("status", ["400 Bad Request", "405 Method Not Allowed", "410 Gone", "500 Oops", "503 Busy"])
async def test_no_other_failure_under_an_immutable_path_is_kept_either(stage: Stage, status: str) -> None:
    backend = await stage.backend(lambda _: response(status, FOREVER, "CACHE-CONTROL: public", body=b"no"))
    running = await stage.proxy(backend, settings=CACHING)
    message = await running.ask(request("GET /gui/_nicegui/3.18.0/static/a.js HTTP/1.1"))
    assert (f"{message.status}", message.all("cache-control")) == (status[:3], ["no-store"])
    assert message.body == b"no"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_what_is_not_a_read_is_asked_once(stage: Stage, method: str) -> None:
    scene = await fleet(stage, App("no"), App("has", tablejs=b"file"))
    assert (await scene.asset("table.js", scene.cookie(0), method=method)).status == 404
    assert scene.asked("table.js") == [1, 0]


@pytest.mark.parametrize("path", ["auto/static/0123/a.png", "auto/media/0123/a.mp4", "client/{}/upload/6"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_files_and_uploads_of_one_page_are_never_asked_of_others(stage: Stage, path: str, method: str) -> None:
    scene = await trio(stage)
    client_id = await scene.page(0)
    scene.apps[0].pages.clear()
    target = f"/_nicegui/{path.format(client_id)}"
    message = await scene.running.ask(request(f"{method} {target} HTTP/1.1", scene.cookie(0)))
    assert message.status == 404
    assert scene.asked(target) == [1, 0, 0]


async def test_an_asset_with_a_body_is_asked_once(stage: Stage) -> None:
    """The body is gone with the first request (RFC 9110 section 9.3.1 lets a GET have one)."""
    scene = await fleet(
        stage, App("no"), App("has", tablejs=b"file"), settings=Settings(times=TimeSettings(sweep_s=0.05, response_s=1))
    )
    data = request("GET /_nicegui/3.18.0/static/table.js HTTP/1.1", scene.cookie(0), body=b"body")
    assert (await scene.running.ask(data)).status == 404


@pytest.mark.parametrize("cut", [1, 8, 40])
async def test_a_404_that_comes_in_two_pieces_leaves_nothing_behind(stage: Stage, cut: int) -> None:
    no, has = await stage.backend(), await stage.backend(App("has", tablejs=b"file"))
    running = await stage.proxy(no, has)
    client = await running.client()
    client.send(request("GET /_nicegui/3.18.0/static/table.js HTTP/1.1", running.cookie(no)))
    upstream = await no.accepted()
    await upstream.head()
    data = response("404 Not Found", FOREVER, body=b"{}")
    upstream.send(data[:cut])
    await turns()
    upstream.send(data[cut:])
    message = await client.message()
    assert (message.status, message.body) == (200, b"file")


# Versions.


@pytest.mark.parametrize("known", [True, False])
async def test_an_asset_of_another_nicegui_version_goes_to_the_backend_that_runs_it(stage: Stage, known: bool) -> None:
    scene = await fleet(
        stage, App("old", "2.24.2", ajs=b"old"), App("other", "3.6.0"), App("new", "3.18.0", ajs=b"new")
    )
    if known:
        for number in range(3):
            await scene.page(number)
    for number in range(3):
        for version, body in (("2.24.2", b"old"), ("3.18.0", b"new")):
            assert (await scene.asset("a.js", scene.cookie(number), version=version)).body == body
    if known:
        assert scene.asked("a.js") == [3, 0, 3], "who runs another version is not even asked"
        scene.running.apply(*[b.at() for b in scene.backends[:2]])
        assert set(scene.running.proxy.versions.values()) == {b"2.24.2", b"3.6.0"}


# Backends that are gone in the middle.


async def gap(stage: Stage, *apps: App) -> Fleet:
    """Give a fleet whose second backend is known to run 3.18.0, so that it is asked next, and refuses."""
    scene = await fleet(stage, *apps)
    scene.apps[1].close = True
    await scene.page(1)
    await scene.backends[1].stop_listening()
    return scene


async def test_a_backend_that_refuses_in_the_middle_is_passed_over(stage: Stage) -> None:
    scene = await gap(stage, App("no"), App("dead", tablejs=b"x"), App("has", tablejs=b"file"))
    message = await scene.asset("table.js", scene.cookie(0))
    assert (message.status, message.body) == (200, b"file")


async def test_who_has_answered_is_not_asked_again_because_another_refuses(stage: Stage) -> None:
    """Each at most once, as `Steering.asset_missing` says."""
    scene = await gap(stage, App("no"), App("dead", tablejs=b"x"), App("has", tablejs=b"file"))
    await scene.asset("table.js", scene.cookie(0))
    assert scene.asked("table.js") == [1, 0, 1]


async def test_who_has_refused_is_not_dialled_again_for_the_same_asset(stage: Stage) -> None:
    """A dial may take all of `--connect-timeout`."""
    scene = await gap(stage, App("no"), App("dead", tablejs=b"x"))
    counters = scene.running.proxy.counters
    before = counters.dials
    message = await scene.asset("table.js", scene.cookie(1))
    assert (message.status, message.get("cache-control")) == (404, "no-store")
    assert counters.dials - before == 2, "one for each backend"


async def test_where_all_others_refuse_the_404_remains(stage: Stage) -> None:
    scene = await trio(stage)
    for backend in scene.backends[1:]:
        await backend.stop_listening()
    message = await scene.asset("table.js", scene.cookie(0))
    assert (message.status, message.get("cache-control")) == (404, "no-store")
    assert scene.running.proxy.counters.dials <= 6
    assert scene.asked("table.js")[0] <= 3


# The cache of assets.


async def cached(stage: Stage, *lines: str, body: bytes = b"file", **more: Settings) -> Fleet:
    scene = await fleet(stage, App("one", tablejs=body), settings=more.get("settings", CACHING))
    scene.apps[0].lines = lines
    return scene


async def test_a_kept_asset_is_answered_without_a_backend(stage: Stage) -> None:
    scene = await cached(stage, 'ETag: "1"', "Content-Type: text/javascript")
    first = await scene.asset("table.js")
    await scene.backends[0].stop_listening()
    scene.running.apply()
    for _ in range(3):
        later = await scene.asset("table.js")
        assert (later.status, later.body, later.get("age"), later.token) == (200, b"file", "0", None)
        assert set(first.fields) <= set(later.fields)
    assert scene.asked("table.js") == [1]
    assert scene.running.proxy.assets is not None
    assert (scene.running.proxy.counters.asset_hits, scene.running.proxy.counters.asset_misses) == (3, 1)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("Accept-Encoding: gzip",), ("Accept-Encoding: br",)),
        (("Accept-Encoding: gzip",), ()),
        (("X-Forwarded-Prefix: /a",), ("X-Forwarded-Prefix: /b",)),
        (("X-Forwarded-Prefix: /a",), ()),
        (("Host: one.test",), ("Host: two.test",)),
    ],
)
async def test_what_may_change_the_answer_has_an_answer_of_its_own(
    stage: Stage, one: tuple[str, ...], two: tuple[str, ...]
) -> None:
    scene = await cached(stage)
    for _ in range(3):
        for fields in (one, two):
            assert (await scene.asset("table.js", *fields)).body == b"file"
    assert scene.asked("table.js") == [2]


async def test_the_address_is_the_whole_target(stage: Stage) -> None:
    scene = await cached(stage)
    for _ in range(2):
        for target in ("/", "/gui/"):
            for query in ("", "?a=1", "?a=2"):
                await scene.running.ask(request(f"GET {target}_nicegui/3.18.0/static/table.js{query} HTTP/1.1"))
    assert scene.asked("table.js") == [6]


async def test_cookies_neither_part_nor_spoil_the_cache(stage: Stage) -> None:
    scene = await cached(stage, "Vary: Accept-Encoding, Cookie", "Set-Cookie: session=somebody; Path=/")
    first = await scene.asset("table.js", "Cookie: session=a")
    assert first.get("set-cookie") == "session=somebody; Path=/"
    for who in "bcd":
        later = await scene.asset("table.js", f"Cookie: session={who}")
        assert (later.body, later.all("set-cookie")) == (b"file", [])
    assert scene.asked("table.js") == [1]


@pytest.mark.parametrize(
    "line", ["Vary: Accept-Language", "Vary: *", "Cache-Control: private", "Cache-Control: max-age=0, no-store"]
)
async def test_what_depends_on_more_or_is_private_is_not_kept(stage: Stage, line: str) -> None:
    scene = await cached(stage, line)
    for _ in range(3):
        await scene.asset("table.js")
    assert scene.asked("table.js") == [3]


@pytest.mark.parametrize(
    "field",
    ["Cache-Control: no-cache", "cache-control: max-age=0, NO-CACHE", "Range: bytes=0-1", "Authorization: Basic eDp5"],
)
async def test_who_needs_an_answer_of_the_backends_gets_it(stage: Stage, field: str) -> None:
    scene = await cached(stage)
    await scene.asset("table.js")
    for _ in range(2):
        assert (await scene.asset("table.js", field)).get("age") is None
    assert scene.asked("table.js") == [3]
    assert (await scene.asset("table.js", method="HEAD")).get("age") is None


async def test_an_answer_to_a_range_or_a_condition_is_not_kept_for_others(stage: Stage) -> None:
    def answer(asked: Message) -> bytes:
        if asked.get("range"):
            return response("206 Partial Content", FOREVER, "Content-Range: bytes 0-1/4", body=b"fi")
        if asked.get("if-none-match"):
            return response("304 Not Modified", FOREVER, 'ETag: "1"', "Content-Length: 4")
        return response("200 OK", FOREVER, 'ETag: "1"', body=b"file")

    running = await stage.proxy(await stage.backend(answer), settings=CACHING)
    ask = "GET /_nicegui/3.18.0/static/a.js HTTP/1.1"
    assert (await running.ask(request(ask, "Range: bytes=0-1"))).body == b"fi"
    assert (await running.ask(request(ask, 'If-None-Match: "1"'))).status == 304
    for _ in range(2):
        assert (await running.ask(request(ask))).body == b"file"


@pytest.mark.parametrize(
    ("field", "status"),
    [('If-None-Match: "1"', 304), ('If-None-Match: W/"1", "9"', 304), ("If-None-Match: *", 304),
     ('If-None-Match: "2"', 200)],
)  # fmt: skip
async def test_who_has_the_file_already_is_told_so(stage: Stage, field: str, status: int) -> None:
    scene = await cached(stage, 'ETag: "1"', "Content-Type: text/javascript")
    await scene.asset("table.js")
    client = await scene.running.client()
    for _ in range(2):  # twice: nothing of a body may be left on the connection
        client.send(request("GET /_nicegui/3.18.0/components/1/table.js HTTP/1.1", field))
        message = await client.message()
        assert (message.status, message.get("etag")) == (status, '"1"')
        assert "immutable" in (message.get("cache-control") or "")
    assert scene.asked("table.js") == [1]


async def test_an_http_10_client_gets_a_kept_chunked_asset_plainly(stage: Stage) -> None:
    data = response("200 OK", FOREVER, CHUNKED, body=chunked(b"fi", b"le"))
    backend = await stage.backend(lambda _: data)
    for first, second in (("1.0", "1.1"), ("1.1", "1.0")):
        running = await stage.proxy(backend, settings=CACHING)
        for http in (first, second):
            message = await running.ask(request(f"GET /_nicegui/3.18.0/static/a.js HTTP/{http}", "Host: app.test"))
            assert message.body == b"file"
            assert message.get("connection") == ("close" if http == "1.0" else None)
    assert len(backend.requests) == 2


async def test_the_cache_is_bounded(stage: Stage) -> None:
    limit = 100_000
    scene = await cached(
        stage, body=bytes(9_000), settings=Settings(times=QUICK, help=HelpSettings(asset_cache_bytes=limit))
    )
    client = await scene.running.client()
    assets = scene.running.proxy.assets
    assert assets is not None
    for number in range(40):
        client.send(request(f"GET /_nicegui/3.18.0/static/table.js?{number} HTTP/1.1"))
        assert len((await client.message()).body) == 9_000
        assert assets.cache.size <= limit
    assert len(assets.cache) == 10
    scene.apps[0].files["table.js".replace(".", "")] = bytes(limit)
    for _ in range(2):
        assert len((await scene.asset("table.js")).body) == limit, "too large to keep, but whole"
    assert len(assets.cache) == 10


ASSET = request("GET /_nicegui/3.18.0/static/a.js HTTP/1.1")


async def waiting(stage: Stage, count: int) -> tuple[Running, RawBackend, Peer, Peer, list[Peer]]:
    """Let one client fetch an asset and others wait; gives the fetch's upstream, its client and those who wait."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=CACHING)
    first = await running.client()
    first.send(ASSET)
    upstream = await backend.accepted()
    await upstream.head()
    others = [await running.client() for _ in range(count)]
    for other in others:
        other.send(ASSET)
    assets = running.proxy.assets
    assert assets is not None
    await eventually(lambda: [len(w) for w in assets._waiting.values()] == [count], "all wait")
    return running, backend, upstream, first, others


FILE = response("200 OK", FOREVER, 'ETag: "1"', body=b"file")


async def serve(backend: RawBackend, data: bytes) -> None:
    """Answer every request on every further connection, until cancelled."""
    while True:
        peer = await backend.accepted()
        await peer.head()
        peer.send(data)


async def served(backend: RawBackend, data: bytes, clients: list[Peer]) -> list[Message]:
    """Give what all clients get while a backend answers alike."""
    task = asyncio.ensure_future(serve(backend, data))
    try:
        return [await client.message() for client in clients]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_who_wait_are_answered_by_one_fetch(stage: Stage) -> None:
    running, backend, upstream, first, others = await waiting(stage, 30)
    upstream.send(FILE)
    for client in (first, *others):
        assert (await client.message()).body == b"file"
    assert backend.connections == 1
    assert running.proxy.assets is not None
    assert not running.proxy.assets._waiting


@pytest.mark.parametrize("how", ["the client vanishes", "the head never ends", "the body never ends", "garbage"])
async def test_all_who_wait_are_answered_whatever_becomes_of_the_fetch(stage: Stage, how: str) -> None:
    running, backend, upstream, first, others = await waiting(stage, 5)
    if how == "the client vanishes":
        upstream.send(FILE[:-2])
        await first.exactly(len(FILE) - 2)
        first.reset()
    elif how == "garbage":
        upstream.send(b"nonsense\r\n\r\n")
    else:
        upstream.send(FILE[:30] if how == "the head never ends" else FILE[:-2])
        await turns()
        upstream.close()
    assert [m.body for m in await served(backend, FILE, others)] == [b"file"] * 5
    assert running.proxy.assets is not None
    assert not running.proxy.assets._waiting
    (kept,) = running.proxy.assets.cache._assets.values() or [None]
    assert kept is None or kept.body == b"file"


async def test_half_a_file_is_never_kept(stage: Stage) -> None:
    for data in (FILE[:-1], response("200 OK", FOREVER, CHUNKED, body=chunked(b"fi", b"le")[:-2])):
        running, backend, upstream, first, _ = await waiting(stage, 0)
        upstream.send(data)
        await turns()
        upstream.close()
        await first.gone()
        assert running.proxy.assets is not None
        assert len(running.proxy.assets.cache) == 0
        again = await running.client()
        again.send(ASSET)
        assert [m.body for m in await served(backend, FILE, [again])] == [b"file"]


async def test_all_who_wait_for_what_is_not_there_get_a_404_that_nobody_keeps(stage: Stage) -> None:
    _, backend, upstream, first, others = await waiting(stage, 5)
    missing = response("404 Not Found", FOREVER, body=b"{}")
    upstream.send(missing)
    messages = [await first.message(), *await served(backend, missing, others)]
    assert {(m.status, m.get("cache-control"), m.body) for m in messages} == {(404, "no-store", b"{}")}


async def test_a_fetch_that_becomes_a_tunnel_holds_up_nobody(stage: Stage) -> None:
    """A fetch ends exactly once, however it ends: see dataplane/asset_flights.py."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=CACHING)
    first, second = await running.client(), await running.client()
    first.send(ASSET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await first.head()).status == 101
    second.send(ASSET)
    await turns()
    assert backend.connections == 2, "the second waits for an answer that never comes"


# A replica whose pages are told to go elsewhere.


@pytest.mark.parametrize("known", ["its page", "its cookie"])
async def test_a_page_that_another_proxy_has_sent_away_does_not_come_back_through_this_one(
    stage: Stage, known: str
) -> None:
    """All proxies empty the replica at the same time, and a reconnect comes through any of them."""
    scene = await trio(stage)
    page = await scene.page(0)
    if known == "its cookie":
        page = str(uuid5(NAMESPACE_DNS, "built through the other proxy"))
        scene.apps[0].pages.append(page)
    drains, identity = scene.running.proxy.drains, scene.backends[0].at().identity
    drains.drain(identity)
    client, _ = await scene.socket(page, scene.cookie(0))
    assert scene.asked("transport=websocket") == [1, 0, 0], "while it only drains, its pages stay"
    client.close()
    await scene.running.quiet()
    emptying = asyncio.ensure_future(drains.wait(identity, 60.0, 60.0))
    await turns()
    again, _ = await scene.socket(page, scene.cookie(0))
    assert scene.asked("transport=websocket")[0] == 1
    again.close()
    emptying.cancel()
    drains.undrain(identity)
    client, _ = await scene.socket(await scene.page(0), scene.cookie(0))
    assert scene.asked("transport=websocket")[0] == 2
    client.close()


async def test_a_poll_that_is_under_way_stays_with_a_replica_that_is_emptied(stage: Stage) -> None:
    scene = await trio(stage)
    page = await scene.page(0)
    drains, identity = scene.running.proxy.drains, scene.backends[0].at().identity
    drains.drain(identity)
    emptying = asyncio.ensure_future(drains.wait(identity, 60.0, 60.0))
    await turns()
    message = await scene.poll(page, scene.cookie(0), sid="sid-of-one")
    assert (message.status, message.get("x-app")) == (200, "one")
    emptying.cancel()


# Reload loops.

GUARDED = Settings(times=QUICK, help=HelpSettings(reload_limit=3))


async def reload_once(scene: Fleet, *fields: str, target: str = "/") -> None:
    """Load a page as a browser does, open its socket and end it, whatever it is told."""
    message = await scene.running.ask(request(f"GET {target} HTTP/1.1", scene.cookie(0), *NAVIGATE, *fields))
    assert message.status == 200
    client, head = await scene.socket(scene.apps[0].pages[-1], scene.cookie(0), *fields)
    assert head.status == 101
    told = scene.apps[0].refusal or ACCEPTED
    assert await client.exactly(2 + len(told)) == frame(told)
    client.close()
    await eventually(lambda: not scene.running.proxy.tunnels, "the socket has ended")


async def test_who_is_caught_in_a_loop_of_reloads_is_told(stage: Stage) -> None:
    scene = await trio(stage, GUARDED)
    scene.apps[0].refusal = REFUSED
    for _ in range(4):
        await reload_once(scene)
    told = await scene.running.ask(request("GET /?again HTTP/1.1", scene.cookie(0), *NAVIGATE))
    assert (told.status, told.reason) == (503, "reload-loop")
    assert told.get("content-type") == "text/html; charset=utf-8"
    assert (told.get("cache-control"), told.get("retry-after")) == ("no-store", "20")
    assert b'http-equiv="refresh"' in told.body
    assert not UUID.search(told.body.decode())
    assert +scene.running.proxy.counters.faults == {"reload-loop": 1}
    # Nobody else is: another path, another visitor, a program.
    await reload_once(scene, target="/other")
    await reload_once(scene, "X-Forwarded-For: 9.9.9.9")
    assert (await scene.running.ask(request("GET / HTTP/1.1", scene.cookie(0)))).status == 200


async def test_who_can_only_poll_is_told_like_all_others(stage: Stage) -> None:
    scene = await fleet(stage, App("one", "3.6.0"), settings=GUARDED)
    scene.apps[0].refusal = REFUSED_IN_3_6
    client = await scene.running.client()
    for _ in range(2):
        client_id = await scene.page(0, *NAVIGATE)
        for _ in range(2):  # twice: nothing of an answer may be left on the connection
            client.send(
                request(
                    f"GET /_nicegui_ws/socket.io/?client_id={client_id}&implicit_handshake=true&EIO=4"
                    "&transport=polling&sid=sid-of-one HTTP/1.1"
                )
            )
            told = await client.message()
            assert json.loads(told.body[2:]) == {"message": "timeout"}
            assert told.get("content-length") == str(len(REFUSED_IN_3_6))
    told = await scene.running.ask(request("GET / HTTP/1.1", scene.cookie(0), *NAVIGATE))
    assert told.reason == "reload-loop"


async def test_one_who_is_told_may_come_back_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await trio(stage, GUARDED)
    scene.apps[0].refusal = REFUSED
    for _ in range(4):
        await reload_once(scene)
    now = scene.running.proxy.time
    monkeypatch.setattr(scene.running.proxy, "time", lambda: now() + 30)
    await reload_once(scene)


async def test_a_page_that_works_is_never_counted_however_soon_it_is_left(stage: Stage) -> None:
    scene = await trio(stage, GUARDED)
    for _ in range(8):
        await reload_once(scene)


@pytest.mark.parametrize("known", ["from the start", "from its page alone", "as one that is listed still"])
async def test_people_behind_one_address_who_lose_their_pod_together_are_in_no_loop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """Each of their pages is refused once by another pod and reloads; one proxy of two sees only some of it."""
    scene = await trio(stage, GUARDED)
    clock, late = scene.running.proxy.time, 0.0
    monkeypatch.setattr(scene.running.proxy, "time", lambda: clock() + late)
    pages = [await scene.page(0, *NAVIGATE) for _ in range(8)]
    if known == "from the start":
        for page in pages:
            client, _ = await scene.socket(page)
            assert await client.exactly(2 + len(ACCEPTED)) == frame(ACCEPTED)
            client.close()
        await eventually(lambda: not scene.running.proxy.tunnels, "all have lost their sockets")
    elif known == "from its page alone":
        late = YOUNG_S + 0.1
    lost = scene.cookie(0)
    if known == "as one that is listed still":
        await scene.backends[0].stop_listening()
    else:
        scene.running.apply(*(backend.at() for backend in scene.backends[1:]))
    for app in scene.apps[1:]:
        app.refusal = REFUSED
    for page in pages:
        client, _ = await scene.socket(page, lost)
        assert await client.exactly(2 + len(REFUSED)) == frame(REFUSED)
        client.close()
        await eventually(lambda: not scene.running.proxy.tunnels, "the socket has ended")
    for _ in pages:
        message = await scene.running.ask(request("GET / HTTP/1.1", scene.cookie(1), *NAVIGATE))
        assert message.status == 200, message.reason


async def test_pages_without_sockets_are_never_counted(stage: Stage) -> None:
    scene = await trio(stage, GUARDED)
    for _ in range(8):
        assert (await scene.running.ask(request("GET / HTTP/1.1", scene.cookie(0), *NAVIGATE))).status == 200


# Without any backend.


async def test_without_a_backend_a_person_gets_a_page_that_tries_again_and_a_socket_a_503(stage: Stage) -> None:
    scene = await trio(stage)
    client_id, cookie = await scene.page(0), scene.cookie(0)
    scene.running.apply()
    page = await scene.running.ask(request("GET / HTTP/1.1", cookie, *NAVIGATE))
    assert (page.status, page.reason) == (503, "no-backend")
    assert page.get("content-type") == "text/html; charset=utf-8"
    assert re.search(rb'<meta http-equiv="refresh" content="[1-9][0-9]?">', page.body)
    client, head = await scene.socket(client_id, cookie)
    assert (head.status, head.reason, head.token) == (503, "no-backend", None)
    assert head.get("content-type") == "text/plain; charset=utf-8"
    client.close()
    assert (await scene.poll(client_id)).status == 503
    assert (await scene.asset("a.js")).status == 503


# Secrets.


@pytest.mark.parametrize("fault", ["no-backend", "connect-refused", "closed-early", "bad-response", "response-timeout"])
async def test_no_error_page_tells_what_was_asked(stage: Stage, fault: str) -> None:
    data = {"closed-early": b"HTTP/1.1 20", "bad-response": b"nonsense\r\n\r\n"}.get(fault, b"")
    backend = await stage.backend()
    running = await stage.proxy(
        *([] if fault == "no-backend" else [backend]),
        settings=Settings(times=TimeSettings(response_s=0.1, sweep_s=0.02)),
    )
    if fault == "connect-refused":
        await backend.stop_listening()
    client_id = str(uuid5(NAMESPACE_DNS, "secret"))
    for target in (
        f"/_nicegui_ws/socket.io/?client_id={client_id}&_stickyproxy=TOKENTOKENTOKEN1",
        f"/_nicegui/client/{client_id}/upload/6",
        f"/?client_id={client_id}",
    ):
        client = await running.client()
        client.send(request(f"GET {target} HTTP/1.1", "Cookie: stickyproxy=TOKENTOKENTOKEN2; session=own", *NAVIGATE))
        if fault not in ("no-backend", "connect-refused"):
            upstream = await backend.accepted()
            await upstream.head()
            upstream.send(data)
            if fault == "closed-early":
                upstream.close()
        message = await client.message()
        assert message.reason == fault
        told = (message.raw + message.body).decode()
        assert not [s for s in (client_id, "TOKEN", "session", "upload", "_nicegui") if s in told]
