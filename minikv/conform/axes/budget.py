"""Caches with a budget, from none to all."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Pair
from ..rule import row_differences
from ..schedules import beginning
from ..verdict import Verdict, Word
from .axis import Axis

REFUSALS = (ValueError, TypeError, NotImplementedError, AssertionError, RuntimeError, IndexError)


def test(bench: Bench) -> Verdict:
    """A budget of the text's length or more is the full cache; 0, 1 and one less are kept to.

    A policy may refuse a budget with an error. One that drops tokens must hold no more than it was
    given, and its logits are finite numbers that are not the full cache's.
    """
    ids = bench.texts[0][:24]
    chunks = beginning(len(ids), len(ids) // 2, *[1] * len(ids))
    pairs = []
    for policy in bench.subject.fact("policies"):
        for budget in (len(ids), len(ids) + 5):
            pairs.append(
                Pair(
                    f"{policy}, budget {budget} of {len(ids)} tokens",
                    ids,
                    partial(Subject.budgeted, ids=ids, chunks=chunks, policy=(policy, budget)),
                )
            )
        for budget in (0, 1, len(ids) - 1):
            fault = _misused(bench, policy, budget, ids, chunks)
            if fault:
                said = f"{policy}, budget {budget} of {len(ids)} tokens: {fault}"
                return Verdict(AXIS.name, Word.BUG, evidence=said)
    return bench.numeric(AXIS.name, pairs)


def _misused(
    bench: Bench, policy: str, budget: int, ids: tuple[int, ...], chunks: list[int]
) -> str:
    """What is wrong with a budget that is too small, or nothing."""
    subject = bench.subject
    try:
        cache = subject.new_cache(policy, budget)
        rows = subject.chunked(ids, chunks, cache)
    except REFUSALS as error:
        if str(error):
            return ""
        return f"{type(error).__name__} without a word"
    if not np.isfinite(rows).all():
        return "logits are not finite"
    if subject.can("stored"):
        stored = int(subject.target.stored(cache))
        least = max(budget, 1)  # the newest token sees itself
        return f"{stored} tokens are held" if stored > least else ""
    differences = row_differences(subject.whole(ids), rows)
    if (differences <= bench.bounds(ids).rounding).all() and budget < len(ids) - 1:
        return "all tokens are kept"
    return ""


AXIS = Axis("budget", ("new_cache", "step", "policies"), test)
