"""A replica whose page tells whether it was kept whole: a log fed by a timer, a counter, an input, and what it counts.

Laws: it runs on every NiceGUI from 2.24 on, with NiceGUI's own `reconnect_timeout`. All state is in the page's own
variables, so that a page that was built again begins with nothing. `/pages` tells what the server knows of each page.
"""

import argparse
import asyncio
import dataclasses
import os
import time
import uuid

from fastapi.responses import PlainTextResponse
from nicegui import Client, app, core, ui

TICK_S = 0.2

LOG_LINES = 100
"""That the log shows. NiceGUI sends the ids of all of them with every line, so that a log without a limit would make
the page's other updates the smaller part of what is sent."""


@dataclasses.dataclass
class Kept:
    """What the server keeps of a page; `pushed` is the last number that went into the log, and so to the browser."""

    serial: str
    client: str
    pushed: int = 0
    clicks: int = 0
    text: str = ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal = os.open(arguments.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pages: list[Kept] = []

    @ui.page("/")
    def page() -> None:
        kept = Kept(uuid.uuid4().hex, ui.context.client.id)
        pages.append(kept)
        os.write(journal, f"page {kept.serial}\n".encode())

        def click() -> None:
            kept.clicks += 1
            clicks.text = str(kept.clicks)

        def tick() -> None:
            kept.pushed += 1
            pushed.text = str(kept.pushed)
            log.push(f"line {kept.pushed}")
            # An update may come twice and show nothing; a script that runs twice is seen.
            ui.run_javascript(f"(window.numbers ??= []).push({kept.pushed})")

        ui.label(arguments.replica).props("data-testid=replica")
        ui.label(kept.serial).props("data-testid=serial")
        pushed = ui.label("0").props("data-testid=pushed")
        clicks = ui.label("0").props("data-testid=count")
        ui.button("+1", on_click=click).props("data-testid=increment")
        ui.input("text").bind_value(kept, "text").props("data-testid=text")
        log = ui.log(max_lines=LOG_LINES).props("data-testid=log").style("height: 6em")
        ui.timer(TICK_S, tick)

    @ui.page("/other")
    def other() -> None:
        ui.label("another page").props("data-testid=other")

    @app.get("/pages")
    def all_pages() -> dict:
        known = [{**dataclasses.asdict(kept), "alive": kept.client in Client.instances} for kept in pages]
        return {"replica": arguments.replica, "pages": known}

    @app.get("/block")
    async def block(seconds: float, beat: bool = False) -> str:
        """Stand still as an app does whose handler blocks; beat: from right after a heartbeat was sent."""
        sockets = core.sio.eio.sockets
        while beat and not any(socket.last_ping for socket in sockets.values()):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        time.sleep(seconds)  # noqa: ASYNC251 - as it should not be done
        return "over"

    @app.get("/small")
    def small() -> PlainTextResponse:
        """Answer what benchmarks/proxies.py asks to see that a proxy is ready and sticky."""
        index = arguments.replica.rpartition("-")[2]
        return PlainTextResponse(f"<p>backend={index}</p>".ljust(200, "."))

    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print("ready", flush=True)

    ui.run(
        host="127.0.0.1",
        port=arguments.port,
        reload=False,
        show=False,
        tailwind=False,
        show_welcome_message=False,
        uvicorn_logging_level="error",
        callback_notify=tell,
    )


if __name__ == "__main__":
    main()
