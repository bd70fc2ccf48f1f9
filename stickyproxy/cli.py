"""The command line: every option by flag, environment or file, in that order, with one line for what is wrong.

Laws: an option's name is the same everywhere (`--dns-interval`, `STICKYPROXY_DNS_INTERVAL`, `dns-interval` in the
file); a wrong setting ends with exit code 2 before anything is served.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from stickyproxy import __version__
from stickyproxy.core.affinity import HashKey, parse_hash_key
from stickyproxy.core.cookies import CookieSettings
from stickyproxy.core.endpoint_slices import parse_service
from stickyproxy.core.probes import PROBERS
from stickyproxy.core.settings import (
    AffinitySettings,
    FailureSettings,
    HealthSettings,
    HelpSettings,
    LimitSettings,
    ServiceSettings,
    Settings,
    SidecarSettings,
    TimeSettings,
)
from stickyproxy.core.values import Address, Network, parse_address, parse_duration, parse_networks, parse_size

ENVIRONMENT_PREFIX = "STICKYPROXY_"

MOST_WORKERS = 256

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  recognised, not bound


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


def _parse_admin(text: str) -> Address | None:
    return None if text.strip().lower() in ("off", "none", "") else parse_address(text, lowest_port=0)


def _parse_local(text: str) -> Address:
    host, port = parse_address(text)
    if host in _WILDCARDS:  # as in :8000, which here means this machine
        return Address("::1" if ":" in host else "127.0.0.1", port)
    if host != "localhost":
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f"expected an address of this machine such as 127.0.0.1:{port}, found {text!r}") from None
    return Address(host, port)


def _parse_secret(text: str) -> bytes:
    if len(text.encode()) < 8:
        raise ValueError(f"expected at least 8 bytes, found {len(text.encode())}")
    return text.encode()


def _parse_path(text: str) -> bytes:
    if not re.match(r"/[!-~]*\Z", text) or "?" in text or "#" in text:
        raise ValueError(f"expected a path that begins with / and has no query, found {text!r}")
    return text.encode()


def _parse_prober(text: str) -> str:
    if not text.strip():
        raise ValueError("expected the beginning of a User-Agent, found nothing: every request would be a probe")
    return text


def _parse_keepalive(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > 32767:  # TCP_KEEPIDLE, tcp(7)
        raise ValueError(f"expected at most 9h, found {text!r}")
    return seconds


def _parse_workers(text: str) -> int:
    if text.strip().lower() == "auto":
        from stickyproxy.fleet.cores import usable_cores

        return usable_cores()
    if not re.match(r"\s*[1-9][0-9]{0,2}\s*\Z", text) or int(text) > MOST_WORKERS:
        raise ValueError(f"expected auto or a whole number from 1 to {MOST_WORKERS}, found {text!r}")
    return int(text)


def _parse_head_bytes(text: str) -> int:
    size = parse_size(text)
    if not 1024 <= size <= 1 << 20:
        raise ValueError(f"expected a size from 1k to 1M, found {text!r}")
    return size


def _parse_count(text: str) -> int:
    if not re.match(r"\s*[1-9][0-9]{0,8}\s*\Z", text):
        raise ValueError(f"expected a whole number from 1 up, found {text!r}")
    return int(text)


ADDRESS = Value("HOST:PORT", parse_address)
LISTEN = Value("HOST:PORT", lambda text: parse_address(text, lowest_port=0))
DURATION = Value("DURATION", parse_duration, numbers=True)
TEXT = Value("TEXT", str)
COUNT = Value("N", _parse_count, numbers=True)
SIZE = Value("SIZE", parse_size, numbers=True)
LIMIT = Value("N", lambda text: 0 if text.strip() == "0" else _parse_count(text), numbers=True)


def _option(name: str, type_: click.ParamType[Any], default: Any, help_: str, **more: Any) -> Callable[[Any], Any]:
    """Declare one option with its environment variable."""
    variable = ENVIRONMENT_PREFIX + name.upper().replace("-", "_")
    return click.option(
        f"--{name}", type=type_, default=default, help=help_, envvar=variable, show_default=default is not None, **more
    )


def _flag(name: str, help_: str) -> Callable[[Any], Any]:
    variable = ENVIRONMENT_PREFIX + name.upper().replace("-", "_")
    return click.option(f"--{name}/--no-{name}", default=False, help=help_, envvar=variable, show_default=True)


def _read_config(ctx: click.Context, param: click.Parameter, path: str | None) -> str:
    """Read the file's settings as defaults of all other options."""
    if path is None:
        return ""
    # Imported here, as all that only some runs need: the memory of the long-running process starts with its imports.
    import difflib
    import tomllib

    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise click.BadParameter(f"expected a readable file, found {path!r}: {error.strerror}", ctx, param) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"expected TOML in {path!r}: {error}", ctx, param) from None
    known = {p.name: p for p in ctx.command.params if p.name and p.name != "config"}
    defaults = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0].replace('_', '-')!r}?" if near else ""
            raise click.BadParameter(f"{path!r} holds an unknown setting {key!r}{hint}", ctx, param)
        option = known[name]
        if isinstance(option, click.Option) and option.is_flag and not isinstance(value, bool):
            raise click.BadParameter(f"expected true or false in {path!r}, found {value!r}", ctx, option)
        if option.multiple and not isinstance(value, list):
            value = [value]
        defaults[name] = value
    ctx.default_map = defaults
    return path


