"""Draw what a long run measured as one SVG: a panel for each series over the same time.

The picture brings its own background, so it reads the same on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _PANEL, _MARGIN, _LABELS, _HEADER, _FOOTER = 900, 120, 24, 64, 66, 34
_COLOURS = ("#0a58ca", "#d4660f")
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#59636e}"
    ".h{font-size:16px;font-weight:600;fill:#1f2328}.t{font-weight:600;fill:#1f2328}"
    "path{fill:none;stroke-width:1.4;stroke-linejoin:round}line{stroke:#d1d9e0}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: lines by name, all of one unit; `said` stands beside its title."""

    title: str
    said: str
    lines: dict[str, Sequence[float]]
    digits: int = 0


def draw(title: str, said: str, times_s: Sequence[float], panels: Sequence[Panel], warm_s: float) -> str:
    """Return the SVG; what lies before `warm_s` is shaded, as it was not judged."""
    height = _HEADER + len(panels) * _PANEL + _FOOTER
    left, right = _MARGIN + _LABELS, _WIDTH - _MARGIN
    longest = max(times_s[-1], 1e-9)

    def across(time_s: float) -> float:
        return left + (right - left) * min(1.0, time_s / longest)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" rx="10" fill="#ffffff" stroke="#d1d9e0"/>',
        f'<text x="{_MARGIN}" y="30" class="h">{escape(title)}</text>',
        f'<text x="{_MARGIN}" y="50">{escape(said)}</text>',
    ]
    for index, panel in enumerate(panels):
        top, bottom = _HEADER + index * _PANEL + 22, _HEADER + (index + 1) * _PANEL - 12
        highest = max((max(values) for values in panel.lines.values()), default=0.0) or 1.0
        parts += [
            f'<rect x="{left}" y="{top}" width="{across(warm_s) - left:.1f}" height="{bottom - top}" fill="#f3f5f7"/>',
            f'<text x="{_MARGIN}" y="{top - 7}"><tspan class="t">{escape(panel.title)}</tspan> '
            f"{escape(panel.said)}</text>",
        ]
        for share in (0.0, 0.5, 1.0):
            y = bottom - (bottom - top) * share
            parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{highest * share:,.{panel.digits}f}</text>'
            )
        for colour, (name, values) in zip(_COLOURS, panel.lines.items(), strict=False):
            points = " L".join(
                f"{across(t):.1f},{bottom - (bottom - top) * value / highest:.1f}"
                for t, value in zip(times_s, values, strict=True)
            )
            parts.append(f'<path d="M{points}" stroke="{colour}"><title>{escape(name)}</title></path>')
        if len(panel.lines) > 1:
            legend = "".join(
                f'<tspan fill="{colour}" dx="12">{escape(name)}</tspan>'
                for colour, name in zip(_COLOURS, panel.lines, strict=False)
            )
            parts.append(f'<text x="{right - 12}" y="{top - 7}" text-anchor="end">{legend}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, minutes = across(longest * share), longest * share / 60
        anchor = "end" if share == 1.0 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{height - 14}" text-anchor="{anchor}">{minutes:.3g} min</text>')
    return "\n".join([*parts, "</svg>\n"])
