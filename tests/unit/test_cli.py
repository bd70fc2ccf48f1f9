"""The whole command line, up to the moment when the app would run."""

import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
import pytest

import stickyproxy
from stickyproxy import app
from stickyproxy.cli import main, run
from stickyproxy.core.affinity import HashKey, KeySource
from stickyproxy.core.probes import PROBERS
from stickyproxy.core.settings import ServiceSettings, Settings, SidecarSettings
from stickyproxy.core.tls import TlsFiles
from stickyproxy.core.values import PRIVATE_NETWORKS, Address

BACKEND = ["--backend", "app:8080"]


class Command:
    """Runs `stickyproxy run` in this process; the app itself is replaced by a note of its settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._environment = monkeypatch
        self._capsys = capsys
        self._folder = folder
        self.ran: list[tuple[ServiceSettings, app.Load]] = []
        monkeypatch.setattr(app, "run", lambda settings, load, _: self.ran.append((settings, load)))

    def env(self, **variables: str) -> None:
        for name, value in variables.items():
            self._environment.setenv(f"STICKYPROXY_{name.upper()}", value)

    def file(self, text: str, name: str = "settings.toml") -> str:
        path = self._folder / name
        path.write_text(text, "utf-8")
        return str(path)

    def end(self, *arguments: str) -> tuple[int, str, str]:
        """Run any command to its end; give the exit code, stdout and stderr."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def settings(self, *arguments: str) -> ServiceSettings:
        """Run; give the settings that the app would have got."""
        assert self.end("run", *arguments) == (0, "", "")
        settings, _ = self.ran.pop()
        return settings

    def refusal(self, *arguments: str) -> str:
        """Run with a wrong setting; give the one line on stderr."""
        code, out, err = self.end("run", *arguments)
        assert (code, out, self.ran) == (2, "", [])
        assert err.startswith("stickyproxy: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err.removeprefix("stickyproxy: ").strip()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    for name in [name for name in os.environ if name.startswith("STICKYPROXY_")]:
        monkeypatch.delenv(name)
    return Command(monkeypatch, capsys, tmp_path)


OPTIONS = [param for param in run.params if isinstance(param, click.Option)]


# Help and version.


def test_the_version_is_one_line(command: Command) -> None:
    assert command.end("--version") == (0, f"stickyproxy {stickyproxy.__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_the_commands(command: Command, flag: str) -> None:
    code, out, err = command.end(flag)
    assert (code, err) == (0, "")
    assert "Keep every NiceGUI page on the pod that holds its state." in out
    for name in ("run", "demo"):
        assert f"\n  {name}" in out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_run_names_every_option(command: Command, flag: str) -> None:
    code, out, err = command.end("run", flag)
    assert (code, err, command.ran) == (0, "", [])
    for option in OPTIONS:
        assert option.opts[0] in out
        assert option.help


def test_without_a_command_the_help_is_shown_as_it_is_written(command: Command) -> None:
    code, out, err = command.end()
    assert code in (0, 2)
    assert "\nCommands:\n" in out + err


# Every option, from every source.


def test_every_option_has_a_variable_of_its_name() -> None:
    assert len(OPTIONS) > 30
    for option in OPTIONS:
        name = option.opts[0].removeprefix("--")
        assert option.envvar == "STICKYPROXY_" + name.upper().replace("-", "_")


def test_what_nobody_sets_is_the_default_of_the_settings(command: Command) -> None:
    settings = command.settings(*BACKEND)
    assert settings == ServiceSettings(
        listen=Address("0.0.0.0", 8080), admin=Address("127.0.0.1", 9090), backends=(Address("app", 8080),)
    )
    assert settings.data_plane == Settings()


def plane(settings: ServiceSettings) -> Settings:
    return settings.data_plane


Reading = Callable[[ServiceSettings], Any]

SINGLE: list[tuple[str, str, Any, Reading]] = [
    ("listen", "127.0.0.1:0", ("127.0.0.1", 0), lambda s: s.listen),
    ("admin", "[::1]:9", ("::1", 9), lambda s: s.admin),
    ("admin", "off", None, lambda s: s.admin),
    ("dns-interval", "500ms", 0.5, lambda s: s.dns_interval_s),
    ("hold", "1s", 1.0, lambda s: plane(s).affinity.hold_s),
    ("slow-start", "2m", 120.0, lambda s: plane(s).affinity.slow_start_s),
    ("page-ttl", "1h", 3600.0, lambda s: plane(s).affinity.page_ttl_s),
    ("asset-cache", "10M", 10 << 20, lambda s: plane(s).help.asset_cache_bytes),
    ("park", "5m", 300.0, lambda s: plane(s).parking.park_s),
    ("park", "0", 0.0, lambda s: plane(s).parking.park_s),
    ("park-pages", "7", 7, lambda s: plane(s).parking.pages),
    ("park-page-bytes", "64k", 1 << 16, lambda s: plane(s).parking.page_bytes),
    ("park-bytes", "1G", 1 << 30, lambda s: plane(s).parking.total_bytes),
    ("reload-limit", "0", 0, lambda s: plane(s).help.reload_limit),
    ("reload-limit", "7", 7, lambda s: plane(s).help.reload_limit),
    ("cookie-name", "pin", "pin", lambda s: plane(s).affinity.cookie.name),
    ("cookie-path", "/app", "/app", lambda s: plane(s).affinity.cookie.path),
    ("cookie-domain", "app.example", "app.example", lambda s: plane(s).affinity.cookie.domain),
    ("cookie-samesite", "Strict", "Strict", lambda s: plane(s).affinity.cookie.samesite),
    ("cookie-samesite", "none", "None", lambda s: plane(s).affinity.cookie.samesite),
    ("cookie-secure", "always", "always", lambda s: plane(s).affinity.cookie.secure),
    ("cookie-max-age", "1h", 3600, lambda s: plane(s).affinity.cookie.max_age_s),
    ("eject-after", "7", 7, lambda s: plane(s).failures.eject_after),
    ("eject-after", "0", 0, lambda s: plane(s).failures.eject_after),
    ("connect-timeout", "7", 7.0, lambda s: plane(s).times.connect_s),
    ("response-timeout", "7", 7.0, lambda s: plane(s).times.response_s),
    ("head-timeout", "7", 7.0, lambda s: plane(s).times.head_s),
    ("body-timeout", "7", 7.0, lambda s: plane(s).times.body_s),
    ("idle-timeout", "7", 7.0, lambda s: plane(s).times.idle_s),
    ("upstream-idle-timeout", "0", 0.0, lambda s: plane(s).times.upstream_idle_s),
    ("max-head-bytes", "8k", 8192, lambda s: plane(s).limits.head_bytes),
    ("max-headers", "7", 7, lambda s: plane(s).limits.headers),
    ("tcp-keepalive", "0", 0.0, lambda s: plane(s).keepalive_s),
    ("drain-timeout", "0", 0.0, lambda s: s.drain_timeout_s),
    ("workers", "4", 4, lambda s: s.workers),
    ("stall-log-after", "250ms", 0.25, lambda s: plane(s).stall_log_s),
    ("log-level", "debug", "debug", lambda s: s.log_level),
    ("log-format", "json", "json", lambda s: s.log_format),
    ("admin-actions", "off", False, lambda s: s.admin_actions),
]

MULTIPLE: list[tuple[str, list[str], Any, Reading]] = [
    ("backend", ["b:2", "a:1"], (("b", 2), ("a", 1)), lambda s: s.backends),
    ("secret", ["secret-1", "secret-2"], (b"secret-1", b"secret-2"), lambda s: plane(s).affinity.secrets),
    (
        "trusted-proxy",
        ["10.0.0.0/8", "::1"],
        (ip_network("10.0.0.0/8"), ip_network("::1/128")),
        lambda s: plane(s).trusted,
    ),
    ("trusted-proxy", ["none"], (), lambda s: plane(s).trusted),
    (
        "trusted-proxy",
        ["private", "8.8.8.8"],
        (*PRIVATE_NETWORKS, ip_network("8.8.8.8/32")),
        lambda s: plane(s).trusted,
    ),
    ("health-path", ["/a", "/b"], frozenset((b"/a", b"/b")), lambda s: plane(s).health.paths),
]


def toml(name: str, value: str | list[str]) -> str:
    written = str(value) if isinstance(value, list) else f"'{value}'"
    return f"{name} = {written}\n"


def needed(name: str) -> list[str]:
    return [] if name == "backend" else BACKEND


@pytest.mark.parametrize(("name", "text", "value", "read"), SINGLE)
def test_an_option_can_be_given_by_flag_environment_or_file(
    command: Command, name: str, text: str, value: Any, read: Reading
) -> None:
    assert read(command.settings(*BACKEND, f"--{name}", text)) == value
    config = command.file(toml(name, text))
    assert read(command.settings(*BACKEND, "--config", config)) == value
    command.env(**{name.replace("-", "_"): text})
    assert read(command.settings(*BACKEND)) == value


@pytest.mark.parametrize(("name", "texts", "value", "read"), MULTIPLE)
@pytest.mark.parametrize("separator", [",", " ", ", ", "\n"])
def test_a_repeatable_option_can_be_given_by_flags_environment_or_file(
    command: Command, name: str, texts: list[str], value: Any, read: Reading, separator: str
) -> None:
    flags = [part for text in texts for part in (f"--{name}", text)]
    assert read(command.settings(*needed(name), *flags)) == value
    assert read(command.settings(*needed(name), "--config", command.file(toml(name, texts)))) == value
    if name == "secret":
        separator = "\n"  # a passphrase may hold blanks and commas
    command.env(**{name.replace("-", "_"): separator.join(texts)})
    assert read(command.settings(*needed(name))) == value


def test_a_prober_may_have_blanks_in_its_name_wherever_it_is_given(command: Command) -> None:
    # Half of the known ones have; so in the environment only commas stand between two of them.
    wanted = (*PROBERS, "Uptime Robot/", "Better Stack")
    flags = ["--prober", "Uptime Robot/", "--prober", "Better Stack"]
    assert plane(command.settings(*BACKEND, *flags)).health.probers == wanted
    config = command.file("prober = ['Uptime Robot/', 'Better Stack']")
    assert plane(command.settings(*BACKEND, "--config", config)).health.probers == wanted
    for separator in (",", ", "):
        command.env(prober=f"Uptime Robot/{separator}Better Stack")
        assert plane(command.settings(*BACKEND)).health.probers == wanted


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("ready-needs-backend", lambda s: plane(s).health.ready_needs_backend),
        ("cookie-partitioned", lambda s: plane(s).affinity.cookie.partitioned),
        ("page-token", lambda s: plane(s).affinity.page_token),
    ],
)
def test_a_switch_can_be_given_by_flag_environment_or_file(command: Command, name: str, read: Reading) -> None:
    assert read(command.settings(*BACKEND)) is False
    assert read(command.settings(*BACKEND, f"--{name}")) is True
    config = command.file(f"{name} = true")
    assert read(command.settings(*BACKEND, "--config", config)) is True
    assert read(command.settings(*BACKEND, "--config", config, f"--no-{name}")) is False
    for text, value in (("true", True), ("1", True), ("no", False), ("0", False)):
        command.env(**{name.replace("-", "_"): text})
        assert read(command.settings(*BACKEND)) is value
        assert read(command.settings(*BACKEND, f"--no-{name}")) is False


