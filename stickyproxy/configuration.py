"""Settings from parsed options: what does not fit together is said in one line that names the option."""

from pathlib import Path
from typing import Any

import click

from stickyproxy.core.access_log import LogFormat
from stickyproxy.core.affinity import HashKey
from stickyproxy.core.cookies import CookieSettings
from stickyproxy.core.probes import PROBERS
from stickyproxy.core.settings import (
    AffinitySettings,
    FailureSettings,
    HealthSettings,
    HelpSettings,
    LimitSettings,
    LogSettings,
    ParkingSettings,
    ServiceSettings,
    Settings,
    SidecarSettings,
    TimeSettings,
)
from stickyproxy.core.tls import TlsFiles
from stickyproxy.core.values import Address, Network
from stickyproxy.options import WILDCARDS


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
    tls = _tls_files(ctx, options)
    times = TimeSettings(
        connect_s=_positive(ctx, options, "connect_timeout"),
        response_s=_positive(ctx, options, "response_timeout"),
        head_s=_positive(ctx, options, "head_timeout"),
        body_s=_positive(ctx, options, "body_timeout"),
        idle_s=_positive(ctx, options, "idle_timeout"),
        upstream_idle_s=options["upstream_idle_timeout"],
        tunnel_idle_s=options["tunnel_idle_timeout"],
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
    if options["accept_proxy_protocol"] and not networks:
        raise click.UsageError(
            "--accept-proxy-protocol: expected a --trusted-proxy, from which alone connections are taken then, "
            "found none",
            ctx,
        )
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
        limits=LimitSettings(
            head_bytes=options["max_head_bytes"],
            headers=options["max_headers"],
            body_rate=options["min_body_rate"],
            buffered_bytes=options["max_buffered"],
            requests=options["max_requests_per_connection"],
            pending=options["max_pending_per_backend"],
            connections=options["max_connections"],
            connections_per_client=options["max_connections_per_client"],
        ),
        health=HealthSettings(
            paths=frozenset(options["health_path"]),
            probers=(*PROBERS, *options["prober"]),
            ready_needs_backend=options["ready_needs_backend"],
        ),
        help=HelpSettings(asset_cache_bytes=options["asset_cache"], reload_limit=options["reload_limit"]),
        sidecar=_sidecar(ctx, options, times),
        log=LogSettings(LogFormat(options["access_log"]), options["access_log_sample"]),
        failures=FailureSettings(eject_after=options["eject_after"]),
        parking=_parking(ctx, options),
        backend_server_name=_server_name(options) if tls.backends else "",
        trusted=tuple(networks),
        proxy_protocol=options["accept_proxy_protocol"],
        keepalive_s=options["tcp_keepalive"],
        stall_log_s=options["stall_log_after"],
    )
    return ServiceSettings(
        listen=options["listen"],
        admin=options["admin"],
        backends=tuple(dict.fromkeys(address for address, _ in options["backend"])),
        dns=options["dns"],
        dns_interval_s=_positive(ctx, options, "dns_interval"),
        service=options["kubernetes_service"],
        shutdown_delay_s=options["shutdown_delay"],
        drain_timeout_s=options["drain_timeout"],
        tls=tls,
        workers=options["workers"],
        config_path=options["config"],
        log_level=options["log_level"],
        log_format=options["log_format"],
        admin_actions=options["admin_actions"] == "on",
        data_plane=data_plane,
    )


def _tls_files(ctx: click.Context, options: dict[str, Any]) -> TlsFiles:
    """Read from the options who speaks TLS, and where the certificates are."""
    certificate, key = options["tls_cert"], options["tls_key"]
    if bool(certificate) != bool(key):
        given, missing = ("--tls-cert", "--tls-key") if certificate else ("--tls-key", "--tls-cert")
        raise click.UsageError(f"{missing}: expected a file beside {given}, found none", ctx)
    schemes = {https for _, https in options["backend"]}
    if len(schemes) > 1:
        raise click.UsageError("--backend: expected all with https:// or none, found some of each", ctx)
    backends = options["backend_tls"] or True in schemes
    if options["backend_tls"] and False in schemes:
        raise click.UsageError("--backend-tls: expected https:// before each --backend, found none", ctx)
    for name in () if backends else ("backend_ca", "backend_server_name"):
        if options[name]:
            raise click.UsageError(
                f"--{name.replace('_', '-')}: expected replicas that are spoken to by TLS, found none; give "
                "--backend https://HOST:PORT or --backend-tls",
                ctx,
            )
    return TlsFiles(certificate, key, backends, options["backend_ca"])


def _server_name(options: dict[str, Any]) -> str:
    """Give the name that all replicas' certificates must hold; empty: each its own host."""
    dns: Address | None = options["dns"]
    name: str = options["backend_server_name"]
    return name or (dns.host.rstrip(".") if dns is not None else "")


def _sidecar(ctx: click.Context, options: dict[str, Any], times: TimeSettings) -> SidecarSettings | None:
    """Build the settings of a sidecar; None without --local-backend, whose companions then mean nothing."""
    local: Address | None = options["local_backend"]
    stuck_after_s = _positive(ctx, options, "app_stuck_after")
    if local is None:
        return None
    for name in ("listen", "admin"):
        ours: Address | None = options[name]
        if ours is not None and ours.port == local.port and _host(ours) in (_host(local), *WILDCARDS):
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


def _parking(ctx: click.Context, options: dict[str, Any]) -> ParkingSettings:
    """Build the settings of parking."""
    park_s: float = options["park"]
    if park_s and options["workers"] > 1:
        raise click.UsageError(
            f"--park: expected --workers 1, found {options['workers']}: a browser that comes back reaches any worker, "
            "and only the one that it left has kept its page; run more proxies instead, behind a balancer that keeps "
            "a client at one of them",
            ctx,
        )
    return ParkingSettings(park_s, options["park_page_bytes"], options["park_bytes"], options["park_pages"])


def _host(address: Address) -> str:
    return "127.0.0.1" if address.host == "localhost" else address.host


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
