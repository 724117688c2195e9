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
    """The longer of moving D numbers and of 4 D G d operations, over moving 2 G d numbers.

    What `peak` is needed, at SmolLM2-1.7B's shape, for a ratio below 1? The residual must be
    smaller than K and V, D < 2 G d: 2,048 < 4,096, so that by bytes alone the ratio is 1/2. And
    the operations must end before K and V could have been read:

        4 D G d / peak < 2 G d itemsize / bandwidth,  so that  peak > 2 D bandwidth / itemsize;

    G and d are gone. That is peak / bandwidth > 2 * 2,048 / 4 = 1,024 operations a byte in
    float32, and twice as many in 16 bits, where there are half as many bytes to wait for. At 25
    GB/s: 25.6 TFLOP/s. The processor that ran this chapter has 105 GFLOP/s, 4 a byte, and is 250
    times too slow. No batch helps, since every token of every text has K and V of its own. An
    accelerator with a few hundred operations a byte comes closer; it needs a smaller D.
    """
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
    """There and back; then the lower halves.

    Of `exact.layers[0].q_proj.values` it says 4: the numbers lie on a grid of 21 bits, and a
    float32 has 24; it is BLAS that wants float64. `compiled` keeps these very numbers as float32.
    `short` keeps uint16, the upper halves of float32, so 2 bytes: it is the other model, cut off
    to bfloat16, whose 8 digits the grid leaves as they are.
    """
    with np.errstate(over="ignore"):
        single = w.astype(np.float32)
    if (single != w).any():
        return 8
    return 4 if (single.view(np.uint32) & 0xFFFF).any() else 2
