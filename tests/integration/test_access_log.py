"""The access log: each request's story in one line, on standard output, without a secret in it."""

import json
import os
import signal
from pathlib import Path
from random import Random
from typing import IO, Any

import pytest

from stickyproxy.core.access_log import LogFormat
from stickyproxy.core.settings import HelpSettings, LogSettings, Settings
from stickyproxy.dataplane.access_log import AccessLog
from stickyproxy.dataplane.log_writer import LogWriter

from .command import command, start
from .harness import QUICK, Message, RawBackend, Running, Stage, eventually, hello, request, response, soon
from .test_nicegui import FOREVER
from .test_tunnel_ends import NORMAL, accept, socket_of
from .workers import children, client_at

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
QUIET = Settings(times=QUICK)


class Lines(LogWriter):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__(-1, lambda: None)
        self.kept: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        self.kept.append(json.loads(line))


async def logged(
    stage: Stage, *backends: RawBackend, settings: Settings = QUIET, sample: float = 1.0
) -> tuple[Running, Lines]:
    running, lines = await stage.proxy(*backends, settings=settings), Lines()
    running.proxy.access_log = AccessLog(LogSettings(LogFormat.JSON, sample), Random(1), lines)
    return running, lines


async def told(lines: Lines, count: int = 1) -> list[dict[str, Any]]:
    """Wait for so many lines, and see that there are no more."""
    await eventually(lambda: len(lines.kept) >= count, f"{count} lines")
    assert len(lines.kept) == count
    return lines.kept


def story(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[key] for key in ("status", "pin", "cause", "backend", "end"))


async def test_a_request_is_told_with_its_pin_its_backend_its_times_and_its_bytes(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend)
    asks = [
        request("GET /orders?token=hunter2 HTTP/1.1", "Cookie: stickyproxy=unknown", f"traceparent: {PARENT}"),
        request("GET / HTTP/1.1", running.cookie(backend)),
        request("GET / HTTP/1.1"),
    ]
    answers = []
    client = await running.client()
    for ask in asks:
        client.send(ask)
        answers.append(await client.message())
    moved, kept, new = await told(lines, 3)
    name = str(backend.address)
    assert story(moved) == (200, "moved", "gone", name, "done")
    assert story(kept) == (200, "kept", None, name, "done")
    assert story(new) == (200, "new", None, name, "done")
    assert (moved["client"], moved["method"], moved["path"]) == ("127.0.0.1", "GET", "/orders?…")
    assert (moved["trace_id"], kept["trace_id"], moved["tunnel"]) == (TRACE, None, False)
    assert [line["received_bytes"] for line in lines.kept] == [len(ask) for ask in asks]
    assert sum(line["sent_bytes"] for line in lines.kept) == running.proxy.counters.sent_bytes
    assert all(0 <= line["connect_ms"] <= line["first_byte_ms"] <= line["total_ms"] for line in lines.kept)
    assert backend.requests[0].get("traceparent") == PARENT, "it is passed on as it came"


async def test_whom_a_trusted_proxy_names_is_the_client(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend)
    await running.ask(request("GET / HTTP/1.1", "X-Forwarded-For: 203.0.113.7"))
    (line,) = await told(lines)
    assert line["client"] == "203.0.113.7"


async def test_a_tunnel_is_told_at_its_end(stage: Stage) -> None:
    backend = await stage.backend()
    running, lines = await logged(stage, backend)
    client = await running.client()
    ask = socket_of("a-secret-page", running.cookie(backend))
    client.send(ask)
    upstream = await accept(client, backend)
    client.send(b"x" * 1000)
    await upstream.exactly(1000)
    assert not lines.kept
    upstream.send(b"y" * 3000)
    await client.exactly(3000)
    upstream.send(NORMAL)
    upstream.close()
    await client.gone()
    client.close()
    (line,) = await told(lines)
    assert story(line) == (101, "kept", None, str(backend.address), "backend")
    assert line["tunnel"] is True
    assert line["path"] == "/_nicegui_ws/socket.io/?…"
    assert line["received_bytes"] == len(ask) + 1000
    assert line["sent_bytes"] > 3000 + len(NORMAL)


