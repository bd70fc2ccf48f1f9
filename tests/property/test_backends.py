"""Picks: what a change of one backend may move, and that no order of anything matters."""

from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from stickyproxy.core.affinity import choose
from stickyproxy.core.backends import Backend, Cause, Phase, Pin, Secrets, Snapshot
from stickyproxy.core.balance import Balancer
from stickyproxy.core.rendezvous import rank
from stickyproxy.core.values import Address

SECRETS = Secrets([b"secret-1"])

BACKENDS = st.lists(
    st.builds(
        lambda number, phase: Backend(f"uid-{number}", Address(f"10.0.0.{number}", 80), phase),
        st.integers(0, 30),
        st.sampled_from(Phase),
    ),
    max_size=6,
    unique_by=lambda backend: backend.identity,
)

KEYS = st.lists(st.binary(max_size=12), min_size=1, max_size=20)


@given(BACKENDS, KEYS, st.integers(0, 5))
def test_a_lost_backend_moves_only_its_own_keys(backends: list[Backend], keys: list[bytes], lost: int) -> None:
    assume(len(backends) > 1)
    gone = backends[lost % len(backends)]
    left = [backend for backend in backends if backend != gone]
    for key in keys:
        before, after = rank(key, backends), rank(key, left)
        assert [backend for backend in before if backend != gone] == after, "the rest of the order stays, too"


@given(BACKENDS, KEYS)
def test_a_new_backend_takes_keys_only_for_itself(backends: list[Backend], keys: list[bytes]) -> None:
    new = Backend("new", Address("new", 80))
    for key in keys:
        winner = rank(key, [*backends, new])[0]
        assert winner == new or winner == rank(key, backends)[0]


@given(BACKENDS.flatmap(lambda backends: st.tuples(st.just(backends), st.permutations(backends))), KEYS)
def test_the_order_of_backends_matters_nowhere(both: tuple[list[Backend], list[Backend]], keys: list[bytes]) -> None:
    given_, shuffled = (Snapshot(backends, SECRETS) for backends in both)
    for name in ("backends", "ready", "paused", "draining", "by_identity", "kept", "settled"):
        assert getattr(given_, name) == getattr(shuffled, name)
    for key in keys:
        assert rank(key, both[0]) == rank(key, both[1])


@given(
    BACKENDS.flatmap(lambda backends: st.tuples(st.just(backends), st.permutations(backends))),
    st.lists(st.integers(0, 5), min_size=6, max_size=6),
    st.integers(0, 2**32),
)
def test_whom_the_balancer_may_choose_does_not_depend_on_the_order(
    both: tuple[list[Backend], list[Backend]], tunnels: list[int], seed: int
) -> None:
    backends, shuffled = both
    assume(backends)
    load = dict(zip([backend.identity for backend in backends], tunnels, strict=False))
    for candidates in (backends, shuffled):
        balancer = Balancer(30.0, Random(seed))
        balancer.apply(candidates, 0.0)
        for identity, count in load.items():
            balancer.loads[identity].tunnels = count
        assert load[balancer.choose(candidates, 0.0).identity] == min(load.values())


@given(BACKENDS, st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_loads_follow_snapshots_and_tunnels(backends: list[Backend], steps: list[tuple[int, bool]]) -> None:
    assume(backends)
    balancer = Balancer(30.0, Random(1))
    listed: set[str] = set()
    for now, (index, add) in enumerate(steps):
        identity = backends[index % len(backends)].identity
        if add:
            listed.add(identity)
        else:
            listed.discard(identity)
        balancer.apply([backend for backend in backends if backend.identity in listed], float(now))
        assert set(balancer.loads) == listed, "without tunnels nothing is remembered"


@given(
    BACKENDS,
    st.lists(st.integers(0, 35), max_size=3),
    st.one_of(st.none(), st.integers(0, 35)),
    st.one_of(st.none(), st.binary(max_size=8)),
    st.booleans(),
    st.sets(st.integers(0, 30), max_size=4),
    st.sampled_from([Cause.REFUSED, Cause.TIMEOUT]),
)
def test_a_pick_keeps_the_law(
    backends: list[Backend],
    pinned: list[int],
    lives: int | None,
    key: bytes | None,
    navigation: bool,
    tried: set[int],
    why: Cause,
) -> None:
    snapshot = Snapshot(backends, SECRETS)
    balancer = Balancer(0.0, Random(1))
    balancer.apply(snapshot.backends, 0.0)
    excluded = {f"uid-{number}" for number in tried}
    pick = choose(
        [SECRETS.tokens(f"uid-{number}")[0] for number in pinned],
        key,
        snapshot,
        balancer,
        0.0,
        page=None if lives is None else f"uid-{lives}",
        navigation=navigation,
        excluded=excluded,
        cause=why if excluded else Cause.NONE,
    )
    left = [backend for backend in snapshot.backends if backend.identity not in excluded]
    assert (pick is None) == (not left), "while a backend is left, one is picked"
    if pick is None:
        return
    assert pick.backend in left
    assert (pick.pin is Pin.MOVED) == (pick.cause is not Cause.NONE), "who is moved is told why"
    if pick.pin is Pin.NEW:
        assert (key, lives, pinned) == (None, None, []), "who had a pin is not new"
    if pick.to_hand_out and any(backend.phase is Phase.READY for backend in left):
        assert pick.backend.phase is Phase.READY, "no new pin to a backend that is not ready while another is"
    page_home = snapshot.by_identity.get(f"uid-{lives}")
    if page_home in left:
        assert (pick.backend, pick.pin) == (page_home, Pin.KEPT)
        return
    home = next((found for number in pinned if (found := snapshot.by_identity.get(f"uid-{number}"))), None)
    if home in left and not (navigation and home.phase is Phase.DRAINING):
        assert (pick.backend, pick.pin) == (home, Pin.KEPT)
