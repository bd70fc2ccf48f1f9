import pytest

from stickyproxy.core.absences import Return
from stickyproxy.core.backends import Backend, Cause, Pick, Pin
from stickyproxy.core.counters import Counters
from stickyproxy.core.values import Address

BACKEND = Backend("a", Address("a", 80))


def test_exchanges_are_counted_by_what_became_of_the_pin() -> None:
    counters = Counters()
    for pin, cause in [
        (Pin.NEW, Cause.NONE),
        (Pin.KEPT, Cause.NONE),
        (Pin.KEPT, Cause.NONE),
        (Pin.MOVED, Cause.GONE),
        (Pin.MOVED, Cause.REFUSED),
        (Pin.MOVED, Cause.GONE),
    ]:
        counters.count_request(200, Pick(BACKEND, pin, cause))
    assert (counters.new, counters.kept, dict(+counters.moved)) == (1, 2, {"gone": 2, "refused": 1})


def test_every_cause_of_a_move_has_a_name_of_its_own() -> None:
    names = [cause.value for cause in Cause if cause is not Cause.NONE]
    assert all(names)
    assert len(set(names)) == len(names)


def test_everything_adds_up() -> None:
    one, two = Counters(), Counters()
    pick = Pick(BACKEND, Pin.MOVED, Cause.GONE)
    for counters in (one, two, two):
        counters.count_request(200, pick)
        counters.count_own(404)
        counters.count_return(Return(same=True, gap_s=0.5))
        counters.whole.observe(0.2)
        counters.sent_bytes += 7
    one.add(two)
    assert one.responses == [0, 0, 3, 0, 3, 0]
    assert one.tally("a").moved_to == 3
    assert one.reconnects[True, True] == one.gaps.total == one.whole.total == 3
    assert (one.sent_bytes, two.sent_bytes) == (21, 14)
    assert one.tally("a") is not two.tally("a")


def test_backends_that_are_no_longer_listed_are_forgotten() -> None:
    counters = Counters()
    for number in range(100):
        counters.tally(str(number)).requests = number
    counters.retain({"5", "7", "new"})
    assert {identity: tally.requests for identity, tally in counters.backends.items()} == {"5": 5, "7": 7}


def test_durations_to_the_first_byte_are_no_longer_than_those_to_the_end() -> None:
    counters = Counters()
    counters.whole.observe(0.2)
    counters.first_bytes.observe(0.1)
    counters.wholes.observe(3.0)
    first, last = counters.durations
    assert (first.total, last.total) == (2, 2)
    assert first.sum_s == pytest.approx(0.3)
    assert last.sum_s == pytest.approx(3.2)
