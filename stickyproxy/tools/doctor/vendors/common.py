"""What vendors share: how long a socket must be let alone, and tables of annotations that hold times.

The numbers are NiceGUI's: with the default `reconnect_timeout` of 3 s the server pings every 4 s and waits 2 s for the
answer (nicegui.py: `ping_interval`, `ping_timeout`), so a socket is never silent for longer than that.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stickyproxy.tools.doctor.entries import Limit
from stickyproxy.tools.doctor.findings import annotate
from stickyproxy.tools.doctor.objects import Obj, parse_time

SHORTEST_IDLE_S = 15.0
"""Below this an idle time-out may cut a socket that is alive: a ping every 4 s, with room for a busy app."""

SHORTEST_LIFE_S = 3600.0
"""Below this a time-out that counts from the socket's beginning is felt: each page reconnects so often."""


class Times(NamedTuple):
    """An annotation that holds an idle time-out.

    plain: seconds of a bare number's 1. good: what to write instead.
    """

    key: str
    what: str
    plain: float = 1.0
    good: str = "3600"


def idle_limits(obj: Obj, table: Sequence[Times]) -> Iterator[Limit]:
    """Give the idle time-outs that an object's annotations say."""
    for times in table:
        node = obj.annotation(times.key)
        seconds = parse_time(node.text, plain=times.plain) if node else None
        if seconds is not None:
            why = f"{times.what} of {seconds:g} s"
            yield Limit("idle", obj, node.path, why, seconds, annotate(obj, {times.key: times.good}))


def is_true(text: str) -> bool:
    """Read an annotation that is true or false."""
    return text.strip().lower() in ("true", "yes", "on", "1", "enabled")
