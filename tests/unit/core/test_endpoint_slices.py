import itertools
from typing import Any

import pytest
from fakes.slices import endpoint, make_slice

from stickyproxy.core.backends import Phase
from stickyproxy.core.endpoint_slices import (
    BadSliceError,
    Endpoint,
    EndpointSlice,
    PortError,
    ServiceRef,
    SlicePort,
    parse_service,
    parse_slice,
    read_phase,
    reduce_slices,
)


def port(name: str = "", number: int | None = 8080, **more: object) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "protocol": "TCP"} | more
    return made if number is None else made | {"port": number}


def reduced(*slices: dict[str, Any], port: str = "") -> list[tuple[str, str, Phase]]:
    """Reduce slices as the API gives them to identities, addresses and phases."""
    backends = reduce_slices([parse_slice(slice_) for slice_ in slices], port)
    return [(b.identity, str(b.address), b.phase) for b in backends]


# The setting.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my-app", ServiceRef("", "my-app", "")),
        ("shop/my-app", ServiceRef("shop", "my-app", "")),
        ("my-app:http", ServiceRef("", "my-app", "http")),
        (" shop/my-app:8080 ", ServiceRef("shop", "my-app", "8080")),
        ("a:1", ServiceRef("", "a", "1")),
        ("a:65535", ServiceRef("", "a", "65535")),
        ("1app:1http", ServiceRef("", "1app", "1http")),
        # A Service's port is called by a label of up to 63 characters; only a container's ends at 15.
        ("app:websocket-and-pages", ServiceRef("", "app", "websocket-and-pages")),
        ("app:a--b", ServiceRef("", "app", "a--b")),
        (f"{'a' * 63}:{'b' * 63}", ServiceRef("", "a" * 63, "b" * 63)),
    ],
)
def test_a_service_is_named_as_people_name_it(text: str, expected: ServiceRef) -> None:
    assert parse_service(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "/", ":", "/app", "shop/", "a/b/c", "app:", "app:0", "app:65536", "app:00", "app:999999", "app:-1",
        "app:http:8080", "App", "app_1", "app.shop", "-app", "app-", "app:-http", "app:http-", "app:HTTP", "a b",
        "app\n/b", "a" * 64, f"app:{'b' * 64}", "app:8080/tcp", "ü", "app:٣",
    ],
)  # fmt: skip
def test_what_names_no_service_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected \[NAMESPACE/\]NAME") as refusal:
        parse_service(text)
    assert repr(text) in str(refusal.value)


def test_a_service_is_called_without_its_port() -> None:
    assert str(ServiceRef("shop", "app", "http")) == "shop/app"
    assert str(ServiceRef("", "app")) == "app"


# Reading a slice.


def test_a_slice_is_read_as_the_api_gives_it() -> None:
    slice_ = make_slice(
        "app-x7k2p",
        [endpoint("10.0.0.1", "uid-1", name="app-0", ready=True, serving=True, terminating=False)],
        ports=[port("http", 8080, appProtocol="kubernetes.io/ws")],
    )
    assert parse_slice(slice_) == EndpointSlice(
        "app-x7k2p",
        "IPv4",
        (SlicePort("http", 8080),),
        (Endpoint("10.0.0.1", "uid-1", "app-0", Phase.READY),),
    )


def test_what_may_be_left_out_may_also_be_null() -> None:
    least: dict[str, Any] = {"metadata": {"name": "a"}, "addressType": "IPv6"}
    read = EndpointSlice("a", "IPv6", (), ())
    assert parse_slice(least) == read
    assert parse_slice(least | {"ports": None, "endpoints": None}) == read
    bare: dict[str, Any] = {"addresses": ["::1"]}
    null = bare | {"conditions": None, "targetRef": None}
    for found in (bare, null, bare | {"conditions": {"ready": None}, "targetRef": {"uid": None, "name": None}}):
        slice_ = parse_slice(least | {"endpoints": [found], "ports": [{"name": None, "port": None, "protocol": None}]})
        assert slice_.endpoints == (Endpoint("::1", "", "", Phase.READY),)
        assert slice_.ports == (SlicePort("", None),)


def test_ports_of_other_protocols_do_not_count() -> None:
    found = parse_slice(
        make_slice("a", ports=[port("dns", 53, protocol="UDP"), port("http"), port("x", 9, protocol="SCTP")])
    )
    assert found.ports == (SlicePort("http", 8080),)


