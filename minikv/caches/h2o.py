"""Heavy hitters and recent tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Pattern, Positions, to_numpy
from ..errors import CacheError
from ..layers import Layer
from ..numbers import whole
from .evicting import Evicting, Rows
from .registry import register


@register
@dataclass(eq=False, repr=False)
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

    recent: int = None  # type: ignore[assignment]  # until `check` settles it

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "recent": 0}]

    def check(self) -> None:
        super().check()
        if self.recent is None:
            self.recent = self.budget // 2
        self.recent = whole("recent", self.recent, 0, error=CacheError)
        if self.recent > self.budget:
            raise CacheError(
                f"recent is {self.recent}, expected at most the budget of {self.budget}"
            )

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        received = to_numpy(pattern, dtype=np.float64).sum(axis=1)  # (H, S), over the queries
        groups = layer.config.num_key_value_heads
        keys = received.shape[-1]
        by_group = received.reshape(groups, -1, keys).sum(axis=1)  # (G, S)
        self.rows[layer.index].scores[:keys] += by_group.T

    def priority(self, rows: Rows) -> np.ndarray:
        number = np.arange(len(rows))[:, None]
        newest = number >= len(rows) - self.recent
        return np.where(newest, np.inf, rows.scores)
