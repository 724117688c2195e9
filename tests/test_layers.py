"""Attention: which keys a head sees."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits

from minikv.arithmetic import Exact
from minikv.layers import attention


@pytest.mark.parametrize("window", [None, 4])
def test_heads_with_tokens_of_their_own_are_masked_by_their_own_positions(window):
    rng, exact = np.random.default_rng(0), Exact(64)
    at = np.array([[0, 1, 2, 6, 7, 8, 9], [0, 3, 4, 5, 7, 8, 9]])
    q = rng.normal(size=(3, 4, 6)).astype(np.float32)
    k, v = (exact.settle(rng.normal(size=(7, 2, 6)).astype(np.float32)) for _ in "kv")
    both = attention(q, k, v, at[0, -3:], at.T, exact, 0.4, window)
    for group in range(2):
        heads, one = slice(2 * group, 2 * group + 2), slice(group, group + 1)
        alone = attention(
            q[:, heads], k[:, one], v[:, one], at[0, -3:], at[group], exact, 0.4, window
        )
        assert_same_bits(both[:, heads], alone)
