"""Prefix tuning: keys and values that no token made are put before the text.

Li and Liang 2021, arXiv 2101.00190. They are the projection of no residual, so a replay from a
checkpoint does not give them back. The cure: keep them beside the checkpoints, like weights.
"""

import numpy as np

from minikv.decoder import Span, block, unembed
from minikv.verify import same_bits
from minikv.verify.memories import Wrapped

from . import record

THEOREM = "T5"


class Injected(Wrapped):
    """Every query also sees two rows of K and V drawn from a seed."""

    def update(self, layer, positions, residual, k, v):
        attended, keys, values = super().update(layer, positions, residual, k, v)
        rng = np.random.default_rng(layer.index)
        rows = rng.standard_normal((2, 2, *k.shape[1:])).astype(np.float32)
        extra_k, extra_v = (layer.arithmetic.settle(part) for part in rows)
        return (
            np.concatenate([[0, 0], attended]),
            np.concatenate([extra_k, keys]),
            np.concatenate([extra_v, values]),
        )


def injected(case) -> Injected:
    """A full cache with the two rows before it."""
    return Injected(case.model.new_cache("full"))


def replayed(case, make) -> bool:
    """Does the stream at every layer of the injected decoder, replayed, give its logits?"""
    made = {}
    logits = case.model.forward([case.ids], [injected(case)], "all", record(made))
    for start in case.model.layers:
        stream = made[f"blocks.{start.index}.hook_resid_pre"]
        span = Span(slice(0, len(case.ids)), case.positions, make())
        for layer in case.model.layers[start.index :]:
            stream = block(layer, stream, case.positions, [span])
        if not same_bits(unembed(case.model.weights, stream), logits):
            return False
    return True


def refuted(case) -> bool:
    """From a checkpoint, with keys and values of the stream alone."""
    return not replayed(case, lambda: None)


def cured(case) -> bool:
    """The same, with the two rows kept beside the checkpoint."""
    return replayed(case, lambda: injected(case))
