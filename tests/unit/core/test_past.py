import pytest

from stickyproxy.core.backends import Backend, Secrets, Snapshot
from stickyproxy.core.past import Past
from stickyproxy.core.values import Address

SECRETS = Secrets((b"new", b"old"))


def snapshot(*ports: int) -> Snapshot:
    return Snapshot(tuple(Backend.at(Address("10.0.0.1", port)) for port in ports), SECRETS)


def identity(port: int) -> str:
    return Backend.at(Address("10.0.0.1", port)).identity


@pytest.mark.parametrize("kind", ["identity", "tokens"])
def test_who_has_gone_is_known_by_its_identity_and_by_each_of_its_tokens(kind: str) -> None:
    past = Past()
    past.replaced(snapshot(1, 2), snapshot(2))
    keys = [identity(1)] if kind == "identity" else list(SECRETS.tokens(identity(1)))
    assert [past.name_of(key) for key in keys] == ["10.0.0.1:1"] * len(keys)
    assert past.name_of(identity(2)) == ""
    assert past.name_of(b"nobody's") == ""


def test_of_too_many_those_are_forgotten_that_have_been_gone_longest() -> None:
    past = Past(limit=6)  # two backends, with an identity and two tokens each
    past.replaced(snapshot(1), snapshot())
    past.replaced(snapshot(2), snapshot())
    past.replaced(snapshot(1), snapshot())
    past.replaced(snapshot(3), snapshot())
    assert [past.name_of(identity(port)) for port in (1, 2, 3)] == ["10.0.0.1:1", "", "10.0.0.1:3"]
