from collections.abc import Iterable
from random import Random

import pytest

from stickyproxy.core.affinity import HashKey, KeySource, choose, keep, parse_hash_key
from stickyproxy.core.backends import Backend, Cause, Phase, Pick, Pin, Secrets, Snapshot
from stickyproxy.core.balance import Balancer
from stickyproxy.core.ejection import Ejections, Failure
from stickyproxy.core.rendezvous import rank
from stickyproxy.core.values import Address

SECRETS = Secrets([b"secret-1"])
UNKNOWN = b"0123456789abcdef"


def pod(identity: str, phase: Phase = Phase.READY) -> Backend:
    return Backend(identity, Address(f"{identity}.pods", 80), phase)


def token(identity: str) -> bytes:
    return SECRETS.tokens(identity)[0]


class Scene:
    """A snapshot whose balancer has been told of it, so that `pick` needs only what a test is about."""

    def __init__(self, backends: Iterable[Backend], own: str | None = None) -> None:
        self.snapshot = Snapshot(backends, SECRETS, own)
        self.balancer = Balancer(0.0, Random(1))
        self.balancer.apply(self.snapshot.backends, 0.0)

    def pick(
        self,
        *tokens: bytes,
        key: bytes | None = None,
        page: str | None = None,
        navigation: bool = False,
        excluded: frozenset[str] = frozenset(),
        cause: Cause = Cause.NONE,
    ) -> Pick | None:
        return choose(
            tokens,
            key,
            self.snapshot,
            self.balancer,
            0.0,
            page=page,
            navigation=navigation,
            excluded=excluded,
            cause=cause,
        )

    def told(
        self,
        *tokens: bytes,
        key: bytes | None = None,
        page: str | None = None,
        navigation: bool = False,
        excluded: frozenset[str] = frozenset(),
        cause: Cause = Cause.NONE,
    ) -> tuple[str, Pin, Cause, bool]:
        """Give a pick as words: identity, pin, cause, sticky."""
        pick = self.pick(*tokens, key=key, page=page, navigation=navigation, excluded=excluded, cause=cause)
        assert pick is not None
        return pick.backend.identity, pick.pin, pick.cause, pick.sticky


# The order of decision.


def test_a_browser_without_a_pin_gets_a_new_one() -> None:
    assert Scene([pod("a")]).told() == ("a", Pin.NEW, Cause.NONE, True)


def test_a_token_keeps_its_backend() -> None:
    scene = Scene([pod("a"), pod("b"), pod("c")])
    for identity in "abc":
        assert scene.told(token(identity)) == (identity, Pin.KEPT, Cause.NONE, True)


def test_a_token_is_stronger_than_the_load() -> None:
    scene = Scene([pod("a"), pod("b")])
    scene.balancer.loads["a"].tunnels = 100
    assert scene.told(token("a"))[0] == "a"


def test_a_token_is_stronger_than_the_hash() -> None:
    scene = Scene([pod("a"), pod("b")])
    first = rank(b"key", scene.snapshot.backends)[0].identity
    other = "b" if first == "a" else "a"
    assert scene.told(token(other), key=b"key")[:2] == (other, Pin.KEPT)


def test_the_first_token_that_names_a_backend_counts() -> None:
    scene = Scene([pod("a"), pod("b")])
    assert scene.told(UNKNOWN, token("b"), token("a"))[:2] == ("b", Pin.KEPT)


def test_a_session_whose_backend_is_gone_is_moved() -> None:
    assert Scene([pod("a")]).told(token("gone")) == ("a", Pin.MOVED, Cause.GONE, True)


def test_a_forged_token_is_no_pin() -> None:
    for forged in (b"", b"a", b"a.pods:80", token("a")[:-1], token("a").lower(), Secrets().tokens("a")[0]):
        assert Scene([pod("a")]).told(forged)[1] is not Pin.KEPT


def test_the_hash_is_stronger_than_the_load() -> None:
    scene = Scene([pod("a"), pod("b")])
    first = rank(b"key", scene.snapshot.backends)[0].identity
    scene.balancer.loads[first].tunnels = 100
    assert scene.told(key=b"key") == (first, Pin.KEPT, Cause.NONE, False)


