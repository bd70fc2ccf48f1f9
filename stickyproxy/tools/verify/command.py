"""The command `stickyproxy verify`: options, the run, the report, the exit code."""

import asyncio
import re
import shutil
import ssl
import sys
import time
from random import SystemRandom
from urllib.parse import quote, urlsplit, urlunsplit

import click

from stickyproxy.core.values import parse_duration, parse_size
from stickyproxy.tools.parsed import parsed
from stickyproxy.tools.verify.findings import verdict
from stickyproxy.tools.verify.progress import Bar
from stickyproxy.tools.verify.report import in_json, in_words
from stickyproxy.tools.verify.rules import judge
from stickyproxy.tools.verify.run import run
from stickyproxy.tools.verify.web import Options

MOST_VISITORS = 100


def parse_url(text: str) -> str:
    """Parse the address of a page; without a scheme http is meant on this machine, and https everywhere else."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        here = re.match(r"(?:localhost|127\.[0-9.]+|\[::1\])(?::|/|\Z)", text)
        text = f"{'http' if here else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        wrong = parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or re.search(r"\s", text):
        raise ValueError(f"expected the address of a page such as https://app.example/, found {text!r}")
    if parts.username is not None:
        raise ValueError("expected an address without a password: give --user NAME")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~")
    return urlunsplit((parts.scheme.lower(), parts.netloc, path, parts.query, ""))


def parse_header(text: str) -> tuple[str, str]:
    """Parse `NAME: VALUE`."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name) or re.search(r"[\r\n\0]", value):
        raise ValueError("expected a header such as 'Authorization: Bearer TOKEN', found something else")
    return name, value.strip()


def parse_cookie(text: str) -> tuple[str, str]:
    """Parse `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name) or re.search(r"[;\s]", value):
        raise ValueError("expected one cookie such as NAME=VALUE, found something else")
    return name, value


def parse_path(text: str) -> str:
    """Parse a path, with a query if it has one."""
    if not re.fullmatch(r"/[!-~]*", text) or "#" in text:
        raise ValueError(f"expected a path that begins with /, found {text!r}")
    return text


def make_context(ca: str | None, insecure: bool) -> ssl.SSLContext | bool:
    """Give how certificates are checked: by the system's authorities, by a file's, or not at all."""
    if insecure:
        return False
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.BadParameter(
            f"expected a file of certificates (PEM), found {ca!r}: {reason}", param_hint="--ca"
        ) from None


@click.command("verify")
@click.argument("url", callback=parsed(parse_url))
@click.option(
    "--visitors", type=click.IntRange(1, MOST_VISITORS), default=8, show_default=True, metavar="N",
    help="Browsers that come. At most 6 N + 4 pages are opened; where all is well, N + 1. All are closed.",
)  # fmt: skip
@click.option(
    "--idle", default="10s", show_default=True, metavar="DURATION", callback=parsed(parse_duration),
    help="How long silent WebSockets are watched, to find the time after which one is cut; 0: not at all.",
)  # fmt: skip
@click.option("--upload", metavar="SIZE", callback=parsed(parse_size), help="See whether an upload so large passes.")
@click.option(
    "--ws-path", metavar="PATH", callback=parsed(parse_path),
    help="A WebSocket of any app to check, one that may stay silent.",
)  # fmt: skip
@click.option(
    "--stream-path", metavar="PATH", callback=parsed(parse_path),
    help="An address that streams its answer, as server-sent events do, to see whether it is held back.",
)  # fmt: skip
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", callback=parsed(parse_header),
    help="Sent with each request to the URL's own host. Repeatable.",
)  # fmt: skip
@click.option(
    "--cookie", "cookies", multiple=True, metavar="NAME=VALUE", callback=parsed(parse_cookie),
    help="Each visitor begins with it. Repeatable.",
)  # fmt: skip
@click.option(
    "--user", metavar="NAME[:PASSWORD]", envvar="STICKYPROXY_VERIFY_USER",
    help="For pages behind HTTP's own login; the password is asked for where it is not given. Also as "
    "STICKYPROXY_VERIFY_USER.",
)  # fmt: skip
@click.option("--ca", metavar="FILE", help="Certificates (PEM) of the authorities that are trusted.")
@click.option("--insecure", is_flag=True, help="Do not check certificates.")
@click.option(
    "--timeout", default="10s", show_default=True, metavar="DURATION", callback=parsed(parse_duration),
    help="For each request.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(
    url: str, visitors: int, idle: float, upload: int | None, ws_path: str | None, stream_path: str | None,
    headers: tuple[tuple[str, str], ...], cookies: tuple[tuple[str, str], ...], user: str | None, ca: str | None,
    insecure: bool, timeout: float, as_json: bool,
) -> None:  # fmt: skip
    """Find out whether the sessions of the app at URL are sticky, and if not, why.

    Behaves like several browsers, through whatever stands before the app. Ends with exit code 0 when they are and
    nothing is broken, 1 when something is, 2 when it could not be told.
    """
    if timeout <= 0:
        raise click.UsageError("--timeout: expected a time longer than 0")
    options = Options(
        url=url, visitors=visitors, idle_s=idle, upload_bytes=upload or 0, ws_path=ws_path or "",
        stream_path=stream_path or "", headers=headers, cookies=cookies, user=_user(user),
        ssl=make_context(ca, insecure), timeout_s=timeout,
    )  # fmt: skip
    bar = Bar()
    began = time.monotonic()
    try:
        seen = asyncio.run(run(options, bar, SystemRandom()))
    finally:
        bar.clear()
    findings = judge(seen)
    took_s = time.monotonic() - began
    if as_json:
        click.echo(in_json(seen, findings, took_s))
    else:
        click.echo(in_words(seen, findings, took_s, min(100, shutil.get_terminal_size((100, 24)).columns)))
    sys.exit(int(verdict(findings)))


def _user(given: str | None) -> tuple[str, str] | None:
    if not given:
        return None
    name, colon, password = given.partition(":")
    if not colon:
        password = click.prompt(f"Password of {name}", hide_input=True, err=True)
    return name, password
