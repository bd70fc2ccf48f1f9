"""How an option is declared and its value read: by flag, environment or file, with one line for what is wrong.

Law: an option's name is the same everywhere (`--dns-interval`, `STICKYPROXY_DNS_INTERVAL`, `dns-interval` in the file).
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import click

from stickyproxy.core.values import Address, parse_address, parse_duration, parse_size

ENVIRONMENT_PREFIX = "STICKYPROXY_"

MOST_WORKERS = 256

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  recognised, not bound


class Value(click.ParamType[Any]):
    """A value that one of our parsers reads; several in one environment variable stand apart by commas or blanks."""

    def __init__(
        self, name: str, parse: Callable[[str], Any], *, apart: str = r"[,\s]+", numbers: bool = False
    ) -> None:
        self.name = name
        self._parse = parse
        self._apart = apart
        self._numbers = numbers

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text (or, where the file may hold one, a number) into the value."""
        if not isinstance(value, str) and (not self._numbers or type(value) not in (int, float)):
            self.fail(f"expected {'text or a number' if self._numbers else 'text'}, found {value!r}", param, ctx)
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Split what an environment variable holds for an option that may be given several times."""
        return [part for part in re.split(self._apart, rv.strip()) if part]


def parse_admin(text: str) -> Address | None:
    """Parse where the admin port is; None for `off`."""
    return None if text.strip().lower() in ("off", "none", "") else parse_address(text, lowest_port=0)


def parse_local(text: str) -> Address:
    """Parse an address of this machine."""
    host, port = parse_address(text)
    if host in WILDCARDS:  # as in :8000, which here means this machine
        return Address("::1" if ":" in host else "127.0.0.1", port)
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f"expected an address of this machine such as 127.0.0.1:{port}, found {text!r}") from None
    return Address(host, port)


def parse_secret(text: str) -> bytes:
    """Parse a key of at least 8 bytes."""
    if len(text.encode()) < 8:
        raise ValueError(f"expected at least 8 bytes, found {len(text.encode())}")
    return text.encode()


def parse_path(text: str) -> bytes:
    """Parse a path without a query."""
    if not re.match(r"/[!-~]*\Z", text) or "?" in text or "#" in text:
        raise ValueError(f"expected a path that begins with / and has no query, found {text!r}")
    return text.encode()


def parse_prober(text: str) -> str:
    """Parse the beginning of a User-Agent."""
    if not text.strip():
        raise ValueError("expected the beginning of a User-Agent, found nothing: every request would be a probe")
    return text


def parse_keepalive(text: str) -> float:
    """Parse seconds that TCP_KEEPIDLE takes."""
    seconds = parse_duration(text)
    if seconds > 32767:  # TCP_KEEPIDLE, tcp(7)
        raise ValueError(f"expected at most 9h, found {text!r}")
    return seconds


def parse_workers(text: str) -> int:
    """Parse a number of processes; `auto` is one for each usable core."""
    if text.strip().lower() == "auto":
        from stickyproxy.fleet.cores import usable_cores

        return usable_cores()
    if not re.match(r"\s*[1-9][0-9]{0,2}\s*\Z", text) or int(text) > MOST_WORKERS:
        raise ValueError(f"expected auto or a whole number from 1 to {MOST_WORKERS}, found {text!r}")
    return int(text)


def parse_head_bytes(text: str) -> int:
    """Parse a size from 1 KiB to 1 MiB."""
    size = parse_size(text)
    if not 1024 <= size <= 1 << 20:
        raise ValueError(f"expected a size from 1k to 1M, found {text!r}")
    return size


def parse_buffered(text: str) -> int:
    """Parse a size from 1 MiB up: below it, a single slow download would be too much."""
    size = parse_size(text)
    if size < 1 << 20:
        raise ValueError(f"expected a size from 1M up, found {text!r}")
    return size


def parse_kept(text: str) -> int:
    """Parse a size from 64 KiB up: below it, the first update of a large page would be too much."""
    size = parse_size(text)
    if size < 1 << 16:
        raise ValueError(f"expected a size from 64k up, found {text!r}")
    return size


def parse_count(text: str) -> int:
    """Parse a whole number from 1 up."""
    if not re.match(r"\s*[1-9][0-9]{0,8}\s*\Z", text):
        raise ValueError(f"expected a whole number from 1 up, found {text!r}")
    return int(text)


def parse_backend(text: str) -> tuple[Address, bool]:
    """Parse a backend: HOST:PORT, perhaps with a scheme; say whether that is https."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        return parse_address(text), False
    if scheme.lower() not in ("http", "https"):
        raise ValueError(f"expected HOST:PORT, http://HOST:PORT or https://HOST:PORT, found {text!r}")
    return parse_address(rest.removesuffix("/")), scheme.lower() == "https"


def parse_server_name(text: str) -> str:
    """Parse a host's name, or its address, as a certificate names it."""
    host = text.strip().strip("[]")
    bracketed = f"[{host}]" if ":" in host else host
    try:
        return parse_address(f"{bracketed}:1").host if host else ""
    except ValueError:
        raise ValueError(f"expected a host's name or address, found {text!r}") from None


def parse_share(text: str) -> float:
    """Parse a share above 0, up to 1."""
    if not re.match(r"\s*(?:0?\.[0-9]{1,9}|[01](?:\.[0-9]{1,9})?)\s*\Z", text) or not 0 < float(text) <= 1:
        raise ValueError(f"expected a number above 0 and up to 1, found {text!r}")
    return float(text)


BACKEND = Value("[https://]HOST:PORT", parse_backend)
ADDRESS = Value("HOST:PORT", parse_address)
LISTEN = Value("HOST:PORT", lambda text: parse_address(text, lowest_port=0))
DURATION = Value("DURATION", parse_duration, numbers=True)
TEXT = Value("TEXT", str)
COUNT = Value("N", parse_count, numbers=True)
SIZE = Value("SIZE", parse_size, numbers=True)
LIMIT = Value("N", lambda text: 0 if text.strip() == "0" else parse_count(text), numbers=True)


def option(name: str, type_: click.ParamType[Any], default: Any, help_: str, **more: Any) -> Callable[[Any], Any]:
    """Declare one option with its environment variable."""
    variable = ENVIRONMENT_PREFIX + name.upper().replace("-", "_")
    return click.option(
        f"--{name}", type=type_, default=default, help=help_, envvar=variable, show_default=default is not None, **more
    )


def flag(name: str, help_: str) -> Callable[[Any], Any]:
    """Declare one option that is on or off."""
    variable = ENVIRONMENT_PREFIX + name.upper().replace("-", "_")
    return click.option(f"--{name}/--no-{name}", default=False, help=help_, envvar=variable, show_default=True)
