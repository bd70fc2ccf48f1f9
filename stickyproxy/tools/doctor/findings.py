"""What a rule is and what it finds: severity, object, field, why, what to do, and the patch that does it.

Laws: a rule is data with a pure check; a patch is text to be applied by a person: nothing here writes to a cluster.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from stickyproxy.tools.doctor.objects import Node, Obj

if TYPE_CHECKING:
    from stickyproxy.tools.doctor.scene import Scene

PAGE = "docs/doctor.md"
"""Where each rule has an anchor of its own name."""


class Severity(IntEnum):
    """How bad it is: an error loses sessions, a warning does so at times, info is worth knowing."""

    INFO = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """Give it as it is written on the command line."""
        return self.name.lower()


PatchType = Literal["strategic", "merge", "json", "apply"]
"""As `kubectl patch --type`; `apply` makes a new object."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A change for `kubectl patch`, or a whole object for `kubectl apply`; `first` is a command to run before it."""

    target: Obj
    type: PatchType
    body: object
    first: str = ""

    @property
    def command(self) -> str:
        """Give the command that takes the body on its standard input."""
        where = f" -n {self.target.namespace}" if self.target.namespace else ""
        if self.type == "apply":
            return f"kubectl{where} apply -f -"
        kind = self.target.kind.lower()
        if self.target.group not in ("", "apps") and not self.target.group.endswith("k8s.io"):
            kind = f"{kind}.{self.target.group}"
        return f"kubectl{where} patch {kind} {self.target.name} --type={self.type} --patch-file=/dev/stdin"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a check has found.

    field: the path inside the object. why: what will happen. fix: what to do, in words.
    """

    where: Obj
    field: str
    why: str
    fix: str
    patch: Patch | None = None


def secret_first(namespace: str, name: str, key: str) -> str:
    """Give the command that makes a Secret with a random key, unless it is there."""
    return (
        f"kubectl -n {namespace} get secret {name} >/dev/null 2>&1 || kubectl -n {namespace} create secret generic "
        f"{name} "
        f'--from-literal={key}="$(openssl rand -base64 32)"'
    )


Check = Callable[["Scene"], Iterable[Fault]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: `id` is also its anchor in docs/doctor.md and what `--ignore` takes."""

    id: str
    severity: Severity
    title: str
    check: Check

    @property
    def doc(self) -> str:
        """Give where it is explained."""
        return f"{PAGE}#{self.id}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and the rule that found it."""

    rule: Rule
    fault: Fault


IGNORE = "stickyproxy/doctor-ignore"
"""An annotation with the ids of rules that shall be silent about its object, apart by commas."""


def ignored(where: Obj, rule_id: str) -> bool:
    """Say whether the object asks for silence about it."""
    return rule_id in [part.strip() for part in where.annotation(IGNORE).text.split(",")]


def find_all(scene: "Scene", rules: Iterable[Rule], ignore: frozenset[str] = frozenset()) -> list[Finding]:
    """Run the rules; give what they find, the worst first, each once."""
    found: dict[tuple[str, str, str, str], Finding] = {}
    for rule in rules:
        if rule.id in ignore:
            continue
        for fault in rule.check(scene):
            if not ignored(fault.where, rule.id):
                found.setdefault((rule.id, str(fault.where), fault.field, fault.why), Finding(rule, fault))
    return sorted(found.values(), key=lambda f: (-f.rule.severity, f.rule.id, str(f.fault.where), f.fault.field))


def annotate(where: Obj, annotations: dict[str, str | None]) -> Patch:
    """Patch annotations; None removes one."""
    return Patch(where, "merge", {"metadata": {"annotations": annotations}})


def at(node: Node, fallback: str) -> str:
    """Give the path of a place, or where it would be."""
    return node.path or fallback
