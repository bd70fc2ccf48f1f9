"""Whatever fails, answers, comes and goes in whatever order: somebody serves, and nobody is passed over for nothing."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stickyproxy.core.affinity import choose
from stickyproxy.core.backends import Backend, Secrets, Snapshot
from stickyproxy.core.balance import Balancer
from stickyproxy.core.ejection import IN_THE_RUNNING, JITTER, Ejections, Failure, Record, State
from stickyproxy.core.values import Address

IDENTITIES = "abcd"
AFTER, FIRST_S, LONGEST_S = 3, 5.0, 30.0

one = st.sampled_from(IDENTITIES)


class EjectionMachine(RuleBasedStateMachine):
    """Some backends, a clock, and a plain count of the failures since a backend's last response."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.ejections = Ejections(AFTER, FIRST_S, LONGEST_S, Random(1))
        self.balancer = Balancer(0.0, Random(2), self.ejections)
        self.backends = {i: Backend(i, Address(i, 80)) for i in IDENTITIES}
        self.listed: set[str] = set()
        self.ready: set[str] = set()
        self.in_a_row = dict.fromkeys(IDENTITIES, 0)
        self.earned: set[str] = set()  # has had so many failures in a row at some time
        self.follow(set(IDENTITIES), set())

    @rule(listed=st.sets(one), paused=st.sets(one))
    def follow(self, listed: set[str], paused: set[str]) -> None:
        for gone in self.listed - listed:
            self.in_a_row[gone] = 0
            self.earned.discard(gone)
        self.listed, self.ready = listed, listed - paused
        self.balancer.apply([self.backends[i] for i in sorted(listed)], self.now)
        self.ejections.apply(self.listed, self.ready, self.now)

    @rule(identity=one, failure=st.sampled_from(Failure), times=st.integers(1, 4))
    def fail(self, identity: str, failure: Failure, times: int) -> None:
        for _ in range(times):
            self.ejections.failed(identity, failure, self.now)
            self.in_a_row[identity] += identity in self.ready
            if self.in_a_row[identity] >= AFTER:
                self.earned.add(identity)

    @rule(identity=one)
    def answer(self, identity: str) -> None:
        self.ejections.answered(identity, self.now)
        self.in_a_row[identity] = 0

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        self.ejections.sweep(self.now)

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def new_session(self, data: st.DataObject) -> None:
        left = data.draw(st.lists(st.sampled_from(sorted(self.ready)), min_size=1, unique=True))
        could = [i for i in left if self.ejections.admits(i, self.now)]
        snapshot = Snapshot([self.backends[i] for i in self.ready], Secrets())
        pick = choose((), None, snapshot, self.balancer, self.now, excluded=self.ready - set(left))
        assert pick is not None
        chosen = pick.backend.identity
        assert chosen in (could or left), "nobody who is out gets a session while another does not"
        record = self.ejections.records.get(chosen)
        if could and record is not None and record.state is State.RETURNING:
            assert not self.ejections.admits(chosen, self.now), "one session at a time"

    @invariant()
    def somebody_serves(self) -> None:
        states = [self.ejections.records.get(i, Record()).state for i in self.ready]
        assert not states or any(state in IN_THE_RUNNING for state in states)

    @invariant()
    def nobody_is_passed_over_for_nothing(self) -> None:
        for identity in self.ready:
            if not self.ejections.admits(identity, self.now):
                assert identity in self.earned
                assert self.ejections.records[identity].until > self.now, "its time or its trial is not over"

    @invariant()
    def nobody_is_out_for_longer_than_the_cap(self) -> None:
        for identity, record in self.ejections.records.items():
            assert identity in self.listed
            if record.state is State.EJECTED:
                assert record.until - self.now <= LONGEST_S
                assert record.until - record.since >= FIRST_S * (1 - JITTER)


EjectionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestEjections = EjectionMachine.TestCase
