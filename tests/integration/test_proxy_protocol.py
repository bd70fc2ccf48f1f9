"""Behind a balancer that speaks the PROXY protocol, the client is who the balancer says; nobody else may say so."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from needs import missing

from stickyproxy.core.affinity import HashKey, KeySource
from stickyproxy.core.limits import Limit
from stickyproxy.core.proxy_protocol import SIGNATURE
from stickyproxy.core.settings import AffinitySettings, LimitSettings, Settings, TimeSettings
from stickyproxy.core.values import parse_networks
from stickyproxy.dataplane.sweep import ACTED_ON

from .command import command, reserved
from .harness import QUICK, Clock, Message, Peer, Running, Stage, eventually, hello, named, request, soon
from .workers import metrics

ANN = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n"
BOB = SIGNATURE + b"\x21\x11\0\x0c" + bytes((203, 0, 113, 77, 10, 0, 0, 1, 1, 2, 3, 4))
HEALTH_CHECK = SIGNATURE + b"\x20\x00\0\0"

both_loops = pytest.mark.both_loops


def behind(balancer: str = "127.0.0.1", **more: Any) -> Settings:
    return replace(Settings(times=QUICK, trusted=parse_networks(balancer), proxy_protocol=True), **more)


LATE = TimeSettings(sweep_s=60.0)
"""The sweep of the proxy itself stays out of the way."""


async def ask(running: Running, header: bytes, *fields: str) -> Message:
    client = await running.client()
    client.send(header + request("GET / HTTP/1.1", *fields))
    message = await client.message()
    client.close()
    return message


@both_loops
@pytest.mark.parametrize(
    ("header", "address"), [(ANN, "203.0.113.9"), (BOB, "203.0.113.77"), (HEALTH_CHECK, "127.0.0.1")]
)
async def test_the_address_of_the_header_is_the_client(stage: Stage, header: bytes, address: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    assert (await ask(running, header)).body == b"hello"
    assert backend.requests[0].all("x-forwarded-for") == [address]
    assert backend.requests[0].all("x-real-ip") == [address]


@both_loops
@pytest.mark.parametrize("ends", [False, True])
async def test_whose_header_or_end_comes_while_the_sweep_closes_others_leaves_one_place(
    stage: Stage, *, ends: bool
) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind(times=LATE))
    admission = running.proxy.admission
    clients = [await running.client() for _ in range(ACTED_ON + 3)]
    await eventually(lambda: len(admission.prefaces) == len(clients), "all are awaited")
    for preface in admission.prefaces:
        preface.deadline = 0.0
    slices = running.proxy.sweep._slices()
    next(slices)
    assert len(admission.prefaces) == 3
    ports = {preface.connection.getpeername() for preface in admission.prefaces}
    left = [c for c in clients if c.writer.get_extra_info("sockname") in ports]
    if ends:
        left[0].close()
        await eventually(lambda: len(admission.prefaces) == 2, "its end is seen")
    else:
        left[0].send(ANN + request())
        assert (await left[0].message()).body == b"hello"
    list(slices)
    assert admission.places.taken == (0 if ends else 1)
    if not ends:
        left[0].send(request())
        assert (await left[0].message()).body == b"hello"


@both_loops
@pytest.mark.parametrize("header", [ANN, BOB, HEALTH_CHECK])
async def test_a_header_may_come_byte_by_byte_and_loses_none_of_what_follows(stage: Stage, header: bytes) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    client = await running.client()
    client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await eventually(lambda: running.proxy.admission.prefaces, "it is in")
    (preface,) = running.proxy.admission.prefaces
    for at in range(len(header) - 1):
        client.send(header[at : at + 1])
        await eventually(lambda at=at: len(preface._read) == at + 1, "the byte is read")  # type: ignore[misc]
    client.send(header[-1:] + request() + request("GET /second HTTP/1.1"))
    assert (await client.message()).body == b"hello"
    assert (await client.message()).body == b"hello"
    assert [asked.target for asked in backend.requests] == ["/", "/second"]


@both_loops
async def test_every_cut_of_header_and_request_in_two_gives_the_same_answer(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    for header in (ANN, BOB):
        whole = header + request("GET / HTTP/1.1", "Connection: close")
        for at in range(1, len(whole), 3):
            client = await running.client()
            client.send(whole[:at])
            await asyncio.sleep(0)
            client.send(whole[at:])
            assert (await client.message()).body == b"hello"
            client.close()
    assert {tuple(asked.all("x-forwarded-for")) for asked in backend.requests} == {("203.0.113.9",), ("203.0.113.77",)}


@both_loops
@pytest.mark.parametrize("data", [request(), b"\x16\x03\x01\x02\0", b"PROXY TCP4 nobody\r\n" + request(), b"\r\n\r\n"])
async def test_a_connection_without_a_header_is_closed_without_a_word(stage: Stage, data: bytes) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind(times=replace(QUICK, head_s=0.2)))
    client = await running.client()
    client.send(data)
    await client.gone()
    assert not client.reader._buffer  # type: ignore[attr-defined]
    assert not backend.requests
    assert sum(running.proxy.counters.refused_headers.values()) == 1


@both_loops
async def test_who_is_not_trusted_is_closed_whatever_he_says(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind("192.0.2.1"))
    client = await running.client()
    client.send(ANN + request())
    await client.gone()
    assert not backend.requests
    assert running.proxy.counters.refused_headers["untrusted"] == 1


@both_loops
@pytest.mark.parametrize("begun", [b"", b"PROXY ", SIGNATURE, ANN[:-1]])
async def test_a_header_that_does_not_come_in_time_closes_the_connection(stage: Stage, begun: bytes) -> None:
    running = await stage.proxy(settings=behind(times=replace(QUICK, head_s=0.1)))
    client = await running.client()
    client.send(begun)
    await client.gone()
    assert running.proxy.counters.refused_headers["timeout"] == 1


@both_loops
@pytest.mark.parametrize("begun", [b"", ANN[:20]])
async def test_a_client_that_vanishes_before_its_header_is_whole_leaves_nothing(stage: Stage, begun: bytes) -> None:
    running = await stage.proxy(settings=behind())
    client = await running.client()
    client.send(begun)
    await eventually(lambda: running.proxy.admission.prefaces, "it is in")
    client.close()
    await eventually(lambda: not running.proxy.admission.places.taken, "its place is free")
    assert running.proxy.counters.refused_headers["closed"] == 1


@both_loops
@pytest.mark.parametrize("late", [b"", ANN, ANN + request()])
async def test_a_drain_waits_a_moment_for_a_header_and_for_what_follows_it(stage: Stage, late: bytes) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=behind(times=replace(QUICK, linger_s=3.0)))
    clock = Clock(running)
    idle, client = await running.client(), await running.client()
    idle.send(ANN)
    await eventually(lambda: running.downstreams and running.proxy.admission.prefaces, "both are in")
    drain = asyncio.ensure_future(running.proxy.drain(30))
    await idle.gone()
    client.send(late)
    if late.endswith(request()):
        message = await client.message()
        assert (message.body, message.get("connection")) == (b"hello", "close")
    else:
        await eventually(lambda: running.downstreams or not late, "who said late whose it is is in")
        await clock.passes(2.0)
        assert not drain.done()
        clock.moves(2.0)
    await soon(drain)
    assert await client.rest() == b""


@both_loops
async def test_closing_does_not_wait_for_a_header(stage: Stage) -> None:
    running = await stage.proxy(settings=behind())
    await running.client()
    await eventually(lambda: running.proxy.admission.prefaces, "it is in")
    await soon(running.proxy.close())


@both_loops
async def test_the_client_of_the_header_is_no_trusted_proxy_though_the_balancer_is(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    await ask(running, ANN, "X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: https")
    assert backend.requests[0].all("x-forwarded-for") == ["203.0.113.9"]
    assert backend.requests[0].all("x-forwarded-proto") == ["http"]


@both_loops
async def test_an_ingress_behind_the_balancer_is_believed(stage: Stage) -> None:
    backend = await stage.backend(hello)
    settings = behind(trusted=(*parse_networks("127.0.0.1"), *parse_networks("203.0.113.9")))
    running = await stage.proxy(backend, settings=settings)
    await ask(running, ANN, "X-Forwarded-For: 192.0.2.66")
    assert backend.requests[0].all("x-forwarded-for") == ["192.0.2.66, 203.0.113.9"]


@both_loops
async def test_connections_are_counted_by_the_address_of_the_header(stage: Stage) -> None:
    running = await stage.proxy(
        await stage.backend(hello), settings=behind(limits=LimitSettings(connections_per_client=1))
    )
    first = await running.client()
    first.send(ANN + request())
    assert (await first.message()).body == b"hello"
    assert (await ask(running, BOB)).body == b"hello"
    second = await running.client()
    second.send(ANN + request())
    await second.gone()
    assert running.proxy.counters.limits[Limit.CLIENT_CONNECTIONS] == 1
    first.close()
    await running.quiet()
    assert (await ask(running, ANN)).body == b"hello"


@both_loops
async def test_the_address_of_the_header_is_the_key_of_the_hash(stage: Stage) -> None:
    backends = [await stage.backend(named(name)) for name in "abcdefgh"]
    affinity = AffinitySettings(hash_key=HashKey(KeySource.ADDRESS, ""))
    running = await stage.proxy(*backends, settings=behind(affinity=affinity))
    went = {}
    for host in range(20):
        header = f"PROXY TCP4 203.0.113.{host} 10.0.0.1 4711 80\r\n".encode()
        went[host] = {(await ask(running, header)).body for _ in range(2)}
    assert all(len(bodies) == 1 for bodies in went.values()), "a client stays"
    assert len(set.union(*went.values())) > 1, "clients are spread"


# The real command, and HAProxy as the balancer.


async def test_the_command_takes_headers_and_counts_what_it_refuses(stage: Stage) -> None:
    backend = await stage.backend(hello)
    async with command("--backend", str(backend.address), "--accept-proxy-protocol", "--workers", "2") as running:
        client = await running.client()
        client.send(ANN + request())
        assert (await client.message()).body == b"hello"
        assert backend.requests[0].all("x-forwarded-for") == ["203.0.113.9"]
        client = await running.client()
        client.send(request())
        await client.gone()
        assert (await metrics(running))["stickyproxy_refused_headers_total{reason=malformed}"] == 1


async def test_without_a_trusted_proxy_nobody_could_connect_and_the_start_says_so() -> None:
    from .command import start

    process = await start(
        "run",
        "--backend",
        "127.0.0.1:1",
        "--accept-proxy-protocol",
        "--trusted-proxy",
        "none",
        "--listen",
        "127.0.0.1:0",
    )
    assert process.stderr is not None
    said = (await soon(process.stderr.read(), bound_s=20)).decode()
    assert await soon(process.wait()) == 2
    assert said.startswith("stickyproxy: --accept-proxy-protocol: expected a --trusted-proxy")


@asynccontextmanager
async def haproxy(
    path: Path, server: str, to: str, *, front: str = "127.0.0.1", mode: str = "tcp"
) -> AsyncIterator[int]:
    """Run HAProxy in front of an address until the block ends; give its port."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        missing("haproxy (apt-get install haproxy)")
    with reserved() as listen:
        configuration = path / "haproxy.cfg"
        bind = f"{front}:{listen.port}" if ":" not in front else f"[{front}]:{listen.port}"
        configuration.write_text(
            f"global\n  maxconn 100\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 30s\n"
            f"  timeout server 30s\nlisten all\n  bind {bind}\n  server app {to} {server}\n"
        )
        process = await asyncio.create_subprocess_exec(program, "-db", "-f", str(configuration))
        try:
            yield listen.port
        finally:
            process.terminate()
            await soon(process.wait())


