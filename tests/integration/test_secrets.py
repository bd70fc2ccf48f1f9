"""What is secret is shown nowhere, who is not listed is not reached, and neither port answers for the other."""

import asyncio
from pathlib import Path

import pytest

from stickyproxy.core.backends import Secrets
from stickyproxy.core.settings import Settings

from .command import Command, command, start
from .harness import QUICK, RawBackend, Stage, hello, request, response

SECRET = "hush-hush-0123456789"
OLD = "older-secret-0123456789"
CLIENT = "0b5ae6a2-6a3e-4a53-9c07-1b8a7d5d1f6e"
"""A page's client id: who knows it can take part in the page."""

PAGE = (
    b"HTTP/1.1 200 OK\r\nX-NiceGUI-Content: page\r\nCache-Control: no-store\r\nContent-Type: text/html\r\n"
    b"Content-Length: 2\r\n\r\nok"
)


def app(asked: object) -> bytes:
    return PAGE if getattr(asked, "target", "") == "/" else response(body=b"app")


async def exercise(running: Command) -> list[bytes]:
    """Ask for all there is: pages, sockets, errors of the proxy's own, and the admin port; give all that was said."""
    token = Secrets([SECRET.encode()]).tokens("x")[0].decode()
    heard = []
    for ask in (
        request("GET / HTTP/1.1", "Accept: text/html"),
        request(f"GET /?_stickyproxy={token} HTTP/1.1"),
        request(f"GET /_nicegui_ws/socket.io/?client_id={CLIENT}&tab_id={CLIENT}&EIO=4&transport=polling HTTP/1.1"),
        request("GET / HTTP/1.1", "Cookie: stickyproxy=forged"),
        request("GET / HTTP/1.1", "X A: 1"),
        request("FOO / HTTP/1.1"),
        request("GET /# HTTP/1.1"),
    ):
        message = await running.ask(ask)
        heard.append(message.raw + message.body)
    for target in ("/readyz", "/livez", "/metrics", "/backends", "/app/livez", "/nothing", "/drain?backend=nobody"):
        message = await running.look(target)
        heard.append(message.raw + message.body)
    return heard


