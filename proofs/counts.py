"""How many faults, weaker checks and smugglers are noticed, and what the tests walk and refute.

    python proofs/counts.py [--coverage]

``test_mutants.py``, ``test_weakened.py`` and ``test_certificate.py`` show the first lines each time
they run. The mutation score is of the outcomes that ``tests/mutation.py`` wrote down, the sentences
are those of ``tests/claims.toml``. ``--coverage`` runs the tests of the core besides, which takes
minutes, and prints which share of its lines and branches they walk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

from mutants import MUTANTS, recorded, refutations

from minikv.verify import THEOREMS

PROOFS = Path(__file__).resolve().parent
TESTS = PROOFS.parent / "tests"
sys.path.append(str(TESTS))

import claims  # noqa: E402
import mutation  # noqa: E402


def entries(name: str) -> dict:
    """What stands in a file of faults."""
    return tomllib.loads((PROOFS / name).read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--coverage", action="store_true", help="run the tests of the core, too")
    options = parser.parse_args()
    noticed = sum("survived" not in row for row in recorded().values())
    weaker = sum(len(theorem.weaker) for theorem in THEOREMS.values())
    smugglers = entries("smugglers.toml")
    flows = sum("weaker" in smuggler for smuggler in smugglers.values())
    print(f"{len(MUTANTS)} faults planted in the code, {noticed} noticed")
    print(f"{len(refutations())} refutations of a theorem by one of them, each run by pytest")
    print(f"{weaker} checks made weaker, each noticed")
    print(f"{len(smugglers)} smugglers past the certificate, each caught")
    print(f"{flows} weaker certificates, each noticed")
    print(mutation.summary())
    print(claims.summary())
    if options.coverage:
        subprocess.run([sys.executable, str(TESTS / "covered.py")], check=True)


if __name__ == "__main__":
    main()
