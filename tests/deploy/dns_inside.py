"""`--dns` against a real DNS server; run by `test_dns.py` in a network and mount namespace of its own.

There port 53 is free, the loopback interface has the addresses of a private IPv6 network, and `/etc/resolv.conf` names
the server of the test, so that the system's resolver asks it as it would ask that of a platform.
"""

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.command import Command, command
from integration.harness import request, soon

ONE, TWO, THREE, FOUR = "fdaa::1", "fdaa::2", "fdaa::3", "127.0.1.4"
NAME, PORT, SERVER = "my-app.internal", 8080, "127.0.0.53"


def call(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"


@pytest.fixture(scope="module", autouse=True)
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set up what this namespace needs: addresses, and a resolver that asks the server of the test; give its file."""
    call("ip", "link", "set", "lo", "up")
    for address in (ONE, TWO, THREE):
        call("ip", "address", "add", f"{address}/128", "dev", "lo", "nodad")
    folder = tmp_path_factory.mktemp("etc")
    for name, text in {
        "resolv.conf": f"nameserver {SERVER}\noptions timeout:1 attempts:1\n",
        "nsswitch.conf": "hosts: files dns\n",
    }.items():
        (folder / name).write_text(text)
        call("mount", "--bind", str(folder / name), str(Path("/etc", name).resolve()))
    return folder / "resolv.conf"


class Nameserver:
    """dnsmasq, which knows one name."""

    def __init__(self, folder: Path) -> None:
        self._records = folder / "records"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *addresses: str) -> None:
        self._write(addresses)
        self._process = await asyncio.create_subprocess_exec(
            "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll",
            "--bind-interfaces", f"--listen-address={SERVER}", "--local=/internal/", f"--addn-hosts={self._records}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await self._says("read ")

    async def become(self, *addresses: str) -> None:
        """Answer with other addresses from now on; none: the name does not exist."""
        assert self._process is not None
        self._write(addresses)
        self._process.send_signal(signal.SIGHUP)
        await self._says("read ")

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await soon(self._process.communicate())

    def _write(self, addresses: Iterable[str]) -> None:
        self._records.write_text("".join(f"{address} {NAME}\n" for address in addresses))

    async def _says(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        said = []
        while text not in (line := (await soon(self._process.stderr.readline())).decode()):
            assert line, f"dnsmasq ended:\n{''.join(said)}"
            said.append(line)


@pytest.fixture
async def nameserver(tmp_path: Path) -> AsyncIterator[Nameserver]:
    server = Nameserver(tmp_path)
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture(autouse=True)
async def machines() -> AsyncIterator[None]:
    """Serve on every address; each answers with its own."""

    def serve(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await soon(reader.readuntil(b"\r\n\r\n"))
            body = name.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            writer.close()
            await soon(writer.wait_closed())

        return answer

    servers = [await asyncio.start_server(serve(name), name, PORT) for name in (ONE, TWO, THREE, FOUR)]
    try:
        yield
    finally:
        for server in servers:
            server.close()
            await soon(server.wait_closed())


@asynccontextmanager
async def proxy() -> AsyncIterator[Command]:
    async with command("--dns", f"{NAME}:{PORT}", "--dns-interval", "50ms", "--slow-start", "0") as running:
        yield running


async def visit(running: Command, cookie: str = "") -> tuple[str, str]:
    """Visit with a cookie or without; give the machine that answered and the cookie that was set."""
    message = await running.ask(
        request("GET / HTTP/1.1", "Connection: close", *([f"Cookie: {cookie}"] if cookie else []))
    )
    assert message.status == 200, message
    return message.body.decode(), next(iter(message.all("set-cookie")), "").partition(";")[0]


async def first_visits(running: Command, count: int) -> dict[str, str]:
    """Visit as strangers, who are spread evenly; give each machine's cookie."""
    return dict([await visit(running) for _ in range(count)])


async def test_both_families_of_one_name_are_the_backends_and_they_follow_its_records(nameserver: Nameserver) -> None:
    await nameserver.start(ONE, FOUR)
    async with proxy() as running:
        said = "".join(running.log)
        if "has 2 addresses" not in said:
            await running.says(f"has 2 addresses: {FOUR}, {ONE}")
        cookies = await first_visits(running, 8)
        assert cookies.keys() == {ONE, FOUR}
        assert all(cookies.values())

        await nameserver.become(ONE, TWO, FOUR)
        await running.says(f"has 3 addresses: {FOUR}, {ONE}, {TWO}")
        assert (await first_visits(running, 12)).keys() == {ONE, TWO, FOUR}
        assert await visit(running, cookies[ONE]) == (ONE, ""), "who was there stays"
        ready = await running.look("/readyz")
        assert f"backend [{ONE}]:{PORT}: ready" in ready.body.decode()

        await nameserver.become(TWO, THREE)
        await running.says(f"has 2 addresses: {TWO}, {THREE}")
        name, cookie = await visit(running, cookies[ONE])
        assert name in {TWO, THREE}
        assert cookie not in {"", cookies[ONE]}, "the machine is gone, so its visitor is bound to another"
        assert await visit(running, cookie) == (name, "")


async def test_a_name_that_vanishes_and_a_server_that_dies_empty_nothing(nameserver: Nameserver) -> None:
    await nameserver.start(ONE, TWO)
    async with proxy() as running:
        if "has 2 addresses" not in "".join(running.log):
            await running.says("has 2 addresses")
        (name, cookie), *_ = (await first_visits(running, 4)).items()

        await nameserver.become()
        await running.says("cannot resolve .*; keeping the last 2 addresses")
        assert await visit(running, cookie) == (name, "")
        assert "discovery: DNS my-app.internal:8080: PROBLEM: " in (await running.look("/readyz")).body.decode()

        await nameserver.become(ONE, TWO)
        await running.says("resolves again")
        await nameserver.stop()
        await running.says("cannot resolve .*; keeping the last 2 addresses")
        assert await visit(running, cookie) == (name, "")

        await nameserver.start(ONE, TWO, THREE)
        await running.says("has 3 addresses")
        assert await visit(running, cookie) == (name, "")


@pytest.fixture
def patient(network: Path) -> Iterator[None]:
    """Let the resolver wait for longer than any test."""
    impatient = network.read_text()
    network.write_text(f"nameserver {SERVER}\noptions timeout:30 attempts:3\n")
    yield
    network.write_text(impatient)


@pytest.mark.usefixtures("patient")
async def test_a_server_that_falls_silent_holds_up_neither_visitors_nor_the_end(nameserver: Nameserver) -> None:
    await nameserver.start(ONE, TWO)
    async with proxy() as running:
        if "has 2 addresses" not in "".join(running.log):
            await running.says("has 2 addresses")
        (name, cookie), *_ = (await first_visits(running, 4)).items()
        await nameserver.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((SERVER, 53))
            silent.setblocking(False)
            await soon(asyncio.get_running_loop().sock_recv(silent, 512))  # it asks, and waits for long
            assert await visit(running, cookie) == (name, "")
            running.send(signal.SIGTERM)
            assert await running.ends(bound_s=20) == 0, "it does not wait for the resolver, for 90 s"


async def test_a_name_that_appears_after_the_start_makes_it_ready(nameserver: Nameserver) -> None:
    await nameserver.start()
    async with proxy() as running:
        assert (await running.look("/readyz")).status == 503
        await nameserver.become(THREE)
        await running.says(f"has 1 addresses: {THREE}")
        assert (await running.look("/readyz")).status == 200
        assert (await visit(running))[0] == THREE
