"""Faults planted by hand, and a test that notices each: ``python tests/planting.py [NAME ...]``.

``proofs/mutants.toml`` holds faults that theorems refute; those of ``tests/planting.toml`` are seen
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
from functools import partial

from mutate import Mutant
from mutation import PACKAGE, ROOT, Apart, apart, functions_with, run_imported, warm_up

FILE = ROOT / "tests" / "planting.toml"
MOST = 120.0  # seconds of one test, after which it is stuck


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


def outcomes(entries: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Each fault with what came of its test: ``killed``, ``survived`` or ``untested``.

    The first is none at all, with all tests.
    """
    none = sound()
    made = {
        name: planted(name, one["file"], one["old"], one["new"]) for name, one in entries.items()
    }
    tests = sorted({one["by"] for one in entries.values()})
    files = sorted({test.partition("::")[0] for test in tests})
    ready = Apart(files, [none, *made.values()], MOST * len(tests))
    yield none.name, ready.run(none, tests)["outcome"]
    for name, mutant in made.items():
        by = [entries[name]["by"]]
        if functions_with(mutant):
            said = ready.run(mutant, by)
        else:
            said = apart(partial(run_imported, mutant, by), MOST)
        yield name, said["outcome"]


def noticed(entries: dict[str, dict[str, str]]) -> int:
    """How many faults their tests notice; `SystemExit` where a test fails without a fault."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINIKV_HOME"] = os.path.join(folder, "no-weights")
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(folder, "hypothesis")
        os.chdir(ROOT)
        warm_up()
        killed = 0
        for name, outcome in outcomes(entries):
            print(f"{outcome:9} {name}", flush=True)
            if name == sound().name and outcome != "survived":
                raise SystemExit("a test fails without a fault: what fails with one says nothing")
            killed += outcome == "killed"
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="some faults (default: all)")
    options = parser.parse_args()
    entries = faults()
    if options.names:
        entries = {name: entries[name] for name in options.names}
    killed = noticed(entries)
    print(f"{len(entries)} more faults planted by hand, {killed} noticed by the test that is named")
    sys.exit(killed < len(entries))


if __name__ == "__main__":
    main()