GARBAGE: list[object] = [
    7,
    0,
    -1,
    70000,
    True,
    False,
    1.5,
    "text",
    "",
    "a\nb",
    "\ud800",
    ["list"],
    [],
    {"an": "object"},
    {},
]
TEXT, ANY_TEXT, FLAG, OBJECT = ["text"], ["text", ""], [True, False], [{"an": "object"}, {}]

FIELDS: dict[tuple[str | int, ...], list[Any]] = {
    # Where something stands in a slice, and what of the above may stand there.
    (): [],
    ("metadata",): [],
    ("metadata", "name"): TEXT,
    ("addressType",): [],
    ("ports",): [[]],
    ("ports", 0): OBJECT,
    ("ports", 0, "name"): ANY_TEXT,
    ("ports", 0, "protocol"): ANY_TEXT,
    ("ports", 0, "port"): [7],
    ("endpoints",): [[]],
    ("endpoints", 0): [],
    ("endpoints", 0, "addresses"): [["list"]],
    ("endpoints", 0, "addresses", 0): TEXT,
    ("endpoints", 0, "addresses", 1): TEXT,
    ("endpoints", 0, "conditions"): OBJECT,
    ("endpoints", 0, "conditions", "ready"): FLAG,
    ("endpoints", 0, "conditions", "serving"): FLAG,
    ("endpoints", 0, "conditions", "terminating"): FLAG,
    ("endpoints", 0, "targetRef"): OBJECT,
    ("endpoints", 0, "targetRef", "uid"): ANY_TEXT,
    ("endpoints", 0, "targetRef", "name"): ANY_TEXT,
}


def with_instead(where: tuple[str | int, ...], what: object) -> object:
    """Give a sound slice with something else in one place."""
    slice_ = make_slice(
        "a",
        [endpoint("10.0.0.1", "uid", ready=True, serving=True, terminating=False), endpoint("10.0.0.2", "uid-2")],
        ports=[port("http"), port("admin", 9090)],
    )
    slice_["endpoints"][0]["addresses"].append("10.0.0.9")
    found: Any = {"whole": slice_}
    *way, last = ("whole", *where)
    holder = found
    for step in way:
        holder = holder[step]
    holder[last] = what
    return found["whole"]


@pytest.mark.parametrize("where", FIELDS, ids=lambda where: ".".join(map(str, where)) or "whole")
def test_a_slice_with_garbage_anywhere_is_refused_as_a_whole(where: tuple[str | int, ...]) -> None:
    allowed = {repr(value) for value in FIELDS[where]}  # 1 and True are equal, their texts are not
    for garbage in GARBAGE:
        found = with_instead(where, garbage)
        if repr(garbage) in allowed:
            parse_slice(found)
            continue
        with pytest.raises(BadSliceError, match="expected") as refusal:
            parse_slice(found)
        assert str(refusal.value).isprintable(), "it goes into a log of one line"


def test_what_we_do_not_know_does_not_matter() -> None:
    for garbage in GARBAGE:
        for where in FIELDS:
            if isinstance(where[-1] if where else 0, str):
                parse_slice(with_instead((*where[:-1], "from-the-future"), garbage))


def test_a_refusal_says_what_was_expected_and_found() -> None:
    with pytest.raises(BadSliceError, match="expected ports as a list, found str"):
        parse_slice(with_instead(("ports",), "text"))
    with pytest.raises(BadSliceError, match="expected addressType IPv4, IPv6, FQDN, found 'text'"):
        parse_slice(with_instead(("addressType",), "text"))


# Phases.


def expected_phase(ready: bool | None, serving: bool | None, terminating: bool | None) -> Phase:
    """Say it as the API's documentation does: nil means ready, serving as ready, not terminating."""
    if terminating is True:
        return Phase.DRAINING
    is_ready = ready is not False
    is_serving = is_ready if serving is None else serving
    return Phase.READY if is_serving else Phase.PAUSED


@pytest.mark.parametrize("conditions", list(itertools.product((True, False, None), repeat=3)))
def test_every_combination_of_conditions_has_a_phase(conditions: tuple[bool | None, bool | None, bool | None]) -> None:
    named = dict(zip(("ready", "serving", "terminating"), conditions, strict=True))
    expected = expected_phase(*conditions)
    assert read_phase(named) is expected
    assert read_phase({name: value for name, value in named.items() if value is not None}) is expected, "nil is absent"


