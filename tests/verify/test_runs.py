"""What a run does to the app, what stands in its way, and what is told of other apps than NiceGUI's."""

import asyncio
import gzip
import os
import pty
import signal
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from e2e.harness import ROOT, Replica, addresses, running_proxy, running_replicas, total
from e2e.prepared import prepared_python
from multidict import CIMultiDict

from stickyproxy.tools.verify.checks_web import check_upload
from stickyproxy.tools.verify.seen import Seen
from stickyproxy.tools.verify.web import Clock, Options, Web

from . import proxies
from .conftest import APP, run_verify
from .middle import Wrong, middle

CERTIFICATE = ROOT / "tests" / "fakes" / "loopback.crt", ROOT / "tests" / "fakes" / "loopback.key"

FORGOTTEN_S = 30.0
"""For NiceGUI to forget closed pages: 3 s, and up to some 10 s more where a poll was cut."""

QUICK = ("--idle", "0")


@pytest.fixture
def own_replica(replicas: list[Replica], tmp_path: Path) -> Iterator[Replica]:
    """Yield a replica for this test alone, so that all of its pages are this test's."""
    with running_replicas(1, tmp_path, app=APP) as (replica,):
        yield replica


async def forgotten(replica: Replica) -> int:
    """Wait until a replica has forgotten all pages that it built; give how many that were."""
    async with asyncio.timeout(FORGOTTEN_S):
        while (counts := replica.counts())["page"] != counts["gone"]:  # noqa: ASYNC110  another process writes
            await asyncio.sleep(0.1)
    return counts["page"]


async def test_no_more_pages_are_opened_than_said_and_the_app_forgets_them(own_replica: Replica) -> None:
    report = await run_verify(f"http://{own_replica.address}/", "--visitors", "5", *QUICK)
    assert report.said["pages"] == {"opened": 6, "not_closed": 0}
    assert await forgotten(own_replica) == 6


async def test_refused_pages_are_closed_too(replicas: list[Replica], ports: list[int]) -> None:
    before = total(replicas)["page"]
    async with middle(ports, Wrong()) as proxy:
        report = await run_verify(proxy.url, "--visitors", "4", *QUICK)
    assert report.code == 1
    opened = total(replicas)["page"] - before
    assert report.said["pages"]["opened"] == opened <= 6 * 4 + 4


async def test_an_interrupt_closes_all_pages(own_replica: Replica) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stickyproxy", "verify", f"http://{own_replica.address}/", "--idle", "60s", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(FORGOTTEN_S):
        # What follows the last page: one whose answer is under way at the interrupt is left to the app, for 60 s.
        while not own_replica.counts()["post"]:  # noqa: ASYNC110  another process writes
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), FORGOTTEN_S)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    assert await forgotten(own_replica) == 9


async def test_a_replica_that_is_replaced_meanwhile_is_no_fault(ports: list[int]) -> None:
    """All pages of the first replica are lost at one moment, and none of the second's."""
    async with middle(ports, Wrong(fails_once_after=8)) as proxy:
        report = await run_verify(proxy.url, *QUICK)
    assert report.ids("fault") == set()
    assert report.ids("doubt") == {"rare-refusal"}
    assert report.code == 2


async def test_polls_of_a_page_that_says_much_are_read(ports: list[int]) -> None:
    """NiceGUI packs long polls twice: Engine.IO does, and Starlette does it again."""
    report = await run_verify(f"http://127.0.0.1:{ports[0]}/busy", *QUICK)
    assert report.code == 0
    assert "32 of 32 sockets were accepted: 8 of new pages and 24 after a cut" in report.said["proof"]


CODINGS = {
    "none": [], "one": ["gzip"], "two in one line": ["gzip, deflate"], "two in two lines": ["deflate", "gzip"],
    "three": ["gzip", "gzip, gzip"], "none that does something": ["identity"],
}  # fmt: skip


@pytest.mark.parametrize("name", CODINGS)
async def test_whatever_an_answer_is_packed_with_is_undone(name: str) -> None:
    async def pack(request: web.Request) -> web.Response:
        body, headers = b"text " * 300, CIMultiDict[str]()
        for line in CODINGS[name]:
            headers.add("Content-Encoding", line)
            for coding in line.split(", "):
                body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(body)
        return web.Response(body=body, headers=headers)

    async with serving(pack) as url:
        visitor = Web(Options(url), Clock())
        answer = await visitor.ask(url)
        await visitor.close()
    assert answer.problem == ""
    assert answer.text == "text " * 300


@pytest.mark.parametrize(
    ("coding", "id", "said"),
    [("gzip", "unreachable", "not gzip, as it says"), ("br", "not-nicegui", "without NiceGUI's marks")],
)
async def test_an_answer_that_cannot_be_unpacked_is_told(coding: str, id: str, said: str) -> None:
    async def lie(request: web.Request) -> web.Response:
        return web.Response(body=b"no such thing", headers={"Content-Encoding": coding})

    async with serving(lie) as url:
        report = await run_verify(url, *QUICK)
    assert (report.code, report.ids()) == (2, {id})
    assert said in report.evidence(id)


