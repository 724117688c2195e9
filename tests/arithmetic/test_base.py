"""What every arithmetic makes of its sums: attention, whose queries see only what they may."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits

from minikv.arithmetic import NumpyExact, Sight


@pytest.mark.parametrize("window", [None, 4])
def test_heads_with_tokens_of_their_own_are_masked_by_their_own_positions(window):
    rng, exact = np.random.default_rng(0), NumpyExact(64)
    positions = np.array([[0, 1, 2, 6, 7, 8, 9], [0, 3, 4, 5, 7, 8, 9]])
    queries = positions[0, -3:]
    q = rng.normal(size=(3, 4, 6)).astype(np.float32)
    k, v = (exact.settle(rng.normal(size=(7, 2, 6)).astype(np.float32)) for _ in "kv")
    both = exact.attention(q, k, v, Sight(queries, positions.T, window), 0.4)
    for group in range(2):
        heads, one = slice(2 * group, 2 * group + 2), slice(group, group + 1)
        sight = Sight(queries, positions[group], window)
        alone = exact.attention(q[:, heads], k[:, one], v[:, one], sight, 0.4)
        assert_same_bits(both[:, heads], alone)
