"""A token is found by its hash alone, so that no time tells how much of a guess was right."""

from stickyproxy.core.backends import Backend, Secrets, Snapshot
from stickyproxy.core.values import Address

SNAPSHOT = Snapshot(
    (Backend.at(Address("10.0.0.1", 80)), Backend.at(Address("10.0.0.2", 80))), Secrets([b"secret-secret"])
)


class Guess(bytes):
    """A guess that counts how often its bytes are compared with a token's."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return bytes.__eq__(self, other) is True

    __hash__ = bytes.__hash__


def test_a_guess_that_is_nearly_right_is_compared_no_more_often_than_one_that_is_wrong() -> None:
    """A dict compares bytes only where the whole hash is equal, which is keyed anew by Python in each process."""
    token = next(iter(SNAPSHOT.kept))
    Guess.compared = 0
    for at in range(len(token)):
        for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            guess = Guess(token[:at] + bytes((letter,)) + token[at + 1 :])
            if bytes(guess) != token:
                assert SNAPSHOT.kept.get(guess) is None
                assert SNAPSHOT.settled.get(guess) is None
    assert Guess.compared == 0
    assert SNAPSHOT.kept.get(Guess(token)) is not None
    assert Guess.compared == 1, "or nothing was counted"
