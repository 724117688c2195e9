"""Solutions of chapter 9."""

from __future__ import annotations

import math


def attainable(intensity, bandwidth, peak):
    """FLOP/byte * bytes/s = FLOP/s."""
    return min(peak, intensity * bandwidth)


def step_bytes(config, context, itemsize):
    """Blocks, output matrix, stored K and V."""
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    block = config.hidden_size * (2 * q + 2 * kv + 3 * config.intermediate_size)
    layers = config.num_hidden_layers * (block + 2 * kv * context)
    return itemsize * (layers + config.vocab_size * config.hidden_size)


def enough(n, k, itemsize, ridge):
    """b (2 n k - ridge s (n + k)) >= ridge s n k."""
    room = 2 * n * k - ridge * itemsize * (n + k)
    if room <= 0:
        return None
    b = max(1, math.ceil(ridge * itemsize * n * k / room) - 1)
    while 2 * b * n * k < ridge * itemsize * (n * k + b * k + b * n):
        b += 1
    return b


def recompute_ratio(D, G, d, itemsize, bandwidth, peak):
    """The longer of moving D numbers and of 4 D G d operations, over moving 2 G d numbers."""
    read = 2 * G * d * itemsize / bandwidth
    return max(D * itemsize / bandwidth, 4 * D * G * d / peak) / read
