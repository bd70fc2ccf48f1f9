"""What goes wrong is answered with the right status, a reason, and nothing that a backend did not mean."""

import asyncio
import errno
import socket

import pytest

from stickyproxy.core.backends import Backend
from stickyproxy.core.settings import LimitSettings, Settings, TimeSettings
from stickyproxy.core.values import Address
from stickyproxy.dataplane.upstream import Upstream

from .harness import CHUNKED, QUICK, RawBackend, Stage, eventually, hello, named, request, response, turns

NAVIGATION = request("GET / HTTP/1.1", "Sec-Fetch-Mode: navigate", "Accept: text/html")


async def dead(stage: Stage) -> RawBackend:
    """Give a backend whose port refuses connections; no other program can get the port meanwhile."""
    backend = await stage.backend()
    await backend.stop_listening()
    return backend


async def test_no_backend_is_a_503(stage: Stage) -> None:
    running = await stage.proxy()
    message = await running.ask(request())
    assert (message.status, message.reason) == (503, "no-backend")
    assert message.get("cache-control") == "no-store"
    assert message.get("content-type") == "text/plain; charset=utf-8"
    assert +running.proxy.counters.faults == {"no-backend": 1}


async def test_a_person_gets_html_and_a_program_text(stage: Stage) -> None:
    running = await stage.proxy()
    page = await running.ask(NAVIGATION)
    assert (page.status, page.get("content-type")) == (503, "text/html; charset=utf-8")
    assert page.body.startswith(b"<!doctype html>")
    old_browser = await running.ask(request("GET / HTTP/1.1", "Accept: text/html,*/*"))
    assert old_browser.get("content-type") == "text/html; charset=utf-8"
    for program in (
        request("GET / HTTP/1.1", "Accept: */*"),
        request("GET / HTTP/1.1", "Sec-Fetch-Mode: cors", "Accept: text/html"),
        request("POST / HTTP/1.1", "Accept: text/html"),
    ):
        assert (await running.ask(program)).get("content-type") == "text/plain; charset=utf-8"


async def test_a_fault_keeps_the_connection_of_a_whole_request(stage: Stage) -> None:
    running = await stage.proxy()
    client = await running.client()
    for _ in range(3):
        client.send(request("HEAD / HTTP/1.1"))
        message = await client.message(method="HEAD")
        assert (message.status, message.get("connection")) == (503, None)


async def test_all_backends_refuse_is_a_502(stage: Stage) -> None:
    running = await stage.proxy(*[await dead(stage) for _ in range(3)])
    message = await running.ask(request())
    assert (message.status, message.reason) == (502, "connect-refused")
    assert message.token is None
    assert running.proxy.counters.dials == 3, "each backend is asked once"
    assert running.counters == {"new": 0, "kept": 0}


async def test_a_refused_pin_moves_to_a_living_backend_in_the_same_response(stage: Stage) -> None:
    gone, alive = await dead(stage), await stage.backend(named("alive"))
    running = await stage.proxy(gone, alive)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", running.cookie(gone), body=b"kept body"))
    message = await client.message()
    assert message.body == b"alive"
    assert f"Cookie: stickyproxy={message.token}" == running.cookie(alive)
    assert alive.requests[0].body == b"kept body"
    assert running.counters == {"new": 0, "kept": 0, "refused": 1}


async def test_a_new_browser_whose_first_choice_refuses_is_served_by_another(stage: Stage) -> None:
    gone, alive = await dead(stage), await stage.backend(named("alive"))
    running = await stage.proxy(gone, alive)
    for _ in range(4):  # the balancer must have tried the dead one among these
        message = await running.ask(request())
        assert message.body == b"alive"
        assert f"Cookie: stickyproxy={message.token}" == running.cookie(alive)
    assert running.proxy.counters.dials > alive.connections


async def test_a_browser_without_a_pin_is_never_counted_as_moved(stage: Stage) -> None:
    """`moved` says that somebody lost a page; who has none yet has nothing to lose."""
    gone, alive = await dead(stage), await stage.backend(named("alive"))
    running = await stage.proxy(gone, alive)
    for _ in range(4):
        await running.ask(request())
    assert running.counters == {"new": 4, "kept": 0}


async def test_a_backend_that_does_not_answer_the_attempt_is_a_504(
    stage: Stage, deaf: tuple[Address, list[socket.socket]]
) -> None:
    running = await stage.proxy(Backend.at(deaf[0]), settings=Settings(times=TimeSettings(connect_s=0.2, sweep_s=0.05)))
    message = await running.ask(request())
    assert (message.status, message.reason) == (504, "connect-timeout")


async def test_a_pin_to_a_backend_that_does_not_answer_the_attempt_moves(
    stage: Stage, deaf: tuple[Address, list[socket.socket]]
) -> None:
    alive = await stage.backend(named("alive"))
    silent = Backend.at(deaf[0])
    running = await stage.proxy(silent, alive, settings=Settings(times=TimeSettings(connect_s=0.2, sweep_s=0.05)))
    token = running.proxy.snapshot.token_of(silent).decode()
    message = await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={token}"))
    assert message.body == b"alive"
    assert running.counters == {"new": 0, "kept": 0, "timeout": 1}


