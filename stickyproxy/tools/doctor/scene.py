"""The scene that rules look at: the apps, the proxies before them, and the ways in, made of what was read.

Laws: pure; what could not be read is in `unread`, so that a rule can tell "there is none" from "nobody could look".
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from stickyproxy.tools.doctor.entries import (
    ROUTES,
    UNKNOWN,
    Entry,
    Vendor,
    ingress_backends,
    vendor_of,
)
from stickyproxy.tools.doctor.objects import Node, Obj
from stickyproxy.tools.doctor.proxies import Proxy, is_proxy
from stickyproxy.tools.doctor.workloads import KINDS, ConfigMaps, Container, Workload, config_maps_of, read_workload

_OTHERS = re.compile(
    r"(redis|valkey|postgres|mysql|mariadb|mongo|memcached|rabbitmq|minio|nginx|haproxy|traefik|caddy|envoy|prometheus)"
)
"""What stands beside an app and often has its name; by the image, since an app's own is none of these."""

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Target:
    """Where a port of a Service leads: a container of a workload, and its port (None: not to be told)."""

    workload: Workload
    container: Container
    number: int | None


@dataclass(frozen=True)
class App:
    """A workload whose pods hold pages; `container` is the app's own."""

    workload: Workload
    container: Container
    why: str
    """Why it is taken for an app."""

    @property
    def obj(self) -> Obj:
        """Give the workload's object."""
        return self.workload.obj


class UnclearError(Exception):
    """Which workload is the app cannot be told; the text is one line that says what to give."""


