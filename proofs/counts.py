"""How many faults, weaker checks and smugglers are noticed, and what the tests walk and refute.

    python proofs/counts.py [--run] [--coverage]

Faults planted by hand are those of ``mutants.toml``, which theorems refute, and of
``tests/planting.toml``, each of which a test notices; ``--run`` plants all of them now, which takes
two minutes, but for the few of ``mutants.toml`` that ``mutants.md`` gives to a test and no theorem.
``test_mutants.py``, ``test_weakened.py`` and ``test_certificate.py`` show the lines
that follow each time they run. The mutation score is of the outcomes that ``tests/mutation.py``
wrote down, the sentences are those of ``tests/claims.toml``. ``--coverage`` runs the tests of the
core besides, which takes minutes, and prints which share of its lines and branches they walk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

from mutants import MUTANTS, recorded, refutations, refuted, small_blocks
from planted import planted

from minikv.verify import THEOREMS

PROOFS = Path(__file__).resolve().parent
TESTS = PROOFS.parent / "tests"
sys.path.append(str(TESTS))

import claims  # noqa: E402
import mutation  # noqa: E402
import planting  # noqa: E402


def entries(name: str) -> dict:
    """What stands in a file of faults."""
    return tomllib.loads((PROOFS / name).read_text(encoding="utf-8"))


def run_all() -> None:
    """Plant every fault, and print how many are noticed; `SystemExit` if one is not."""
    first: dict[str, tuple[str, int]] = {}
    for name, theorem, seed in refutations():
        first.setdefault(name, (theorem, seed))
    refuting = 0
    with small_blocks(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (theorem, seed) in first.items():
            with planted(MUTANTS[name]):
                refuting += refuted(theorem, seed)
    others = len(MUTANTS) - len(first)
    told = f"  run now: {refuting} of {len(first)} refute a theorem; {others} are a test's, not run"
    print(told, flush=True)
    done = subprocess.run(
        [sys.executable, str(TESTS / "planting.py")], stdout=subprocess.PIPE, text=True
    )
    print(f"  run now: {done.stdout.splitlines()[-1]}")
    if done.returncode or refuting < len(first):
        raise SystemExit("a fault is not noticed")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", action="store_true", help="plant all faults, and see them noticed")
    parser.add_argument("--coverage", action="store_true", help="run the tests of the core, too")
    options = parser.parse_args()
    by_tests = planting.faults()
    theorems = sum("survived" not in row for row in recorded().values())
    weaker = sum(len(theorem.weaker) for theorem in THEOREMS.values())
    smugglers = entries("smugglers.toml")
    flows = sum("weaker" in smuggler for smuggler in smugglers.values())
    print(
        f"{len(MUTANTS) + len(by_tests)} faults planted by hand: {len(MUTANTS)} in mutants.toml, "
        f"{theorems} noticed as mutants.md says; {len(by_tests)} in planting.toml, each with a test"
    )
    if options.run:
        run_all()
    print(f"{len(refutations())} refutations of a theorem by one of them, each run by pytest")
    atlas = entries("../tests/atlas/theorem_faults.toml")
    print(f"{len(atlas)} faults that a theorem of the atlas notices, each run by pytest")
    print(f"{weaker} checks made weaker, each noticed")
    print(f"{len(smugglers)} smugglers past the certificate, each caught")
    print(f"{flows} weaker certificates, each noticed")
    print(mutation.summary())
    print(mutation.edge_summary())
    print(claims.summary())
    if options.coverage:
        subprocess.run([sys.executable, str(TESTS / "covered.py")], check=True)


if __name__ == "__main__":
    main()
