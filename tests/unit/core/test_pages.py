import pytest

from stickyproxy.core.pages import Pages


def test_a_page_is_found_on_the_backend_that_built_it() -> None:
    pages = Pages(10, 60.0)
    pages.learn(b"p", "a", 1.0, "somebody")
    found = pages.find(b"p")
    assert found is not None
    assert (found.identity, found.visitor, found.sockets) == ("a", "somebody", 0)
    assert pages.find(b"q") is None


def test_the_backend_that_was_seen_last_is_believed() -> None:
    pages = Pages(10, 60.0)
    pages.learn(b"p", "a", 1.0, "somebody", b"3.6.0")
    pages.opened(b"p", "b", 2.0)
    found = pages.find(b"p")
    assert found is not None
    assert (found.identity, found.visitor, found.version, found.sockets) == ("b", "somebody", b"3.6.0", 1)
    assert len(pages) == 1


def test_past_the_bound_the_page_that_was_used_longest_ago_goes() -> None:
    pages = Pages(3, 60.0)
    for now, name in enumerate([b"a", b"b", b"c"]):
        pages.learn(name, "x", float(now))
    pages.learn(b"a", "x", 3.0)
    pages.learn(b"d", "x", 4.0)
    assert [name for name in (b"a", b"b", b"c", b"d") if pages.find(name)] == [b"a", b"c", b"d"]
    for number in range(1000):
        pages.opened(b"%d" % number, "x", 5.0)
    assert len(pages) == 3


def test_a_page_without_a_socket_is_forgotten_after_its_time() -> None:
    pages = Pages(10, 60.0)
    pages.learn(b"p", "a", 0.0)
    pages.expire(60.0)
    assert pages.find(b"p") is not None
    pages.expire(60.1)
    assert pages.find(b"p") is None


def test_a_page_with_an_open_socket_is_not_forgotten_by_time() -> None:
    pages = Pages(10, 60.0)
    pages.opened(b"p", "a", 0.0)
    pages.learn(b"q", "a", 1.0)
    for now in (100.0, 200.0, 300.0):
        pages.expire(now)
    assert pages.find(b"p") is not None
    assert pages.find(b"q") is None
    pages.closed(b"p", 310.0)
    pages.expire(369.0)
    assert pages.find(b"p") is not None, "its time begins with the end of its socket"
    pages.expire(371.0)
    assert len(pages) == 0


def test_of_several_sockets_the_last_one_counts() -> None:
    pages = Pages(10, 60.0)
    pages.opened(b"p", "a", 0.0)
    pages.opened(b"p", "a", 5.0)
    pages.closed(b"p", 6.0)
    pages.expire(1000.0)
    found = pages.find(b"p")
    assert found is not None
    assert found.sockets == 1
    pages.closed(b"p", 1001.0)
    pages.expire(1062.0)
    assert pages.find(b"p") is None


@pytest.mark.parametrize("times", [1, 2])
def test_the_end_of_a_socket_of_a_forgotten_page_brings_nothing_back(times: int) -> None:
    pages = Pages(1, 60.0)
    pages.opened(b"p", "a", 0.0)
    pages.learn(b"q", "a", 1.0)
    for _ in range(times):
        pages.closed(b"p", 2.0)
    assert pages.find(b"p") is None
    assert len(pages) == 1


def test_more_ends_than_sockets_do_no_harm() -> None:
    pages = Pages(10, 60.0)
    pages.learn(b"p", "a", 0.0)
    pages.closed(b"p", 1.0)
    pages.opened(b"p", "a", 2.0)
    found = pages.find(b"p")
    assert found is not None
    assert found.sockets == 1
