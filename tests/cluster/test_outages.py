"""A bad API server: away, started anew, forgetful, silent. What was known stays in force."""

import pytest

from stickyproxy.core.backends import Phase
from stickyproxy.core.endpoint_slices import ServiceRef
from stickyproxy.discovery import kubernetes
from stickyproxy.discovery.kubernetes import Access, KubernetesDiscovery

from .api import Endpoint, Namespace
from .follow import Followed, following
from .gate import Gate

READY = Phase.READY

ONE = Endpoint("10.1.0.1", "one")
TWO = Endpoint("10.1.0.2", "two")


async def test_a_stopped_api_server_leaves_the_snapshot_and_is_named_until_it_is_back(namespace: Namespace) -> None:
    """What changed meanwhile is in force right after."""
    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until_phases(one=READY)
        await followed.until(lambda: not followed.problem)

        namespace.plane.stop()
        await followed.until(lambda: followed.problem)
        assert followed.reason == "unreachable"
        assert f"127.0.0.1:{namespace.plane.port}" in followed.problem
        assert followed.phases == {"one": READY}

        await namespace.plane.start_without_waiting_here()
        await followed.until(lambda: not followed.problem)
        await namespace.change_slice("app-1", [ONE, TWO])
        await followed.until_phases(one=READY, two=READY)
        assert all(followed.sets)


async def test_a_watch_from_a_compacted_revision_ends_in_a_fresh_list(namespace: Namespace) -> None:
    """etcd has forgotten the revision of the list before the watch begins: a true 410."""
    versions: list[str] = []
    plane = namespace.plane

    class Late(KubernetesDiscovery):
        async def _list(self, access: Access) -> str:
            version = await super()._list(access)
            if not versions:
                await namespace.change_slice("app-1", [ONE, TWO])
                plane.compact()
                plane.stop()
                await plane.start_without_waiting_here()
            versions.append(version)
            return version

    connect = await namespace.account_connect()
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect, kind=Late)) as followed:
        await followed.until_phases(one=READY, two=READY)
        await followed.until(lambda: not followed.problem)
    assert len(versions) == 2, "one list more, no storm of them"
    assert any("too old" in line for line in followed.lines), "the API server has said 410"
    assert [len(backends) for backends in followed.sets] == [1, 2], "nothing empty in between"

    # The proof that it was a 410: a plain watch from there gets it.
    async with namespace.api.watch(namespace.slices, resourceVersion=versions[0]) as events:
        line = await events.readline()
    assert b'"code":410' in line, line


async def test_a_silent_connection_is_given_up_and_listed_anew(namespace: Namespace, gate: Gate) -> None:
    """Packets are dropped: no end, no error, and a change that nobody tells. Patience is 1 s here instead of 90."""
    connect = await namespace.account_connect(port=gate.port)
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE])
    async with following(Followed(ServiceRef("", "app"), connect, silence_s=1.0)) as followed:
        await followed.until(lambda: not followed.problem)  # the watch has begun
        gate.freeze()
        await namespace.change_slice("app-1", [TWO])
        await gate.connected()
        gate.thaw()
        await followed.until_phases(two=READY)
        assert all(followed.sets)


async def test_an_outage_with_as_many_attempts_as_ten_minutes_hold_leaves_everything(
    namespace: Namespace, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed is the back-off alone: 10 ms at most instead of 10 s, for 120 attempts, the most in 10 minutes."""
    monkeypatch.setattr(kubernetes, "LONGEST_BACKOFF_S", 0.01)
    attempts = 600 // (10 // 2)  # jitter halves a back-off at most
    connect = await namespace.account_connect(port=gate.port)
    await namespace.make_service()
    await namespace.make_slice("app-1", [ONE, TWO])
    async with following(Followed(ServiceRef("", "app"), connect)) as followed:
        await followed.until_phases(one=READY, two=READY)
        gate.shut()
        await gate.attempts(attempts, bound_s=60)
        assert followed.reason == "unreachable"
        assert followed.phases == {"one": READY, "two": READY}
        told = [line for line in followed.lines if "keeping the last 2 backends" in line]
        # Two where the connection breaks between a list and its watch: one for each that fails.
        assert 1 <= len(told) <= 2, "a log of 10 minutes is a line or two, not one for each attempt"
        gate.open()
        await followed.until(lambda: not followed.problem)
        await namespace.change_slice("app-1", [TWO])
        await followed.until_phases(two=READY)
        assert len(followed.sets) == 2
