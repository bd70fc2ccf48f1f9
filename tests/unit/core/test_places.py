"""Places: how many there are, who has them, and that each is left exactly once."""

import pytest

from stickyproxy.core.places import MOST_CONNECTIONS, Places, connections_for, descriptors_for

ANN, BOB = b"203.0.113.1", b"2001:db8::1"


@pytest.mark.parametrize(
    ("descriptors", "wanted", "connections"),
    [
        (1024, 0, 448),
        (1024, 100, 100),
        (1024, 449, 448),
        (1 << 30, 0, MOST_CONNECTIONS),
        (1 << 20, 100_000, 100_000),
        (64, 0, 1),
        (0, 5, 1),
    ],
)
def test_each_connection_may_need_two_descriptors_and_some_are_kept(
    descriptors: int, wanted: int, connections: int
) -> None:
    assert connections_for(descriptors, wanted) == connections


@pytest.mark.parametrize("connections", [1, 100, 20_000, 100_000])
def test_so_many_descriptors_are_enough_for_so_many_connections(connections: int) -> None:
    assert connections_for(descriptors_for(connections), connections) == connections
    assert connections_for(descriptors_for(connections) - 1, connections) == max(1, connections - 1)


def test_places_are_free_until_they_are_taken_and_again_when_they_are_left() -> None:
    places = Places(2)
    places.take()
    places.take()
    assert places.free == 0
    places.leave(None)
    assert (places.free, places.taken) == (1, 1)


def test_an_address_gets_so_many_and_no_more_until_it_leaves_one() -> None:
    places = Places(10, 2)
    for _ in range(4):
        places.take()
    assert [places.name(ANN), places.name(ANN), places.name(ANN), places.name(BOB)] == [True, True, False, True]
    places.leave(None)  # the one that was refused
    places.leave(ANN)
    places.take()
    assert places.name(ANN)
    assert dict(places.clients()) == {ANN: 2, BOB: 1}
    for client in (ANN, ANN, BOB):
        places.leave(client)
    assert not list(places.clients())
    assert places.taken == 0


def test_who_is_exempt_is_counted_in_all_but_by_no_address() -> None:
    places = Places(10, 1)
    for _ in range(3):
        places.take()
        assert places.name(None)
    assert places.taken == 3
    assert not list(places.clients())
