"""Bodies and interim responses arrive as they were sent, whole ones whole and broken ones visibly broken."""

import asyncio

import pytest

from .harness import (
    CHUNKED,
    Peer,
    RawBackend,
    Running,
    Stage,
    chunked,
    request,
    response,
    turns,
)

pytestmark = pytest.mark.both_loops

BODY = bytes(range(256)) * 400


async def asked(stage: Stage, data: bytes = b"") -> tuple[RawBackend, Running, Peer, Peer]:
    """Give a client that has asked, and the backend's end with the request's head read."""
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(data or request())
    upstream = await backend.accepted()
    await upstream.head()
    return backend, running, client, upstream


FRAMED = {
    "length": response(body=BODY),
    "chunked": response("200 OK", CHUNKED, body=chunked(BODY[:1], BODY[1:7000], BODY[7000:])),
    "close": response("200 OK", "Close: 1", body=BODY),
    "close-1.0": response("200 OK", "Close: 1", body=BODY, version="1.0"),
    "empty": response(),
    "empty-chunked": response("200 OK", CHUNKED, body=chunked()),
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("framing", FRAMED)
async def test_a_body_arrives_whole_however_it_is_framed(stage: Stage, framing: str, version: str) -> None:
    _, running, client, upstream = await asked(stage, request(f"GET / HTTP/{version}"))
    data = FRAMED[framing]
    upstream.send(data[:-1])  # the last byte comes late
    await turns()
    upstream.send(data[-1:])
    if framing.startswith("close"):
        upstream.close()
    message = await client.message()
    assert message.start == "HTTP/1.1 200 OK"
    assert message.body == (b"" if framing.startswith("empty") else BODY)
    if version == "1.0":
        assert message.get("transfer-encoding") is None
    if version == "1.0" or framing.startswith("close"):
        assert message.get("connection") == "close"
        assert await client.rest() == b""
    assert running.idle == (0 if framing.startswith("close") else 1)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_response_split_at_every_byte_arrives_whole(stage: Stage, framing: str) -> None:
    _, running, client, upstream = await asked(stage)
    data = {
        "length": response(body=b"0123456789"),
        "chunked": response("200 OK", CHUNKED, body=chunked(b"01234", b"56789", trailers=["X-Sum: 1"])),
    }[framing]
    for byte in data:
        upstream.send(bytes((byte,)))
        await turns(3)
    message = await client.message()
    assert message.body == b"0123456789"
    assert message.trailers == (("X-Sum: 1",) if framing == "chunked" else ())
    assert running.idle == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_breaks_off_is_seen_as_broken(stage: Stage, framing: str, how: str, version: str) -> None:
    """No reader may take half a body for a whole one: see RFC 9112 section 8."""
    _, running, client, upstream = await asked(stage, request(f"GET / HTTP/{version}"))
    whole = FRAMED[framing]
    upstream.send(whole[: len(whole) // 2])
    await client.head()
    await upstream.flush()
    await client.exactly(len(whole) // 4)
    getattr(upstream, how)()
    ended_cleanly = await client.gone()
    # Where a length or chunks say that more must come, any end shows it; else only a reset does.
    if version == "1.0" and framing == "chunked":
        assert not ended_cleanly, "half a body and a clean end: the client takes it for the whole"
    assert running.proxy.counters.faults["broken-off"] == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_close_delimited_body_that_ends_by_a_reset_is_seen_as_broken(stage: Stage, version: str) -> None:
    _, running, client, upstream = await asked(stage, request(f"GET / HTTP/{version}"))
    upstream.send(response("200 OK", "Close: 1", body=b"half"))
    await client.head()
    assert await client.exactly(4) == b"half"
    upstream.reset()
    assert not await client.gone(), "half a body and a clean end: the client takes it for the whole"
    assert running.proxy.counters.faults["broken-off"] == 1


@pytest.mark.parametrize(
    "bad", [b"zz\r\nxx", b"5\r\nhelloXX", b"-1\r\n", b"0x5\r\nhello\r\n", b"5\nhello\n", b"5;" + b"x" * 9000]
)
async def test_a_badly_chunked_response_breaks_off_and_its_connection_is_not_used_again(
    stage: Stage, bad: bytes
) -> None:
    _, running, client, upstream = await asked(stage)
    upstream.send(response("200 OK", CHUNKED, body=b"2\r\nok\r\n" + bad))
    await client.head()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.chunks()
    await upstream.gone()
    assert running.idle == 0


async def test_chunk_extensions_are_not_passed_on(stage: Stage) -> None:
    _, _, client, upstream = await asked(stage)
    upstream.send(response("200 OK", CHUNKED, body=b'5;a="b";c\r\nhello\r\n000\r\n\r\n'))
    head = await client.head()
    assert head.all("transfer-encoding") == ["chunked"]
    assert await client.exactly(15) == b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("data", [request("POST / HTTP/1.1", body=BODY), b""], ids=["length", "chunked"])
async def test_a_requests_body_arrives_whole_and_the_connection_is_kept(stage: Stage, data: bytes) -> None:
    backend = await stage.backend(lambda asked: response(body=asked.body))
    running = await stage.proxy(backend)
    client = await running.client()
    for _ in range(2):
        client.send(data or request("POST / HTTP/1.1", CHUNKED, body=chunked(BODY[:9], BODY[9:])))
        assert (await client.message()).body == BODY
    assert backend.connections == 1


async def test_a_requests_trailers_arrive_and_those_that_could_do_harm_do_not(stage: Stage) -> None:
    _, _, _, upstream = await asked(
        stage,
        request(
            "POST / HTTP/1.1",
            CHUNKED,
            body=chunked(b"x", trailers=["X-Sum: 1", "Host: evil", "X-Forwarded-For: 6.6.6.6"]),
        ),
    )
    assert await upstream.chunks() == (b"x", ("X-Sum: 1",))


async def test_a_badly_chunked_request_is_refused_and_the_backend_sees_no_end_of_it(stage: Stage) -> None:
    _, running, client, upstream = await asked(stage, request("POST / HTTP/1.1", CHUNKED, body=b"2\r\nok\r\n"))
    client.send(b"nonsense\r\n0\r\n\r\n" + request("GET /smuggled HTTP/1.1"))
    message = await client.message()
    assert (message.status, message.reason, message.get("connection")) == (400, "bad-chunk", "close")
    assert b"0\r\n\r\n" not in await upstream.reader.read()
    client.half_close()
    assert await client.rest() == b""
    assert running.idle == 0


# Messages without bodies.


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_responses_that_have_no_body_end_with_their_head(stage: Stage, status: str) -> None:
    _, running, client, upstream = await asked(stage)
    upstream.send(response(status, "ETag: 1", "Transfer-Encoding: chunked") if "304" in status else response(status))
    message = await client.head()
    assert f"{message.status}" == status[:3]
    assert running.idle == 1
    client.send(request())
    await upstream.head()
    upstream.send(response(body=b"next"))
    assert (await client.message()).body == b"next"


@pytest.mark.parametrize("framing", ["Content-Length: 12345", CHUNKED])
async def test_the_answer_to_head_ends_with_its_head_and_keeps_its_framing_fields(stage: Stage, framing: str) -> None:
    _, running, client, upstream = await asked(stage, request("HEAD / HTTP/1.1"))
    upstream.send(response("200 OK", framing))
    head = await client.head()
    name, _, value = framing.partition(": ")
    assert head.get(name.lower()) == value
    assert running.idle == 1
    client.send(request("HEAD /2 HTTP/1.1"))
    await upstream.head()
    upstream.send(response("200 OK", "Content-Length: 7"))
    assert (await client.head()).get("content-length") == "7"


async def test_a_length_on_a_204_is_not_passed_on(stage: Stage) -> None:
    _, _, client, upstream = await asked(stage)
    upstream.send(response("204 No Content", "Content-Length: 5"))
    assert (await client.head()).get("content-length") is None


async def test_ranges_pass_untouched(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("GET /video HTTP/1.1", "Range: bytes=5-9", 'If-Range: "v1"'))
    upstream = await backend.accepted()
    head = await upstream.head()
    assert (head.get("range"), head.get("if-range")) == ("bytes=5-9", '"v1"')
    answer = response("206 Partial Content", "Content-Range: bytes 5-9/10", 'ETag: "v1"', "Vary: x", body=b"56789")
    upstream.send(answer)
    message = await client.message()
    assert message.body == b"56789"
    assert message.get("content-range") == "bytes 5-9/10"
    assert message.raw.startswith(answer[: answer.index(b"\r\n\r\n")]), "nothing but a cookie is added behind"


# Interim responses.

EXPECTS = "Expect: 100-continue"


async def test_a_100_continue_passes_and_the_body_follows_it(stage: Stage) -> None:
    backend = await stage.backend()
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request("POST / HTTP/1.1", EXPECTS, "Content-Length: 4"))
    upstream = await backend.accepted()
    assert (await upstream.head()).get("expect") == "100-continue"
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.head()).status == 100
    client.send(b"body")
    assert await upstream.exactly(4) == b"body"
    upstream.send(response(body=b"done"))
    assert (await client.message()).body == b"done"
    assert running.idle == 1


async def test_a_final_answer_instead_of_a_100_arrives_and_the_connection_closes(stage: Stage) -> None:
    _, running, client, upstream = await asked(stage, request("POST / HTTP/1.1", EXPECTS, "Content-Length: 4"))
    upstream.send(response("417 Expectation Failed", body=b"no"))
    message = await client.message()
    assert (message.status, message.body, message.get("connection")) == (417, b"no", "close")
    await upstream.gone()
    client.half_close()
    assert await client.rest() == b""
    assert running.idle == 0, "the backend still waits for a body: its connection cannot be used again"


async def test_a_body_that_comes_without_waiting_for_the_100_is_not_lost(stage: Stage) -> None:
    _, _, client, upstream = await asked(stage, request("POST / HTTP/1.1", EXPECTS, body=b"eager"))
    assert await upstream.exactly(5) == b"eager"
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + response(body=b"done"))
    assert (await client.head()).status == 100
    assert (await client.message()).body == b"done"


@pytest.mark.parametrize("split", [False, True])
async def test_early_hints_pass_before_the_final_answer_is_there(stage: Stage, split: bool) -> None:
    _, running, client, upstream = await asked(stage)
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    for piece in (hints[:30], hints[30:]) if split else (hints,):
        upstream.send(piece)
        await turns()
    first = await client.head()
    assert (first.status, first.get("link")) == (103, "</a.css>; rel=preload")
    assert first.token is None
    upstream.send(response(body=b"page"))
    final = await client.message()
    assert final.body == b"page"
    assert final.token is not None
    assert running.idle == 1


async def test_interim_responses_do_not_reach_http_1_0_clients(stage: Stage) -> None:
    _, _, client, upstream = await asked(stage, request("GET / HTTP/1.0"))
    upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(body=b"page"))
    assert (await client.message()).status == 200


