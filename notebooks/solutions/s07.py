"""Solutions of chapter 7: where the claim fails."""

from __future__ import annotations

import numpy as np

# 7.1
rules = {
    "value_residual": "bypass",
    "shared_kv": "bypass",
    "no_mask": "causality",
    "rewritten_kv": "state",
    "quantised_cache": "state",
    "tensor_quantisation": "locality",
}


def quantise(x):
    """7.2: a scale for each row; a row of zeros gets the scale 1."""
    scale = np.abs(x).max(axis=-1, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1.0)
    return np.rint(x / scale) * scale


def next_average(y, r, layer):
    """7.3: (layer + 1) * y is the sum so far.

    So with equal weights the averaged stream does determine what follows, up to rounding. The
    patch in `dense_average.py` fails because the program keeps the outputs in a list of its own,
    and because it replaces a block's output before the average is taken; it does not show that no
    function from the stream exists. With weights learned for each layer, as DenseFormer has them,
    the next combination is in general no multiple of the present one plus something new: two
    histories with the same y then have different successors, and there is no such function.
    """
    return ((layer + 1) * y + r) / (layer + 2)


def architecture(memory):
    """7.4: the stream before block 0 is added again after each later MLP."""

    def hook(name, value):
        if name == "blocks.0.hook_resid_pre":
            memory["h"] = value
        later = name.endswith("hook_mlp_out") and name != "blocks.0.hook_mlp_out"
        return value + memory["h"] if later else value

    return hook
