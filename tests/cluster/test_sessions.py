"""No session is lost to a bad API server or a proxy that is started anew: the bar of 10 minutes and 20 restarts.

Compressed: every other restart of the API server is a real one, the rest are what a client sees of one: every
connection breaks, and new ones are refused for a while. After each the proxy is told by SIGHUP to list now, instead of
waiting out its back-off (10 s at most). The outage lasts for the longest back-off, to which the restarts have brought
it, and an attempt; after that nothing changes any more. That as many attempts as 10 minutes hold do no harm is shown in
test_outages.py.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from integration.command import Command, command
from integration.harness import soon

from .api import Endpoint, Namespace
from .gate import Gate

BACKENDS = ("one", "two", "three")
VISITORS = 12
RESTARTS = 20

LONGEST_BACKOFF_S = 30.0
RECOVERY_S = 30.0


async def hello(request: web.Request) -> web.StreamResponse:
    """Say who this is: once over HTTP, again and again over a WebSocket."""
    name = request.app[NAME]
    if request.headers.get("Upgrade") is None:
        return web.Response(text=name)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"{name} {message.data}")
    return socket


NAME = web.AppKey("name", str)


@asynccontextmanager
async def running_backends(namespace: Namespace) -> AsyncIterator[None]:
    """Run the app's pods, each listed in a slice of its own, since each has a port of its own."""
    async with AsyncExitStack() as stack:
        await namespace.make_service()
        for name in BACKENDS:
            app = web.Application()
            app[NAME] = name
            app.router.add_get("/", hello)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            await namespace.make_slice(f"app-{name}", [Endpoint("10.9.9.9", f"uid-{name}", name)], http=port)
            await namespace.put_slice(f"app-{name}", [Endpoint("127.0.0.1", f"uid-{name}", name)])
        yield


@dataclass
class Visitor:
    """A browser with one tab: a cookie, and a socket that stays open."""

    session: aiohttp.ClientSession
    home: str = ""
    sent: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))
    socket: aiohttp.ClientWebSocketResponse | None = None

    async def load(self, proxy: Command) -> str:
        """Load the page; return who served it."""
        async with self.session.get(f"http://{proxy.listen}/") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def begin(self, proxy: Command) -> None:
        """Load the page and open its socket."""
        self.home = await self.load(proxy)
        self.socket = await self.session.ws_connect(f"http://{proxy.listen}/")

    async def speak(self) -> None:
        """Use the socket that was opened in the beginning."""
        assert self.socket is not None
        word = str(next(self.sent))
        await self.socket.send_str(word)
        assert await soon(self.socket.receive_str()) == f"{self.home} {word}"


@asynccontextmanager
async def visiting(proxy: Command) -> AsyncIterator[list[Visitor]]:
    """Open the page in some browsers, so that each backend has some."""
    async with AsyncExitStack() as stack:
        visitors = []
        for _ in range(VISITORS):
            session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))  # unsafe: of addresses, too
            visitors.append(Visitor(await stack.enter_async_context(session)))
            await visitors[-1].begin(proxy)
        assert {visitor.home for visitor in visitors} == set(BACKENDS)
        yield visitors


async def all_are_at_home(visitors: list[Visitor], proxy: Command) -> None:
    """Every socket still speaks, and every page is still built where it was."""
    for visitor in visitors:
        await visitor.speak()
        assert await visitor.load(proxy) == visitor.home


def options(namespace: Namespace) -> tuple[str, ...]:
    return ("--kubernetes-service", f"{namespace.name}/app")


async def account(namespace: Namespace, *, port: int = 0) -> dict[str, str]:
    """Make the proxy's service account; return the environment of the proxy."""
    await namespace.make_account()
    return {"KUBECONFIG": str(await namespace.write_kubeconfig(port=port))}


@pytest.mark.timeout(240)
async def test_an_outage_and_twenty_restarts_of_the_api_server_break_no_socket_and_move_no_pin(
    namespace: Namespace, gate: Gate
) -> None:
    """Real processes all through; after each restart the proxy follows the API server again."""
    environment = await account(namespace, port=gate.port)
    plane = namespace.plane
    await namespace.make_slice("others", [])
    async with (
        running_backends(namespace),
        command(*options(namespace), environment=environment) as proxy,
    ):
        await proxy.says("is followed")
        async with visiting(proxy) as visitors:
            for number in range(1, RESTARTS + 1):
                if number % 2:
                    plane.stop()
                    await asyncio.gather(plane.start_without_waiting_here(), all_are_at_home(visitors, proxy))
                else:
                    gate.shut()
                    await all_are_at_home(visitors, proxy)
                    gate.open()
                proxy.send(signal.SIGHUP)
                # Some more pods that are not ready yet: only who has listed or watched since then knows of them.
                unready = [
                    Endpoint(f"10.9.0.{n}", f"uid-{n}", f"late-{n}", ready=False, serving=False)
                    for n in range(1, number + 1)
                ]
                await namespace.change_slice("others", unready)
                await proxy.says(f"has {len(BACKENDS) + number} backends")
                await all_are_at_home(visitors, proxy)

            gate.shut()
            for _ in range(int(LONGEST_BACKOFF_S / 0.1)):
                answer = await proxy.look("/readyz")
                if b"cannot reach the API server" in answer.body:
                    break
                await asyncio.sleep(0.1)  # no event: it is logged only where it was not the last thing said
            else:
                pytest.fail(f"has not noticed the outage: {answer.body!r}")
            assert answer.status == 200, "last known good: this proxy still serves"
            await all_are_at_home(visitors, proxy)
            gate.open()
            await namespace.change_slice("others", [])
            await proxy.says(f"has {len(BACKENDS)} backends", bound_s=RECOVERY_S)  # by itself
            await all_are_at_home(visitors, proxy)
        metrics = (await proxy.look("/metrics")).body.decode()
        moved = [line for line in metrics.splitlines() if line.startswith("stickyproxy_pins_total") and "moved" in line]
        assert all(line.endswith(" 0.0") for line in moved), moved


@pytest.mark.timeout(240)
async def test_twenty_restarts_of_the_proxy_move_no_pin(namespace: Namespace) -> None:
    """A token names a pod, not a process of ours: killed and started anew, the proxy sends everybody home."""
    environment = await account(namespace)
    async with running_backends(namespace), AsyncExitStack() as stack:
        async with command(*options(namespace), environment=environment) as proxy:
            await proxy.says("is followed")
            visitors = await stack.enter_async_context(visiting(proxy))
        for _ in range(RESTARTS // 2):
            async with (  # two replicas at a time, as they are deployed
                command(*options(namespace), environment=environment) as left,
                command(*options(namespace), environment=environment) as right,
            ):
                for proxy in (left, right):
                    await proxy.says("is followed")
                    found = await asyncio.gather(*(visitor.load(proxy) for visitor in visitors))
                    assert found == [visitor.home for visitor in visitors]
