"""Hiding keys in scores that NumPy holds."""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Scores


def masked_in_place(scores: Scores, hidden: np.ndarray | None) -> Scores:
    """`Arithmetic.masked`, of scores that nobody else holds, which become the result.

    Most keys are seen by all queries of a block: only the columns from the first hidden key to the
    last are gone through.
    """
    if hidden is None:
        return scores
    if hidden.ndim == 3:
        hidden = hidden.repeat(scores.shape[0] // hidden.shape[0], axis=0)  # (H, T, S)
    columns = np.flatnonzero(hidden.reshape(-1, hidden.shape[-1]).any(axis=0))
    if len(columns) == 0:
        return scores
    between = slice(int(columns[0]), int(columns[-1]) + 1)
    np.copyto(scores[..., between], -math.inf, where=hidden[..., between])
    return scores
