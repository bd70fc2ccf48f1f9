"""Start `run`: a child process reads the command line, so that what it loads for that leaves with it.

Why: click and the declarations of all options take 1.2 MiB, which a process that serves for weeks would keep. A reload
loads them then. Laws: the process that was started is the one that serves; where the child finds no settings it has
said why, and its exit code is ours.
"""

import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import NoReturn

from stickyproxy.core.settings import ServiceSettings
from stickyproxy.serving import serve


def run(arguments: Sequence[str]) -> NoReturn:
    """Serve by the settings that a child finds in the arguments of `run`; ends the process."""
    reader, writer = os.pipe()
    child = os.fork()  # before there is any thread
    if not child:
        os.close(reader)
        from stickyproxy.cli import main

        main(["run", *arguments], partial(_hand_over, writer))
    os.close(writer)
    try:
        import_module("stickyproxy.app")  # meanwhile
        with open(reader, "rb") as pipe:
            found = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        sys.exit(130)  # as shells count; the child has heard of it too
    if code or not found:  # the child has shown the help, or said what is wrong
        sys.exit(code if code >= 0 else 128 - code)
    serve(pickle.loads(found), arguments, _read)  # noqa: S301  it comes from our own child
    sys.exit(0)


def _hand_over(writer: int, settings: ServiceSettings, arguments: Sequence[str]) -> None:
    with suppress(BrokenPipeError), open(writer, "wb") as pipe:  # who waited for it may have been ended meanwhile
        pickle.dump(settings, pipe)


def _read(arguments: Sequence[str]) -> ServiceSettings:
    from stickyproxy.cli import read_settings

    return read_settings(arguments)
