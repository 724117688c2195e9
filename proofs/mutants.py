"""M: small faults planted in the code, one at a time; which theorem notices, and on which case?

    python proofs/mutants.py [--only NAME ...] [--write]

The checks of all theorems run on the same random cases for each fault of ``mutants.toml``, and the
table says which fail, and the seed of the first case on which they do. ``test_mutants.py`` runs the
table again. A fault that no theorem refutes is put through the tests of single operations (T6, T7,
digits), in a scratch copy. ``--write`` keeps the rows in ``mutants.md``. A fault is planted where
it breaks an equality that a theorem claims: a change that every path shares, such as another norm
weight, makes another decoder, for which the theorems hold; parity tests in ``tests/`` are there for
those.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planted import Fault, planted

from minikv.arithmetic import Arithmetic
from minikv.verify import THEOREMS, random_case

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "proofs" / "mutants.md"
CASES = 24  # random cases for each theorem

MUTANTS = {
    name: Fault(**entry)
    for name, entry in tomllib.loads(
        (ROOT / "proofs" / "mutants.toml").read_text(encoding="utf-8")
    ).items()
}
WHY = """A theorem stands with the seed of the first case on which it fails:
`minikv.verify.random_case(seed)`."""


@contextmanager
def small_blocks() -> Iterator[None]:
    """Short texts take several blocks of queries, as in ``conftest.py``."""
    before = Arithmetic.query_block
    Arithmetic.query_block = 8
    try:
        yield
    finally:
        Arithmetic.query_block = before


def refuted(theorem: str, seed: int) -> bool:
    """Whether a theorem's check fails on a case; a fault may show as any error."""
    case = random_case(seed)
    if not THEOREMS[theorem].applies(case):
        return False
    try:
        THEOREMS[theorem].check(case)
    except Exception:
        return True
    return False


def refuting(fault: Fault) -> dict[str, int]:
    """For each theorem that notices a fault, the first seed."""
    found = {}
    with small_blocks(), planted(fault), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for theorem in THEOREMS:
            for seed in range(CASES):
                if refuted(theorem, seed):
                    found[theorem] = seed
                    break
    return found


def failing_test(fault: Fault) -> str:
    """The first test of single operations that fails in a copy with the fault; "" for none."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for part in ("minikv", "proofs", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("*.pyc"))
        for part in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / part, copy)
        (copy / "minikv" / fault.file).write_text(fault.changed(), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        environment.pop("HYPOTHESIS_PROFILE", None)
        tests = ["test_t07_order.py", "test_t06_rows.py", "test_portability.py"]
        options = ["-q", "-x", "-n0", "--no-header", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *(f"proofs/{name}" for name in tests)],
            env=environment,
            cwd=copy,
            capture_output=True,
            text=True,
        )
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split()[1] if failed else ""


def row(name: str) -> str:
    """A fault's row of the table."""
    fault = MUTANTS[name]
    found = [f"{theorem} at {seed}" for theorem, seed in refuting(fault).items()]
    if not found:
        test = failing_test(fault)
        found = [f"`{test}`" if test else "**survived**"]
    return f"| {name} | `{fault.file}` | {', '.join(found)} |"


def recorded() -> dict[str, str]:
    """The rows of the table, by name."""
    text = TABLE.read_text(encoding="utf-8")
    return {name: line for line, name in re.findall(r"^(\| (\S+) \| `.*)$", text, re.M)}


def refutations() -> list[tuple[str, str, int]]:
    """What the table says: fault, theorem, seed."""
    return [
        (name, theorem, int(seed))
        for name, line in recorded().items()
        for theorem, seed in re.findall(r"\b(T\d+) at (\d+)", line)
    ]


def write(rows: dict[str, str]) -> None:
    """Keep rows in the table; faults that were not run now keep theirs."""
    text = TABLE.read_text(encoding="utf-8")
    kept = recorded() | rows
    lines = [kept[name] for name in MUTANTS if name in kept]
    killed = sum("survived" not in line for line in lines)
    score = f"Made by `python proofs/mutants.py --write`: {killed} of {len(lines)} killed. {WHY}"
    head = ["| mutant | file | killed by |", "|---|---|---|"]
    notes = text.partition("\n## ")[2]
    table = "\n".join(["# Mutants", "", score, "", *head, *lines, ""])
    TABLE.write_text(f"{table}\n## {notes}" if notes else table, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(MUTANTS), default=list(MUTANTS))
    parser.add_argument("--write", action="store_true", help="keep the table in proofs/mutants.md")
    options = parser.parse_args()
    rows = {}
    for name in options.only:
        rows[name] = row(name)
        print(rows[name], flush=True)
    if options.write:
        write(rows)
    sys.exit(any("survived" in line for line in rows.values()))


if __name__ == "__main__":
    main()
