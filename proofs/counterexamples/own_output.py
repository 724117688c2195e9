"""Feedback: past tokens are attended to through the *output* of the block, not its input.

Fan et al. 2020, arXiv 2002.09402, in small. K and V of a token then exist only after its call, so
what a text gives depends on how it was cut into calls: decoding is no longer one pass.
"""

import numpy as np

from minikv import kv_from_residual
from minikv.verify import same_bits
from minikv.verify.memories import Wrapped

from . import call_by_call

THEOREM = "T3"


class Feedback(Wrapped):
    """A cache that makes K and V of earlier calls anew, from the blocks' outputs."""

    def __init__(self, inner):
        super().__init__(inner)
        self.outputs = {}  # of each block, call by call

    def hook(self, name, value):
        if name.endswith("hook_resid_post"):
            self.outputs.setdefault(int(name.split(".")[1]), []).append(value)
        return value

    def update(self, layer, positions, residual, k, v):
        attended, _, _ = super().update(layer, positions, residual, k, v)
        earlier = self.outputs.get(layer.index, [])
        if not earlier:
            return attended, k, v
        past = np.concatenate(earlier)
        past_k, past_v = kv_from_residual(past, attended[: len(past)], layer)
        return attended, np.concatenate([past_k, k]), np.concatenate([past_v, v])


def refuted(case) -> bool:
    cache = Feedback(case.model.new_cache("full"))
    return not same_bits(call_by_call(case, cache, cache.hook), case.logits)
