"""A NiceGUI replica for the end-to-end tests: like the demo's, but light, and it keeps a journal.

The journal is a file with one line for each thing that happened, so that a test can count without a connection:
`accept` (a TCP connection came in), `page` (a page was built), `upload SIZE SHA256` (in bytes), and for requests below
`/_nicegui/` their kind and status: `asset 200 PATH`, `auto 200 PATH` (files and downloads that a page registered).
"""

import argparse
import hashlib
import os
from pathlib import Path

import fastapi
import uvicorn
from content import download_content, picture, tone
from nicegui import app, events, ui
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DECOY = "query: {'client_id': '%s-4000-4000-8000-000000000000'}, \"client_id\": `${x}`"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--reconnect-timeout", type=float, default=3.0, help="seconds; NiceGUI's own default is 3")
    parser.add_argument("--mount", default="", help="path below which a FastAPI app mounts NiceGUI (ui.run_with)")
    parser.add_argument("--transports", default="websocket,polling", help="what the browser may use, in order")
    parser.add_argument("--nested", action="store_true", help="give the socket query parameters of the app's own")
    arguments = parser.parse_args()
    journal = os.open(arguments.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    folder = Path(arguments.journal).parent

    def note(line: str) -> None:
        os.write(journal, f"{line}\n".encode())

    def file(name: str, content: bytes) -> Path:
        """Return a file whose path is the same in all replicas, as in the pods of one image."""
        path = folder / name
        if not path.exists():
            path.with_suffix(f".{os.getpid()}").write_bytes(content)
            path.with_suffix(f".{os.getpid()}").rename(path)
        return path

    class CountingProtocol(HttpToolsProtocol):
        def connection_made(self, transport):
            note("accept")
            super().connection_made(transport)

    class NotingMiddleware:
        def __init__(self, inner):
            self.inner = inner

        async def __call__(self, scope, receive, send):
            _, _, path = scope.get("path", "").partition("/_nicegui/")
            kind = {"auto": "auto", "client": ""}.get(path.partition("/")[0], "asset")

            async def noting_send(message):
                if message["type"] == "http.response.start":
                    note(f"{kind} {message['status']} {path}")
                await send(message)

            await self.inner(scope, receive, noting_send if scope["type"] == "http" and path and kind else send)

    @ui.page("/")
    def page() -> None:
        note("page")
        clicks = 0

        def click() -> None:
            nonlocal clicks
            clicks += 1
            count.text = str(clicks)

        async def on_upload(event: events.UploadEventArguments) -> None:
            content = await event.file.read()
            note(f"upload {len(content)} {hashlib.sha256(content).hexdigest()}")
            report.text = f"{event.file.name} {len(content)}"

        ui.label(arguments.replica).props("data-testid=replica")
        count = ui.label("0").props("data-testid=count")
        ui.button("+1", on_click=click).props("data-testid=increment")
        ui.upload(on_upload=on_upload, auto_upload=True)
        report = ui.label().props("data-testid=upload-report")
        ui.button("Download", on_click=lambda: ui.download.content(download_content(), "numbers.bin")).props(
            "data-testid=download"
        )
        numbers = file("numbers.bin", download_content())
        ui.button("Download file", on_click=lambda: ui.download.file(numbers)).props("data-testid=download-file")
        ui.link("Site", "/site").props("data-testid=to-site")

    @ui.page("/site")
    @ui.page("/site/{_:path}")
    def site() -> None:
        ui.label(arguments.replica).props("data-testid=replica")
        ui.link("Inner", "/site/inner").props("data-testid=to-inner")
        ui.button("Home", on_click=lambda: ui.navigate.to("/")).props("data-testid=to-home")
        ui.sub_pages({"/site": lambda: part("outer"), "/site/inner": lambda: part("inner")})

    def part(name: str) -> None:
        ui.label(name).props("data-testid=part")

    @ui.page("/cold")
    def cold() -> None:
        note("page")
        ui.label(arguments.replica).props("data-testid=replica")
        ui.table(columns=[{"name": "a", "label": "A", "field": "a"}], rows=[{"a": "cell of the table"}])
        ui.markdown("**bold** `code`\n\n```python\nprint('markdown')\n```")
        ui.leaflet(center=(51.505, -0.09))
        ui.image(file("picture.png", picture())).classes("w-32")
        ui.audio(file("tone.wav", tone()))

    @ui.page("/decoy")
    def decoy() -> None:
        ui.add_head_html(f"<script>/* {DECOY % '00000000'} */</script>")
        ui.add_body_html(f"<template>\n        {DECOY % '11111111'},\n        query: {{'a': 1}},\n</template>")
        ui.label(DECOY % "22222222")
        ui.label(f"\n        {DECOY % '33333333'}")
        page()

    @ui.page("/broken")
    def broken() -> None:
        raise RuntimeError("this page is meant to fail")

    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print("ready", flush=True)

    app.add_middleware(NotingMiddleware)
    app.config.socket_io_js_transports = arguments.transports.split(",")
    if arguments.nested:
        own = {"tenant": "it's {x}", "nested": {"a": {"b": [1, None]}, "client_id": "decoy"}, "z": '"}'}
        app.config.socket_io_js_query_params.update(own)
    look = {"title": "end to end", "storage_secret": "the same in every replica", "tailwind": False}
    look |= {"reconnect_timeout": arguments.reconnect_timeout, "show_welcome_message": False}
    server = {"host": "127.0.0.1", "port": arguments.port, "http": CountingProtocol, "callback_notify": tell}
    if arguments.tls:  # one PEM file with the key and the certificate
        server |= {"ssl_certfile": arguments.tls, "ssl_keyfile": arguments.tls}
    if arguments.mount:
        outer = fastapi.FastAPI()
        ui.run_with(outer, mount_path=arguments.mount, **look)
        uvicorn.Server(uvicorn.Config(outer, log_level="error", **server)).run()
    else:
        ui.run(reload=False, show=False, uvicorn_logging_level="error", **look, **server)


if __name__ == "__main__":
    main()
