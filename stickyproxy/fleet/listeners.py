"""Listening sockets: bound once, shared among workers, and handed down to a new version of the proxy.

Laws: a port that another program uses is refused, though several of our own sockets listen on it; a socket that is
handed down is never closed while its queue may hold somebody, so that nobody is refused.
"""

import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from stickyproxy.core.values import Address

INHERIT = "STICKYPROXY_INHERIT"
"""Names the file descriptors that a new version inherits, as in `listen=5,6 admin=7 control=8`."""


class ListenError(Exception):
    """A port that cannot be had; its text is one line that names the option and what is expected."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """The sockets that an older version has handed down; none where there is none."""

    listen: tuple[socket.socket, ...] = ()
    admin: tuple[socket.socket, ...] = ()
    control: socket.socket | None = None


def inherit(environment: MutableMapping[str, str]) -> Inherited:
    """Take over what an older version hands down, and the word of it out of the environment; ListenError if unfit."""
    text = environment.pop(INHERIT, None)
    if text is None:
        return Inherited()
    found: dict[str, list[int]] = {"listen": [], "admin": [], "control": []}
    try:
        for part in text.split():
            name, _, numbers = part.partition("=")
            found[name].extend(int(number) for number in numbers.split(","))
        if len(found["control"]) != 1:
            raise ValueError("one control socket is needed")
        sockets = {name: [_take(n, listening=name != "control") for n in numbers] for name, numbers in found.items()}
    except (KeyError, ValueError, OSError) as error:
        raise ListenError(
            f"{INHERIT}: expected open sockets of an older version, as SIGUSR2 gives them, found {text!r} ({error})"
        ) from None
    return Inherited(tuple(sockets["listen"]), tuple(sockets["admin"]), sockets["control"][0])


def _take(number: int, *, listening: bool) -> socket.socket:
    if number < 3:
        raise ValueError(f"file descriptor {number} is a standard stream")
    taken = socket.socket(fileno=number)
    if listening and not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        taken.close()
        raise ValueError(f"file descriptor {number} does not listen")
    taken.set_inheritable(False)
    taken.setblocking(False)
    return taken


def handed_down(
    listen: Sequence[socket.socket], admin: Sequence[socket.socket], control: socket.socket
) -> dict[str, str]:
    """Give the environment variable that hands sockets down."""
    parts = {"listen": listen, "admin": admin, "control": [control]}
    said = [f"{name}={','.join(str(s.fileno()) for s in sockets)}" for name, sockets in parts.items() if sockets]
    return {INHERIT: " ".join(said)}


def listeners(
    option: str, address: Address, count: int, inherited: Sequence[socket.socket] = (), *, shared: bool = False
) -> list[socket.socket]:
    """Give at least `count` sockets bound to an address; ListenError names the option that asked for them.

    inherited: these are used where they are bound to that address, all of them, whatever the count; else closed.
    shared: one socket is enough, which all accept on.
    """
    try:
        where = _resolve(address)
        found = [s for s in inherited if _same(s, where)]
        for other in set(inherited) - set(found):
            other.close()
        if not found:
            found.append(_bind(*where))
        while len(found) < count and not shared:
            found.append(_bind(found[0].family, found[0].getsockname(), beside=True))
    except OSError as error:
        raise ListenError(
            f"--{option}: cannot listen on {address}: {error.strerror}; "
            "expected an address of this machine and a port that no other program uses"
        ) from None
    return found


def _resolve(address: Address) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    family, _, _, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return family, where


def _same(listener: socket.socket, where: tuple[socket.AddressFamily, tuple[object, ...]]) -> bool:
    family, (host, port, *_) = where
    name = listener.getsockname()
    return listener.family == family and name[0] == host and port in (0, name[1])


def _bind(family: socket.AddressFamily, where: tuple[object, ...], *, beside: bool = False) -> socket.socket:
    """Bind a socket, alone on its port or `beside` others of ours.

    The kernel lets sockets share a port that have SO_REUSEPORT set when the later one is bound: the first is bound
    without it, which fails where anybody else has the port, and gets it then, so that others can stand beside it.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] means every address
        if beside:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(where)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
