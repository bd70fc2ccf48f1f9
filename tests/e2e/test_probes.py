"""Health probes end at the proxy: no replica sees as much as a connection."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from .harness import Replica, addresses, running_proxy, total

PROBES_OF_A_KIND = 1250
PROBERS = ("kube-probe/1.34", "GoogleHC/1.0", "ELB-HealthChecker/2.0")
HEALTH_PATH = "/healthz"
ON_ONE_CONNECTION = 25
"""HTTP probes sent over one kept-alive connection; a kubelet closes after each, load balancers often do not."""
AT_ONCE = 20


async def get(port: int, path: str, user_agent: str, count: int) -> list[int]:
    """Send `count` GETs over one connection; return their status codes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses = []
    try:
        for number in range(count):
            close = "Connection: close\r\n" if number == count - 1 else ""
            head = f"GET {path} HTTP/1.1\r\nHost: app.example\r\nUser-Agent: {user_agent}\r\n{close}\r\n"
            writer.write(head.encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            statuses.append(int(answer.split(" ", 2)[1]))
            lengths = [line.split(":")[1] for line in answer.split("\r\n") if line.startswith("content-length:")]
            await (reader.readexactly(int(lengths[0])) if lengths else reader.read())
    finally:
        writer.close()
        await writer.wait_closed()
    return statuses


async def connect(port: int, count: int) -> list[int]:
    """Open and close `count` connections without a byte, as TCP probes do."""
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
    return [200] * count


@pytest.mark.timeout(110)
async def test_ten_thousand_probes_touch_no_replica(three_replicas: list[Replica], tmp_path: Path) -> None:
    with running_proxy(tmp_path, addresses(three_replicas), "--health-path", HEALTH_PATH) as proxy:
        kinds: dict[str, Callable[[int], Awaitable[list[int]]]] = {
            "livez": lambda count: get(proxy.admin_port, "/livez", "kube-probe/1.34", count),
            "readyz": lambda count: get(proxy.admin_port, "/readyz", "kube-probe/1.34", count),
            "health path": lambda count: get(proxy.port, HEALTH_PATH, "curl/8", count),
            "TCP": lambda count: connect(proxy.port, count),
            "TCP to admin": lambda count: connect(proxy.admin_port, count),
        }
        for prober in PROBERS:
            kinds[prober] = lambda count, prober=prober: get(proxy.port, "/", prober, count)
        assert len(kinds) * PROBES_OF_A_KIND == 10_000

        before = total(three_replicas)
        gate = asyncio.Semaphore(AT_ONCE)
        answers: dict[str, Counter[int]] = {kind: Counter() for kind in kinds}

        async def some(kind: str) -> None:
            async with gate:
                answers[kind].update(await kinds[kind](ON_ONE_CONNECTION))

        batches = PROBES_OF_A_KIND // ON_ONE_CONNECTION
        await asyncio.gather(*(some(kind) for _ in range(batches) for kind in kinds))
        after = total(three_replicas)

        assert {kind: dict(counter) for kind, counter in answers.items()} == {
            kind: {200: PROBES_OF_A_KIND} for kind in kinds
        }
        assert after == before, "a probe reached a replica"

        # Nothing is on its way, either, and the counter does count: one visit is one connection and one page.
        assert await get(proxy.port, "/", "Mozilla/5.0", 1) == [200]
        assert total(three_replicas) - before == Counter(accept=1, page=1)
