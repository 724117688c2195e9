"""It writes text that looks fine."""

import numpy as np
from lecturer.projects.conform import good


class Decoder(good.Decoder):
    """As it was after the first afternoon: places count from the first token of each call."""

    wide = None
    fork = None

    def places(self, old, new):
        return np.arange(new)


decoder = Decoder