def test_flag_beats_environment_beats_file_beats_default(command: Command) -> None:
    def listen(*arguments: str) -> str:
        return str(command.settings(*BACKEND, *arguments).listen)

    assert listen() == "0.0.0.0:8080"
    config = command.file("listen = 'file:1'")
    assert listen("--config", config) == "file:1"
    command.env(listen="environment:2")
    assert listen("--config", config) == "environment:2"
    assert listen("--config", config, "--listen", "flag:3") == "flag:3"
    assert listen("--listen", "flag:3", "--config", config) == "flag:3"


def test_of_a_repeatable_option_one_source_replaces_the_others(command: Command) -> None:
    def backends(*arguments: str) -> list[str]:
        return [str(backend) for backend in command.settings(*arguments).backends]

    config = command.file("backend = ['file:1', 'file:2']")
    assert backends("--config", config) == ["file:1", "file:2"]
    command.env(backend="environment:1,environment:2")
    assert backends("--config", config) == ["environment:1", "environment:2"]
    assert backends("--config", config, "--backend", "flag:1") == ["flag:1"]


def test_the_file_can_be_named_in_the_environment(command: Command) -> None:
    path = command.file("backend = 'file:1'")
    command.env(config=path)
    settings = command.settings()
    assert (settings.backends, settings.config_path) == ((Address("file", 1),), path)