async def test_no_secret_of_a_request_is_in_its_line(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend)
    secrets = ["se-client", "se-tab", "se-document", "se-sid", "se-token", "se-cookie", "se-auth", "se-file"]
    client, tab, document, sid, token, cookie, auth, file = secrets
    for target in (
        f"/_nicegui_ws/socket.io/?client_id={client}&tab_id={tab}&document_id={document}&sid={sid}&transport=polling",
        f"/_nicegui/client/{client}/upload/1",
        f"/_nicegui/auto/static/{file}/report.pdf?_stickyproxy={token}",
        f"/page?_stickyproxy={token}&x={auth}",
    ):
        await running.ask(request(f"GET {target} HTTP/1.1", f"Cookie: session={cookie}", f"Authorization: {auth}"))
    text = json.dumps(await told(lines, 4))
    assert not [secret for secret in secrets if secret in text]


async def test_what_the_proxy_answers_itself_is_told_by_its_reason(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend)
    await running.ask(b"nonsense\r\n\r\n")
    await backend.stop_listening()
    await running.ask(request())
    running.apply()
    await running.ask(request())
    bad, refused, none = await told(lines, 3)
    assert (bad["status"], bad["method"], bad["path"], bad["end"]) == (400, None, None, "bad-request-line")
    assert story(refused) == (502, None, None, str(backend.address), "connect-refused")
    assert story(none) == (503, None, None, None, "no-backend")
    assert none["connect_ms"] is None
    assert all(line["sent_bytes"] > 0 for line in lines.kept)


async def test_a_client_that_leaves_and_an_app_that_breaks_off_are_told(stage: Stage) -> None:
    backend = await stage.backend()
    running, lines = await logged(stage, backend)
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    client.reset()
    await upstream.gone()
    upstream.close()
    client = await running.client()
    client.send(request())
    upstream = await backend.accepted()
    await upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await client.head()
    upstream.close()
    await client.gone()
    client.close()
    left, broken = await told(lines, 2)
    assert story(left) == (None, None, None, str(backend.address), "client")
    assert left["first_byte_ms"] is None
    assert story(broken) == (200, "new", None, str(backend.address), "broken-off")


async def test_what_the_cache_answers_names_no_backend(stage: Stage) -> None:
    def asset(_: Message) -> bytes:
        return response("200 OK", FOREVER, "ETag: x", body=b"script")

    caching = Settings(times=QUICK, help=HelpSettings(asset_cache_bytes=1 << 20))
    running, lines = await logged(stage, await stage.backend(asset), settings=caching)
    target = "GET /_nicegui/3.18.0/static/nicegui.js HTTP/1.1"
    for fields in ((), (), ("If-None-Match: x",)):
        await running.ask(request(target, *fields))
    first, hit, unchanged = await told(lines, 3)
    assert first["end"] == "done"
    assert story(hit) == (200, None, None, None, "cache")
    assert story(unchanged) == (304, None, None, None, "cache")


async def test_pipelined_requests_are_told_one_by_one(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend)
    client = await running.client()
    client.send(b"".join(request(f"GET /{number} HTTP/1.1") for number in range(20)))
    for _ in range(20):
        await client.message()
    assert [line["path"] for line in await told(lines, 20)] == [f"/{number}" for number in range(20)]
    assert sum(line["sent_bytes"] for line in lines.kept) == running.proxy.counters.sent_bytes
    assert sum(line["received_bytes"] for line in lines.kept) == running.proxy.counters.received_bytes


async def test_a_sample_is_a_share_by_lot_and_bytes_stay_with_their_requests(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend, sample=0.25)
    client = await running.client()
    ask = request("GET / HTTP/1.1", running.cookie(backend))
    for _ in range(400):
        client.send(ask)
        await client.message()
    assert 60 <= len(lines.kept) <= 140  # by chance less than once in ten thousand runs, and the lot is seeded
    assert {line["received_bytes"] for line in lines.kept} == {len(ask)}
    assert len({line["sent_bytes"] for line in lines.kept}) == 1


