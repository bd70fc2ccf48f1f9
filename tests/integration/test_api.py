"""The JSON API and the live stream of the real command: what docs/api.md says of them."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stickyproxy.admin import stream as stream_module

from .command import Command, command
from .harness import Message, Peer, RawBackend, Stage, hello, request, soon
from .workers import metrics, workers

JSON = "Content-Type: application/json"


async def get(running: Command, path: str) -> Any:
    message = await running.look(path)
    assert (message.status, message.get("cache-control")) == (200, "no-store"), message
    return json.loads(message.body)


async def post(running: Command, path: str, *fields: str) -> Message:
    client = await running.client(running.admin)
    client.send(request(f"POST {path} HTTP/1.1", f"Host: {running.admin}", "Connection: close", *fields, body=b"{}"))
    return await client.message()


@asynccontextmanager
async def staged(stage: Stage, *options: str) -> AsyncIterator[tuple[Command, list[RawBackend]]]:
    """Run the command before two backends."""
    backends = [await stage.backend(hello), await stage.backend(hello)]
    addresses = [part for b in backends for part in ("--backend", str(b.address))]
    async with command(*addresses, *options) as running:
        yield running, backends


class Listener:
    """One listener of the live stream."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    @classmethod
    async def begin(cls, running: Command, *fields: str) -> "Listener":
        peer = await running.client(running.admin)
        peer.send(request("GET /api/v1/stream HTTP/1.1", *fields))
        head = await peer.head()
        assert (head.status, head.get("content-type")) == (200, "text/event-stream; charset=utf-8")
        return cls(peer)

    async def message(self) -> tuple[str, str, Any]:
        """Give the next message: its id, its name and its data. Chunks of aiohttp hold whole messages or several."""
        fields: dict[str, str] = {}
        while True:
            line = (await soon(self.peer.reader.readline())).decode().rstrip("\r\n")
            if ": " in line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and "event" in fields:
                return fields.get("id", ""), fields["event"], json.loads(fields["data"])

    async def next(self, name: str) -> tuple[str, Any]:
        """Give the next message of a name: its id and its data."""
        while True:
            found, event, data = await self.message()
            if event == name:
                return found, data


async def test_status_tells_all_and_its_numbers_are_those_of_the_metrics(stage: Stage) -> None:
    async with staged(stage) as (running, (a, b)):
        for _ in range(7):
            await running.ask(request())
        await a.close()
        for _ in range(3):
            await running.ask(request())
        status, scraped = await get(running, "/api/v1/status"), await metrics(running)

    totals = status["totals"]
    assert status["api"] == 1
    assert (status["ready"], status["actions"], status["discovery"]["healthy"]) == (True, True, True)
    assert totals["requests"] == 10
    assert totals["requests"] == sum(n for name, n in scraped.items() if name.startswith("stickyproxy_requests_total{"))
    assert totals["pins"] == {pin: scraped[f"stickyproxy_pins_total{{pin={pin}}}"] for pin in ("new", "kept", "moved")}
    for key, metric, label in (
        ("moves", "stickyproxy_moves_total", "cause"),
        ("closed", "stickyproxy_tunnels_closed_total", "reason"),
        ("lost", "stickyproxy_pages_lost_total", "reason"),
        ("faults", "stickyproxy_faults_total", "reason"),
        ("parked_returned", "stickyproxy_parked_returned_total", "connection"),
        ("parked_released", "stickyproxy_parked_released_total", "reason"),
        ("parked_reopened", "stickyproxy_parked_reopened_total", "outcome"),
    ):
        assert totals[key] == {name: scraped[f"{metric}{{{label}={name}}}"] for name in totals[key]}, key
        assert totals[key]
    assert status["park_s"] == 0
    for key, metric in (("parked", "pages"), ("parked_bytes", "bytes"), ("parked_ever", "total")):
        assert totals[key] == scraped[f"stickyproxy_parked_{metric}"] == 0, key
    assert sum(totals["seconds"]["counts"]) == scraped["stickyproxy_request_seconds_count"]
    assert len(totals["seconds"]["counts"]) == len(totals["seconds"]["bounds"]) + 1
    assert {x["address"] for x in status["backends"]} == {str(a.address), str(b.address)}
    for backend in status["backends"]:
        name = backend["name"]
        assert backend["requests"] == scraped[f"stickyproxy_backend_requests_total{{backend={name}}}"]
        assert backend["moved_to"] == scraped[f"stickyproxy_backend_moved_to_total{{backend={name}}}"]
        assert backend["pages"] == scraped[f"stickyproxy_backend_pages{{backend={name}}}"]
        assert backend["parked"] == scraped[f"stickyproxy_backend_parked_pages{{backend={name}}}"]
        assert backend["tunnels"] == scraped[f"stickyproxy_backend_tunnels{{backend={name}}}"]
    assert "failure" in next(x for x in status["backends"] if x["address"] == str(a.address))["trouble"]