def test_without_a_key_the_hash_mode_balances_and_hands_out_a_cookie() -> None:
    pick = Scene([pod("a")]).pick(key=None)
    assert pick is not None
    assert pick.to_hand_out


def test_without_a_backend_there_is_no_pick() -> None:
    scene = Scene([])
    assert scene.pick() is None
    assert scene.pick(token("a")) is None
    assert scene.pick(key=b"key") is None


def test_keep_looks_at_nothing_but_tokens() -> None:
    snapshot = Snapshot([pod("a", Phase.DRAINING)], SECRETS)
    assert keep([], snapshot) is None
    assert keep([UNKNOWN], snapshot) is None
    assert keep([UNKNOWN, token("a")], snapshot) == Pick(pod("a", Phase.DRAINING), Pin.KEPT)


# Phases.


@pytest.mark.parametrize("navigation", [False, True])
def test_a_paused_backend_keeps_its_pins(navigation: bool) -> None:
    scene = Scene([pod("a", Phase.PAUSED), pod("b")])
    assert scene.told(token("a"), navigation=navigation) == ("a", Pin.KEPT, Cause.NONE, True)


def test_a_draining_backend_keeps_its_pages_but_gets_no_new_documents() -> None:
    scene = Scene([pod("a", Phase.DRAINING), pod("b")])
    assert scene.told(token("a"), navigation=False) == ("a", Pin.KEPT, Cause.NONE, True)
    assert scene.told(token("a"), navigation=True) == ("b", Pin.MOVED, Cause.DRAINING, True)


@pytest.mark.parametrize("others", [[], [pod("b", Phase.PAUSED)], [pod("b", Phase.DRAINING)]])
def test_a_draining_backend_gets_new_documents_while_no_other_is_ready(others: list[Backend]) -> None:
    scene = Scene([pod("a", Phase.DRAINING), *others])
    assert scene.told(token("a"), navigation=True) == ("a", Pin.KEPT, Cause.NONE, True)


def test_a_draining_backend_gets_new_documents_when_every_ready_one_was_tried_in_vain() -> None:
    scene = Scene([pod("a", Phase.DRAINING), pod("b")])
    told = scene.told(token("a"), navigation=True, excluded=frozenset("b"), cause=Cause.REFUSED)
    assert told[:2] == ("a", Pin.KEPT)


@pytest.mark.parametrize(
    ("backends", "chosen"),
    [
        ([pod("a", Phase.PAUSED), pod("b", Phase.DRAINING), pod("c")], "c"),
        ([pod("a", Phase.PAUSED), pod("b", Phase.DRAINING)], "b"),
        ([pod("a", Phase.PAUSED)], "a"),
    ],
)
def test_new_sessions_go_to_ready_then_draining_then_paused_backends(backends: list[Backend], chosen: str) -> None:
    assert Scene(backends).told()[0] == chosen


# Pages.


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("navigation", [False, True])
def test_a_page_stays_where_it_lives_whatever_else_is_said(phase: Phase, navigation: bool) -> None:
    scene = Scene([pod("a", phase), pod("b")])
    kept = ("a", Pin.KEPT, Cause.NONE, True)
    assert scene.told(page="a", navigation=navigation) == kept
    assert scene.told(token("b"), page="a", navigation=navigation) == kept
    assert scene.told(key=b"key", page="a", navigation=navigation) == kept


def test_a_page_whose_backend_is_gone_follows_its_token_or_is_moved() -> None:
    scene = Scene([pod("a"), pod("b")])
    assert scene.told(token("b"), page="gone")[:2] == ("b", Pin.KEPT)
    assert scene.told(page="gone")[1:] == (Pin.MOVED, Cause.GONE, True)


def test_a_page_leaves_a_backend_that_cannot_be_reached() -> None:
    scene = Scene([pod("a"), pod("b")])
    told = scene.told(token("a"), page="a", excluded=frozenset("a"), cause=Cause.REFUSED)
    assert told == ("b", Pin.MOVED, Cause.REFUSED, True)


# Our own pod, in a sidecar.


def test_a_new_session_goes_to_our_own_pod_whatever_its_load() -> None:
    scene = Scene([pod("a"), pod("b"), pod("c")], own="b")
    scene.balancer.loads["b"].tunnels = 100
    for _ in range(5):
        assert scene.told() == ("b", Pin.NEW, Cause.NONE, True)
    assert scene.balancer.loads["b"].arrivals(0.0) == 5


