"""Serve one NiceGUI replica for ``pageload.py``: a page with a table, markdown, a chart and a few elements.

It prints ``ready`` once it serves and ends when its standard input does, so it cannot outlive the benchmark that holds
the other end. What reached it is counted in a file that it shares with the benchmark (``Counters``): reading that costs
the replica nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import sys
from pathlib import Path
from typing import Final

from nicegui import app, ui
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks import wire

CONNECTED: Final = "connected"
"""Test id of the label that the server fills once the page's socket has shaken hands, and what it then says."""
_RECONNECT_S = 0.2
"""Seconds that NiceGUI keeps a page whose socket is gone. Short, so that one visit is cleared away before the next."""
_CELL_BYTES = 8


class Counters:
    """Numbers in a file, by replica, shared between processes: one writes, others read."""

    HTTP, WEBSOCKETS, BUILT, DELETED = range(4)
    """HTTP requests, WebSocket handshakes, pages built, pages deleted again."""
    _CELLS = 4

    def __init__(self, path: Path, replicas: int) -> None:
        with path.open("r+b") as file:
            file.truncate(replicas * self._CELLS * _CELL_BYTES)
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def add(self, replica: int, which: int) -> None:
        """Count one more."""
        self._cells[replica * self._CELLS + which] += 1

    def total(self, which: int) -> int:
        """Sum a number over the replicas."""
        return sum(self._cells[which :: self._CELLS])


class CountingMiddleware:
    """Count the requests that reach the replica, but not those by which the benchmark sees that a proxy is ready."""

    def __init__(self, inner: ASGIApp, counters: Counters, replica: int) -> None:
        self._inner = inner
        self._counters = counters
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count, and hand on."""
        if scope["type"] == "websocket":
            self._counters.add(self._replica, Counters.WEBSOCKETS)
        elif scope["type"] == "http" and scope["path"] != wire.SMALL_PATH:
            self._counters.add(self._replica, Counters.HTTP)
        await self._inner(scope, receive, send)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", type=int, required=True, help="index of this replica")
    parser.add_argument("--replicas", type=int, required=True, help="how many there are")
    parser.add_argument("--counters", type=Path, required=True)
    options = parser.parse_args()
    counters = Counters(options.counters, options.replicas)
    small = wire.backend_body(options.replica, wire.SMALL_BODY_BYTES).decode()
    told = False

    @app.get(wire.SMALL_PATH)
    def answer() -> PlainTextResponse:
        return PlainTextResponse(small)

    @ui.page("/")
    async def page() -> None:
        counters.add(options.replica, Counters.BUILT)
        client = ui.context.client
        client.on_delete(lambda: counters.add(options.replica, Counters.DELETED))
        _content()
        label = ui.label().props(f"data-testid={CONNECTED}")
        await client.connected()
        label.text = CONNECTED

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print("ready", flush=True)

    app.add_middleware(CountingMiddleware, counters=counters, replica=options.replica)
    app.on_startup(lambda: asyncio.get_running_loop().add_reader(sys.stdin.fileno(), app.shutdown))
    # No storage_secret: the app sets no cookie of its own, by which proxies.py tells that a proxy is sticky.
    ui.run(
        host="127.0.0.1",
        port=options.port,
        reload=False,
        show=False,
        show_welcome_message=False,
        reconnect_timeout=_RECONNECT_S,
        uvicorn_logging_level="error",
        callback_notify=tell,
    )


def _content() -> None:
    """Put on the page what a small dashboard has."""
    with ui.header():
        ui.label("Page load")
        ui.button(icon="menu")
    ui.markdown("**Markdown** with `code`\n\n```python\nprint('highlighted')\n```")
    ui.table(
        columns=[{"name": name, "label": name, "field": name} for name in ("one", "two", "three")],
        rows=[{"one": row, "two": row * row, "three": f"row {row}"} for row in range(20)],
    )
    ui.echart(
        {
            "xAxis": {"type": "category", "data": ["a", "b", "c", "d"]},
            "yAxis": {"type": "value"},
            "series": [{"type": "bar", "data": [1, 4, 9, 16], "animation": False}],
        }
    )
    with ui.row():
        ui.input("Input")
        ui.select(["one", "two"], value="one")
        ui.switch("Switch")
        ui.slider(min=0, max=10, value=5).classes("w-32")


if __name__ == "__main__":
    main()
