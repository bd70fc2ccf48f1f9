from itertools import product
from random import Random

import pytest

from stickyproxy.core.backends import Backend
from stickyproxy.core.ejection import (
    CALM_S,
    JITTER,
    TABLE,
    TRIAL_S,
    Effect,
    Ejections,
    Event,
    Failure,
    State,
)
from stickyproxy.core.values import Address

A, B, C = (Backend(identity, Address(identity, 80)) for identity in "abc")
ALL = (A, B, C)
REFUSED = Failure.REFUSED


class Fixed(Random):
    """Draws always the same."""

    def __init__(self, drawn: float) -> None:
        super().__init__(0)
        self.drawn = drawn

    def random(self) -> float:
        return self.drawn


def ejections(identities: str = "abc", *, after: int = 3, drawn: float = 0.0, longest_s: float = 120.0) -> Ejections:
    made = Ejections(after, 5.0, longest_s, Fixed(drawn))
    made.apply(identities, identities, 0.0)
    return made


def fail(by: Ejections, identity: str, now: float, times: int = 3) -> list[Effect]:
    return [by.failed(identity, REFUSED, now) for _ in range(times)]


def state(by: Ejections, identity: str) -> State:
    record = by.records.get(identity)
    return State.HEALTHY if record is None else record.state


def admitted(by: Ejections, now: float) -> str:
    return "".join(b.identity for b in by.admitted(ALL, now))


# The table.


def test_every_state_can_be_reached_and_left() -> None:
    reached = {following for (was, _), (following, _) in TABLE.items() if following is not was}
    left = {was for (was, _), (following, _) in TABLE.items() if following is not was}
    assert reached == left == set(State)


def test_every_event_and_every_effect_is_of_use() -> None:
    assert {event for _, event in TABLE} == set(Event)
    assert {effect for _, effect in TABLE.values()} == set(Effect)


def test_only_ejecting_takes_a_backend_out_of_the_running() -> None:
    out = {State.EJECTED, State.RETURNING}
    for (was, event), (following, effect) in TABLE.items():
        assert (effect is Effect.EJECT) == (following is State.EJECTED)
        if was not in out and following in out:
            assert event is Event.LIMIT


@pytest.mark.parametrize(("was", "event"), sorted(set(product(State, Event)) - TABLE.keys(), key=str))
def test_what_the_table_does_not_name_changes_nothing(was: State, event: Event) -> None:
    by = ejections()
    fail(by, "a", 0.0)
    record = by.records["a"]
    record.state = was
    before = (record.failures, record.ejections, record.since, record.until, record.back)
    assert by._step(record, event, 1.0) is Effect.NOTHING
    assert record.state is was
    assert before == (record.failures, record.ejections, record.since, record.until, record.back)


# Out.


@pytest.mark.parametrize("after", [1, 2, 3, 7])
def test_so_many_failures_in_a_row_eject_and_not_one_fewer(after: int) -> None:
    by = ejections(after=after)
    effects = fail(by, "a", 0.0, after)
    assert effects == [Effect.COUNT] * (after - 1) + [Effect.EJECT]
    assert admitted(by, 0.0) == "bc"


def test_a_response_between_failures_begins_the_count_anew() -> None:
    by = ejections()
    for now in range(50):
        assert Effect.EJECT not in fail(by, "a", float(now), 2)
        assert by.answered("a", float(now)) is Effect.FORGET
    assert by.records == {}, "nothing is left of it"


def test_failures_of_others_do_not_count() -> None:
    by = ejections()
    fail(by, "a", 0.0, 2)
    fail(by, "b", 0.0, 2)
    assert admitted(by, 0.0) == "abc"


def test_zero_never_ejects() -> None:
    by = ejections(after=0)
    assert set(fail(by, "a", 0.0, 100)) == {Effect.NOTHING}
    assert by.records == {}


def test_a_backend_that_is_not_ready_is_not_judged() -> None:
    by = ejections()
    by.apply("abc", "bc", 1.0)
    assert set(fail(by, "a", 1.0, 10)) == {Effect.NOTHING}


def test_a_failure_or_a_response_of_an_ejected_backend_changes_nothing() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    until = by.records["a"].until
    assert by.failed("a", REFUSED, 1.0) is Effect.NOTHING
    assert by.answered("a", 1.0) is Effect.NOTHING
    assert (by.records["a"].until, state(by, "a")) == (until, State.EJECTED)


# How long.


def eject_again(by: Ejections, identity: str, now: float) -> float:
    """Let a backend that is ejected fail its trial; give the length of its next time out."""
    now = max(now, by.records[identity].until)
    assert by.failed(identity, REFUSED, now) is Effect.EJECT
    return by.records[identity].until - now


def test_the_time_doubles_up_to_its_cap() -> None:
    by = ejections(longest_s=60.0)
    fail(by, "a", 0.0)
    times = [by.records["a"].until, *(eject_again(by, "a", 0.0) for _ in range(5))]
    assert times == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_thousand_ejections_end_in_no_overflow() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    assert {eject_again(by, "a", 0.0) for _ in range(1100)} >= {120.0}


@pytest.mark.parametrize("drawn", [0.0, 0.25, 0.5, 0.999])
def test_jitter_shortens_by_a_share_and_never_lengthens(drawn: float) -> None:
    by = ejections(drawn=drawn, longest_s=20.0)
    fail(by, "a", 0.0)
    assert by.records["a"].until == pytest.approx(5.0 * (1 - JITTER * drawn))
    for whole in (10.0, 20.0, 20.0):
        assert eject_again(by, "a", 0.0) == pytest.approx(whole * (1 - JITTER * drawn))


