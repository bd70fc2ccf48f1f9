"""One NiceGUI replica of `stickyproxy demo`: a small page that shows who serves it and keeps its state in memory.

Laws:
- All state is plain Python in this process, as in real NiceGUI apps, so a page works only where it was built.
- The page never shows its client id: that is a bearer secret (NiceGUI lets whoever knows it join the page).
- One line `ready` goes to standard output once the server listens; whoever started the replica waits for it.
- Elements that tests look for carry a `data-testid`.

Needs NiceGUI 3.6 or newer.
"""

import argparse
import contextlib
import os
import secrets
import time
from collections import deque
from typing import Final

from nicegui import events, ui

from stickyproxy.tools.children import READY_LINE
from stickyproxy.tools.demo import PALETTE, STORAGE_SECRET_VARIABLE

CHART_SPAN_S: Final = 60
"""Width of the chart in seconds; it has one point for each, and one for now."""

CSS: Final = """
body { background: #f1f5f9; color: #0f172a; }
.nicegui-content { padding: 0; gap: 0; }
.band { width: 100%; background: var(--replica); color: white; padding: 28px 0 64px; }
.inner { width: 100%; max-width: 880px; margin: 0 auto; padding: 0 24px; }
.band .small { opacity: .85; font-size: 14px; }
.band .name { font-size: 44px; font-weight: 700; line-height: 1.15; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 16px;
        padding-bottom: 32px; margin-top: -40px !important; }
.grid .q-card { border-radius: 12px; box-shadow: 0 1px 3px #0f172a26; padding: 20px; gap: 8px; }
@media (min-width: 900px) { .grid .wide { grid-column: span 2; } }
.title { font-size: 13px; color: #64748b; }
.big { font-size: 40px; font-weight: 600; line-height: 1.1; font-variant-numeric: tabular-nums; }
.note { font-size: 14px; color: #475569; overflow-wrap: anywhere; }
.grid .q-uploader { width: 100%; max-height: 140px; box-shadow: none; border: 1px solid #e2e8f0; }
"""


def colour_of(name: str) -> str:
    """Return the CSS colour of the replica `name`; `blue-2` has the colour of `blue`, an unknown name is slate."""
    return PALETTE.get(name.partition("-")[0], PALETTE["slate"])


def human_size(size_bytes: int) -> str:
    """Return a size for people: `640 bytes`, `3.2 MB` (of 1,000,000 bytes)."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"


def human_duration(duration_s: float) -> str:
    """Return a duration for people: `42 s`, `3 min 07 s`."""
    minutes, seconds = divmod(int(duration_s), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def counter_card() -> None:
    """Add the counter: its value exists only in this process's memory, in this closure."""
    clicks = 0

    def click() -> None:
        nonlocal clicks
        clicks += 1
        count.text = str(clicks)

    with ui.card():
        ui.label("Counter, kept in this replica's memory").classes("title")
        count = ui.label("0").classes("big").props("data-testid=count")
        ui.button("+1", on_click=click).props("unelevated data-testid=increment")


def clock_card(replica: str) -> None:
    """Add the server's clock and the time for which this page has lived here."""
    born = time.monotonic()

    def tick() -> None:
        clock.text = time.strftime("%H:%M:%S")
        age.text = f"This page has lived {human_duration(time.monotonic() - born)} on {replica}."

    with ui.card():
        ui.label("Clock, pushed by the server").classes("title")
        clock = ui.label().classes("big").props("data-testid=clock")
        age = ui.label().classes("note").props("data-testid=age")
    tick()
    ui.timer(1.0, tick)


def input_card() -> None:
    """Add an input whose echo makes the way to the server and back."""
    with ui.card():
        ui.label("Input, echoed by the server").classes("title")
        field = ui.input("Type something").props("data-testid=input").style("width: 100%")
        echo = ui.label().classes("note").props("data-testid=echo")
        echo.bind_text_from(field, "value", lambda text: f"The server read: {text}" if text else "Nothing typed yet.")


