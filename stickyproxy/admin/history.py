"""The last ten minutes in samples, so that who opens the dashboard after something has happened still sees it.

Law: it costs one look at the counters every few seconds and bounded memory, however many backends or listeners.
"""

from collections import deque
from dataclasses import dataclass

from stickyproxy.admin.figures import RECENT_S, Figures

SAMPLE_S = 5.0
"""Seconds between two samples."""

MOST_BACKENDS = 12
"""Backends whose pages a sample tells apart: those with the most; a chart of more lines shows none of them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted at one moment (`at`, unix seconds): the totals, and the open pages of backends by name."""

    at: float
    totals: Figures
    pages: dict[str, int]


class History:
    """The samples of the last ten minutes."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=round(RECENT_S / SAMPLE_S) + 1)

    def add(self, figures: Figures) -> None:
        """Take a sample from the figures of a moment."""
        pages = [(b["name"], b["pages"]) for b in figures["backends"]]
        most = sorted(pages, key=lambda pair: -pair[1])[:MOST_BACKENDS]
        self._samples.append(Sample(figures["at"], figures["totals"], dict(most)))

    def since(self, oldest: float) -> Sample | None:
        """Give the first sample that is not older than a moment; None where there is none."""
        return next((s for s in self._samples if s.at >= oldest), None)

    def figures(self) -> list[Figures]:
        """Give all samples, oldest first."""
        return [{"at": s.at, "totals": s.totals, "pages": s.pages} for s in self._samples]
