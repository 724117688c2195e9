"""Texts of other lengths."""

from __future__ import annotations

from functools import partial

from ..adapter import Subject
from ..bench import Bench, Pair
from ..verdict import Verdict
from .axis import Axis

LENGTHS = (1, 2, 7, 31, 32, 33, 48, 63, 64, 65)


def test(bench: Bench) -> Verdict:
    """The rows of a text are those of its beginning alone: of 31, 32, 33, 63, 64, 65 tokens."""
    ids = bench.texts[0]
    pairs = [
        Pair(f"text cut at {cut}", ids, partial(Subject.whole, ids=ids[:cut]))
        for cut in LENGTHS
        if cut < len(ids)
    ]
    return bench.numeric(AXIS.name, pairs)


AXIS = Axis("length", (), test)
