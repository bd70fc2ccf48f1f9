"""Backends that are spoken to by TLS: who is believed, how it fails, and what the end of a connection means."""

import asyncio
import logging
import os
import socket
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from stickyproxy.core.backends import Backend
from stickyproxy.core.settings import FailureSettings, Settings, TimeSettings
from stickyproxy.core.tls import TlsMaterial
from stickyproxy.core.values import Address

from .harness import CHUNKED, QUICK, Peer, RawBackend, Running, Stage, hello, named, request, response, soon
from .parking import PARKING, open_page, update
from .test_tls import VERSIONS
from .test_tunnel import ASK, SWITCH
from .test_websocket import echo
from .tls import Authority

pytestmark = pytest.mark.both_loops


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def trusting(authority: Authority) -> TlsMaterial:
    return TlsMaterial(backends=True, backend_ca=authority.pem)


async def both(
    stage: Stage, authority: Authority, tmp_path: Path, *, settings: Settings | None = None,
    most: ssl.TLSVersion | None = None,
) -> tuple[RawBackend, Running]:  # fmt: skip
    """Put up a backend that speaks TLS and leaves its connections to the test, and a proxy that believes it."""
    backend = await stage.backend(tls=authority.issue("127.0.0.1").server(tmp_path, most=most))
    return backend, await stage.proxy(backend, settings=settings, material=trusting(authority))


async def asked(running: Running, backend: RawBackend, data: bytes = b"") -> tuple[Peer, Peer]:
    """Send a request through; give both ends, the backend's with its head read."""
    client = await running.client()
    client.send(data or request())
    upstream = await backend.accepted()
    await upstream.head()
    return client, upstream


def cut(upstream: Peer) -> None:
    """End a backend's connection by a FIN, without a close_notify."""
    with socket.socket(fileno=os.dup(upstream.writer.get_extra_info("socket").fileno())) as copy:
        copy.shutdown(socket.SHUT_WR)


