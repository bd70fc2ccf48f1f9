"""Draw the state machines of the code for ARCHITECTURE.md: `python tests/unit/diagrams.py` writes them anew.

Laws: what is drawn is the table that runs; `test_diagrams.py` fails where the document shows another one.
"""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from stickyproxy.core import ejection, ending, workers

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"

Table = Mapping[tuple[Enum, Enum], tuple[Enum, Enum]]

MACHINES: Mapping[str, Table] = {"ejection": ejection.TABLE, "ending": ending.TABLE, "workers": workers.TABLE}
"""By the name that stands in the document's markers."""


def render(table: Table) -> str:
    """Render a table of transitions as a table and a diagram; lines between two states are drawn once."""
    rows = ["| state | event | next state | effect |", "|---|---|---|---|"]
    rows += [f"| `{s.value}` | {e.value} | `{n.value}` | {x.value} |" for (s, e), (n, x) in table.items()]
    lines: dict[tuple[str, str], list[str]] = {}
    for (state, event), (following, _) in table.items():
        lines.setdefault((state.value, following.value), []).append(str(event.value))
    first = next(iter(table))[0].value
    drawn = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    drawn += [f"    {state} --> {following}: {'; '.join(said)}" for (state, following), said in lines.items()]
    return "\n".join([*rows, "", *(line.replace("; ", " / ") for line in drawn), "```"])


def marked(name: str) -> re.Pattern[str]:
    """Find what stands between a machine's markers."""
    return re.compile(rf"(<!-- machine: {name} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


if __name__ == "__main__":
    text = ARCHITECTURE.read_text("utf-8")
    for name, table in MACHINES.items():
        drawn = render(table)
        text, found = marked(name).subn(lambda m, drawn=drawn: m[1] + drawn + m[3], text)
        assert found == 1, f"expected one pair of markers for {name}, found {found}"
    ARCHITECTURE.write_text(text, "utf-8")
