"""Positions after eviction."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..adapter import NotTestedError, Subject
from ..bench import Bench, Pair
from ..schedules import beginning
from ..verdict import Verdict
from .axis import Axis

BUDGET = 8


def test(bench: Bench) -> Verdict:
    """A cache that dropped tokens answers as the uncached model that sees only what it kept.

    A cache that counts the rows it keeps for positions fails here, and only here where positions
    are rotary: shifted together they make no difference.
    """
    ids = bench.texts[0][:24]
    chunks = beginning(len(ids), 4, *[1] * len(ids))
    pairs = []
    left_out = set(bench.subject.fact("rolling", ()))
    for policy in bench.subject.fact("policies"):
        if policy in left_out:
            continue
        try:
            visible = _seen(bench.subject, policy, ids, chunks)
        except NotImplementedError:
            left_out.add(policy)
            continue
        pairs.append(
            Pair(
                f"{policy}, budget {BUDGET}",
                ids,
                partial(Subject.budgeted, ids=ids, chunks=chunks, policy=(policy, BUDGET)),
                expected=partial(Subject.masked, ids=ids, visible=visible),
            )
        )
    if not pairs:
        raise NotTestedError(f"of {', '.join(left_out)} no positions are told")
    return bench.numeric(AXIS.name, pairs)


def _seen(subject: Subject, policy: str, ids: tuple[int, ...], chunks: list[int]) -> np.ndarray:
    """What each position attended to, by what the cache held before its call; ``(T, T)`` bool."""
    visible = np.tril(np.ones((len(ids), len(ids)), dtype=bool))
    cache = subject.new_cache(policy, BUDGET)
    start = 0
    for count in chunks:
        held = np.zeros(len(ids), dtype=bool)
        held[list(map(int, subject.target.kept(cache)))] = True
        held[start : start + count] = True
        visible[start : start + count] &= held
        subject.step(ids[start : start + count], cache)
        start += count
    return visible


AXIS = Axis("eviction-positions", ("new_cache", "step", "policies", "kept", "masked"), test)
