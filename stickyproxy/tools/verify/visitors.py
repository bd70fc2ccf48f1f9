"""Visitors: each a browser of its own with one page, and waves of them in an order drawn by lot.

Why by lot: balancers that take turns would else send a page's socket to its own process each time, or never. All do the
same step before any does the next one, so that a balancer that counts connections sees no difference either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from random import Random
from typing import Final, TypeVar

from stickyproxy.tools.verify.document import NiceguiPage, parse_nicegui
from stickyproxy.tools.verify.lines import Line, Opening, PollingLine, WebSocketLine
from stickyproxy.tools.verify.seen import Attempt, Cookie, Load, Outcome, Round, Seen, Transport
from stickyproxy.tools.verify.web import Answer, Clock, Options, Web

T = TypeVar("T")

AT_ONCE: Final = 12
"""Visitors that do something at the same time."""

JITTER_S: Final = 0.03
"""Up to so long a visitor waits before its turn in a wave."""


@dataclass(slots=True)
class Budget:
    """How many pages may be opened still."""

    left: int
    opened: int = 0

    def take(self) -> bool:
        """Take one page, if there is one left."""
        if self.left <= 0:
            return False
        self.left -= 1
        self.opened += 1
        return True


@dataclass(slots=True)
class Jar:
    """Which cookies were set on the way to pages, and which values visitors got; values are compared, never shown."""

    found: dict[str, tuple[bool, str]] = field(default_factory=dict)
    values: dict[str, dict[int, str]] = field(default_factory=dict)

    def add(self, visitor: int, lines: Iterable[str]) -> None:
        """Read `Set-Cookie` lines; those that take a cookie away are passed over."""
        for line in lines:
            parsed = SimpleCookie()
            try:
                parsed.load(line)
            except CookieError:
                continue
            for name, morsel in parsed.items():
                if morsel.value and morsel["max-age"] != "0":
                    self.found[name] = (bool(morsel["secure"]), str(morsel["samesite"]))
                    self.values.setdefault(name, {})[visitor] = morsel.value

    def cookies(self) -> list[Cookie]:
        """Give what was found."""
        return [
            Cookie(name, secure, samesite, len(set(self.values[name].values())))
            for name, (secure, samesite) in self.found.items()
        ]


class Visitor:
    """One browser with one page at a time."""

    def __init__(self, number: int, options: Options, clock: Clock, web: Web | None = None) -> None:
        self.number = number
        self.web = web or Web(options, clock)
        self.page: NiceguiPage | None = None
        self.answer: Answer | None = None
        self.hops: list[Answer] = []
        self.line: Line | None = None
        self.cut_at = 0.0
        self.kept: bool = False
        """Its page had a socket that was accepted, so that the app forgets it when that is closed."""

    async def load(self, url: str) -> Load:
        """Load the page, in the place of the one before."""
        self.page, self.kept = None, False
        self.answer, self.hops = await self.web.navigate(url)
        if self.answer.status == 200:
            self.page = parse_nicegui(self.answer.text)
        problem = self.answer.problem
        if self.answer.status == 200 and self.page is None:
            problem = "a page that NiceGUI did not build"
        return Load(self.number, 0 if problem else self.answer.status, problem)

    async def open(self, base: str, transport: Transport, round_: Round, wave: int, exercise: int = 0) -> Attempt:
        """Open the page's socket; exercise: so many more polls."""
        assert self.page is not None
        clock = self.web.clock
        began = clock.now()
        line: Line = (WebSocketLine if transport == "websocket" else PollingLine)(self.web, base, self.page)
        opening: Opening = await line.open()
        if opening.outcome is Outcome.ACCEPTED and isinstance(line, PollingLine) and exercise:
            opening = await line.exercise(exercise)
        took_s = clock.now() - began
        away_s = clock.now() - self.cut_at if round_ == "cut" else 0.0
        if opening.outcome is Outcome.ACCEPTED:
            self.line, self.kept = line, True
        elif opening.outcome is Outcome.SILENT:
            self.line = line  # it may turn out to be buffered
        else:
            await line.leave()
        if round_ == "cut" and opening.outcome is Outcome.ACCEPTED:
            clock.steps["reconnect"].append(took_s)
        return Attempt(
            self.number, round_, wave, transport, opening.outcome, took_s, opening.status, opening.said, away_s
        )

    async def cut(self) -> None:
        """Lose the socket."""
        if self.line is not None:
            await self.line.cut()
            self.line = None
        self.cut_at = self.web.clock.now()

    async def close(self, base: str, tries: int) -> bool:
        """Close the page as a browser's tab is closed; say whether the app knows of it.

        A page that has no socket is looked for, since an app keeps one for a minute that never had any: so many tries
        to find its process.
        """
        if self.line is not None:
            await self.line.leave()
        elif self.page is not None and not self.kept:
            kind: type[WebSocketLine] | type[PollingLine] = WebSocketLine
            for _ in range(tries):
                line: Line = kind(self.web, base, self.page)
                opening = await line.open()
                await line.leave()
                self.kept = opening.outcome is Outcome.ACCEPTED
                if self.kept:
                    break
                if opening.outcome not in (Outcome.REFUSED, Outcome.SPLIT):
                    kind = PollingLine
        self.line = None
        return self.kept or self.page is None


