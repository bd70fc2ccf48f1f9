"""Read EndpointSlices (discovery.k8s.io/v1, KEP-752) and reduce those of one Service to backends.

Laws: pure and independent of order, whatever slices an endpoint stands in; what is not an EndpointSlice is refused as a
whole, so that garbage never passes for a smaller cluster.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.values import Address

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")  # RFC 1123 label

_FAMILIES = ("IPv4", "IPv6", "FQDN")
"""Address types, the one to dial first. A pod of a dual-stack Service stands in slices of both families; whoever has
IPv4 among its pods can reach it, and an IPv6-only cluster has nothing else."""

_CERTAINTY = (Phase.DRAINING, Phase.READY, Phase.PAUSED)
"""Which phase counts where slices differ about one pod, as they do for moments while endpoints move between slices: a
pod never stops terminating, and of the rest the one that costs no session if it is wrong."""


class ServiceRef(NamedTuple):
    """A Service and one of its ports; an empty namespace is our own, an empty port the only one (or `http`)."""

    namespace: str
    name: str
    port: str = ""

    def __str__(self) -> str:
        """Give [NAMESPACE/]NAME."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class BadSliceError(ValueError):
    """What should be an EndpointSlice is none; the text says what was expected and found."""


class PortError(ValueError):
    """No slice has the port that was asked for; the text is one line with the ports that there are."""


class SlicePort(NamedTuple):
    """One TCP port of a slice: the pods' port, not the Service's. A number of None stands for every port."""

    name: str
    number: int | None


class Endpoint(NamedTuple):
    """One endpoint of a slice."""

    host: str
    identity: str
    """The UID of the pod behind it; empty where `targetRef` is absent."""
    name: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """What we need of an EndpointSlice."""

    name: str
    family: str
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]


def parse_service(text: str) -> ServiceRef:
    """Parse [NAMESPACE/]NAME[:PORT], the port by name or number; ValueError says what was expected."""
    path, colon, port = text.strip().partition(":")
    namespace, slash, name = path.rpartition("/")
    # A slice's port is called as the Service's port is, by a label: only a container's port name ends at 15 characters.
    known = 1 <= int(port) <= 65535 if re.match(r"[0-9]{1,63}\Z", port) else _LABEL.match(port)
    if not _LABEL.match(name) or (slash and not _LABEL.match(namespace)) or (colon and not known):
        raise ValueError(
            f"expected [NAMESPACE/]NAME[:PORT] of a Service, as in my-app, shop/my-app or my-app:http, found {text!r}"
        )
    return ServiceRef(namespace, name, port)


def parse_items(found: object) -> list[object]:
    """Give the `items` of a list, which are not there where there are none; BadSliceError where it is no list."""
    return _items(found, "items")


def parse_slice(found: object) -> EndpointSlice:
    """Read an EndpointSlice as the API gives it (decoded JSON); BadSliceError where it is none."""
    slice_ = _mapping(found, "an EndpointSlice")
    metadata = _mapping(slice_.get("metadata"), "metadata")
    family = _text(slice_.get("addressType"), "addressType")
    if family not in _FAMILIES:
        raise BadSliceError(f"expected addressType {', '.join(_FAMILIES)}, found {family!r}")
    ports = [_parse_port(port) for port in _items(slice_.get("ports"), "ports")]
    return EndpointSlice(
        _text(metadata.get("name"), "metadata.name"),
        family,
        tuple(port for port in ports if port is not None),
        tuple(_parse_endpoint(endpoint) for endpoint in _items(slice_.get("endpoints"), "endpoints")),
    )


def _parse_port(found: object) -> SlicePort | None:
    port = _mapping(found, "a port")
    if _text(port.get("protocol"), "a port's protocol", optional=True) not in ("", "TCP"):  # nil is TCP
        return None
    number = port.get("port")
    if number is not None and (type(number) is not int or not 1 <= number <= 65535):
        raise BadSliceError(f"expected a port from 1 to 65535, found {number!r}")
    return SlicePort(_text(port.get("name"), "a port's name", optional=True), number)


def _parse_endpoint(found: object) -> Endpoint:
    endpoint = _mapping(found, "an endpoint")
    addresses = [_text(address, "an address") for address in _items(endpoint.get("addresses"), "addresses")]
    if not addresses:
        raise BadSliceError("expected an endpoint with an address, found one without")
    target = _mapping(endpoint.get("targetRef"), "targetRef", optional=True)
    return Endpoint(
        addresses[0],  # those behind the first have no defined meaning
        _text(target.get("uid"), "targetRef.uid", optional=True),
        _text(target.get("name"), "targetRef.name", optional=True),
        read_phase(_mapping(endpoint.get("conditions"), "conditions", optional=True)),
    )


