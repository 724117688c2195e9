"""Attention that NumPy's float32 does in place, where every sum is exact and the bits are known."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from hypothesis import given
from hypothesis import strategies as st

from minikv.arithmetic import Sight, Watch
from minikv.arithmetic.masking import masked_in_place
from minikv.arithmetic.numpy_exact import NumpyExact
from minikv.arithmetic.numpy_float32 import NumpyFloat32

FAR = 200.0  # exp(-200) is 0 in float32


class Blocks(NumpyFloat32):
    """Whose short texts have several blocks of queries."""

    query_block = 3


def expected(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, sight: Sight, share: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of the values whose keys a query likes best, and the weights ``(H, T, S)``."""
    tokens, heads = queries.shape
    means = np.empty((tokens, heads, values.shape[2]), np.float32)
    weights = np.zeros((heads, tokens, len(keys)), np.float32)
    oldest = -1 if sight.window is None else sight.query_positions[:, None] - sight.window
    seen = sight.key_positions <= sight.query_positions[:, None]
    seen &= sight.key_positions > oldest
    for t in range(tokens):
        for h in range(heads):
            likes = keys[:, h // share] * queries[t, h]
            best = seen[t] & (likes == likes[seen[t]].max())
            count = np.float32(best.sum())
            means[t, h] = values[best, h // share].sum(axis=0, dtype=np.float32) / count
            weights[h, t, best] = np.float32(1) / count
    return means, weights


@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(4, 30),
    held=st.integers(0, 30),
    groups=st.integers(1, 3),
    share=st.integers(1, 3),
    window=st.one_of(st.none(), st.integers(1, 30)),
)
def test_weights_that_are_alike_give_means(seed, tokens, held, groups, share, window):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, 2, (tokens, groups * share))
    keys = rng.integers(-1, 2, (held + tokens, groups))
    values = rng.integers(-99, 100, (held + tokens, groups, 4)).astype(np.float32)
    q = (queries[:, :, None] * np.ones(4)).astype(np.float32)
    k = (keys[:, :, None] * np.full(4, FAR / 4)).astype(np.float32)
    sight = Sight(np.arange(held, held + tokens), np.arange(held + tokens), window)
    means, weights = expected(queries, keys, values, sight, share)
    assert_same_bits(Blocks().attention(q, k, values, sight, 1.0), means)
    told: list[np.ndarray] = []
    watch = Watch(observe=lambda positions, pattern: told.extend(np.swapaxes(pattern, 0, 1)))
    assert_same_bits(Blocks().attention(q, k, values, sight, 1.0, watch), means)
    assert len(told) == tokens
    for pattern, row in zip(told, np.swapaxes(weights, 0, 1), strict=True):
        assert_same_bits(pattern, row[:, : pattern.shape[1]])
        assert not row[:, pattern.shape[1] :].any()


@pytest.mark.parametrize(("tokens", "others"), [(3, 1), (4, 0)])
def test_one_block_of_queries_is_taken_as_by_other_arithmetics(tokens, others):
    """Which ask for the scores of a block; what is done in place has them in a room of its own."""
    asked: list[int] = []

    class Asked(Blocks):
        def scores(self, q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
            asked.append(len(q))
            return super().scores(q, k, scale)

    assert Asked.query_block == 3
    text = np.ones((tokens, 1, 4), np.float32)
    sight = Sight(np.arange(tokens), np.arange(tokens))
    assert_same_bits(Asked().attention(text, text, text, sight, 1.0), text)
    assert asked == [tokens] * others


def test_many_queries_have_the_scores_of_one_kv_head_at_a_time_and_few_those_of_all():
    held: list[int] = []

    class Held(Blocks):
        def masked(self, scores: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
            held.append(len(scores))
            return super().masked(scores, hidden)

    for tokens in (Held.query_block, Held.query_block + 1):
        q, k = np.ones((tokens, 6, 4), np.float32), np.ones((tokens, 2, 4), np.float32)
        Held().attention(q, k, k, Sight(np.arange(tokens), np.arange(tokens)), 1.0)
    assert held == [6, 3, 3]


@pytest.mark.parametrize("hidden", [2, 3])
@pytest.mark.parametrize("arithmetic", [NumpyFloat32(), NumpyExact(64)])
def test_masking_in_place_is_masking(arithmetic, hidden):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((6, 5, 9)).astype(arithmetic.wide)
    mask = rng.random((5, 9) if hidden == 2 else (3, 5, 9)) < 0.3
    told = mask if hidden == 2 else mask.repeat(2, axis=0)
    expected_scores = np.where(told, -np.inf, scores)
    assert not same_bits(scores, expected_scores)
    assert_same_bits(arithmetic.masked(scores.copy(), mask), expected_scores)


def test_nothing_hidden_leaves_scores_alone():
    scores = np.ones((2, 3, 4))
    assert masked_in_place(scores, None) is scores
    assert_same_bits(masked_in_place(scores, np.zeros((3, 4), bool)), np.ones((2, 3, 4)))