async def test_a_storm_of_interim_responses_is_refused(stage: Stage) -> None:
    _, running, client, upstream = await asked(stage)
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)
    message = await client.final()
    assert (message.status, message.reason) == (502, "bad-response")
    await upstream.gone()
    assert running.idle == 0


async def test_some_interim_responses_are_no_storm(stage: Stage) -> None:
    _, _, client, upstream = await asked(stage)
    upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 20 + response(body=b"ok"))
    assert [(await client.head()).status for _ in range(20)] == [102] * 20
    assert (await client.message()).body == b"ok"


async def test_an_answer_before_the_bodys_end_arrives_and_closes(stage: Stage) -> None:
    _, running, client, upstream = await asked(stage, request("POST / HTTP/1.1", "Content-Length: 10") + b"12345")
    assert await upstream.exactly(5) == b"12345"
    upstream.send(response("413 Content Too Large", "Connection: close", body=b"too big"))
    message = await client.message()
    assert (message.status, message.body, message.get("connection")) == (413, b"too big", "close")
    await upstream.gone()
    assert running.idle == 0


async def test_a_backend_may_answer_while_it_reads(stage: Stage) -> None:
    """Both bodies stream at once, each piece as it is written."""
    _, _, client, upstream = await asked(stage, request("POST / HTTP/1.1", CHUNKED))
    upstream.send(response("200 OK", CHUNKED))
    assert (await client.head()).status == 200
    for piece in (b"one", b"two", b"three"):
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert await upstream.exactly(len(piece) + 5) == b"%x\r\n%b\r\n" % (len(piece), piece)
        upstream.send(b"%x\r\n%b\r\n" % (len(piece), piece.upper()))
        assert await client.exactly(len(piece) + 5) == b"%x\r\n%b\r\n" % (len(piece), piece.upper())
    client.send(b"0\r\n\r\n")
    assert await upstream.exactly(5) == b"0\r\n\r\n"
    upstream.send(b"0\r\n\r\n")
    assert await client.exactly(5) == b"0\r\n\r\n"
