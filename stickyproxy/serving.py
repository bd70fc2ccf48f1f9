"""Serve by settings that somebody has read, or say why not."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from stickyproxy.core.settings import ServiceSettings


def serve(
    settings: ServiceSettings, arguments: Sequence[str], read: Callable[[Sequence[str]], ServiceSettings]
) -> None:
    """Serve until told to stop; ends the process with exit code 2 where that cannot begin.

    arguments: of `run`, by which a new version would be started, and which `read` reads again for a reload.
    """
    from stickyproxy import app

    try:
        app.run(settings, lambda: read(arguments), ["run", *arguments])
    except app.SettingsError as error:
        refuse(str(error))


def refuse(problem: str, code: int = 2) -> NoReturn:
    """End the process with one line that says why; an older version that waits for us to take over hears it too."""
    sys.stderr.write(f"stickyproxy: {problem}\n")
    if "STICKYPROXY_INHERIT" in os.environ:
        from stickyproxy.fleet.listeners import ListenError, inherit
        from stickyproxy.fleet.upgrade import tell

        with suppress(ListenError, OSError):
            if (control := inherit(os.environ).control) is not None:
                tell(control, {"failed": problem})
    sys.exit(code)
