"""Rules about pages and their sockets: who was refused, who was cut, and what chance has to do with it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Final

from stickyproxy.tools.verify import chance
from stickyproxy.tools.verify.findings import Finding, Rule, found, in_bytes
from stickyproxy.tools.verify.seen import Attempt, Outcome, Seen

PAGE_KEPT_S: Final = 2.5
"""A page that comes back within so long must be known still: NiceGUI's `reconnect_timeout` is 3 s."""

ALIKE: Final = 0.15
"""Two times are one and the same time-out where they differ by no more than this part (or `ALIKE_S`)."""

ALIKE_S: Final = 0.7

SLOW_ECHO_S: Final = 0.4
"""An echo that takes longer than this, and far longer than a request, was held by somebody."""


def _refused(seen: Seen) -> list[Attempt]:
    """Give the attempts that reached another process; a page that was away too long may be gone by itself."""
    wrong = (Outcome.REFUSED, Outcome.SPLIT)
    return [a for a in seen.attempts if a.outcome in wrong and (a.round != "cut" or a.away_s < PAGE_KEPT_S)]


def is_confirmed(attempts: Iterable[Attempt]) -> bool:
    """Say whether refusals came in two waves at least: a replica that ends refuses all of its pages at once."""
    return len({a.wave for a in attempts}) >= 2


def needs_confirmation(seen: Seen) -> bool:
    """Say whether there were refusals, and too few waves of them to blame the affinity."""
    refused = _refused(seen)
    return bool(refused) and not is_confirmed(refused)


def affinity(seen: Seen) -> Iterator[Finding]:
    """Find pages whose sockets reached other processes."""
    refused = _refused(seen)
    if not refused:
        return
    if not is_confirmed(refused):
        yield found(seen, "rare-refusal", f"{len(refused)} of {len(seen.attempts)} sockets, all at one time")
        return
    fresh = [a for a in refused if a.round != "cut" and a.outcome is Outcome.REFUSED]
    if fresh:
        tried = [a for a in seen.attempts if a.round != "cut" and a.outcome in (Outcome.ACCEPTED, Outcome.REFUSED)]
        words = Counter(a.said for a in fresh if a.said).most_common(1)
        said = f' ("{words[0][0]}")' if words else ""
        yield found(seen, "socket-elsewhere", f"{len(fresh)} of {len(tried)} sockets of new pages were refused{said}")
        yield from _reloads(seen)
    lost = [a for a in refused if a.round == "cut" and a.outcome is Outcome.REFUSED]
    if lost:
        tried = [a for a in seen.attempts if a.round == "cut" and a.outcome in (Outcome.ACCEPTED, Outcome.REFUSED)]
        away = max(a.away_s for a in lost)
        yield found(
            seen, "reconnect-lost",
            f"{len(lost)} of {len(tried)} reconnects were refused, though the page was away for {away:.1f} s at most",
        )  # fmt: skip
    split = [a for a in refused if a.outcome is Outcome.SPLIT]
    if split:
        tried = [a for a in seen.attempts if a.transport == "polling"]
        statuses = ", ".join(sorted({str(a.status) for a in split}))
        yield found(
            seen, "poll-split",
            f"{len(split)} of {len(tried)} conversations by polls broke: a later poll was answered {statuses} by a "
            "process that did not know the first",
        )  # fmt: skip


def _reloads(seen: Seen) -> Iterator[Finding]:
    """Count how many loads each visitor needed until its page worked."""
    loads: Counter[int] = Counter()
    done: set[int] = set()
    for attempt in seen.attempts:
        if attempt.round in ("first", "reload") and attempt.outcome in (Outcome.ACCEPTED, Outcome.REFUSED):
            loads[attempt.visitor] += 1
            if attempt.outcome is Outcome.ACCEPTED:
                done.add(attempt.visitor)
    needed = Counter(loads[visitor] for visitor in done)
    if not loads or needed[1] == len(loads):
        return
    parts = [f"{needed[count]} needed {count} load{'s' if count > 1 else ''}" for count in sorted(needed)]
    if never := [visitor for visitor in loads if visitor not in done]:
        parts.append(f"{len(never)} had no working page after {max(loads[visitor] for visitor in never)} loads")
    yield found(seen, "reload-loop", f"of {len(loads)} visitors " + ", ".join(parts))


def upgrades(seen: Seen) -> Iterator[Finding]:
    """Find WebSockets that were not let through, or opened and stayed mute."""
    tried = [a for a in seen.attempts if a.transport == "websocket"]
    answers = [(a.outcome, a.status, a.said) for a in tried]
    answers += [
        (
            Outcome.ACCEPTED if p.status == 101 else Outcome.NOT_UPGRADED if p.status else Outcome.BROKEN,
            p.status,
            p.said,
        )
        for p in seen.plain
    ]
    failed = [a for a in answers if a[0] is Outcome.NOT_UPGRADED]
    broken = [a for a in failed if a[1] >= 500]
    broken += [a for a in answers if a[0] is Outcome.BROKEN]
    blocked = [a for a in failed if a[1] < 500]
    for id_, some in (("no-upgrade", blocked), ("socket-broken", broken)):
        if len(some) > 1 or (some and len(answers) == 1):
            yield found(seen, id_, *_answers(len(answers), some))
    if id_ := "socket-ended" if len(broken) == 1 < len(answers) else "":
        yield found(seen, id_, *_answers(len(answers), broken))
    mute = [a for a in answers if a[0] is Outcome.SILENT]
    if len(mute) > 1 and not any(echo.freed_by for echo in seen.echoes):
        yield found(seen, "socket-silent", f"{len(mute)} of {len(answers)} opened and brought no packet in time")


