"""Solutions of chapter 4: the Markov property."""

from __future__ import annotations

import numpy as np

from minikv import kv_from_residual
from minikv.decoder import Span, block


def transplant(model, recipient, layer, stream):
    """4.1: a hook that returns the donor's stream, whatever it is given."""
    return model.run_with_hooks(
        recipient, {f"blocks.{layer}.hook_resid_pre": lambda value, name: stream}
    )


def divergence(p_logits, q_logits):
    """4.2: log-probabilities without logarithms of probabilities."""

    def log_softmax(logits):
        x = np.asarray(logits, dtype=np.float64)
        x = x - x.max(axis=-1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def needed(layers, layer, position):
    """4.3: the past, as long as some block will read it."""
    return [position] if layer == layers else list(range(position + 1))


def replay_kv(model, start, stream, layer):
    """4.4: run the blocks below, then project."""
    positions = np.arange(len(stream))
    for each in model.layers[start:layer]:
        stream = block(each, stream, positions, [Span(slice(0, len(stream)), positions)])
    return kv_from_residual(stream, positions, model.layers[layer])


# 4.6: both have the remainder 1, and the outputs are 1 + 1 and 1 + 3. Were the outputs F(H_1),
# equal arguments would give equal outputs; so no such F exists.
two_texts = [1], [3]


def must_keep(windows, layer, length):
    """4.5: each layer from this one up looks back its window less one, from position `length`."""
    above = windows[layer:]
    reach = length if None in above else sum(window - 1 for window in above)
    return list(range(max(0, length - reach), length))
