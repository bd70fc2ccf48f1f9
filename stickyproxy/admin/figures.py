"""What the JSON API and the dashboard say of the proxy, as plain JSON values.

Law: every figure is read from the very counters that /metrics reads, so that the two can never differ.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from stickyproxy import __version__
from stickyproxy.core.backends import Backend
from stickyproxy.core.events import Event, Kind
from stickyproxy.core.status import BackendStatus, Status

Figures: TypeAlias = dict[str, Any]
"""A JSON object, whose fields docs/api.md names."""

API_VERSION = 1

RECENT_S = 600.0
"""The time that `recent` tells of."""


def backend_figures(backends: Iterable[BackendStatus], pages: Mapping[str, int]) -> list[Figures]:
    """Tell of the listed backends; `pages` are open ones by identity."""
    return [
        {
            "name": b.name, "identity": b.identity, "address": b.address, "phase": b.phase.value,
            "drained": b.ordered, "ejected": b.ejected, "trouble": b.trouble,
            "pages": pages.get(b.identity, 0), "tunnels": b.tunnels,
        }
        for b in backends
    ]  # fmt: skip


def gone_figures(gone: Iterable[tuple[Backend, float]]) -> list[Figures]:
    """Tell of the backends that were listed until some minutes ago; `at`: when each ceased to be, in unix seconds."""
    return [{"name": str(b), "identity": b.identity, "address": str(b.address), "at": at} for b, at in gone]


def status_figures(status: Status, pages: Mapping[str, int]) -> Figures:
    """Tell of the whole proxy at one moment."""
    discovery, counters = status.discovery, status.counters
    return {
        "api": API_VERSION,
        "version": __version__,
        "ready": status.readiness.ready,
        "readiness": status.readiness.text,
        "app": status.app,
        "discovery": {
            "source": discovery.source, "healthy": not discovery.problem, "reason": discovery.reason,
            "problem": discovery.problem,
        },
        "workers": {"wanted": status.workers, "serving": status.serving, "restarts": status.restarts},
        "totals": {
            "pages": sum(pages.values()),
            "tunnels": status.tunnels,
            "requests": sum(counters.responses),
            "open_connections": counters.open_connections,
            "pins": {"new": counters.new, "kept": counters.kept, "moved": sum(counters.moved.values())},
            "moves": dict(counters.moved),
            "faults": dict(counters.faults),
        },
        "backends": backend_figures(status.backends, pages),
    }  # fmt: skip


def event_figures(event: Event) -> Figures:
    """Tell of one event."""
    return {
        "seq": event.seq, "at": event.at, "kind": event.kind.value, "text": event.text, "backend": event.backend,
        "to": event.to, "cause": event.cause, "count": event.count, "pages": event.pages,
    }  # fmt: skip


def recent_figures(events: Sequence[Event], figures: Figures, before: Figures | None, now: float) -> Figures:
    """Tell of the last ten minutes, or of the time since the first sample (`before`: its totals, None: there is none).

    went: backends that ceased to be listed or to be reachable, each once. pages_moved: pages that opened their socket
    on another backend than before.
    """
    since = now - RECENT_S
    late = [e for e in events if e.at >= since]
    gone = [e.backend for e in late if e.kind is Kind.UNREACHABLE or (e.kind is Kind.PHASE and e.cause == "gone")]
    return {
        "seconds": RECENT_S,
        "went": list(dict.fromkeys(gone)),
        "pages_moved": sum(e.pages for e in late if e.kind is Kind.MOVED),
        "pages_lost": sum(e.count for e in late if e.kind is Kind.LOST),
    }
