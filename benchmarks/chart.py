"""Draw the medians as one SVG: a panel of bars for each figure, on a scale of its own.

The picture brings its own background, so it reads the same on a light and on a dark page.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from benchmarks.measure import Results
from benchmarks.peers import SUBJECT
from benchmarks.scenarios import Metric

PANELS = (
    "request_cpu_us",
    "large_cpu_us",
    "ws64_cpu_us",
    "ws1_cpu_us",
    "idle_ws_kib",
    "start_rss_mib",
    "start_ready_s",
    "latency_p50_us",
)
"""Which metrics are drawn, if they were measured; the table tells all."""

_COLUMNS = 2
_PANEL_WIDTH = 420
_MARGIN = 24
_NAME_WIDTH = 94
_VALUE_WIDTH = 72
_BAR_HEIGHT = 14
_BAR_STEP = 20
_PANEL_TITLE = 24
_PANEL_GAP = 22
_HEADER = 62
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#3d444d}"
    ".h{font-size:16px;font-weight:600;fill:#1f2328}.t{font-weight:600;fill:#1f2328}.u{font-size:12px;fill:#59636e}"
    ".s{font-weight:600;fill:#0a58ca}.b{fill:#aab4bf}.b.o{fill:#0a58ca}"
)


def draw(results: Results) -> str:
    """Return the SVG of the measured ``PANELS``."""
    names = [name for name, version in results.versions.items() if version is not None]
    metrics = [metric for metric in results.metrics() if metric.key in PANELS]
    panel_height = _PANEL_TITLE + _BAR_STEP * len(names) + _PANEL_GAP
    width = _MARGIN + _COLUMNS * (_PANEL_WIDTH + _MARGIN)
    height = _HEADER + -(-len(metrics) // _COLUMNS) * panel_height + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{SUBJECT} and other proxies: medians, less is better">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff" stroke="#d1d9e0"/>',
        _text(_MARGIN, 30, f"{SUBJECT} beside other proxies: shorter is better", "h"),
        _text(
            _MARGIN, 48, "One core each, cookie stickiness on, same run, medians; every panel has its own scale", "u"
        ),
    ]
    for index, metric in enumerate(metrics):
        row, column = divmod(index, _COLUMNS)
        x = _MARGIN + column * (_PANEL_WIDTH + _MARGIN)
        parts += _panel(results, metric, names, x, _HEADER + row * panel_height)
    return "\n".join([*parts, "</svg>\n"])


def write(path: Path, results: Results) -> None:
    """Write the SVG to a file."""
    path.write_text(draw(results))


def _panel(results: Results, metric: Metric, names: list[str], x: int, y: int) -> list[str]:
    medians = {name: results.median(metric.key, name) for name in names}
    largest = max((median for median in medians.values() if median is not None), default=0.0)
    full = _PANEL_WIDTH - _NAME_WIDTH - _VALUE_WIDTH
    parts = [_text(x, y + 14, metric.label, "t")]
    for index, (name, median) in enumerate(medians.items()):
        top = y + _PANEL_TITLE + index * _BAR_STEP
        baseline = top + _BAR_HEIGHT - 3
        ours = name == SUBJECT
        parts.append(_text(x, baseline, name, "s" if ours else ""))
        if median is None:
            parts.append(_text(x + _NAME_WIDTH, baseline, "not measured", "u"))
            continue
        length = max(1.0, full * max(0.0, median) / largest) if largest > 0 else 1.0
        parts.append(
            f'<rect class="{"b o" if ours else "b"}" x="{x + _NAME_WIDTH}" y="{top}" width="{length:.1f}" '
            f'height="{_BAR_HEIGHT}" rx="2"/>'
        )
        unit = "\u00b5s" if metric.unit == "us" else metric.unit
        value = f"{median:,.{metric.digits}f} {unit}"
        parts.append(_text(x + _NAME_WIDTH + length + 6, baseline, value, "s" if ours else ""))
    return parts


def _text(x: float, y: float, text: str, style: str) -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{escape(text)}</text>'
