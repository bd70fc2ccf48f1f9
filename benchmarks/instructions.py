"""What a request makes the interpreter do, in instructions: ``python -m benchmarks.instructions``.

One request and its response go through the data plane's protocols in one process, without sockets, under callgrind.
Laws: the figure is a difference of two runs, so that starting costs nothing; it does not depend on who else uses the
machine, and differs by some 0.2 % from run to run, so that it shows what a clock does not. It counts neither system
calls nor the event loop, and holds for one version of Python only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import wire
from stickyproxy.core.backends import Backend
from stickyproxy.core.settings import Settings
from stickyproxy.core.values import Address
from stickyproxy.dataplane.downstream import Downstream
from stickyproxy.dataplane.proxy import Proxy
from stickyproxy.dataplane.upstream import Upstream

_WARM, _COUNTED = 400, 2000
"""Requests that do not count, in which the interpreter adapts its code, and those that do."""

_BOUND_S = 300.0


class _Socket(asyncio.Transport):
    """Takes everything that is written at once, and forgets it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Forget."""

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Know no limits."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Know nothing."""
        return default


async def _drive(requests: int, *, varied: bool) -> None:
    proxy = Proxy(Settings(), random.Random(1))
    proxy.apply([Backend.at(Address("127.0.0.1", 9))])
    (backend,) = proxy.snapshot.backends
    cookie = f"stickyproxy={proxy.snapshot.token_of(backend).decode()}"
    heads = [wire.request(wire.SMALL_PATH, 80, cookie, "/one"), wire.request(wire.SMALL_PATH, 80, cookie, "/two")]
    body, date = wire.backend_body(0, wire.SMALL_BODY_BYTES), "Thu, 01 Jan 1970 00:00:00 GMT"
    etags = [f"{number:032x}" for number in range(wire.VARIED_ANSWERS)] if varied else [""]
    answers = [wire.response(body, date, etag) for etag in etags]
    pool = proxy.pool_of(backend)
    upstream, downstream = Upstream(pool), Downstream(proxy, b"127.0.0.1")
    upstream.connection_made(_Socket())
    downstream.connection_made(_Socket())
    pool.put(upstream, proxy.time())
    for number in range(requests):
        downstream.data_received(heads[number % 2 if varied else 0])
        upstream.data_received(answers[number % len(answers)])
    if sum(proxy.counters.requests) != requests:
        raise AssertionError(f"{sum(proxy.counters.requests)} of {requests} requests were answered")


def _collected(requests: int, *, varied: bool) -> int:
    """Count the instructions of a process that serves so many requests."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    arguments = ["-m", "benchmarks.instructions", "--drive", str(requests), *(["--varied"] if varied else [])]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command + arguments, env=environment, capture_output=True, text=True, timeout=_BOUND_S, check=True
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"expected a line with Collected from valgrind, found {done.stderr[-500:]!r}")
    return int(found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and print; 1 without valgrind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--varied", action="store_true", help="neither requests nor answers repeat header lines")
    parser.add_argument("--drive", type=int, metavar="N", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.drive is not None:
        asyncio.run(_drive(options.drive, varied=options.varied))
        return 0
    if shutil.which("valgrind") is None:
        print("expected valgrind, found none; apt-get install valgrind", file=sys.stderr)
        return 1
    more = _collected(_WARM + _COUNTED, varied=options.varied) - _collected(_WARM, varied=options.varied)
    print(f"{round(more / _COUNTED)} instructions for each request and its response")
    return 0


if __name__ == "__main__":
    sys.exit(main())
