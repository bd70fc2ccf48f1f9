import base64
from hashlib import blake2b

import pytest

from stickyproxy.core.backends import TOKEN_LENGTH, Backend, Cause, Phase, Pick, Pin, Secrets, Snapshot
from stickyproxy.core.values import Address


def pod(identity: str, host: str = "", phase: Phase = Phase.READY) -> Backend:
    return Backend(identity, Address(host or f"{identity}.pods", 8080), phase)


def token(identity: str, key: bytes = b"") -> bytes:
    """Compute a token as the contract words it, by hand."""
    return base64.urlsafe_b64encode(blake2b(identity.encode(), digest_size=12, key=key).digest())


# The token (contract: base64url of keyed BLAKE2b-96 over the backend's identity).


def test_a_token_is_base64url_of_blake2b_96() -> None:
    assert Secrets().tokens("10.0.0.1:8080") == [token("10.0.0.1:8080")]
    assert Secrets([b"secret-1"]).tokens("uid") == [token("uid", b"secret-1")]


@pytest.mark.parametrize(
    ("secrets", "identity", "expected"),
    [  # Written out, so that a change of the contract cannot pass unseen: it would move every session there is.
        ([], "127.0.0.1:8080", b"hrpCFggOp2mHYf2i"),
        ([b"correct horse"], "127.0.0.1:8080", b"_37eioISd_avVEzz"),
        ([b"correct horse"], "0b6b8bf1-5a3c-4a5f-9d3c-2f1f0f6a7b11", b"mrG_gWiLNAfskGfO"),
    ],
)
def test_a_token_never_changes(secrets: list[bytes], identity: str, expected: bytes) -> None:
    assert Secrets(secrets).tokens(identity)[0] == expected


def test_a_token_fits_into_a_cookie_without_quotes() -> None:
    for number in range(200):
        (made,) = Secrets([b"secret-1"]).tokens(f"pod-{number}")
        assert len(made) == TOKEN_LENGTH
        assert made.replace(b"-", b"").replace(b"_", b"").isalnum()


def test_the_first_secret_signs_and_all_verify() -> None:
    secrets = Secrets([b"secret-new", b"secret-old"])
    assert secrets.tokens("uid") == [token("uid", b"secret-new"), token("uid", b"secret-old")]
    snapshot = Snapshot([pod("uid")], secrets)
    assert snapshot.token_of(pod("uid")) == token("uid", b"secret-new")
    assert set(snapshot.kept) == {token("uid", b"secret-new"), token("uid", b"secret-old")}


def test_with_a_secret_an_unkeyed_token_is_no_pin() -> None:
    assert token("uid") not in Snapshot([pod("uid")], Secrets([b"secret-1"])).kept


@pytest.mark.parametrize("length", [64, 65, 100, 5000])
def test_a_secret_may_be_longer_than_a_key(length: int) -> None:
    secret = b"s" * length  # RFC 7693 section 2.1: keys of up to 64 bytes
    key = secret if length <= 64 else blake2b(secret).digest()
    assert Secrets([secret]).tokens("uid") == [token("uid", key)]


def test_every_byte_of_a_long_secret_counts() -> None:
    assert Secrets([b"s" * 100 + b"1"]).tokens("uid") != Secrets([b"s" * 100 + b"2"]).tokens("uid")


# The snapshot.


def test_backends_stand_in_order_of_identity_whatever_order_they_came_in() -> None:
    backends = [pod("b"), pod("a"), pod("c")]
    for given in (backends, backends[::-1]):
        assert [b.identity for b in Snapshot(given, Secrets()).backends] == ["a", "b", "c"]


def test_backends_are_told_apart_by_phase() -> None:
    ready, paused, draining = pod("r"), pod("p", phase=Phase.PAUSED), pod("d", phase=Phase.DRAINING)
    snapshot = Snapshot([ready, paused, draining], Secrets())
    assert (snapshot.ready, snapshot.paused, snapshot.draining) == ((ready,), (paused,), (draining,))
    assert snapshot.by_identity == {"r": ready, "p": paused, "d": draining}


def test_a_duplicate_address_appears_once() -> None:
    snapshot = Snapshot([pod("b", "same"), pod("a", "same"), pod("c")], Secrets())
    assert [b.identity for b in snapshot.backends] == ["a", "c"]
    assert set(snapshot.by_identity) == {"a", "c"}
    assert token("b") not in snapshot.kept


def test_of_two_backends_with_one_address_the_ready_one_stays() -> None:
    # A new pod can get the address of one that is still listed as terminating: the address is the new one's.
    for old, new in (("a", "b"), ("b", "a")):
        snapshot = Snapshot([pod(old, "same", Phase.DRAINING), pod(new, "same")], Secrets())
        assert [b.identity for b in snapshot.backends] == [new]


def test_the_same_host_with_another_port_is_another_backend() -> None:
    addresses = [Address("a", 1), Address("a", 2)]
    assert len(Snapshot([Backend.at(address) for address in addresses], Secrets()).backends) == 2


def test_a_token_keeps_its_backend_whatever_the_phase() -> None:
    for phase in Phase:
        backend = pod("uid", phase=phase)
        pick = Snapshot([backend], Secrets()).kept[token("uid")]
        assert pick == Pick(backend, Pin.KEPT)
        assert not pick.to_hand_out


def test_only_a_ready_backend_is_settled() -> None:
    backends = [pod("r"), pod("p", phase=Phase.PAUSED), pod("d", phase=Phase.DRAINING)]
    snapshot = Snapshot(backends, Secrets([b"secret-1", b"secret-2"]))
    assert set(snapshot.settled) == {token("r", b"secret-1"), token("r", b"secret-2")}
    assert all(snapshot.kept[settled] == pick for settled, pick in snapshot.settled.items())


def test_an_address_reused_by_another_identity_has_another_token() -> None:
    before, after = Snapshot([pod("old", "10.0.0.1")], Secrets()), Snapshot([pod("new", "10.0.0.1")], Secrets())
    assert before.kept.keys().isdisjoint(after.kept)


def test_a_backend_of_another_snapshot_has_no_token() -> None:
    with pytest.raises(KeyError):
        Snapshot([pod("a")], Secrets()).token_of(pod("b"))


def test_an_empty_snapshot_is_one_too() -> None:
    snapshot = Snapshot([], Secrets())
    assert (snapshot.backends, snapshot.ready, snapshot.kept) == ((), (), {})


def test_a_backend_by_address_is_called_by_it() -> None:
    backend = Backend.at(Address("::1", 80), Phase.PAUSED)
    assert (backend.identity, str(backend), backend.phase) == ("[::1]:80", "[::1]:80", Phase.PAUSED)
    assert str(pod("uid")) == "uid"
    assert str(Backend("uid", Address("a", 1), name="app-0")) == "app-0"


@pytest.mark.parametrize(
    ("pin", "sticky", "to_hand_out"),
    [
        (Pin.NEW, True, True),
        (Pin.MOVED, True, True),
        (Pin.KEPT, True, False),
        (Pin.NEW, False, False),
        (Pin.MOVED, False, False),
    ],
)
def test_a_cookie_is_handed_out_for_what_is_new_or_moved(pin: Pin, sticky: bool, to_hand_out: bool) -> None:
    assert Pick(pod("a"), pin, Cause.NONE, sticky).to_hand_out is to_hand_out