class _RunCommand(click.Command):
    """Remembers its arguments, so that a reload reads the very same sources again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["stickyproxy.arguments"] = list(args)
        return super().parse_args(ctx, args)


_TIMES = TimeSettings()
_LIMITS = LimitSettings()
_AFFINITY = AffinitySettings()
_SIDECAR = SidecarSettings(Address("127.0.0.1", 8000))
_HELP = HelpSettings()
_FAILURES = FailureSettings()


class _Cli(click.Group):
    """Loads the tools only when they are asked for: `run` shall not pay for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "demo", "drain", "healthcheck"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "demo":
            from stickyproxy.tools.demo import demo

            return demo
        if cmd_name == "drain":
            from stickyproxy.tools.drain import drain

            return drain
        if cmd_name == "healthcheck":
            return _healthcheck()
        return super().get_command(ctx, cmd_name)


def _healthcheck() -> click.Command:
    """Stand for the health check in --help; it reads its arguments itself, since it also starts without click."""
    from stickyproxy.tools.healthcheck import SUMMARY, main

    return click.Command(
        "healthcheck", help=SUMMARY, callback=lambda arguments: main(arguments), add_help_option=False,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
    )  # fmt: skip


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="stickyproxy", message="%(prog)s %(version)s")
def cli() -> None:
    """Keep every NiceGUI page on the pod that holds its state."""


@cli.command(cls=_RunCommand)
@click.option(
    "--config", is_eager=True, callback=_read_config, envvar="STICKYPROXY_CONFIG", metavar="FILE",
    help="TOML file with any of these options as keys; read again when it changes, or on SIGHUP.",
)  # fmt: skip
@_option("listen", LISTEN, "0.0.0.0:8080", "Where browsers come in.")
@_option("admin", Value("HOST:PORT", _parse_admin), "0.0.0.0:9090",
         "Port for /livez, /readyz, /metrics and /app/livez, or `off`.")  # fmt: skip
@_option("backend", ADDRESS, None, "One replica of the app. Repeatable.", multiple=True)
@_option("dns", ADDRESS, None, "All A and AAAA records of a name are the replicas.")
@_option("kubernetes-service", Value("[NAMESPACE/]NAME[:PORT]", parse_service), None,
         "The ready pods of a Kubernetes Service are the replicas; the port by name or number.")  # fmt: skip
@_option("dns-interval", DURATION, "5s", "Time between two look-ups of --dns.")
@_option("local-backend", Value("HOST:PORT", _parse_local), None,
         "In a sidecar: where the app of this very pod listens; new sessions go there.")  # fmt: skip
