"""Scores of one key/value head, which NumPy writes where those of the head before were."""

from __future__ import annotations

import numpy as np


def scores_in(
    room: np.ndarray, queries: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """q . k of queries ``(T, R, d)`` and keys ``(d, S)``, at the start of a flat array.

    Returns
    -------
    scores : ``(T*R, S)``
    by_head : ``(R, T, S)``
        The same numbers, as `Arithmetic.masked` wants them; a view.
    """
    tokens, share, head_dim = queries.shape
    length = keys.shape[1]
    scores = room[: tokens * share * length].reshape(tokens * share, length)
    np.matmul(queries.reshape(-1, head_dim), keys, out=scores)
    return scores, scores.reshape(tokens, share, length).swapaxes(0, 1)


def largest_in(scores: np.ndarray) -> np.ndarray:
    """The largest number of each row, ``(rows, S) -> (rows, 1)``; NaN where there is one.

    Rows lie one behind the other, as `scores_in` leaves them. NumPy's `max` takes longer.
    """
    starts = np.arange(0, scores.size, scores.shape[1])
    return np.maximum.reduceat(scores.reshape(-1), starts)[:, None]
