"""Tokens taken back."""

from __future__ import annotations

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Change, Pair
from ..verdict import Verdict
from .axis import Axis

KEPT = 9
CUT_OFF = 6


def test(bench: Bench) -> Verdict:
    """A cache that is truncated and continued is as if it had never seen what was cut off."""
    ids = bench.texts[0]
    kept = min(KEPT, max(len(ids) // 3, 1))
    rest = ids[-kept:]
    tail = ids[kept : kept + CUT_OFF]
    text = (*ids[:kept], *rest)

    def continued(subject: Subject, tail: tuple[int, ...] = tail) -> np.ndarray:
        cache = subject.new_cache()
        subject.step(ids[:kept], cache)
        subject.step(tail, cache)
        subject.target.truncate(cache, kept)
        return np.concatenate([subject.step([token], cache) for token in rest])

    changed = bench.changed(tail)
    change = Change(
        "other tokens in what was cut off",
        text,
        continued,
        lambda subject: continued(subject, changed),
        start=kept,
    )
    pair = Pair("truncated and continued", text, continued, start=kept)
    return bench.both(AXIS.name, [change], [pair])


AXIS = Axis("truncate", ("new_cache", "step", "truncate"), test)