def upload_card() -> None:
    """Add an upload that tells what arrived."""

    def on_upload(event: events.UploadEventArguments) -> None:
        report.text = f"Received {event.file.name}, {human_size(event.file.size())}."

    with ui.card():
        ui.label("Upload, read by this replica").classes("title")
        ui.upload(on_upload=on_upload, auto_upload=True, label="Drop a file here").props("flat data-testid=upload")
        report = ui.label("Nothing uploaded yet.").classes("note").props("data-testid=upload-report")


def chart_card(colour: str) -> None:
    """Add a live chart of the processor time that this replica uses, in percent of one core."""
    points: deque[float] = deque([0.0] * (CHART_SPAN_S + 1), maxlen=CHART_SPAN_S + 1)
    before = (time.monotonic(), time.process_time())

    def tick() -> None:
        nonlocal before
        now = (time.monotonic(), time.process_time())
        points.append(round(100 * (now[1] - before[1]) / max(now[0] - before[0], 0.001), 1))
        before = now
        chart.options["series"][0]["data"] = list(points)

    with ui.card().classes("wide"):
        ui.label("Processor time of this replica, % of one core, last minute").classes("title")
        chart = ui.echart(
            {
                "animation": False,
                "grid": {"left": 40, "right": 16, "top": 12, "bottom": 24},
                "xAxis": {
                    "type": "category",
                    "boundaryGap": False,
                    "data": [f"{i} s" for i in range(-CHART_SPAN_S, 1)],
                    "axisLabel": {"interval": 14},
                },
                "yAxis": {"type": "value", "min": 0},
                "series": [
                    {
                        "type": "line",
                        "showSymbol": False,
                        "areaStyle": {"opacity": 0.15},
                        "color": colour,
                        "data": list(points),
                    }
                ],
            }
        )
        chart.style("height: 160px; width: 100%").props("data-testid=chart")
    ui.timer(1.0, tick)


def build_page(replica: str) -> None:
    """Build the page of one visitor."""
    colour = colour_of(replica)
    ui.colors(primary=colour)
    ui.add_css(CSS + f":root {{ --replica: {colour}; }}")
    ui.page_title(f"{replica} · stickyproxy demo")
    with ui.element("div").classes("band"), ui.element("div").classes("inner"):
        ui.label("This page lives in the memory of replica").classes("small")
        ui.label(replica).classes("name").props("data-testid=replica")
        ui.label(f"process {os.getpid()}").classes("small").props("data-testid=process")
    with ui.element("div").classes("inner grid"):
        counter_card()
        clock_card(replica)
        input_card()
        upload_card()
        chart_card(colour)


def serve(replica: str, port: int) -> None:
    """Serve the page on 127.0.0.1 until SIGTERM or SIGINT; print `ready` once connections are accepted."""
    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print(READY_LINE, flush=True)  # noqa: T201  (the word that the parent process waits for)

    @ui.page("/")
    def page() -> None:
        build_page(replica)

    ui.run(
        host="127.0.0.1",
        port=port,
        title="stickyproxy demo",
        storage_secret=os.environ.get(STORAGE_SECRET_VARIABLE) or secrets.token_hex(16),
        reload=False,
        show=False,
        tailwind=False,
        show_welcome_message=False,
        uvicorn_logging_level="error",
        callback_notify=tell,
    )


def main() -> None:
    """Read the command line of one replica and serve it."""
    parser = argparse.ArgumentParser(
        prog="python -m stickyproxy.tools.demo_app", description="Serve one replica of the demo."
    )
    parser.add_argument("--port", type=int, required=True, help="port to listen on, on 127.0.0.1")
    parser.add_argument("--replica", required=True, help="name to show, such as: " + ", ".join(PALETTE))
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn shuts down on SIGINT, then raises the signal once more
        serve(arguments.replica, arguments.port)


if __name__ == "__main__":
    main()
