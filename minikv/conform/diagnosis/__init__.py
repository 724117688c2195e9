"""What is told of a bug: its smallest case, its first bad activation, and what it looks like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..axes import AXES
from ..bench import Bench
from ..kinds import name_kinds
from ..verdict import Verdict, Word
from .shrink import smallest
from .trace import first_bad_activation

LENGTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Of texts in which a bug is looked for again."""


def explained(
    bench: Bench, verdicts: Sequence[Verdict], others: Iterable[Verdict] = ()
) -> list[Verdict]:
    """Bugs with their smallest case, first bad activation and kind.

    Parameters
    ----------
    others : iterable of Verdict
        Of the same target on other axes: a kind is that of all that was found.
    """
    found = list(verdicts)
    if not any(verdict.word is Word.BUG for verdict in found):
        return found
    if bench.settings.shrink:
        found = [_smaller(bench, verdict) for verdict in found]
    return name_kinds(bench, found, others) if bench.settings.kinds else found


def _smaller(bench: Bench, verdict: Verdict) -> Verdict:
    """A bug of the cache with its smallest case and first bad activation; others, how short."""
    if verdict.word is not Word.BUG or verdict.axis not in AXES:
        return verdict
    if verdict.axis == "cached" and verdict.row is not None:
        case = smallest(bench)
        where = first_bad_activation(bench, case) if case else ""
        return replace(verdict, case=case, where=verdict.where or where)
    return replace(verdict, length=_shortest(bench, verdict))


def _shortest(bench: Bench, bug: Verdict) -> int | None:
    """Tokens of the shortest texts in which an axis still finds its bug; None if of no others."""
    axis = AXES[bug.axis]
    shorter = (length for length in LENGTHS if length < bench.length and not axis.own_length)
    for length in shorter:
        found = axis.ask(bench.shortened(length))
        same = found.evidence == bug.evidence if bug.raised else not found.raised
        if found.word is Word.BUG and same:
            return length
    return None