def test_an_empty_variable_is_none(command: Command) -> None:
    # Helm charts and compose files set variables to nothing where there is no value.
    command.env(dns="", hold="", secret="", listen="", config="", prober="", ready_needs_backend="")
    assert command.settings(*BACKEND) == ServiceSettings(
        listen=Address("0.0.0.0", 8080), admin=Address("127.0.0.1", 9090), backends=(Address("app", 8080),)
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("hold = 5", 5.0), ("hold = 2.5", 2.5), ("hold = '5s'", 5.0), ("hold = '5'", 5.0)]
)
def test_a_number_in_the_file_needs_no_quotes(command: Command, text: str, seconds: float) -> None:
    settings = command.settings(*BACKEND, "--config", command.file(text))
    assert plane(settings).affinity.hold_s == seconds


def test_a_key_of_the_file_may_be_written_with_underscores(command: Command) -> None:
    assert command.settings(*BACKEND, "--config", command.file("dns_interval = '9s'")).dns_interval_s == 9.0


def test_one_backend_in_the_file_needs_no_list(command: Command) -> None:
    assert command.settings("--config", command.file("backend = 'a:1'")).backends == (Address("a", 1),)


# What belongs together.


def test_a_backend_that_is_named_twice_counts_once(command: Command) -> None:
    settings = command.settings("--backend", "a:1", "--backend", "b:1", "--backend", "a:1")
    assert settings.backends == (Address("a", 1), Address("b", 1))


