import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stickyproxy.core.values import Address
from stickyproxy.tools import healthcheck
from stickyproxy.tools.healthcheck import ask, find_admin, main

BOUND_S = 10.0


@contextmanager
def answering(*pieces: bytes, hang: bool = False) -> Iterator[Address]:
    """Serve one connection: read the question, answer in pieces, close (or hang until the client is gone)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(BOUND_S)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(BOUND_S)
                question = b""
                while not question.endswith(b"\r\n\r\n"):
                    question += connection.recv(4096)
                asked.append(question)
                for piece in pieces:
                    connection.sendall(piece)
                while hang and connection.recv(4096):
                    pass

        asked: list[bytes] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(*server.getsockname())
        finally:
            thread.join(BOUND_S)
        assert asked, "nobody asked"
        assert asked[0].startswith(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:")


def test_a_ready_proxy_is_well_and_its_first_line_says_so() -> None:
    body = b"ready: 2 of 3 backends usable\ndiscovery: DNS app:80: ok\n"
    with answering(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 56\r\n\r", b"\n" + body[:5], body[5:]) as admin:
        assert ask(admin, "/readyz", BOUND_S) == (True, "ready: 2 of 3 backends usable")


def test_an_unready_proxy_is_not_well() -> None:
    with answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: draining, 0 of 0 backends usable\n") as admin:
        assert ask(admin, "/readyz", BOUND_S) == (False, "not ready: draining, 0 of 0 backends usable")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "no HTTP answer from {}, found b'': another program has this port"),
        (
            b"SSH-2.0-OpenSSH\r\n",
            "no HTTP answer from {}, found b'SSH-2.0-OpenSSH\\r\\n': another program has this port",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "/readyz answered 404 and said nothing"),
    ],
)
def test_another_program_on_the_port_is_told(answer: bytes, text: str) -> None:
    with answering(answer) as admin:
        assert ask(admin, "/readyz", BOUND_S) == (False, text.format(admin))


def test_a_proxy_that_is_not_there_is_told() -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        admin = Address(*bound.getsockname())
        well, text = ask(admin, "/readyz", BOUND_S)
    assert not well
    assert text == f"no answer from {admin}: Connection refused; expected `stickyproxy run` with --admin there"


def test_a_proxy_that_hangs_half_way_costs_no_more_than_the_time_given() -> None:
    began = time.monotonic()
    with answering(b"HTTP/1.1 200 OK\r\n", hang=True) as admin:
        assert ask(admin, "/readyz", 0.2) == (False, f"no answer from {admin} within 0.2 s: the proxy hangs")
    assert time.monotonic() - began < BOUND_S


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, ("127.0.0.1", 9090)),
        (None, {"STICKYPROXY_ADMIN": "127.0.0.2:9191"}, ("127.0.0.2", 9191)),
        (None, {"STICKYPROXY_ADMIN": ":9191"}, ("127.0.0.1", 9191)),
        (None, {"STICKYPROXY_ADMIN": "[::]:9191"}, ("::1", 9191)),
        ("localhost:1", {"STICKYPROXY_ADMIN": "127.0.0.2:9191"}, ("localhost", 1)),
        (None, {"STICKYPROXY_CONFIG": "FILE"}, ("127.0.0.1", 9192)),
        (None, {"STICKYPROXY_CONFIG": "FILE", "STICKYPROXY_ADMIN": "127.0.0.2:1"}, ("127.0.0.2", 1)),
    ],
)
def test_the_admin_port_is_found_where_run_finds_it(
    given: str | None, environment: dict[str, str], expected: tuple[str, int], tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('admin = "0.0.0.0:9192"\n')
    assert find_admin(given, {k: v.replace("FILE", str(file)) for k, v in environment.items()}) == expected


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"STICKYPROXY_ADMIN": "off"}, "STICKYPROXY_ADMIN: expected the admin port to ask, found it switched off"),
        (
            {"STICKYPROXY_ADMIN": "9090"},
            "STICKYPROXY_ADMIN: expected HOST:PORT with a port from 1 to 65535, found '9090'",
        ),
        ({"STICKYPROXY_CONFIG": "/nowhere"}, "STICKYPROXY_CONFIG: cannot read '/nowhere': [Errno 2] No such file"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_1(
    environment: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main([])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (1, "")
    assert out.startswith(f"not asked: {line}")
    assert out.count("\n") == 1


def test_an_unknown_option_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--adm", "x:1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "stickyproxy healthcheck: unrecognized arguments: --adm x:1\n"


def test_the_default_is_that_of_run() -> None:
    from stickyproxy.cli import run

    admin = next(parameter for parameter in run.params if parameter.name == "admin")
    assert admin.default == healthcheck.DEFAULT_ADMIN


def test_the_command_loads_nothing_but_the_standard_library() -> None:
    root = str(Path(healthcheck.__file__).parents[2])
    code = f"""
import sys
sys.path.insert(0, {root!r})
sys.argv = ["stickyproxy", "healthcheck", "--help"]
from stickyproxy.__main__ import main
try:
    main()
except SystemExit:
    print(*sorted({{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=BOUND_S)
    assert done.stdout.splitlines()[-1:] == ["__main__ stickyproxy"], done.stderr
