"""Virtual environments with other versions and other frameworks than those of this project, made once and kept.

They live in a cache (`STICKYPROXY_TEST_CACHE`, else `~/.cache/stickyproxy-tests`), each named by a hash of what it is
made of, so that a changed list of requirements makes another one. One that was interrupted half way is made anew.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent
INSTALL_LIMIT_S = 600.0


class NotInstallableError(Exception):
    """The environment could not be made; the text is one line and says why."""


def prepared_python(name: str) -> Path:
    """Return the Python of the environment of `requirements-NAME.txt`; make it where it is not there yet."""
    requirements = REQUIREMENTS / f"requirements-{name}.txt"
    made_of = requirements.read_bytes() + sys.version.encode() + sys.executable.encode()
    cache = Path(os.environ.get("STICKYPROXY_TEST_CACHE") or Path.home() / ".cache" / "stickyproxy-tests")
    folder = cache / f"{name}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    python, done = folder / "bin" / "python", folder / "done"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be making it
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run(name, [sys.executable, "-m", "venv", str(folder)])
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
            _run(name, [*pip, "install", "--requirement", str(requirements)])
            done.touch()
    return python


def _run(name: str, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
    except subprocess.CalledProcessError as error:
        said = [line for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
        raise NotInstallableError(f"{name}: {said[-1] if said else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotInstallableError(f"{name}: {error}") from None