def _answers(total: int, some: list[tuple[Outcome, int, str]]) -> Iterator[str]:
    for (_, status, said), count in Counter(some).most_common(3):
        answer = f"was answered {status}" if status else "failed"
        yield f"{count} of {total} requests for a WebSocket: {answer}{f' ({said})' if said else ''}"


def buffering(seen: Seen) -> Iterator[Finding]:
    """Find bytes that were held back on the way of a WebSocket."""
    freed = [echo.freed_by for echo in seen.echoes if echo.freed_by]
    if freed:
        yield found(
            seen, "socket-buffered",
            f"on {len(freed)} of {len(seen.echoes)} sockets an answer came only after some {in_bytes(max(freed))} more "
            "had been sent: somebody waits until a buffer is full",
        )  # fmt: skip
        return
    times = [echo.took_s for echo in seen.echoes if echo.took_s is not None]
    asks = [step for step in seen.steps if step.name == "first poll"]
    if len(times) < 3 or not asks or not asks[0].took_s:
        return
    echo_s, ask_s = median(times), median(asks[0].took_s)
    if min(times) > SLOW_ECHO_S and echo_s > 4 * ask_s:
        yield found(
            seen, "socket-buffered",
            f"a WebSocket's ping was answered after {echo_s:.2f} s each time, a request after {ask_s:.2f} s: somebody "
            "passes bytes on only now and then",
        )  # fmt: skip


def _cut_at_an_age(seen: Seen) -> list[list[float]]:
    """Give, for each visitor whose sockets ended at one age again and again, these ages.

    Where silent ones end too, only those count that were silent for a far shorter time.
    """
    silences = [s.silent_s for s in seen.silences if s.cut]
    ends: dict[int, list[float]] = defaultdict(list)
    for end in seen.ended:
        if not silences or end.silent_s < (1 - 2 * ALIKE) * min(silences):
            ends[end.visitor].append(end.age_s)
    return [ages for ages in ends.values() if len(ages) >= 2 and _alike(ages)]


def _alike(times: list[float]) -> bool:
    return max(times) - min(times) <= max(ALIKE_S, ALIKE * max(times))


def silence(seen: Seen) -> Iterator[Finding]:
    """Find the time after which a silent WebSocket is cut, by two that ended after the same silence."""
    if _cut_at_an_age(seen):
        return  # silent or not
    cut = [s.silent_s for s in seen.silences if s.cut]
    if len(cut) >= 2 and _alike(cut):
        after_s = sum(cut) / len(cut)
        interval_s, timeout_s = seen.ping_interval_s, seen.ping_timeout_s
        need_s = 2 * interval_s + timeout_s or 60.0
        evidence = f"{len(cut)} of {len(seen.silences)} silent WebSockets ended after {after_s:.1f} s"
        if interval_s:
            evidence += (
                f"; the app says something every {interval_s:g} s, and later where it is busy, so {need_s:g} s "
                "are needed"
            )
        yield found(seen, "idle-cut" if after_s < need_s else "idle-cut-long", evidence)
    elif seen.idle_problem:
        yield found(seen, "idle-unmeasured", seen.idle_problem)


def ages(seen: Seen) -> Iterator[Finding]:
    """Find sockets in use that ended: at one age again and again, or just so."""
    twice = _cut_at_an_age(seen)
    if twice:
        age_s = sum(sum(ages) for ages in twice) / sum(len(ages) for ages in twice)
        yield found(
            seen, "age-cut",
            f"{len(twice)} sockets in use ended {age_s:.1f} s after they had been opened, and so did their successors",
        )  # fmt: skip
    elif seen.ended and not any(s.cut for s in seen.silences):
        yield found(seen, "socket-ended", f"{len(seen.ended)} of the sockets that were kept in use")


def enough(seen: Seen) -> Iterator[Finding]:
    """Doubt a run without refusals that so few sockets could have come through by luck."""
    if not seen.attempts or _refused(seen):
        return
    if not any(a.outcome is Outcome.ACCEPTED for a in seen.attempts):
        return  # what kept all sockets from opening is a finding of its own
    luck = chance_of_luck(seen)
    if luck > chance.ENOUGH:
        yield found(
            seen, "few-visitors",
            f"without any affinity, and with two replicas, the same would be seen by chance: {chance.in_words(luck)}",
        )  # fmt: skip


def chance_of_luck(seen: Seen) -> float:
    """Give the chance that all accepted sockets hit their page's process by luck."""
    waves = Counter(a.wave for a in seen.attempts if a.outcome is Outcome.ACCEPTED)
    return chance.of_luck(waves.values())


def spread(seen: Seen) -> Iterator[Finding]:
    """Say whether there was a sign of several replicas, where all is well: cookie values that visitors share."""
    if not any(a.outcome is Outcome.ACCEPTED for a in seen.attempts):
        return
    named = [c for c in seen.cookies if 2 <= c.values <= seen.visitors // 2]
    if named:
        yield found(
            seen, "several-replicas",
            *(f"the cookie {c.name} had {c.values} values among {seen.visitors} visitors" for c in named),
        )  # fmt: skip
    else:
        yield found(seen, "one-address", "no cookie told the visitors' replicas apart")


RULES: Final[tuple[Rule, ...]] = (affinity, upgrades, buffering, silence, ages, enough)
