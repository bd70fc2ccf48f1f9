"""`stickyproxy drain`: ask every proxy to let one backend drain, and wait until none has a page of it any more.

Made for an app's preStop hook. In sidecar mode the pod's own proxy is asked, else all that a headless Service's name
resolves to; who does not answer is told, and keeps nobody from waiting for the rest.
"""

import http.client
import json
import socket
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlencode

import click

from stickyproxy.core.values import Address, parse_address, parse_duration
from stickyproxy.tools.parsed import parsed

ANSWER_S = 5.0
"""Seconds for a proxy to answer beyond the time that it was asked to wait."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of each proxy: `undo` takes a drain back; `idle_s` None leaves pages alone."""

    backend: str
    wait_s: float = 0.0
    idle_s: float | None = None
    undo: bool = False

    @property
    def target(self) -> str:
        """Give the request's target."""
        query = {"backend": self.backend}
        if not self.undo and self.wait_s:
            query["wait"] = f"{self.wait_s:g}"
            if self.idle_s is not None:
                query["idle"] = f"{self.idle_s:g}"
        return f"/{'undrain' if self.undo else 'drain'}?{urlencode(query)}"


def resolve(proxies: Iterable[Address]) -> list[Address]:
    """Give all addresses that the names stand for; OSError where one cannot be resolved."""
    found: dict[Address, None] = {}
    for name in proxies:
        for *_, where in socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM):
            found[Address(str(where[0]), name.port)] = None
    return list(found)


def own_address() -> str:
    """Give this pod's address, by which its proxies know it; OSError where its name has none."""
    return str(socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)[0][4][0])


def ask(proxy: Address, order: Order) -> tuple[bool, str]:
    """Ask one proxy; give whether nothing of the backend is open there, and a line for people."""
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=ANSWER_S)
    try:
        connection.connect()
        connection.sock.settimeout(order.wait_s + ANSWER_S)
        connection.request("POST", order.target)
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace").strip()
        if response.status != 200:
            return False, f"{proxy}: {' '.join(body.split())[:300]}"
        left = json.loads(body)
        if order.undo:
            return True, f"{proxy}: {left['backend']} takes new sessions again"
        if left["empty"]:
            return True, f"{proxy}: {left['backend']} drains, nothing of it is open"
        counts = f"{left['pages']} pages, {left['tunnels']} sockets and {left['exchanges']} requests"
        return not order.wait_s, f"{proxy}: {left['backend']} drains, {counts} are open"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return False, f"{proxy}: expected a stickyproxy's admin port, found {reason}"
    finally:
        connection.close()


def drain_everywhere(proxies: Iterable[Address], order: Order, say: Callable[[str], None]) -> bool:
    """Ask all proxies at the same time and say what each answers; give whether all that was asked for is so."""
    try:
        found = resolve(proxies)
    except OSError as error:
        say(f"expected the name of a headless Service or a proxy's address, found none: {error.strerror}")
        return False
    with ThreadPoolExecutor(max_workers=min(64, len(found))) as pool:
        answers = list(pool.map(lambda proxy: ask(proxy, order), found))
    for _, line in answers:
        say(line)
    return all(done for done, _ in answers)


@click.command("drain")
@click.option(
    "--proxy", "proxies", multiple=True, default=("127.0.0.1:9090",), show_default=True, metavar="HOST:PORT",
    callback=parsed(parse_address),
    help="Admin port of a proxy, or of all behind a name (a headless Service). Repeatable.",
)  # fmt: skip
@click.option("--backend", metavar="NAME", help="Name, IP or HOST:PORT of the pod; without it, this very pod.")
@click.option(
    "--wait", default="0", show_default=True, metavar="DURATION", callback=parsed(parse_duration),
    help="Wait until no page of it is open, for so long at the most.",
)  # fmt: skip
@click.option(
    "--idle", metavar="DURATION", callback=parsed(parse_duration),
    help="While waiting, let pages reconnect elsewhere: those without a click for so long first, at the end all.",
)  # fmt: skip
@click.option("--undo", is_flag=True, help="Take a drain back.")
def drain(proxies: tuple[Address, ...], backend: str | None, wait: float, idle: float | None, undo: bool) -> None:
    """Let one replica drain in every proxy: no new sessions, open pages stay.

    Ends with exit code 0 when every proxy did what was asked and, with --wait, no page was left; else with 1.
    """
    if idle is not None and not wait:
        raise click.UsageError("--idle: expected together with --wait, the time within which pages are moved")
    try:
        order = Order(backend or own_address(), wait, idle, undo)
    except OSError as error:
        raise click.UsageError(
            f"--backend: expected the name, IP or HOST:PORT of a pod, since this one's own address cannot be found: "
            f"{error.strerror}"
        ) from None
    if not drain_everywhere(proxies, order, click.echo):
        sys.exit(1)
