"""Fuzz one target until this process ends: `python -m tests.fuzz.one TARGET [libFuzzer's arguments]`."""

import sys

import atheris

# Only what is imported inside is instrumented.
with atheris.instrument_imports(include=["stickyproxy.core"]):
    from .targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
