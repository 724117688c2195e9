"""Faults planted by hand, and a test that notices each: ``python tests/faults.py [NAME ...]``.

``proofs/mutants.toml`` holds faults that theorems refute; those of ``tests/faults.toml`` are seen
by no theorem, and a test of this folder was found or written for each. All such tests are imported
once, and must pass; then each runs in a forked process in which its fault is planted, as in
``mutation.py``, and must fail. A fault names a test in `by`: all of its cases, or one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator

from mutate import Mutant
from mutation import PACKAGE, ROOT, Apart, apart, functions_with, run_imported, warm_up

FILE = ROOT / "tests" / "faults.toml"
MOST = 120.0  # seconds of one test


def faults() -> dict[str, dict[str, str]]:
    """The faults by name: file, the text that was and the one that is, and who notices."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def planted(name: str, file: str, old: str, new: str) -> Mutant:
    """A fault as a mutant of its file; `ValueError` unless the old text stands there once."""
    text = (PACKAGE / file).read_bytes()
    start = text.find(old.encode())
    if text.count(old.encode()) != 1:
        raise ValueError(f"{name}: {old!r} stands {text.count(old.encode())} times in {file}")
    return Mutant(file, name, range(0), text, start, start + len(old.encode()), new.encode())


def sound() -> Mutant:
    """No fault at all."""
    text = (PACKAGE / "decoder.py").read_bytes()
    return Mutant("decoder.py", "no fault", range(0), text, 0, 0, b"")


def outcomes(names: list[str]) -> Iterator[tuple[str, str]]:
    """Each fault with what came of its test: ``killed``, ``survived`` or ``untested``."""
    entries = faults()
    every = {
        name: planted(name, *(entries[name][k] for k in ("file", "old", "new"))) for name in names
    }
    tests = sorted({entries[name]["by"] for name in names})
    ready = Apart(
        sorted({test.partition("::")[0] for test in tests}), [*every.values(), sound()], MOST
    )
    yield "no fault", ready.run(sound(), tests)["outcome"]
    for name, mutant in every.items():
        by = [entries[name]["by"]]
        if functions_with(mutant):
            said = ready.run(mutant, by)
        else:
            said = apart(lambda mutant=mutant, by=by: run_imported(mutant, by), MOST)
        yield name, said["outcome"]


def noticed(names: list[str] | None = None, quiet: bool = False) -> tuple[int, int]:
    """How many faults were run, and how many of them a test noticed."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINIKV_HOME"] = os.path.join(folder, "no-weights")
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(folder, "hypothesis")
        os.chdir(ROOT)
        warm_up()
        found = dict(outcomes(names or list(faults())))
    if found.pop("no fault") != "survived":
        raise SystemExit("a test fails without a fault: what fails with one says nothing")
    if not quiet:
        print(*(f"{outcome:9} {name}" for name, outcome in found.items()), sep="\n")
    return len(found), list(found.values()).count("killed")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="some faults (default: all)")
    options = parser.parse_args()
    count, killed = noticed(options.names)
    print(f"{count} faults planted by hand, {killed} noticed by the test that is named")
    sys.exit(count != killed)


if __name__ == "__main__":
    main()
