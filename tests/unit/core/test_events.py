"""The event log: what is alike is one event with a count, and every event says in words what happened."""

import pytest

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.events import KEPT_EVENTS, Gathering, Happening, Kind, Ring, describe, phase_changes
from stickyproxy.core.values import Address


def moved(count: int = 1, pages: int = 0, *, to: str = "green", cause: str = "refused") -> Happening:
    return Happening(Kind.MOVED, "blue", to, cause, count=count, pages=pages)


def test_what_is_alike_is_added_up_in_the_order_of_its_first() -> None:
    gathering = Gathering()
    for happening in (moved(pages=1), moved(to="orange"), moved(), moved(cause="gone")):
        gathering.add(happening)
    assert gathering
    assert gathering.take() == [moved(2, 1), moved(to="orange"), moved(cause="gone")]
    assert not gathering
    assert gathering.take() == []


def test_numbers_grow_while_old_events_go() -> None:
    ring = Ring(3)
    for number in range(5):
        assert ring.add(moved(), at=float(number)).seq == number + 1
    assert [e.seq for e in ring.after(0)] == [3, 4, 5]
    assert [e.at for e in ring.after(4)] == [4.0]
    assert ring.after(5) == []
    assert ring.last == 5


def test_so_many_events_are_kept_by_default() -> None:
    ring = Ring()
    for _ in range(KEPT_EVENTS + 1):
        ring.add(moved(), 0.0)
    assert len(ring.after(0)) == KEPT_EVENTS


@pytest.mark.parametrize(
    ("happening", "text"),
    [
        (moved(3, 3), "3 pages moved from blue to green: it refuses connections"),
        (moved(1, 1), "1 page moved from blue to green: it refuses connections"),
        (moved(3, 2), "2 pages and 1 other request moved from blue to green: it refuses connections"),
        (moved(2), "2 requests moved from blue to green: it refuses connections"),
        (
            Happening(Kind.MOVED, "", "green", "gone"),
            "1 request moved from a backend of the past to green: it is not listed any more",
        ),
        (
            Happening(Kind.CUT, "blue", cause="backend_gone", count=42),
            "blue closed 42 open sockets: it was killed, has crashed or ends",
        ),
        (Happening(Kind.CUT, "blue", cause="backend"), "blue closed 1 open socket: it goes on running"),
        (
            Happening(Kind.LOST, "blue", cause="backend", count=2),
            "2 pages of blue lost: their backend ended the socket, and no word for 30 s",
        ),
        (Happening(Kind.LOST, cause="odd"), "1 page lost: odd, and no word for 30 s"),
        (
            Happening(Kind.LET_GO, cause="pages", count=3),
            "3 parked pages let go: more were parked than --park-pages allows",
        ),
        (
            Happening(Kind.LET_GO, cause="memory"),
            "1 parked page let go: more was sent to them than --park-page-bytes or --park-bytes allow",
        ),
        (Happening(Kind.DISCOVERY, detail="app resolves again"), "app resolves again"),
        (Happening(Kind.EJECTED, "blue", detail="gets no new sessions"), "blue gets no new sessions"),
    ],
)
def test_an_event_says_what_happened(happening: Happening, text: str) -> None:
    assert describe(happening) == text


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_words(kind: Kind) -> None:
    assert describe(Happening(kind, "blue", "green", "gone", "said")).strip()


def backend(name: str, phase: Phase = Phase.READY) -> Backend:
    return Backend(f"uid-{name}", Address("10.0.0.1", 80), phase, name)


def test_changes_of_phase_are_told_one_by_one() -> None:
    before = [backend("stays"), backend("pauses"), backend("goes"), backend("drains")]
    after = [backend("joins"), backend("stays"), backend("pauses", Phase.PAUSED), backend("drains", Phase.DRAINING)]
    assert [(h.backend, h.cause) for h in phase_changes(before, after)] == [
        ("pauses", "paused"),
        ("goes", "gone"),
        ("drains", "draining"),
        ("joins", "ready"),
    ]
    assert phase_changes(after, after) == []


def test_a_name_that_comes_back_as_another_pod_has_gone_and_joined() -> None:
    old, new = backend("app-0"), Backend("another", Address("10.0.0.1", 80), name="app-0")
    assert [(h.backend, h.cause) for h in phase_changes([old], [new])] == [("app-0", "gone"), ("app-0", "ready")]
