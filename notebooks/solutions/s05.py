"""Solutions of chapter 5: cache, no cache, checkpoints."""

from __future__ import annotations

import numpy as np

from minikv import kv_from_residual
from minikv.decoder import Span, block


def held(config, seen, budget, kept):
    """5.1: K and V of the recent tokens, residuals of all."""
    kv = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * 4
    return min(seen, budget) * kv + seen * kept * config.hidden_size * 4


def blocks_run(layers, kept):
    """5.2: the block below each layer that has no checkpoint; there are layers - len(kept)."""
    return [layer - 1 for layer in range(1, layers) if layer not in kept]


def largest_budget(total, seen, kv, each):
    """5.3: what the checkpoints leave, in whole tokens."""
    left = total - seen * each
    return None if left < 0 else min(seen, left // kv)


def recompute(model, checkpoints, layer):
    """5.4: replay from the nearest checkpoint, then project."""
    start = max(at for at in checkpoints if at <= layer)
    stream, positions = checkpoints[start], np.arange(len(checkpoints[start]))
    for each in model.layers[start:layer]:
        stream = block(each, stream, positions, [Span(slice(0, len(stream)), positions)])
    return kv_from_residual(stream, positions, model.layers[layer])
