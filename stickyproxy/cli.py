"""The command line: every option by flag, environment or file, in that order.

Law: a wrong setting ends with exit code 2 and one line, before anything is served.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from stickyproxy import __version__
from stickyproxy.configuration import build_settings
from stickyproxy.core.access_log import LogFormat
from stickyproxy.core.affinity import parse_hash_key
from stickyproxy.core.endpoint_slices import parse_service
from stickyproxy.core.settings import (
    AffinitySettings,
    FailureSettings,
    HelpSettings,
    LimitSettings,
    ParkingSettings,
    ServiceSettings,
    Settings,
    SidecarSettings,
    TimeSettings,
)
from stickyproxy.core.values import Address, parse_networks
from stickyproxy.options import (
    ADDRESS,
    BACKEND,
    COUNT,
    DURATION,
    LIMIT,
    LISTEN,
    SIZE,
    TEXT,
    Value,
    flag,
    option,
    parse_admin,
    parse_buffered,
    parse_head_bytes,
    parse_keepalive,
    parse_kept,
    parse_local,
    parse_path,
    parse_prober,
    parse_secret,
    parse_server_name,
    parse_share,
    parse_workers,
)  # fmt: skip
from stickyproxy.serving import refuse, serve

Use = Callable[[ServiceSettings, Sequence[str]], None]
"""Takes the settings of `run`, and the arguments they were read from."""


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
        declared = known[name]
        if isinstance(declared, click.Option) and declared.is_flag and not isinstance(value, bool):
            raise click.BadParameter(f"expected true or false in {path!r}, found {value!r}", ctx, declared)
        if declared.multiple and not isinstance(value, list):
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
_PARKING = ParkingSettings()
_AFFINITY = AffinitySettings()
_SIDECAR = SidecarSettings(Address("127.0.0.1", 8000))
_HELP = HelpSettings()
_FAILURES = FailureSettings()
_STALL_LOG_S = Settings().stall_log_s


class _Cli(click.Group):
    """Loads the tools only when they are asked for: `run` shall not pay for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "demo", "doctor", "drain", "healthcheck", "verify"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "demo":
            from stickyproxy.tools.demo import demo

            return demo
        if cmd_name == "doctor":
            from stickyproxy.tools.doctor.command import doctor

            return doctor
        if cmd_name == "drain":
            from stickyproxy.tools.drain import drain

            return drain
        if cmd_name == "healthcheck":
            return _healthcheck()
        if cmd_name == "verify":
            from stickyproxy.tools.verify.command import verify

            return verify
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
@option("listen", LISTEN, "0.0.0.0:8080", "Where browsers come in.")
@option("admin", Value("HOST:PORT", parse_admin), "127.0.0.1:9090",
         "Port for the dashboard, /api/v1, /livez, /readyz, /metrics and /app/livez, or `off`.")  # fmt: skip
@option("admin-actions", click.Choice(["on", "off"]), "on", "Whether backends can be drained by the admin port.")
@option("tls-cert", TEXT, "", "PEM file with the certificate of --listen, and its chain; read again when it changes.",
         metavar="FILE")  # fmt: skip
@option("tls-key", TEXT, "", "PEM file with the key of --tls-cert.", metavar="FILE")
@option("backend", BACKEND, None, "One replica of the app. Repeatable.", multiple=True)
@option("dns", ADDRESS, None, "All A and AAAA records of a name are the replicas.")
@option("kubernetes-service", Value("[NAMESPACE/]NAME[:PORT]", parse_service), None,
         "The ready pods of a Kubernetes Service are the replicas; the port by name or number.")  # fmt: skip
@flag("backend-tls", "Speak TLS to the replicas of --dns or --kubernetes-service.")
@option("backend-ca", TEXT, "", "PEM file with the authorities of the replicas' certificates; none: the system's.",
         metavar="FILE")  # fmt: skip
@option("backend-server-name", Value("NAME", parse_server_name), "",
         "Name that a replica's certificate must hold; none: the host that was given (--dns: its name).")  # fmt: skip
@option("dns-interval", DURATION, "5s", "Time between two look-ups of --dns.")
@option("local-backend", Value("HOST:PORT", parse_local), None,
         "In a sidecar: where the app of this very pod listens; new sessions go there.")  # fmt: skip
@option("app-stuck-after", DURATION, f"{_SIDECAR.stuck_after_s:g}s",
         "Time without a first byte, others waiting behind, after which /app/livez fails.")  # fmt: skip
