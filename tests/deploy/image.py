"""A Dockerfile read, and the commands of one of its stages run without a container engine.

Laws: a command runs exactly as it is written, in a mount namespace of its own in which `/opt` is a folder of the test,
with an environment that holds nothing but what is named here; what the Dockerfile copies is copied as .dockerignore
allows.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

KEPT = ("PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Beginnings of the variables that say how this machine reaches a package registry; a build has them, too."""

RUN_LIMIT_S = 600.0


@dataclass
class Stage:
    """One stage: what it builds on, its name, and its instructions in order."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, keyword: str) -> list[str]:
        """Give the arguments of all instructions of one kind."""
        return [argument for word, argument in self.instructions if word == keyword]


def parse(text: str) -> list[Stage]:
    """Parse what the project's Dockerfile uses: comments, continued lines, ARG before the first FROM."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(str.strip, joined.splitlines()):
        keyword, _, argument = line.strip().partition(" ")
        argument = re.sub(r"\s+", " ", argument.strip())
        if keyword == "ARG" and not stages:
            name, _, value = argument.partition("=")
            arguments[name] = value
        elif keyword == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], argument).partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].instructions.append((keyword, argument))
    return stages


def ignored(path: str, patterns: Iterable[str]) -> bool:
    """Decide whether .dockerignore leaves a file out: the last pattern that fits the file or a folder above it."""
    parts = path.split("/")
    above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    left_out = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        anywhere = wanted.startswith("**/")
        wanted = wanted.removeprefix("**/")
        names = [name.rpartition("/")[2] if anywhere else name for name in above]
        # Docker's * does not cross a slash, fnmatch's does.
        if any(fnmatch(name, wanted) and name.count("/") == wanted.count("/") for name in names):
            left_out = not pattern.startswith("!")
    return left_out


class Room:
    """A folder in which the instructions of a stage take place; what is in `/opt` of the image is in `opt` here."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.opt = folder / "opt"
        self.home = folder / "home"
        self.opt.mkdir()
        self.home.mkdir()
        self._python = python

    def environment(self) -> dict[str, str]:
        """Give the whole environment of a command."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        return kept | {"PATH": f"{self._python.parent}:/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8"}

    def command(self, *arguments: str) -> list[str]:
        """Give the command that runs another one with this room's /opt; a Python that lives in /opt stays there."""
        inside = 'mount --rbind "$1" /opt && shift && exec "$@"'
        if Path(sys.base_prefix).is_relative_to("/opt"):
            place = self.opt / Path(sys.base_prefix).relative_to("/opt")
            place.mkdir(parents=True, exist_ok=True)
            inside = f"mount --rbind {shlex.quote(sys.base_prefix)} {shlex.quote(str(place))} && {inside}"
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", inside, "sh", str(self.opt), *arguments]

    def shell(self, line: str, workdir: str) -> str:
        """Run a shell command as RUN does; give what it said."""
        entered = f'cd "{workdir}" && {line}'
        done = subprocess.run(
            self.command("sh", "-c", entered),
            env=self.environment(), capture_output=True, text=True, timeout=RUN_LIMIT_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def copy(self, context: Path, argument: str, workdir: str, patterns: list[str]) -> None:
        """Copy from the build context as COPY does: folders by their content, below the working directory."""
        *sources, target = argument.split()
        for source in sources:
            found = context / source
            files = sorted(found.rglob("*")) if found.is_dir() else [found]
            wanted = [f for f in files if f.is_file() and not ignored(f.relative_to(context).as_posix(), patterns)]
            assert wanted, f"COPY {argument}: .dockerignore leaves nothing of {source}"
            place = self.opt / Path(workdir).relative_to("/opt") / target
            for file in wanted:
                copy = place / (file.relative_to(found) if found.is_dir() else file.name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)

    def perform(self, stage: Stage, context: Path) -> None:
        """Perform a stage's WORKDIR, COPY and RUN instructions in order."""
        ignore = (context / ".dockerignore").read_text().splitlines()
        patterns = [line for line in ignore if line.strip() and not line.startswith("#")]
        workdir = "/opt"
        for keyword, argument in stage.instructions:
            match keyword:
                case "WORKDIR":
                    workdir = argument
                    (self.opt / Path(workdir).relative_to("/opt")).mkdir(parents=True)
                case "COPY":
                    self.copy(context, argument, workdir, patterns)
                case "RUN":
                    self.shell(argument, workdir)
                case _:
                    raise AssertionError(f"an instruction that this test does not know: {keyword} {argument}")
