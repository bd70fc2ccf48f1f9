"""Measure what TLS with clients costs: ``python -m benchmarks.tls``.

Three ways, each beside plain HTTP: stickyproxy as it is, stickyproxy with the event loop's own TLS in the place of ours
(what was decided against), and HAProxy. All with one ECDSA P-256 certificate and TLS 1.3, one core, the scenarios of
``python -m benchmarks`` and three more: the memory of a connection that is idle after a response of 300 kB, the CPU of
a full handshake with one request, and the memory of a connection whose handshake has begun and does not end.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import ipaddress
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import backend, load, proxies, system, wire
from benchmarks.peers import PEERS, SUBJECT, Peer, Place, haproxy_arguments, program, stickyproxy_arguments
from benchmarks.proxies import Installed, Running
from benchmarks.scenarios import FULL, QUICK, SCENARIOS, Metric, Outcome, Plan, Scenario

HANDSHAKES = 300
STUCK = 400
AFTER_LARGE = 200
"""Connections that are left idle after a large response."""

_EVENT_LOOPS = """
import stickyproxy.dataplane.admission as admission

async def serve(self, connection, downstream):
    downstream.https = True
    await self._loop.connect_accepted_socket(lambda: downstream, connection, ssl=self._proxy.client_tls)
    downstream.transport.set_write_buffer_limits(1 << 16)  # with those of ours it would pause for ever

admission.Admission._serve = serve
from stickyproxy.__main__ import main
main()
"""


def _after_large(proxy: Running, plan: Plan, _backends: Sequence[int]) -> Outcome:
    """Compare memory before and after connections that have each carried one large response."""
    cookies = proxy.sessions()
    clients = [
        partial(
            load.RequestClient,
            requests=[wire.request(wire.LARGE_PATH, proxy.port, cookies[index % len(cookies)])],
            body_bytes=wire.LARGE_BODY_BYTES,
        )
        for index in range(AFTER_LARGE)
    ]
    load.closed_loop(proxy.port, clients[:8], proxy.pids(), 0.0, plan.warm_s, proxy.tls)
    before = load.idle(proxy.port, [], plan.settle_s, lambda: system.rss_bytes(proxy.pids()))
    after = load.idle(proxy.port, clients, plan.settle_s, lambda: system.rss_bytes(proxy.pids()), proxy.tls)
    return Outcome({"idle_large_kib": (after - before) / 1024 / AFTER_LARGE}, {})


def _handshake(proxy: Running, _plan: Plan, _backends: Sequence[int]) -> Outcome:
    cookies = proxy.sessions()
    clocks = system.cpu_clocks(proxy.pids())
    before = system.cpu_ns(clocks)
    for number in range(HANDSHAKES):
        proxies.get(proxy.port, cookies[number % len(cookies)], proxy.tls)
    return Outcome({"handshake_cpu_us": (system.cpu_ns(clocks) - before) / 1000 / HANDSHAKES}, {})


def _stuck(proxy: Running, plan: Plan, _backends: Sequence[int], *, key: str, whole: bool) -> Outcome:
    """Compare memory before and after connections that stop within a long first message, or behind a whole one."""
    if proxy.tls is None:
        return Outcome({}, {})
    proxy.sessions()
    before = system.rss_bytes(proxy.pids())
    with contextlib.ExitStack() as stack:
        for _ in range(STUCK):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            connection.sendall(_hello(proxy.tls) if whole else b"\x16\x03\x01\x40\x00\x01" + bytes(16000))
        time.sleep(plan.settle_s)
        after = system.rss_bytes(proxy.pids())
    return Outcome({key: (after - before) / 1024 / STUCK}, {})


def _hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


_SCENARIOS = (
    *(SCENARIOS[name] for name in ("request", "large", "ws64", "ws1", "idle")),
    Scenario(
        "idle-large",
        (Metric("idle_large_kib", "Memory per connection that is idle after a 300 kB response", "KiB", 1),),
        _after_large,
    ),
    Scenario(
        "connection",
        (Metric("handshake_cpu_us", "CPU per connection with one request", "us", 0),),
        _handshake,
    ),
    Scenario(
        "half-hello",
        (Metric("half_hello_kib", "Memory per connection that stops within a hello of 16 kB", "KiB", 1),),
        partial(_stuck, key="half_hello_kib", whole=False),
    ),
    Scenario(
        "hello",
        (Metric("hello_kib", "Memory per connection that stops behind its hello", "KiB", 1),),
        partial(_stuck, key="hello_kib", whole=True),
    ),
)


def main() -> int:
    """Measure each way in turn, several rounds, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works; rough figures")
    names_of = [scenario.name for scenario in _SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names_of, default=names_of, help="these scenarios")
    options = parser.parse_args()
    scenarios = [scenario for scenario in _SCENARIOS if scenario.name in options.only]
    plan = QUICK if options.quick else FULL
    system.raise_file_limit()
    cores = system.choose_cores()
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="stickyproxy-bench-") as folder, backend.running(cores.backend) as backends:
        system.pin(cores.load)
        ways = _ways(Path(folder))
        for number in range(options.rounds):
            for scenario in scenarios:
                for proxy in ways:
                    with proxies.running(proxy, backends, cores.proxy) as running:
                        outcome = scenario.measure(running, plan, backends)
                    for key, figure in outcome.figures.items():
                        figures.setdefault(key, {}).setdefault(proxy.peer.name, []).append(figure)
                        print(f"{number + 1}/{options.rounds} {proxy.peer.name}: {key} {figure:.1f}", file=sys.stderr)
    names = [proxy.peer.name for proxy in ways]
    print(f"| | {' | '.join(names)} |")
    print(f"|---|{'---|' * len(names)}")
    for scenario in scenarios:
        for metric in scenario.metrics:
            cells = [
                f"{statistics.median(figures[metric.key][name]):.{metric.digits}f}"
                if name in figures[metric.key]
                else ""
                for name in names
            ]
            print(f"| {metric.label}, {metric.unit} | {' | '.join(cells)} |")
    return 0


def _ways(folder: Path) -> list[Installed]:
    certificate, key, both = _certificate(folder)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    client.load_verify_locations(certificate)
    client.check_hostname = False

    def secured(place: Place, version: str) -> list[str]:
        options = ["--tls-cert", str(certificate), "--tls-key", str(key)]
        return [*stickyproxy_arguments(place, version), *options]

    def haproxy(place: Place, version: str) -> list[str]:
        return haproxy_arguments(place, version, f"ssl crt {both} alpn http/1.1")

    def find_haproxy() -> list[str] | None:
        return program("haproxy")

    def find_event_loops() -> list[str]:
        return [sys.executable, "-c", _EVENT_LOOPS]

    def find_ours() -> list[str]:
        return [sys.executable, "-m", "stickyproxy"]

    ways = [
        PEERS[SUBJECT],
        Peer("stickyproxy, TLS", find_ours, secured, ("--version",), tls=client),
        Peer("the event loop's TLS", find_event_loops, secured, ("--version",), tls=client),
        PEERS["haproxy"],
        Peer("haproxy, TLS", find_haproxy, haproxy, ("-v",), tls=client),
    ]
    return [Installed(peer, command, "") for peer in ways if (command := peer.find()) is not None]


def _certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Make a certificate that signs itself; give its file, its key's, and one with both."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    texts = (
        made.public_bytes(pem),
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    certificate, key, both = folder / "tls.crt", folder / "tls.key", folder / "both.pem"
    for path, text in ((certificate, texts[0]), (key, texts[1]), (both, b"".join(texts))):
        path.write_bytes(text)
    return certificate, key, both


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"\n{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(code)
