from html import unescape
from html.parser import HTMLParser

import h11
import pytest

from stickyproxy.core import faults
from stickyproxy.core.faults import PHRASES, Fault, answer, respond

FAULTS = [value for value in vars(faults).values() if isinstance(value, Fault)]


def read(raw: bytes, method: str = "GET") -> tuple[h11.Response, bytes, h11.Connection]:
    """Read one whole answer as a strict client does; nothing may be left over."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    return response, body, client


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
@pytest.mark.parametrize("html", [False, True], ids=["text", "html"])
@pytest.mark.parametrize("close", [False, True], ids=["stays", "closes"])
def test_an_answer_is_one_whole_response(fault: Fault, html: bool, close: bool) -> None:
    response, body, client = read(answer(fault, html=html, close=close))
    headers = dict(response.headers)
    assert response.status_code == fault.status
    assert response.reason.decode() == PHRASES[fault.status]
    assert headers[b"x-stickyproxy-reason"] == fault.reason.encode()
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"] == (b"text/html" if html else b"text/plain") + b"; charset=utf-8"
    assert int(headers[b"content-length"]) == len(body)
    assert (client.their_state is h11.MUST_CLOSE) is close
    assert fault.text in unescape(body.decode())


@pytest.mark.parametrize("html", [False, True], ids=["text", "html"])
def test_an_answer_to_head_tells_the_length_but_has_no_body(html: bool) -> None:
    # RFC 9110 section 9.3.2.
    response, body, _ = read(answer(faults.NO_BACKEND, html=html, head_only=True), "HEAD")
    whole, whole_body, _ = read(answer(faults.NO_BACKEND, html=html))
    assert body == b""
    assert dict(response.headers) == dict(whole.headers)
    assert int(dict(response.headers)[b"content-length"]) == len(whole_body)


def test_nothing_in_a_page_is_read_as_markup() -> None:
    page = read(answer(Fault(400, "<b>", "<script>alert(\"x\")</script> & 'y'"), html=True))[1].decode()
    tags: list[str] = []
    text: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.append(tag)

        def handle_data(self, data: str) -> None:
            text.append(data)

    Reader().feed(page)
    assert "script" not in tags
    assert "b" not in tags
    assert "<script>alert(\"x\")</script> & 'y'" in "".join(text)


def test_text_that_is_not_ascii_keeps_its_length_in_bytes() -> None:
    _, body, _ = read(respond(200, "größer\n".encode(), content_type="text/plain"))
    assert body.decode() == "größer\n"


def test_every_fault_has_a_status_of_class_4_or_5_with_a_phrase() -> None:
    assert len({fault.reason for fault in FAULTS}) == len(FAULTS) > 5
    for fault in FAULTS:
        assert 400 <= fault.status < 600
        assert PHRASES[fault.status]
        assert fault.text.endswith(".")
        assert fault.reason.replace("-", "").isalpha()


def test_every_phrase_makes_a_response() -> None:
    for status in PHRASES:
        assert read(respond(status, b"x", content_type="text/plain", extra="A: b\r\n", close=True))[1] == b"x"
