"""Ask the Linux kernel: CPU time, memory and processes of a proxy, the cores we may use, the machine's facts.

CPU time is the POSIX process clock (``clock_getcpuclockid(3)``): nanoseconds, user and system, of all threads that
live or have ended. ``utime`` and ``stime`` of ``/proc/PID/stat`` count the same in ticks of 10 ms, and
``/proc/PID/task/*/schedstat`` forgets threads that ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LIBC = ctypes.CDLL(None, use_errno=True)
_STOP_S = 3.0
"""Seconds a process gets between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core runs what; with fewer than three, generator and backends share one, with one all do."""

    proxy: int
    load: int
    backend: int


def choose_cores() -> Cores:
    """Choose from the cores this process may use; the proxy gets the last one for itself."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(proxy=usable[-1], load=usable[0], backend=usable[1 if len(usable) > 2 else 0])


def pin(core: int) -> None:
    """Pin the calling process, and the children and threads it starts later, to ``core``."""
    os.sched_setaffinity(0, {core})


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one (children inherit it), and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def session_pids(session: int) -> list[int]:
    """List the processes of a session: a proxy started as its leader, and all its children."""
    pids = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            # A process may end between the listing and the reading.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # proc(5), after the command, which may hold blanks and parentheses: state, ppid, pgrp, session.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    pids.append(int(entry.name))
    return sorted(pids)


def cpu_clocks(pids: Iterable[int]) -> list[int]:
    """Return the ids of the CPU clocks of processes, for ``cpu_ns``; raises ``ProcessLookupError``."""
    clocks = []
    for pid in pids:
        clock = ctypes.c_int()
        error = _LIBC.clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock))
        if error:
            raise ProcessLookupError(error, os.strerror(error), str(pid))
        clocks.append(clock.value)
    return clocks


def cpu_ns(clocks: Iterable[int]) -> int:
    """Sum CPU clocks: nanoseconds, user and system, since the processes began."""
    return sum(time.clock_gettime_ns(clock) for clock in clocks)


def rss_bytes(pids: Iterable[int]) -> int:
    """Sum the resident memory (``VmRSS``) of processes; pages they share count once for each, as ``ps`` shows it."""
    total = 0
    for pid in pids:
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024  # proc(5) says kB and means KiB
    return total


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its session, and its children: SIGTERM, and SIGKILL after 3 s."""
    signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        pass  # what did not end in order is killed below, with the children that outlived their parent
    finally:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()


def end_on_sigterm() -> None:
    """End on SIGTERM the way Ctrl-C does: through every ``finally``, so that nothing is left running."""

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group; one that has ended already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def facts(cores: Cores) -> dict[str, object]:
    """Describe the machine as far as it explains the figures; no names and no paths."""
    model = ""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "core_of": {"proxy": cores.proxy, "load": cores.load, "backend": cores.backend},
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
