"""Coverage-guided fuzzing of what reads bytes from strangers: `python -m tests.fuzz --seconds 600` (make fuzz)."""

import sys
from pathlib import Path

# As `tests.fuzz` this package stands in a folder that is not on the path, as pytest puts it.
sys.path.append(str(Path(__file__).parents[1]))
