"""A thread that notices when the event loop stands still, and logs where.

Laws: it touches nothing of the loop's but `call_soon_threadsafe`; time in which this whole process did not run (a
stopped container) is no stall, as far as that can be told; one stack a minute at most, whatever happens, but every
stall is counted. Where something holds the interpreter itself (a C function that does not let go), it speaks only when
that is over: the stack is then of the next moment.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic

LOG_EVERY_S = 60.0
"""Between two stacks in the log."""

FRAMES = 20
"""Innermost frames that are logged; above them stands how the loop was started."""

_SLICES = 4
"""Waits that make up one: a process that was stopped finds that one of them is over, and not all of them."""


class Watchdog:
    """Watches the event loop of the thread in which it is made, from `start` to `close`.

    after_s: a loop that has not turned for so long stalls; one that did so for a half more is always noticed.
    stalled: called by the loop itself for each stall, when it turns again.
    """

    def __init__(
        self,
        after_s: float,
        stalled: Callable[[], None],
        log: logging.Logger,
        *,
        log_every_s: float = LOG_EVERY_S,
    ) -> None:
        self._after_s = after_s
        self._stalled = stalled
        self._log = log
        self._log_every_s = log_every_s
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._closed = threading.Event()
        self._turned = threading.Event()
        self._logged_at: float | None = None
        self._unsaid = 0
        self._thread = threading.Thread(target=self._run, name="stickyproxy-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; idempotent. Returns when the thread has ended."""
        self._closed.set()
        self._turned.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._turned.clear()
            asked = monotonic()
            if not self._ask(self._turned.set):
                return
            if self._closed.is_set():  # closed between the first look and the clearing
                return
            if not any(self._turned.wait(self._after_s / _SLICES) for _ in range(_SLICES)):
                self._note()
                self._turned.wait()
                if not self._closed.is_set():
                    self._ask(self._stalled)
                    self._log.warning("the event loop turns again, after %.1f s", monotonic() - asked)
            self._closed.wait(self._after_s / 2)

    def _ask(self, call: Callable[[], None]) -> bool:
        """Have the loop call something when it turns next; say whether there is still a loop."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # it is closed: so say both asyncio and uvloop
            return False
        return True

    def _note(self) -> None:
        """Log where the loop stands, unless that was done not long ago."""
        now = monotonic()
        if self._logged_at is not None and now - self._logged_at < self._log_every_s:
            self._unsaid += 1
            return
        frame = sys._current_frames().get(self._watched)
        where = "".join(traceback.format_stack(frame, FRAMES)) if frame is not None else "its thread has ended\n"
        more = f" ({self._unsaid} more since the last stack)" if self._unsaid else ""
        self._log.warning(
            "the event loop has not turned for %g s: every connection waits%s. It stands here:\n%s",
            self._after_s, more, where.rstrip(),
        )  # fmt: skip
        self._logged_at, self._unsaid = now, 0
