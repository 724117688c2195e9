"""Later tokens, within a chunk on a cache."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Change
from ..schedules import beginning
from ..verdict import Verdict
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """Other tokens further on in a chunk on a cache do not move a bit of a row (T8)."""
    ids = bench.texts[0]
    length = len(ids)
    changes = []
    for chunks in (beginning(length, length // 2), beginning(length, *[1] * 8)):
        cut = max(length - 4, 1)
        changed = bench.changed(ids, cut)
        changes.append(
            Change(
                f"chunks {'+'.join(map(str, chunks))}, tokens from {cut} on changed",
                ids,
                partial(_read, ids=ids, chunks=chunks, cut=cut),
                partial(_read, ids=changed, chunks=chunks, cut=cut),
            )
        )
    return bench.exact(AXIS.name, changes)


def _read(subject: Subject, ids: tuple[int, ...], chunks: list[int], cut: int) -> np.ndarray:
    """The first rows on a cache."""
    return subject.chunked(ids, chunks)[:cut]


AXIS = Axis("cached-causality", ("new_cache", "step"), test)
