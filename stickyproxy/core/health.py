"""Whether this proxy should get traffic: one answer for the admin port and for probes on the main port."""

from typing import NamedTuple

from stickyproxy.core.backends import Snapshot


class Readiness(NamedTuple):
    """`text` is one line for a person; it names no address, so that it can be shown on the main port."""

    ready: bool
    text: str


def readiness(snapshot: Snapshot, *, synced: bool, draining: bool, needs_backend: bool, missing: str = "") -> Readiness:
    """Decide readiness: discovery has synced once and the proxy is not draining; backends count only if so wished.

    missing: what else must be there and is not, without any address; empty where nothing is missing.
    """
    usable = len(snapshot.ready) + len(snapshot.draining)
    counts = f"{usable} of {len(snapshot.backends)} backends usable"
    if draining:
        return Readiness(False, f"not ready: draining, {counts}")
    if missing:
        return Readiness(False, f"not ready: {missing}")
    if not synced:
        return Readiness(False, "not ready: no backend list yet, waiting for discovery")
    if needs_backend and not usable:
        return Readiness(False, f"not ready: {counts}")
    return Readiness(True, f"ready: {counts}")
