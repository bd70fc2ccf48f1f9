"""What the metrics say of real browsers on real NiceGUI is what happened to them."""

import asyncio
import urllib.request
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .harness import PAGE_LIMIT_MS, Proxy, Replica, addresses, leave, running_proxy, running_replicas, visits

SCRAPES = 200


def scrape(proxy: Proxy) -> dict[str, float]:
    """Give all samples that are not 0 by name, labels behind it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        s.name.removeprefix("stickyproxy_") + "".join(f",{v}" for _, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.value
    }


async def until(proxy: Proxy, expected: dict[str, float]) -> dict[str, float]:
    """Scrape until the samples have come to these values."""
    found: dict[str, float] = {}
    for _ in range(SCRAPES):
        found = await asyncio.to_thread(scrape, proxy)
        if {name: found.get(name, 0) for name in expected} == expected:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"expected {expected}, found { ({name: found.get(name, 0) for name in expected}) }")


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_replica_that_goes_is_told_from_users_who_leave(browser: Browser, tmp_path: Path, how: str) -> None:
    with running_replicas(2, tmp_path) as replicas, running_proxy(tmp_path, addresses(replicas)) as proxy:
        pages = await visits(browser, proxy.url, 4)
        homes = [await page.replica() for page in pages]
        lost = max(replicas, key=lambda replica: homes.count(replica.name))
        victims = [page for page, home in zip(pages, homes, strict=True) if home == lost.name]
        before = await until(proxy, {f"backend_pages,{r}": homes.count(n) for r, n in places(replicas)})
        assert "tunnels_closed_total,backend_gone" not in before

        (lost.process.kill if how == "killed" else lost.process.end)()
        for page in victims:
            await expect(page.page.get_by_test_id("replica")).not_to_have_text(lost.name, timeout=PAGE_LIMIT_MS)
            await page.connected()
        after = await until(
            proxy, {"tunnels_closed_total,backend_gone": len(victims), "pages_away": 0, "open_tunnels": len(pages)}
        )
        assert after["reconnects_total,other,yes"] == len(victims)
        assert sum(value for name, value in after.items() if name.startswith("moves_total")) >= len(victims)
        assert not [name for name in after if name.startswith("pages_lost")]

        closed = after.get("tunnels_closed_total,client", 0)
        await leave(pages)
        found = await until(proxy, {"tunnels_closed_total,client": closed + len(pages), "open_tunnels": 0})
        assert found["tunnels_closed_total,backend_gone"] == len(victims), "who leaves is not the replica's doing"
        assert "tunnels_closed_total,backend" not in found


def places(replicas: list[Replica]) -> list[tuple[str, str]]:
    """Give the address and the name of each."""
    return list(zip(addresses(replicas), [replica.name for replica in replicas], strict=True))
