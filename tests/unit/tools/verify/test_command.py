import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from stickyproxy.cli import cli, main
from stickyproxy.tools.verify import command
from stickyproxy.tools.verify.catalogue import DOCUMENT
from stickyproxy.tools.verify.command import (
    make_context,
    parse_cookie,
    parse_header,
    parse_path,
    parse_url,
    verify,
)
from stickyproxy.tools.verify.progress import Bar
from stickyproxy.tools.verify.seen import Seen
from stickyproxy.tools.verify.web import Options


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://app.test", "https://app.test/"),
        ("app.test/a b".replace(" ", "%20"), "https://app.test/a%20b"),
        ("localhost:8080", "http://localhost:8080/"),
        ("127.0.0.1:8080/x?y=1#z", "http://127.0.0.1:8080/x?y=1"),
        ("HTTP://[::1]:80/ü", "http://[::1]:80/%C3%BC"),
    ],
)
def test_an_address_is_read_as_a_browser_does(text: str, url: str) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "ftp://a/", "http://", "http://a b/", "http://a:0/", "http://a:x/", "http://[::1/"]
)
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="expected the address of a page"):
        parse_url(text)


def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="give --user NAME") as error:
        parse_url("https://me:hunter2@app.test/")
    assert "hunter2" not in str(error.value)


def test_headers_and_cookies_are_read() -> None:
    assert parse_header("X-A:  b: c ") == ("X-A", "b: c")
    assert parse_cookie("a=b=c") == ("a", "b=c")
    assert parse_path("/ws?x=1") == "/ws?x=1"


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_header, "nothing"), (parse_header, "a b: c"), (parse_header, "a: b\r\nc: d"), (parse_cookie, "a"),
     (parse_cookie, "a=b; c=d"), (parse_cookie, "=x"), (parse_path, "ws"), (parse_path, "/a#b")],
)  # fmt: skip
def test_wrong_values_are_refused(parse: Any, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(text)


def test_a_wrong_file_of_certificates_names_the_option() -> None:
    with pytest.raises(click.BadParameter, match="expected a file of certificates"):
        make_context("/nowhere.pem", False)
    assert make_context("/nowhere.pem", True) is False
    assert make_context(None, False) is True


def fake_run(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    asked: list[Options] = []

    async def run(options: Options, *_: object) -> Seen:
        asked.append(options)
        return Seen(options.url, options.visitors, problem="nothing was asked")

    monkeypatch.setattr(command, "run", run)
    return asked


def test_options_arrive_and_what_could_not_be_told_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_run(monkeypatch)
    arguments = ["verify", "app.test", "--visitors", "3", "--idle", "1m", "--upload", "2M", "--header", "A: b",
                 "--cookie", "c=d", "--user", "me:secret", "--ws-path", "/ws", "--stream-path", "/s"]  # fmt: skip
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "could not tell: the page could not be loaded" in result.output
    assert asked == [
        Options("https://app.test/", 3, 60.0, 2 << 20, "/ws", "/s", (("A", "b"),), (("c", "d"),), ("me", "secret"))
    ]


def test_a_password_is_asked_for_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_run(monkeypatch)
    result = CliRunner().invoke(cli, ["verify", "app.test", "--user", "me"], input="hunter2\n")
    assert asked[0].user == ("me", "hunter2")
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--visitors", "0"], "--visitors"), (["--idle", "x"], "--idle"), (["--timeout", "0"], "--timeout"),
     (["--header", "x"], "--header"), (["--ca", "/nowhere.pem"], "--ca")],
)  # fmt: skip
def test_a_wrong_option_is_one_line_that_names_it(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["verify", "app.test", *arguments])
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_a_stated_number_of_pages_is_the_most() -> None:
    assert Options("http://a/", visitors=8).most_pages == 52


def test_every_option_is_in_the_document() -> None:
    text = (Path(__file__).parents[4] / DOCUMENT).read_text("utf-8")
    rows = {line.split("`")[1].split()[0] for line in text.splitlines() if line.startswith("| `--")}
    assert rows == {parameter.opts[0] for parameter in verify.params if isinstance(parameter, click.Option)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        bar = Bar(stream)
        bar(0.5, "half way")
        bar(1.0, "")
    assert file.getvalue() == ""
    assert "[############............] half way" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_nothing_of_it_is_loaded_for_other_commands() -> None:
    script = "import sys, stickyproxy.cli; print([m for m in sys.modules if 'verify' in m or m == 'aiohttp'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
