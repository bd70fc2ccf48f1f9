"""A bar on standard error, for people who wait; nothing where standard error is no terminal."""

import shutil
import sys
from typing import Final, TextIO

WIDTH: Final = 24


class Bar:
    """Shows how much is done, on one line that is written over."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()

    def __call__(self, done: float, text: str) -> None:
        """Show a part from 0 to 1 and what is being done; at 1 the line goes away."""
        if not self._shown:
            return
        if done >= 1:
            self.clear()
            return
        full = round(done * WIDTH)
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {text}"
        room = shutil.get_terminal_size((80, 24)).columns - 1
        self._stream.write(f"\r\x1b[K{line[:room]}")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
