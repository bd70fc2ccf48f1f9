"""The Autobahn test suite, direct and through the proxy: `python -m tests.autobahn`."""

import sys
from pathlib import Path

# As `tests.autobahn` this package stands in a folder that is not on the path, as pytest puts it.
sys.path.append(str(Path(__file__).parents[1]))
