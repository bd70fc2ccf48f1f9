"""Processes that never outlive the one which started them, not even if that is killed by SIGKILL."""

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Final

LEASH: Final = """
import os, signal, sys
for number in filter(None, sys.argv[2].split(",")):
    signal.signal(int(number), signal.SIG_IGN)  # exec keeps it
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL; exec keeps it
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)  # the parent died before the leash was on
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Program that has the kernel kill it when its parent dies, then becomes the command behind its parent's pid.

A `preexec_fn` would do the same, but is unsafe in a parent with threads (Python 3.12 warns of it)."""


def leashed(command: Sequence[str], ignored: Iterable[signal.Signals] = ()) -> list[str]:
    """Return `command` so that it is killed when this process dies. Linux binds this to the thread that starts it.

    ignored: signals that it begins to ignore before anything else.
    """
    numbers = ",".join(str(int(number)) for number in ignored)
    return [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), numbers, *command]
