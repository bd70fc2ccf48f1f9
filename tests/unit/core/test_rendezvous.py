from collections import Counter

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.rendezvous import rank
from stickyproxy.core.values import Address

PODS = [Backend(f"pod-{number}", Address(f"10.0.0.{number}", 80)) for number in range(5)]
KEYS = [b"user-%d" % number for number in range(5000)]


def test_the_order_is_of_all_backends_and_does_not_depend_on_the_order_given() -> None:
    for key in KEYS[:50]:
        assert sorted(b.identity for b in rank(key, PODS)) == [b.identity for b in PODS]
        assert rank(key, PODS) == rank(key, PODS[::-1])


def test_keys_are_spread_evenly() -> None:
    counts = Counter(rank(key, PODS)[0].identity for key in KEYS)
    # 5000 keys over 5 backends: 1000 each with a deviation of 28; 150 is more than five of them.
    assert all(abs(counts[backend.identity] - 1000) < 150 for backend in PODS)


def test_the_keys_of_a_lost_backend_are_spread_evenly_over_the_others() -> None:
    lost = PODS[0]
    counts = Counter(rank(key, PODS)[1].identity for key in KEYS if rank(key, PODS)[0] == lost)
    assert len(counts) == 4
    assert max(counts.values()) < 1.6 * min(counts.values())


def test_phase_and_address_do_not_move_a_key() -> None:
    moved = [Backend(b.identity, Address("elsewhere", 1), Phase.PAUSED) for b in PODS]
    for key in KEYS[:50]:
        assert [b.identity for b in rank(key, moved)] == [b.identity for b in rank(key, PODS)]


def test_key_and_identity_are_kept_apart() -> None:
    # Without the length prefix ("a", "bc") and ("ab", "c") would weigh the same, and one order would leak into another.
    a, b = Backend("bc", Address("x", 1)), Backend("c", Address("x", 2))
    pairs = [rank(b"a%d" % n, [a, b])[0].identity == rank(b"a%db" % n, [a, b])[0].identity for n in range(200)]
    assert 50 < sum(pairs) < 150


def test_no_backends_give_an_empty_order() -> None:
    assert rank(b"key", []) == []
