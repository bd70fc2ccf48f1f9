"""Tell the pods of a rollout apart: which are of an older generation and will be replaced soon.

A session that loses its pod while a rollout is under way must not go to a pod whose turn is next: it would lose its
state twice. Law: in doubt nobody is outdated.
"""

import re
from collections.abc import Iterable, Mapping

from stickyproxy.core.backends import Backend

_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"  # what Kubernetes makes random names of (apimachinery's util/rand)
_POD_NAME = re.compile(rf"(.+)-({_SAFE}{{1,10}})-{_SAFE}{{5}}\Z")  # DEPLOYMENT-TEMPLATEHASH-RANDOM


def outdated(backends: Iterable[Backend], since: Mapping[str, float]) -> frozenset[str]:
    """Give the identities of pods whose Deployment has pods of a newer template.

    since: when each backend was first seen, by identity. The newest template is the one whose youngest pod came last;
    where two came together (as all do when a proxy has just started), none is newer.
    """
    owners: dict[str, dict[str, list[Backend]]] = {}
    for backend in backends:
        if match := _POD_NAME.match(backend.name):
            owners.setdefault(match[1], {}).setdefault(match[2], []).append(backend)
    old: set[str] = set()
    for templates in owners.values():
        youngest = {name: max(since[b.identity] for b in pods) for name, pods in templates.items()}
        newest = max(youngest.values())
        if list(youngest.values()).count(newest) == 1:
            old.update(b.identity for name, pods in templates.items() if youngest[name] < newest for b in pods)
    return frozenset(old)
