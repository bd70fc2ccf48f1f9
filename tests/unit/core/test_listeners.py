import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from stickyproxy.core.listeners import LONGEST_MARK, ByteOrder, listening_marks, listens
from stickyproxy.core.values import Address
from stickyproxy.dataplane.sockets import find_listener

REST = "00000000:00000000 00:00000000 00000000     0        0 110644 1 0000000000000000 100 0 0 10 0\n"
HEAD_4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

V4: dict[ByteOrder, str] = {"little": "0100007F", "big": "7F000001"}
V6: dict[ByteOrder, str] = {"little": "00000000000000000000000001000000", "big": "00000000000000000000000000000001"}
MAPPED: dict[ByteOrder, str] = {
    "little": "0000000000000000FFFF00000100007F",
    "big": "00000000000000000000FFFF7F000001",
}


def line(local: str, port: int = 8000, state: str = "0A", remote_port: int = 0) -> str:
    """Write a line as proc(5) shows it: 8000 is 1F40 there."""
    return f"   0: {local}:{port:04X} {'0' * len(local)}:{remote_port:04X} {state} {REST}"


def heard(address: str, text: str, byteorder: ByteOrder = "little") -> bool:
    return listens((HEAD_4 + text).encode(), listening_marks(Address(address, 8000), byteorder))


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_an_address_is_read_in_the_machines_byte_order(byteorder: ByteOrder) -> None:
    other: ByteOrder = "big" if byteorder == "little" else "little"
    for address, written in (("127.0.0.1", V4), ("127.0.0.1", MAPPED), ("::1", V6)):
        assert heard(address, line(written[byteorder]), byteorder)
        assert not heard(address, line(written[other]), byteorder)


@pytest.mark.parametrize(
    ("address", "local", "served"),
    [
        ("127.0.0.1", "00000000", True),  # 0.0.0.0
        ("127.0.0.1", "0" * 32, True),  # ::, which takes IPv4 too unless it was told not to
        ("127.0.0.1", "0000000000000000FFFF000000000000", True),  # ::ffff:0.0.0.0
        ("127.0.0.1", V6["little"], False),
        ("127.0.0.1", "0200007F", False),  # 127.0.0.2
        ("10.1.2.3", "0302010A", True),
        ("10.1.2.3", V4["little"], False),
        ("::1", "0" * 32, True),
        ("::1", "00000000", False),
        ("::1", V4["little"], False),
        ("2001:db8::1", "B80D0120000000000000000001000000", True),
        ("localhost", V4["little"], True),
        ("localhost", V6["little"], True),
        ("localhost", "00000000", True),
        ("localhost", "0302010A", False),
    ],
)
def test_who_may_serve_an_address_listens_on_it(address: str, local: str, served: bool) -> None:
    assert heard(address, line(local)) is served


def test_another_port_or_state_is_no_listener() -> None:
    local = V4["little"]
    assert not heard("127.0.0.1", line(local, port=8001))
    assert not heard("127.0.0.1", line(local, port=0x1F4))  # 01F4 begins like 1F40
    for state in ("01", "02", "03", "06", "08"):
        assert not heard("127.0.0.1", line(local, state=state))
    assert not heard("127.0.0.1", line(local, state="01", remote_port=40000))


def test_a_remote_address_is_not_taken_for_our_own() -> None:
    assert not heard("127.0.0.1", f"   0: 0302010A:9C40 0100007F:1F40 0A {REST}")


def test_nothing_is_found_in_nothing() -> None:
    assert not heard("127.0.0.1", "")
    assert not listens(b"", listening_marks(Address("::1", 1), "little"))


def test_no_mark_is_longer_than_is_looked_at_again() -> None:
    for address in ("127.0.0.1", "2001:db8::1", "localhost"):
        assert all(len(mark) < LONGEST_MARK for mark in listening_marks(Address(address, 65535), "big"))


# The files.


def test_a_listener_behind_a_thousand_connections_is_found(tmp_path: Path) -> None:
    many = HEAD_4 + line("0302010A", state="01", remote_port=7) * 5000
    marks = listening_marks(Address("127.0.0.1", 8000), "little")
    (tmp_path / "tcp").write_text(many + line(V4["little"]) + many)
    assert find_listener(marks, tmp_path) is True
    (tmp_path / "tcp").write_text(many)
    assert find_listener(marks, tmp_path) is False


def test_a_line_that_is_read_in_two_pieces_is_found(tmp_path: Path) -> None:
    marks = listening_marks(Address("127.0.0.1", 8000), "little")
    for before in (*range(256), *range(65280 - 160, 65280 + 10)):  # the first two pieces, and two large ones
        (tmp_path / "tcp").write_text(" " * before + line(V4["little"]))
        assert find_listener(marks, tmp_path) is True


def test_a_kernel_without_ipv6_is_no_riddle_and_one_without_proc_is(tmp_path: Path) -> None:
    marks = listening_marks(Address("127.0.0.1", 8000), "little")
    assert find_listener(marks, tmp_path) is None
    (tmp_path / "tcp").write_text(HEAD_4)
    assert find_listener(marks, tmp_path) is False
    (tmp_path / "tcp").unlink()
    (tmp_path / "tcp6").write_text(HEAD_4 + line("0" * 32))
    assert find_listener(marks, tmp_path) is True


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
def test_what_this_kernel_writes_is_understood(bound: str) -> None:
    assert os.path.exists("/proc/net/tcp"), "expected Linux"
    version = ip_address(bound).version
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as server:
        server.bind((bound, 0))
        port = server.getsockname()[1]
        asked = Address("::1" if bound == "::1" else "127.0.0.1", port)
        marks = listening_marks(asked, sys.byteorder)
        assert find_listener(marks) is False  # bound, but nobody would be accepted
        server.listen()
        assert find_listener(marks) is True
    assert find_listener(marks) is False
