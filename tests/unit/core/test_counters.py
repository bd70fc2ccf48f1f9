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
