"""Feedback: past tokens are attended to through the *output* of the block, not its input.

Fan et al. 2020, arXiv 2002.09402, in small. K and V of a token then exist only after its call, so
what a text gives depends on how it was cut into calls: decoding is no longer one pass.
"""

import numpy as np

from minikv import kv_from_residual
from minikv.caches import Full

from . import call_by_call, same

THEOREM = "T3"


class Feedback(Full):
    """After each call, K/V of its tokens are made anew from the blocks' outputs."""

    def reset(self):
        super().reset()
        self.outputs = {}

    def hook(self, name, value):
        if name.endswith("hook_resid_post"):
            self.outputs[int(name.split(".")[1])] = value
        return value

    def advance(self, tokens):
        positions = np.arange(self.seen, self.seen + tokens)
        for layer in self.weights.layers:
            k, v = kv_from_residual(self.outputs[layer.index], positions, layer)
            self._k[layer.index][:, self.seen : self.seen + tokens] = k.swapaxes(0, 1)
            self._v[layer.index][:, self.seen : self.seen + tokens] = v.swapaxes(0, 1)
        super().advance(tokens)


def refuted(case) -> bool:
    cache = Feedback(case.model.weights)
    return not same(call_by_call(case, cache, cache.hook), case.logits)