async def test_a_backend_that_does_not_begin_to_answer_is_a_504(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=Settings(times=TimeSettings(response_s=0.1, sweep_s=0.05)))
    client = await running.client()
    for data in (request(), request("POST / HTTP/1.1", body=b"x")):
        client.send(data)
        upstream = await backend.accepted()
        await upstream.head()
        message = await client.message()
        assert (message.status, message.reason) == (504, "response-timeout")
        await upstream.gone()
        upstream.close()
    assert running.idle == 0


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["nothing", "half a head"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_backend_that_closes_before_its_answer_is_a_502(stage: Stage, said: bytes, how: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(said)
    await upstream.flush()
    await turns()
    getattr(upstream, how)()
    message = await client.message()
    assert (message.status, message.reason) == (502, "closed-early")
    client.send(request())
    again = await backend.accepted()
    await again.head()
    again.send(response(body=b"fine"))
    assert (await client.message()).body == b"fine"


GARBAGE = {
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "binary": b"\x00\x01\x02\x03",
    "http2": b"HTTP/2 200\r\n\r\n",
    "http09": b"<html>secret</html>\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\nsecret",
    "length-and-chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\nsecret",
    "negative-length": b"HTTP/1.1 200 OK\r\nContent-Length: -6\r\n\r\nsecret",
    "odd-length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x6\r\n\r\nsecret",
    "other-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nsecret",
    "1.0-chunked": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret",
    "space-before-colon": b"HTTP/1.1 200 OK\r\nContent-Length : 6\r\n\r\nsecret",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: secret\r\n secret\r\nContent-Length: 0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX-A: sec\x00ret\r\nContent-Length: 0\r\n\r\n",
    "huge-head": b"HTTP/1.1 200 OK\r\nX-A: " + b"secret" * 20_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "endless-head": b"HTTP/1.1 200 OK\r\nX-A: " + b"secret" * 100_000,
    "status": b"HTTP/1.1 2000 OK\r\nContent-Length: 6\r\n\r\nsecret",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_nothing_of_a_malformed_response_reaches_the_client(stage: Stage, kind: str) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(GARBAGE[kind])
    message = await client.message()
    assert (message.status, message.reason) == (502, "bad-response")
    assert b"secret" not in message.raw + message.body
    await upstream.gone()
    upstream.close()
    client.send(request())
    again = await backend.accepted()
    await again.head()
    again.send(response(body=b"fine"))
    assert (await client.message()).body == b"fine", "the client's connection is still good"


async def test_a_response_with_bare_line_feeds_is_refused_at_once(stage: Stage) -> None:
    """Not at the end of the time for an answer: it has begun, and can never become a good one."""
    backend = await stage.backend()
    running = await stage.proxy(backend, settings=Settings(times=TimeSettings(response_s=2, sweep_s=0.05)))
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\nContent-Length: 6\n\nsecret")
    message = await client.message()
    assert b"secret" not in message.raw + message.body
    assert (message.status, message.reason) == (502, "bad-response")


async def test_garbage_byte_by_byte_does_not_reach_the_client(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    for byte in b"HTTQ":
        upstream.send(bytes((byte,)))
        await turns()
    assert (await client.message()).reason == "bad-response"


# Requests that must not be passed on.

H = "Host: app.test"
MALFORMED = {
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "binary": (bytes(range(128, 160)), 400),
    "http09": (b"GET /\r\n\r\n", 400),
    "bare-lf": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "http2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http2": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "http3": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "http1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    "no-host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (request("GET / HTTP/1.1", H, "Host: evil.test"), 400),
    "odd-host": (request("GET / HTTP/1.1", "Host: a/b"), 400),
    "host-mismatch": (request("GET http://evil.test/ HTTP/1.1"), 400),
    "connect": (request("CONNECT app.test:443 HTTP/1.1"), 501),
    "unknown-method": (request("FROBNICATE / HTTP/1.1"), 501),
    "odd-target": (request("GET ftp://app.test/ HTTP/1.1"), 400),
    "fragment": (request("GET /a#b HTTP/1.1"), 400),
    "two-spaces": (request("GET  / HTTP/1.1"), 400),
    "te-and-length": (request("POST / HTTP/1.1", CHUNKED, "Content-Length: 5"), 400),
    "two-lengths": (request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 6"), 400),
    "same-length-twice": (request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 5"), 400),
    "length-list": (request("POST / HTTP/1.1", "Content-Length: 5, 5"), 400),
    "signed-length": (request("POST / HTTP/1.1", "Content-Length: +5"), 400),
    "huge-length": (request("POST / HTTP/1.1", "Content-Length: 99999999999999999999"), 400),
    "te-gzip": (request("POST / HTTP/1.1", "Transfer-Encoding: gzip"), 400),
    "te-gzip-chunked": (request("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"), 400),
    "te-twice": (request("POST / HTTP/1.1", CHUNKED, CHUNKED), 400),
    "te-1.0": (request("POST / HTTP/1.0", H, CHUNKED), 400),
    "te-vtab": (request("POST / HTTP/1.1", "Transfer-Encoding: \x0bchunked"), 400),
    "space-before-colon": (request("POST / HTTP/1.1", "Content-Length : 5"), 400),
    "folded": (request("GET / HTTP/1.1", "X-A: 1\r\n 2"), 400),
    "nul": (request("GET / HTTP/1.1", "X-A: a\x00b"), 400),
    "lone-cr": (request("GET / HTTP/1.1", "X-A: a\rContent-Length: 5"), 400),
    "no-colon": (request("GET / HTTP/1.1", "nonsense"), 400),
    "many-headers": (request("GET / HTTP/1.1", *["X-A: 1"] * 200), 431),
    "huge-head": (request("GET / HTTP/1.1", "X-A: " + "a" * 70_000), 431),
    "endless-head": (request("GET / HTTP/1.1", "X-A: " + "a" * 300_000)[:-4], 431),
    "endless-line": (b"GET /" + b"a" * 300_000, 431),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("kind", MALFORMED)
async def test_a_malformed_request_is_refused_closed_and_seen_by_no_backend(
    stage: Stage, kind: str, split: bool
) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    data, status = MALFORMED[kind]
    client = await running.client()
    if split and len(data) < 1000:
        for byte in data:
            client.send(bytes((byte,)))
            await turns(2)
    elif data.isascii() and b"\0" not in data[:9]:
        client.send(data + request("GET /smuggled HTTP/1.1"))
    else:
        client.send(data)
    message = await client.message()
    assert message.status == status
    assert message.reason is not None
    assert message.get("connection") == "close"
    client.half_close()
    assert await client.rest() == b""
    assert backend.connections == 0
    assert running.proxy.counters.faults[message.reason] == 1


async def test_a_malformed_request_behind_a_good_one_is_refused_after_its_answer(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request() + b"nonsense\r\n\r\n" + request("GET /smuggled HTTP/1.1"))
    assert (await client.message()).body == b"hello"
    assert (await client.message()).status == 400
    client.half_close()
    assert await client.rest() == b""
    assert len(backend.requests) == 1


async def test_a_head_just_within_the_limit_passes(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=Settings(times=QUICK, limits=LimitSettings(head_bytes=4096)))
    fits = request("GET / HTTP/1.1", "X-A: ")
    fits = request("GET / HTTP/1.1", "X-A: " + "a" * (4096 - len(fits)))
    assert len(fits) == 4096
    assert (await running.ask(fits)).status == 200
    client = await running.client()
    client.send(fits + fits)
    assert [(await client.message()).status for _ in range(2)] == [200, 200]
    assert (await running.ask(fits.replace(b"X-A", b"X-AB"))).status == 431


# The machine's own limits.


async def test_no_more_file_descriptors_is_a_503_and_moves_no_pin(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    running = await stage.proxy(one, two)

    class Exhausted:
        """A loop that has run out of file descriptors for new connections."""

        def __init__(self, loop: object) -> None:
            self._loop = loop

        def __getattr__(self, name: str) -> object:
            return getattr(self._loop, name)

        async def create_connection(self, *_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    client = await running.client()
    with monkeypatch.context() as patch:
        patch.setattr(running.proxy, "loop", Exhausted(running.proxy.loop))
        client.send(request("GET / HTTP/1.1", running.cookie(one)))
        message = await client.message()
    assert (message.status, message.reason, message.token) == (503, "out-of-resources", None)
    assert running.counters == {"new": 0, "kept": 0}
    client.send(request("GET / HTTP/1.1", running.cookie(one)))
    message = await client.message()
    assert (message.body, message.token) == (b"one", None)


async def test_a_refusal_and_a_recovery_are_logged_once_each(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    backend = await dead(stage)
    running = await stage.proxy(backend)
    with caplog.at_level("INFO", "stickyproxy"):
        for _ in range(3):
            assert (await running.ask(request())).status == 502
        await backend.start()
        client = await running.client()
        client.send(request())
        upstream = await backend.accepted()
        await upstream.head()
        upstream.send(response())
        assert (await client.message()).status == 200
    await eventually(lambda: len(caplog.records) >= 2, "both are logged")
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.both_loops
async def test_whose_client_leaves_as_the_backend_accepts_is_in_no_pool(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dial ends between the beginning of its protocol and its own next turn."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    begin = Upstream.connection_made

    def begin_and_leave(upstream: Upstream, transport: asyncio.BaseTransport) -> None:
        begin(upstream, transport)
        exchange = running.downstreams[0].exchange
        assert exchange is not None
        exchange.abandon()

    monkeypatch.setattr(Upstream, "connection_made", begin_and_leave)
    client = await running.client()
    client.send(request())
    await (await backend.accepted()).gone()
    (pool,) = running.proxy.pools.values()
    await eventually(lambda: not pool.dialling, "the dial has ended")
    await turns()
    assert not pool.upstreams
    client.close()