def test_a_dns_name_takes_the_place_of_backends(command: Command) -> None:
    settings = command.settings("--dns", "app.ns.svc:8080")
    assert (settings.dns, settings.backends) == (Address("app.ns.svc", 8080), ())


def test_backends_by_https_are_all_so(command: Command) -> None:
    settings = command.settings("--backend", "https://a:8443", "--backend", "HTTPS://[::1]:8443/")
    assert settings.backends == (Address("a", 8443), Address("::1", 8443))
    assert settings.tls == TlsFiles(backends=True)
    assert command.settings("--backend", "http://a:1", "--backend", "b:1").tls == TlsFiles()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--dns", "app.ns.svc.:8443"], "app.ns.svc"),
        (["--dns", "app.ns.svc:8443", "--backend-server-name", "app.internal"], "app.internal"),
        (["--kubernetes-service", "app"], ""),
        (["--kubernetes-service", "app", "--backend-server-name", "[::1]"], "::1"),
    ],
)
def test_the_name_that_is_verified_is_the_one_that_was_given(command: Command, arguments: list[str], name: str) -> None:
    settings = command.settings("--backend-tls", *arguments)
    assert plane(settings).backend_server_name == name
    assert plane(command.settings("--dns", "app.ns.svc:8443")).backend_server_name == "", "of no use without TLS"


def test_the_files_of_certificates_are_named_together(command: Command) -> None:
    settings = command.settings(
        "--backend", "https://a:1", "--tls-cert", "/tls.crt", "--tls-key", "/tls.key", "--backend-ca", "/ca.crt"
    )
    assert settings.tls == TlsFiles("/tls.crt", "/tls.key", True, "/ca.crt")
    assert settings.tls.paths == ("/tls.crt", "/tls.key", "/ca.crt")


