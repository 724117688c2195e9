"""Prefix tuning: keys and values that no token made are put before the text.

Li and Liang 2021, arXiv 2101.00190. They are the projection of no residual, so a replay from a
checkpoint does not give them back. The cure: keep them beside the checkpoints, like weights.
"""

import numpy as np

from minikv.caches import Full
from minikv.decoder import Span, block, unembed

from . import record, same

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


def replayed(case, make) -> bool:
    """Does the stream at every layer of the injected decoder, replayed, give its logits?"""
    made, positions, weights = {}, np.arange(len(case.ids)), case.model.weights
    logits = case.model.forward([case.ids], [Injected(weights)], "all", record(made))
    for start in case.model.layers:
        stream = made[f"blocks.{start.index}.hook_resid_pre"]
        span = Span(slice(0, len(positions)), positions, make())
        for layer in case.model.layers[start.index :]:
            stream = block(layer, stream, positions, [span])
        if not same(unembed(weights, stream), logits):
            return False
    return True


def refuted(case) -> bool:
    """From a checkpoint, with keys and values of the stream alone."""
    return not replayed(case, lambda: None)


def cured(case) -> bool:
    """The same, with the two rows kept beside the checkpoint."""
    return replayed(case, lambda: Injected(case.model.weights))
