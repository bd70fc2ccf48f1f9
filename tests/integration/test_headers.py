"""Header lines: what is between two hops stays there, who speaks for whom is told, all else is untouched."""

import pytest

from stickyproxy.core.settings import Settings
from stickyproxy.core.values import PRIVATE_NETWORKS

from .harness import QUICK, Stage, hello, request, response

UNTRUSTING = Settings(times=QUICK, trusted=())


async def test_a_request_arrives_byte_for_byte_but_for_what_a_proxy_must_change(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=UNTRUSTING)
    await running.ask(
        b"GET /a%20b/../c?q=%2F&\xc3\xa4 HTTP/1.1\r\nhOsT: App.Test:8080\r\nX-Odd:   spaced\t \r\n"
        b"X-Twice: 1\r\nx-twice: 2\r\nAccept-Encoding: gzip, br\r\nX-Empty:\r\nX-Latin: \xe4\r\n\r\n".replace(
            b"\xc3\xa4", b"z"
        )
    )
    assert backend.requests[0].raw == (
        b"GET /a%20b/../c?q=%2F&z HTTP/1.1\r\nhOsT: App.Test:8080\r\nX-Odd:   spaced\t \r\n"
        b"X-Twice: 1\r\nx-twice: 2\r\nAccept-Encoding: gzip, br\r\nX-Empty:\r\nX-Latin: \xe4\r\n"
        b"X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: App.Test:8080\r\n\r\n"
    )


async def test_a_response_arrives_byte_for_byte_but_for_the_cookie(stage: Stage) -> None:
    answer = (
        b"HTTP/1.1 299 Quite  Fine\r\ndAte: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: \xe4\r\n"
        b"X-Empty:\r\nServer: app\r\nContent-Length: 2\r\n"
    )
    backend = await stage.backend(lambda _: answer + b"\r\nok")
    running = await stage.proxy(backend)
    client = await running.client()
    client.send(request())
    first = await client.message()
    assert first.raw.startswith(answer)
    assert first.raw[len(answer) :].startswith(b"Set-Cookie: stickyproxy=")
    client.send(request("GET / HTTP/1.1", running.cookie(backend)))
    assert (await client.message()).raw == answer + b"\r\n"


HOP_BY_HOP = ["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip", "X-Named: 1"]


async def test_hop_by_hop_fields_of_a_request_are_not_passed_on(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    await running.ask(request("GET / HTTP/1.1", "Connection: keep-alive, X-Named, TE", *HOP_BY_HOP, "X-Stays: 1"))
    (asked,) = backend.requests
    for name in ("connection", "keep-alive", "proxy-connection", "te", "x-named", "upgrade"):
        assert asked.get(name) is None, name
    assert asked.get("x-stays") == "1"


async def test_hop_by_hop_fields_of_a_response_are_not_passed_on(stage: Stage) -> None:
    lines = ["Connection: keep-alive, X-Named", *HOP_BY_HOP, "Upgrade: h2", "X-Stays: 1"]
    running = await stage.proxy(await stage.backend(lambda _: response("200 OK", *lines, body=b"x")))
    message = await running.ask(request())
    for name in ("connection", "keep-alive", "proxy-connection", "te", "x-named", "upgrade"):
        assert message.get(name) is None, name
    assert message.get("x-stays") == "1"


@pytest.mark.parametrize("named", ["Host", "Content-Length", "Cookie", "Authorization"])
async def test_a_client_cannot_strike_out_what_matters_by_naming_it_hop_by_hop(stage: Stage, named: str) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    message = await running.ask(request("GET / HTTP/1.1", f"Connection: {named}", "Authorization: x"))
    assert (message.status, message.reason) == (400, "bad-connection")
    assert backend.connections == 0


async def test_a_client_cannot_strike_out_x_forwarded_for_by_naming_it_hop_by_hop(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    await running.ask(request("GET / HTTP/1.1", "Connection: X-Forwarded-For, X-Real-IP"))
    assert backend.requests[0].get("x-forwarded-for") == "127.0.0.1"
    assert backend.requests[0].get("x-real-ip") == "127.0.0.1"


SAID = [
    "X-Forwarded-For: 203.0.113.7, 10.1.1.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public.test",
    "X-Forwarded-Prefix: /app",
    "Forwarded: for=203.0.113.7",
]


async def test_a_trusted_peer_speaks_for_its_client(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=Settings(times=QUICK, trusted=PRIVATE_NETWORKS))
    await running.ask(request("GET / HTTP/1.1", *SAID))
    (asked,) = backend.requests
    assert asked.get("x-forwarded-for") == "203.0.113.7, 10.1.1.1, 127.0.0.1"
    assert asked.get("x-real-ip") == "203.0.113.7"
    assert asked.get("x-forwarded-proto") == "https"
    assert asked.get("x-forwarded-host") == "public.test"
    assert asked.get("x-forwarded-prefix") == "/app"
    assert asked.get("forwarded") == "for=203.0.113.7"


async def test_an_untrusted_peer_speaks_for_itself_only(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend, settings=UNTRUSTING)
    await running.ask(request("GET / HTTP/1.1", *SAID, "X-Real-IP: 6.6.6.6", "X_Forwarded_For: 6.6.6.6"))
    (asked,) = backend.requests
    assert asked.get("x-forwarded-for") == "127.0.0.1"
    assert asked.get("x-real-ip") == "127.0.0.1"
    assert asked.get("x-forwarded-proto") == "http"
    assert asked.get("x-forwarded-host") == "app.test"
    for name in ("x-forwarded-prefix", "forwarded", "x_forwarded_for"):
        assert asked.get(name) is None, name


async def test_several_lines_of_x_forwarded_for_are_one_chain(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    await running.ask(request("GET / HTTP/1.1", "X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 10.2.2.2"))
    assert backend.requests[0].get("x-forwarded-for") == "1.1.1.1, 10.2.2.2, 127.0.0.1"


async def test_every_request_of_a_connection_is_told_about_by_itself(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    client = await running.client()
    for who in ("1.1.1.1", "2.2.2.2", "2.2.2.2"):
        client.send(request("GET / HTTP/1.1", f"X-Forwarded-For: {who}"))
        await client.message()
    assert [r.get("x-real-ip") for r in backend.requests] == ["1.1.1.1", "2.2.2.2", "2.2.2.2"]


async def test_an_absolute_target_is_sent_in_origin_form(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    for target in ("http://app.test/a?b", "http://app.test", "http://app.test?c"):
        assert (await running.ask(request(f"GET {target} HTTP/1.1"))).status == 200
    assert [r.target for r in backend.requests] == ["/a?b", "/", "/?c"]


async def test_an_http_1_0_request_goes_on_as_1_1_with_a_host(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running = await stage.proxy(backend)
    message = await running.ask(request("GET /old HTTP/1.0", "Connection: keep-alive"))
    assert message.get("connection") == "close"
    assert backend.requests[0].start == "GET /old HTTP/1.1"
    assert backend.requests[0].get("host") == f"127.0.0.1:{backend.address.port}"


@pytest.mark.parametrize("length", ["5", "00005"])
async def test_a_length_is_passed_on_as_it_was_read(stage: Stage, length: str) -> None:
    backend = await stage.backend(lambda asked: response("200 OK", f"Content-Length: {length}", body=asked.body))
    running = await stage.proxy(backend)
    message = await running.ask(request("POST / HTTP/1.1", f"Content-Length: {length}", body=b"12345"))
    assert backend.requests[0].get("content-length") == "5"
    assert message.get("content-length") == "5"
