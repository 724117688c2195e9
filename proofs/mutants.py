"""M: small faults planted in the code, one at a time; which theorem notices?

    python proofs/mutants.py [--only NAME ...] [--write]

Each mutant of ``mutants.toml`` is a textual change of one place, applied in a scratch copy of the
package; the checks of all theorems then run on random cases (the same for each mutant), and the
table says which fail. A mutant that none of them kills is put through the rest of ``proofs/``.
``--write`` keeps the rows in ``mutants.md``. A fault is planted where it breaks an equality that a
theorem claims: a change that every path shares, such as another norm weight, makes another decoder,
for which the theorems hold; parity tests in ``tests/`` are there for those.
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
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "proofs" / "mutants.md"
EXAMPLES = 8  # random cases for each theorem and family

MUTANTS = tomllib.loads((ROOT / "proofs" / "mutants.toml").read_text(encoding="utf-8"))

WORKER = f"""
import sys, warnings
warnings.simplefilter("ignore")
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from strategies import FAMILIES, cases
from minikv.arithmetic import Arithmetic
from minikv.verify import THEOREMS
Arithmetic.query_block = 8  # as in conftest.py
for name, theorem in THEOREMS.items():
    @settings(max_examples={EXAMPLES}, derandomize=True, database=None, deadline=None,
              phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(family, data):
        theorem.check(data.draw(cases(windowed=theorem.windowed, families=(family,))))
    try:
        for family in FAMILIES:
            check(family)
    except BaseException as error:
        print(name)
"""


def killers(name: str) -> list[str]:
    """The theorems (or tests of ``proofs/``) that notice a mutant."""
    file, old, new = (MUTANTS[name][key] for key in ("file", "old", "new"))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        shutil.copytree(ROOT / "minikv", copy / "minikv", ignore=shutil.ignore_patterns("*.pyc"))
        for part in ("proofs", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("*.pyc"))
        for part in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / part, copy)
        target = copy / "minikv" / file
        source = target.read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise SystemExit(f"mutant {name}: {old!r} stands {source.count(old)} times in {file}")
        target.write_text(source.replace(old, new), encoding="utf-8")
        path = os.pathsep.join([str(copy), str(copy / "proofs")])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        env.pop("HYPOTHESIS_PROFILE", None)
        run = subprocess.run(
            [sys.executable, "-c", WORKER], env=env, cwd=copy, capture_output=True, text=True
        )
        found = run.stdout.split()
        if run.returncode or found:
            return found or ["import"]
        rest = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-n0",
                "--no-header",
                "-p",
                "no:cacheprovider",
                "proofs/test_t07_order.py",
                "proofs",  # most die in T7
                *(
                    f"--ignore=proofs/test_{name}.py"
                    for name in ("theorems", "rocq", "lecture", "mutants")
                ),
            ],
            env=env,
            cwd=copy,
            capture_output=True,
            text=True,
        )
        failed = [line for line in rest.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return [failed[0].split()[1]] if failed else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(MUTANTS), default=list(MUTANTS))
    parser.add_argument("--write", action="store_true", help="keep the table in proofs/mutants.md")
    options = parser.parse_args()
    head, rows = ["| mutant | file | killed by |", "|---|---|---|"], {}
    print(*head, sep="\n", flush=True)
    for name in options.only:
        found = killers(name)
        by = ", ".join(f"`{who}`" if "::" in who else who for who in found)
        rows[name] = f"| {name} | `{MUTANTS[name]['file']}` | {by or '**survived**'} |"
        print(rows[name], flush=True)
    if options.write:
        if TABLE.exists():  # mutants that were not run now keep their rows
            kept = re.findall(r"^(\| (\S+) \| `.*)$", TABLE.read_text(encoding="utf-8"), re.M)
            rows = {name: row for row, name in kept} | rows
        lines = [rows[name] for name in MUTANTS if name in rows]
        killed = sum("survived" not in line for line in lines)
        score = f"Made by `python proofs/mutants.py --write`: {killed} of {len(lines)} killed."
        TABLE.write_text(
            "\n".join(["# Mutants", "", score, "", *head, *lines, ""]), encoding="utf-8"
        )
    sys.exit(any("survived" in row for row in rows.values()))


if __name__ == "__main__":
    main()
