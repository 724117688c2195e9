"""When the most likely token of a lossy run is the exact run's, by how far its logits may be off.

How far they are off takes the exact run to know, or a bound on it. 2**-50 allows for the rounding
of a few differences in float64.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 2.0**-50


def leads(logits: np.ndarray) -> np.ndarray:
    """By how much the most likely token leads each token, ``(V,)`` float64; itself by infinity."""
    wide = logits.astype(np.float64)
    top = int(wide.argmax())
    ahead = wide[top] - wide
    ahead[top] = np.inf
    return ahead


def off_by(lossy: np.ndarray, exact: np.ndarray) -> float:
    """How far logits ``(V,)`` are from others, but for a shift that all share.

    Half of the spread of the differences: no shift makes the largest of them smaller.
    """
    moves = lossy.astype(np.float64) - exact.astype(np.float64)
    return float(moves.max() - moves.min()) / 2


def off_in_pairs(lossy: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """How far the lead of the lossy run's most likely token over each token moves, ``(V,)``."""
    moves = lossy.astype(np.float64) - exact.astype(np.float64)
    return np.abs(moves[int(lossy.argmax())] - moves)


def certified(lossy: np.ndarray, off: float) -> bool:
    """Whether logits ``(V,)`` that are off by so much at most name the exact run's token."""
    return bool(leads(lossy).min() > 2 * off * (1 + ROUNDING))


def certified_in_pairs(lossy: np.ndarray, off: np.ndarray) -> bool:
    """The same from how far each lead may move, ``(V,)``."""
    return bool((leads(lossy) > off * (1 + ROUNDING)).all())