@_option("app-stuck-after", DURATION, f"{_SIDECAR.stuck_after_s:g}s",
         "Time without a first byte, others waiting behind, after which /app/livez fails.")  # fmt: skip
@_option("affinity", click.Choice(["cookie", "hash"]), "cookie", "How a browser is bound to a replica.")
@_option("hash-key", Value("KEY", parse_hash_key), "address",
         "Key of --affinity hash: header:NAME, cookie:NAME, query:NAME or address (the client's).")  # fmt: skip
@_option("secret", Value("TEXT", _parse_secret, apart=r"\n+"), None,
         "Key of the cookie's token. Repeatable: the first signs, all verify.", multiple=True)  # fmt: skip
@_option("secret-file", Value("FILE", str), None, "File with one secret a line; these come before --secret.")
@_option("hold", DURATION, "3s",
         "How long a request waits for a replica that is not ready and refuses, a page for a hanging one.")  # fmt: skip
@_option("eject-after", LIMIT, str(_FAILURES.eject_after),
         "Failures in a row that keep new sessions from a replica for a while; 0: never.")  # fmt: skip
@_option("slow-start", DURATION, "30s", "Time until a new replica gets its full share of new sessions.")
@_flag("page-token", "Put the token into the page's own socket parameters, for browsers that hold no cookies.")
@_option("page-ttl", DURATION, f"{_AFFINITY.page_ttl_s / 60:g}m", "How long a page without a socket is remembered.")
@_option(
    "asset-cache", SIZE, "0", "Memory for NiceGUI's immutable files, so that a page load costs the app only its page."
)
@_option("reload-limit", LIMIT, str(_HELP.reload_limit),
         "Pages whose sockets are refused, in 20 s, before their visitor is told; 0: any.")  # fmt: skip
@_option("cookie-name", TEXT, "stickyproxy", "Name of the cookie.")
@_option("cookie-path", TEXT, "/", "Path of the cookie.")
@_option("cookie-domain", TEXT, "", "Domain of the cookie; empty: the very host.")
@_option(
    "cookie-samesite", click.Choice(["Lax", "Strict", "None"], case_sensitive=False), "Lax", "None is for iframes."
)
@_option("cookie-secure", click.Choice(["auto", "always", "never"]), "auto", "auto: when the browser came by https.")
@_flag("cookie-partitioned", "A cookie jar for each top-level site (CHIPS), for iframes.")
@_option("cookie-max-age", DURATION, None, "Lifetime of the cookie; none: until the browser ends.")
@_option("trusted-proxy", Value("CIDR", parse_networks), ("private",),
         "Whose X-Forwarded-* are believed: a CIDR, `private` or `none`. Repeatable.", multiple=True)  # fmt: skip
@_option("health-path", Value("PATH", _parse_path), None,
         "Path on the main port that is answered like /readyz. Repeatable.", multiple=True)  # fmt: skip
@_option("prober", Value("TEXT", _parse_prober, apart=r"\s*,\s*"), None,
         "Beginning of one more User-Agent of health probes. Repeatable.", multiple=True)  # fmt: skip
@_flag("ready-needs-backend", "Be unready while no replica is usable.")
@_option("connect-timeout", DURATION, f"{_TIMES.connect_s:g}s", "Time for a replica to accept a connection.")
@_option(
    "response-timeout", DURATION, f"{_TIMES.response_s:g}s", "Time from a request's end to the answer's beginning."
)
@_option("head-timeout", DURATION, f"{_TIMES.head_s:g}s", "Time for a request's headers to arrive.")
@_option("body-timeout", DURATION, f"{_TIMES.body_s:g}s", "Time without a byte of a body, either way.")
@_option("idle-timeout", DURATION, f"{_TIMES.idle_s:g}s", "Time a client connection may stay without a request.")
@_option("upstream-idle-timeout", DURATION, f"{_TIMES.upstream_idle_s:g}s",
         "Time an idle connection to a replica is kept; below the app's own (uvicorn: 5 s).")  # fmt: skip
