"""One worker process after another in one place: what becomes of it, and when the next is started.

Laws: every transition stands in `TABLE`, and what it does not name changes nothing; a worker that is merely busy is
never killed, since what counts as silence is ten times the heartbeat.
"""

from collections.abc import Mapping
from enum import Enum

BEAT_S = 1.0
"""Seconds between two heartbeats, which a worker's event loop sends."""

SILENT_S = 10.0
"""Seconds without a word after which a worker counts as hung: no request keeps an event loop for a tenth of that."""

COVER_S = 2.5
"""Seconds without a word after which another worker accepts in its place too, until it speaks again."""

START_S = 60.0
"""Seconds that a worker may take to its first word: on a crowded machine, with cold disks."""

SOON_S = 1.0
"""A worker that ends before it serves, or within so many seconds of that, has died at once: what is wrong with a
program or its settings shows at the start, and what kills a worker now and then must not leave fewer of them."""

BACKOFF_FIRST_S, BACKOFF_LONGEST_S = 0.1, 10.0


def backoff_s(deaths: int) -> float:
    """Give the seconds to wait before a new start after so many workers in a row that died at once; 0 for the first."""
    if deaths < 2:
        return 0.0
    return min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(deaths - 2, 30))


class State(Enum):
    """What stands in a worker's place."""

    WAITING = "waiting"  # nobody; the next one is started when its time has come
    STARTING = "starting"
    SERVING = "serving"
    KILLED = "killed"  # SIGKILL is sent
    LEAVING = "leaving"  # it drains
    ENDED = "ended"


class Event(Enum):
    """What happens to it."""

    TIME = "its time has come"
    SERVES = "it says that it serves"
    SILENCE = "no word for too long"
    DEATH = "its process ends"
    LEAVE = "the proxy leaves"
    CLOSE = "the proxy ends at once"


class Effect(Enum):
    """What a transition asks of the caller."""

    NOTHING = "-"
    LAUNCH = "start a process"
    SERVE = "it accepts on its own socket again"
    KILL = "kill it"
    REPLACE = "others accept on its socket; start another, later if this happens again and again"
    DRAIN = "let it drain"
    DROP = "close its control socket, which ends it"


TABLE: Mapping[tuple[State, Event], tuple[State, Effect]] = {
    (State.WAITING, Event.TIME): (State.STARTING, Effect.LAUNCH),
    (State.WAITING, Event.LEAVE): (State.ENDED, Effect.NOTHING),
    (State.WAITING, Event.CLOSE): (State.ENDED, Effect.NOTHING),
    (State.STARTING, Event.SERVES): (State.SERVING, Effect.SERVE),
    (State.STARTING, Event.SILENCE): (State.KILLED, Effect.KILL),
    (State.STARTING, Event.DEATH): (State.WAITING, Effect.REPLACE),
    (State.STARTING, Event.LEAVE): (State.LEAVING, Effect.DROP),
    (State.STARTING, Event.CLOSE): (State.LEAVING, Effect.DROP),
    (State.SERVING, Event.SILENCE): (State.KILLED, Effect.KILL),
    (State.SERVING, Event.DEATH): (State.WAITING, Effect.REPLACE),
    (State.SERVING, Event.LEAVE): (State.LEAVING, Effect.DRAIN),
    (State.SERVING, Event.CLOSE): (State.LEAVING, Effect.DROP),
    (State.KILLED, Event.DEATH): (State.WAITING, Effect.REPLACE),
    (State.KILLED, Event.LEAVE): (State.LEAVING, Effect.NOTHING),
    (State.KILLED, Event.CLOSE): (State.LEAVING, Effect.NOTHING),
    (State.LEAVING, Event.SILENCE): (State.LEAVING, Effect.KILL),
    (State.LEAVING, Event.CLOSE): (State.LEAVING, Effect.DROP),
    (State.LEAVING, Event.DEATH): (State.ENDED, Effect.NOTHING),
}
"""While the delay before the proxy stops accepting runs, the proxy has not left yet: who dies then is replaced."""
