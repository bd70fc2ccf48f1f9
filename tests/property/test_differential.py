"""What we read beside what h11 and llhttp read: where one accepts and the other does not, the reason is listed.

The lists are the whole of it: hypothesis fails on a difference that stands in none of them.
"""

from collections.abc import Sequence

import h11
import httptools
from fuzz.targets import request_head, response_head
from hypothesis import example, given
from hypothesis import strategies as st

from stickyproxy.core.faults import HeadError
from stickyproxy.core.framing import BadBodyError, ChunkedReader
from stickyproxy.core.request import RequestReader

from .heads import HEADS
from .test_framing import ANY_BYTES, BODIES, CUTS, pieces
from .test_response import HEADS as RESPONSE_HEADS

READER = RequestReader("stickyproxy")

STRICTER_THAN_LLHTTP = {
    "bad-request-line": "llhttp takes line breaks before the method, and more versions than those we speak",
    "bad-version": "llhttp knows HTTP/0.9 and 2.0 too",
    "bad-transfer-encoding": "llhttp takes any coding that ends with chunked; we know chunked alone",
    "bad-length": "framing under a name with _ is a header like others for llhttp; lengths above 10**18",
    "bad-host": "llhttp does not look at Host, which must be there once, be a host, and agree with the target",
    "bad-target": "llhttp takes a fragment, *, and authorities as targets of any method",
    "bad-connection": "llhttp lets Connection name what a proxy must not strike out",
    "unknown-method": "CONNECT and PRI are methods for llhttp",
    "too-many-headers": "llhttp has no limit",
}

STRICTER_THAN_H11 = STRICTER_THAN_LLHTTP | {
    "bad-head": "h11 joins folded lines, takes both framings together and Content-Length twice where they agree",
    "unknown-method": "h11 takes any token for a method",
}

CHUNKS_STRICTER_THAN_LLHTTP = "a size line or trailers of more than 4 kB, sizes of more than 15 digits"


def refused(raw: bytes) -> str:
    """Give the reason for which we refuse a head; empty where we accept it."""
    try:
        READER.parse_head(raw)
    except HeadError as error:
        return error.fault.reason
    return ""


def accepted_by_llhttp(raw: bytes) -> bool:
    try:
        httptools.HttpRequestParser(None).feed_data(raw)
    except httptools.HttpParserUpgrade:
        return True
    except httptools.HttpParserError:
        return False
    return True


def accepted_by_h11(raw: bytes) -> bool:
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    try:
        return isinstance(server.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False


@given(HEADS)
def test_what_goes_upstream_is_one_request_for_every_reader(raw: bytes) -> None:
    request_head(raw)


@given(RESPONSE_HEADS, st.sampled_from([b"\0", b"\1", b"\2"]))
def test_what_goes_downstream_is_one_answer_for_a_strict_reader(raw: bytes, method: bytes) -> None:
    response_head(method + raw)


@given(HEADS)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n")
@example(b"GET /# HTTP/1.1\r\nHost: a\r\n\r\n")
def test_what_llhttp_accepts_and_we_refuse_is_refused_for_a_reason_that_is_listed(raw: bytes) -> None:
    reason = refused(raw)
    if accepted_by_llhttp(raw):
        assert reason == "" or reason in STRICTER_THAN_LLHTTP, reason
    else:
        assert reason, "we accept nothing that llhttp refuses"


@given(HEADS)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n")
def test_what_h11_accepts_and_we_refuse_is_refused_for_a_reason_that_is_listed(raw: bytes) -> None:
    reason = refused(raw)
    if accepted_by_h11(raw):
        assert reason == "" or reason in STRICTER_THAN_H11, reason
    else:
        assert reason, "we accept nothing that h11 refuses"


class Content:
    """Takes the content of one message from llhttp, and hears of its end."""

    def __init__(self) -> None:
        self.content = b""
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.complete = True


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def by_llhttp(parts: Sequence[bytes]) -> tuple[bytes, bool] | None:
    """Give the content and whether it is whole, of the first message; None where llhttp refuses."""
    content = Content()
    parser = httptools.HttpRequestParser(content)
    parser.feed_data(HEAD)
    try:
        for part in parts:
            parser.feed_data(part)
            if content.complete:
                break
    except httptools.HttpParserError:
        return (content.content, True) if content.complete else None
    return content.content, content.complete


def by_us(parts: Sequence[bytes]) -> tuple[bytes, bool] | None:
    """Give the content and whether it is whole; None where we refuse."""
    reader, content = ChunkedReader(plain=True), b""
    try:
        for part in parts:
            content += reader.feed(part)[0]
            if reader.done:
                break
    except BadBodyError:
        return None
    return content, reader.done


@given(BODIES, CUTS, CUTS)
def test_a_valid_chunked_body_is_the_same_for_llhttp_however_either_is_cut(
    body: tuple[bytes, bytes], cuts: list[int], others: list[int]
) -> None:
    content, written = body
    ours, theirs = by_us(pieces(written, cuts)), by_llhttp(pieces(written, others))
    assert ours == (content, True)
    # llhttp knows no white space behind a size, which RFC 9112 section 7.1.1 has before an extension (bad white space),
    # no extension without a name, and not every byte in one.
    assert theirs == ours or (theirs is None and any(mark in written for mark in (b" ", b"\t", b";")))


@given(ANY_BYTES, CUTS)
def test_a_chunked_body_that_both_take_is_the_same_for_both(data: bytes, cuts: list[int]) -> None:
    ours, theirs = by_us(pieces(data, cuts)), by_llhttp([data])
    if ours is not None and theirs is not None and ours[1] and theirs[1]:
        assert ours == theirs
    if ours is not None and ours[1] and theirs is not None:
        assert theirs[1], "we see an end where llhttp waits for more"
    if ours is None and theirs is not None and theirs[1]:
        # We refuse what llhttp takes: only trailers that are no header lines, or what the constant above names.
        assert b"0\r\n" in data or len(data) > 4096, CHUNKS_STRICTER_THAN_LLHTTP
