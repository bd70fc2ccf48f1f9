import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.events import Happening
from stickyproxy.core.values import Address
from stickyproxy.discovery.dns import DnsDiscovery
from stickyproxy.discovery.dns import resolve as system_resolve

BOUND_S = 10.0

Answer = list[str] | Exception


class Resolver:
    """Gives one prepared answer after another, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Applied:
    """Remembers what was put in force."""

    def __init__(self) -> None:
        self.sets: list[list[Backend]] = []

    def __call__(self, backends: Sequence[Backend]) -> None:
        self.sets.append(list(backends))

    @property
    def addresses(self) -> list[list[str]]:
        return [[str(backend.address) for backend in backends] for backends in self.sets]


async def test_a_hint_is_given_while_the_name_has_never_resolved() -> None:
    resolver = Resolver(OSError("no such name"), ["10.0.0.1"], OSError("no such name"))
    dns = DnsDiscovery(Address("app", 80), 3600.0, Applied(), resolver, hint="look there")
    for problem in ("no such name; look there", "", "no such name"):
        await dns.resolve_once()
        assert dns.status.problem == problem


async def test_a_failure_is_told_once_as_it_begins_changes_and_ends() -> None:
    resolver = Resolver(
        OSError("a"), OSError("a"), OSError("b"), ["10.0.0.1"], ["10.0.0.1"], OSError("a"), ["10.0.0.1"]
    )
    told: list[Happening] = []
    dns = DnsDiscovery(Address("app", 80), 3600.0, Applied(), resolver, saw=told.extend)
    for _ in range(7):
        await dns.resolve_once()
    assert [h.cause for h in told] == ["unresolved", "unresolved", "healthy", "unresolved", "healthy"]
    assert told[1].detail == "cannot resolve app: b; no backends until it resolves"
    assert told[3].detail == "cannot resolve app: a; keeping the last 1 addresses"


def discovery(*answers: Answer) -> tuple[DnsDiscovery, Resolver, Applied]:
    resolver, applied = Resolver(*answers), Applied()
    return DnsDiscovery(Address("app.ns.svc", 8080), 3600.0, applied, resolver), resolver, applied


@asynccontextmanager
async def running(dns: DnsDiscovery) -> AsyncIterator[None]:
    task = asyncio.ensure_future(dns.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], turns: int = 50) -> bool:
    """Let the loop turn until something is so; no clock is involved."""
    for _ in range(turns):
        if condition():
            return True
        await asyncio.sleep(0)
    return condition()


async def test_every_address_of_the_name_becomes_a_ready_backend() -> None:
    dns, resolver, applied = discovery(["10.0.0.2", "10.0.0.1"])
    await dns.resolve_once()
    assert resolver.asked == [("app.ns.svc", 8080)]
    (backends,) = applied.sets
    assert [(b.identity, b.address, b.phase) for b in backends] == [
        ("10.0.0.1:8080", ("10.0.0.1", 8080), Phase.READY),
        ("10.0.0.2:8080", ("10.0.0.2", 8080), Phase.READY),
    ]
    assert dns.status.problem == ""
    assert dns.status.source == "DNS app.ns.svc:8080"


async def test_ipv6_addresses_are_backends_too() -> None:
    dns, _, applied = discovery(["2001:db8::1", "10.0.0.1"])
    await dns.resolve_once()
    assert applied.addresses == [["10.0.0.1:8080", "[2001:db8::1]:8080"]]


async def test_an_address_that_is_listed_twice_is_one_backend() -> None:
    dns, _, applied = discovery(["10.0.0.1", "10.0.0.1"])
    await dns.resolve_once()
    assert applied.addresses == [["10.0.0.1:8080"]]


async def test_before_the_first_answer_the_status_says_so() -> None:
    dns, _, applied = discovery(["10.0.0.1"])
    assert dns.status.problem
    assert applied.sets == []


async def test_an_unchanged_answer_applies_nothing() -> None:
    dns, _, applied = discovery(["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"])
    await dns.resolve_once()
    await dns.resolve_once()
    assert len(applied.sets) == 1


async def test_a_changed_answer_replaces_the_whole_set() -> None:
    dns, _, applied = discovery(["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.3"])
    await dns.resolve_once()
    await dns.resolve_once()
    assert applied.addresses[-1] == ["10.0.0.2:8080", "10.0.0.3:8080"]


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (OSError("odd"), "odd"),
        (TimeoutError("timed out"), "timed out"),
        ([], "the name has no address"),
    ],
)
async def test_a_failing_resolver_keeps_the_last_answer(failure: Answer, problem: str) -> None:
    dns, _, applied = discovery(["10.0.0.1"], failure, ["10.0.0.1"])
    await dns.resolve_once()
    await dns.resolve_once()
    assert applied.addresses == [["10.0.0.1:8080"]]
    assert dns.status.problem == problem
    await dns.resolve_once()
    assert dns.status.problem == ""
    assert len(applied.sets) == 1


async def test_failures_are_counted_and_the_age_is_that_of_the_last_answer() -> None:
    now = 100.0
    resolver = Resolver(OSError("no such name"), ["10.0.0.1"], [], ["10.0.0.1"])
    dns = DnsDiscovery(Address("app", 80), 3600.0, Applied(), resolver, clock=lambda: now)
    assert (dns.status.synced, dns.status.errors) == (False, 0)
    ages = []
    for synced, errors in ((False, 1), (True, 1), (True, 2), (True, 2)):
        now += 5.0
        await dns.resolve_once()
        assert (dns.status.synced, dns.status.errors) == (synced, errors)
        ages.append(dns.status.age_s)
    assert ages == [5.0, 0.0, 5.0, 0.0], "it begins anew with every answer, and with nothing else"


async def test_a_failure_at_the_start_applies_nothing_and_is_recovered_from() -> None:
    dns, _, applied = discovery(OSError(-3, "Temporary failure"), [], ["10.0.0.1"])
    await dns.resolve_once()
    await dns.resolve_once()
    assert applied.sets == []
    await dns.resolve_once()
    assert applied.addresses == [["10.0.0.1:8080"]]


async def test_a_name_that_no_resolver_understands_is_a_failure_like_any_other() -> None:
    # The standard library raises UnicodeError for a label that is too long, which is no OSError.
    dns, _, applied = discovery(["10.0.0.1"], UnicodeError("label too long"))
    await dns.resolve_once()
    await dns.resolve_once()
    assert len(applied.sets) == 1
    assert dns.status.problem


async def test_a_lasting_failure_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stickyproxy.discovery")
    dns, _, _ = discovery(["10.0.0.1"], *[OSError(-3, "Temporary failure")] * 3, ["10.0.0.1"])
    for _ in range(5):
        await dns.resolve_once()
    messages = [record.getMessage() for record in caplog.records]
    assert sum("cannot resolve" in message for message in messages) == 1
    assert sum("resolves again" in message for message in messages) == 1


async def test_the_name_is_asked_again_at_every_interval() -> None:
    resolver, applied, third = Resolver(["10.0.0.1"], OSError("lost"), ["10.0.0.2"]), Applied(), asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        if len(resolver.asked) == 3:
            third.set()
        return await resolver(host, port)

    dns = DnsDiscovery(Address("app", 80), 0.001, applied, resolve)
    async with running(dns), asyncio.timeout(10):
        await third.wait()
    assert applied.addresses == [["10.0.0.1:80"], ["10.0.0.2:80"]]


async def test_a_refresh_asks_at_once() -> None:
    dns, resolver, applied = discovery(["10.0.0.1"], ["10.0.0.2"])
    async with running(dns):
        assert await until(lambda: len(applied.sets) == 1)
        assert not await until(lambda: len(resolver.asked) > 1), "the interval is an hour"
        dns.refresh()
        assert await until(lambda: len(applied.sets) == 2)
        assert not await until(lambda: len(resolver.asked) > 2), "one refresh, one question"


async def test_a_refresh_while_an_answer_is_awaited_asks_once_more() -> None:
    # The answer under way may be from before the change that somebody wants to see.
    begun, answer = asyncio.Event(), asyncio.Event()
    asked = 0

    async def slow(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        begun.set()
        await answer.wait()
        return ["10.0.0.1"]

    dns = DnsDiscovery(Address("app", 80), 3600.0, lambda backends: None, slow)
    async with running(dns):
        await begun.wait()
        dns.refresh()
        answer.set()
        assert await until(lambda: asked == 2)


async def test_a_name_that_does_not_exist_is_an_error_of_the_system_resolver() -> None:
    with pytest.raises(OSError, match=r"not known|failure|No address"):
        await system_resolve("no-such-name.invalid", 80)
    with pytest.raises(UnicodeError):
        await system_resolve("a" * 64 + ".invalid", 80)


def test_a_loop_may_end_while_the_resolver_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over, returned = threading.Event(), threading.Event(), threading.Event()

    def hangs(*_: object, **__: object) -> list[object]:
        asked.set()
        over.wait(BOUND_S)
        returned.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)

    async def main() -> None:
        waiting = asyncio.ensure_future(system_resolve("app", 80))
        assert await asyncio.to_thread(asked.wait, BOUND_S)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
    assert not returned.is_set(), "the loop has ended before the resolver"
    over.set()
    assert returned.wait(BOUND_S)


async def test_the_system_resolver_gives_addresses_of_both_families() -> None:
    assert await system_resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert await system_resolve("::1", 80) == ["::1"]
