import asyncio
import socket

import pytest

from stickyproxy.dataplane.sockets import is_own_host, silence_s


def test_an_address_of_this_machine_is_told_from_others() -> None:
    assert is_own_host("127.0.0.1")
    assert is_own_host("127.9.9.9")
    assert is_own_host("::1")
    for other in ("192.0.2.1", "2001:db8::1"):  # for documentation (RFC 5737, RFC 3849), so nobody's
        assert not is_own_host(other)


def test_the_address_that_leads_outwards_is_ours() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outwards:
        try:
            outwards.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            ours = "127.0.0.1"  # a machine without a network has no other
        else:
            ours = outwards.getsockname()[0]
    assert is_own_host(ours)


def test_a_name_is_ours_by_the_host_name_and_no_resolver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("asked a resolver")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket, "gethostname", lambda: "app-1")
    for name in ("localhost", "app-1", "app-1.app", "app-1.app.ns.svc.cluster.local"):
        assert is_own_host(name)
    for name in ("app-10", "app-10.app", "app", "app-2.app-1", "x.app-1"):
        assert not is_own_host(name)


async def test_silence_begins_with_the_first_data_that_came() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:  # no TCP: nobody can tell, so nobody is blamed
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        assert silence_s(transport) == 0.0
        transport.abort()
        assert silence_s(transport) == float("inf")

    came = asyncio.Event()

    class Listener(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            came.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        transport, _ = await asyncio.get_running_loop().create_connection(Listener, *server.getsockname())
        peer, _ = server.accept()
        with peer:
            assert silence_s(transport) == float("inf")  # the kernel's notes begin with the connection
            peer.send(b"x")
            async with asyncio.timeout(10):
                await came.wait()
            assert silence_s(transport) < 10
        transport.abort()
