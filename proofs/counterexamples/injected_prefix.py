"""Prefix tuning: keys and values that no token made are put before the text.

Li and Liang 2021, arXiv 2101.00190. They are the projection of no residual, so a replay from the
token ids does not give them back. The cure: keep them beside the checkpoints, like weights.
"""

import numpy as np

from minikv.caches import Full

from . import call_by_call, same

THEOREM = "T5"


class Injected(Full):
    """Every query also sees two rows of K and V drawn from a seed."""

    def update(self, layer, positions, residual, k, v):
        at, keys, values = super().update(layer, positions, residual, k, v)
        rng = np.random.default_rng(layer.index)
        rows = rng.standard_normal((2, 2, *self._row)).astype(np.float32)
        extra_k, extra_v = (layer.arithmetic.settle(part) for part in rows)
        return (
            np.concatenate([[0, 0], at]),
            np.concatenate([extra_k, keys]),
            np.concatenate([extra_v, values]),
        )


def refuted(case) -> bool:
    return not same(call_by_call(case, Injected(case.model.weights)), case.logits)


def cured(case) -> bool:
    """With the rows kept, decoding is again independent of the calls."""
    whole = case.model.forward([case.ids], [Injected(case.model.weights)], "all")
    return same(call_by_call(case, Injected(case.model.weights)), whole)
