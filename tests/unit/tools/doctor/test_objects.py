"""Reading objects: what is absent or odd is nothing, never an error."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stickyproxy.tools.doctor.findings import find_all
from stickyproxy.tools.doctor.objects import Node, parse_object, parse_time, selects, share
from stickyproxy.tools.doctor.rules import RULES
from stickyproxy.tools.doctor.scene import UnclearError

from .setups import scene_of, setup


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("5s", 5), ("1h30m", 5400), ("500ms", 0.5), ("1.5s", 1.5), ("1d", 86400), ("", None), ("5x", None),
     ("s", None), ("-1", None)],
)  # fmt: skip
def test_times_are_read_as_their_writers_mean_them(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


def test_a_bare_number_may_be_milliseconds() -> None:
    assert parse_time("5000", plain=0.001) == 5
    assert parse_time("5s", plain=0.001) == 5


def test_a_place_knows_its_path_even_where_nothing_is() -> None:
    node = Node({"spec": {"containers": [{"name": "app"}, {"image": "x"}]}})
    first, second = node.at("spec.containers").items()
    assert first["env"].path == "spec.containers[app].env"
    assert second["image"].path == "spec.containers[1].image"
    assert node.at("metadata.annotations")["a.b/c"].path == "metadata.annotations[a.b/c]"
    assert not node.at("a.b.c")


@pytest.mark.parametrize(
    ("selector", "labels", "taken"),
    [
        ({}, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b", "c": "d"}}, {"a": "b"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {"a": "b"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": "b"}, False),
    ],
)
def test_selectors_take_what_kubernetes_says(selector: object, labels: dict[str, str], taken: bool) -> None:
    assert selects(Node(selector), labels) is taken


@pytest.mark.parametrize(
    ("value", "up", "count"),
    [(2, True, 2), ("2", True, 2), ("34%", False, 1), ("33%", False, 0), ("1%", True, 1), ("x", True, None)],
)
def test_shares_are_rounded_as_they_are_asked_for(value: object, up: bool, count: int | None) -> None:
    assert share(Node(value), 3, up=up) == count


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_nothing_that_is_no_object_passes_for_one_or_fails(found: object) -> None:
    parsed = parse_object(found, "shop")
    assert parsed is None or (parsed.kind and parsed.name)


@settings(max_examples=200, deadline=None)  # a second
@given(st.data())
def test_rules_survive_objects_of_any_shape(data: st.DataObject) -> None:
    """Any value of a sound set-up is replaced by anything: rules may say what they like, but say it."""
    objects = setup(data.draw(st.sampled_from(["proxied", "direct", "route", "traefik"])))
    place: object = data.draw(st.sampled_from(objects))
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    whole = [o for o in objects if isinstance(o.get("kind"), str) and isinstance(o.get("metadata"), dict)]
    with suppress(UnclearError):
        find_all(scene_of(whole), RULES)
