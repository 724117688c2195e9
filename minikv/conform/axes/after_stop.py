"""A new text after another one that was stopped."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Change
from ..schedules import beginning
from ..verdict import Verdict
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """A new cache, after generation of another text was stopped, has seen nothing of it."""
    ids = bench.texts[0][:12]
    stopped = bench.texts[1][:20]
    half = max(len(ids) // 2, 1)

    def read(subject: Subject) -> np.ndarray:
        return subject.chunked(ids, beginning(len(ids), half, *[1] * half))

    def after(subject: Subject, tokens: tuple[int, ...], count: int) -> np.ndarray:
        prompt = max(len(tokens) - count, 1)
        subject.chunked(tokens, beginning(len(tokens), prompt, *[1] * count))
        return read(subject)

    changes = []
    for count in (4, 1):
        for text in (stopped, bench.changed(stopped)):
            label = f"another text before, stopped after {count} steps"
            changes.append(Change(label, ids, read, partial(after, tokens=text, count=count)))
    return bench.exact(AXIS.name, changes)


AXIS = Axis("after-stop", ("new_cache", "step"), test)
