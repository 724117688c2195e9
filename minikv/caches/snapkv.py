"""Compress the prompt by what its last tokens attend to."""

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

PAPERS_WINDOW = 32  # tokens, in the authors' code


@register
@dataclass(eq=False, repr=False)
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
        The observation window; by default 32, as in the authors' code, or half the budget where
        that is less.
    kernel : int
        Width of the max-pooling over neighbouring keys, odd; 1 is no pooling. In the authors'
        code (``init_snapkv``) 5 and the average are the default, and the maximum is offered.

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
    grows = True

    window: int = None  # type: ignore[assignment]  # until `check` settles it
    kernel: int = 7

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "window": 1, "kernel": 1}]

    def check(self) -> None:
        super().check()
        if self.window is None:
            self.window = min(PAPERS_WINDOW, max(1, self.budget // 2))
        self.window = whole("window", self.window, error=CacheError)
        self.kernel = whole("kernel", self.kernel, error=CacheError)
        if self.window > self.budget:
            raise CacheError(
                f"window is {self.window}, expected at most the budget of {self.budget}"
            )
        if self.kernel % 2 == 0:
            raise CacheError(f"kernel is {self.kernel}, expected an odd width")

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        if self.seen:
            return
        scores = self.rows[layer.index].scores
        voters = positions >= len(scores) - self.window  # (T,) bool: queries in the window
        votes = to_numpy(pattern, dtype=np.float64)[:, voters].sum(axis=1)  # (H, S)
        groups = layer.config.num_key_value_heads
        keys = votes.shape[-1]
        by_group = votes.reshape(groups, -1, keys).mean(axis=1)  # (G, S)
        scores[:keys] += by_group.T

    def priority(self, rows: Rows) -> np.ndarray:
        reach = self.kernel // 2
        prefix = rows.scores[: len(rows) - self.window]
        padded = np.pad(prefix, ((reach, reach), (0, 0)), constant_values=-np.inf)
        neighbours = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=0)
        pooled = neighbours.max(axis=-1)
        always = np.full((self.window, prefix.shape[1]), np.inf)
        return np.concatenate([pooled, always])

    def evict(self, layer: Layer) -> None:
        if not self.seen:
            super().evict(layer)