class Crowd:
    """All visitors of a run."""

    def __init__(self, options: Options, clock: Clock, lot: Random, seen: Seen) -> None:
        self.options = options
        self.clock = clock
        self.lot = lot
        self.seen = seen
        self.budget = Budget(options.most_pages)
        self.jar = Jar()
        self.visitors: list[Visitor] = []
        self.left: list[Visitor] = []
        """Pages of visitors that reloaded: nobody has closed them."""
        self._waves = 0

    def join(self) -> Visitor:
        """Give one more visitor."""
        visitor = Visitor(len(self.visitors), self.options, self.clock)
        self.visitors.append(visitor)
        return visitor

    async def wave(self, visitors: Iterable[Visitor], act: Callable[[Visitor], Awaitable[T]]) -> list[T]:
        """Let visitors do one thing, in an order drawn by lot."""
        order = list(visitors)
        self.lot.shuffle(order)
        gate = asyncio.Semaphore(AT_ONCE)
        waits = sorted(self.lot.uniform(0, JITTER_S) for _ in order)

        async def turn(visitor: Visitor, wait_s: float) -> T:
            await asyncio.sleep(wait_s)
            async with gate:
                return await act(visitor)

        return await asyncio.gather(*map(turn, order, waits))

    async def load(self, visitors: Sequence[Visitor]) -> list[Visitor]:
        """Let visitors load the page, as far as the budget goes; give those who have a new one."""
        loaded = [visitor for visitor in visitors if self.budget.take()]

        async def one(visitor: Visitor) -> None:
            if visitor.page is not None and not visitor.kept:
                self.adopt(visitor.page)
            self.seen.loads.append(await visitor.load(self.options.url))
            self.note_cookies(visitor)

        await self.wave(loaded, one)
        return [visitor for visitor in loaded if visitor.page is not None]

    def adopt(self, page: NiceguiPage, web: Web | None = None) -> None:
        """Take a page that nobody looks at any more, to close it in the end; web: whose cookies lead to its process."""
        owner = Visitor(-1, self.options, self.clock, web)
        owner.page = page
        self.left.append(owner)

    def note_cookies(self, visitor: Visitor) -> None:
        """Remember what was set on the way to a visitor's page."""
        answers = [*visitor.hops, *([visitor.answer] if visitor.answer else [])]
        for answer in answers:
            self.jar.add(visitor.number, answer.set_cookies)

    async def open(
        self, visitors: Sequence[Visitor], base: str, transport: Transport, round_: Round, exercise: int = 0
    ) -> list[Visitor]:
        """Let visitors open their sockets in one wave; give those who were accepted."""
        self._waves += 1
        wave = self._waves
        attempts = await self.wave(visitors, lambda visitor: visitor.open(base, transport, round_, wave, exercise))
        self.seen.attempts += attempts
        accepted = {attempt.visitor for attempt in attempts if attempt.outcome is Outcome.ACCEPTED}
        return [visitor for visitor in visitors if visitor.number in accepted]

    async def leave(self, base: str) -> None:
        """Close all pages and forget all."""
        everybody = [*self.left, *self.visitors]
        closed = await self.wave(everybody, lambda visitor: visitor.close(base, tries=4))
        self.seen.pages_left = closed.count(False)

    async def close(self) -> None:
        """Close all connections."""
        for visitor in (*self.left, *self.visitors):
            if visitor.line is not None:
                await visitor.line.cut()
            await visitor.web.close()
