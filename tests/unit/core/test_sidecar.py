from math import inf

import pytest

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.sidecar import QUEUED_S, judge_app, localise, suspect
from stickyproxy.core.values import Address

LOCAL = Address("127.0.0.1", 8000)


def pod(identity: str, host: str, port: int = 8000, phase: Phase = Phase.READY) -> Backend:
    return Backend(identity, Address(host, port), phase, f"pod-{identity}")


A, B, C = pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3")


def own(backends: list[Backend], *here: str, local: Address = LOCAL) -> str | None:
    found = localise(backends, local, frozenset(here))[1]
    return None if found is None else found.identity


# Which backend is ours.


def test_our_pod_is_reached_at_the_local_address_under_its_own_identity_and_name() -> None:
    backends, found = localise([A, B, C], LOCAL, {"10.0.0.2"})
    assert found == B
    assert set(backends) == {A, Backend("b", LOCAL, Phase.READY, "pod-b"), C}


def test_nothing_changes_where_none_is_ours() -> None:
    assert localise([A, B], LOCAL, frozenset()) == ([A, B], None)
    assert localise([], LOCAL, {"10.0.0.1"}) == ([], None)


def test_of_several_on_this_machine_the_port_decides() -> None:
    others = [pod("a", "10.0.0.1", 8001), pod("b", "10.0.0.1"), pod("c", "10.0.0.1", 8002)]
    assert own(others, "10.0.0.1") == "b"


def test_another_port_than_the_apps_is_ours_where_the_address_leaves_no_doubt() -> None:
    assert own([pod("a", "10.0.0.1", 80), B], "10.0.0.1") == "a"
    assert own([pod("a", "10.0.0.1", 80), pod("b", "10.0.0.1", 81)], "10.0.0.1") is None


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_is_kept(phase: Phase) -> None:
    backends, _ = localise([pod("a", "10.0.0.1", phase=phase), B], LOCAL, {"10.0.0.1"})
    assert next(b for b in backends if b.identity == "a").phase is phase


def test_a_pod_that_had_our_address_before_us_is_not_us_and_is_left_out() -> None:
    before = pod("0", "10.0.0.1", phase=Phase.DRAINING)
    for backends in ([before, A, B], [A, B, before]):
        localised, found = localise(backends, LOCAL, {"10.0.0.1"})
        assert found == A
        assert {b.identity for b in localised} == {"a", "b"}


def test_a_second_address_of_our_pod_stays_what_it_is() -> None:
    """DNS gives a pod of two address families two identities, and cookies of both must go on working."""
    six = pod("z", "fd00::1")
    backends, found = localise([A, six], LOCAL, {"10.0.0.1", "fd00::1"})
    assert found == A
    assert six in backends


def test_a_backend_that_is_listed_at_the_local_address_is_ours() -> None:
    listed = Backend.at(LOCAL)
    first = pod("0", "10.0.0.1")  # in order of identity
    assert own([first, listed], "10.0.0.1", "127.0.0.1") == "127.0.0.1:8000"


# Whether the app is alive.


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ([], False),
        ([1000.0], False),  # a slow report, and nobody behind it
        ([1000.0, QUEUED_S - 0.1], False),
        ([1000.0, QUEUED_S], True),
        ([QUEUED_S, 1000.0], True),
        ([59.9] * 100, False),
        ([60.0, 59.0], True),
    ],
)
def test_one_that_waits_too_long_and_others_behind_it_are_suspect(waits: list[float], expected: bool) -> None:
    assert suspect(waits, 60.0) is expected


def test_a_short_limit_shortens_the_queues_time_too() -> None:
    assert suspect([1.0, 1.0], 1.0)
    assert not suspect([1.0, 0.9], 1.0)


def test_an_app_that_does_not_listen_is_not_alive() -> None:
    assert judge_app(LOCAL, False, [], 0.0, 60.0) == (False, "not alive: the app does not listen on 127.0.0.1:8000")


def test_an_app_that_leaves_all_waiting_and_says_nothing_is_not_alive() -> None:
    for listens in (True, None):
        alive, text = judge_app(LOCAL, listens, [61.2, 30.0, 7.0], inf, 60.0)
        assert not alive
        assert text.startswith(
            "not alive: the app on 127.0.0.1:8000 has left a request without a first byte for 61 s, 2 more wait"
        )
        assert "\n" not in text


def test_an_app_that_still_says_something_is_only_slow() -> None:
    assert judge_app(LOCAL, True, [1000.0, 900.0], 59.0, 60.0).alive
    assert not judge_app(LOCAL, True, [1000.0, 900.0], 60.0, 60.0).alive


def test_a_doubt_counts_for_the_app() -> None:
    alive, text = judge_app(LOCAL, None, [], inf, 60.0)
    assert alive
    assert "cannot tell whether it listens" in text
    assert judge_app(LOCAL, True, [], inf, 60.0).text == ("alive: 0 requests wait for a first byte, the longest 0 s")
