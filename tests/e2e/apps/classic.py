"""A replica that runs on every NiceGUI from 1.4 on. Its journal has a line `page SERIAL` for each page it built."""

import argparse
import os
import uuid

from nicegui import app, ui


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--transports", default="websocket,polling", help="what the browser may use, in order")
    arguments = parser.parse_args()
    journal = os.open(arguments.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @ui.page("/")
    def page() -> None:
        serial = uuid.uuid4().hex
        os.write(journal, f"page {serial}\n".encode())
        clicks = 0

        def click() -> None:
            nonlocal clicks
            clicks += 1
            count.text = str(clicks)

        ui.label(arguments.replica).props("data-testid=replica")
        ui.label(serial).props("data-testid=serial")
        count = ui.label("0").props("data-testid=count")
        ui.button("+1", on_click=click).props("data-testid=increment")
        told = ui.label().props("data-testid=told-serial")
        ui.button("Serial?", on_click=lambda: told.set_text(serial)).props("data-testid=ask-serial")

    app.config.socket_io_js_transports = arguments.transports.split(",")
    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print("ready", flush=True)

    ui.run(
        host="127.0.0.1",
        port=arguments.port,
        storage_secret="the same in every replica",
        reload=False,
        show=False,
        tailwind=False,
        show_welcome_message=False,
        uvicorn_logging_level="error",
        callback_notify=tell,
    )


if __name__ == "__main__":
    main()