@VERSIONS
async def test_requests_reach_it_and_its_connection_is_kept(
    stage: Stage, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    backend = await stage.backend(hello, tls=authority.issue("127.0.0.1").server(tmp_path, most=version))
    running = await stage.proxy(backend, material=trusting(authority))
    for _ in range(3):
        assert (await running.ask(request())).body == b"hello"
    assert backend.connections == 1
    assert {asked.get("x-forwarded-proto") for asked in backend.requests} == {"http"}
    assert {asked.get("host") for asked in backend.requests} == {"app.test"}


async def test_large_bodies_pass_both_ways(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    tls = authority.issue("127.0.0.1").server(tmp_path)
    backend = await stage.backend(lambda asked: response(body=asked.body[::-1]), tls=tls)
    running = await stage.proxy(backend, material=trusting(authority))
    body = bytes(range(256)) * 10_000
    client = await running.client()
    client.send(request("POST / HTTP/1.1", body=body))
    assert (await client.message()).body == body[::-1]


async def test_a_request_with_no_host_gets_the_backends_address(
    stage: Stage, authority: Authority, tmp_path: Path
) -> None:
    backend = await stage.backend(hello, tls=authority.issue("127.0.0.1").server(tmp_path))
    running = await stage.proxy(backend, material=trusting(authority))
    await running.ask(request("GET / HTTP/1.0"))
    assert backend.requests[0].get("host") == str(backend.address)


async def test_the_server_name_is_sent_and_verified(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    names: list[str | None] = []
    tls = authority.issue("app.internal").server(tmp_path)
    tls.sni_callback = lambda _, name, __: names.append(name)
    backend = await stage.backend(hello, tls=tls)
    settings = Settings(times=QUICK, backend_server_name="app.internal")
    running = await stage.proxy(backend, settings=settings, material=trusting(authority))
    assert (await running.ask(request())).body == b"hello"
    assert names == ["app.internal"]


@pytest.mark.parametrize(
    ("names", "days", "believed", "says"),
    [
        (["127.0.0.1"], 1, False, "unable to get local issuer certificate"),
        (["other.test"], 1, True, "IP address mismatch"),
        (["127.0.0.1"], -1, True, "certificate has expired"),
    ],
    ids=["unknown authority", "wrong name", "expired"],
)
async def test_a_certificate_that_is_not_accepted_is_a_failure_of_its_own_kind(
    stage: Stage, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    names: list[str], days: float, believed: bool, says: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.WARNING, "stickyproxy")
    good = await stage.backend(named("good"), tls=authority.issue("127.0.0.1").server(tmp_path))
    issuer = authority if believed else Authority("another")
    bad = await stage.backend(named("bad"), tls=issuer.issue(*names, days=days).server(tmp_path))
    running = await stage.proxy(good, bad, material=trusting(authority))
    answers = {(await running.ask(request("GET / HTTP/1.1", running.cookie(bad)))).body for _ in range(4)}
    assert answers == {b"good"}, "whoever lived there is moved"
    assert not bad.requests, "nothing was said to it"
    assert running.proxy.counters.failures["certificate"] >= 3
    status = next(b for b in running.proxy.report().backends if b.identity == bad.at().identity)
    assert status.ejected
    assert "certificate not accepted" in status.trouble
    assert says in status.trouble
    assert "--backend-ca" in caplog.text


async def test_the_client_is_told_where_no_backend_is_left(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    backend = await stage.backend(hello, tls=Authority("another").issue("127.0.0.1").server(tmp_path))
    running = await stage.proxy(backend, material=trusting(authority))
    answer = await running.ask(request())
    assert (answer.status, answer.reason) == (502, "backend-tls")


async def test_a_backend_that_speaks_plain_http_is_told_apart(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, material=trusting(authority))
    client = await running.client()
    client.send(request())
    (await backend.accepted()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    answer = await client.message()
    assert (answer.status, answer.reason) == (502, "backend-tls")
    assert +running.proxy.counters.failures == {"handshake": 1}
    (status,) = running.proxy.report().backends
    assert "no TLS: " in status.trouble


async def test_a_backend_that_closes_in_the_handshake_is_told_apart(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, material=trusting(authority))
    client = await running.client()
    client.send(request())
    (await backend.accepted()).close()
    assert (await client.message()).reason == "backend-tls"
    (status,) = running.proxy.report().backends
    assert "ended in the TLS handshake" in status.trouble


async def test_the_connect_time_out_covers_the_handshake(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    settings = Settings(times=TimeSettings(connect_s=0.2, sweep_s=0.05))
    running = await stage.proxy(backend, settings=settings, material=trusting(authority))
    answer = await running.ask(request())
    assert (answer.status, answer.reason) == (504, "connect-timeout")
    assert await (await backend.accepted()).gone()


async def test_a_client_that_goes_in_the_middle_of_the_handshake_leaves_nothing(
    stage: Stage, authority: Authority
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend, material=trusting(authority))
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.exactly(1)
    client.reset()
    await upstream.gone()
    await running.quiet()


# The end of a connection.


async def test_a_body_that_ends_with_the_connection_is_whole_after_a_close_notify(
    stage: Stage, authority: Authority, tmp_path: Path
) -> None:
    backend, running = await both(stage, authority, tmp_path)
    client, upstream = await asked(running, backend)
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    upstream.close()
    assert (await client.message()).body == b"all of it"


async def test_a_body_that_ends_with_the_connection_is_broken_off_without_a_close_notify(
    stage: Stage, authority: Authority, tmp_path: Path
) -> None:
    backend, running = await both(stage, authority, tmp_path)
    client, upstream = await asked(running, backend)
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
    await client.head()
    assert await client.exactly(10) == b"half of it"
    cut(upstream)
    with pytest.raises(ConnectionResetError):
        await client.rest()
    assert +running.proxy.counters.faults == {"broken-off": 1}


@pytest.mark.parametrize("fields", [("Content-Length: 20",), (CHUNKED,)], ids=["length", "chunked"])
async def test_a_body_with_an_end_of_its_own_is_broken_off_where_that_does_not_come(
    stage: Stage, authority: Authority, tmp_path: Path, fields: tuple[str, ...]
) -> None:
    backend, running = await both(stage, authority, tmp_path)
    client, upstream = await asked(running, backend)
    upstream.send(response("200 OK", *fields) + b"4\r\nhalf\r\n")
    await client.head()
    await client.exactly(4)
    cut(upstream)
    await client.gone()
    assert +running.proxy.counters.faults == {"broken-off": 1}


async def test_a_pooled_connection_that_has_ended_is_replaced(
    stage: Stage, authority: Authority, tmp_path: Path
) -> None:
    backend, running = await both(stage, authority, tmp_path)
    client, upstream = await asked(running, backend)
    upstream.send(response(body=b"one"))
    assert (await client.message()).body == b"one"
    upstream.close()
    client.send(request())
    second = await backend.accepted()
    await second.head()
    second.send(response(body=b"two"))
    assert (await client.message()).body == b"two"


async def test_certificates_that_are_believed_can_change(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    other = Authority("another")
    backend = await stage.backend(hello, tls=other.issue("127.0.0.1").server(tmp_path))
    settings = Settings(times=QUICK, failures=FailureSettings(eject_after=0))
    running = await stage.proxy(backend, settings=settings, material=trusting(authority))
    assert (await running.ask(request())).reason == "backend-tls"
    running.proxy.secure(trusting(other))
    assert (await running.ask(request())).body == b"hello"


# Tunnels.


async def test_a_tunnel_passes_bytes_and_ends(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    backend, running = await both(stage, authority, tmp_path)
    client, upstream = await asked(running, backend, ASK)
    upstream.send(SWITCH + b"first words")
    assert (await client.head()).status == 101
    assert await client.exactly(11) == b"first words"
    for number in range(20):
        client.send(b"%04d" % number)
        assert await upstream.exactly(4) == b"%04d" % number
        upstream.send(b"%04d" % number)
        assert await client.exactly(4) == b"%04d" % number
    client.half_close()
    assert await upstream.rest() == b"", "the client's end is a close_notify here"
    upstream.close()
    assert await client.gone()
    await running.quiet()


async def test_a_websocket_passes_by_tls_on_both_sides(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    async with serve(echo, "127.0.0.1", 0, ssl=authority.issue("127.0.0.1").server(tmp_path)) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        pair = authority.issue("127.0.0.1")
        running = await stage.proxy(
            Backend.at(Address("127.0.0.1", port)),
            material=TlsMaterial(pair.certificate, pair.key, backends=True, backend_ca=authority.pem),
        )
        url = f"wss://127.0.0.1:{running.address.port}/chat"
        async with connect(url, ssl=authority.client(), proxy=None, max_size=None) as client:
            for message in ("text", b"\x00\xff", "x" * 700_000):
                await client.send(message)
                assert await soon(client.recv()) == message
            await asyncio.gather(*(client.send(f"{number}") for number in range(100)))
            assert {await soon(client.recv()) for _ in range(100)} == {str(number) for number in range(100)}
        await running.quiet()


@VERSIONS
async def test_a_parked_page_whose_socket_it_closes_goes_on_by_another(
    stage: Stage, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    backend, running = await both(stage, authority, tmp_path, settings=PARKING, most=version)
    page = await open_page(running, backend)
    page.app.say(update(0))
    await page.browser.hears(update(0))
    page.browser.peer.reset()
    await page.parked()
    page.app.close_frame(1000)
    await page.reopened(1, update(1))
    browser = await page.back()
    await browser.hears(update(0), update(1))
    browser.close_frame(1001)
    await page.app.hear_control()
    browser.peer.close()
    await page.ends()
