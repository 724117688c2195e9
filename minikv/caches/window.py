"""Keep the newest tokens only."""

from __future__ import annotations

import numpy as np

from .evicting import Evicting


class Window(Evicting):
    """Sliding window: token t attends to the last `budget` tokens.

    The window-attention baseline of Xiao et al. 2023, arXiv 2309.17453, figure 1b, with original
    positions. Departure: the tokens of one call see each other in full, as they do in that
    paper's own prefill.
    """

    policy = "window"

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        return positions
