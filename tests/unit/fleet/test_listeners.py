"""Ports: taken ones are refused, our own stand beside each other."""

import socket

import pytest

from stickyproxy.core.values import Address
from stickyproxy.fleet.listeners import ListenError, handed_down, inherit, listeners

HERE = Address("127.0.0.1", 0)


def close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


def test_several_sockets_share_a_port_that_nobody_else_gets() -> None:
    found = listeners("listen", HERE, 3)
    try:
        where = Address(*found[0].getsockname())
        assert {one.getsockname() for one in found} == {tuple(where)}
        for one in found:
            one.listen()
        for count in (1, 3):
            with pytest.raises(ListenError, match=f"--listen: cannot listen on {where}: Address already in use"):
                listeners("listen", where, count)
    finally:
        close(*found)


def test_inherited_sockets_are_all_kept_and_others_join() -> None:
    old = listeners("listen", HERE, 2)
    for one in old:
        one.listen()
    where = Address(*old[0].getsockname())
    found = listeners("listen", where, 3, old)
    try:
        assert found[:2] == old
        assert found[2].getsockname() == old[0].getsockname()
        assert listeners("listen", where, 1, old) == old, "one data plane accepts on both: nobody in a queue is lost"
    finally:
        close(*found)


def test_inherited_sockets_of_another_address_are_closed() -> None:
    old = listeners("listen", HERE, 1)
    found = listeners("listen", Address("127.0.0.2", 0), 1, old)
    try:
        assert old[0].fileno() < 0
        assert found[0].getsockname()[0] == "127.0.0.2"
    finally:
        close(*found)


def test_what_is_handed_down_is_taken_over_once() -> None:
    listen, admin = listeners("listen", HERE, 2), listeners("admin", HERE, 1)
    control, other = socket.socketpair()
    for one in (*listen, *admin):
        one.listen()
    environment = {"KEPT": "yes"} | handed_down(listen, admin, control)
    names = [one.getsockname() for one in (*listen, *admin)]
    for one in (*listen, *admin, control):
        one.detach()
    taken = inherit(environment)
    try:
        assert [one.getsockname() for one in (*taken.listen, *taken.admin)] == names
        assert not any(one.get_inheritable() for one in (*taken.listen, *taken.admin))
        assert environment == {"KEPT": "yes"}
        assert inherit(environment).control is None
    finally:
        assert taken.control is not None
        close(*taken.listen, *taken.admin, taken.control, other)
