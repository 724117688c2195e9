"""Solutions of chapter 9."""

from __future__ import annotations

import math

import numpy as np


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


def lanes(x, w, n):
    """n sums side by side, then halves onto halves."""
    sums = np.zeros(n)
    for j in range(len(x)):
        sums[j % n] += x[j] * w[j]
    while len(sums) > 1:
        half = len(sums) // 2
        sums = sums[:half] + sums[half:]
    return float(sums[0])


def bytes_enough(w):
    """There and back; then the lower halves."""
    with np.errstate(over="ignore"):
        single = w.astype(np.float32)
    if (single != w).any():
        return 8
    return 4 if (single.view(np.uint32) & 0xFFFF).any() else 2
