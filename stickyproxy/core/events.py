"""What happened, for people and machines that look later: phases, moves, drains, losses, as a bounded list of events.

Laws: what is alike within a second is one event with a count, wherever it happened; numbers of events only grow; an
event names backends and never a client, a page or a path.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from stickyproxy.core.backends import Backend, Phase

KEPT_EVENTS = 500
"""Events that are kept: some hours of an ordinary day, a quarter of an hour of a bad one."""


class Kind(Enum):
    """What an event is about."""

    START = "start"  # the proxy serves
    STOP = "stop"  # it begins to leave
    PHASE = "phase"  # discovery says something else of a backend, or lists it no more
    DRAIN = "drain"  # somebody ordered a backend to drain
    UNDRAIN = "undrain"
    DISCOVERY = "discovery"  # the source of backends fails, fails differently, or works again
    CUT = "cut"  # a backend ended open tunnels
    UNREACHABLE = "unreachable"  # a backend does not accept connections
    REACHABLE = "reachable"
    EJECTED = "ejected"  # a backend that fails gets no new sessions for a while
    RETURNED = "returned"
    MOVED = "moved"  # pins went from one backend to another
    LOST = "lost"  # pages whose socket ended and of which nothing came back
    RELOAD_LOOP = "reload-loop"  # a visitor's page reloads again and again and was told so
    LET_GO = "let-go"  # parked pages are given up, since too many are or too much is kept for them
    WORKER = "worker"  # a worker process ended or was killed


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a part of the proxy has seen; alike are those that differ in `count` and `pages` alone.

    backend: whom it is about, by name; of a move, whom it led away from (empty: one that is not known any more). to:
    where a move led. cause: of a move, a loss or a failure, one word. detail: what the text says beside that. count:
    how often. pages: of moves, those of open pages.
    """

    kind: Kind
    backend: str = ""
    to: str = ""
    cause: str = ""
    detail: str = ""
    count: int = 1
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A happening with its number and its time (unix seconds), and in words."""

    seq: int
    at: float
    kind: Kind
    text: str
    backend: str = ""
    to: str = ""
    cause: str = ""
    count: int = 1
    pages: int = 0


class Gathering:
    """Adds up what is alike until somebody takes it."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str, str, str], Happening] = {}

    def __bool__(self) -> bool:
        """Say whether there is anything to take."""
        return bool(self._found)

    def add(self, happening: Happening) -> None:
        """Add one; of those that are alike the last one's detail stays."""
        key = (happening.kind, happening.backend, happening.to, happening.cause)
        before = self._found.get(key)
        if before is not None:
            happening = replace(happening, count=before.count + happening.count, pages=before.pages + happening.pages)
        self._found[key] = happening

    def take(self) -> list[Happening]:
        """Give all in the order in which each was first seen, and begin anew."""
        found, self._found = list(self._found.values()), {}
        return found


class Ring:
    """The last events; the first has number 1."""

    __slots__ = ("_events", "last")

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self.last = 0

    def add(self, happening: Happening, at: float) -> Event:
        """Keep a happening as an event."""
        self.last += 1
        event = Event(
            self.last, at, happening.kind, describe(happening), happening.backend, happening.to, happening.cause,
            happening.count, happening.pages,
        )  # fmt: skip
        self._events.append(event)
        return event

    def after(self, seq: int) -> list[Event]:
        """Give the kept events with a higher number, oldest first."""
        return [event for event in self._events if event.seq > seq]


_CAUSES = {
    "gone": "it is not listed any more",
    "refused": "it refuses connections",
    "timeout": "it leaves connections unanswered",
    "draining": "it drains",
}

_LOSSES = {
    "backend": "their backend ended the socket",
    "backend_gone": "their backend has gone",
    "drain": "their backend was drained",
    "idle": "the connection died",
    "shutdown": "the proxy ended",
    "error": "the connection broke",
}

_LIMITS = {
    "memory": "more was sent to them than --park-page-bytes or --park-bytes allow",
    "pages": "more were parked than --park-pages allows",
}


def describe(happening: Happening) -> str:
    """Say in one line, for people, what happened."""
    kind, backend, count, detail = happening.kind, happening.backend, happening.count, happening.detail
    if kind is Kind.MOVED:
        return _moved(happening)
    if kind is Kind.CUT:
        why = "was killed, has crashed or ends" if happening.cause == "backend_gone" else "goes on running"
        return f"{backend} closed {_counted(count, 'open socket')}: it {why}"
    if kind is Kind.UNREACHABLE:
        return f"{backend} cannot be reached ({detail}); its sessions are moved"
    if kind is Kind.REACHABLE:
        return f"{backend} accepts connections again"
    if kind is Kind.LOST:
        why = _LOSSES.get(happening.cause, happening.cause)
        where = f" of {backend}" if backend else ""
        return f"{_counted(count, 'page')}{where} lost: {why}, and no word for 30 s"
    if kind is Kind.RELOAD_LOOP:
        return f"{_counted(count, 'page load')} held: the sockets of a visitor's pages are refused again and again"
    if kind is Kind.LET_GO:
        why = _LIMITS.get(happening.cause, happening.cause)
        return f"{_counted(count, 'parked page')} let go: {why}"
    if kind is Kind.DRAIN:
        return f"{backend} drains by order: new sessions and documents go elsewhere"
    if kind is Kind.UNDRAIN:
        return f"{backend} drains no more: the order was taken back"
    return f"{backend} {detail}" if backend else detail


def phase_changes(before: Iterable[Backend], after: Iterable[Backend]) -> list[Happening]:
    """Tell what differs between two lists of backends."""
    old, new = {b.identity: b for b in before}, {b.identity: b for b in after}
    changes = []
    for identity in [*old, *(i for i in new if i not in old)]:
        was, now = old.get(identity), new.get(identity)
        if was is None and now is not None:
            changes.append(Happening(Kind.PHASE, str(now), cause=now.phase.value, detail=_JOINED[now.phase]))
        elif was is not None and now is None:
            changes.append(Happening(Kind.PHASE, str(was), cause="gone", detail=_PHASES["gone"]))
        elif was is not None and now is not None and was.phase is not now.phase:
            changes.append(Happening(Kind.PHASE, str(now), cause=now.phase.value, detail=_PHASES[now.phase.value]))
    return changes


_JOINED = {
    Phase.READY: "has joined and is ready",
    Phase.PAUSED: "has joined and is not ready yet",
    Phase.DRAINING: "has joined and drains already",
}

_PHASES = {
    "ready": "is ready",
    "paused": "is not ready: it keeps its sessions and gets no new ones",
    "draining": "drains: its pages stay, new sessions and documents go elsewhere",
    "gone": "has gone: it is not listed any more",
}


def _moved(happening: Happening) -> str:
    count, pages, backend = happening.count, happening.pages, happening.backend
    others = count - pages
    what = " and ".join(
        _counted(number, name)
        for number, name in ((pages, "page"), (others, "other request" if pages else "request"))
        if number
    )
    why = _CAUSES.get(happening.cause, happening.cause)
    return f"{what} moved from {backend or 'a backend of the past'} to {happening.to}: {why}"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