def test_a_pin_is_stronger_than_our_own_pod() -> None:
    scene = Scene([pod("a"), pod("b"), pod("c", Phase.PAUSED)], own="b")
    assert scene.told(token("a")) == ("a", Pin.KEPT, Cause.NONE, True)
    assert scene.told(token("c")) == ("c", Pin.KEPT, Cause.NONE, True)
    assert scene.told(page="a") == ("a", Pin.KEPT, Cause.NONE, True)


def test_a_key_is_stronger_than_our_own_pod() -> None:
    for own in "abc":
        scene = Scene([pod("a"), pod("b"), pod("c")], own=own)
        assert scene.told(key=b"key")[0] == rank(b"key", scene.snapshot.backends)[0].identity


def test_a_session_that_has_lost_its_pod_moves_to_our_own() -> None:
    scene = Scene([pod("a"), pod("b"), pod("d", Phase.DRAINING)], own="b")
    assert scene.told(token("gone")) == ("b", Pin.MOVED, Cause.GONE, True)
    assert scene.told(token("d"), navigation=True) == ("b", Pin.MOVED, Cause.DRAINING, True)
    assert scene.told(token("a"), excluded=frozenset("a"), cause=Cause.REFUSED) == ("b", Pin.MOVED, Cause.REFUSED, True)


def test_a_session_that_has_lost_its_pod_leaves_our_own_where_a_rollout_replaces_it_next() -> None:
    scene = Scene([pod("a"), pod("b")], own="b")
    scene.balancer.outdated = frozenset("b")
    assert scene.told(token("gone")) == ("a", Pin.MOVED, Cause.GONE, True)
    assert scene.told()[0] == "b"


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.DRAINING])
def test_our_own_pod_gets_nothing_new_while_it_is_not_ready(phase: Phase) -> None:
    scene = Scene([pod("a"), pod("b", phase)], own="b")
    assert scene.told()[0] == "a"
    assert scene.told(token("b")) == ("b", Pin.KEPT, Cause.NONE, True)
    assert Scene([pod("b", phase)], own="b").told()[0] == "b"  # there is no other


def test_our_own_pod_is_left_for_others_where_it_was_tried_in_vain_or_is_not_listed() -> None:
    assert Scene([pod("a"), pod("b")], own="b").told(excluded=frozenset("b"), cause=Cause.REFUSED)[0] == "a"
    assert Scene([pod("a")], own="b").told()[0] == "a"


# Failures.


@pytest.mark.parametrize("cause", [Cause.REFUSED, Cause.TIMEOUT])
def test_a_session_leaves_a_backend_that_cannot_be_reached(cause: Cause) -> None:
    scene = Scene([pod("a"), pod("b")])
    assert scene.told(token("a"), excluded=frozenset("a"), cause=cause) == ("b", Pin.MOVED, cause, True)


def test_a_new_session_that_met_a_dead_backend_is_still_new() -> None:
    # Nothing had been bound, so nothing was lost.
    scene = Scene([pod("a"), pod("b")])
    assert scene.told(excluded=frozenset("a"), cause=Cause.REFUSED) == ("b", Pin.NEW, Cause.NONE, True)


def test_of_two_causes_the_last_is_told() -> None:
    scene = Scene([pod("a"), pod("b")])
    assert scene.told(token("gone"), excluded=frozenset("a"), cause=Cause.REFUSED)[2] is Cause.REFUSED


def test_what_was_tried_in_vain_is_not_tried_again() -> None:
    scene = Scene([pod("a"), pod("b", Phase.DRAINING), pod("c", Phase.PAUSED)])
    excluded: frozenset[str] = frozenset()
    order = []
    while pick := scene.pick(excluded=excluded):
        order.append(pick.backend.identity)
        excluded |= {pick.backend.identity}
    assert order == ["a", "b", "c"]


# Hash mode.


def test_a_key_stays_through_every_phase() -> None:
    for phase in Phase:
        scene = Scene([pod(identity, phase) for identity in "abc"])
        assert scene.told(key=b"key")[0] == rank(b"key", scene.snapshot.backends)[0].identity


