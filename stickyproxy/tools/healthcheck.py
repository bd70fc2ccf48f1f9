"""`stickyproxy healthcheck`: ask a proxy on this machine whether it is well, for container engines without a curl.

Laws: the standard library only, since it is started every few seconds; one line on standard output and exit code 0
(well) or 1 (not well, or nobody answers); it ends within `TIMEOUT_S`, whatever the other side does.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from stickyproxy.core.values import Address, parse_address

SUMMARY: Final = "Ask the admin port whether the proxy is ready; exit code 0 or 1 and one line."

DEFAULT_ADMIN: Final = "127.0.0.1:9090"  # as `run`

TIMEOUT_S: Final = 3.0
"""For the whole question, below the time that the Dockerfile's HEALTHCHECK gives."""

MOST_BYTES: Final = 65536
"""Of an answer: /readyz has a line for each backend, and only the first is wanted."""

ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where to ask a server that listens on every address."""


class Verdict(NamedTuple):
    """Whether it is well, and one line that says so."""

    well: bool
    text: str


def main(arguments: Sequence[str]) -> NoReturn:
    """Check, say, and end the process."""
    parser = _Parser(prog="stickyproxy healthcheck", description=SUMMARY, allow_abbrev=False)
    parser.add_argument(
        "--admin", metavar="HOST:PORT",
        help="the admin port of `stickyproxy run` (default: its settings in the environment, STICKYPROXY_ADMIN or "
        f"the file that STICKYPROXY_CONFIG names, else {DEFAULT_ADMIN})",
    )  # fmt: skip
    parser.add_argument(
        "--live", action="store_true", help="ask /livez instead of /readyz: well as soon as the proxy answers"
    )
    options = parser.parse_args(arguments)
    try:
        verdict = ask(find_admin(options.admin, os.environ), "/livez" if options.live else "/readyz", TIMEOUT_S)
    except ValueError as error:
        verdict = Verdict(False, f"not asked: {error}")
    sys.stdout.write(f"{verdict.text}\n")
    sys.exit(0 if verdict.well else 1)


def find_admin(given: str | None, environment: Mapping[str, str]) -> Address:
    """Find the admin port as `run` does: flag, environment, file, default. ValueError names the setting."""
    where, text = "--admin", given
    if text is None:
        where, text = "STICKYPROXY_ADMIN", environment.get("STICKYPROXY_ADMIN")
    if text is None and (path := environment.get("STICKYPROXY_CONFIG")):
        where, text = f"admin in {path!r}", _from_file(path)
    if text is None:
        where, text = "--admin", DEFAULT_ADMIN
    if text.strip().lower() in ("off", "none", ""):
        raise ValueError(f"{where}: expected the admin port to ask, found it switched off")
    try:
        address = parse_address(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Address(ANY_HOST.get(address.host, address.host), address.port)


def ask(admin: Address, path: str, timeout_s: float) -> Verdict:
    """Ask; never raises, and never takes much longer than the time given."""
    end = time.monotonic() + timeout_s
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {admin}\r\nUser-Agent: stickyproxy-healthcheck\r\nConnection: close\r\n\r\n"
    )
    answer = b""
    try:
        with socket.create_connection(admin, timeout_s) as connection:
            connection.sendall(request.encode("ascii"))
            while len(answer) < MOST_BYTES:
                connection.settimeout(max(end - time.monotonic(), 0.001))
                data = connection.recv(MOST_BYTES)
                if not data:
                    break
                answer += data
    except TimeoutError:
        return Verdict(False, f"no answer from {admin} within {timeout_s:g} s: the proxy hangs")
    except OSError as error:
        reason = error.strerror or error
        return Verdict(False, f"no answer from {admin}: {reason}; expected `stickyproxy run` with --admin there")
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    status = head.split("\r\n", 1)[0].split(" ")
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or not status[1].isdecimal():
        return Verdict(False, f"no HTTP answer from {admin}, found {answer[:40]!r}: another program has this port")
    said = body.strip().splitlines()
    return Verdict(status[1] == "200", said[0] if said else f"{path} answered {status[1]} and said nothing")


def _from_file(path: str) -> str | None:
    import tomllib  # only who has a file pays for it

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file).get("admin")
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"STICKYPROXY_CONFIG: cannot read {path!r}: {error}") from None
    return None if found is None else str(found)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all of stickyproxy's commands do."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        sys.exit(2)
