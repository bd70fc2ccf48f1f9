"""Certificates and keys: what is taken, and the words for what is not."""

import ssl
from pathlib import Path

import pytest
from integration.tls import Authority, Pair

from stickyproxy.core.tls import TlsFiles, TlsMaterial
from stickyproxy.dataplane.certificates import (
    CertificateError,
    backend_context,
    fingerprint,
    read_material,
    server_context,
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("app.test")


def files(certificate: Path, key: Path) -> TlsFiles:
    return TlsFiles(str(certificate), str(key))


def test_without_files_nobody_speaks_tls() -> None:
    material = read_material(TlsFiles())
    assert server_context(material) is None
    assert backend_context(material) is None


def test_a_pair_is_read(pair: Pair, tmp_path: Path) -> None:
    material = read_material(files(*pair.write(tmp_path)))
    context = server_context(material)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert fingerprint(material).startswith("sha256:")
    assert "PRIVATE" not in repr(material)


def test_both_may_stand_in_one_file(pair: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key + b"notes: \xc3\xa4\n" + pair.certificate)
    assert server_context(read_material(files(both, both))) is not None


def test_a_chain_is_sent(authority: Authority, pair: Pair) -> None:
    assert server_context(TlsMaterial(pair.certificate + authority.pem, pair.key)) is not None


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("", "own", "--tls-cert: expected certificates in PEM, found a file that holds none"),
        ("own", "", "--tls-key: expected a private key in PEM, found a file that holds none"),
        ("own", "other", "--tls-key: expected the key of the first certificate in --tls-cert, found another"),
        ("authority first", "own", "a chain begins with the server's own certificate"),
        ("own", "encrypted", "--tls-key: expected a key without a passphrase, found an encrypted one; decrypt it"),
        ("broken", "own", "--tls-cert: expected certificates in PEM, found"),
        ("own", "broken", "--tls-cert, --tls-key: expected a certificate and a key that OpenSSL takes, found"),
    ],
)
def test_what_cannot_be_used_is_said(
    authority: Authority, pair: Pair, tmp_path: Path, certificate: str, key: str, says: str
) -> None:
    certificates = {
        "": b"notes", "own": pair.certificate, "authority first": authority.pem + pair.certificate,
        "broken": pair.certificate.replace(b"MII", b"M!!"),
    }  # fmt: skip
    keys = {
        "": b"notes", "own": pair.key, "other": authority.issue("b.test").key,
        "encrypted": authority.issue("c.test", password=b"secret").key, "broken": pair.key.replace(b"MI", b"AA"),
    }  # fmt: skip
    written = Pair(certificates[certificate], keys[key]).write(tmp_path)
    with pytest.raises(CertificateError) as caught:
        read_material(files(*written))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("missing", "option"), [("tls.crt", "--tls-cert"), ("tls.key", "--tls-key")])
def test_a_file_that_is_not_there_is_named(pair: Pair, tmp_path: Path, missing: str, option: str) -> None:
    written = pair.write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(CertificateError, match=f"^{option}: expected a readable file, found '.*': No such file"):
        read_material(files(*written))


@pytest.mark.parametrize(("empty", "option"), [("tls.crt", "--tls-cert"), ("tls.key", "--tls-key")])
def test_an_empty_file_does_not_pass_for_none(pair: Pair, tmp_path: Path, empty: str, option: str) -> None:
    written = pair.write(tmp_path)
    (tmp_path / empty).write_bytes(b"\n")
    with pytest.raises(CertificateError, match=f"^{option}: expected a file in PEM, found '.*', which is empty"):
        read_material(files(*written))
    with pytest.raises(CertificateError, match=r"^--backend-ca"):
        read_material(TlsFiles(backends=True, backend_ca=str(tmp_path / empty)))


def test_backends_are_verified(authority: Authority) -> None:
    context = backend_context(TlsMaterial(backends=True, backend_ca=authority.pem))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_authorities_that_are_none_are_refused() -> None:
    with pytest.raises(CertificateError, match=r"^--backend-ca: expected certificates in PEM"):
        backend_context(TlsMaterial(backends=True, backend_ca=b"nothing"))


def test_without_authorities_of_our_own_the_systems_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    context = backend_context(TlsMaterial(backends=True))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    none = ssl.get_default_verify_paths()._replace(cafile=None, capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: none)
    with pytest.raises(CertificateError, match="this system has no authorities"):
        backend_context(TlsMaterial(backends=True))
