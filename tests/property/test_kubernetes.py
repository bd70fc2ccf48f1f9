"""Whatever happens to the slices and to the API server in between, in the end the backends are those of a fresh list.

It runs on uvloop, as in production: on asyncio's own loop a descriptor that client and server of one process hand to
each other can lose its registration, and then a connection hangs. One fault is not among these: an API server that goes
back in time, as one does whose etcd is restored from a backup.
"""

import asyncio
import json
from collections.abc import Sequence
from random import Random

import uvloop
from fakes.kubernetes import Answer, FakeApi, forbidden
from fakes.slices import Slice, endpoint, make_slice
from hypothesis import given, settings
from hypothesis import strategies as st

from stickyproxy.core.backends import Backend
from stickyproxy.core.endpoint_slices import ServiceRef, parse_slice, reduce_slices
from stickyproxy.discovery.kubernetes import KubernetesDiscovery

NAMES = ("one", "two", "three")
GOOD = json.dumps({"metadata": {"resourceVersion": "1"}, "items": [{}]}).encode()


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    found = [
        endpoint(
            f"10.0.0.{number}", draw(st.sampled_from(["", f"uid-{number}"])), **{draw(CONDITIONS): draw(st.booleans())}
        )
        for number in draw(st.lists(st.integers(1, 6), max_size=4, unique=True))
    ]
    return make_slice(
        draw(st.sampled_from(NAMES)), found, service=draw(st.sampled_from(["app", "app", "app", "other"]))
    )


CONDITIONS = st.sampled_from(["ready", "serving", "terminating"])
ANSWERS = st.sampled_from(
    [Answer.of(401), forbidden(), Answer.of(404), Answer.of(410), Answer.of(429), Answer.of(500), Answer(503),
     Answer(200), Answer(200, b"<html>"), Answer(200, b'{"items": ['), Answer(200, GOOD), Answer(200, GOOD, cut=True)]
)  # fmt: skip

EVENTS = st.one_of(
    st.tuples(st.just("put"), slices()),
    st.tuples(st.just("put"), slices()),
    st.tuples(st.just("put"), slices()),
    st.tuples(st.just("delete"), st.sampled_from(NAMES)),
    st.tuples(st.just("bookmark"), st.none()),
    st.tuples(st.just("compact"), st.booleans()),
    st.tuples(st.just("fail"), st.sampled_from([410, 500])),
    st.tuples(
        st.just("send"),
        st.sampled_from(
            [b"<html>\n", b"\n", b'{"type": "RENAMED", "object": {}}\n', b'{"type": "ADDED", "object": {}}\n']
        ),
    ),
    st.tuples(st.just("end"), st.sampled_from([b"", b'{"type": "DELE'])),
    st.tuples(st.just("cut"), st.sampled_from([b"", b'{"type": "DELE'])),
    st.tuples(st.just("lists"), ANSWERS),
    st.tuples(st.just("watches"), ANSWERS),
    st.tuples(st.just("freeze"), st.none()),
    st.tuples(st.just("restart"), st.integers(0, 30)),
    st.tuples(st.just("refresh"), st.none()),
)
PAUSES = st.sampled_from(["none", "turns", "watched", "watched"])
"""What may happen before the next event: nothing, something, or all that is needed for a watch."""


class Run:
    """One discovery that follows one fake through one sequence of events."""

    def __init__(self, api: FakeApi, silence_s: float) -> None:
        self.api = api
        self.now: list[Backend] | None = None
        self.discovery = KubernetesDiscovery(
            ServiceRef("shop", "app"),
            self._apply,
            Random(1),
            api.connect,
            shortest_backoff_s=0.0002,
            silence_s=silence_s,
        )

    def _apply(self, backends: Sequence[Backend]) -> None:
        self.now = list(backends)
        self.api.pulse.beat()

    async def do(self, what: str, how: object) -> None:
        """Let one event happen."""
        api = self.api
        match what, how:
            case "put", dict():
                api.put(how)
            case "delete", str():
                if api.has(how):
                    api.delete(how)
            case "compact", bool():
                api.gone_by_status = how
                api.compact()
            case "fail", int():
                api.fail(how)
            case "send", bytes():
                api.send_bytes(how)
            case "end" | "cut", bytes():
                (api.end if what == "end" else api.cut)(how)
            case "lists" | "watches", Answer():
                getattr(api, what).append(how)
            case "restart", int():
                await api.stop()
                await turns(how)
                await api.start()
            case "bookmark", _:
                api.bookmark()
            case "freeze", _:
                api.freeze()
            case "refresh", _:
                self.discovery.refresh()

    async def pause(self, how: str) -> None:
        """Let come of an event what may."""
        if how == "turns":
            await turns(20)
        elif how == "watched":
            api = self.api
            await api.pulse.until(lambda: api.open_watches or not api.objects("app"), "a watch is open")


async def turns(count: int) -> None:
    """Turn the loop, so that some of what is under way happens."""
    for _ in range(count):
        await asyncio.sleep(0)


@settings(max_examples=300)
@given(st.lists(slices(), max_size=3), st.lists(st.tuples(EVENTS, PAUSES), min_size=1, max_size=25))
def test_whatever_happens_the_backends_are_those_of_a_fresh_list(
    first: list[Slice], events: list[tuple[tuple[str, object], str]]
) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            # Impatience would heal every other fault, too, so it is there only where a watch falls silent.
            found = Run(api, 0.1 if any(what == "freeze" for (what, _), _ in events) else 3600.0)
            task = asyncio.ensure_future(found.discovery.run())
            try:
                api.put(*first)
                await found.pause("watched")
                for (what, how), pause in events:
                    before = found.now
                    await found.do(what, how)
                    await found.pause(pause)
                    assert before is None or found.now is not None
                # The faults are over; from here on nobody refreshes or ends anything.
                api.lists.clear()
                api.watches.clear()
                api.put(make_slice("last", [endpoint("10.0.0.9", "uid-last")]))
                expected = reduce_slices([parse_slice(slice_) for slice_ in api.objects("app")], "")
                await api.pulse.until(lambda: found.now == expected, f"{expected}, found {found.now}")
                await api.pulse.until(lambda: api.open_watches, "a watch is open")
                api.put(make_slice("last", [endpoint("10.0.0.9", "uid-last"), endpoint("10.0.0.8", "uid-more")]))
                expected = reduce_slices([parse_slice(slice_) for slice_ in api.objects("app")], "")
                await api.pulse.until(lambda: found.now == expected, f"{expected}, found {found.now}")
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await api.deserted()

    uvloop.run(run())
