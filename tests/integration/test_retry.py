"""A pooled connection that dies under a request: retried once where that cannot do harm, and never else."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stickyproxy.dataplane import sending
from stickyproxy.dataplane.upstream import Upstream

from .harness import QUICK, Peer, RawBackend, Running, Stage, eventually, request, response, turns

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]


async def pooled(stage: Stage) -> tuple[RawBackend, Running, Peer, Peer]:
    """Give a client whose next request will go by a pooled connection, and the backend's end of that."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET /first HTTP/1.1"))
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response())
    await client.message()
    assert running.idle == 1
    return backend, running, client, upstream


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_that_ended_in_the_pool_is_not_used(stage: Stage, how: str) -> None:
    backend, running, client, upstream = await pooled(stage)
    getattr(upstream, how)()
    await eventually(lambda: running.idle == 0, "the ended connection leaves the pool")
    client.send(request("POST /second HTTP/1.1", body=b"once"))
    fresh = await backend.accepted()
    assert (await fresh.head()).target == "/second"
    assert await fresh.exactly(4) == b"once"
    fresh.send(response(body=b"ok"))
    assert (await client.message()).body == b"ok"
    assert running.proxy.counters.retries == 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", IDEMPOTENT)
async def test_an_idempotent_request_on_a_dying_pooled_connection_is_sent_again(
    stage: Stage, method: str, how: str
) -> None:
    backend, running, client, upstream = await pooled(stage)
    client.send(request(f"{method} /second HTTP/1.1"))
    first = await upstream.head()
    getattr(upstream, how)()
    fresh = await backend.accepted()
    assert (await fresh.head()).raw == first.raw
    fresh.send(response(body=b"" if method == "HEAD" else b"again"))
    assert (await client.message(method=method)).status == 200
    assert running.proxy.counters.retries == 1
    assert backend.connections == 2


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "data",
    [
        request("POST / HTTP/1.1"),
        request("POST / HTTP/1.1", "Content-Length: 0"),
        request("GET /_nicegui/auto/static/0a1b/report.pdf HTTP/1.1"),  # good for one answer only
        request("PATCH / HTTP/1.1", body=b"x"),
        request("PUT / HTTP/1.1", body=b"x"),
        request("GET / HTTP/1.1", body=b"x"),
    ],
    ids=["POST", "POST-empty", "download", "PATCH", "PUT-with-body", "GET-with-body"],
)
async def test_what_might_do_harm_is_never_sent_twice(stage: Stage, data: bytes, how: str) -> None:
    backend, running, client, upstream = await pooled(stage)
    client.send(data)
    await upstream.head()
    getattr(upstream, how)()
    message = await client.message()
    assert (message.status, message.reason) == (502, "closed-early")
    assert backend.connections == 1
    assert running.proxy.counters.retries == 0


async def test_nothing_is_sent_three_times(stage: Stage) -> None:
    backend, running, client, upstream = await pooled(stage)
    client.send(request())
    await upstream.head()
    upstream.close()
    fresh = await backend.accepted()
    await fresh.head()
    fresh.close()
    message = await client.message()
    assert (message.status, message.reason) == (502, "closed-early")
    assert backend.connections == 2
    assert running.proxy.counters.retries == 1


async def test_a_retry_does_not_use_another_pooled_connection(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    clients = [await running.client() for _ in range(3)]
    for client in clients:
        client.send(request())
    upstreams = [await backend.accepted() for _ in clients]
    for upstream in upstreams:
        await upstream.head()
        upstream.send(response())
    for client in clients:
        await client.message()
    assert running.idle == 3
    clients[0].send(request())
    await eventually(lambda: running.idle == 2, "a pooled connection is taken")
    for upstream in upstreams:
        upstream.close()
    fresh = await backend.accepted()
    await fresh.head()
    fresh.send(response(body=b"fresh"))
    assert (await clients[0].message()).body == b"fresh"


async def test_a_new_connection_that_ends_before_its_answer_is_not_retried(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.close()
    message = await client.message()
    assert (message.status, message.reason) == (502, "closed-early")
    assert backend.connections == 1


@pytest.mark.parametrize(
    "start", [b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["byte", "head", "103"]
)
async def test_nothing_is_retried_once_a_byte_of_an_answer_came(stage: Stage, start: bytes) -> None:
    backend, _, client, upstream = await pooled(stage)
    client.send(request())
    await upstream.head()
    upstream.send(start)
    await upstream.flush()
    upstream.close()
    message = await client.final()
    assert (message.status, message.reason) == (502, "closed-early")
    assert backend.connections == 1


async def test_a_retried_request_follows_its_pin_when_the_backend_left_the_list(stage: Stage) -> None:
    backend, running, client, upstream = await pooled(stage)
    other = await stage.backend(lambda _: response(body=b"other"))
    client.send(request("GET / HTTP/1.1", running.cookie(backend)))
    await upstream.head()
    running.apply(other.at())
    upstream.close()
    message = await client.message()
    assert message.body == b"other"
    assert message.token == running.proxy.snapshot.token_of(other.at()).decode()


async def test_a_request_that_must_not_be_sent_twice_takes_only_a_connection_just_used(stage: Stage) -> None:
    backend, running, client, _ = await pooled(stage)
    pool = next(iter(running.proxy.pools.values()))
    pool._idle[0].idle_since -= 2.0  # as if two seconds had gone by
    client.send(request("POST / HTTP/1.1", body=b"x"))
    fresh = await backend.accepted()
    await fresh.head()
    fresh.send(response(body=b"fresh"))
    assert (await client.message()).body == b"fresh"


async def test_who_has_been_told_of_the_time_out_is_not_answered_by_the_second_try(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline runs on while the second try connects, whose answer would be taken for that of the next request."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(response())
    await client.message()
    running.proxy.times = replace(QUICK, response_s=0.3)
    gate, connect = asyncio.Event(), sending.dial

    async def dial(*arguments: Any) -> Upstream:
        await gate.wait()
        return await connect(*arguments)

    monkeypatch.setattr(sending, "dial", dial)
    client.send(request())
    await upstream.head()
    upstream.close()
    message = await client.message()
    assert (message.status, message.reason) == (504, "response-timeout")
    assert running.proxy.counters.retries == 1
    gate.set()
    await turns()
    assert backend.connections == 1
    client.send(request("GET /next HTTP/1.1"))
    assert (await (await backend.accepted()).head()).target == "/next"
