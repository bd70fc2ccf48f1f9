"""Write lines to a file descriptor in a thread, so that the event loop never waits for whoever reads them.

Laws: lines are whole and in order; what waits is bounded, beyond that lines are dropped and counted; a descriptor that
takes nothing holds nobody up, not even at the end.
"""

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable

MOST_LINES = 10_000
"""Lines that may wait: some seconds' worth of a busy proxy, 3 MB."""

PIECE_BYTES = 4096
"""Bytes of whole lines written at once: so many a pipe takes as one, whoever else writes (PIPE_BUF, pipe(7))."""

CLOSE_S = 1.0
"""Seconds for the last lines at the end."""


class LogWriter:
    """Takes lines until closed; `dropped` is called for each that finds no place."""

    def __init__(self, descriptor: int, dropped: Callable[[], None], *, most_lines: int = MOST_LINES) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._most_lines = most_lines
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._broken = False
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Take a line, its end included; never waits."""
        if self._broken or len(self._lines) >= self._most_lines:
            self._dropped()
            return
        self._lines.append(line)
        if self._thread is None:  # with the first line: a proxy that forks or daemonises before has no thread to lose
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits, for `CLOSE_S` at the most; idempotent."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        lines = self._lines
        while True:
            self._wake.wait()
            self._wake.clear()  # before looking: a line that comes now sets it again
            while lines and not self._broken:
                piece = lines.popleft()
                while lines and len(piece) + len(lines[0]) <= PIECE_BYTES:
                    piece += lines.popleft()
                self._put(piece)
            if self._closing:
                return

    def _put(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody else has made it so
                select.select((), (self._descriptor,), (), 1.0)
            except OSError as error:
                self._broken = True
                logging.getLogger("stickyproxy").error(
                    "the access log cannot be written to standard output: %s; it is off from now on", error.strerror
                )
                self._lines.clear()
                return