async def through(port: int, front: str, source: str, *fields: str) -> Message:
    """Ask HAProxy from a certain address, as soon as it listens."""
    for _ in range(500):
        try:
            connection = await asyncio.open_connection(front, port, local_addr=(source, 0))
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
    else:
        raise AssertionError("HAProxy does not listen")
    peer = Peer(*connection)
    try:
        peer.send(request("GET / HTTP/1.1", *fields))
        return await peer.message()
    finally:
        peer.drop()


@pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
async def test_haproxy_says_who_the_client_is(stage: Stage, tmp_path: Path, server: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    async with haproxy(tmp_path, server, str(running.address)) as port:
        message = await through(port, "127.0.0.1", "127.0.0.77", "X-Forwarded-For: 192.0.2.66")
    assert message.body == b"hello"
    assert backend.requests[-1].all("x-forwarded-for") == ["127.0.0.77"]


@pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2"])
async def test_haproxy_says_who_a_client_with_ipv6_is(stage: Stage, tmp_path: Path, server: str) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        missing("an IPv6 loopback address (sysctl net.ipv6.conf.lo.disable_ipv6=0)")
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    async with haproxy(tmp_path, server, str(running.address), front="::1") as port:
        assert (await through(port, "::1", "::1")).body == b"hello"
    assert backend.requests[-1].all("x-forwarded-for") == ["::1"]


@pytest.mark.parametrize("server", ["send-proxy", "send-proxy-v2"])
async def test_health_checks_of_haproxy_are_served_as_its_own(stage: Stage, tmp_path: Path, server: str) -> None:
    """A check is a LOCAL connection in version 2: it comes from the balancer itself."""
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=behind())
    checks = (
        f"{server} check-send-proxy check inter 100ms rise 1 fall 1\n  option httpchk GET /check\n"
        "  http-check send ver HTTP/1.1 hdr Host check"
    )
    async with haproxy(tmp_path, checks, str(running.address)) as port:
        await eventually(lambda: sum(r.target == "/check" for r in backend.requests) > 2, "checks pass")
        assert (await through(port, "127.0.0.1", "127.0.0.77")).body == b"hello"
    assert {tuple(r.all("x-forwarded-for")) for r in backend.requests if r.target == "/check"} == {("127.0.0.1",)}
    assert not sum(running.proxy.counters.refused_headers.values())


async def test_haproxy_without_the_header_gets_no_answer(stage: Stage, tmp_path: Path) -> None:
    running = await stage.proxy(await stage.backend(hello), settings=behind())
    async with haproxy(tmp_path, "", str(running.address)) as port:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await through(port, "127.0.0.1", "127.0.0.77")
    assert running.proxy.counters.refused_headers["malformed"] == 1