@pytest.mark.parametrize(
    ("conditions", "phase"),
    [
        ({}, Phase.READY),
        ({"ready": True, "serving": True, "terminating": False}, Phase.READY),
        ({"ready": False, "serving": False, "terminating": False}, Phase.PAUSED),
        ({"ready": False, "serving": True, "terminating": True}, Phase.DRAINING),
        ({"ready": False, "serving": False, "terminating": True}, Phase.DRAINING),
        # publishNotReadyAddresses: ready for all, serving tells the truth.
        ({"ready": True, "serving": False, "terminating": False}, Phase.PAUSED),
        ({"ready": True, "serving": True, "terminating": True}, Phase.DRAINING),
        ({"ready": False}, Phase.PAUSED),  # controllers older than `serving`
    ],
)
def test_phases_are_those_of_a_pods_life(conditions: dict[str, bool], phase: Phase) -> None:
    assert read_phase(conditions) is phase


@pytest.mark.parametrize("garbage", ["false", 0, 1, [], {}])
def test_a_condition_that_is_neither_true_nor_false_is_refused(garbage: object) -> None:
    for name in ("ready", "serving", "terminating"):
        with pytest.raises(BadSliceError, match=f"condition {name}"):
            read_phase({name: garbage})


# Reducing.


def test_no_slices_and_slices_without_endpoints_have_no_backends() -> None:
    assert reduced() == []
    assert reduced(make_slice("a"), make_slice("b", ports=None), port="http") == []


def test_a_backend_is_a_pod_by_its_uid_with_its_name() -> None:
    (backend,) = reduce_slices([parse_slice(make_slice("a", [endpoint("10.0.0.1", "uid-1", name="app-0")]))], "")
    assert (backend.identity, backend.address, backend.phase) == ("uid-1", ("10.0.0.1", 8080), Phase.READY)
    assert str(backend) == "app-0"


def test_several_slices_are_one_set_in_order_of_identity() -> None:
    slices = [
        make_slice("b", [endpoint("10.0.0.3", "c"), endpoint("10.0.0.1", "a", ready=False)]),
        make_slice("a", [endpoint("10.0.0.2", "b", terminating=True)]),
        make_slice("c"),
    ]
    expected = [
        ("a", "10.0.0.1:8080", Phase.PAUSED),
        ("b", "10.0.0.2:8080", Phase.DRAINING),
        ("c", "10.0.0.3:8080", Phase.READY),
    ]
    for order in itertools.permutations(slices):
        assert reduced(*order) == expected


