"""A general mutation tool over the core, for the night: how many arbitrary faults do the tests see?

    pip install -e ".[test,mutation]"
    python proofs/nightly.py [--sample 200] [--seed 0] [--write]

``mutants.py`` plants faults that we thought of; cosmic-ray thinks of its own: it swaps operators,
comparisons, numbers, and/or, break/continue, and drops decorators. There are some thousands of
these, each worth up to minutes of tests, so a night takes a random sample; give each night another
seed. Everything happens in a scratch copy. ``--write`` keeps the score and the survivors in
``nightly.md``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ["decoder.py", "projection.py", "layers.py", "arithmetic", "caches"]
# Quick tests first: most faults die in the first seconds.
TESTS = [
    "tests/test_decoder.py",
    "tests/arithmetic/test_exact.py",
    "tests/arithmetic/test_elementary.py",
    "tests/test_fingerprint.py",
    "tests/test_caches.py",
    "tests/test_cache_oracles.py",
    "tests/test_cache_machine.py",
    "proofs/test_theorems.py",
    "proofs/test_t06_rows.py",
    "proofs/test_t07_order.py",
    "proofs/test_portability.py",
    "proofs/test_certificate.py",
    "proofs/test_counterexamples.py",
]
CONFIG = """[cosmic-ray]
module-path = {modules}
timeout = 900.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -n0 -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sample", type=int, default=200, help="faults to try (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--write", action="store_true", help="keep the score in proofs/nightly.md")
    options = parser.parse_args()
    try:
        from cosmic_ray.work_db import use_db
    except ImportError:
        raise SystemExit('needs cosmic-ray: pip install "minikv[mutation]"') from None
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        copy, session = Path(scratch) / "minikv", Path(scratch) / "session.sqlite"
        for part in ("minikv", "proofs", "tests", "notebooks"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("*.pyc"))
        for part in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / part, copy)
        config = copy / "cosmic-ray.toml"
        config.write_text(
            CONFIG.format(
                modules=[f"minikv/{part}" for part in CORE],
                python=sys.executable,
                tests=" ".join(TESTS),
            ),
            encoding="utf-8",
        )
        environment = {**os.environ, "PYTHONPATH": str(copy), "OPENBLAS_NUM_THREADS": "1"}

        def cosmic_ray(*arguments: str) -> None:
            command = [sys.executable, "-m", "cosmic_ray.cli", *arguments]
            subprocess.run(command, cwd=copy, env=environment, check=True)

        cosmic_ray("baseline", config.name)  # without a fault the tests must pass
        cosmic_ray("init", config.name, str(session))
        with use_db(session) as db:
            # `|` stands in annotations, which are not run
            items = [
                item
                for item in db.work_items
                if not any("BitOr" in m.operator_name for m in item.mutations)
            ]
            chosen = random.Random(options.seed).sample(items, min(options.sample, len(items)))
            db.clear()
            db.add_work_items(chosen)
        print(f"{len(chosen)} of {len(items)} faults", flush=True)
        cosmic_ray("exec", config.name, str(session))
        with use_db(session) as db:
            outcomes = {job: result.test_outcome for job, result in db.results}
        lived = []
        for item in chosen:
            outcome = outcomes.get(item.job_id)
            if outcome is None or outcome.value == "survived":
                m = item.mutations[0]
                what = m.operator_name.removeprefix("core/")
                lines = (copy / m.module_path).read_text(encoding="utf-8").splitlines()
                lived.append(
                    (f"{m.module_path}:{m.start_pos[0]}", what, lines[m.start_pos[0] - 1].strip())
                )
    minutes = (time.monotonic() - start) / 60
    score = (
        f"{len(chosen) - len(lived)} of {len(chosen)} killed, drawn with seed {options.seed} "
        f"from {len(items)} faults; {minutes:.0f} minutes."
    )
    rows = [
        f"| `{where}` | {what} | `{line.replace('|', chr(92) + '|')}` |"
        for where, what, line in sorted(lived)
    ]
    table = "\n".join(["| survivor | fault | line |", "|---|---|---|", *rows])
    print(score, table, sep="\n\n")
    if options.write:
        intro = (
            f"# Arbitrary faults\n\nMade by `python proofs/nightly.py --sample {options.sample} "
        )
        (ROOT / "proofs" / "nightly.md").write_text(
            f"{intro}--seed {options.seed} --write`: {score}\n\n{table}\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