@pytest.mark.parametrize(("failures", "status"), [(0, 405), (2, 405), (9, 502)])
async def test_an_upload_is_called_broken_only_where_it_breaks_each_time(failures: int, status: int) -> None:
    """Who passes a body on to an app that has refused it already may say 502 (nginx does, now and then)."""
    asked = 0

    async def refuse(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=502 if asked <= failures else 405)

    async with serving(refuse) as url:
        visitor, seen = Web(Options(url, upload_bytes=1000), Clock()), Seen(url, 1)
        await check_upload(seen, visitor, url.rstrip("/"), "3.18.0")
        await visitor.close()
    assert seen.upload is not None
    assert seen.upload.status == status
    assert asked == min(failures + 1, 3)


async def test_few_visitors_prove_nothing(ports: list[int]) -> None:
    async with middle(ports, Wrong(fixed=True)) as proxy:
        report = await run_verify(proxy.url, "--visitors", "2", *QUICK)
    assert (report.code, report.ids("doubt")) == (2, {"few-visitors"})


# What stands in the way.


async def test_https_with_a_private_certificate_and_an_app_that_does_not_know_of_it(
    ports: list[int], tmp_path: Path
) -> None:
    with proxies.nginx(tmp_path, ports, tls=CERTIFICATE) as url:
        untrusted = await run_verify(url, *QUICK)
        insecure = await run_verify(url, "--insecure", *QUICK)
        trusted = await run_verify(url, "--ca", str(CERTIFICATE[0]), *QUICK)
    assert (untrusted.code, untrusted.ids()) == (2, {"unreachable"})
    assert "the certificate is not trusted" in untrusted.evidence("unreachable")
    for report in (insecure, trusted):
        assert report.code == 0
        assert report.ids("warning") == {"redirect-scheme", "cookie-insecure"}
        assert report.evidence("cookie-insecure") == "the cookie session"


async def test_http_login_is_named_and_passed_with_user(ports: list[int]) -> None:
    secret = "hunter2-and-more"
    async with middle(ports, Wrong(login=f"me:{secret}", fixed=True)) as proxy:
        without = await run_verify(proxy.url, *QUICK)
        wrong = await run_verify(proxy.url, "--user", "me:wrong", *QUICK)
        right = await run_verify(proxy.url, *QUICK, environment={"STICKYPROXY_VERIFY_USER": f"me:{secret}"})
    for report in (without, wrong):
        assert (report.code, report.ids("doubt")) == (2, {"login"})
        assert report.evidence("login") == "answered 401 (Basic)"
    assert right.code == 0
    assert secret not in right.text


async def test_a_login_elsewhere_is_named_and_passed_with_a_cookie_that_stays_here(ports: list[int]) -> None:
    seen: list[web.Request] = []

    async def sso(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(text="<form><input type=password></form>", content_type="text/html")

    async with serving(sso) as login, middle(ports, Wrong(sends_away=f"{login}?state=secret", fixed=True)) as proxy:
        cookie = ("--cookie", "other=kept-secret", "--header", "X-Key: kept-secret")
        without = await run_verify(proxy.url, *cookie, *QUICK)
        right = await run_verify(proxy.url, *cookie, "--cookie", "session_of_sso=kept-secret", *QUICK)
    assert (without.code, without.ids("doubt")) == (2, {"login"})
    assert right.code == 0
    assert seen
    assert all("X-Key" not in request.headers for request in seen)
    assert b"X-Key: kept-secret" in proxy.heads[-1]
    assert "secret" not in without.text + right.text


async def test_a_login_page_of_the_app_is_checked_and_called_so(ports: list[int]) -> None:
    async with middle(ports, Wrong(fixed=True)) as proxy:
        report = await run_verify(f"{proxy.url}private", *QUICK)
    assert report.code == 0
    assert "login-checked" in report.ids("note")
    assert report.evidence("login-checked") == "the address led to /login"


async def test_a_path_that_the_app_does_not_know_could_not_be_told(ports: list[int]) -> None:
    report = await run_verify(f"http://127.0.0.1:{ports[0]}/no-such-page", *QUICK)
    assert (report.code, report.ids()) == (2, {"unreachable"})
    assert "/no-such-page answered 404" in report.evidence("unreachable")


async def test_https_where_only_http_is_spoken_is_said_so(ports: list[int]) -> None:
    report = await run_verify(f"https://127.0.0.1:{ports[0]}/", *QUICK)
    assert (report.code, report.ids()) == (2, {"unreachable"})
    said = report.evidence("unreachable")
    assert said.startswith(f"no TLS with 127.0.0.1:{ports[0]} (")
    assert said.endswith("; is it http:// there?")


async def test_nobody_there_could_not_be_told() -> None:
    async with serving(None) as url:
        pass
    report = await run_verify(url)
    assert (report.code, report.ids()) == (2, {"unreachable"})
    assert report.evidence("unreachable").endswith(": Connection refused")


PAGE = b"""<script src="http://[/"></script><script src="http://a:b/"></script><script src="x.js"></script>`), {
        version: "9.9.9",
        prefix: "",
        query: {'client_id': 'x', 'next_message_id': 0, 'implicit_handshake': True},
        extraHeaders: {},
        transports: ['websocket', 'polling'],
"""


def head(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines, b"", body])


