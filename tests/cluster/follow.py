"""Discovery at work in this process, watched by tests without polling."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.endpoint_slices import ServiceRef
from stickyproxy.discovery import kubernetes
from stickyproxy.discovery.kubernetes import Access, Connect, KubernetesDiscovery

BOUND_S = 30.0
"""Most seconds for what should happen soon: a list that comes after some back-off, on a busy machine."""

QUICK_S = 0.02
"""First back-off of tests that do not measure it."""


class Followed(logging.Handler):
    """One discovery; `sets` holds every set of backends it has put in force, `lines` what it has logged."""

    def __init__(
        self,
        service: ServiceRef,
        connect: Connect,
        *,
        kind: type[KubernetesDiscovery] = KubernetesDiscovery,
        shortest_backoff_s: float = QUICK_S,
        silence_s: float = kubernetes.SILENCE_S,
    ) -> None:
        super().__init__(logging.DEBUG)
        self.sets: list[list[Backend]] = []
        self.lines: list[str] = []
        self.discovery = kind(
            service, self._apply, Random(1), connect, shortest_backoff_s=shortest_backoff_s, silence_s=silence_s
        )
        self._news = asyncio.Event()

    def _apply(self, backends: object) -> None:
        assert isinstance(backends, list)
        self.sets.append(list(backends))
        self._news.set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the log; whatever becomes of discovery is logged, so this is the event to wait for."""
        self.lines.append(record.getMessage())
        self._news.set()

    @property
    def phases(self) -> dict[str, Phase]:
        """Give the phase of each backend in force, by identity."""
        return {backend.identity: backend.phase for backend in self.sets[-1]} if self.sets else {}

    @property
    def addresses(self) -> dict[str, str]:
        """Give the address of each backend in force, by identity."""
        return {backend.identity: str(backend.address) for backend in self.sets[-1]} if self.sets else {}

    @property
    def problem(self) -> str:
        return self.discovery.status.problem

    @property
    def reason(self) -> str:
        return self.discovery.status.reason

    async def until(self, condition: Callable[[], object], *, bound_s: float = BOUND_S) -> None:
        """Wait for a state that discovery reaches by applying or saying something."""
        try:
            async with asyncio.timeout(bound_s):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {bound_s:g} s; in force: {self.phases}; problem: {self.problem!r}; it said:\n"
                + "\n".join(self.lines[-20:])
            ) from None

    async def until_phases(self, **phases: Phase) -> None:
        """Wait until exactly these identities are in force, in these phases."""
        await self.until(lambda: self.phases == phases)


def by_service_account(folder: Path) -> Connect:
    """Connect as a pod does, with the token and the authority in a folder; KUBERNETES_SERVICE_* name the server."""

    async def connect() -> Access:
        return await kubernetes.connect(folder)

    return connect


@asynccontextmanager
async def following(followed: Followed) -> AsyncIterator[Followed]:
    """Run a discovery while the block lasts."""
    log = logging.getLogger("stickyproxy.discovery")
    before = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(followed)
    task = asyncio.create_task(followed.discovery.run())
    try:
        yield followed
        assert not task.done(), "discovery has ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        log.removeHandler(followed)
        log.setLevel(before)