async def test_a_probe_is_no_request_to_tell_of(stage: Stage) -> None:
    backend = await stage.backend(hello)
    running, lines = await logged(stage, backend)
    await running.ask(request("GET / HTTP/1.1", "User-Agent: kube-probe/1.30"))
    await running.ask(request())
    assert (await told(lines))[0]["end"] == "done"


# The command.


def writable(path: Path) -> IO[bytes]:
    return path.open("ab")


def read(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


@pytest.mark.parametrize("options", [(), ("--access-log", "off")])
async def test_it_is_off_unless_asked_for(stage: Stage, tmp_path: Path, options: tuple[str, ...]) -> None:
    backend = await stage.backend(hello)
    with writable(tmp_path / "log") as log:
        async with command("--backend", str(backend.address), *options, stdout=log) as running:
            await running.ask(request())
            running.send(signal.SIGTERM)
            assert await running.ends() == 0
    assert read(tmp_path / "log") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_last_line_is_written_before_the_process_ends(
    stage: Stage, tmp_path: Path, number: signal.Signals
) -> None:
    backend = await stage.backend(hello)
    with writable(tmp_path / "log") as log:
        async with command("--backend", str(backend.address), "--access-log", "text", stdout=log) as running:
            for path in range(20):
                assert (await running.ask(request(f"GET /{path}%0a HTTP/1.1"))).status == 200
            running.send(number)
            assert await running.ends() == 0
    lines = read(tmp_path / "log")
    assert [line.split(" ")[3] for line in lines] == [f"/{path}%0a" for path in range(20)]
    assert {len(line.split(" ")) for line in lines} == {11}


async def test_workers_write_whole_lines_to_one_pipe(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend(hello)
    with writable(tmp_path / "log") as log:
        options = ("--backend", str(backend.address), "--access-log", "json", "--workers", "2")
        async with command(*options, stdout=log) as running:
            pids = children(running.process.pid)
            for pid in pids:
                client = await client_at(running, pid)
                for path in range(200):
                    client.send(request(f"GET /{pid}/{path} HTTP/1.1"))
                    await client.message()
                client.close()
            running.send(signal.SIGTERM)
            assert await running.ends() == 0
    paths = sorted(json.loads(line)["path"] for line in read(tmp_path / "log"))
    assert paths == sorted(f"/{pid}/{path}" for pid in pids for path in range(200))


async def test_a_reader_that_takes_nothing_holds_nobody_up_and_the_drops_are_counted(stage: Stage) -> None:
    backend = await stage.backend(hello)
    options = ("--backend", str(backend.address), "--access-log", "json")
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb") as unread:
        await drops(options, unread)


async def drops(options: tuple[str, ...], unread: IO[bytes]) -> None:
    async with command(*options, stdout=unread) as running:
        client = await running.client()
        ask = request(f"GET /{'x' * 700} HTTP/1.1")
        dropped = b"stickyproxy_access_log_dropped_total 0.0"
        for _ in range(40):
            client.send(ask * 500)
            for _ in range(500):
                assert (await client.message()).status == 200
            if dropped not in (await running.look("/metrics")).body:
                break
        assert dropped not in (await running.look("/metrics")).body
        client.close()
        running.send(signal.SIGTERM)
        assert await running.ends() == 0, "whoever does not read does not keep the process"


@pytest.mark.parametrize("value", ["0", "1.1", "-1", "many", "1e-3"])
async def test_a_share_that_is_none_is_refused(value: str) -> None:
    process = await start("run", "--backend", "127.0.0.1:1", "--access-log-sample", value)
    _, said = await soon(process.communicate(), bound_s=20)
    assert process.returncode == 2
    assert b"--access-log-sample" in said
    assert b"expected a number above 0 and up to 1" in said