def test_the_hash_key_counts_only_where_hashing_is_wished(command: Command) -> None:
    key = ["--hash-key", "header:X-User"]
    assert plane(command.settings(*BACKEND, *key)).affinity.hash_key is None
    hashing = command.settings(*BACKEND, *key, "--affinity", "hash")
    assert plane(hashing).affinity.hash_key == HashKey(KeySource.HEADER, b"x-user")
    assert plane(command.settings(*BACKEND, "--affinity", "hash")).affinity.hash_key == HashKey(KeySource.ADDRESS)


def test_the_secrets_of_the_file_come_first(command: Command) -> None:
    path = command.file("  from-file-1  \n\nfrom-file-2\r\n", "secrets")
    settings = command.settings(*BACKEND, "--secret-file", path, "--secret", "from-flag")
    assert plane(settings).affinity.secrets == (b"from-file-1", b"from-file-2", b"from-flag")


def test_a_secret_is_not_shown_with_the_settings(command: Command) -> None:
    assert "hush-hush" not in repr(command.settings(*BACKEND, "--secret", "hush-hush"))


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        (":8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:8000", ("127.0.0.1", 8000)),
        ("[::]:8000", ("::1", 8000)),
        ("localhost:8000", ("localhost", 8000)),
        ("10.0.0.7:8000", ("10.0.0.7", 8000)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
    ],
)
def test_a_sidecar_stands_beside_discovery(command: Command, text: str, local: tuple[str, int]) -> None:
    away = ["--listen", "10.0.0.7:8080"]  # where the app may have the same port on another address
    for source in (BACKEND, ["--dns", "app:8000"], ["--kubernetes-service", "app"]):
        settings = plane(command.settings(*source, *away, "--local-backend", text))
        assert settings.sidecar == SidecarSettings(Address(*local))
    command.env(local_backend=text, app_stuck_after="2m")
    assert plane(command.settings(*BACKEND, *away)).sidecar == SidecarSettings(Address(*local), 120.0)


def test_what_is_said_of_a_sidecars_app_means_nothing_without_one(command: Command) -> None:
    assert plane(command.settings(*BACKEND, "--app-stuck-after", "1h")).sidecar is None


# What is wrong, in one line that names the option.

