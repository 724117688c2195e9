"""Keep the newest tokens only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .evicting import Evicting, Rows
from .registry import register


@register
@dataclass(eq=False, repr=False)
class Window(Evicting):
    """Sliding window: a token attends to the `budget` tokens before it, and to itself.

    The window attention that Xiao et al. 2023, arXiv 2309.17453, figure 1b, compare with; keys
    keep their positions in the text. Departure: the tokens of one call also see all of that call.
    """

    policy = "window"

    def priority(self, rows: Rows) -> np.ndarray:
        return rows.positions
