"""What a run has seen: plain records, written by the checks and read by the rules.

Law: a record says what happened and judges nothing; times are seconds on one clock of the run, from its start.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Transport = Literal["websocket", "polling"]
Round = Literal["first", "reload", "cut", "confirm"]
"""Why a socket was opened: for a page just loaded, for one loaded again after a refusal, after its socket was cut, or
to see a refusal a second time."""


class Outcome(Enum):
    """What became of a page's attempt to open its socket."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # the process that was reached does not have the page
    NOT_UPGRADED = "not upgraded"  # an HTTP answer in the place of a WebSocket
    SPLIT = "split"  # a poll reached a process that does not know the poll before
    SILENT = "silent"  # a WebSocket, but nothing came on it
    BROKEN = "broken"  # the connection failed


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to open a page's socket. wave: attempts of one wave were made in an order drawn by lot."""

    visitor: int
    round: Round
    wave: int
    transport: Transport
    outcome: Outcome
    took_s: float = 0.0
    status: int = 0
    said: str = ""
    away_s: float = 0.0
    """After a cut: for how long the page was without a socket when the answer came."""


@dataclass(frozen=True, slots=True)
class Load:
    """One load of the page by a visitor; status 0: it failed, as `problem` says."""

    visitor: int
    status: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """A redirect on the way to the page."""

    status: int
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Landing:
    """Where the address led. version: NiceGUI's, or empty; server: what the answer calls the server that sent it."""

    status: int
    url: str
    version: str = ""
    server: str = ""
    reason: str = ""
    """Why stickyproxy answered in the app's place, by its header."""
    login: str = ""
    """By what a login shows that is in the way, or empty."""
    login_page: bool = False
    """NiceGUI built the page, and it looks like a login."""
    plain_links: tuple[str, ...] = ()
    frame_ancestors: tuple[str, ...] = ()
    """Other sites in whose frames the page may be shown, by its Content-Security-Policy."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Where the page's socket is. told: below which path the page says; works: below which it was found, or None."""

    told: str
    works: str | None
    told_answer: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page that was answered with an error at least once; statuses: in the order of asking."""

    path: str
    statuses: tuple[int, ...]
    own: bool
    """It is NiceGUI's, not the app's."""
    immutable: bool
    """An error was marked as immutable, or to be kept for an hour or more."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie that was set on the way to the page; values: how many different ones the visitors got."""

    name: str
    secure: bool
    samesite: str
    values: int = 1


@dataclass(frozen=True, slots=True)
class Echo:
    """How a WebSocket's ping was answered. took_s None: not within the limit; then `freed_by` more bytes freed it."""

    visitor: int
    took_s: float | None
    freed_by: int = 0


@dataclass(frozen=True, slots=True)
class Silence:
    """A WebSocket on which we said nothing. silent_s: the longest silence both ways; cut: it ended after that."""

    silent_s: float
    cut: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A socket in use that ended without being asked to; silent_s: since something came on it."""

    visitor: int
    age_s: float
    silent_s: float


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload of a size. status 0: the connection broke; passes/refused: sizes tried by their declaration alone."""

    size_bytes: int
    status: int
    passes_bytes: int = 0
    refused_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer. pieces: arrival of each piece since the request, in seconds, and nothing else."""

    status: int
    pieces: tuple[float, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the app redirects to itself (`/_nicegui_ws` without its slash); target None: it does not."""

    source: str
    target: str | None


@dataclass(frozen=True, slots=True)
class Probe:
    """A request as a health prober sends it; page: the app built a page for it."""

    agent: str
    status: int
    page: bool


@dataclass(frozen=True, slots=True)
class PlainSocket:
    """A WebSocket of any app (`--ws-path`); status 101 where it opened."""

    visitor: int
    status: int
    took_s: float
    said: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """How long one step took, each time."""

    name: str
    took_s: tuple[float, ...]


@dataclass(slots=True)
class Seen:
    """All that a run has seen; a check that did not run leaves its part empty or None."""

    url: str
    visitors: int
    idle_s: float = 0.0
    """How long silent WebSockets were watched; 0: not at all."""
    idle_problem: str = ""
    ping_interval_s: float = 0.0
    ping_timeout_s: float = 0.0
    problem: str = ""
    """Why nothing could be seen at all."""
    landing: Landing | None = None
    hops: list[Hop] = field(default_factory=list)
    prefix: Prefix | None = None
    loads: list[Load] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    files_asked: int = 0
    files: list[File] = field(default_factory=list)
    cookies: list[Cookie] = field(default_factory=list)
    echoes: list[Echo] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    upload: Upload | None = None
    whole_uploads: bool | None = None
    """A request's head reaches the app only with its whole body; None: not seen."""
    stream: Stream | None = None
    redirect: Redirect | None = None
    probes: list[Probe] = field(default_factory=list)
    plain: list[PlainSocket] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    pages_opened: int = 0
    pages_left: int = 0
    """Pages that could not be closed; the app forgets them by itself after a minute."""

    @property
    def https(self) -> bool:
        """Say whether the page came by https."""
        return (self.landing.url if self.landing else self.url).startswith("https:")
