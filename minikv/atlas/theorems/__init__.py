"""The theorems of the atlas, A1 to A6, one file each, as those of `minikv.verify.theorems`.

They are about what systems do to a cache, and not about the decoder alone: ``minikv prove`` does
not run them. Each has a check on a `Case`, a control that must find a difference, and its theorems
in ``proofs/rocq``; ``tests/atlas/theorem_faults.toml`` holds faults that it notices.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ...verify.cases import Case
from ...verify.theorem import Theorem


def _collected() -> dict[str, Theorem[Case]]:
    """By id, in the order of the files."""
    names = sorted(module.name for module in iter_modules(__path__))
    found = [import_module(f"{__name__}.{name}").THEOREM for name in names]
    return {theorem.id: theorem for theorem in found}


THEOREMS = _collected()
"""All of them, by id."""

__all__ = ["THEOREMS"]
