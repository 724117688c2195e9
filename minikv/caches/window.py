"""Keep the newest tokens only."""

from __future__ import annotations

import numpy as np

from .evicting import Evicting


class Window(Evicting):
    """Sliding window: a token attends to the `budget` tokens before it, and to itself.

    The window attention that Xiao et al. 2023, arXiv 2309.17453, figure 1b, compare with; keys
    keep their positions in the text. Departure: the tokens of one call also see all of that call.
    """

    policy = "window"

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        return positions
