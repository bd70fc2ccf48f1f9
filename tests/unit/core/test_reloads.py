import pytest

from stickyproxy.core.reloads import WINDOW_S, ReloadGuard

KEY = ("address", "/")


def refusals(guard: ReloadGuard, count: int, now: float) -> None:
    for _ in range(count):
        guard.refused(KEY, now)


def test_a_loop_is_one_refusal_more_than_is_borne() -> None:
    guard = ReloadGuard(3)
    refusals(guard, 3, 100.0)
    assert not guard.loops(KEY, 100.0)
    refusals(guard, 1, 101.0)
    assert guard.loops(KEY, 101.0)


def test_one_visitor_and_path_says_nothing_about_others() -> None:
    guard = ReloadGuard(3)
    refusals(guard, 10, 100.0)
    assert not guard.loops(("address", "/other"), 100.0)
    assert not guard.loops(("other", "/"), 100.0)


@pytest.mark.parametrize("began", [0.0, 3.0, 1e6])
def test_a_loop_is_seen_through_the_turn_of_a_half_and_forgotten_after_the_window(began: float) -> None:
    guard = ReloadGuard(3)
    refusals(guard, 4, began + 1000.0)
    assert guard.loops(KEY, began + 1000.0 + WINDOW_S / 2)
    assert not guard.loops(KEY, began + 1000.0 + WINDOW_S * 1.5)


@pytest.mark.parametrize("every_s", [0.5, 1.0, 1.5])
def test_a_loop_of_about_a_second_a_round_is_always_noticed(every_s: float) -> None:
    guard = ReloadGuard(6)
    noticed = 0
    for turn in range(200):
        now = 100.0 + turn * every_s
        noticed += guard.loops(KEY, now)
        guard.refused(KEY, now)
    assert noticed > 180


def test_refusals_that_come_seldom_are_no_loop() -> None:
    guard = ReloadGuard(3)
    for turn in range(100):
        now = 100.0 + turn * WINDOW_S / 2.5
        guard.refused(KEY, now)
        assert not guard.loops(KEY, now)


def test_no_limit_is_no_guard() -> None:
    guard = ReloadGuard(0)
    refusals(guard, 1000, 100.0)
    assert not guard.loops(KEY, 100.0)


def test_a_flood_of_visitors_costs_bounded_memory() -> None:
    guard = ReloadGuard(3, size=10)
    for number in range(1000):
        guard.refused(number, 100.0)
    assert len(guard._current) == 10
    for number in range(1000):
        guard.refused(number, 100.0 + WINDOW_S / 2)
    assert len(guard._current) + len(guard._last) == 20
    for _ in range(4):
        guard.refused(0, 111.0)
    assert guard.loops(0, 111.0), "who is counted already goes on being counted"
