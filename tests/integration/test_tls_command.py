"""The command with TLS: files that change under it, workers, and a new version."""

import os
import re
import signal
from pathlib import Path

import pytest

from .command import Command, start
from .harness import Stage, hello, request, soon
from .test_upgrade import end, upgraded
from .tls import Authority, HandTls
from .workers import children, ready_with, until, workers


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Secret:
    """A Secret as Kubernetes mounts it: files that are links into a folder, which is itself a link that is swapped."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._authority = authority
        self._number = 0
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.renew("first.test")
        self.certificate.symlink_to("..data/tls.crt")
        self.key.symlink_to("..data/tls.key")

    def renew(self, *names: str, broken: bool = False) -> None:
        """Put a new pair in the place of the old one, at once."""
        self._number += 1
        now = self._folder / f"..{self._number}"
        now.mkdir()
        pair = self._authority.issue("127.0.0.1", *names)
        pair.write(now)
        if broken:
            (now / "tls.key").write_bytes(self._authority.issue("another.test").key)
        link = self._folder / "..data_tmp"
        link.symlink_to(now.name)
        os.replace(link, self._folder / "..data")

    @property
    def options(self) -> tuple[str, ...]:
        """Give the options that name the files."""
        return "--tls-cert", str(self.certificate), "--tls-key", str(self.key)


async def secured(running: Command, authority: Authority) -> HandTls:
    return await HandTls(await running.client(), authority.client()).shake()


async def served(running: Command, authority: Authority) -> str:
    """Ask by TLS; give the last name in the certificate."""
    client = await secured(running, authority)
    client.send(request("GET / HTTP/1.1", "Connection: close"))
    assert (await client.rest()).endswith(b"hello")
    return str(client.session.getpeercert()["subjectAltName"][-1][1])  # type: ignore[index]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_new_certificate_is_taken_up_and_a_broken_one_is_not(
    stage: Stage, tmp_path: Path, authority: Authority, count: int
) -> None:
    backend = await stage.backend(hello)
    secret = Secret(tmp_path, authority)
    async with workers("--backend", str(backend.address), *secret.options, count=count) as running:
        assert "by TLS, certificate sha256:" in "".join(running.log)
        before = await secured(running, authority)
        secret.renew(broken=True)
        line = await running.says(r"reload \(a certificate file has changed\): .* the old certificates stay in force")
        assert "--tls-key: expected the key of the first certificate" in line
        assert {await served(running, authority) for _ in range(8)} == {"first.test"}
        secret.renew("second.test")
        await running.says(r"reload .*: new connections use the new certificates; clients see sha256:")
        for _ in range(8 * count):
            assert await served(running, authority) == "second.test"
        before.send(request())
        await before.until(b"hello")
        scraped = (await running.look("/metrics")).body.decode()
        assert 'stickyproxy_tls_handshakes_total{outcome="full"}' in scraped


async def test_a_worker_that_is_replaced_has_the_present_certificate(
    stage: Stage, tmp_path: Path, authority: Authority
) -> None:
    backend = await stage.backend(hello)
    secret = Secret(tmp_path, authority)
    async with workers("--backend", str(backend.address), *secret.options) as running:
        secret.renew("second.test")
        await running.says("new connections use the new certificates")
        secret.renew(broken=True)
        await running.says("the old certificates stay in force")
        killed = children(running.process.pid)
        os.kill(killed[0], signal.SIGKILL)
        await until(
            lambda: len(children(running.process.pid)) == 2 and killed[0] not in children(running.process.pid),
            "the worker is replaced",
        )
        for _ in range(16):
            assert await served(running, authority) == "second.test"


async def test_sighup_reads_the_certificates_again(stage: Stage, tmp_path: Path, authority: Authority) -> None:
    backend = await stage.backend(hello)
    certificate, key = authority.issue("127.0.0.1", "first.test").write(tmp_path)
    options = ("--backend", str(backend.address), "--tls-cert", str(certificate), "--tls-key", str(key))
    async with workers(*options, count=1) as running:
        authority.issue("127.0.0.1", "second.test").write(tmp_path)
        running.send(signal.SIGHUP)
        await running.says("new connections use the new certificates")
        assert await served(running, authority) == "second.test"


async def test_a_new_version_takes_over_with_the_present_certificate(
    stage: Stage, tmp_path: Path, authority: Authority
) -> None:
    backend = await stage.backend(hello)
    secret = Secret(tmp_path, authority)
    async with workers("--backend", str(backend.address), *secret.options, "--drain-timeout", "2s", count=1) as running:
        assert await served(running, authority) == "first.test"
        secret.renew("second.test")
        new = await upgraded(running)
        try:
            await soon(running.process.wait())
            assert await served(running, authority) == "second.test"
        finally:
            await end(new)


async def test_a_new_version_that_cannot_use_its_certificate_says_so_and_the_old_one_goes_on(
    stage: Stage, tmp_path: Path, authority: Authority
) -> None:
    backend = await stage.backend(hello)
    secret = Secret(tmp_path, authority)
    async with workers("--backend", str(backend.address), *secret.options, count=1) as running:
        secret.renew(broken=True)
        running.send(signal.SIGUSR2)
        line = await running.says("SIGUSR2: the new version does not serve, so this one goes on: ")
        assert "--tls-key" in line
        assert await served(running, authority) == "first.test"


async def test_a_pair_that_does_not_fit_ends_the_start(tmp_path: Path, authority: Authority) -> None:
    certificate, _ = authority.issue("a.test").write(tmp_path)
    _, key = authority.issue("b.test").write(tmp_path, "other")
    process = await start(
        "run", "--listen", "127.0.0.1:0", "--admin", "off", "--backend", "a:1",
        "--tls-cert", str(certificate), "--tls-key", str(key),
    )  # fmt: skip
    _, said = await soon(process.communicate(), bound_s=20)
    assert process.returncode == 2
    assert re.fullmatch(r"stickyproxy: --tls-key: expected the key of the first certificate .*\n", said.decode())


async def test_https_backends_by_the_command(stage: Stage, tmp_path: Path, authority: Authority) -> None:
    backend = await stage.backend(hello, tls=authority.issue("app.internal").server(tmp_path))
    (tmp_path / "ca.crt").write_bytes(Authority("another").pem)
    options = (
        "--backend", f"https://{backend.address}", "--backend-ca", str(tmp_path / "ca.crt"),
        "--backend-server-name", "app.internal", "--eject-after", "1",
    )  # fmt: skip
    async with workers(*options, count=1) as running:
        assert (await running.ask(request())).reason == "backend-tls"
        ready = (await running.look("/readyz")).body.decode()
        assert "1 failure (certificate not accepted: unable to get local issuer certificate)" in ready
        (tmp_path / "ca.crt").write_bytes(authority.pem)
        await running.says("new connections use the new certificates")
        assert (await running.ask(request())).body == b"hello"


async def test_the_names_of_a_backend_that_is_no_address_are_verified(
    stage: Stage, tmp_path: Path, authority: Authority
) -> None:
    backend = await stage.backend(hello, tls=authority.issue("localhost").server(tmp_path))
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    port = backend.address.port
    for source in ((f"--backend=https://localhost:{port}",), (f"--dns=localhost:{port}", "--backend-tls")):
        async with workers(*source, "--backend-ca", str(tmp_path / "ca.crt"), count=1) as running:
            await ready_with(running, "backends usable")
            assert (await running.ask(request())).body == b"hello"
