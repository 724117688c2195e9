"""Caches with a budget, from none to all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from ..adapter import NotTestedError, Subject
from ..bench import Bench, Pair
from ..rule import row_differences
from ..schedules import beginning
from ..verdict import Verdict, Word
from .axis import Axis

REFUSALS = (ValueError, TypeError, NotImplementedError, AssertionError, RuntimeError, IndexError)
REFUSES = "refuses"
# No refusals of a budget that is enough.
CRASHES = ("(RuntimeError)", "(IndexError)", "(TypeError)")


def test(bench: Bench) -> Verdict:
    """A budget of the text's length or more is the full cache; 0, 1 and one less are kept to.

    A policy may refuse a budget with an error. One that drops tokens must hold no more than it was
    given, and its logits are finite numbers that are not the full cache's.
    """
    ids = bench.texts[0][:24]
    chunks = beginning(len(ids), len(ids) // 2, *[1] * len(ids))
    pairs = []
    refused = []
    for policy in bench.subject.fact("policies"):
        length = len(ids)
        if policy in bench.subject.fact("grows", ()):
            length = chunks[0]  # the budget is the prompt's
        for budget in (0, 1, length - 1, length, length + 5):
            label = f"{policy}, budget {budget} of {length} tokens"
            fault = _misused(bench, (policy, budget), ids, chunks)
            crashed = budget >= length and fault.endswith(CRASHES)
            if fault.startswith(REFUSES) and not crashed:
                refused.append(f"{policy} {fault}")
            elif fault:
                return Verdict(AXIS.name, Word.BUG, evidence=f"{label}: {fault}")
            elif budget >= length:
                way = partial(Subject.budgeted, ids=ids, chunks=chunks, policy=(policy, budget))
                pairs.append(Pair(label, ids, way))
    if not pairs:
        raise NotTestedError("; ".join(refused))
    found = bench.numeric(AXIS.name, pairs)
    return replace(found, evidence="; ".join([found.evidence, *refused]))


def _misused(bench: Bench, policy: tuple[str, int], ids: tuple[int, ...], chunks: list[int]) -> str:
    """What is wrong with what is held, that the budget is refused, or nothing."""
    subject = bench.subject
    name, budget = policy
    try:
        cache = subject.new_cache(name, budget)
        rows = subject.chunked(ids, chunks, cache)
    except REFUSALS as error:
        kind = type(error).__name__
        return f"{REFUSES} {budget} ({kind})" if str(error) else f"{kind} without a word"
    if not np.isfinite(rows).all():
        return "logits are not finite"
    if subject.can("stored"):
        stored = int(subject.target.stored(cache))
        length = len(ids)
        grown = 0
        if name in subject.fact("grows", ()):
            length = chunks[0]
            grown = len(ids) - length
        most = max(budget, 1) + grown  # the newest token sees itself
        least = len(ids) if budget >= length else 0
        return "" if least <= stored <= most else f"{stored} tokens are held"
    differences = row_differences(subject.whole(ids), rows)
    if budget < len(ids) - 1 and (differences <= bench.bounds(ids).rounding).all():
        return "all tokens are kept"
    return ""


AXIS = Axis("budget", ("new_cache", "step", "policies"), test)
