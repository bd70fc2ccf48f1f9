"""Both connections live on between exchanges, and requests are answered in order."""

import socket

import pytest

from .harness import (
    CHUNKED,
    Clock,
    Message,
    Stage,
    chunked,
    eventually,
    hello,
    named,
    request,
    response,
    turns,
)

pytestmark = pytest.mark.both_loops


async def test_one_client_connection_and_one_backend_connection_carry_many_requests(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    client = await running.client()
    for number in range(20):
        client.send(request(f"GET /{number} HTTP/1.1"))
        assert (await client.message()).body == b"hello"
    assert [r.target for r in backend.requests] == [f"/{n}" for n in range(20)]
    assert backend.connections == 1
    assert running.proxy.counters.dials == 1
    assert running.proxy.counters.connections == 1


async def test_a_backend_connection_is_shared_by_clients_that_come_one_after_another(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    for _ in range(5):
        assert (await running.ask(request())).status == 200
    assert backend.connections == 1


async def test_clients_at_the_same_time_have_backend_connections_of_their_own(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    first, second = await running.client(), await running.client()
    first.send(request("GET /1 HTTP/1.1"))
    one = await backend.accepted()
    assert (await one.head()).target == "/1"
    second.send(request("GET /2 HTTP/1.1"))
    two = await backend.accepted()
    assert (await two.head()).target == "/2"
    two.send(response(body=b"second"))
    assert (await second.message()).body == b"second"
    one.send(response(body=b"first"))
    assert (await first.message()).body == b"first"
    assert running.idle == 2


@pytest.mark.parametrize("line", ["Connection: close", "connection: Close"])
async def test_a_client_that_asks_to_close_is_closed_and_the_backend_connection_is_kept(
    stage: Stage, line: str
) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET / HTTP/1.1", line))
    message = await client.message()
    assert message.get("connection") == "close"
    assert await client.rest() == b""
    assert running.idle == 1
    assert "close" not in backend.requests[0].raw.decode().lower()


async def test_a_backend_that_asks_to_close_is_not_used_again_and_the_client_does_not_see_it(stage: Stage) -> None:
    backend = await stage.backend(lambda _: response("200 OK", "Connection: close", body=b"x"))
    running = await stage.proxy(backend)
    client = await running.client()
    for _ in range(3):
        client.send(request())
        message = await client.message()
        assert message.body == b"x"
        assert message.get("connection") is None
    assert backend.connections == 3
    assert running.idle == 0


async def test_an_http_1_0_backend_is_closed_after_its_answer(stage: Stage) -> None:
    backend = await stage.backend(lambda _: response(body=b"old", version="1.0"))
    running = await stage.proxy(backend)
    client = await running.client()
    for _ in range(2):
        client.send(request())
        message = await client.message()
        assert message.start == "HTTP/1.1 200 OK"
        assert message.body == b"old"
    assert backend.connections == 2


async def test_bytes_behind_a_response_end_that_backend_connection_and_reach_nobody(stage: Stage) -> None:
    backend = await stage.backend(lambda _: response(body=b"mine") + response(body=b"smuggled"))
    running = await stage.proxy(backend)
    client = await running.client()
    for _ in range(3):
        client.send(request())
        assert (await client.message()).body == b"mine"
    assert backend.connections == 3


async def test_bytes_on_an_idle_backend_connection_end_it_and_reach_nobody(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    pooled = await backend.accepted()
    await pooled.head()
    pooled.send(response(body=b"1"))
    await client.message()
    pooled.send(response(body=b"unasked"))
    assert not await pooled.gone() or running.idle == 0
    await eventually(lambda: running.idle == 0, "the connection leaves the pool")
    client.send(request())
    fresh = await backend.accepted()
    await fresh.head()
    fresh.send(response(body=b"2"))
    assert (await client.message()).body == b"2"


async def test_200_requests_in_one_write_are_answered_in_order(stage: Stage) -> None:
    backend = await stage.backend(lambda asked: response(body=asked.target.encode()))
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(b"".join(request(f"GET /{n} HTTP/1.1") for n in range(200)))
    for number in range(200):
        assert (await client.message()).body == f"/{number}".encode()
    assert backend.connections == 1


async def test_2000_requests_in_one_write_are_refused_in_order_without_any_backend(stage: Stage) -> None:
    running = await stage.proxy()
    client = await running.client()
    client.send(request() * 2000)
    for _ in range(2000):
        message = await client.message()
        assert (message.status, message.reason) == (503, "no-backend")


async def test_2000_probes_in_one_write_are_answered(stage: Stage) -> None:
    running = await stage.proxy()
    client = await running.client()
    client.send(request("GET / HTTP/1.1", "User-Agent: kube-probe/1.33") * 2000)
    for _ in range(2000):
        assert (await client.message()).status == 200


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("pooled", [False, True])
async def test_pipelined_requests_around_one_with_a_body_are_answered_in_order(
    stage: Stage, coding: str, pooled: bool
) -> None:
    backend = await stage.backend(lambda asked: response(body=asked.target.encode() + b":" + asked.body))
    running = await stage.proxy(backend)
    client = await running.client()
    if pooled:
        client.send(request("GET /warm HTTP/1.1"))
        await client.message()
    post = (
        request("POST /2 HTTP/1.1", CHUNKED, body=chunked(b"bo", b"dy"))
        if coding == "chunked"
        else request("POST /2 HTTP/1.1", body=b"body")
    )
    client.send(request("GET /1 HTTP/1.1") + post + request("GET /3 HTTP/1.1") + post + request("GET /5 HTTP/1.1"))
    answers = [(await client.message()).body for _ in range(5)]
    assert answers == [b"/1:", b"/2:body", b"/3:", b"/2:body", b"/5:"]


async def test_requests_split_at_every_byte_are_answered(stage: Stage) -> None:
    backend = await stage.backend(lambda asked: response(body=asked.body))
    running = await stage.proxy(backend)
    client = await running.client()
    data = request("POST /x HTTP/1.1", CHUNKED, body=chunked(b"abc")) + request("GET /y HTTP/1.1")
    for byte in data:
        client.send(bytes((byte,)))
        await turns(3)
    assert (await client.message()).body == b"abc"
    assert (await client.message()).body == b""


async def test_an_empty_line_before_a_request_is_ignored(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    client = await running.client()
    client.send(b"\r\n" + request() + b"\r\n\r\n" + request())
    assert [(await client.message()).status for _ in range(2)] == [200, 200]


async def test_an_empty_line_before_a_request_is_ignored_when_it_comes_byte_by_byte(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(hello))
    client = await running.client()
    client.send(b"\r")
    await turns()
    client.send(b"\n" + request())
    assert (await client.message()).status == 200


async def test_pipelined_requests_behind_one_that_closes_are_not_served(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET /last HTTP/1.1", "Connection: close") + request("GET /never HTTP/1.1"))
    assert (await client.message()).status == 200
    assert await client.rest() == b""
    assert [r.target for r in backend.requests] == ["/last"]


async def test_a_half_closed_client_gets_its_answer_and_then_the_end(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    client.half_close()
    upstream = await backend.accepted()
    await upstream.head()
    await turns()
    upstream.send(response(body=b"still here"))
    assert (await client.message()).body == b"still here"
    assert await client.rest() == b""
    assert running.idle == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_client_that_half_closes_right_behind_a_body_gets_its_answer(stage: Stage, framing: str) -> None:
    backend = await stage.backend(lambda asked: response(body=asked.body))
    running = await stage.proxy(backend)
    client = await running.client()
    body = {"length": request("POST / HTTP/1.1", body=b"hello"),
            "chunked": request("POST / HTTP/1.1", CHUNKED, body=chunked(b"hello"))}  # fmt: skip
    client.send(body[framing])  # before there is a connection to the backend
    client.half_close()
    assert (await client.message()).body == b"hello"
    assert await client.rest() == b""


async def test_a_half_closed_client_gets_all_pipelined_answers(stage: Stage) -> None:
    running = await stage.proxy(await stage.backend(lambda asked: response(body=asked.target.encode())))
    client = await running.client()
    client.send(b"".join(request(f"GET /{n} HTTP/1.1") for n in range(5)))
    client.half_close()
    assert [(await client.message()).body for _ in range(5)] == [b"/%d" % n for n in range(5)]
    assert await client.rest() == b""


async def test_a_client_that_half_closes_in_its_body_is_closed_and_the_backend_sees_no_whole_request(
    stage: Stage,
) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", "Content-Length: 10") + b"12345")
    upstream = await backend.accepted()
    await upstream.head()
    assert await upstream.exactly(5) == b"12345"
    client.half_close()
    await upstream.gone()
    assert await client.rest() == b""
    await running.quiet()


async def test_the_same_headers_on_one_connection_are_judged_anew_for_another_cookie(stage: Stage) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    running = await stage.proxy(one, two)
    client = await running.client()
    for backend, name in ((one, b"one"), (one, b"one"), (two, b"two"), (one, b"one")):
        client.send(request("GET / HTTP/1.1", running.cookie(backend)))
        assert (await client.message()).body == name


async def test_idle_backend_connections_are_closed_before_the_backend_does_it(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    clock = Clock(running)
    await running.ask(request())
    assert running.idle == 1
    clock.moves(running.proxy.times.upstream_idle_s + 1)
    await eventually(lambda: running.idle == 0, "the idle connection is closed")
    await eventually(lambda: backend.peers[0].reader.at_eof(), "the backend sees the end")
    assert (await running.ask(request())).status == 200
    assert backend.connections == 2


async def test_no_more_idle_connections_than_the_limit_are_kept(stage: Stage) -> None:
    from stickyproxy.core.settings import LimitSettings, Settings

    backend = await stage.backend()
    running = await stage.proxy(backend, settings=Settings(limits=LimitSettings(idle_upstreams=2)))
    clients = [await running.client() for _ in range(5)]
    for client in clients:
        client.send(request())
    upstreams = [await backend.accepted() for _ in clients]
    for upstream in upstreams:
        await upstream.head()
        upstream.send(response())
    for client in clients:
        assert (await client.message()).status == 200
    assert running.idle == 2


async def test_connections_of_a_backend_that_left_the_list_are_closed(stage: Stage) -> None:
    one, two = await stage.backend(named("one")), await stage.backend(named("two"))
    running = await stage.proxy(one, two)
    assert (await running.ask(request("GET / HTTP/1.1", running.cookie(one)))).body == b"one"
    running.apply(two.at())
    await eventually(lambda: one.peers[0].reader.at_eof(), "the pooled connection to the old backend ends")
    assert running.idle == 0
    assert (await running.ask(request())).body == b"two"


async def test_an_exchange_that_runs_when_its_backend_leaves_the_list_is_finished(stage: Stage) -> None:
    one, two = await stage.backend(), await stage.backend(named("two"))
    running = await stage.proxy(one)
    client = await running.client()
    client.send(request())
    upstream = await one.accepted()
    await upstream.head()
    running.apply(two.at())
    upstream.send(response(body=b"last words"))
    message: Message = await client.message()
    assert message.body == b"last words"
    assert message.token is None, "a pin to a backend that is gone must not be handed out"
    assert await upstream.gone() is not None
    client.send(request())
    assert (await client.message()).body == b"two"


async def test_a_backend_that_answers_and_leaves_the_body_unread_gets_no_other_request_on_that_connection(
    stage: Stage,
) -> None:
    """What it would be sent there would wait, and a body that waits unseen is not bounded by anybody."""
    body = bytes(60_000)  # which comes in one piece
    backend = await stage.backend(receive_buffer=1)
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", f"Content-Length: {len(body)}"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.writer.transport.pause_reading()  # type: ignore[attr-defined]
    exchange = (await running.downstream()).exchange
    assert exchange is not None
    assert exchange.upstream is not None
    kernel = exchange.upstream.transport.get_extra_info("socket")
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    client.send(body)
    await eventually(lambda: exchange.request_done and exchange.waiting_bytes, "all has come, and some waits")
    upstream.send(response(body=b"too large"))
    assert (await client.message()).body == b"too large"
    assert running.idle == 0
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response(body=b"hello"))
    assert (await client.message()).body == b"hello"
    assert running.idle == 1
    assert running.proxy.buffered.total == 0
