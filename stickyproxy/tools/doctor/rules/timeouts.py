"""Rules about what a way in does to a socket that is open."""

from collections.abc import Iterator

from stickyproxy.tools.doctor.entries import Limit, LimitKind
from stickyproxy.tools.doctor.findings import Fault, Rule, Severity
from stickyproxy.tools.doctor.scene import Scene
from stickyproxy.tools.doctor.vendors.common import SHORTEST_IDLE_S, SHORTEST_LIFE_S


def _limits(scene: Scene, kind: LimitKind) -> Iterator[Limit]:
    for entry in scene.looked_entries:
        for limit in entry.vendor.limits(scene, entry):
            if limit.kind == kind:
                yield limit


def idle_timeout(scene: Scene) -> Iterator[Fault]:
    """Find time-outs for silence that are too near to NiceGUI's heartbeat."""
    for limit in _limits(scene, "idle"):
        if 0 < limit.seconds < SHORTEST_IDLE_S:
            yield Fault(
                limit.where,
                limit.field,
                f"{limit.why}. NiceGUI sends something every 4 s, later when the app is busy (and every 0.8 x "
                "reconnect_timeout where that is longer), so sockets are cut that are alive",
                f"allow at least {SHORTEST_IDLE_S:g} s",
                limit.patch,
            )


def socket_lifetime(scene: Scene) -> Iterator[Fault]:
    """Find time-outs that end a socket however busy it is."""
    for limit in _limits(scene, "life"):
        if 0 < limit.seconds < SHORTEST_LIFE_S:
            yield Fault(
                limit.where,
                limit.field,
                f"{limit.why}. Every page loses its connection and shows it as often as that",
                f"allow at least {SHORTEST_LIFE_S / 3600:g} h, or switch it off",
                limit.patch,
            )


def buffering(scene: Scene) -> Iterator[Fault]:
    """Find ways in that collect bytes before they pass them on."""
    for limit in _limits(scene, "buffering"):
        yield Fault(
            limit.where,
            limit.field,
            f"{limit.why}: streamed answers come late, and large uploads fill its memory or disk",
            "switch the buffering off for this app",
            limit.patch,
        )


def no_upgrade(scene: Scene) -> Iterator[Fault]:
    """Find ways in that let no WebSocket through."""
    for limit in _limits(scene, "upgrade"):
        yield Fault(
            limit.where,
            limit.field,
            f"{limit.why}. NiceGUI falls back to polling, whose every request is balanced again",
            "let Upgrade through",
            limit.patch,
        )


RULES = (
    Rule("no-upgrade", Severity.ERROR, "WebSockets do not get through", no_upgrade),
    Rule("idle-timeout", Severity.ERROR, "a time-out for silence near NiceGUI's heartbeat", idle_timeout),
    Rule("socket-lifetime", Severity.WARNING, "sockets are cut after a fixed time", socket_lifetime),
    Rule("buffering", Severity.WARNING, "requests or answers are collected before they pass", buffering),
)
