"""Kinds that are decided: minikv with a fault planted, on the same weights, has the same logits."""

from __future__ import annotations

import numpy as np

from ...errors import MinikvError
from ...model import Model
from ..bench import Bench
from ..rule import TWIN_SPREADS, row_differences, twin_limit
from ..schedules import beginning
from .planted import PLANTED, Planted

ENOUGH = 4.0
"""The target must be so many times as near to the faulty minikv as it is to the good one."""


def reproduce(bench: Bench) -> str:
    """Name of the fault whose logits are the target's, or nothing."""
    judge = bench.wide or bench.subject
    try:
        model = bench.subject.target.reference()
    except MinikvError:
        return ""
    limit = twin_limit(bench.twin_spread, bench.length) * TWIN_SPREADS
    if bench.wide is None:
        limit = float(bench.bounds(bench.texts[0]).rounding.max())
    found = [
        (near, planted.name)
        for planted in PLANTED
        if (near := distance(bench, judge.chunked, model, planted)) is not None
    ]
    best, name = min(found, default=(np.inf, ""))
    return name if best <= limit else ""


def distance(bench: Bench, chunked: object, model: Model, planted: Planted) -> float | None:
    """The largest difference from the target over three chunkings; None if the fault shows not."""
    ids = bench.texts[0][:40]
    ways = (
        beginning(len(ids), len(ids) // 2),
        beginning(len(ids), 12, *[1] * 12),
        beginning(len(ids), 5, 7, 9),
    )
    largest = 0.0
    shown = 0.0
    whole = np.asarray(model.logits(list(ids)), dtype=np.float64)
    for chunks in ways:
        rows = planted.run(model, ids, chunks)
        got = chunked(ids, chunks)  # type: ignore[operator]  # Subject.chunked
        rows = rows[:, : got.shape[-1]]
        largest = max(largest, float(row_differences(rows, got).max()))
        shown = max(shown, float(row_differences(whole[:, : got.shape[-1]], rows).max()))
    if not shown or largest * ENOUGH > shown:
        return None
    return largest
