"""The theorems, one file each; a file here with a ``THEOREM`` in it is one more.

Each file holds the statement, what it rests on, a check that raises `Refuted`, a control that must
find a difference, and the theorem's section of the lecture, from which ``proofs/README.md``, its
table and the page of ``minikv prove --html`` are made.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ..cases import Case
from ..theorem import Theorem


def _collected() -> dict[str, Theorem[Case]]:
    """By id, in the order of the files."""
    names = sorted(module.name for module in iter_modules(__path__))
    found = [import_module(f"{__name__}.{name}").THEOREM for name in names]
    return {theorem.id: theorem for theorem in found}


THEOREMS = _collected()
"""All theorems, by id."""

__all__ = ["THEOREMS"]
