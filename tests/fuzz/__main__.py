"""Fuzz every target for its share of the time: `python -m tests.fuzz --seconds 600 [--target NAME] [--keep]`.

Exit code 1 with the input that broke a law, in hexadecimal digits; put it into `seeds/TARGET.txt` and mend the parser.
--keep adds the shortest of the inputs that reached something new to `seeds/`.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .kept import keep, kept
from .targets import TARGETS, dictionary, seeds

OVERTIME_S = 120.0
"""How much longer than asked a run may take before it is ended as hanging."""


def fuzz(name: str, seconds: int, *, keeps: bool) -> bool:
    """Fuzz one target; print one line; say whether nothing was found."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, found = Path(folder) / "inputs", Path(folder) / "found-"
        inputs.mkdir()
        words = Path(folder) / "words"
        words.write_text(dictionary())
        for number, seed in enumerate(seeds(name)):
            (inputs / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz.one", name]
        arguments = [f"-max_total_time={seconds}", "-timeout=10", "-max_len=2048", "-print_final_stats=1"]
        done = subprocess.run(
            [*command, *arguments, f"-dict={words}", f"-artifact_prefix={found}", str(inputs)],
            capture_output=True, text=True, errors="replace", timeout=seconds + OVERTIME_S, check=False,
        )  # fmt: skip
        runs = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        artifacts = sorted(Path(folder).glob("found-*"))
        print(
            f"{name}: {runs[1] if runs else '?'} inputs in {seconds} s, coverage {covered[-1] if covered else '?'}, "
            f"{len(artifacts)} found",
            flush=True,
        )
        if done.returncode or artifacts:
            print(done.stderr[-3000:], *(a.read_bytes().hex() for a in artifacts), sep="\n")
            return False
        if keeps:  # libFuzzer has put beside the seeds what reached something new
            new = [path.read_bytes() for path in inputs.iterdir() if not path.name.startswith("seed-")]
            print(f"{name}: keeps {keep(name, [*kept(name), *new])} inputs")
        return True


def main() -> int:
    """Fuzz what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; repeatable")
    parser.add_argument("--keep", action="store_true", help="add inputs that reached something new to tests/fuzz/seeds")
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("expected the package atheris, found none: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    names = asked.target or list(TARGETS)
    share = max(1, asked.seconds // len(names))
    clean = [fuzz(name, share, keeps=asked.keep) for name in names]  # all of them, whatever the first finds
    return int(not all(clean))


if __name__ == "__main__":
    sys.exit(main())
