import pytest

from stickyproxy.core.affinity import choose
from stickyproxy.core.backends import Backend, Cause, Phase, Pick, Pin, Secrets, Snapshot
from stickyproxy.core.balance import Balancer
from stickyproxy.core.generations import outdated
from stickyproxy.core.values import Address


class First:
    """Draws the first of what is equal."""

    def choice(self, found: list[Backend]) -> Backend:
        return found[0]


def pod(name: str, phase: Phase = Phase.READY) -> Backend:
    return Backend(f"uid-{name}", Address(name, 8080), phase, name)


def old(*named: tuple[str, float]) -> set[str]:
    pods = [pod(name) for name, _ in named]
    found = outdated(pods, {p.identity: since for p, (_, since) in zip(pods, named, strict=True)})
    return {p.name for p in pods if p.identity in found}


OLD, NEW = "shop-7d9f8b6c5-x2x4z", "shop-5c7b9d8f6-q8w2k"


def test_pods_of_an_older_template_are_outdated_once_a_newer_one_has_come() -> None:
    assert old((OLD, 0.0), ("shop-7d9f8b6c5-bbbbb", 90.0), (NEW, 100.0)) == {OLD, "shop-7d9f8b6c5-bbbbb"}


def test_one_template_alone_is_never_outdated() -> None:
    assert old((OLD, 0.0), ("shop-7d9f8b6c5-bbbbb", 100.0)) == set()


def test_when_all_came_together_nobody_knows_which_is_newer() -> None:
    assert old((OLD, 5.0), (NEW, 5.0)) == set()


def test_after_a_rollback_the_template_that_came_back_is_the_newest() -> None:
    assert old((OLD, 0.0), (NEW, 100.0), ("shop-7d9f8b6c5-bbbbb", 200.0)) == {NEW}


def test_another_deployment_behind_the_same_service_is_no_newer_generation() -> None:
    assert old((OLD, 0.0), ("canary-5c7b9d8f6-q8w2k", 100.0)) == set()


@pytest.mark.parametrize("names", [("my-app-0", "my-db-0"), ("10.0.0.1:80", "10.0.0.2:80"), ("ds-x2x4z", "ds-bbbbb")])
def test_names_that_are_not_of_deployments_say_nothing(names: tuple[str, str]) -> None:
    assert old((names[0], 0.0), (names[1], 100.0)) == set()


class Rollout:
    """Two old pods, one new one, and one that is gone."""

    def __init__(self) -> None:
        self.balancer = Balancer(0.0, First())  # type: ignore[arg-type]
        self.now = 0.0
        self.pods = [pod(OLD), pod("shop-7d9f8b6c5-bbbbb")]
        self.snapshot = Snapshot([], Secrets())
        self.apply()

    def apply(self) -> None:
        self.snapshot = Snapshot(self.pods, Secrets())
        self.balancer.apply(self.snapshot.backends, self.now)

    def moved(self) -> Pick:
        pick = choose([b"unknown-token---"], None, self.snapshot, self.balancer, self.now)
        assert pick is not None
        return pick


def test_a_session_whose_pod_is_gone_goes_to_a_pod_that_stays() -> None:
    rollout = Rollout()
    rollout.now = 60.0
    rollout.pods.append(pod(NEW))
    rollout.apply()
    picks = [rollout.moved() for _ in range(5)]
    assert [(p.backend.name, p.pin, p.cause) for p in picks] == [(NEW, Pin.MOVED, Cause.GONE)] * 5


def test_with_no_newer_pod_that_is_ready_the_old_ones_take_it() -> None:
    rollout = Rollout()
    rollout.now = 60.0
    rollout.pods.append(pod(NEW, Phase.PAUSED))
    rollout.apply()
    assert rollout.moved().backend.name != NEW


def test_new_sessions_are_balanced_over_old_and_new_pods() -> None:
    rollout = Rollout()
    rollout.now = 60.0
    rollout.pods.append(pod(NEW))
    rollout.apply()
    picks = [choose([], None, rollout.snapshot, rollout.balancer, rollout.now) for _ in range(6)]
    assert {pick.backend.name for pick in picks if pick} == {p.name for p in rollout.pods}