async def test_events_have_numbers_and_are_given_from_one_on(stage: Stage) -> None:
    async with staged(stage) as (running, (a, _)):
        everything = await get(running, "/api/v1/events")
        assert [e["kind"] for e in everything["events"]] == ["phase", "start"]
        assert [e["seq"] for e in everything["events"]] == [1, 2]
        await post(running, f"/api/v1/backends/{a.address}/drain", JSON)
        await post(running, f"/api/v1/backends/{a.address}/drain", JSON)
        later = await get(running, "/api/v1/events?after=2")
        assert [(e["seq"], e["kind"], e["backend"]) for e in later["events"]] == [(3, "drain", str(a.address))]
        assert (later["last_event"], later["boot"]) == (3, everything["boot"])
        assert (await get(running, "/api/v1/events?after=3"))["events"] == []
        for wrong in ("-1", "x", "", "9" * 16, "%C2%B2"):
            assert (await running.look(f"/api/v1/events?after={wrong}")).status == 400, wrong


async def test_backends_and_pages_are_listed(stage: Stage) -> None:
    async with staged(stage) as (running, (a, _)):
        assert [x["name"] for x in (await get(running, "/api/v1/backends"))["backends"]].count(str(a.address)) == 1
        pages = await get(running, "/api/v1/pages")
        assert pages["pages"] == 0
        assert {(x["name"], x["pages"]) for x in pages["backends"]} >= {(str(a.address), 0)}
        assert (await get(running, "/api/v1/history"))["samples"][0]["totals"]["requests"] == 0


async def test_a_backend_is_drained_and_taken_back(stage: Stage) -> None:
    async with staged(stage) as (running, (a, b)):
        name = str(a.address)
        answer = await post(running, f"/api/v1/backends/{name}/drain", JSON)
        assert (answer.status, json.loads(answer.body)["drained"]) == (200, True)
        listed = (await get(running, "/api/v1/backends"))["backends"]
        assert {x["name"]: (x["drained"], x["phase"]) for x in listed} == {
            name: (True, "draining"),
            str(b.address): (False, "ready"),
        }
        assert (await post(running, f"/api/v1/backends/{name}/undrain", JSON)).status == 200
        listed = (await get(running, "/api/v1/backends"))["backends"]
        assert not any(x["drained"] for x in listed)
        assert (await post(running, "/api/v1/backends/nobody/drain", JSON)).status == 404
        assert (await post(running, "/api/v1/backends/127.0.0.1/drain", JSON)).status == 400


async def test_only_the_ports_own_page_may_order_from_a_browser(stage: Stage) -> None:
    async with staged(stage) as (running, (a, _)):
        path, own = f"/api/v1/backends/{a.address}/drain", f"Origin: http://{running.admin}"
        refused = {
            "another site's": (JSON, "Origin: http://evil.example", "Sec-Fetch-Site: cross-site"),
            "an older browser's": (JSON, "Origin: http://evil.example"),
            "another port's": (JSON, f"Origin: http://{running.listen}", "Sec-Fetch-Site: same-site"),
        }
        for whose, fields in refused.items():
            assert (await post(running, path, *fields)).status == 403, whose
        assert (await post(running, path, "Content-Type: text/plain", own)).status == 415
        assert (await running.look(path)).status == 405
        assert not any(x["drained"] for x in (await get(running, "/api/v1/backends"))["backends"])
        assert (await post(running, path, JSON, own, "Sec-Fetch-Site: same-origin")).status == 200


async def test_a_hook_is_for_hooks_and_no_browser_can_be_made_to_use_it(stage: Stage) -> None:
    async with staged(stage) as (running, (a, _)):
        for order in ("drain", "undrain"):
            client = await running.client(running.admin)
            line = f"GET /{order}?backend={a.address} HTTP/1.1"
            client.send(request(line, "User-Agent: Mozilla/5.0", "Sec-Fetch-Site: cross-site"))
            assert (await client.message()).status == 403
        assert not any(x["drained"] for x in (await get(running, "/api/v1/backends"))["backends"])
        assert (await running.look(f"/drain?backend={a.address}")).status == 200


async def test_orders_can_be_switched_off(stage: Stage) -> None:
    async with staged(stage, "--admin-actions", "off") as (running, (a, _)):
        assert (await get(running, "/api/v1/status"))["actions"] is False
        for order in ("drain", "undrain"):
            assert (await post(running, f"/api/v1/backends/{a.address}/{order}", JSON)).status == 403
            answer = await running.look(f"/{order}?backend={a.address}")
            assert (answer.status, b"--admin-actions" in answer.body) == (403, True)