class Scene:
    """All that was read.

    objects: in any order. unread: kinds that nobody could look at, such as `Ingress`. chosen: names of the workloads
    that are the apps; without any they are guessed. live: whether the objects come from a cluster, with a status.
    """

    def __init__(
        self,
        objects: Iterable[Obj],
        *,
        unread: Iterable[str] = (),
        chosen: Sequence[str] = (),
        live: bool = False,
        vendors: Sequence[Vendor] = (),
        by_kind: Mapping[str, Vendor] = MappingProxyType({}),
    ) -> None:
        self._objects: dict[str, list[Obj]] = {}
        for found in objects:
            self._objects.setdefault(found.kind, []).append(found)
        self.unread = frozenset(unread)
        self.live = live
        self._chosen = tuple(chosen)
        self._vendors = tuple(vendors)
        self._by_kind = by_kind
        self._selected: dict[Key, list[Workload]] = {}  # asked for often, and N x M to answer

    def all(self, kind: str) -> list[Obj]:
        """Give all objects of a kind."""
        return self._objects.get(kind, [])

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Give one object."""
        return self._index.get((kind, namespace, name))

    @cached_property
    def _index(self) -> dict[tuple[str, str, str], Obj]:
        return {(o.kind, o.namespace, o.name): o for found in self._objects.values() for o in found}

    def knows(self, *kinds: str) -> bool:
        """Say whether these kinds could be looked at."""
        return not self.unread.intersection(kinds)

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Give the namespaces that something was found in."""
        return frozenset(o.namespace for found in self._objects.values() for o in found if o.namespace)

    @cached_property
    def config_maps(self) -> ConfigMaps:
        """Give the content of the ConfigMaps that are there."""
        return {(o.namespace, o.name): o.root["data"].texts() for o in self.all("ConfigMap")}

    @cached_property
    def workloads(self) -> list[Workload]:
        """Give all Deployments and StatefulSets that have containers."""
        found = [read_workload(o, self.config_maps) for kind in KINDS for o in self.all(kind)]
        return [workload for workload in found if workload.containers]

    @cached_property
    def proxies(self) -> list[Proxy]:
        """Give all containers that run stickyproxy."""
        return [Proxy(w, c) for w in self.workloads for c in w.containers if is_proxy(c)]

    def pods_of(self, service: Obj) -> list[Workload]:
        """Give the workloads whose pods a Service selects."""
        key = (service.namespace, service.name)
        if key not in self._selected:
            wanted = service.spec["selector"].texts().items()
            self._selected[key] = [
                w for w in self.workloads if wanted and w.obj.namespace == key[0] and wanted <= w.labels.items()
            ]
        return self._selected[key]

    def services_of(self, workload: Workload) -> list[Obj]:
        """Give the Services that select a workload's pods."""
        return [s for s in self.all("Service") if workload in self.pods_of(s)]

    def targets(self, service: Obj, port: Node | None = None) -> Iterator[Target]:
        """Give where a Service leads; port: name or number of one of its ports, all of them without it."""
        for service_port in service.spec["ports"].items():
            if (
                port is not None
                and port.text
                and port.text not in (service_port["name"].text, service_port["port"].text)
            ):
                continue
            wanted = service_port["targetPort"] if service_port["targetPort"] else service_port["port"]
            for workload in self.pods_of(service):
                yield self._target(workload, wanted)

    def _target(self, workload: Workload, port: Node) -> Target:
        for container in workload.containers:
            number = port.number if port.number in container.ports.values() else container.ports.get(port.text)
            if number is not None:
                return Target(workload, container, number)
        for proxy in self.proxies:
            if proxy.workload is workload and port.number is not None and port.number == proxy.port("listen"):
                return Target(workload, proxy.container, port.number)
        return Target(workload, self.main_container(workload), port.number)

    def main_container(self, workload: Workload) -> Container:
        """Give the container that is the app: one that says NiceGUI, else the first that is no sidecar and no proxy."""
        ours = [c for c in workload.containers if not is_proxy(c)]
        signs = [c for c in ours if "nicegui" in f"{c.image} {' '.join(c.environment.values)}".lower()]
        return next((c for c in [*signs, *ours] if not c.init), (ours or workload.containers)[0])

    # Which of them are apps.

    @cached_property
    def apps(self) -> list[App]:
        """Give the apps; UnclearError where they cannot be told, and there is no proxy to look at either."""
        usable = self.workloads
        if self._chosen:
            found = [w for w in usable if w.obj.name in self._chosen]
            lost = sorted(set(self._chosen) - {w.obj.name for w in found})
            if lost:
                known = ", ".join(sorted(w.obj.name for w in usable)) or "none"
                raise UnclearError(
                    f"--deployment: expected a Deployment or StatefulSet, found none named {lost[0]!r}, only: {known}"
                )
            return [App(w, self.main_container(w), "you named it") for w in found if not self._only_proxy(w)]
        found_apps = [App(w, self.main_container(w), why) for w in usable if (why := self._reason(w))]
        if found_apps or self.proxies:
            return found_apps
        reachable = [w for w in usable if self._is_reached(w)]
        if len(reachable) != 1:
            names = ", ".join(str(w.obj) for w in usable) or "no workload at all"
            raise UnclearError(
                f"expected an app that looks like NiceGUI, found {names}: name yours with --deployment NAME"
            )
        return [App(reachable[0], self.main_container(reachable[0]), "it alone is reached from outside")]

    def _only_proxy(self, workload: Workload) -> bool:
        return all(is_proxy(container) for container in workload.containers)

    def _is_reached(self, workload: Workload) -> bool:
        return any(workload in self.pods_of(entry.service) for entry in self.entries)

    def _reason(self, workload: Workload) -> str:
        if self._only_proxy(workload):
            return ""
        for proxy in self.proxies:
            if workload in self.backends_of(proxy):
                if proxy.workload is workload:
                    return "the proxy is in its pods"
                return f"it is behind {proxy.workload.obj.kind} {proxy.workload.obj.name}"
        container = self.main_container(workload)
        if any(name.startswith("NICEGUI_") for name in container.environment.values):
            return "it has variables of NiceGUI"
        words = [container.image, *container.words, workload.obj.name, *workload.labels.values()]
        serves = container.ports or self.services_of(workload)
        named = any("nicegui" in word.lower() for word in words) and not _OTHERS.search(container.image.lower())
        return "its name, image or command says NiceGUI" if named and serves else ""

    # What leads to what.

    def followed(self, proxy: Proxy) -> list[Obj]:
        """Give the Services whose pods are a proxy's backends."""
        keys: set[Key] = set()
        if proxy.service:
            keys.add((proxy.service.namespace, proxy.service.name))
        for _, address in proxy.addresses:
            if key := proxy.service_of(address.host):
                keys.add(key)
        return [s for s in self.all("Service") if (s.namespace, s.name) in keys]

    def backends_of(self, proxy: Proxy) -> list[Workload]:
        """Give the workloads whose pods a proxy leads to; a sidecar's own among them."""
        found = [w for s in self.followed(proxy) for w in self.pods_of(s)]
        return [*found, proxy.workload] if proxy.sidecar else found

    def proxies_of(self, app: App) -> list[Proxy]:
        """Give the proxies that lead to an app."""
        return [p for p in self.proxies if app.workload in self.backends_of(p)]

    @cached_property
    def entries(self) -> list[Entry]:
        """Give all ways in."""
        found: dict[tuple[str, str, str], Entry] = {}
        for obj, key, port, vendor, rule in self._ways():
            service = self.find("Service", *key)
            if service is not None:
                found.setdefault((str(obj), str(service), port.text), Entry(obj, service, port, vendor, rule))
        return list(found.values())

    def _ways(self) -> Iterator[tuple[Obj, Key, Node, Vendor, Node]]:
        for ingress in self.all("Ingress"):
            vendor = vendor_of(ingress, self.all("IngressClass"), self._vendors)
            for name, port, place in ingress_backends(ingress):
                yield ingress, (ingress.namespace, name), port, vendor, place
        for kind, backends in ROUTES.items():
            for route in self.all(kind):
                for namespace, name, port, rule in backends(route):
                    yield route, (namespace, name), port, self._by_kind.get(kind, UNKNOWN), rule
        for service in self.all("Service"):
            if service.spec["type"].text == "LoadBalancer":
                vendor = self._by_kind.get("Service", UNKNOWN)
                yield service, (service.namespace, service.name), Node(None), vendor, service.spec

    def entries_to(self, workload: Workload, *, proxy: bool) -> list[Entry]:
        """Give the ways in that lead to a workload's proxy container, or to its others."""
        return [
            entry
            for entry in self.entries
            if any(
                t.workload is workload and is_proxy(t.container) is proxy
                for t in self.targets(entry.service, entry.port)
            )
        ]

    @property
    def looked_entries(self) -> list[Entry]:
        """Give the ways in to the apps and to the proxies before them."""
        mine = {id(app.workload) for app in self.apps} | {id(proxy.workload) for proxy in self.fronts}
        return [e for e in self.entries if any(id(w) in mine for w in self.pods_of(e.service))]

    def autoscaler(self, workload: Workload) -> Obj | None:
        """Give the autoscaler of a workload."""
        for scaler in self.all("HorizontalPodAutoscaler"):
            target = scaler.spec["scaleTargetRef"]
            if (scaler.namespace, target["kind"].text, target["name"].text) == (
                workload.obj.namespace,
                workload.obj.kind,
                workload.obj.name,
            ):
                return scaler
        return None

    def replicas(self, workload: Workload) -> int:
        """Give the most replicas that a workload may have."""
        scaler = self.autoscaler(workload)
        if scaler is None:
            return workload.declared
        return max(workload.declared, scaler.spec["maxReplicas"].number or 0)

    @cached_property
    def fronts(self) -> list[Proxy]:
        """Give the proxies to look at: all, or those before the apps that were named and those that were named."""
        if not self._chosen:
            return self.proxies
        return [
            proxy
            for proxy in self.proxies
            if proxy.workload.obj.name in self._chosen
            or any(app.workload in self.backends_of(proxy) for app in self.apps)
        ]


def wanted_config_maps(objects: Iterable[Obj]) -> set[Key]:
    """Give the ConfigMaps that workloads take variables from; no others are ever read."""
    return {(o.namespace, name) for o in objects if o.kind in KINDS for name in config_maps_of(o)}
