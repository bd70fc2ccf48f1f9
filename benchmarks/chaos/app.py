"""A light NiceGUI replica: one page with a counter that lives in this process and nowhere else."""

from __future__ import annotations

import argparse

from nicegui import app, ui


def main() -> None:
    """Serve until told to stop; print `ready` once connections are accepted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", required=True)
    arguments = parser.parse_args()

    @ui.page("/")
    def page() -> None:
        clicks = 0

        def click() -> None:
            nonlocal clicks
            clicks += 1
            count.text = str(clicks)

        ui.label(arguments.replica).props("data-testid=replica")
        count = ui.label("0").props("data-testid=count")
        ui.button("+1", on_click=click).props("data-testid=increment")
        ui.link("link", "#")  # brings a component, which only replicas have that have built the page

    async def tell() -> None:
        print("ready", flush=True)

    app.on_startup(tell)
    ui.run(
        host="127.0.0.1",
        port=arguments.port,
        reload=False,
        show=False,
        show_welcome_message=False,
        uvicorn_logging_level="error",
        title="chaos",
        storage_secret="the same in every replica",
        tailwind=False,
    )


main()
