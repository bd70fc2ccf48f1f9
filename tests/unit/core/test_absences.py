"""Pages that are away come back, once, or are lost."""

import pytest

from stickyproxy.core.absences import IN_TIME_S, Absence, Absences, Return
from stickyproxy.core.tunnels import NEVER_LOST, End


def absences(limit: int = 10) -> Absences:
    return Absences(limit, 30.0)


def test_a_page_that_comes_back_is_told_once_with_where_and_when() -> None:
    pages = absences()
    pages.left(b"a", Absence("one", 100.0, End.BACKEND))
    pages.left(b"b", Absence("one", 100.0, End.BACKEND))
    assert pages.came(b"a", "one", 101.5) == Return(same=True, gap_s=1.5)
    assert pages.came(b"b", "two", 104.0) == Return(same=False, gap_s=4.0)
    assert pages.came(b"a", "one", 102.0) is None
    assert pages.expire(1000.0) == {}


def test_three_seconds_are_in_time() -> None:
    assert Return(True, IN_TIME_S).in_time
    assert not Return(True, IN_TIME_S + 0.001).in_time


@pytest.mark.parametrize("end", End)
def test_who_does_not_come_back_is_lost_unless_the_user_or_the_proxy_left(end: End) -> None:
    pages = absences()
    absence = Absence("one", 100.0, end)
    pages.left(b"a", absence)
    assert pages.expire(129.9) == {}
    assert pages.expire(130.0) == ({} if end in NEVER_LOST else {b"a": absence})
    assert not pages
    assert pages.came(b"a", "one", 131.0) is None, "who is lost stays lost"


def test_a_loss_is_counted_where_the_socket_was() -> None:
    pages = absences()
    pages.left(b"a", Absence("one", 100.0, End.ERROR, ours=False))
    assert pages.expire(200.0) == {}
    assert not pages


def test_who_came_back_elsewhere_is_not_lost_here() -> None:
    pages = absences()
    pages.left(b"a", Absence("one", 100.0, End.ERROR))
    pages.forget(b"a")
    pages.forget(b"never")
    assert pages.expire(200.0) == {}


def test_leaving_again_begins_anew() -> None:
    pages = absences()
    pages.left(b"a", Absence("one", 100.0, End.ERROR))
    pages.left(b"b", Absence("one", 101.0, End.ERROR))
    pages.left(b"a", Absence("two", 120.0, End.BACKEND))
    assert list(pages.expire(131.0)) == [b"b"]
    assert pages.came(b"a", "two", 121.0) == Return(same=True, gap_s=1.0)


def test_a_clock_of_another_process_makes_no_negative_gap() -> None:
    pages = absences()
    pages.left(b"a", Absence("one", 100.0, End.ERROR))
    assert pages.came(b"a", "one", 99.9) == Return(same=True, gap_s=0.0)


def test_it_is_bounded_and_the_longest_away_are_forgotten_first() -> None:
    pages = absences(limit=2)
    for number in range(5):
        pages.left(b"%d" % number, Absence("one", float(number), End.ERROR))
        assert len(pages) <= 2
    assert list(pages.expire(1000.0)) == [b"3", b"4"]


def test_those_of_others_are_not_counted_among_ours() -> None:
    pages = absences(limit=3)
    for number in range(4):
        pages.left(b"%d" % number, Absence("one", float(number), End.ERROR))
    assert pages.ours == 3
    pages.left(b"1", Absence("one", 4.0, End.ERROR, ours=False))
    assert (len(pages), pages.ours) == (3, 2)
    pages.came(b"2", "one", 5.0)
    pages.forget(b"never")
    assert (len(pages), pages.ours) == (2, 1)
    pages.expire(1000.0)
    assert (len(pages), pages.ours) == (0, 0)
