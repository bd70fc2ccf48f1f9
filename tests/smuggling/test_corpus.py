"""No case of the corpus is unsafe, each comes out as its table says, and the judge finds a proxy that has a hole."""

from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from stickyproxy.core import request as request_module
from stickyproxy.core import response as response_module

from .case import RequestCase, ResponseCase
from .corpus import REQUESTS, RESPONSES
from .judge import Judge, Verdict
from .readers import REQUEST_READERS, UnreadableError, by_h11, by_llhttp, lenient, strict

CATEGORIES = sorted({("request", c.category) for c in REQUESTS} | {("response", c.category) for c in RESPONSES})


async def judged(cases: Iterable[RequestCase | ResponseCase], *, cut: bool = False) -> list[Verdict]:
    judge = Judge(cut=cut)
    await judge.start()
    try:
        return await judge.judge(cases)
    finally:
        await judge.close()


def test_the_corpus_is_as_large_as_promised_and_every_case_has_a_name_of_its_own() -> None:
    assert len(REQUESTS) >= 300
    assert len(RESPONSES) >= 150
    for cases in (REQUESTS, RESPONSES):
        assert [name for name, count in Counter(case.id for case in cases).items() if count > 1] == []
        assert Counter(case.raw for case in cases).most_common(1)[0][1] <= 4, "the same bytes again and again"
        assert all(case.tries and case.source for case in cases)


@pytest.mark.parametrize(("kind", "category"), CATEGORIES)
async def test_every_case_is_safe_and_comes_out_as_its_table_says(kind: str, category: str) -> None:
    cases: tuple[RequestCase | ResponseCase, ...] = REQUESTS if kind == "request" else RESPONSES
    verdicts = await judged(case for case in cases if case.category == category)
    assert {v.case.id: v.problem for v in verdicts if v.problem} == {}


async def test_all_cases_one_after_another_leave_nothing_behind_that_makes_one_unsafe() -> None:
    assert {v.case.id: v.problem for v in await judged((*RESPONSES, *REQUESTS)) if v.problem} == {}


async def test_no_case_that_comes_in_pieces_is_unsafe() -> None:
    verdicts = await judged((*RESPONSES, *REQUESTS), cut=True)
    assert {v.case.id: v.problem for v in verdicts if not v.safe} == {}
    assert sum(bool(v.problem) for v in verdicts) < 40, "all but what is refused earlier comes out as its table says"


class _Agreeable:
    """A parser of heads that finds nothing wrong."""

    def __init__(self, _: object) -> None: ...

    def feed_data(self, _: bytes) -> None: ...


class _NoError(Exception):
    """Never raised."""


LAX = SimpleNamespace(
    HttpRequestParser=_Agreeable, HttpResponseParser=_Agreeable, HttpParserUpgrade=_NoError, HttpParserError=_NoError,
    HttpParserInvalidMethodError=_NoError,
)  # fmt: skip

HOLES: dict[str, tuple[object, str, object, str]] = {
    "no strict reading of requests": (request_module, "httptools", LAX, "line-lf-lf-hidden"),
    "no strict reading of responses": (response_module, "httptools", LAX, "head-lf-lf"),
    "framing under another name to a backend": (request_module, "ALIASES", frozenset(), "te-te-underscore-alone"),
    "framing under another name to a client": (response_module, "ALIASES", frozenset(), "length-underscore-name"),
    "a folded line to a client": (response_module, "httptools", LAX, "head-fold"),
    "a space in a name to a backend": (request_module, "httptools", LAX, "field-space-in-name"),
    "HTTP/2 in a tunnel": (request_module, "_PAST_OUR_EYES", (), "upgrade-h2c"),
    "what Connection must not strike out": (response_module, "_NEVER_NOMINATED", frozenset(), "head-connection-length"),
}


@pytest.mark.parametrize("hole", HOLES)
async def test_a_proxy_with_a_hole_is_found(monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    module, name, value, case = HOLES[hole]
    monkeypatch.setattr(module, name, value)
    (verdict,) = await judged(c for c in (*REQUESTS, *RESPONSES) if c.id == case)
    assert verdict.problem
    # What the other parts still cut out or stop is safe, only not as the table says.
    assert not verdict.safe or value == frozenset()


PLAIN = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok" * 2


def test_all_readers_read_what_is_plain_alike() -> None:
    readings = [[message.key for message in read(PLAIN)] for read in REQUEST_READERS.values()]
    assert readings[0] == [(("POST", "/a"), b"ok", True)] * 2
    assert all(reading == readings[0] for reading in readings)


BOTH = (
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    b"GET /b HTTP/1.1\r\n\r\n"
)


def test_readers_differ_about_what_is_ambiguous() -> None:
    assert [m.start for m in lenient(BOTH, "chunked")] == [("POST", "/a"), ("GET", "/b")]
    assert lenient(BOTH, "first-length")[0].body == b"0\r\n"
    hidden = b"GET /a HTTP/1.1\r\nHost: x\r\nX: 1\n\nGET /b HTTP/1.1\r\n\r\n"
    assert [m.start for m in lenient(hidden, "chunked")] == [("GET", "/a"), ("GET", "/b")]
    for read, stream in (
        (strict, BOTH),
        (strict, hidden),
        (by_h11, hidden.replace(b"\n\n", b"\r\r")),
        (by_llhttp, b"X"),
    ):
        try:
            found = read(stream)
        except UnreadableError:
            continue
        assert read is by_llhttp, found
