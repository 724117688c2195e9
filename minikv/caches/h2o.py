"""Heavy hitters and recent tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import CacheError
from .base import whole
from .evicting import Evicting


class H2O(Evicting):
    """Keep the newest `recent` tokens and those with the most attention accumulated.

    Zhang et al. 2023, arXiv 2306.14048, section 4, algorithm 1, with the recent tokens that the
    authors' code keeps beside the heavy hitters (``H2OKVCache_LayerWise``).

    Parameters
    ----------
    weights : Weights
    budget : int
        Tokens kept at each layer and K/V head.
    recent : int, optional
        Of these, how many are the newest; half by default, as in the paper's experiments.
        0 is algorithm 1 to the letter.

    Notes
    -----
    The score of a key is the attention that it got from every query since it was made, the prompt's
    included; a key keeps its position in the text. With grouped queries, which the paper does not
    have, the R query heads of a K/V head are added, and each K/V head keeps tokens of its own.
    Departure: after the prompt too, the tokens of one call are scored and evicted together.
    """

    policy = "h2o"
    watches = True
    per_head = True

    def __init__(self, weights: Any, budget: int, recent: int | None = None) -> None:
        self.recent = whole("budget", budget) // 2 if recent is None else whole("recent", recent, 0)
        if self.recent > budget:
            raise CacheError(f"recent is {recent}, expected at most the budget of {budget}")
        super().__init__(weights, budget, {"recent": self.recent})

    def observe(self, layer: Any, positions: np.ndarray, pattern: Any) -> None:
        got = to_numpy(pattern, dtype=np.float64).sum(axis=1)  # over queries: (H, S)
        per_group = got.reshape(self._row[0], -1, got.shape[-1]).sum(axis=1)
        self._scores[layer.index][: got.shape[-1]] += per_group.T

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        newest = np.arange(len(positions))[:, None] >= len(positions) - self.recent
        return np.where(newest, np.inf, self._scores[layer])
