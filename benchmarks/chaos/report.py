"""What a scenario measured, held against its bar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One figure; `held` is None where no bar is set for it."""

    name: str
    value: str
    bar: str = ""
    held: bool | None = None


@dataclass
class Outcome:
    """The figures of one scenario, and what went wrong in words."""

    scenario: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def bar(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """Add a figure that must not be above a limit."""
        self.figures.append(Figure(name, f"{value:g}{unit}", f"<= {limit:g}{unit}", value <= limit + 1e-9))

    def exact(self, name: str, value: float, wanted: float) -> None:
        """Add a figure that must be this one."""
        self.figures.append(Figure(name, f"{value:g}", f"= {wanted:g}", value == wanted))

    def figure(self, name: str, value: float | str) -> None:
        """Add a figure without a bar."""
        self.figures.append(Figure(name, value if isinstance(value, str) else f"{value:g}"))

    @property
    def held(self) -> bool:
        """Say whether every bar was held."""
        return all(figure.held is not False for figure in self.figures)

    def missed(self) -> list[str]:
        """Name what was missed."""
        return [f"{f.name}: {f.value}, bar {f.bar}" for f in self.figures if f.held is False]

    def line(self) -> str:
        """Give one line for the table of all scenarios."""
        figures = ", ".join(
            f"{f.name} {f.value}" + (f" (bar {f.bar}{'' if f.held else ', MISSED'})" if f.bar else "")
            for f in self.figures
        )
        return f"| {self.scenario} | {'held' if self.held else 'MISSED'} | {figures} |"


HEAD = "| scenario | bar | figures |\n|---|---|---|"


def summary(texts: list[str], limit: int = 5) -> str:
    """Give the most frequent of many texts."""
    return "; ".join(f"{count}x {text}" for text, count in Counter(texts).most_common(limit))
