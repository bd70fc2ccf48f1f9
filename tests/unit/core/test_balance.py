from collections import Counter
from random import Random

import pytest

from stickyproxy.core.backends import Backend
from stickyproxy.core.balance import ARRIVAL_HALF_LIFE_S, SLOW_START_FLOOR, Balancer, Load
from stickyproxy.core.values import Address

A, B, C = (Backend(identity, Address(identity, 80)) for identity in "abc")


def balancer(*backends: Backend, slow_start_s: float = 30.0, seed: int = 1) -> Balancer:
    made = Balancer(slow_start_s, Random(seed))
    made.apply(backends, 0.0)
    return made


def chosen(by: Balancer, *candidates: Backend, now: float = 0.0) -> str:
    return by.choose(candidates, now).identity


def test_the_backend_with_the_fewest_tunnels_is_chosen() -> None:
    by = balancer(A, B, C)
    by.loads["a"].tunnels, by.loads["b"].tunnels, by.loads["c"].tunnels = 7, 5, 6
    assert chosen(by, A, B, C) == "b"


def test_only_candidates_are_chosen() -> None:
    by = balancer(A, B)
    by.loads["a"].tunnels = 100
    assert chosen(by, A) == "a"


def test_a_burst_of_arrivals_is_spread_before_any_socket_opens() -> None:
    by = balancer(A, B, C)
    assert Counter(chosen(by, A, B, C) for _ in range(30)) == {"a": 10, "b": 10, "c": 10}


def test_ties_are_drawn_by_lot() -> None:
    first = {chosen(balancer(A, B, C, seed=seed), A, B, C) for seed in range(30)}
    assert first == {"a", "b", "c"}


def test_an_arrival_counts_half_after_its_half_life() -> None:
    load = Load(0.0)
    load.arrive(10.0)
    assert load.arrivals(10.0) == 1.0
    assert load.arrivals(10.0 + ARRIVAL_HALF_LIFE_S) == pytest.approx(0.5)
    load.arrive(10.0 + ARRIVAL_HALF_LIFE_S)
    assert load.arrivals(10.0 + ARRIVAL_HALF_LIFE_S) == pytest.approx(1.5)
    assert load.arrivals(10.0 + 20 * ARRIVAL_HALF_LIFE_S) < 1e-5


def test_a_visitor_without_a_socket_leaves_nothing_behind() -> None:
    by = balancer(A, B)
    for _ in range(5):
        by.choose([A], 0.0)
    by.loads["b"].tunnels = 1
    assert chosen(by, A, B, now=0.0) == "b"
    assert chosen(by, A, B, now=20 * ARRIVAL_HALF_LIFE_S) == "a"


# Slow start.


def share(by: Balancer, now: float, newcomer: str = "b") -> float:
    picks = [chosen(by, A, B, now=now) for _ in range(1000)]
    return picks.count(newcomer) / len(picks)


def test_the_backends_of_the_first_snapshot_are_warm() -> None:
    assert share(balancer(A, B), now=0.0) == pytest.approx(0.5, abs=0.01)


def test_the_first_snapshot_is_the_first_that_holds_a_backend() -> None:
    by = balancer()
    by.apply([A, B], 100.0)
    by.loads["a"].tunnels = 1
    assert chosen(by, A, B, now=100.0) == "b"


@pytest.mark.parametrize(("age_s", "weight"), [(0.0, SLOW_START_FLOOR), (15.0, 0.5), (30.0, 1.0), (3000.0, 1.0)])
def test_a_backend_that_came_later_gets_its_share_bit_by_bit(age_s: float, weight: float) -> None:
    by = balancer(A)
    by.apply([A, B], 100.0)
    assert share(by, now=100.0 + age_s) == pytest.approx(weight / (1 + weight), abs=0.01)


def test_without_a_slow_start_a_new_backend_counts_fully_at_once() -> None:
    by = balancer(A, slow_start_s=0.0)
    by.apply([A, B], 100.0)
    assert share(by, now=100.0) == pytest.approx(0.5, abs=0.01)


def test_an_empty_new_backend_is_not_starved_by_a_busy_old_one() -> None:
    by = balancer(A)
    by.apply([A, B], 100.0)
    by.loads["a"].tunnels = 50
    assert chosen(by, A, B, now=100.0) == "b"


# Snapshots.


def test_a_backend_that_stays_keeps_its_load() -> None:
    by = balancer(A, B)
    load = by.loads["a"]
    by.apply([A, C], 100.0)
    assert by.loads["a"] is load
    assert set(by.loads) == {"a", "c"}


def test_a_backend_that_is_gone_is_forgotten_only_when_its_last_tunnel_is() -> None:
    by = balancer(A, B)
    by.loads["b"].tunnels = 1
    by.apply([A], 100.0)
    assert set(by.loads) == {"a", "b"}
    by.loads["b"].tunnels = 0
    by.apply([A], 101.0)
    assert set(by.loads) == {"a"}


def test_a_slow_start_that_begins_anew_leaves_a_backend_as_old_as_it_is() -> None:
    by = balancer(A, B)
    by.loads["a"].warming = 100.0
    assert by.loads["a"].since == -30.0
    assert [chosen(by, A, B, now=100.0) for _ in range(9)].count("a") == 0