def test_a_pod_with_two_addresses_is_one_backend_by_ipv4() -> None:
    four = make_slice("four", [endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b")])
    six = make_slice("six", [endpoint("fd00::1", "a"), endpoint("fd00::3", "c")], family="IPv6")
    expected = [
        ("a", "10.0.0.1:8080", Phase.READY),
        ("b", "10.0.0.2:8080", Phase.READY),
        ("c", "[fd00::3]:8080", Phase.READY),
    ]
    assert reduced(four, six) == reduced(six, four) == expected


def test_a_cluster_of_ipv6_alone_has_backends_too() -> None:
    assert reduced(make_slice("six", [endpoint("fd00::1", "a")], family="IPv6")) == [
        ("a", "[fd00::1]:8080", Phase.READY)
    ]


def test_a_name_is_dialled_where_there_is_no_address() -> None:
    name = make_slice("name", [endpoint("app.example", "a")], family="FQDN")
    six = make_slice("six", [endpoint("fd00::1", "a")], family="IPv6")
    assert reduced(name) == [("a", "app.example:8080", Phase.READY)]
    assert reduced(name, six) == reduced(six, name) == [("a", "[fd00::1]:8080", Phase.READY)]


def test_without_a_pod_the_address_is_the_identity() -> None:
    (backend,) = reduce_slices([parse_slice(make_slice("a", [endpoint("192.0.2.1")]))], "")
    assert (backend.identity, str(backend), str(backend.address)) == ("192.0.2.1:8080",) * 3
    assert reduced(make_slice("a", [endpoint("fd00::1")], family="IPv6"))[0][0] == "[fd00::1]:8080"


def test_an_endpoint_that_stands_in_two_slices_is_one_backend() -> None:
    for found in (endpoint("10.0.0.1", "a"), endpoint("10.0.0.1")):
        assert len(reduced(make_slice("a", [found, found]), make_slice("b", [found]))) == 1


@pytest.mark.parametrize(
    ("conditions", "phase"),
    [
        ([{"ready": True}, {"terminating": True}], Phase.DRAINING),
        ([{"ready": False}, {"terminating": True}], Phase.DRAINING),
        ([{"ready": True}, {"ready": False}], Phase.READY),
        ([{"ready": True}, {"ready": False}, {"terminating": True}], Phase.DRAINING),
    ],
)
def test_where_slices_differ_about_a_pod_the_surest_phase_counts(
    conditions: list[dict[str, bool]], phase: Phase
) -> None:
    slices = [make_slice(str(n), [endpoint("10.0.0.1", "a", **found)]) for n, found in enumerate(conditions)]
    for order in itertools.permutations(slices):
        assert reduced(*order) == [("a", "10.0.0.1:8080", phase)]


def test_where_slices_differ_about_a_name_or_an_address_the_order_does_not_decide() -> None:
    slices = [
        parse_slice(make_slice(name, [endpoint(address, "a", name=name)]))
        for address, name in (("10.0.0.2", "x"), ("10.0.0.1", "z"), ("10.0.0.1", "y"))
    ]
    for order in itertools.permutations(slices):
        (backend,) = reduce_slices(order, "")
        assert (str(backend.address), backend.name) == ("10.0.0.1:8080", "y")


# Ports.


TWO = [port("http", 8080), port("admin", 9090)]


@pytest.mark.parametrize(
    ("ports", "wanted", "number"),
    [
        ([port("", 8080)], "", 8080),
        ([port("whatever", 8080)], "", 8080),
        ([port("whatever", 8080), port("udp", 53, protocol="UDP")], "", 8080),
        (TWO, "", 8080),
        (TWO, "http", 8080),
        (TWO, "admin", 9090),
        (TWO, "9090", 9090),
        (TWO, "08080", 8080),
        ([port("", None)], "7000", 7000),  # nil: every port
        ([port("any", None), port("http", 80)], "7000", 7000),
        (None, "7000", 7000),  # no ports: whatever the backends listen on
        ([], "7000", 7000),
        ([port("udp", 53, protocol="UDP")], "7000", 7000),
    ],
)
def test_a_port_is_chosen(ports: list[dict[str, Any]] | None, wanted: str, number: int) -> None:
    slice_ = make_slice("a", [endpoint("10.0.0.1", "a")], ports=ports)
    assert reduced(slice_, port=wanted) == [("a", f"10.0.0.1:{number}", Phase.READY)]


def test_a_port_by_name_may_differ_from_pod_to_pod() -> None:
    slices = [
        make_slice("a", [endpoint("10.0.0.1", "a")], ports=[port("http", 8080)]),
        make_slice("b", [endpoint("10.0.0.2", "b")], ports=[port("http", 8081)]),
    ]
    assert [address for _, address, _ in reduced(*slices, port="http")] == ["10.0.0.1:8080", "10.0.0.2:8081"]


def test_pods_without_the_port_are_left_out_while_others_have_it() -> None:
    slices = [
        make_slice("a", [endpoint("10.0.0.1", "a")], ports=TWO),
        make_slice("b", [endpoint("10.0.0.2", "b")], ports=[port("http")]),
    ]
    for order in itertools.permutations(slices):
        assert [identity for identity, *_ in reduced(*order, port="admin")] == ["a"]


@pytest.mark.parametrize(
    ("ports", "wanted", "text"),
    [
        ([port("web", 80), port("admin", 9090)], "",
         "its pods have several ports: admin (9090), web (80); say which, as in NAME:admin"),
        (TWO, "grpc", "its pods have no port grpc, only admin (9090), http (8080): "
         "name one of these (the pods' port, not the Service's)"),
        ([port("", 8080)], "80", "its pods have no port 80, only 8080: "
         "name one of these (the pods' port, not the Service's)"),
        (None, "", "its EndpointSlices say no TCP port: name the pods' port by its number, as in NAME:8080"),
        (None, "http", "its EndpointSlices say no TCP port: name the pods' port by its number, as in NAME:8080"),
        # A port without a number is every port, and 0 is none.
        ([port("", None)], "",
         "its EndpointSlices say no TCP port: name the pods' port by its number, as in NAME:8080"),
        ([port("http", None)], "http",
         "its EndpointSlices say no TCP port: name the pods' port by its number, as in NAME:8080"),
    ],
)  # fmt: skip
def test_a_port_that_nobody_has_is_said_with_those_there_are(
    ports: list[dict[str, Any]] | None, wanted: str, text: str
) -> None:
    slices = [make_slice("a", [endpoint("10.0.0.1", "a")], ports=ports), make_slice("empty", ports=[port("x", 1)])]
    for order in itertools.permutations(slices):
        with pytest.raises(PortError) as refusal:
            reduced(*order, port=wanted)
        assert str(refusal.value) == text
