"""How many faults, weaker checks and smugglers the proofs are shown to notice.

    python proofs/counts.py

``test_mutants.py``, ``test_weakened.py`` and ``test_certificate.py`` show it, each time they run.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from mutants import MUTANTS, recorded, refutations

from minikv.verify import THEOREMS

PROOFS = Path(__file__).resolve().parent


def entries(name: str) -> dict:
    """What stands in a file of faults."""
    return tomllib.loads((PROOFS / name).read_text(encoding="utf-8"))


def main() -> None:
    noticed = sum("survived" not in row for row in recorded().values())
    weaker = sum(len(theorem.weaker) for theorem in THEOREMS.values())
    smugglers = entries("smugglers.toml")
    flows = sum("weaker" in smuggler for smuggler in smugglers.values())
    print(f"{len(MUTANTS)} faults planted in the code, {noticed} noticed")
    print(f"{len(refutations())} refutations of a theorem by one of them, each run by pytest")
    print(f"{weaker} checks made weaker, each noticed")
    print(f"{len(smugglers)} smugglers past the certificate, each caught")
    print(f"{flows} weaker certificates, each noticed")


if __name__ == "__main__":
    main()
