"""Clients that come in by TLS: the same proxy behind it, and handshakes that are slow, broken or hostile."""

import asyncio
import random
import ssl
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from stickyproxy.core.backends import Backend
from stickyproxy.core.settings import LimitSettings, Settings, TimeSettings
from stickyproxy.core.values import Address

from .harness import (
    CHUNKED,
    QUICK,
    Message,
    Peer,
    RawBackend,
    Running,
    Stage,
    eventually,
    hello,
    request,
    response,
    soon,
)
from .test_proxy_protocol import ANN, BOB, behind
from .test_tunnel import ASK, SWITCH
from .test_websocket import echo
from .tls import Authority, HandTls

pytestmark = pytest.mark.both_loops

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def secured(
    stage: Stage, authority: Authority, *backends: RawBackend | Backend, settings: Settings | None = None
) -> Running:
    return await stage.proxy(*backends, settings=settings, material=authority.material())


async def hand(running: Running, authority: Authority, *, most: ssl.TLSVersion = V13) -> HandTls:
    """Connect, and do the handshake."""
    return await HandTls(await running.client(), authority.client(maximum_version=most)).shake()


def echoes(asked: Message) -> bytes:
    return response(body=asked.raw + asked.body)


@VERSIONS
async def test_requests_are_served_and_the_app_knows_that_it_was_https(
    stage: Stage, authority: Authority, version: ssl.TLSVersion
) -> None:
    backend = await stage.backend(hello)
    running = await secured(stage, authority, backend)
    client = await hand(running, authority, most=version)
    for _ in range(3):
        client.send(request())
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        await client.until(b"hello")
    assert len(running.downstreams) == 1
    assert {asked.get("x-forwarded-proto") for asked in backend.requests} == {"https"}
    assert +running.proxy.counters.handshakes == {"full": 1}