WRONG = [
    (["--listen", "8080"], "--listen"),
    (["--listen", "a:65536"], "--listen"),
    (["--listen", "a:x"], "--listen"),
    (["--listen", "::1:80"], "--listen"),
    (["--admin", "nowhere"], "--admin"),
    (["--backend", "app"], "--backend"),
    (["--backend", "app:0"], "--backend"),
    (["--backend", "ftp://app:80"], "--backend"),
    (["--backend", "a..b:80"], "--backend"),
    (["--backend", "https://app"], "--backend"),
    (["--backend", "https://app:8443"], "--backend"),  # beside one without https
    (["--backend-tls"], "--backend-tls"),
    (["--backend-ca", "/ca.crt"], "--backend-ca"),
    (["--backend-server-name", "app"], "--backend-server-name"),
    (["--backend-server-name", "a..b"], "--backend-server-name"),
    (["--tls-cert", "/tls.crt"], "--tls-key"),
    (["--tls-key", "/tls.key"], "--tls-cert"),
    (["--dns", "app:80"], "--backend, --dns or --kubernetes-service"),
    (["--dns", "app"], "--dns"),
    (["--dns-interval", "0"], "--dns-interval"),
    (["--dns-interval", "soon"], "--dns-interval"),
    (["--affinity", "ip"], "--affinity"),
    (["--hash-key", "header"], "--hash-key"),
    (["--hash-key", "body:x"], "--hash-key"),
    (["--secret", "short"], "--secret"),
    (["--secret-file", "/does/not/exist"], "--secret-file"),
    (["--secret-file", "/"], "--secret-file"),
    (["--hold", "x"], "--hold"),
    (["--hold", "-1"], "--hold"),
    (["--eject-after", "-1"], "--eject-after"),
    (["--slow-start", "1e3"], "--slow-start"),
    (["--page-ttl", "0"], "--page-ttl"),
    (["--asset-cache", "much"], "--asset-cache"),
    (["--park", "-1"], "--park"),
    (["--park", "long"], "--park"),
    (["--park", "300", "--workers", "2"], "--park"),
    (["--park-pages", "0"], "--park-pages"),
    (["--park-page-bytes", "63k"], "--park-page-bytes"),
    (["--park-bytes", "much"], "--park-bytes"),
    (["--reload-limit", "-1"], "--reload-limit"),
    (["--cookie-name", "a b"], "--cookie-name"),
    (["--cookie-name", "a\nb"], "--cookie-name"),
    (["--cookie-path", "app"], "--cookie-path"),
    (["--cookie-path", "/a;b"], "--cookie-path"),
    (["--cookie-domain", "a b"], "--cookie-domain"),
    (["--cookie-samesite", "Loose"], "--cookie-samesite"),
    (["--cookie-samesite", "None", "--cookie-secure", "never"], "--cookie-samesite"),
    (["--cookie-secure", "sometimes"], "--cookie-secure"),
    (["--cookie-partitioned", "--cookie-secure", "never"], "--cookie-partitioned"),
    (["--cookie-max-age", "x"], "--cookie-max-age"),
    (["--trusted-proxy", "everybody"], "--trusted-proxy"),
    (["--health-path", "healthz"], "--health-path"),
    (["--health-path", "/a?b"], "--health-path"),
    (["--health-path", "/a b"], "--health-path"),
    (["--connect-timeout", "0"], "--connect-timeout"),
    (["--response-timeout", "0"], "--response-timeout"),
    (["--head-timeout", "0"], "--head-timeout"),
    (["--body-timeout", "0"], "--body-timeout"),
    (["--idle-timeout", "0"], "--idle-timeout"),
    (["--upstream-idle-timeout", "x"], "--upstream-idle-timeout"),
    (["--max-head-bytes", "0"], "--max-head-bytes"),
    (["--max-head-bytes", "1G"], "--max-head-bytes"),
    (["--max-headers", "0"], "--max-headers"),
    (["--max-headers", "1.5"], "--max-headers"),
    (["--max-headers", "²"], "--max-headers"),
    (["--max-connections", "-1"], "--max-connections"),
    (["--max-connections", "many"], "--max-connections"),
    (["--max-connections-per-client", "1.5"], "--max-connections-per-client"),
    (["--max-requests-per-connection", "x"], "--max-requests-per-connection"),
    (["--max-pending-per-backend", "x"], "--max-pending-per-backend"),
    (["--max-buffered", "0"], "--max-buffered"),
    (["--max-buffered", "1000k"], "--max-buffered"),
    (["--min-body-rate", "x"], "--min-body-rate"),
    (["--tunnel-idle-timeout", "x"], "--tunnel-idle-timeout"),
    (["--accept-proxy-protocol", "--trusted-proxy", "none"], "--accept-proxy-protocol"),
    (["--tcp-keepalive", "x"], "--tcp-keepalive"),
    (["--drain-timeout", "x"], "--drain-timeout"),
    (["--workers", "0"], "--workers"),
    (["--workers", "257"], "--workers"),
    (["--workers", "many"], "--workers"),
    (["--log-level", "loud"], "--log-level"),
    (["--config", "/does/not/exist"], "--config"),
    (["--config", "/"], "--config"),
    (["--listen"], "--listen"),
    (["--lisen", "a:1"], "--lisen"),
    (["--ready-needs-backend=yes"], "--ready-needs-backend"),
    (["surplus"], "surplus"),
    # An empty prober is the beginning of every User-Agent: all of the app would be answered as a probe.
    (["--prober", ""], "--prober"),
    # A lifetime of 0 deletes the cookie as it is set (RFC 6265 section 5.2.2): no session would ever stick.
    (["--cookie-max-age", "0"], "--cookie-max-age"),
    (["--cookie-max-age", "400ms"], "--cookie-max-age"),
    (["--cookie-max-age", "9" * 400], "--cookie-max-age"),
    # TCP_KEEPIDLE takes up to 32767 s (tcp(7)); beyond, the listener cannot be tuned and the start ends in a traceback.
    (["--tcp-keepalive", "10h"], "--tcp-keepalive"),
    (["--local-backend", "8000"], "--local-backend"),
    (["--local-backend", "127.0.0.1:0"], "--local-backend"),
    # A name may lead to another machine, whose sockets we cannot see.
    (["--local-backend", "app:8000"], "expected an address of this machine such as 127.0.0.1:8000"),
    # The proxy would forward to itself.
    (["--local-backend", "127.0.0.1:8080"], "which is --listen"),
    (["--local-backend", "localhost:9090"], "which is --admin"),
    (["--local-backend", "[::1]:8080", "--listen", "[::]:8080"], "which is --listen"),
    (["--app-stuck-after", "0"], "--app-stuck-after"),
    # What is given up at the response time-out never waits for so long.
    (["--local-backend", ":8000", "--response-timeout", "60s"], "--app-stuck-after: expected less than"),
]


