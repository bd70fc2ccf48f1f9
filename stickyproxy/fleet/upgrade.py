"""SIGUSR2: start the new version on the very same sockets, and leave when it serves.

Laws: what works now goes on working until the new version says that it serves; the two speak JSON lines, since they
are of two versions; the new one is told the pages last, so that browsers without cookies find their replicas.
"""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence

from stickyproxy.core.news import News, PageNews
from stickyproxy.fleet.listeners import handed_down

READY_S = 60.0
"""Seconds that the new version may take to serve: longer than discovery and imports take on a crowded machine."""

_LONGEST_LINE = 1 << 28


class UpgradeError(Exception):
    """The new version does not serve; the text says why."""


async def upgrade(
    arguments: Sequence[str],
    listen: Sequence[socket.socket],
    admin: Sequence[socket.socket],
    known: Callable[[], Awaitable[News]],
    *,
    ready_s: float = READY_S,
) -> tuple[int, str]:
    """Start the new version; return its pid and version when it serves, UpgradeError where it does not.

    arguments: of `stickyproxy`. known: gives what the new version shall know.
    """
    if os.getpid() == 1:
        raise UpgradeError(
            "expected to run as another process than 1, whose end is its container's end; roll out a new image instead"
        )
    ours, theirs = socket.socketpair()
    # As we were started: by the console script, or as a module.
    program = ["-m", "stickyproxy"] if sys.argv[0].endswith("__main__.py") else [sys.argv[0]]
    command = [sys.executable, *program, *arguments]
    process = None
    try:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220, S603  it lives on without us
                command,
                stdin=subprocess.DEVNULL,
                env=os.environ | handed_down(listen, admin, theirs),
                pass_fds=[s.fileno() for s in (*listen, *admin, theirs)],
            )
        except OSError as error:
            raise UpgradeError(f"{sys.executable} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE)
        try:
            version = await _await_service(reader, ready_s)
            writer.write(_line(_written(await known())))
            async with asyncio.timeout(ready_s):
                await writer.drain()
        finally:
            writer.close()
    except (UpgradeError, ConnectionError, TimeoutError) as error:
        if process is not None:
            process.kill()
            await asyncio.get_running_loop().run_in_executor(None, process.wait)
        raise UpgradeError(str(error) or "it does not take what it is told") from None
    process.returncode = 0  # whatever becomes of it is not ours to wait for
    return process.pid, version


async def _await_service(reader: asyncio.StreamReader, ready_s: float) -> str:
    try:
        async with asyncio.timeout(ready_s):
            line = await reader.readline()
    except TimeoutError:
        raise UpgradeError(f"it does not serve within {ready_s:g} s") from None
    try:
        said = json.loads(line) if line else {}
    except ValueError:
        said = {}
    if "ready" in said:
        return str(said["ready"])
    raise UpgradeError(str(said.get("failed", "it ended before it served; what it wrote stands above")))


def tell(control: socket.socket, said: dict[str, str]) -> None:
    """Tell the older version something: that we serve, or why not."""
    control.setblocking(True)
    control.sendall(_line(said))


async def take_over(control: socket.socket, hear: Callable[[News], None], log: logging.Logger) -> None:
    """Take in what the older version knows, once we have told it that we serve."""
    control.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=control, limit=_LONGEST_LINE)
    try:
        async with asyncio.timeout(READY_S):
            line = await reader.readline()
        news = _read(json.loads(line))
        hear(news)
        log.info("taken over from the older version: %d pages and %d files", len(news.pages), len(news.files))
    except (TimeoutError, ConnectionError, ValueError, KeyError, TypeError) as error:
        log.warning("the older version does not say what it knows (%s); cookies and tokens decide", error or "too late")
    finally:
        writer.close()


def _written(news: News) -> dict[str, list[list[str]]]:
    return {
        "pages": [[page.decode("latin-1"), n.identity, n.version.decode("latin-1")] for page, n in news.pages.items()],
        "files": [[path.decode("latin-1"), identity] for path, identity in news.files.items()],
    }


def _read(said: dict[str, list[list[str]]]) -> News:
    pages = {
        page.encode("latin-1"): PageNews(identity, None, version.encode("latin-1"))
        for page, identity, version in said["pages"]
    }
    return News(pages, {path.encode("latin-1"): identity for path, identity in said["files"]})


def _line(said: object) -> bytes:
    return json.dumps(said).encode() + b"\n"
