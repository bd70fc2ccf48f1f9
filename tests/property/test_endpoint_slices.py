"""EndpointSlices: neither their order nor how endpoints are spread over them matters, and garbage is only refused."""

from contextlib import suppress
from random import Random
from typing import Any

import pytest
from fakes.slices import endpoint, make_slice
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.core.backends import Backend
from stickyproxy.core.endpoint_slices import BadSliceError, PortError, parse_slice, read_phase, reduce_slices

FLAGS = st.sampled_from([True, False, None])
PORTS = st.sampled_from(
    [
        None,
        [{"name": "", "port": 8080}],
        [{"name": "http", "port": 8080}],
        [{"name": "http", "port": 8081}, {"name": "admin", "port": 9090}],
        [{"name": "any"}],
        [{"name": "dns", "port": 53, "protocol": "UDP"}],
    ]
)
RANDOM = st.integers(0, 2**32).map(Random)  # drawing every choice costs ten times as much
WANTED = st.sampled_from(["", "http", "admin", "8080", "9090"])


@st.composite
def endpoints(draw: st.DrawFn, family: str) -> dict[str, Any]:
    # Few pods and few addresses, so that slices overlap and contradict each other.
    number = draw(st.integers(1, 4))
    uid = draw(st.sampled_from(["", "a", "b", "c"]))
    address = {"IPv4": f"10.0.0.{number}", "IPv6": f"fd00::{number}", "FQDN": f"host-{number}"}[family]
    conditions = {name: draw(FLAGS) for name in ("ready", "serving", "terminating")}
    return endpoint(address, uid, name=draw(st.sampled_from(["", "app-0", "app-1"])), **conditions)


@st.composite
def slices(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        family = draw(st.sampled_from(["IPv4", "IPv6", "FQDN"]))
        found = draw(st.lists(endpoints(family), max_size=5))
        made.append(make_slice(f"slice-{number}", found, family=family, ports=draw(PORTS)))
    return made


def outcome(found: list[dict[str, Any]], port: str) -> list[Backend] | str:
    try:
        return reduce_slices([parse_slice(slice_) for slice_ in found], port)
    except PortError as error:
        return str(error)


@given(slices(), WANTED, RANDOM)
def test_the_order_of_slices_and_endpoints_does_not_matter(
    found: list[dict[str, Any]], port: str, random: Random
) -> None:
    before = outcome(found, port)
    shuffled = [
        slice_ | {"endpoints": random.sample(slice_["endpoints"], len(slice_["endpoints"]))} for slice_ in found
    ]
    random.shuffle(shuffled)
    assert outcome(shuffled, port) == before


@given(slices(), WANTED, RANDOM)
def test_it_does_not_matter_which_slice_an_endpoint_stands_in(
    found: list[dict[str, Any]], port: str, random: Random
) -> None:
    spread = []
    for slice_ in found:
        parts = [slice_ | {"endpoints": []} for _ in range(random.randrange(1, 4))]
        for one in slice_["endpoints"]:
            for part in random.sample(parts, random.randrange(1, len(parts) + 1)):  # in several for moments
                part["endpoints"] = [*part["endpoints"], one]
        spread += parts
    random.shuffle(spread)
    assert outcome(spread, port) == outcome(found, port)


@given(slices(), WANTED)
def test_backends_stand_once_and_in_order_and_come_from_the_slices(found: list[dict[str, Any]], port: str) -> None:
    backends = outcome(found, port)
    if isinstance(backends, str):
        assert "\n" not in backends
        return
    identities = [backend.identity for backend in backends]
    assert identities == sorted(set(identities))
    hosts = {one["addresses"][0] for slice_ in found for one in slice_["endpoints"]}
    assert {backend.address.host for backend in backends} <= hosts
    assert all(backend.name for backend in backends)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
NAMES = [
    "metadata", "name", "labels", "kubernetes.io/service-name", "addressType", "ports", "port", "protocol",
    "endpoints", "addresses", "conditions", "ready", "serving", "terminating", "targetRef", "uid",
]  # fmt: skip
KNOWN = st.recursive(
    JSON | st.sampled_from(["IPv4", "TCP", "10.0.0.1", 8080]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)


@given(JSON | KNOWN)
def test_garbage_is_refused_or_read_and_never_fails_in_another_way(garbage: object) -> None:
    with suppress(BadSliceError):
        parse_slice(garbage)
    if isinstance(garbage, dict):
        with suppress(BadSliceError):
            read_phase(garbage)


@given(slices().filter(bool), KNOWN, RANDOM)
def test_a_slice_with_something_else_inside_is_refused_or_still_gives_backends(
    found: list[dict[str, Any]], garbage: object, random: Random
) -> None:
    holder: Any = found[0]
    for depth in range(6):
        step = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if depth < 5 and isinstance(holder[step], (dict, list)) and holder[step] and random.random() < 0.8:
            holder = holder[step]
        else:
            break
    holder[step] = garbage
    try:
        read = [parse_slice(slice_) for slice_ in found]
    except BadSliceError:
        return
    with suppress(PortError):
        for backend in reduce_slices(read, ""):
            assert backend.identity.encode()


def test_deep_garbage_is_refused_too() -> None:
    deep: object = "bottom"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadSliceError):
        parse_slice(deep)
    with pytest.raises(BadSliceError):
        parse_slice(make_slice("a") | {"endpoints": [{"addresses": deep}]})