@option("affinity", click.Choice(["cookie", "hash"]), "cookie", "How a browser is bound to a replica.")
@option("hash-key", Value("KEY", parse_hash_key), "address",
         "Key of --affinity hash: header:NAME, cookie:NAME, query:NAME or address (the client's).")  # fmt: skip
@option("secret", Value("TEXT", parse_secret, apart=r"\n+"), None,
         "Key of the cookie's token. Repeatable: the first signs, all verify.", multiple=True)  # fmt: skip
@option("secret-file", Value("FILE", str), None, "File with one secret a line; these come before --secret.")
@option("hold", DURATION, "3s",
         "How long a request waits for a replica that is not ready and refuses, a page for a hanging one.")  # fmt: skip
@option("eject-after", LIMIT, str(_FAILURES.eject_after),
         "Failures in a row that keep new sessions from a replica for a while; 0: never.")  # fmt: skip
@option("slow-start", DURATION, "30s", "Time until a new replica gets its full share of new sessions.")
@flag("page-token", "Put the token into the page's own socket parameters, for browsers that hold no cookies.")
@option("page-ttl", DURATION, f"{_AFFINITY.page_ttl_s / 60:g}m", "How long a page without a socket is remembered.")
@option(
    "asset-cache", SIZE, "0", "Memory for NiceGUI's immutable files, so that a page load costs the app only its page."
)
@option("park", DURATION, f"{_PARKING.park_s:g}",
         "Time for which a page outlives its browser's connection; 0: as long as the app keeps it.")  # fmt: skip
@option("park-pages", COUNT, str(_PARKING.pages), "Most pages that are parked at the same time.")
@option("park-page-bytes", Value("SIZE", parse_kept, numbers=True), f"{_PARKING.page_bytes >> 20}M",
         "Memory for what one page is sent while its browser is away; with more it is parked no longer.")  # fmt: skip
@option("park-bytes", Value("SIZE", parse_kept, numbers=True), f"{_PARKING.total_bytes >> 20}M",
         "Memory for that of all pages together; beyond it who has been away longest is let go.")  # fmt: skip
@option("reload-limit", LIMIT, str(_HELP.reload_limit),
         "Pages whose sockets are refused, in 20 s, before their visitor is told; 0: any.")  # fmt: skip
@option("cookie-name", TEXT, "stickyproxy", "Name of the cookie.")
@option("cookie-path", TEXT, "/", "Path of the cookie.")
@option("cookie-domain", TEXT, "", "Domain of the cookie; empty: the very host.")
@option("cookie-samesite", click.Choice(["Lax", "Strict", "None"], case_sensitive=False), "Lax", "None is for iframes.")
@option("cookie-secure", click.Choice(["auto", "always", "never"]), "auto", "auto: when the browser came by https.")
@flag("cookie-partitioned", "A cookie jar for each top-level site (CHIPS), for iframes.")
@option("cookie-max-age", DURATION, None, "Lifetime of the cookie; none: until the browser ends.")
@option("trusted-proxy", Value("CIDR", parse_networks), ("private",),
         "Whose X-Forwarded-* are believed: a CIDR, `private` or `none`. Repeatable.", multiple=True)  # fmt: skip
@flag("accept-proxy-protocol", "Connections begin with a header of the PROXY protocol, v1 or v2; others are closed.")
@option("health-path", Value("PATH", parse_path), None,
         "Path on the main port that is answered like /readyz. Repeatable.", multiple=True)  # fmt: skip
@option("prober", Value("TEXT", parse_prober, apart=r"\s*,\s*"), None,
         "Beginning of one more User-Agent of health probes. Repeatable.", multiple=True)  # fmt: skip
@flag("ready-needs-backend", "Be unready while no replica is usable.")
@option("connect-timeout", DURATION, f"{_TIMES.connect_s:g}s", "Time for a replica to accept a connection.")
@option("response-timeout", DURATION, f"{_TIMES.response_s:g}s", "Time from a request's end to the answer's beginning.")
@option("head-timeout", DURATION, f"{_TIMES.head_s:g}s", "Time for a request's headers to arrive.")
@option("body-timeout", DURATION, f"{_TIMES.body_s:g}s", "Time without a byte of a body, either way.")
@option("idle-timeout", DURATION, f"{_TIMES.idle_s:g}s", "Time a client connection may stay without a request.")
@option("upstream-idle-timeout", DURATION, f"{_TIMES.upstream_idle_s:g}s",
         "Time an idle connection to a replica is kept; below the app's own (uvicorn: 5 s).")  # fmt: skip
