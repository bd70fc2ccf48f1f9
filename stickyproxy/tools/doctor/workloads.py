"""Workloads and their containers, with the API server's defaults for what a manifest leaves out.

Law: what cannot be known (a Secret's content, a ConfigMap that was not read) is said to be unknown, never guessed.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from stickyproxy.tools.doctor.findings import Patch
from stickyproxy.tools.doctor.objects import Node, Obj

KINDS = ("Deployment", "StatefulSet")

DEFAULT_GRACE_S = 30
"""terminationGracePeriodSeconds where a pod does not say it."""

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")

_SLEEP = re.compile(r"\bsleep\s+([0-9]+(?:\.[0-9]+)?)(s|m)?\b")
_WAIT = re.compile(r"[?&]wait=([0-9.]+)(ms|s|m|h)?")
_OPTION_WAIT = re.compile(r"--wait[= ]([0-9.]+)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@dataclass(frozen=True)
class Environment:
    """A container's variables: text where it is known, None where it comes from elsewhere (a Secret, a field)."""

    values: Mapping[str, str | None]
    complete: bool
    """Whether these are all: no Secret as a whole, no ConfigMap that was not read."""
    secret: bool
    """Whether anything in it comes from a Secret."""

    def may_have(self, name: str) -> bool:
        """Say whether the variable is there, or may be."""
        return name in self.values or not self.complete


ConfigMaps = Mapping[tuple[str, str], Mapping[str, str] | None]
"""By namespace and name; None: it is not there or could not be read."""


@dataclass(frozen=True)
class PreStop:
    """What a container does before it is told to end."""

    node: Node
    seconds: float | None
    """How long it takes at the most; None: unknown."""
    drains: bool
    """Whether it waits until the pod's last page has gone (`stickyproxy drain --wait`, `/drain?..&wait=`)."""


@dataclass(frozen=True)
class Container:
    """One container of a pod template."""

    node: Node
    init: bool
    environment: Environment

    @property
    def name(self) -> str:
        """Give its name."""
        return self.node["name"].text

    @property
    def image(self) -> str:
        """Give its image."""
        return self.node["image"].text

    @cached_property
    def words(self) -> list[str]:
        """Give command and arguments as words; a shell's script is split as the shell would."""
        found: list[str] = []
        for word in self.node["command"].words() + self.node["args"].words():
            if any(blank in word.strip() for blank in " \n"):
                try:
                    found += shlex.split(word)
                except ValueError:  # an open quote: as it stands
                    found += word.split()
            else:
                found.append(word)
        return found

    @cached_property
    def ports(self) -> dict[str, int]:
        """Give its TCP ports by name; nameless ones by their number."""
        found = {}
        for port in self.node["ports"].items():
            number = port["containerPort"].number
            if number is not None and port["protocol"].text in ("", "TCP"):
                found[port["name"].text or str(number)] = number
        return found

    def port(self, name: Node) -> int | None:
        """Give the number of a port that is named or numbered; None where it has no such name."""
        return name.number if name.number is not None else self.ports.get(name.text)

    @cached_property
    def pre_stop(self) -> PreStop | None:
        """Give its preStop hook."""
        node = self.node.at("lifecycle.preStop")
        if not node:
            return None
        if node["sleep"]:
            return PreStop(node, float(node.at("sleep.seconds").number or 0), False)
        if node["httpGet"]:
            path = node.at("httpGet.path").text
            wait = _seconds(_WAIT, path)
            return PreStop(node, wait, path.startswith("/drain") and bool(wait))
        line = " ".join(node.at("exec.command").words())
        if "stickyproxy" in line and "drain" in line:
            wait = _seconds(_OPTION_WAIT, line) or 0.0
            return PreStop(node, wait, wait > 0)
        return PreStop(node, _seconds(_SLEEP, line), False)


def _seconds(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return float(found[1]) * _UNITS[found[2] or ""] if found else None


@dataclass(frozen=True)
class Workload:
    """A Deployment or a StatefulSet."""

    obj: Obj
    containers: tuple[Container, ...] = field(repr=False)

    @property
    def pod(self) -> Node:
        """Give the pod's spec."""
        return self.obj.spec.at("template.spec")

    @cached_property
    def labels(self) -> dict[str, str]:
        """Give the pods' labels."""
        return self.obj.spec.at("template.metadata.labels").texts()

    @property
    def declared(self) -> int:
        """Give `replicas`, which is 1 where it is not said."""
        found = self.obj.spec["replicas"].number
        return 1 if found is None else found

    @property
    def grace_s(self) -> int:
        """Give the seconds a pod has to end."""
        found = self.pod["terminationGracePeriodSeconds"].number
        return DEFAULT_GRACE_S if found is None else found

    @property
    def account(self) -> str:
        """Give the name of its service account."""
        return self.pod["serviceAccountName"].text or "default"

    def patch_pod(self, pod: dict[str, object]) -> Patch:
        """Patch the pod's spec."""
        return Patch(self.obj, "strategic", {"spec": {"template": {"spec": pod}}})

    def patch_container(self, container: Container, change: dict[str, object]) -> Patch:
        """Patch one container."""
        kind = "initContainers" if container.init else "containers"
        return self.patch_pod({kind: [{"name": container.name, **change}]})


def read_workload(obj: Obj, config_maps: ConfigMaps) -> Workload:
    """Read a workload; init containers count where they are sidecars (`restartPolicy: Always`, KEP-753)."""
    pod = obj.spec.at("template.spec")
    found = [
        Container(node, True, read_environment(node, obj.namespace, config_maps))
        for node in pod["initContainers"].items()
        if node["restartPolicy"].text == "Always"
    ]
    found += [
        Container(node, False, read_environment(node, obj.namespace, config_maps)) for node in pod["containers"].items()
    ]
    return Workload(obj, tuple(found))


def read_environment(container: Node, namespace: str, config_maps: ConfigMaps) -> Environment:
    """Read a container's variables as far as they are known."""
    values: dict[str, str | None] = {}
    complete, secret = True, False
    for source in container["envFrom"].items():
        prefix = source["prefix"].text
        if source["secretRef"]:
            complete, secret = False, True
            continue
        content = config_maps.get((namespace, source.at("configMapRef.name").text))
        if content is None:
            complete = False
        else:
            values |= {prefix + key: value for key, value in content.items()}
    for variable in container["env"].items():
        name, source = variable["name"].text, variable["valueFrom"]
        if not source:
            values[name] = variable["value"].text
        elif source["configMapKeyRef"]:
            reference = source["configMapKeyRef"]
            values[name] = (config_maps.get((namespace, reference["name"].text)) or {}).get(reference["key"].text)
        else:
            secret = secret or bool(source["secretKeyRef"])
            values[name] = None
    return Environment(values, complete, secret)


def config_maps_of(obj: Obj) -> set[str]:
    """Give the names of the ConfigMaps that a workload's variables come from."""
    found: set[str] = set()
    pod = obj.spec.at("template.spec")
    for container in [*pod["initContainers"].items(), *pod["containers"].items()]:
        found |= {source.at("configMapRef.name").text for source in container["envFrom"].items()}
        found |= {variable.at("valueFrom.configMapKeyRef.name").text for variable in container["env"].items()}
    return found - {""}
