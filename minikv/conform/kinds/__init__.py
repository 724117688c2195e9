"""What a bug looks like: reproduced in minikv where that is possible, else guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..bench import Bench
from ..verdict import Kind, Verdict, Word
from .guess import OTHER, guess
from .reproduce import reproduce

__all__ = ["guess", "name_kinds", "reproduce"]


def name_kinds(bench: Bench, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Every bug with the kind that the run as a whole looks like.

    An error that the target raised says itself what it is.
    """
    answered = {verdict.axis: verdict for verdict in verdicts if not verdict.raised}
    wrong = {axis for axis, verdict in answered.items() if verdict.word is Word.BUG}
    if not wrong:
        return list(verdicts)
    kind = kind_of(bench, answered)
    return [
        replace(verdict, kind=kind) if verdict.axis in wrong else verdict for verdict in verdicts
    ]


def kind_of(bench: Bench, verdicts: Mapping[str, Verdict]) -> Kind:
    """The kind of what was found."""
    cached = verdicts.get("cached")
    try:
        if cached is not None and cached.word is Word.BUG and bench.subject.can("reference"):
            name = reproduce(bench)
            if name:
                return Kind(name, reproduced=True)
        return Kind(guess(bench, verdicts))
    except Exception:  # whatever the target raises while more is asked of it
        return Kind(OTHER)
