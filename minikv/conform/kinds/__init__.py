"""What a bug looks like: reproduced in minikv where that is possible, else guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..bench import Bench
from ..verdict import Kind, Verdict, Word
from .guess import LEAK, OTHER, guess
from .reproduce import reproduce

__all__ = ["guess", "name_kinds", "reproduce"]

LEAKS = ("truncate", "fork", "left-padding", "left-padding-cached", "right-padding")
"""Axes whose exact relations hold of a cache that is wrong in another way."""


def name_kinds(
    bench: Bench, verdicts: Sequence[Verdict], others: Iterable[Verdict] = ()
) -> list[Verdict]:
    """Every bug with the kind that the run as a whole looks like, `others` included.

    An error that the target raised says itself what it is. A leak that a wrong cache cannot make
    is a fault of its own, and named by itself.
    """
    every = [*others, *verdicts]
    answered = {verdict.axis: verdict for verdict in every if not verdict.raised}
    wrong = {axis for axis, verdict in answered.items() if verdict.word is Word.BUG}
    if wrong.isdisjoint(verdict.axis for verdict in verdicts):
        return list(verdicts)
    kind = kind_of(bench, answered)
    found = []
    for verdict in verdicts:
        if verdict.axis in wrong:
            own = "cached" in wrong and verdict.axis in LEAKS and LEAK in verdict.evidence
            alone = Kind(guess(bench, {verdict.axis: verdict})) if own else kind
            verdict = replace(verdict, kind=alone)
        found.append(verdict)
    return found


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