def test_a_flap_of_readiness_does_not_move_a_key() -> None:
    home = rank(b"key", [pod("a"), pod("b")])[0].identity
    flapped = [pod(identity, Phase.PAUSED if identity == home else Phase.READY) for identity in "ab"]
    assert Scene(flapped).told(key=b"key") == (home, Pin.KEPT, Cause.NONE, False)


@pytest.mark.parametrize("cause", [Cause.REFUSED, Cause.TIMEOUT])
def test_a_key_falls_to_the_next_backend_in_its_own_order(cause: Cause) -> None:
    scene = Scene([pod("a"), pod("b"), pod("c")])
    first, second, third = (backend.identity for backend in rank(b"key", scene.snapshot.backends))
    assert scene.told(key=b"key", excluded=frozenset({first}), cause=cause) == (second, Pin.MOVED, cause, False)
    assert scene.told(key=b"key", excluded=frozenset({first, second}), cause=cause)[0] == third
    assert scene.pick(key=b"key", excluded=frozenset({first, second, third}), cause=cause) is None


def test_a_hashed_session_needs_no_cookie() -> None:
    scene = Scene([pod("a"), pod("b")])
    for tokens in ((), (UNKNOWN,), (token("gone"),)):
        pick = scene.pick(*tokens, key=b"key")
        assert pick is not None
        assert not pick.to_hand_out


# The key's name.


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("address", HashKey(KeySource.ADDRESS)),
        (" Address ", HashKey(KeySource.ADDRESS)),
        ("header:X-User", HashKey(KeySource.HEADER, b"x-user")),
        ("COOKIE:SessionId", HashKey(KeySource.COOKIE, b"SessionId")),
        ("query:room", HashKey(KeySource.QUERY, b"room")),
        ("header: X-User", HashKey(KeySource.HEADER, b"x-user")),
    ],
)
def test_a_hash_key_has_a_source_and_a_name(text: str, key: HashKey) -> None:
    assert parse_hash_key(text) == key


@pytest.mark.parametrize(
    "text", ["", "header", "header:", "cookie", "query:", "address:x", "body:x", "header:ä", ":x", "header:a b"]
)
def test_what_is_no_hash_key_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected header:NAME, cookie:NAME, query:NAME or address, found "):
        parse_hash_key(text)


# Ejection.


def test_who_lost_a_pod_in_a_rollout_rather_goes_to_an_old_pod_than_to_an_ejected_new_one() -> None:
    ejections = Ejections(1, 5.0, 120.0, Random(1))
    old, new = (
        Backend(identity, Address(identity, 80), Phase.READY, f"app-{template}-bcdfg")
        for identity, template in (("old", "54f6"), ("new", "7d9c"))
    )
    snapshot = Snapshot([old, new], SECRETS)
    balancer = Balancer(0.0, Random(1), ejections)
    balancer.apply([old], 0.0)
    balancer.apply(snapshot.backends, 1.0)
    assert balancer.outdated == {"old"}
    ejections.apply(["old", "new"], ["old", "new"], 1.0)

    def moved() -> str:
        pick = choose([UNKNOWN], None, snapshot, balancer, 2.0)
        assert pick is not None
        return pick.backend.identity

    assert moved() == "new"
    ejections.failed("new", Failure.REFUSED, 2.0)
    assert moved() == "old"


def test_a_sidecars_own_app_is_passed_over_while_it_is_ejected() -> None:
    ejections = Ejections(1, 5.0, 120.0, Random(1))
    own, other = pod("own"), pod("other")
    snapshot = Snapshot([own, other], SECRETS, "own")
    balancer = Balancer(0.0, Random(1), ejections)
    balancer.apply(snapshot.backends, 0.0)
    ejections.apply(["own", "other"], ["own", "other"], 0.0)

    def picked(now: float) -> str:
        pick = choose([], None, snapshot, balancer, now)
        assert pick is not None
        return pick.backend.identity

    assert picked(0.0) == "own"
    ejections.failed("own", Failure.REFUSED, 0.0)
    assert picked(1.0) == "other"
    assert picked(5.0) == "own", "one session tries it"
    assert picked(5.0) == "other"
