"""Cached and uncached."""

from __future__ import annotations

from functools import partial

from ..adapter import Subject
from ..bench import Bench, Pair
from ..schedules import schedules
from ..verdict import Verdict
from .axis import Axis

SECOND_TEXT = ("half, then one by one", "two halves", "by 7", "random")


def pairs_of(bench: Bench) -> list[tuple[list[int], Pair]]:
    """Every chunking, and the pair that it makes."""
    found = []
    quick = bench.settings.effort == "quick"
    for number, ids in enumerate(bench.texts):
        for name, chunks in schedules(len(ids), bench.random, quick).items():
            if number and name not in SECOND_TEXT and bench.settings.effort != "thorough":
                continue
            way = partial(Subject.chunked, ids=ids, chunks=chunks)
            found.append((chunks, Pair(f"chunks {name}", ids, way)))
    return found


def test(bench: Bench) -> Verdict:
    """Feeding a text to a cache, in chunks of 1, 2, 7, 31, 32, 33, 64 or all, is reading it."""
    return bench.numeric(AXIS.name, [pair for _, pair in pairs_of(bench)])


AXIS = Axis("cached", ("new_cache", "step"), test)
