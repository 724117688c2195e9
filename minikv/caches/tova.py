"""Drop the token that the newest one attends to least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Pattern, Positions, to_numpy
from ..layers import Layer
from .evicting import Evicting, Rows
from .registry import register


@register
@dataclass(eq=False, repr=False)
class TOVA(Evicting):
    """Token Omission Via Attention: at each step keep the `budget` keys of highest weight.

    Oren et al. 2024, arXiv 2401.06104, and the authors' ``TOVACache``. The weights are those of the
    newest query, averaged over all heads of the layer, so that all heads keep the same tokens; the
    newest token may go itself. A key keeps its position in the text. Departure: the tokens of one
    call are evicted together, by its last query, after the prompt too.
    """

    policy = "tova"
    watches = True

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        newest = to_numpy(pattern[:, -1, :], dtype=np.float64).mean(axis=0)  # (S,)
        # The last run of queries gives every key a weight, in the place of what older ones gave.
        self.rows[layer.index].scores[: len(newest)] = newest[:, None]

    def priority(self, rows: Rows) -> np.ndarray:
        return rows.scores
