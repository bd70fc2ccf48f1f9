"""A NiceGUI replica of the lab. Its journal has a line for each page it built (`page`) and forgot (`gone`).

And `post` for each POST to a file of NiceGUI's: `verify` sends them when it has loaded all pages.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import WebSocket
from fastapi.responses import RedirectResponse, StreamingResponse
from nicegui import app, ui
from starlette.types import ASGIApp, Receive, Scope, Send


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal = os.open(arguments.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Noting:
        """ASGI middleware, which passes everything on untouched."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(".js"):
                os.write(journal, b"post\n")
            await self.app(scope, receive, send)

    app.add_middleware(Noting)

    @ui.page("/")
    @ui.page("/tools/app")
    def page() -> None:
        os.write(journal, b"page\n")
        ui.context.client.on_delete(lambda: os.write(journal, b"gone\n"))
        ui.label(arguments.replica)
        ui.button("+1")
        ui.table(columns=[{"name": "a", "label": "A", "field": "a"}], rows=[{"a": "cell"}])
        ui.upload()

    @ui.page("/busy")
    def busy() -> None:
        label = ui.label()
        ui.timer(0.1, lambda: label.set_text(os.urandom(1000).hex()))

    @ui.page("/login")
    def login() -> None:
        ui.input("Password", password=True)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(8):
                yield f"data: {number}\n\n".encode()
                await asyncio.sleep(0.25)

        return StreamingResponse(pieces(), media_type="text/event-stream")

    @app.get("/private")
    async def private() -> RedirectResponse:
        return RedirectResponse("/login")

    @app.get("/plain")
    async def plain() -> dict[str, str]:
        return {"replica": arguments.replica}

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print("ready", flush=True)

    ui.run(
        host="127.0.0.1", port=arguments.port, storage_secret="the same in every replica", reload=False, show=False,
        tailwind=False, show_welcome_message=False, uvicorn_logging_level="error", callback_notify=tell,
    )  # fmt: skip


if __name__ == "__main__":
    main()
