"""The proxy's event log: takes what its parts have seen, numbers and keeps it, logs it, and tells who listens.

Laws: what several workers tell within a second is added up; whoever listens must not fail or wait, and is told in the
order of the events' numbers.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable

from stickyproxy.core.events import Event, Gathering, Happening, Kind, Ring

GATHER_S = 1.0
"""Seconds that workers' happenings are gathered: each worker tells once a second, and not all at the same moment."""

_LEVELS = {
    Kind.CUT: logging.WARNING,
    Kind.UNREACHABLE: logging.WARNING,
    Kind.EJECTED: logging.WARNING,
    Kind.LOST: logging.WARNING,
    Kind.RELOAD_LOOP: logging.WARNING,
    Kind.LET_GO: logging.WARNING,
}

Listener = Callable[[Event], None]


class Journal:
    """Keeps the last events of one run of the proxy, which `boot` tells from every other."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.boot = secrets.token_hex(4)
        self._clock = clock
        self._ring = Ring()
        self._log = logging.getLogger("stickyproxy.events")
        self._listeners: set[Listener] = set()
        self._gathering = Gathering()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def last(self) -> int:
        """Give the number of the last event; 0 where there was none."""
        return self._ring.last

    def after(self, seq: int) -> list[Event]:
        """Give the kept events with a higher number, oldest first."""
        return self._ring.after(seq)

    def note(self, happenings: Iterable[Happening]) -> None:
        """Take in what has just happened."""
        for happening in happenings:
            event = self._ring.add(happening, self._clock())
            level = _LEVELS.get(event.kind, logging.INFO)
            self._log.log(level, "%s: %s", event.kind.value, event.text, extra={"event": event})
            for listener in tuple(self._listeners):
                listener(event)

    def gather(self, happenings: Iterable[Happening]) -> None:
        """Take in what one of several workers has seen; others may tell the same within a second."""
        for happening in happenings:
            self._gathering.add(happening)
        if self._timer is None and self._gathering:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        self.note(self._gathering.take())

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell somebody of every event from now on; call what is returned to end that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def close(self) -> None:
        """Note what is gathered; the last thing to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
