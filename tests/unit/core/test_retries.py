import pytest

from stickyproxy.core.retries import WINDOW_S, RetryBudget


def test_before_any_request_the_floor_is_allowed() -> None:
    assert RetryBudget(0.2, 30).ceiling == 30


def test_a_share_of_the_requests_comes_on_top() -> None:
    budget = RetryBudget(0.2, 30)
    budget.sweep(0.0, 0, 0)
    budget.sweep(1.0, 1000, 5)
    assert budget.ceiling == pytest.approx(30 + 200)


def test_requests_and_retries_of_long_ago_do_not_count() -> None:
    budget = RetryBudget(0.2, 30)
    for second in range(30):
        budget.sweep(float(second), 100 * min(second, 5), 0)
    assert budget.ceiling == 30
    budget.sweep(30.0, 500, 30)
    assert budget.ceiling == 30, "all of the floor is used up"
    budget.sweep(31.0, 500, 30)
    assert budget.ceiling == 30
    for second in range(32, 32 + int(WINDOW_S)):
        budget.sweep(float(second), 500, 30)
    assert budget.ceiling == 60, "and there again after the window"


def test_the_part_that_is_used_is_that_of_the_window() -> None:
    budget = RetryBudget(0.2, 30)
    budget.sweep(0.0, 0, 0)
    assert budget.used(0) == 0
    assert budget.used(15) == 0.5
    budget.sweep(1.0, 100, 30)
    assert budget.used(30) == pytest.approx(0.6)
    for second in range(2, 3 + int(WINDOW_S)):
        budget.sweep(float(second), 100, 30)
    assert budget.used(30) == 0, "what was used before the window is free again"
    assert RetryBudget(0.0, 0).used(0) == 1, "where none is allowed, all is used"


def test_within_one_window_no_more_is_allowed_than_share_and_floor() -> None:
    budget = RetryBudget(0.5, 4)
    requests = retries = 0
    made: list[tuple[float, int]] = []
    for step in range(400):
        now = step * 0.25
        requests += 3
        if retries < budget.ceiling:
            retries += 1
            made.append((now, 1))
        if step % 4 == 3:
            budget.sweep(now, requests, retries)
    for start in range(90):
        within = sum(count for at, count in made if start <= at < start + WINDOW_S)
        assert within <= 4 + 0.5 * 3 * 4 * (WINDOW_S + 1) + 4


def test_the_samples_that_are_kept_are_few() -> None:
    budget = RetryBudget(0.2, 30)
    for second in range(1000):
        budget.sweep(float(second), second, 0)
    assert len(budget._samples) <= WINDOW_S + 1
