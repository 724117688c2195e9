"""Compress the prompt by what its last tokens attend to."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import CacheError
from .base import whole
from .evicting import Evicting


class SnapKV(Evicting):
    """After the prompt, keep its last `window` tokens and the keys that these attend to most.

    Li et al. 2024, arXiv 2404.14469, section 4, listing 1.

    Parameters
    ----------
    weights : Weights
    budget : int
        Prompt tokens kept at each layer and K/V head, window included. Generated tokens are all
        kept, as in the paper: `stored` grows by one a step.
    window : int, optional
        The observation window; 32 in the paper's code, here at most half the budget by default.
    kernel : int
        Width of the max-pooling over neighbouring keys, odd. The authors' code has 5 and the
        average by default, and offers the maximum; 1 is no pooling.

    Notes
    -----
    Votes are the window's attention weights, added over its queries. Departures: they are averaged
    over the R query heads of a K/V head before pooling (the authors' code expands K/V to all heads
    and keeps tokens of each query head), and the prompt is the first call: later ones are not
    compressed.
    """

    policy = "snapkv"
    watches = True
    per_head = True

    def __init__(
        self, weights: Any, budget: int, window: int | None = None, kernel: int = 7
    ) -> None:
        half = max(1, whole("budget", budget) // 2)
        self.window = min(32, half) if window is None else whole("window", window)
        self.kernel = whole("kernel", kernel)
        if self.window > budget:
            raise CacheError(f"window is {window}, expected at most the budget of {budget}")
        if self.kernel % 2 == 0:
            raise CacheError(f"kernel is {kernel}, expected an odd width")
        super().__init__(weights, budget, {"window": self.window, "kernel": self.kernel})

    def observe(self, layer: Any, positions: np.ndarray, pattern: Any) -> None:
        if self.seen:
            return
        scores = self._scores[layer.index]
        voters = to_numpy(pattern, dtype=np.float64)[:, positions >= len(scores) - self.window]
        votes = voters.sum(axis=1).reshape(self._row[0], -1, voters.shape[-1]).mean(axis=1)
        scores[: votes.shape[-1]] += votes.T

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        prefix = len(positions) - self.window
        reach = self.kernel // 2
        padded = np.pad(
            self._scores[layer][:prefix], ((reach, reach), (0, 0)), constant_values=-np.inf
        )
        pooled = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=0).max(axis=-1)
        return np.concatenate([pooled, np.full((self.window, self._row[0]), np.inf)])

    def evict(self, layer: Any) -> None:
        if not self.seen:
            super().evict(layer)
