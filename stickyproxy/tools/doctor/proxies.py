"""Containers that run stickyproxy, and their settings as far as the objects say them.

Laws: a flag beats the environment, as on the real command line; what a file or a Secret may set is unknown, and whoever
asks is told so.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from stickyproxy.core.endpoint_slices import ServiceRef, parse_service
from stickyproxy.core.values import Address, parse_address, parse_duration
from stickyproxy.tools.doctor.workloads import Container, Workload

Source = Literal["kubernetes-service", "dns", "backend"]

DEFAULTS = {
    "listen": "0.0.0.0:8080",
    "admin": "0.0.0.0:9090",
    "shutdown-delay": "5s",
    "drain-timeout": "20s",
    "trusted-proxy": "private",
}
"""What counts where nothing is said; a test holds it against the command line's own."""

PREFIX = "STICKYPROXY_"


def is_proxy(container: Container) -> bool:
    """Say whether a container runs the proxy: by its image's or its program's name, or by its settings."""
    image = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    words = container.words
    named = image == "stickyproxy" or any(word.rpartition("/")[2] == "stickyproxy" for word in words)
    as_module = any(a == "-m" and b == "stickyproxy" for a, b in pairwise(words))
    set_up = any(name.startswith(PREFIX) for name in container.environment.values)
    return (named or as_module or set_up) and ("run" in words or not words)


@dataclass(frozen=True)
class Proxy:
    """A workload's container that runs `stickyproxy run`."""

    workload: Workload
    container: Container

    @property
    def sidecar(self) -> bool:
        """Say whether it stands in the app's own pods."""
        return bool(self.read("local-backend")) or (len(self.workload.containers) > 1 and self.container.init)

    @cached_property
    def _flags(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        words = self.container.words
        for index, word in enumerate(words):
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                if not equals:
                    value = words[index + 1] if index + 1 < len(words) else ""
                found.setdefault(name, []).append(value)
        return found

    def read_all(self, name: str) -> list[str]:
        """Give a setting's values; none where nothing is known to be said."""
        if name in self._flags:
            return self._flags[name]
        value = self.container.environment.values.get(self.variable(name))
        return [part for part in re.split(r"[,\s]+", value or "") if part]

    def read(self, name: str) -> str:
        """Give a setting's value, or its default; empty where there is none."""
        return next(iter(self.read_all(name)), DEFAULTS.get(name, ""))

    def knows(self, name: str) -> bool:
        """Say whether what `read` gives is certain."""
        if name in self._flags:
            return "$(" not in "".join(self._flags[name])
        environment = self.container.environment
        if self.variable(name) in environment.values:
            return environment.values[self.variable(name)] is not None
        config = "config" in self._flags or self.variable("config") in environment.values
        return environment.complete and not config

    @staticmethod
    def variable(name: str) -> str:
        """Give the environment variable of an option."""
        return PREFIX + name.upper().replace("-", "_")

    def seconds(self, name: str) -> float | None:
        """Give a duration; None where it is not known."""
        if not self.knows(name):
            return None
        try:
            return parse_duration(self.read(name))
        except ValueError:
            return None

    def port(self, name: Literal["listen", "admin"]) -> int | None:
        """Give the number of one of its own ports; None where it is off or not known."""
        if not self.knows(name):
            return None
        try:
            return parse_address(self.read(name)).port
        except ValueError:
            return None

    @cached_property
    def service(self) -> ServiceRef | None:
        """Give what --kubernetes-service names, with its namespace."""
        try:
            found = parse_service(self.read("kubernetes-service"))
        except ValueError:
            return None
        return found._replace(namespace=found.namespace or self.workload.obj.namespace)

    @cached_property
    def addresses(self) -> list[tuple[Source, Address]]:
        """Give what --dns and --backend name."""
        found: list[tuple[Source, Address]] = []
        sources: tuple[Source, ...] = ("dns", "backend")
        for source in sources:
            for text in self.read_all(source):
                try:
                    found.append((source, parse_address(text)))
                except ValueError:
                    continue
        return found

    def service_of(self, host: str) -> tuple[str, str] | None:
        """Give namespace and name of the Service that a host name can only mean; None where it is another host."""
        name, _, rest = host.rstrip(".").partition(".")
        if not rest:
            return self.workload.obj.namespace, name
        namespace, _, rest = rest.partition(".")
        return (namespace, name) if rest in ("", "svc") or rest.startswith("svc.") else None

    @property
    def field(self) -> str:
        """Give where its settings are."""
        return f"{self.container.node.path}.args" if self._flags else f"{self.container.node.path}.env"
