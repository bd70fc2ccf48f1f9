"""Inputs that fuzzing has found worth keeping, a line of hexadecimal digits each, in `seeds/TARGET.txt`."""

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "seeds"

MOST = 150
"""Inputs kept for each target, the shortest ones, of up to `LONGEST_BYTES`."""

LONGEST_BYTES = 400


def kept(name: str) -> list[bytes]:
    """Read what is kept for a target."""
    path = FOLDER / f"{name}.txt"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Write the shortest of these; give their count."""
    chosen = sorted({i for i in inputs if 0 < len(i) <= LONGEST_BYTES}, key=lambda i: (len(i), i))[:MOST]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{one.hex()}\n" for one in chosen))
    return len(chosen)
