"""In-place rewriting: after each call, the values of all tokens so far are halved.

The cache has become a state of its own, which depends on the history of calls, not on the stream.
"""

import numpy as np

from minikv.verify import same_bits
from minikv.verify.memories import Wrapped

from . import call_by_call

THEOREM = "T3"


class Fading(Wrapped):
    """A cache whose values are halved after each call."""

    def __init__(self, inner):
        super().__init__(inner)
        self.strength = np.ones(0, np.float32)  # of each token's values

    def update(self, layer, positions, residual, k, v):
        attended, keys, values = super().update(layer, positions, residual, k, v)
        strength = np.concatenate([self.strength, np.ones(len(positions), np.float32)])
        return attended, keys, values * strength[:, None, None]

    def advance(self, tokens):
        super().advance(tokens)
        self.strength = np.concatenate([self.strength, np.ones(tokens, np.float32)]) / 2


def refuted(case) -> bool:
    return not same_bits(call_by_call(case, Fading(case.model.new_cache("full"))), case.logits)
