"""What a bug looks like: reproduced in minikv where that is possible, else guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..bench import Bench
from ..verdict import Kind, Verdict, Word
from .guess import guess
from .reproduce import reproduce

__all__ = ["guess", "name_kinds", "reproduce"]


def name_kinds(bench: Bench, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Every bug with the kind that the run as a whole looks like."""
    found = {verdict.axis: verdict for verdict in verdicts}
    cached = found.get("cached")
    kind = None
    if cached is not None and cached.word is Word.BUG and bench.subject.can("reference"):
        name = reproduce(bench)
        kind = Kind(name, reproduced=True) if name else None
    if kind is None:
        kind = Kind(guess(bench, found))
    return [
        replace(verdict, kind=kind) if verdict.word is Word.BUG else verdict for verdict in verdicts
    ]
