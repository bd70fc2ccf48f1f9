"""The event log: numbered, logged with its fields, told to who listens; workers' happenings are added up."""

import asyncio
import json
import logging

import pytest

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.events import Event, Happening, Kind
from stickyproxy.core.values import Address
from stickyproxy.fleet import journal as module
from stickyproxy.fleet.fleet import MOST_GONE, Fleet
from stickyproxy.fleet.journal import Journal
from stickyproxy.logs import JsonFormatter

MOVED = Happening(Kind.MOVED, "blue", "green", "refused", pages=1)


def test_what_is_noted_is_numbered_kept_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    journal, told = Journal(clock=lambda: 7.0), list[Event]()
    unlisten = journal.listen(told.append)
    with caplog.at_level(logging.INFO, "stickyproxy.events"):
        journal.note([MOVED, Happening(Kind.DRAIN, "green")])
    assert journal.after(0) == told
    assert [(e.seq, e.at, e.kind) for e in told] == [(1, 7.0, Kind.MOVED), (2, 7.0, Kind.DRAIN)]
    assert caplog.messages == [f"moved: {told[0].text}", f"drain: {told[1].text}"]
    unlisten()
    journal.note([MOVED])
    assert len(told) == 2
    assert journal.last == 3


def test_a_json_line_has_the_fields_of_its_event(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stickyproxy.events"):
        Journal().note([MOVED])
    line = json.loads(JsonFormatter(worker=3).format(caplog.records[0]))
    assert line.pop("at").endswith("Z")
    assert line.pop("message") == f"moved: {line['text']}"
    assert line == {
        "level": "info", "logger": "stickyproxy.events", "worker": 3, "event": "moved", "backend": "blue",
        "to": "green",
        "cause": "refused", "count": 1, "pages": 1, "seq": 1,
        "text": "1 page moved from blue to green: it refuses connections",
    }  # fmt: skip


def test_a_json_line_stays_one_line_whatever_it_says() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, 'a "b"\n%s', ("ü\u2028",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == 'a "b"\nü\u2028'


async def test_workers_that_tell_the_same_within_a_second_make_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.01)
    journal, told = Journal(), asyncio.Queue[Event]()
    journal.listen(told.put_nowait)
    journal.gather([MOVED, Happening(Kind.DRAIN, "green")])
    journal.gather([MOVED, MOVED])
    async with asyncio.timeout(10):
        events = [await told.get(), await told.get()]
    assert [(e.kind, e.count, e.pages) for e in events] == [(Kind.MOVED, 3, 3), (Kind.DRAIN, 1, 0)]
    journal.gather([MOVED])
    journal.close()
    assert told.get_nowait().count == 1


def backend(name: str, phase: Phase = Phase.READY) -> Backend:
    return Backend(f"uid-{name}", Address("10.0.0.1", 80), phase, name)


def test_a_fleet_notes_phases_and_orders_and_remembers_who_has_gone() -> None:
    journal = Journal()
    fleet = Fleet([], None, logging.getLogger("test"), journal)
    a, b = backend("a"), backend("b")
    fleet.apply([a, b])
    fleet.drain("uid-a")
    fleet.drain("uid-a")
    fleet.apply([backend("a", Phase.PAUSED)])
    fleet.undrain("uid-a")
    fleet.undrain("uid-a")
    assert [(e.kind.value, e.backend, e.cause) for e in journal.after(0)] == [
        ("phase", "", "listed"),
        ("drain", "a", ""),
        ("phase", "a", "paused"),
        ("phase", "b", "gone"),
        ("undrain", "a", ""),
    ]
    assert journal.after(0)[0].text == "2 backends are listed: a, b"
    assert [gone for gone, _ in fleet.gone()] == [b]
    fleet.apply([a, b])
    assert fleet.gone() == [], "it is back"


def test_who_has_gone_is_forgotten_though_nobody_ever_asks() -> None:
    fleet = Fleet([], None, logging.getLogger("test"))
    for number in range(MOST_GONE + 10):
        fleet.apply([backend(str(number))])
    assert len(fleet._gone) == MOST_GONE
    assert fleet.gone()[-1][0] == backend(str(MOST_GONE + 8))
