"""One beginning, two continuations."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Change, Pair
from ..verdict import Verdict
from .axis import Axis

SHARED = 9
STEPS = 6


def test(bench: Bench) -> Verdict:
    """A cache is not moved by what its fork reads, nor the fork by what the cache reads."""
    ids = bench.texts[0]
    shared = min(SHARED, max(len(ids) // 3, 1))
    text = ids[: shared + STEPS]
    twin = ids[-len(text[shared:]) :]

    def beside(subject: Subject, twin: tuple[int, ...], forked: bool, first: bool) -> np.ndarray:
        """Rows of one of the two, which reads each token before the other or after it."""
        one = subject.new_cache()
        subject.step(ids[:shared], one)
        other = subject.target.fork(one)
        mine, theirs = (other, one) if forked else (one, other)
        rows = []
        for token, own in zip(twin, text[shared:], strict=True):
            if first:
                rows.append(subject.step([own], mine))
            subject.step([token], theirs)
            if not first:
                rows.append(subject.step([own], mine))
        return np.concatenate(rows)

    changed = bench.changed(twin)
    changes = []
    pairs = []
    for forked, first in itertools.product((False, True), repeat=2):
        which = "the fork" if forked else "the cache"
        before = partial(beside, twin=twin, forked=forked, first=first)
        after = partial(beside, twin=changed, forked=forked, first=first)
        changes.append(Change(f"other tokens beside {which}", text, before, after, shared))
        pairs.append(Pair(f"{which} beside its twin", text, before, start=shared))
    return bench.both(AXIS.name, changes, pairs)


AXIS = Axis("fork", ("new_cache", "step", "fork"), test)
