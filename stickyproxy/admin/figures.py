"""What the JSON API and the dashboard say of the proxy, as plain JSON values.

Law: every figure is read from the very counters that /metrics reads, so that the two can never differ.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from stickyproxy import __version__
from stickyproxy.core.backends import Backend
from stickyproxy.core.events import Event, Kind
from stickyproxy.core.histogram import BUCKETS_S
from stickyproxy.core.status import BackendStatus, Status

Figures: TypeAlias = dict[str, Any]
"""A JSON object, whose fields docs/api.md names."""

API_VERSION = 1

RECENT_S = 600.0
"""The time that `recent` tells of."""


def backend_figures(backends: Iterable[BackendStatus]) -> list[Figures]:
    """Tell of the listed backends."""
    return [
        {
            "name": b.name, "identity": b.identity, "address": b.address, "phase": b.phase.value,
            "drained": b.ordered, "ejected": b.ejected, "trouble": b.trouble,
            "pages": b.pages, "parked": b.parked, "tunnels": b.tunnels, "requests": b.requests, "moved_to": b.moved_to,
        }
        for b in backends
    ]  # fmt: skip


def gone_figures(gone: Iterable[tuple[Backend, float]]) -> list[Figures]:
    """Tell of the backends that were listed until some minutes ago; `at`: when each ceased to be, in unix seconds."""
    return [{"name": str(b), "identity": b.identity, "address": str(b.address), "at": at} for b, at in gone]


def status_figures(status: Status) -> Figures:
    """Tell of the whole proxy at one moment, from a thorough status."""
    discovery, counters, gauges = status.discovery, status.counters, status.gauges
    _, whole = counters.durations
    return {
        "api": API_VERSION,
        "version": __version__,
        "ready": status.readiness.ready,
        "readiness": status.readiness.text,
        "app": status.app,
        "discovery": {
            "source": discovery.source, "healthy": not discovery.problem, "synced": discovery.synced,
            "age_s": round(discovery.age_s, 1), "errors": discovery.errors,
            "reason": discovery.reason, "problem": discovery.problem,
        },
        "park_s": gauges.park_s,
        "workers": {"wanted": status.workers, "serving": status.serving, "restarts": status.restarts},
        "totals": {
            "pages": sum(b.pages for b in status.backends),
            "tunnels": status.tunnels,
            "open_connections": counters.open_connections,
            "requests": sum(counters.responses),
            "pins": {"new": counters.new, "kept": counters.kept, "moved": sum(counters.moved.values())},
            "moves": dict(counters.moved),
            "closed": dict(counters.tunnel_ends),
            "reconnects": {
                "same": sum(n for (same, _), n in counters.reconnects.items() if same),
                "other": sum(n for (same, _), n in counters.reconnects.items() if not same),
            },
            "away": gauges.away,
            "lost": dict(counters.lost),
            "parked": gauges.parked,
            "parked_bytes": gauges.parked_bytes,
            "parked_ever": counters.parked,
            "parked_returned": dict(counters.parked_returns),
            "parked_released": dict(counters.parked_releases),
            "parked_reopened": dict(counters.parked_reopened),
            "faults": dict(counters.faults),
            "seconds": {"bounds": list(BUCKETS_S), "counts": list(whole.counts)},
        },
        "backends": backend_figures(status.backends),
    }  # fmt: skip


def event_figures(event: Event) -> Figures:
    """Tell of one event."""
    return {
        "seq": event.seq, "at": event.at, "kind": event.kind.value, "text": event.text, "backend": event.backend,
        "to": event.to, "cause": event.cause, "count": event.count, "pages": event.pages,
    }  # fmt: skip


def recent_figures(events: Sequence[Event], totals: Figures, before: Figures, now: float) -> Figures:
    """Tell of the last ten minutes, or of the time since the start; `before`: the totals at its beginning.

    went: backends that ceased to be listed or to be reachable, each once. pages_moved: pages that lost their socket and
    came back to another backend. pages_away: those that have just lost it, and may come back. pages_returned: those
    that were parked, and whose browsers came back.
    """
    late = [e for e in events if e.at >= now - RECENT_S]
    gone = [e.backend for e in late if e.kind is Kind.UNREACHABLE or (e.kind is Kind.PHASE and e.cause == "gone")]
    return {
        "seconds": RECENT_S,
        "went": list(dict.fromkeys(gone)),
        "pages_moved": totals["reconnects"]["other"] - before["reconnects"]["other"],
        "pages_kept": totals["reconnects"]["same"] - before["reconnects"]["same"],
        "pages_lost": sum(totals["lost"].values()) - sum(before["lost"].values()),
        "pages_away": totals["away"],
        "pages_returned": sum(totals["parked_returned"].values()) - sum(before["parked_returned"].values()),
    }
