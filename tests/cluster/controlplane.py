"""A Kubernetes control plane as far as a proxy can see it: etcd and kube-apiserver, on loopback.

Laws: both end with the `with` block that started them, and, should the test run be killed, with the test run (see
`stickyproxy.tools.children`); both keep their ports and their data when they are started again; nothing but the objects
that tests make changes by itself, since there are no controllers and no scheduled compaction.
"""

import asyncio
import base64
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stickyproxy.tools.children import free_port, leashed

from .certs import Certificates, make_certificates

START_LIMIT_S = 60.0
"""For a process to become ready: etcd needs 0.2 s, kube-apiserver some 5 s, on two busy cores several times that."""

STOP_LIMIT_S = 10.0

ISSUER = "https://kubernetes.default.svc"

SETTLE_S = 0.02
"""Between two questions to a process that is starting: it has no event to wait for."""


@dataclass
class Daemon:
    """A foreign process that answers `ready_url` with 200 once it is ready."""

    name: str
    command: list[str]
    ready_url: str
    log: Path
    context: ssl.SSLContext | None = None
    _popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        assert self._popen is None, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                leashed(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.log.parent
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self.is_ready():
            if self._popen.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self._popen.returncode}:\n{self.said()}")
            assert time.monotonic() < deadline, f"{self.name} not ready within {START_LIMIT_S:g} s:\n{self.said()}"
            time.sleep(SETTLE_S)

    def is_ready(self) -> bool:
        """Ask it."""
        try:
            with urllib.request.urlopen(self.ready_url, timeout=START_LIMIT_S, context=self.context) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            pass  # nobody listens yet
        return False

    def kill(self) -> None:
        """End it as a crash does: its clients are cut off at once."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(STOP_LIMIT_S)
            self._popen = None

    def said(self) -> str:
        """Return the end of its log, for people."""
        return self.log.read_text(errors="replace")[-6000:]


@dataclass
class ControlPlane:
    """etcd and kube-apiserver; both run, unless a test has stopped the latter."""

    folder: Path
    etcd_binary: Path
    apiserver_binary: Path
    certificates: Certificates
    port: int
    etcd_port: int
    starter: ThreadPoolExecutor
    """Its one thread starts all processes, since Linux ends them together with the thread that has started them."""

    etcd: Daemon = field(init=False)
    apiserver: Daemon = field(init=False)

    def __post_init__(self) -> None:
        peer_port = free_port("127.0.0.1", [self.port, self.etcd_port])
        certificates, etcd = self.certificates, f"http://127.0.0.1:{self.etcd_port}"
        context = ssl.create_default_context(cafile=str(certificates.authority))
        self.etcd = Daemon(
            "etcd",
            [
                str(self.etcd_binary),
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
                f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
                "--logger=zap",
                "--log-level=warn",
            ],
            f"{etcd}/health",
            self.folder / "etcd.log",
        )  # fmt: skip
        self.apiserver = Daemon(
            "kube-apiserver",
            [
                str(self.apiserver_binary),
                f"--etcd-servers={etcd}",
                "--etcd-compaction-interval=0",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--external-hostname=localhost",
                f"--secure-port={self.port}",
                f"--tls-cert-file={certificates.server.certificate}",
                f"--tls-private-key-file={certificates.server.key}",
                f"--client-ca-file={certificates.authority}",
                "--authorization-mode=RBAC",
                f"--service-account-issuer={ISSUER}",
                f"--service-account-key-file={certificates.tokens}",
                f"--service-account-signing-key-file={certificates.tokens}",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=none",  # it would look for this machine's outward address
                "--profiling=false",
                "--v=0",
            ],
            # Excluded: it takes a second, and is about pods, of which there are none.
            f"{self.url}/readyz?exclude=poststarthook/scheduling/bootstrap-system-priority-classes",
            self.folder / "kube-apiserver.log",
            context,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Return where the API is."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the API server, on the port and with the data it had."""
        self.starter.submit(self.apiserver.start).result()

    async def start_without_waiting_here(self) -> None:
        """Start the API server while this event loop goes on."""
        await asyncio.wrap_future(self.starter.submit(self.apiserver.start))

    def stop(self) -> None:
        """Stop the API server at once, as a lost machine does; etcd goes on."""
        self.apiserver.kill()

    def restart(self) -> None:
        """Stop the API server and start it again."""
        self.stop()
        self.start()

    def ask_etcd(self, call: str, **body: Any) -> dict[str, Any]:
        """Call etcd behind the API server's back, by its gRPC gateway (as in `kv/range`)."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.etcd_port}/v3/{call}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=START_LIMIT_S) as answer:
            return json.load(answer)

    def put(self, key: str, value: bytes) -> None:
        """Write to etcd."""
        self.ask_etcd("kv/put", key=_base64(key.encode()), value=_base64(value))

    def compact(self) -> int:
        """Forget all history up to now, and make now one revision later; return it.

        Who watches from a revision before that gets a 410, once the API server has forgotten it too: it keeps some
        history in memory until it is started again.
        """
        self.put("/stickyproxy-test", b"one more revision")
        revision = int(self.ask_etcd("kv/range", key=_base64(b"/"))["header"]["revision"])
        self.ask_etcd("kv/compaction", revision=str(revision), physical=True)
        return revision

    def write_kubeconfig(self, path: Path, *, port: int = 0, namespace: str = "default", **user: str) -> Path:
        """Write a kubeconfig file; `user` holds its keys with underscores, as in `tokenFile` or `client_key`."""
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority": str(self.certificates.authority),
        }
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {key.replace("_", "-"): value for key, value in user.items()}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path.write_text(json.dumps(content))  # JSON is YAML
        return path

    def write_admin_kubeconfig(self, path: Path, *, port: int = 0) -> Path:
        """Write a kubeconfig file for who may do everything."""
        admin = self.certificates.admin
        return self.write_kubeconfig(
            path, port=port, client_certificate=str(admin.certificate), client_key=str(admin.key)
        )


@contextmanager
def running_control_plane(folder: Path, etcd: Path, apiserver: Path) -> Iterator[ControlPlane]:
    """Run a control plane while the block lasts; `folder` holds its data."""
    port = free_port("127.0.0.1")
    etcd_port = free_port("127.0.0.1", [port])
    with ThreadPoolExecutor(1) as starter:
        plane = ControlPlane(folder, etcd, apiserver, make_certificates(folder), port, etcd_port, starter)
        try:
            starter.submit(plane.etcd.start).result()
            plane.start()
            yield plane
        finally:
            plane.apiserver.kill()
            plane.etcd.kill()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