async def test_the_cookie_of_a_client_by_https_is_secure(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = await hand(running, authority)
    client.send(request())
    assert b"; Secure" in await client.until(b"\r\n\r\n")


async def test_the_cookie_is_not_secure_where_a_trusted_proxy_says_that_the_browser_came_by_http(
    stage: Stage, authority: Authority
) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = await hand(running, authority)
    client.send(request("GET / HTTP/1.1", "X-Forwarded-Proto: http"))
    head = await client.until(b"\r\n\r\n")
    assert b"Set-Cookie" in head
    assert b"; Secure" not in head


@VERSIONS
async def test_large_bodies_pass_both_ways(stage: Stage, authority: Authority, version: ssl.TLSVersion) -> None:
    body = random.Random(1).randbytes(3_000_000)
    running = await secured(stage, authority, await stage.backend(lambda asked: response(body=asked.body[::-1])))
    client = await hand(running, authority, most=version)
    sealed = client.seal(request("POST / HTTP/1.1", body=body))
    sending = asyncio.ensure_future(_send_slowly(client.peer, sealed))
    await client.until(b"\r\n\r\n")
    assert await client.until(body[:100][::-1]) == body[::-1]
    await sending


async def _send_slowly(peer: Peer, data: bytes) -> None:
    for start in range(0, len(data), 100_000):
        peer.send(data[start : start + 100_000])
        await peer.flush()


async def test_a_request_that_comes_byte_by_byte_is_served(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = HandTls(await running.client(), authority.client())
    for byte in client.hello():
        client.peer.send(bytes([byte]))
        await asyncio.sleep(0)
    await client.shake()
    for byte in client.seal(request()) + client.seal(request()):
        client.peer.send(bytes([byte]))
        await asyncio.sleep(0)
    await client.until(b"hello")
    await client.until(b"hello")


async def test_a_request_behind_the_handshake_in_one_segment_is_served(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = HandTls(await running.client(), authority.client())
    client.peer.send(client.hello())
    while True:
        client._incoming.write(await soon(client.peer.reader.read(1 << 16)))
        try:
            client.session.do_handshake()
            break
        except ssl.SSLWantReadError:
            continue
    client.peer.send(client._outgoing.read() + client.seal(request()) + client.seal(request()))
    await client.until(b"hello")
    await client.until(b"hello")


async def test_connections_that_come_at_once_do_not_mix(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(echoes))

    async def one(number: int) -> None:
        client = HandTls(await running.client(), authority.client())
        await client.shake()
        sealed = client.seal(request("POST / HTTP/1.1", body=b"<%d>" % number * 9_000))
        for start in range(0, len(sealed), 5_000):  # so that records are cut, and others come between
            client.peer.send(sealed[start : start + 5_000])
            await asyncio.sleep(0)
        await client.until(b"\r\n\r\n")
        await client.until(b"\r\n\r\n")
        assert await client.until(b"<%d>" % number * 9_000) == b"<%d>" % number * 9_000

    await asyncio.gather(*map(one, range(40)))


# The ends.


@VERSIONS
async def test_a_client_that_closes_its_half_gets_its_answer(
    stage: Stage, authority: Authority, version: ssl.TLSVersion
) -> None:
    backend = await stage.backend()
    running = await secured(stage, authority, backend)
    client = await hand(running, authority, most=version)
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    client.say_end()
    upstream.send(response(body=b"late"))
    await client.until(b"late")
    assert await client.rest() == b"", "our own close_notify"


async def test_a_client_that_ends_without_a_close_notify_gets_its_answer(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await secured(stage, authority, backend)
    client = await hand(running, authority)
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    client.peer.half_close()
    upstream.send(response(body=b"late"))
    await client.until(b"late")
    assert await client.rest() == b""


async def test_a_whole_response_without_length_ends_with_a_close_notify(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await secured(stage, authority, backend)
    client = await hand(running, authority)
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    upstream.close()
    assert (await client.rest()).endswith(b"all of it")


async def test_a_broken_response_without_length_ends_without_a_close_notify(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await secured(stage, authority, backend)
    client = await hand(running, authority)
    client.send(request("GET / HTTP/1.0"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response("200 OK", CHUNKED) + b"5\r\nhalf \r\n")
    await client.until(b"half ")
    upstream.reset()
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        await client.rest()


async def test_a_tampered_record_ends_the_connection_and_reaches_no_backend(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend(hello)
    running = await secured(stage, authority, backend)
    client = await hand(running, authority)
    sealed = bytearray(client.seal(request()))
    sealed[-1] ^= 1
    client.peer.send(bytes(sealed))
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await client.rest()
    await running.quiet()
    assert not backend.requests


async def test_a_refused_request_is_answered_though_the_client_is_still_sending(
    stage: Stage, authority: Authority
) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = await hand(running, authority)
    client.send(request("BREW / HTTP/1.1", body=bytes(200_000)))
    assert b" 501 " in await client.until(b"\r\n\r\n")
    await client.rest()


# Tunnels.


async def test_a_tunnel_passes_bytes_and_half_closes(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await secured(stage, authority, backend)
    client = await hand(running, authority)
    client.send(ASK + b"early")
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH + b"first words")
    assert await upstream.exactly(5) == b"early"
    await client.until(b"first words")
    client.send(b"last words")
    client.say_end()
    assert await upstream.exactly(10) == b"last words"
    assert await upstream.rest() == b""
    upstream.send(b"still heard")
    await client.until(b"still heard")
    upstream.close()
    assert await client.rest() == b""
    await running.quiet()


async def test_a_tunnel_whose_client_is_slow_stops_reading_from_the_backend(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend()
    running = await secured(stage, authority, backend)
    peer = await running.client(receive_buffer=4096, limit=4096)
    client = await HandTls(peer, authority.client()).shake()
    client.send(ASK)
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(SWITCH)
    total = 20_000_000
    upstream.send(bytes(total))
    await eventually(lambda: running.proxy.tunnels, "the tunnel is open")
    (tunnel,) = running.proxy.tunnels
    assert tunnel.downstream is not None
    transport = tunnel.downstream.transport
    high = transport.get_write_buffer_limits()[1]
    await eventually(lambda: transport.get_write_buffer_size() > high, "the client is slow")
    assert transport.get_write_buffer_size() < 1_000_000
    upstream.send(b"end")
    await client.until(b"101")
    received = len(await client.until(b"end"))
    assert received >= total


async def test_a_websocket_by_tls_is_a_websocket(stage: Stage, authority: Authority) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        running = await secured(stage, authority, Backend.at(Address("127.0.0.1", port)))
        url = f"wss://127.0.0.1:{running.address.port}/chat"
        async with connect(url, ssl=authority.client(), proxy=None, max_size=None) as client:
            for message in ("text", b"\x00\xff", "x" * 700_000):
                await client.send(message)
                assert await soon(client.recv()) == message
        await running.quiet()


# The handshake.


async def test_a_plain_request_is_told_what_this_port_speaks(stage: Stage, authority: Authority) -> None:
    backend = await stage.backend(hello)
    running = await secured(stage, authority, backend)
    answer = await running.ask(request())
    assert (answer.status, answer.reason) == (400, "plain-http")
    assert b"https://" in answer.body
    assert not backend.requests
    await running.quiet()
    assert +running.proxy.counters.handshakes == {"plain": 1}


@pytest.mark.parametrize("noise", [b"\x00\x01\x02", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x00\x02"], ids=repr)
async def test_noise_is_closed(stage: Stage, authority: Authority, noise: bytes) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = await running.client()
    client.send(noise)
    await client.gone()
    await running.quiet()


@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01" + bytes(300), b"\x16\x03\x01\x00\x05\x01\x00\xff\xff\xff", b"\x16" + b"\xff" * 70_000],
    ids=["zeros", "long hello", "flood"],
)
async def test_a_broken_hello_is_closed_and_counted(stage: Stage, authority: Authority, noise: bytes) -> None:
    settings = Settings(times=replace(QUICK, head_s=0.2))
    running = await secured(stage, authority, await stage.backend(hello), settings=settings)
    client = await running.client()
    client.send(noise)
    await client.gone()
    await running.quiet()
    assert sum(running.proxy.counters.handshakes.values()) == 1
    running.proxy.times = QUICK
    good = await hand(running, authority)  # whatever came before is nobody else's
    good.send(request())
    await good.until(b"hello")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
async def test_a_handshake_that_never_ends_is_given_up(stage: Stage, authority: Authority, share: float) -> None:
    running = await secured(
        stage, authority, await stage.backend(hello), settings=Settings(times=TimeSettings(head_s=0.2, sweep_s=0.05))
    )
    client = HandTls(await running.client(), authority.client())
    hello_ = client.hello()
    client.peer.send(hello_[: max(1, int(len(hello_) * share))])
    await client.peer.gone()
    assert +running.proxy.counters.handshakes == {"timeout": 1}


async def test_who_says_nothing_is_an_idle_connection_and_costs_no_tls(stage: Stage, authority: Authority) -> None:
    running = await secured(
        stage, authority, await stage.backend(hello), settings=Settings(times=TimeSettings(idle_s=0.2, sweep_s=0.05))
    )
    client = await running.client()
    downstream = await running.downstream()
    assert downstream.idle
    assert downstream.transport._session is None  # type: ignore[attr-defined]
    assert await client.gone()
    assert not +running.proxy.counters.handshakes


async def test_a_hello_that_is_not_whole_is_counted_and_costs_no_more(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = await running.client()
    client.send(b"\x16\x03\x01\x40\x00\x01" + bytes(16_000))
    await eventually(lambda: running.proxy.buffered.total == 16_006, "what waits is counted")
    downstream = await running.downstream()
    assert downstream.transport._session is None  # type: ignore[attr-defined]
    assert not downstream.idle
    client.close()
    await running.quiet()
    assert running.proxy.buffered.total == 0
    assert running.proxy.counters.handshakes["failed"] == 1


async def test_hellos_that_are_not_whole_are_dropped_at_the_bound(stage: Stage, authority: Authority) -> None:
    settings = Settings(times=QUICK, limits=LimitSettings(buffered_bytes=50_000))
    running = await secured(stage, authority, await stage.backend(hello), settings=settings)
    clients = [await running.client() for _ in range(5)]
    for client in clients:
        client.send(b"\x16\x03\x01\x40\x00\x01" + bytes(16_000))
        await client.flush()
    await clients[0].gone()
    await eventually(lambda: len(running.downstreams) == 3, "the oldest are dropped")
    assert running.proxy.buffered.total <= 50_000
    good = await hand(running, authority)
    good.send(request())
    await good.until(b"hello")


async def test_old_versions_are_refused(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    context = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await HandTls(await running.client(), context).shake()
    await running.quiet()
    assert +running.proxy.counters.handshakes == {"failed": 1}


async def test_only_ciphers_with_forward_secrecy_are_spoken(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    context = authority.client(maximum_version=V12)
    context.set_ciphers("AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await HandTls(await running.client(), context).shake()


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None)])
async def test_alpn_is_http_1_1_only(
    stage: Stage, authority: Authority, offered: list[str], chosen: str | None
) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    context = authority.client()
    context.set_alpn_protocols(offered)
    client = await HandTls(await running.client(), context).shake()
    assert client.session.selected_alpn_protocol() == chosen


@VERSIONS
async def test_a_second_connection_resumes_the_session(
    stage: Stage, authority: Authority, version: ssl.TLSVersion
) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    context = authority.client(maximum_version=version)
    first = await HandTls(await running.client(), context).shake()
    first.send(request())
    await first.until(b"hello")
    second = await HandTls(await running.client(), context, session=first.session.session).shake()
    assert second.session.session_reused
    second.send(request())
    await second.until(b"hello")
    assert +running.proxy.counters.handshakes == {"full": 1, "resumed": 1}


async def test_renegotiation_is_refused(stage: Stage, authority: Authority) -> None:
    context = authority.client(maximum_version=V12)
    running = await secured(stage, authority, await stage.backend(hello))
    client = await HandTls(await running.client(), context).shake()
    assert client.session.compression() is None
    assert running.proxy.client_tls is not None
    assert running.proxy.client_tls.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("header", [ANN, BOB], ids=["version 1", "version 2"])
async def test_tls_may_stand_behind_a_header_of_the_proxy_protocol(
    stage: Stage, authority: Authority, header: bytes
) -> None:
    backend = await stage.backend(hello)
    running = await secured(stage, authority, backend, settings=behind())
    client = HandTls(await running.client(), authority.client())
    client.peer.send(header + client.hello())
    await client.shake()
    client.send(request())
    await client.until(b"hello")
    assert backend.requests[0].get("x-real-ip") != "127.0.0.1"
    assert backend.requests[0].get("x-forwarded-proto") == "https"


async def test_a_client_that_goes_in_the_middle_of_the_handshake_leaves_nothing(
    stage: Stage, authority: Authority
) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    context = authority.client()
    length = len(HandTls(await running.client(), context).hello())
    for cut in (1, 5, length // 2, length - 1, length):
        for reset in (True, False):
            client = HandTls(await running.client(), context)
            client.peer.send(client.hello()[:cut])
            await client.peer.flush()
            client.peer.reset() if reset else client.peer.close()
    for client in stage.clients:
        client.close()
    await running.quiet()
    good = await hand(running, authority)
    good.send(request())
    await good.until(b"hello")


# Certificates that change, and the end.


async def test_connections_live_on_when_the_certificate_changes(stage: Stage, authority: Authority) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    before = await hand(running, authority)
    running.proxy.secure(authority.material("127.0.0.1", "second.test"))
    after = await hand(running, authority)
    names = [client.session.getpeercert()["subjectAltName"] for client in (before, after)]  # type: ignore[index]
    assert ("DNS", "second.test") in names[1]
    assert ("DNS", "second.test") not in names[0]
    for client in (before, after):
        client.send(request())
        await client.until(b"hello")


async def test_who_is_in_the_middle_of_a_handshake_when_the_proxy_drains_is_served_once(
    stage: Stage, authority: Authority
) -> None:
    running = await secured(stage, authority, await stage.backend(hello))
    client = HandTls(await running.client(), authority.client())
    hello_ = client.hello()
    client.peer.send(hello_[:100])
    downstream = await running.downstream()
    await eventually(lambda: not downstream.idle, "the handshake has begun")
    idle = await hand(running, authority)
    drain = asyncio.ensure_future(running.proxy.drain(5))
    assert await idle.rest() == b"", "an idle connection is closed in order"
    client.peer.send(hello_[100:])
    await client.shake()
    client.send(request())
    assert b"\r\nConnection: close\r\n" in await client.until(b"\r\n\r\n")
    assert await client.rest() == b"hello"
    await soon(drain)
