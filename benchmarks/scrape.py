"""What a scrape of /metrics costs with many backends: ``python -m benchmarks.scrape``.

A real proxy with a static list; its answer is timed over HTTP, and its CPU read from the kernel.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

BAR_S = 0.1
"""A scrape of 1,000 backends takes no longer."""

START_BOUND_S = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape", description=__doc__)
    parser.add_argument("--backends", type=int, default=1000, help="default 1000")
    parser.add_argument("--scrapes", type=int, default=20, help="default 20")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "proxy.toml"
        backends = [f"127.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:9" for n in range(1, options.backends + 1)]
        config.write_text(f"backend = {backends!r}\n".replace("'", '"'))
        with (
            socket.socket() as main_port,
            socket.socket() as admin_port,
        ):  # bound: nobody else gets them
            for port in (main_port, admin_port):
                port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                port.bind(("127.0.0.1", 0))
            listen, admin = (f"127.0.0.1:{port.getsockname()[1]}" for port in (main_port, admin_port))
            command = [sys.executable, "-m", "stickyproxy", "run", "--config", str(config), "--log-level", "error"]
            process = subprocess.Popen([*command, "--listen", listen, "--admin", admin])
            try:
                return measure(f"http://{admin}/metrics", process.pid, options.backends, options.scrapes)
            finally:
                process.kill()
                process.wait()


def measure(url: str, pid: int, backends: int, scrapes: int) -> int:
    """Scrape again and again."""
    end = time.monotonic() + START_BOUND_S
    while True:
        try:
            text = scrape(url)
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    took, spent = [], []
    for _ in range(scrapes):
        began, before = time.perf_counter(), cpu_s(pid)
        text = scrape(url)
        took.append(time.perf_counter() - began)
        spent.append(cpu_s(pid) - before)
    median = statistics.median(took)
    print(
        f"a scrape of {backends:,} backends: {median * 1000:.0f} ms "
        f"(median of {scrapes}; worst {max(took) * 1000:.0f} ms), "
        f"{statistics.mean(spent) * 1000:.0f} ms of CPU, {len(text) / 1000:.0f} kB; bar: {BAR_S * 1000:.0f} ms"
    )
    return 0 if median <= BAR_S else 1


def scrape(url: str) -> bytes:
    """Give the text of one scrape."""
    with urllib.request.urlopen(url, timeout=10) as response:
        text: bytes = response.read()
    return text


def cpu_s(pid: int) -> float:
    """Give the CPU seconds of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
