"""The Chromium that benchmarks and end-to-end tests share: where it is, and the flags it is started with."""

from __future__ import annotations

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = [
    "--no-sandbox",  # a root user, as in containers, cannot have the sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find() -> str | None:
    """Give the path of the first browser that is installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)