@option(
    "max-head-bytes",
    Value("SIZE", parse_head_bytes, numbers=True),
    f"{_LIMITS.head_bytes >> 10}k",
    "Largest head of a request or a response.",
)
@option("max-headers", COUNT, str(_LIMITS.headers), "Most header lines of a request.")
@option("min-body-rate", SIZE, str(_LIMITS.body_rate),
         "Bytes a second that a client must send of a body or take of an answer, on average; 0: any.")  # fmt: skip
@option("tunnel-idle-timeout", DURATION, f"{_TIMES.tunnel_idle_s:g}",
         "Time a socket may stay without a byte in either direction; 0: for ever.")  # fmt: skip
@option("max-buffered", Value("SIZE", parse_buffered, numbers=True), f"{_LIMITS.buffered_bytes >> 20}M",
         "Memory for what waits for slow clients and replicas; beyond it the slowest are dropped.")  # fmt: skip
@option("max-requests-per-connection", LIMIT, str(_LIMITS.requests),
         "Requests after which a client connection ends with the answer; 0: any number.")  # fmt: skip
@option("max-pending-per-backend", LIMIT, str(_LIMITS.pending),
         "Most requests that wait for one replica to begin its answer; 0: any number.")  # fmt: skip
@option("max-connections", LIMIT, str(_LIMITS.connections),
         "Most client connections, sockets included; 0: what the limit of open files allows.")  # fmt: skip
@option("max-connections-per-client", LIMIT, str(_LIMITS.connections_per_client),
         "Most connections of one address that is no trusted proxy; 0: any number.")  # fmt: skip
@option(
    "tcp-keepalive",
    Value("DURATION", parse_keepalive, numbers=True),
    "15s",
    "Idle time before TCP keep-alive probes; 0: none.",
)
@option("shutdown-delay", DURATION, "5s", "Time after SIGTERM in which new connections are still served.")
@option("drain-timeout", DURATION, "20s", "Time for open work after that; sockets are closed spread over it.")
@option("workers", Value("N", parse_workers, numbers=True), "1",
         "Processes that serve, each on a core of its own; auto: as many as there are cores.")  # fmt: skip
@option("stall-log-after", DURATION, f"{_STALL_LOG_S:g}s",
         "Log where the event loop stands when it has not turned for so long; 0: never.")  # fmt: skip
@option("log-level", click.Choice(["debug", "info", "warning", "error"]), "info", "What is logged (to stderr).")
@option("log-format", click.Choice(["text", "json"]), "text", "Log lines for people, or one JSON object a line.")
@option("access-log", click.Choice([f.value for f in LogFormat]), LogFormat.OFF.value,
         "A line for each request, to stdout.")  # fmt: skip
@option("access-log-sample", Value("RATIO", parse_share, numbers=True), "1", "Share of requests that are logged.")
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Run the proxy.

    Every option can also be given in the environment as STICKYPROXY_<OPTION> (several values apart by commas) or in
    the --config file; a flag beats the environment, which beats the file.
    """
    use: Use = ctx.obj or partial(serve, read=read_settings)
    use(build_settings(ctx, **options), ctx.meta["stickyproxy.arguments"])


def read_settings(arguments: Sequence[str]) -> ServiceSettings:
    """Read the settings that arguments of `run`, the environment and the file give now; raises SettingsError."""
    from stickyproxy.app import SettingsError

    try:
        with run.make_context("run", list(arguments)) as ctx:
            return build_settings(ctx, **ctx.params)
    except click.ClickException as error:
        raise SettingsError(_one_line(error)) from None


def _one_line(error: click.ClickException) -> str:
    """Say what is wrong with a setting in one line that names the option."""
    message = error.format_message()
    if isinstance(error, click.BadParameter) and error.param is not None:
        option = error.param.opts[0]
        variable = error.param.envvar
        where = f"{option} (or {variable})" if isinstance(variable, str) else option
        message = f"{where}: {error.message}"
    return " ".join(message.split())


def main(arguments: Sequence[str] | None = None, use: Use | None = None) -> NoReturn:
    """Run the command line; ends the process. use: what is done with the settings of `run`, if not to serve by them."""
    try:
        code = cli.main(args=arguments, prog_name="stickyproxy", standalone_mode=False, obj=use)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        refuse(_one_line(error), 2 if isinstance(error, click.UsageError) else error.exit_code)
    except click.Abort:
        sys.exit(130)  # as shells count
    sys.exit(code if isinstance(code, int) else 0)
