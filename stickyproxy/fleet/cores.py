"""How many cores this process may use: those that the scheduler lets it run on, within the container's limit."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Count the cores, at least 1; of a limit of 1.5 cores two workers make more than one.

    The limit is that of the container's control group, as the container sees it: `cpu.max` (version 2), or
    `cpu.cfs_quota_us` (version 1).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit(cgroup / "cpu.max") or _limit(cgroup / "cpu/cpu.cfs_quota_us", cgroup / "cpu/cpu.cfs_period_us")
    return max(1, min(cores, math.ceil(limit))) if limit else cores


def _limit(*files: Path) -> float | None:
    """Read microseconds of CPU per period; None where there is no limit, or none that can be read."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