def read_phase(conditions: Mapping[str, object]) -> Phase:
    """Read a phase from an endpoint's conditions; one that is not said has the default that the API gives it.

    `serving` is the pod's own readiness and counts before `ready`, which a Service with `publishNotReadyAddresses`
    sets for every pod. A pod that terminates drains whether it still serves or not: it will not come back, so nothing
    is held for it, and while it answers its pages are there. Raises BadSliceError where one is neither true nor false.
    """
    ready, serving, terminating = (_flag(conditions.get(name), name) for name in ("ready", "serving", "terminating"))
    if terminating:
        return Phase.DRAINING
    if serving is None:
        serving = ready
    return Phase.PAUSED if serving is False else Phase.READY


def reduce_slices(slices: Iterable[EndpointSlice], port: str) -> list[Backend]:
    """Give the backends of one Service's slices, in order of identity.

    port: name or number of a port of the pods, or empty for the only one or the one called `http`. A number that no
    slice has is used as it is only where the slices have no ports of their own. Raises PortError where there are
    endpoints, but none with that port.
    """
    found: dict[str, tuple[tuple[int, str, str], Backend]] = {}  # by identity: rank of the address, and the backend
    phases: dict[str, list[Phase]] = {}
    portless: set[tuple[SlicePort, ...]] = set()
    for slice_ in slices:
        if not slice_.endpoints:
            continue
        number = _choose_port(slice_.ports, port)
        if number is None:
            portless.add(slice_.ports)
            continue
        for host, uid, name, phase in slice_.endpoints:
            address = Address(host, number)
            identity = uid or str(address)
            rank = _FAMILIES.index(slice_.family), str(address), name
            phases.setdefault(identity, []).append(phase)
            if identity not in found or rank < found[identity][0]:
                found[identity] = rank, Backend(identity, address, phase, name or str(address))
    if portless and not found:
        raise PortError(_explain_ports(portless, port))
    return [
        Backend(identity, backend.address, min(phases[identity], key=_CERTAINTY.index), backend.name)
        for identity, (_, backend) in sorted(found.items())
    ]


def _choose_port(ports: tuple[SlicePort, ...], wanted: str) -> int | None:
    """Give the number of the port that is wanted; None where these have it not, or leave it open which it is."""
    if wanted.isdecimal():
        number = int(wanted)
        return number if not ports or any(p.number in (number, None) for p in ports) else None
    if wanted:
        return next((p.number for p in ports if p.name == wanted), None)
    if len(ports) == 1:
        return ports[0].number
    return next((p.number for p in ports if p.name == "http"), None)


def _explain_ports(portless: Iterable[tuple[SlicePort, ...]], wanted: str) -> str:
    ports = sorted({(p.name, p.number) for ports in portless for p in ports if p.number is not None})
    if not ports:
        return "its EndpointSlices say no TCP port: name the pods' port by its number, as in NAME:8080"
    known = ", ".join(f"{name} ({number})" if name else str(number) for name, number in ports)
    if not wanted:
        return f"its pods have several ports: {known}; say which, as in NAME:{ports[0][0] or ports[0][1]}"
    return f"its pods have no port {wanted}, only {known}: name one of these (the pods' port, not the Service's)"


def _mapping(found: object, what: str, *, optional: bool = False) -> Mapping[str, object]:
    if found is None and optional:
        return {}
    if not isinstance(found, dict):
        raise BadSliceError(f"expected {what} as an object, found {type(found).__name__}")
    return found


def _items(found: object, what: str) -> list[object]:
    if found is None:
        return []
    if not isinstance(found, list):
        raise BadSliceError(f"expected {what} as a list, found {type(found).__name__}")
    return found


def _text(found: object, what: str, *, optional: bool = False) -> str:
    if found is None and optional:
        return ""
    if not isinstance(found, str):
        raise BadSliceError(f"expected {what} as text, found {type(found).__name__}")
    if not (found or optional) or not found.isprintable():  # half a surrogate could not even be hashed
        raise BadSliceError(f"expected {what} as printable text, found {found[:40]!a}")
    return found


def _flag(found: object, what: str) -> bool | None:
    if found is not None and not isinstance(found, bool):
        raise BadSliceError(f"expected the condition {what} as true or false, found {type(found).__name__}")
    return found
