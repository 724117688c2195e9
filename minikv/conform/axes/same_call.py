"""The same call twice."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Pair
from ..verdict import Verdict, Word
from .axis import Axis

REPEATS = 5


def test(bench: Bench) -> Verdict:
    """The same call, made again and again, gives the same bits, and they are finite numbers.

    Of an engine that may keep prefixes between calls, another shape is asked for, and rounding is
    allowed.
    """
    ids = bench.texts[0]
    first = bench.subject.logits(ids)
    if not np.isfinite(first).all():
        row = int(np.argmax(~np.isfinite(first).all(axis=-1)))
        return Verdict(AXIS.name, Word.BUG, float("inf"), "logits are not finite", row)
    if bench.subject.fact("keeps_prefixes"):
        return bench.numeric(
            AXIS.name, [Pair("the same text again", ids, partial(Subject.logits, ids=ids))]
        )
    again = [bench.subject.logits(ids) for _ in range(REPEATS)]
    bench.measured["different answers"] = len({one.tobytes() for one in (first, *again)})
    for number, one in enumerate(again, start=2):
        if not np.array_equal(first, one):
            row = int(np.argmax((first != one).any(axis=-1)))
            said = f"call {number} of the same text gave other bits than the first"
            return Verdict(AXIS.name, Word.BUG, 0.0, said, row)
    return Verdict(AXIS.name, Word.SAME, evidence=f"{REPEATS + 1} calls")


AXIS = Axis("same-call", (), test)
