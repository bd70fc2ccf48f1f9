"""Hold stickyproxy to its bars: the figures it promises, most of them as ratios to a peer in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from benchmarks.measure import Results
from benchmarks.peers import SUBJECT


class Verdict(Enum):
    """What became of a bar."""

    HELD = "held"
    MISSED = "MISSED"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit for a metric: a ratio to ``peer`` or, without one, a value in the metric's unit."""

    metric: str
    peer: str | None
    limit: float
    below: bool = False
    """The figure must stay below the limit; reaching it is a miss."""

    def judge(self, results: Results) -> tuple[Verdict, float | None]:
        """Compare, and return the figure that was compared."""
        figure = results.median(self.metric, SUBJECT) if self.peer is None else results.ratio(self.metric, self.peer)
        if figure is None:
            return Verdict.NOT_MEASURED, None
        held = figure < self.limit if self.below else figure <= self.limit
        return (Verdict.HELD if held else Verdict.MISSED), figure

    def __str__(self) -> str:
        against = "" if self.peer is None else f" x {self.peer}"
        return f"{self.metric} {'<' if self.below else '<='} {self.limit:g}{against}"


BARS = (
    Bar("request_cpu_us", "haproxy", 1.4),
    *(Bar("request_cpu_us", peer, 1.0, below=True) for peer in ("nginx", "envoy", "traefik", "caddy")),
    Bar("large_cpu_us", "haproxy", 1.1),
    Bar("ws64_cpu_us", "haproxy", 1.1),
    Bar("idle_ws_kib", "haproxy", 1.0),
    Bar("start_rss_mib", None, 40.0),
    Bar("start_ready_s", None, 0.5),
)
