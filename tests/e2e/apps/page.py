"""A NiceGUI replica for the end-to-end tests: like the demo's, but light, and it keeps a journal.

The journal is a file with one line for each thing that happened, so that a test can count without a connection:
`accept` (a TCP connection came in), `page` (a page was built), `upload SIZE SHA256` (in bytes).
"""

import argparse
import hashlib
import os

from content import download_content
from nicegui import events, ui
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--reconnect-timeout", type=float, default=3.0, help="seconds; NiceGUI's own default is 3")
    arguments = parser.parse_args()
    journal = os.open(arguments.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(line: str) -> None:
        os.write(journal, f"{line}\n".encode())

    class CountingProtocol(HttpToolsProtocol):
        def connection_made(self, transport):
            note("accept")
            super().connection_made(transport)

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

    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print("ready", flush=True)

    ui.run(
        host="127.0.0.1",
        port=arguments.port,
        title="end to end",
        storage_secret="the same in every replica",
        reconnect_timeout=arguments.reconnect_timeout,
        reload=False,
        show=False,
        tailwind=False,
        show_welcome_message=False,
        uvicorn_logging_level="error",
        http=CountingProtocol,
        callback_notify=tell,
    )


if __name__ == "__main__":
    main()
