"""Attention sinks and a window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CacheError
from .base import Attended, whole
from .evicting import Evicting


class StreamingLLM(Evicting):
    """Keep the first `sinks` tokens and the newest ``budget - sinks``.

    Xiao et al. 2023, arXiv 2309.17453, section 3.2.

    Parameters
    ----------
    weights : Weights
    budget : int
        Tokens kept, sinks included.
    sinks : int
        Four in the paper.
    reposition : bool
        Count positions within the cache, as the paper does (a text may then outgrow the context);
        otherwise keys and queries keep their positions in the text.

    Notes
    -----
    Keys are stored as they were made and turned by the distance they moved when they are read,
    so that moving one position a step does not pile up rounding; the authors' code stores them
    unturned, which is the same but for rounding. As there, eviction follows attention, so that a
    token fed alone sees `budget` tokens and itself. Departure: the tokens of one call see all of
    that call, and their positions count from what is stored before it.
    """

    policy = "streaming_llm"

    def __init__(self, weights: Any, budget: int, sinks: int = 4, reposition: bool = True) -> None:
        self.sinks, self.reposition = whole("sinks", sinks, 0), bool(reposition)
        if whole("budget", budget) <= self.sinks:
            raise CacheError(f"budget is {budget}, expected more than the {self.sinks} sinks")
        super().__init__(weights, budget, {"sinks": self.sinks, "reposition": self.reposition})

    @property
    def next_position(self) -> int:
        return self.stored if self.reposition else self.seen

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        return np.where(positions < self.sinks, np.inf, positions)

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        where, keys, values = super().update(layer, positions, residual, k, v)
        if not self.reposition:
            return where, keys, values
        made_at = self._scores[layer.index]  # this policy's scores: the position a key was made at
        made_at[len(where) - len(positions) :] = positions[:, None]
        moved = made_at[:, 0].astype(np.int64) - np.arange(len(where))
        if moved.any():
            cos, sin = layer.rotary(moved)
            keys = layer.arithmetic.settle(layer.arithmetic.rope(keys, cos, -sin))
        return np.arange(len(where)), keys, values