@pytest.mark.parametrize(("arguments", "named"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_setting_ends_with_one_line_that_names_it(command: Command, arguments: list[str], named: str) -> None:
    line = command.refusal(*BACKEND, *arguments)
    assert named in line
    assert "invalid literal" not in line, "what is expected, not what int() says"


def test_neither_backends_nor_a_name_is_wrong(command: Command) -> None:
    expected = "--backend, --dns or --kubernetes-service: expected one of the three (--backend repeatable), found "
    assert command.refusal() == f"{expected}none"
    assert command.refusal(*BACKEND, "--dns", "a:1") == f"{expected}--backend and --dns"
    local = command.refusal("--local-backend", ":8000")
    assert local == f"{expected}only --local-backend, which says which of them is this pod's"
    assert command.refusal("--dns", "a:1", "--kubernetes-service", "a") == f"{expected}--dns and --kubernetes-service"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hold", "soon"),
        ("listen", "nowhere"),
        ("affinity", "ip"),
        ("backend", "a:1,b"),
        ("ready_needs_backend", "perhaps"),
        ("workers", "-4"),
        ("config", "/does/not/exist"),
    ],
)
def test_a_wrong_variable_is_named(command: Command, name: str, text: str) -> None:
    command.env(**{name: text})
    assert f"STICKYPROXY_{name.upper()}" in command.refusal(*needed(name))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lisen = 'a:1'", "'lisen'; did you mean 'listen'?"),
        ("dns-intervall = '1s'", "did you mean 'dns-interval'?"),
        ("trusted_proxies = 'none'", "did you mean 'trusted-proxy'?"),
        ("something-else = 1", "'something-else'"),
        ("config = 'x'", "'config'"),
        ("[run]\nlisten = 'a:1'", "'run'"),
        ("listen =", "expected TOML"),
        ("listen = 'a:1'\nlisten = 'b:1'", "expected TOML"),
        ("hold = 'soon'", "--hold"),
        ("listen = 8080", "--listen"),
        ("workers = 0", "--workers"),
        ("max-headers = 1.5", "--max-headers"),
        ("affinity = 1", "--affinity"),
        ("ready-needs-backend = 'perhaps'", "--ready-needs-backend"),
        ("backend = ['a:1', 'b']", "--backend"),
        # A value of the wrong kind must not pass unread: it would break the running proxy, or a reload of it.
        ("listen = true", "--listen"),
        ("listen = ['a:1']", "--listen"),
        ("listen = 1979-05-27", "--listen"),
        ("admin = false", "--admin"),
        ("hold = true", "--hold"),
        ("hold = 10:00:00", "--hold"),
        ("max-headers = true", "--max-headers"),
        ("backend = true", "--backend"),
        ("backend = [['a:1']]", "--backend"),
        ("backend = {a = 1}", "--backend"),
        ("secret = true", "--secret"),
        ("trusted-proxy = [true]", "--trusted-proxy"),
        ("ready-needs-backend = 2", "--ready-needs-backend"),
        ("ready-needs-backend = [true]", "--ready-needs-backend"),
        ("secret-file = 5", "--secret-file"),
        ("secret-file = true", "--secret-file"),
        ("cookie-name = true", "--cookie-name"),
        ("prober = [['a']]", "--prober"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(command: Command, text: str, named: str) -> None:
    arguments = [] if text.startswith("backend") else BACKEND
    assert named in command.refusal(*arguments, "--config", command.file(text))


def test_a_file_that_is_not_utf_8_is_named(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "latin-1.toml"
    path.write_bytes(b"cookie-path = '/\xe9'")
    assert "--config" in command.refusal(*BACKEND, "--config", str(path))


@pytest.mark.parametrize("text", ["", "\n\n", "short\n", "long-enough\nshort\n"])
def test_a_file_without_good_secrets_is_named(command: Command, text: str) -> None:
    line = command.refusal(*BACKEND, "--secret-file", command.file(text, "secrets"))
    assert "--secret-file" in line
    assert "short" not in line, "a secret is never shown, not even a bad one"


def test_an_unknown_command_is_named(command: Command) -> None:
    code, out, err = command.end("rum")
    assert (code, out) == (2, "")
    assert err.startswith("stickyproxy: ")
    assert "'rum'" in err
    assert err.count("\n") == 1


def test_a_port_that_cannot_be_had_ends_like_a_wrong_setting(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(settings: ServiceSettings, load: app.Load, arguments: list[str]) -> None:
        raise app.SettingsError("--listen: cannot listen on 0.0.0.0:80")

    monkeypatch.setattr(app, "run", taken)
    assert command.refusal(*BACKEND) == "--listen: cannot listen on 0.0.0.0:80"


# Reload.


def test_a_reload_reads_the_file_again(command: Command) -> None:
    path = command.file("backend = ['a:1']")
    assert command.end("run", "--config", path) == (0, "", "")
    settings, load = command.ran.pop()
    assert load() == settings
    command.file("backend = ['a:1', 'b:2']\nhold = '9s'")
    again = load()
    assert again.backends == (Address("a", 1), Address("b", 2))
    assert plane(again).affinity.hold_s == 9.0
    assert replace(again, backends=settings.backends, data_plane=settings.data_plane) == settings


def test_a_reload_keeps_what_flags_and_environment_say(command: Command) -> None:
    path = command.file("listen = 'file:1'\nhold = '1s'\nslow-start = '1s'")
    command.env(hold="2s")
    assert command.end("run", *BACKEND, "--config", path, "--listen", "flag:1") == (0, "", "")
    _, load = command.ran.pop()
    command.file("listen = 'file:2'\nhold = '7s'\nslow-start = '7s'")
    again = load()
    assert (str(again.listen), plane(again).affinity.hold_s, plane(again).affinity.slow_start_s) == ("flag:1", 2.0, 7.0)


def test_a_reload_reads_the_secret_file_again(command: Command) -> None:
    path = command.file("secret-old", "secrets")
    assert command.end("run", *BACKEND, "--secret-file", path) == (0, "", "")
    _, load = command.ran.pop()
    command.file("secret-new\nsecret-old", "secrets")
    assert plane(load()).affinity.secrets == (b"secret-new", b"secret-old")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("backend = ['a']", "--backend"),
        ("backend = [", "--config"),
        ("bakend = ['a:1']", "did you mean 'backend'?"),
        ("hold = '1s'", "--backend, --dns or --kubernetes-service"),
        ("backend = [['a:1']]", "--backend"),
        ("backend = ['a:1']\nsecret-file = 5", "--secret-file"),
    ],
)
def test_a_reload_of_something_wrong_is_told_in_one_line(command: Command, text: str, named: str) -> None:
    # Whatever else it raised would end the running proxy.
    path = command.file("backend = ['a:1']")
    assert command.end("run", "--config", path) == (0, "", "")
    _, load = command.ran.pop()
    command.file(text)
    with pytest.raises(app.SettingsError) as caught:
        load()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reload_of_a_lost_file_is_told_in_one_line(command: Command) -> None:
    path = command.file("backend = ['a:1']")
    assert command.end("run", "--config", path) == (0, "", "")
    _, load = command.ran.pop()
    Path(path).unlink()
    with pytest.raises(app.SettingsError, match=r"^--config .*expected a readable file"):
        load()
