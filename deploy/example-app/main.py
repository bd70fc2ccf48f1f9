"""A NiceGUI app as it should be to run in several replicas: what it needs is at the end of the file."""

import os
import socket

from nicegui import app, ui

REPLICA = os.environ.get("HOSTNAME") or socket.gethostname()


@app.get("/healthz")
def healthz() -> str:
    """Answer probes: a plain route, since a GET of a page would build one."""
    return "ok"


@ui.page("/")
def index() -> None:
    """Show which replica holds the page, a state of the page's own, and one of the user's."""
    app.storage.user["visits"] = app.storage.user.get("visits", 0) + 1
    clicks = 0

    def click() -> None:
        nonlocal clicks
        clicks += 1
        count.set_text(f"{clicks} clicks on this page")

    with ui.card():
        ui.label(f"This page lives on {REPLICA}").classes("text-h5")
        ui.button("Click", on_click=click)
        count = ui.label("0 clicks on this page")
        ui.label(f"You have opened it {app.storage.user['visits']} times")


ui.run(
    host=os.environ.get("HOST", "0.0.0.0"),  # noqa: S104  every address: the proxy comes from another pod
    port=int(os.environ.get("PORT", "8080")),
    storage_secret=os.environ["STORAGE_SECRET"],  # the same in every replica
    title="NiceGUI behind stickyproxy",
    reload=False,
    show=False,
)