@_option(
    "max-head-bytes",
    Value("SIZE", _parse_head_bytes, numbers=True),
    f"{_LIMITS.head_bytes >> 10}k",
    "Largest head of a request or a response.",
)
@_option("max-headers", COUNT, str(_LIMITS.headers), "Most header lines of a request.")
@_option(
    "tcp-keepalive",
    Value("DURATION", _parse_keepalive, numbers=True),
    "15s",
    "Idle time before TCP keep-alive probes; 0: none.",
)
@_option("shutdown-delay", DURATION, "5s", "Time after SIGTERM in which new connections are still served.")
@_option("drain-timeout", DURATION, "20s", "Time for open work after that; sockets are closed spread over it.")
@_option("workers", Value("N", _parse_workers, numbers=True), "1",
         "Processes that serve, each on a core of its own; auto: as many as there are cores.")  # fmt: skip
@_option("log-level", click.Choice(["debug", "info", "warning", "error"]), "info", "What is logged (to stderr).")
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Run the proxy.

    Every option can also be given in the environment as STICKYPROXY_<OPTION> (several values apart by commas) or in
    the --config file; a flag beats the environment, which beats the file.
    """
    from stickyproxy import app

    settings = build_settings(ctx, **options)
    arguments: list[str] = ctx.meta["stickyproxy.arguments"]

    def load() -> ServiceSettings:
        try:
            with run.make_context("run", list(arguments)) as again:
                return build_settings(again, **again.params)
        except click.ClickException as error:
            raise app.SettingsError(_one_line(error)) from None

    try:
        app.run(settings, load, ["run", *arguments])
    except app.SettingsError as error:
        raise click.UsageError(str(error)) from None


def build_settings(ctx: click.Context, **options: Any) -> ServiceSettings:
    """Build the settings from parsed options; click.UsageError where they do not fit together."""
    sources = [name for name in ("backend", "dns", "kubernetes_service") if options[name]]
    if len(sources) != 1:
        found = " and ".join(f"--{name.replace('_', '-')}" for name in sources) or "none"
        if options["local_backend"] and not sources:
            found = "only --local-backend, which says which of them is this pod's"
        raise click.UsageError(
            "--backend, --dns or --kubernetes-service: expected one of the three (--backend repeatable), "
            f"found {found}",
            ctx,
        )
    times = TimeSettings(
        connect_s=_positive(ctx, options, "connect_timeout"),
        response_s=_positive(ctx, options, "response_timeout"),
        head_s=_positive(ctx, options, "head_timeout"),
        body_s=_positive(ctx, options, "body_timeout"),
        idle_s=_positive(ctx, options, "idle_timeout"),
        upstream_idle_s=options["upstream_idle_timeout"],
    )
    secrets = (*_read_secrets(ctx, options["secret_file"]), *options["secret"])
    max_age = options["cookie_max_age"]
    if max_age is not None and max_age < 1:
        raise click.UsageError(f"--cookie-max-age: expected at least 1s, found {max_age:g}: no cookie would stay", ctx)
    try:
        cookie = CookieSettings(
            name=options["cookie_name"],
            path=options["cookie_path"],
            domain=options["cookie_domain"],
            samesite=options["cookie_samesite"],
            secure=options["cookie_secure"],
            partitioned=options["cookie_partitioned"],
            max_age_s=None if max_age is None else round(max_age),
        )
    except ValueError as error:
        raise click.UsageError(f"--{error}", ctx) from None
    hash_key: HashKey = options["hash_key"]
    networks: list[Network] = [network for group in options["trusted_proxy"] for network in group]
    data_plane = Settings(
        affinity=AffinitySettings(
            hash_key=hash_key if options["affinity"] == "hash" else None,
            cookie=cookie,
            secrets=secrets,
            hold_s=options["hold"],
            slow_start_s=options["slow_start"],
            page_token=options["page_token"],
            page_ttl_s=_positive(ctx, options, "page_ttl"),
        ),
        times=times,
        limits=LimitSettings(head_bytes=options["max_head_bytes"], headers=options["max_headers"]),
        health=HealthSettings(
            paths=frozenset(options["health_path"]),
            probers=(*PROBERS, *options["prober"]),
            ready_needs_backend=options["ready_needs_backend"],
        ),
        help=HelpSettings(asset_cache_bytes=options["asset_cache"], reload_limit=options["reload_limit"]),
        sidecar=_sidecar(ctx, options, times),
        failures=FailureSettings(eject_after=options["eject_after"]),
        trusted=tuple(networks),
        keepalive_s=options["tcp_keepalive"],
    )
    return ServiceSettings(
        listen=options["listen"],
        admin=options["admin"],
        backends=tuple(dict.fromkeys(options["backend"])),
        dns=options["dns"],
        dns_interval_s=_positive(ctx, options, "dns_interval"),
        service=options["kubernetes_service"],
        shutdown_delay_s=options["shutdown_delay"],
        drain_timeout_s=options["drain_timeout"],
        workers=options["workers"],
        config_path=options["config"],
        log_level=options["log_level"],
        data_plane=data_plane,
    )


def _sidecar(ctx: click.Context, options: dict[str, Any], times: TimeSettings) -> SidecarSettings | None:
    """Build the settings of a sidecar; None without --local-backend, whose companions then mean nothing."""
    local: Address | None = options["local_backend"]
    stuck_after_s = _positive(ctx, options, "app_stuck_after")
    if local is None:
        return None
    for name in ("listen", "admin"):
        ours: Address | None = options[name]
        if ours is not None and ours.port == local.port and ours.host in (local.host, *_WILDCARDS):
            raise click.UsageError(
                f"--local-backend: expected the app's own port, found {local}, which is --{name}", ctx
            )
    if stuck_after_s >= times.response_s:
        raise click.UsageError(
            f"--app-stuck-after: expected less than --response-timeout ({times.response_s:g} s), after which no "
            f"request waits any more, found {stuck_after_s:g} s",
            ctx,
        )
    return SidecarSettings(local, stuck_after_s)


def _positive(ctx: click.Context, options: dict[str, Any], name: str) -> float:
    value: float = options[name]
    if value <= 0:
        raise click.UsageError(f"--{name.replace('_', '-')}: expected a duration above 0, found {value:g}", ctx)
    return value


def _read_secrets(ctx: click.Context, path: str | None) -> list[bytes]:
    """Read the secrets of --secret-file, one a line; empty lines do not count."""
    if not path:
        return []
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise click.UsageError(
            f"--secret-file: expected a readable file, found {path!r}: {error.strerror}", ctx
        ) from None
    secrets = [line.strip() for line in lines if line.strip()]
    if not secrets or any(len(secret) < 8 for secret in secrets):
        raise click.UsageError(f"--secret-file: expected one secret of at least 8 bytes a line in {path!r}", ctx)
    return secrets


def _one_line(error: click.ClickException) -> str:
    """Say what is wrong with a setting in one line that names the option."""
    message = error.format_message()
    if isinstance(error, click.BadParameter) and error.param is not None:
        option = error.param.opts[0]
        variable = error.param.envvar
        where = f"{option} (or {variable})" if isinstance(variable, str) else option
        message = f"{where}: {error.message}"
    return " ".join(message.split())


def _tell_older_version(problem: str) -> None:
    """Say why we do not start, where an older version waits for us to take over."""
    if "STICKYPROXY_INHERIT" not in os.environ:
        return
    from stickyproxy.fleet.listeners import ListenError, inherit
    from stickyproxy.fleet.upgrade import tell

    with suppress(ListenError, OSError):
        if (control := inherit(os.environ).control) is not None:
            tell(control, {"failed": problem})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process."""
    try:
        code = cli.main(args=arguments, prog_name="stickyproxy", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"stickyproxy: {_one_line(error)}", err=True)
        _tell_older_version(_one_line(error))
        sys.exit(2 if isinstance(error, click.UsageError) else error.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
