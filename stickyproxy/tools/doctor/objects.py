"""What is read: a Kubernetes object as a tree in which every place knows its path, so that a finding names the field.

Laws: reading never fails: what is absent or of another type reads as nothing, since a half-written manifest is what a
doctor is called for; nothing here knows a rule.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TIME = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h|d))+\Z")
_TIME_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_time(text: str, *, plain: float = 1.0) -> float | None:
    """Read a time such as 60, 30s or 1h30m into seconds; None where it is none. plain: seconds of a bare number's 1."""
    text = text.strip()
    if re.match(r"[0-9]+(\.[0-9]+)?\Z", text):
        return float(text) * plain
    if not _TIME.match(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _TIME_PART.findall(text))


class Node:
    """A place in an object: its value, or nothing, and its path as `kubectl explain` would write it."""

    __slots__ = ("path", "value")

    def __init__(self, value: object, path: str = "") -> None:
        self.value = value
        self.path = path

    def __getitem__(self, key: str) -> "Node":
        inner = self.value.get(key) if isinstance(self.value, dict) else None
        shown = f"[{key}]" if "." in key or "/" in key else f".{key}"
        return Node(inner, f"{self.path}{shown}".lstrip("."))

    def __bool__(self) -> bool:
        return self.value is not None

    def at(self, path: str) -> "Node":
        """Go down several steps, as in `spec.template.spec`."""
        node = self
        for key in path.split("."):
            node = node[key]
        return node

    @property
    def text(self) -> str:
        """Give text (a number as its digits, true and false as YAML writes them); empty where there is none."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return str(self.value) if isinstance(self.value, str | int | float) else ""

    @property
    def number(self) -> int | None:
        """Give a whole number, also where it is written as text."""
        return int(self.text) if re.match(r"-?[0-9]{1,18}\Z", self.text) else None

    @property
    def flag(self) -> bool | None:
        """Give true or false."""
        return self.value if isinstance(self.value, bool) else None

    def items(self) -> Iterator["Node"]:
        """Give the elements of a list."""
        if isinstance(self.value, list):
            for index, element in enumerate(self.value):
                name = element.get("name") if isinstance(element, dict) else None
                yield Node(element, f"{self.path}[{name if isinstance(name, str) else index}]")

    def texts(self) -> dict[str, str]:
        """Give a map of texts, such as labels; other values are left out."""
        if not isinstance(self.value, dict):
            return {}
        return {key: Node(value).text for key, value in self.value.items() if isinstance(key, str)}

    def words(self) -> list[str]:
        """Give a list of texts."""
        return [node.text for node in self.items()]


@dataclass(frozen=True, slots=True)
class Obj:
    """One object of the cluster."""

    kind: str
    group: str
    namespace: str
    name: str
    root: Node

    def __str__(self) -> str:
        """Give KIND NAMESPACE/NAME."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def spec(self) -> Node:
        """Give its spec."""
        return self.root["spec"]

    @property
    def labels(self) -> dict[str, str]:
        """Give its labels."""
        return self.root.at("metadata.labels").texts()

    def annotation(self, key: str) -> Node:
        """Give one annotation."""
        return self.root.at("metadata.annotations")[key]

    @property
    def annotations(self) -> dict[str, str]:
        """Give its annotations."""
        return self.root.at("metadata.annotations").texts()


def parse_object(found: object, namespace: str) -> Obj | None:
    """Read one object (decoded JSON or YAML); None where it is none. namespace: where it is, if it does not say."""
    root = Node(found)
    kind, name = root["kind"].text, root.at("metadata.name").text
    if not kind or not name:
        return None
    group = root["apiVersion"].text.rpartition("/")[0]
    return Obj(kind, group, root.at("metadata.namespace").text or namespace, name, root)


def selects(selector: Node, labels: Mapping[str, str]) -> bool:
    """Decide whether a LabelSelector (matchLabels and matchExpressions) takes these labels; an empty one takes all."""
    if any(labels.get(key) != value for key, value in selector["matchLabels"].texts().items()):
        return False
    return all(_expression(node, labels) for node in selector["matchExpressions"].items())


def _expression(node: Node, labels: Mapping[str, str]) -> bool:
    key, operator, values = node["key"].text, node["operator"].text, node["values"].words()
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    return labels.get(key) in values if operator == "In" else labels.get(key) not in values


def share(node: Node, total: int, *, up: bool) -> int | None:
    """Read a whole number or a percentage of `total`; None where it is neither. up: round up, else down."""
    if node.text.endswith("%") and node.text[:-1].isdecimal():
        parts = int(node.text[:-1]) * total
        return -(-parts // 100) if up else parts // 100
    return node.number
