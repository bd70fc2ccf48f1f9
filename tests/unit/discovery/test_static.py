import asyncio
from collections.abc import Sequence

from stickyproxy.core.backends import Backend, Phase
from stickyproxy.core.values import Address
from stickyproxy.discovery.static import StaticDiscovery


def test_the_list_is_in_force_at_once_and_again_when_it_is_replaced() -> None:
    applied: list[Sequence[Backend]] = []
    static = StaticDiscovery([Address("b", 2), Address("a", 1)], applied.append)
    static.replace([Address("::1", 3)])
    assert [[(b.identity, b.phase) for b in backends] for backends in applied] == [
        [("b:2", Phase.READY), ("a:1", Phase.READY)],
        [("[::1]:3", Phase.READY)],
    ]
    assert static.status.problem == ""


async def test_nothing_happens_by_itself() -> None:
    applied: list[Sequence[Backend]] = []
    task = asyncio.ensure_future(StaticDiscovery([Address("a", 1)], applied.append).run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    assert len(applied) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