# The stream.


async def test_the_stream_tells_events_at_once_and_the_status_every_second(stage: Stage) -> None:
    async with staged(stage) as (running, (a, _)):
        listener = await Listener.begin(running)
        boot = (await get(running, "/api/v1/events"))["boot"]
        assert (await listener.next("event"))[0] == f"{boot}-1"
        assert (await listener.next("event"))[1]["kind"] == "start"
        _, first = await listener.next("status")
        await post(running, f"/api/v1/backends/{a.address}/drain", JSON)
        found, event = await listener.next("event")
        assert (found, event["kind"]) == (f"{boot}-3", "drain")
        _, second = await listener.next("status")
        assert 0 < second["at"] - first["at"] < 3
        assert [x["drained"] for x in second["backends"]].count(True) == 1


async def test_who_comes_back_gets_what_it_missed_and_nothing_twice(stage: Stage) -> None:
    async with staged(stage) as (running, (a, _)):
        listener = await Listener.begin(running)
        await listener.next("event")
        seen, _ = await listener.next("event")
        listener.peer.close()
        await post(running, f"/api/v1/backends/{a.address}/drain", JSON)
        again = await Listener.begin(running, f"Last-Event-ID: {seen}")
        assert (await again.next("event"))[1]["kind"] == "drain"
        for stranger in ("ffffffff-2", "nonsense", "-", f"{seen}9999999999999999"):
            new = await Listener.begin(running, f"Last-Event-ID: {stranger}")
            assert (await new.next("event"))[1]["seq"] == 1, f"another run's: {stranger}"
            new.peer.close()


async def test_listeners_are_bounded_and_their_places_become_free(stage: Stage) -> None:
    async with staged(stage) as (running, _):
        listeners = [await Listener.begin(running) for _ in range(stream_module.MOST_LISTENERS)]
        for listener in listeners:
            await listener.next("status")
        assert (await running.look("/api/v1/stream")).status == 503
        listeners[0].peer.close()
        async with asyncio.timeout(10):
            while True:
                client = await running.client(running.admin)
                client.send(request("GET /api/v1/stream HTTP/1.1", "Connection: close"))
                if (await client.head()).status == 200:
                    break
                await client.gone()


async def test_the_stream_ends_with_the_proxy(stage: Stage) -> None:
    async with staged(stage, "--drain-timeout", "1s") as (running, _):
        listener = await Listener.begin(running)
        await listener.next("status")
        running.process.terminate()
        _, event = await listener.next("event")
        while event["kind"] != "stop":
            _, event = await listener.next("event")
        await listener.peer.gone()
        assert await running.ends() == 0


# Workers.


async def test_what_workers_see_is_told_once_for_all(stage: Stage) -> None:
    a, b = await stage.backend(hello), await stage.backend(hello)
    async with workers("--backend", str(a.address), "--backend", str(b.address)) as running:
        tokens = set()
        for _ in range(20):
            tokens.add((await running.ask(request())).token)
        await a.close()
        listener = await Listener.begin(running)
        for _ in range(3):
            for token in filter(None, tokens):
                assert (await running.ask(request("GET / HTTP/1.1", f"Cookie: stickyproxy={token}"))).status == 200
        kinds: Counter[str] = Counter()
        async with asyncio.timeout(20):  # what two workers saw may be told in two events
            while kinds["moved"] < 3 or not kinds["unreachable"]:
                _, event = await listener.next("event")
                kinds[event["kind"]] += event["count"]
                if event["kind"] == "moved":
                    assert (event["backend"], event["to"], event["cause"]) == (
                        str(a.address),
                        str(b.address),
                        "refused",
                    )
        events = (await get(running, "/api/v1/events"))["events"]
        assert sum(e["count"] for e in events if e["kind"] == "moved") == 3
        assert (await get(running, "/api/v1/status"))["totals"]["moves"]["refused"] == 3


# Logs.


@pytest.mark.parametrize("count", [1, 2])
async def test_every_log_line_is_json_where_that_is_wished(stage: Stage, count: int) -> None:
    a = await stage.backend(hello)
    options = ("--backend", str(a.address), "--log-format", "json", "--log-level", "debug", "--drain-timeout", "1s")
    async with workers(*options, count=count) as running:
        await running.look(f"/drain?backend={a.address}")
        running.process.terminate()
        assert await running.ends() == 0
    lines = [json.loads(line) for line in "".join(running.log).splitlines()]
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in lines)
    events = [line for line in lines if line["logger"] == "stickyproxy.events"]
    assert [e["event"] for e in events] == ["phase", "start", "drain", "stop"]
    drained = events[2]
    assert (drained["backend"], drained["seq"], drained["level"]) == (str(a.address), 3, "info")