HOSTILE: dict[str, tuple[bytes, set[str]]] = {
    "garbage": (b"\x00\xff\x16\x03\x01" * 50 + b"\r\n\r\n", {"unreachable"}),
    "nothing": (b"", {"unreachable"}),
    "half an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", {"unreachable"}),
    "bytes that are no text": (head(bytes(range(256))), {"not-nicegui"}),
    "a circle": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", {"unreachable"}),
    "a place that is none": (
        b"HTTP/1.1 302 Found\r\nLocation: http://[/\r\nContent-Length: 0\r\n\r\n",
        {"unreachable"},
    ),
    "a page for everything": (head(PAGE), {"no-upgrade"}),
    "an open packet for everything": (head(b'0{"sid":1,"pingInterval":"x"}' + PAGE), {"no-upgrade"}),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_whatever_is_answered_there_is_a_report(name: str) -> None:
    answer, expected = HOSTILE[name]

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        report = await run_verify(
            f"http://127.0.0.1:{port}/", "--visitors", "3", "--upload", "1k", "--stream-path", "/s"
        )
    assert report.ids("fault", "doubt") >= expected
    assert report.code == (1 if report.ids("fault") else 2)


# Other apps.


@asynccontextmanager
async def serving(handler: object) -> AsyncIterator[str]:
    """Run an app of aiohttp's that answers everything by one handler."""
    app = web.Application()
    if handler is not None:
        app.router.add_route("*", "/{_:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def plain_app(request: web.Request) -> web.StreamResponse:
    if request.path == "/ws":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket
    return web.Response(text="<p>no NiceGUI</p>", content_type="text/html")


async def test_of_other_apps_only_the_websocket_is_told() -> None:
    async with serving(plain_app) as url:
        without = await run_verify(url)
        with_path = await run_verify(url, "--ws-path", "/ws", "--idle", "2s")
        wrong_path = await run_verify(url, "--ws-path", "/nothing", *QUICK)
    for report in (without, with_path):
        assert (report.code, report.ids()) == (2, {"not-nicegui"})
    assert "8 of 8 plain WebSockets opened" in with_path.said["proof"]
    assert any("2 WebSockets stayed open through 2 s" in line for line in with_path.said["proof"])
    assert (wrong_path.code, wrong_path.ids("fault")) == (1, {"no-upgrade"})


async def test_a_plain_websocket_that_is_cut_while_silent_is_measured(ports: list[int], tmp_path: Path) -> None:
    with proxies.nginx(tmp_path, ports, read_timeout="2s") as url:
        report = await run_verify(f"{url}plain", "--ws-path", "/echo", "--idle", "5s")
    assert report.ids("fault") == {"idle-cut"}
    assert "2 of 2 silent WebSockets ended after 2." in report.evidence("idle-cut")


async def test_a_terminal_shows_a_bar_and_a_table(ports: list[int]) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    async with middle(ports, Wrong(fixed=True)) as proxy:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stickyproxy", "verify", proxy.url, *QUICK, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        out, _ = await asyncio.wait_for(process.communicate(), FORGOTTEN_S)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "8 visitors come" in shown
    assert shown.endswith("\x1b[K")
    lines = out.decode().splitlines()
    assert "sticky: every page kept its process" in lines
    assert any(line.startswith("step ") for line in lines)


@pytest.mark.extended
@pytest.mark.parametrize("version", ["1.4.37", "2.24.2", "3.6.0"])
@pytest.mark.timeout(900)
async def test_older_versions_are_known_as_well(version: str, tmp_path: Path) -> None:
    python = prepared_python(f"nicegui-{version}")
    app = ROOT / "tests" / "e2e" / "apps" / "classic.py"
    with running_replicas(2, tmp_path, app=app, python=python) as running:
        with running_proxy(tmp_path, addresses(running)) as proxy:
            sound = await run_verify(proxy.url, "--idle", "6s")
        async with middle([replica.port for replica in running], Wrong()) as spreading:
            broken = await run_verify(spreading.url, *QUICK)
    assert (sound.code, sound.said["app"]["nicegui"]) == (0, version)
    assert sound.ids("fault", "doubt") == set()
    assert broken.code == 1
    assert "socket-elsewhere" in broken.ids("fault")