def test_a_backend_that_flaps_is_out_for_longer_each_time() -> None:
    by = ejections()
    now, times = 0.0, []
    for _ in range(4):
        fail(by, "a", now)
        times.append(by.records["a"].until - now)
        now = by.records["a"].until
        assert by.answered("a", now) is Effect.RETURN
        now += 1.0
    assert times == [5.0, 10.0, 20.0, 40.0]


def test_after_a_calm_time_the_next_ejection_is_a_first_one() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    by.answered("a", 6.0)
    fail(by, "a", 7.0)
    by.answered("a", 20.0)
    fail(by, "a", 20.0 + CALM_S)
    assert by.records["a"].until == 20.0 + CALM_S + 5.0


def test_a_record_goes_when_it_says_nothing_any_more() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    by.answered("a", 6.0)
    by.sweep(6.0 + CALM_S - 1)
    assert "a" in by.records
    by.sweep(6.0 + CALM_S)
    assert by.records == {}


# Back.


def test_when_its_time_is_over_one_session_at_a_time_may_try_it() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    assert admitted(by, 4.9) == "bc"
    assert admitted(by, 5.0) == "abc"
    by.tried("a", 5.0)
    assert admitted(by, 5.0 + TRIAL_S - 0.1) == "bc"
    assert admitted(by, 5.0 + TRIAL_S) == "abc", "whoever tried it has said nothing"


def test_a_session_that_is_sent_to_a_healthy_backend_is_no_trial() -> None:
    by = ejections()
    fail(by, "a", 0.0, 2)
    by.tried("a", 0.0)
    by.tried("b", 0.0)
    assert admitted(by, 0.0) == "abc"


def test_a_trial_that_is_answered_brings_it_back() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    by.admits("a", 5.0)
    by.tried("a", 5.0)
    assert by.answered("a", 5.1) is Effect.RETURN
    assert admitted(by, 5.1) == "abc"
    assert fail(by, "a", 5.2, 2) == [Effect.COUNT] * 2, "with all its chances"


def test_a_response_to_one_of_its_own_sessions_brings_it_back_when_its_time_is_over() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    assert by.answered("a", 5.0) is Effect.RETURN


def test_a_trial_that_fails_ejects_at_once() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    assert by.failed("a", REFUSED, 5.0) is Effect.EJECT
    assert by.records["a"].until == 15.0


def test_a_backend_that_is_ready_again_may_be_tried_at_once() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    by.apply("abc", "bc", 1.0)
    by.apply("abc", "abc", 2.0)
    assert (state(by, "a"), admitted(by, 2.0)) == (State.RETURNING, "abc")


def test_a_snapshot_that_changes_nothing_about_it_lets_it_wait() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    by.apply("abcd", "abcd", 1.0)
    assert admitted(by, 1.0) == "bc"


def test_state_goes_with_the_identity() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    by.apply("bc", "bc", 1.0)
    assert by.records == {}
    by.apply("abc", "abc", 2.0)
    assert admitted(by, 2.0) == "abc"


# The last one.


def test_the_last_one_is_never_ejected() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    fail(by, "b", 0.0)
    assert fail(by, "c", 0.0) == [Effect.COUNT, Effect.COUNT, Effect.SPARE]
    assert (state(by, "c"), admitted(by, 0.0)) == (State.FAILING, "c")


def test_the_only_one_is_never_ejected() -> None:
    by = ejections("a", after=1)
    assert set(fail(by, "a", 0.0, 10)) == {Effect.SPARE}
    assert by.admitted([A], 0.0) == [A]


def test_a_returning_backend_is_no_other_that_is_left() -> None:
    by = ejections("ab")
    fail(by, "a", 0.0)
    by.admits("a", 5.0)
    assert fail(by, "b", 5.0)[-1] is Effect.SPARE


def test_who_was_spared_is_ejected_when_another_is_back() -> None:
    by = ejections("ab")
    fail(by, "a", 0.0)
    fail(by, "b", 0.0)
    by.answered("a", 5.0)
    assert by.failed("b", REFUSED, 5.0) is Effect.EJECT


def test_when_the_last_in_the_running_leaves_the_least_bad_is_recalled() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    eject_again(by, "a", 0.0)
    fail(by, "b", 5.0)
    assert by.apply("ab", "ab", 6.0) == ["b"]
    assert (state(by, "a"), state(by, "b")) == (State.EJECTED, State.FAILING)
    assert by.apply("ab", "ab", 7.0) == [], "one is enough"


@pytest.mark.parametrize("ready", ["ab", "a"])
def test_of_two_that_are_equally_bad_the_one_whose_time_is_over_first_is_recalled(ready: str) -> None:
    by = ejections()
    fail(by, "b", 1.0)
    fail(by, "a", 0.0)
    assert by.apply("abc", ready, 2.0) == ["a"]


def test_with_no_ready_backend_nothing_is_recalled() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    assert by.apply("abc", "", 1.0) == []


def test_candidates_that_are_all_out_are_all_left() -> None:
    by = ejections()
    fail(by, "a", 0.0)
    fail(by, "b", 0.0)
    assert list(by.admitted([A, B], 0.0)) == [A, B], "c was tried in vain, so one of these must do"


def test_without_records_candidates_are_not_looked_at() -> None:
    by = ejections()
    assert by.admitted(ALL, 0.0) is ALL
