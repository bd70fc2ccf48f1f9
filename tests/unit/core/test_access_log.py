"""A line tells the story, no secret, and is one line whatever a client sends."""

import json
from dataclasses import replace

import pytest

from stickyproxy.core.access_log import HIDDEN, LONGEST_TARGET, Entry, json_line, read_trace, safe, safe_path, text_line

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
UUID = b"6ba7b810-9dad-11d1-80b4-00c04fd430c8"
ENTRY = Entry(
    at=1790000000.0625, client="203.0.113.7", method="GET", path="/orders", status=200, pin="moved", cause="gone",
    backend="app-1", end="done", connect_s=0.0004, first_byte_s=0.0121, total_s=0.01234, received_bytes=711,
    sent_bytes=5120, trace=TRACE,
)  # fmt: skip
NOTHING = Entry(1790000000.0, "10.0.0.1", "", "", 400, "", "", "", "bad-head", None, None, 0.0, 12, 300)


def test_a_text_line_has_eleven_words() -> None:
    assert text_line(ENTRY) == (
        b"2026-09-21T14:13:20.062Z 203.0.113.7 GET /orders 200 moved:gone app-1 done 0.4/12.1/12.3 711/5120 "
        + TRACE.encode()
        + b"\n"
    )
    assert text_line(NOTHING) == b"2026-09-21T14:13:20.000Z 10.0.0.1 - - 400 - - bad-head -/-/0.0 12/300 -\n"
    assert len(text_line(ENTRY).split()) == len(text_line(NOTHING).split()) == 11


def test_a_json_line_has_always_the_same_keys() -> None:
    full, empty = json.loads(json_line(ENTRY)), json.loads(json_line(NOTHING))
    assert full == {
        "time": "2026-09-21T14:13:20.062Z", "client": "203.0.113.7", "method": "GET", "path": "/orders", "status": 200,
        "pin": "moved", "cause": "gone", "backend": "app-1", "end": "done", "tunnel": False, "connect_ms": 0.4,
        "first_byte_ms": 12.1, "total_ms": 12.3, "received_bytes": 711, "sent_bytes": 5120, "trace_id": TRACE,
    }  # fmt: skip
    assert full.keys() == empty.keys()
    assert {key for key, value in empty.items() if value is None} == {
        "method", "path", "pin", "cause", "backend", "connect_ms", "first_byte_ms", "trace_id",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/", "/"),
        (b"/a/b%20c", "/a/b%20c"),
        (b"/a?token=secret", "/a?…"),
        (b"/a?", "/a?…"),
        (b"/_nicegui_ws/socket.io/?client_id=%b&tab_id=x&sid=y" % UUID, "/_nicegui_ws/socket.io/?…"),
        (b"/_nicegui/client/some-id/upload/1", "/_nicegui/client/…/upload/1"),
        (b"/prefix/_nicegui/client/%b/upload/1" % UUID, "/prefix/_nicegui/client/…/upload/1"),
        (b"/_nicegui/auto/static/0123/report.pdf", "/_nicegui/auto/…"),
        (b"/_nicegui/3.18.0/static/nicegui.js", "/_nicegui/3.18.0/static/nicegui.js"),
        (b"/invite/%b/now" % UUID, "/invite/…/now"),
        (b"/_nicegui/%%63lient/%b/upload/1" % UUID, "/_nicegui/%63lient/…/upload/1"),
    ],
)
def test_a_path_shows_no_secret(target: bytes, shown: str) -> None:
    assert safe_path(target) == shown


@pytest.mark.parametrize("byte", range(256))
def test_no_byte_breaks_a_line_or_a_word(byte: int) -> None:
    shown = safe(bytes((byte,)))
    assert shown.isascii()
    assert shown.isprintable()
    assert not set(shown) & {" ", '"', "\n"}
    assert len(safe_path(bytes((byte,))).split()) == 1
    entry = replace(ENTRY, path=safe_path(b"/" + bytes((byte,))), client=shown, backend=shown)
    assert len(text_line(entry).split(b" ")) == 11
    assert text_line(entry).count(b"\n") == json_line(entry).count(b"\n") == 1
    assert json.loads(json_line(entry))["client"] == shown


def test_what_was_escaped_can_be_told_from_what_looks_like_it() -> None:
    assert safe(b"\n") == r"\x0a"
    assert safe(rb"\x0a") == r"\x5cx0a"


def test_lines_are_bounded_whatever_is_asked_for() -> None:
    for target in (b"/" + b"\xff" * 65536, b"/" + b"a" * 65536, b"/" + UUID * 2000, b"/?" + b"a" * 65536):
        shown = safe_path(target)
        assert len(shown) <= LONGEST_TARGET + 3
        longest = replace(ENTRY, path=shown, client=safe(b"\xff" * 999), backend=safe(b"\xff" * 999))
        assert len(text_line(longest)) <= 4096
        assert len(json_line(longest)) <= 4096
    assert safe_path(b"/" + b"a" * 65536).endswith(HIDDEN)


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f" 00-{TRACE}-00f067aa0ba902b7-00 ", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),  # a later version may say more
        (f"ff-{TRACE}-00f067aa0ba902b7-01", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-00f067aa0ba902b7-01x", ""),
        ("00-4bf9-00f067aa0ba902b7-01", ""),
        ("", ""),
    ],
)
def test_a_trace_id_is_read_only_where_the_header_is_valid(value: str, trace: str) -> None:
    assert read_trace(value.encode()) == trace


def test_no_header_no_trace() -> None:
    assert read_trace(None) == ""