@pytest.mark.parametrize("how", ["environment", "file"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_no_secret_is_in_the_log_the_answers_the_metrics_or_the_process_list(
    stage: Stage, tmp_path: Path, how: str, workers: str
) -> None:
    backend = await stage.backend(app)
    path = tmp_path / "secrets"
    path.write_text(f"{SECRET}\n{OLD}\n")
    arguments, environment = ["--secret-file", str(path)], {}
    if how == "environment":
        arguments, environment = [], {"STICKYPROXY_SECRET": f"{SECRET}\n{OLD}"}
    async with command(
        "--backend", str(backend.address), "--log-level", "debug", "--workers", workers, *arguments,
        environment=environment,
    ) as running:  # fmt: skip
        heard = await exercise(running)
        lines = command_lines(running.process.pid)
        assert len(lines) == (1 if workers == "1" else 3)
        await backend.stop_listening()  # errors of the proxy's own
        heard.append((await running.ask(request("GET / HTTP/1.1", "Accept: text/html"))).body)
    everything = b"\n".join([*heard, *lines, *(line.encode() for line in running.log)])
    assert b"serves on" in everything, "the log is among what is looked through"
    for secret in (SECRET, OLD):
        assert secret.encode() not in everything
    assert CLIENT.encode() not in everything


def command_lines(pid: int) -> list[bytes]:
    """Give what the process list shows of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [own, *(line for child in children for line in command_lines(int(child)))]


@pytest.mark.parametrize("arguments", [["--secret", "hu5h"], ["--secret", "hu5h-hu5h-hu5h", "--hold", "never"]])
async def test_an_error_at_the_start_shows_no_secret(arguments: list[str]) -> None:
    process = await start("run", "--backend", "127.0.0.1:1", *arguments)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"expected" in said
    assert b"hu5h" not in said


async def decoy(stage: Stage) -> RawBackend:
    """Give a server that listens and is not listed."""
    return await stage.backend(lambda _: response(body=b"never"))


async def test_no_cookie_query_or_header_reaches_an_address_that_is_not_listed(stage: Stage) -> None:
    backend, other = await stage.backend(hello), await decoy(stage)
    running = await stage.proxy(backend, settings=Settings(times=QUICK, trusted=()))
    address = str(other.address)
    token = Secrets().tokens(address)[0].decode()  # what would name it if it were listed
    for value in (address, token, f'"{address}"', f"http://{address}/", f"{token}; stickyproxy={address}"):
        for ask in (
            request("GET / HTTP/1.1", f"Cookie: stickyproxy={value}"),
            request(f"GET /_nicegui_ws/socket.io/?_stickyproxy={value.replace(' ', '')} HTTP/1.1"),
            request(
                "GET / HTTP/1.1", f"X-Forwarded-For: {value}", f"X-Forwarded-Host: {value}", f"Forwarded: host={value}"
            ),
        ):
            assert (await running.ask(ask)).body == b"hello"
    for line, host in ((f"GET http://{address}/ HTTP/1.1", address), ("GET / HTTP/1.1", address)):
        assert (await running.ask(request(line, f"Host: {host}"))).body == b"hello"
    assert other.connections == 0
    assert len(backend.requests) == 17


async def test_the_token_of_a_backend_that_has_left_the_list_reaches_it_no_more(stage: Stage) -> None:
    backend, left = await stage.backend(hello), await decoy(stage)
    running = await stage.proxy(backend, left)
    cookie = running.cookie(left)
    running.apply(backend.at())
    assert (await running.ask(request("GET / HTTP/1.1", cookie))).body == b"hello"
    assert left.connections == 0


ADMIN_PATHS = [
    "/livez", "/readyz", "/metrics", "/backends", "/drain?backend=x", "/undrain?backend=x", "/app/livez",
    "/app.js", "/api/v1/status", "/api/v1/stream",
]  # fmt: skip


async def test_the_data_port_never_answers_for_the_admin_port_nor_the_other_way_round(stage: Stage) -> None:
    backend = await stage.backend(lambda asked: response(body=b"app:" + asked.target.encode()))
    async with command("--backend", str(backend.address)) as running:
        for path in ADMIN_PATHS:
            assert (await running.ask(request(f"GET {path} HTTP/1.1"))).body == b"app:" + path.encode()
        before = len(backend.requests)
        for path in ("/nope", "/_nicegui_ws/socket.io/", f"//{backend.address}/"):
            assert (await running.look(path)).status == 404
        for path in ("/", f"/?_stickyproxy={'x' * 16}"):  # the dashboard, whatever else is asked
            assert b"<title>stickyproxy" in (await running.look(path)).body
        # A Host of the other port, or the other port as the target, changes nothing.
        client = await running.client(running.admin)
        client.send(request(f"GET http://{running.listen}/a HTTP/1.1", f"Host: {running.listen}", "Connection: close"))
        assert (await client.message()).status == 404
        ask = request(f"GET http://{running.admin}/metrics HTTP/1.1", f"Host: {running.admin}")
        assert (await running.ask(ask)).body == b"app:/metrics"
        assert len(backend.requests) == before + 1


async def test_headers_that_name_an_address_choose_no_backend_for_those_nobody_trusts(stage: Stage) -> None:
    """`--affinity hash` by address: a stranger who could say where it comes from could choose its backend."""
    from stickyproxy.core.affinity import HashKey, KeySource
    from stickyproxy.core.settings import AffinitySettings

    backends = [await stage.backend(lambda _, n=n: response(body=b"%d" % n)) for n in range(4)]  # type: ignore[misc]
    affinity = AffinitySettings(hash_key=HashKey(KeySource.ADDRESS))
    running = await stage.proxy(*backends, settings=Settings(times=QUICK, trusted=(), affinity=affinity))
    names = [f"X-Forwarded-For: 10.0.0.{n}" for n in range(20)] + [f"X-Real-IP: 10.0.0.{n}" for n in range(20)]
    answers = await asyncio.gather(*(running.ask(request("GET / HTTP/1.1", name)) for name in names))
    assert len({answer.body for answer in answers}) == 1
