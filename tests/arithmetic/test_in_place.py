"""What NumPy does in place or in tiles: where bits are promised they are those of other libraries.

Of float32 every sum is exact here, and the bits are known.
"""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.arithmetic import ACTIVATIONS, Arithmetic, Exact, Float32, Sight, Watch
from minikv.arithmetic.in_place import largest_in
from minikv.arithmetic.masking import masked_in_place
from minikv.arithmetic.numpy_exact import NumpyExact
from minikv.arithmetic.numpy_float32 import NumpyFloat32
from minikv.arithmetic.tiles import in_tiles
from minikv.errors import ArithmeticRangeError
from minikv.model import Model

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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (6, 40)])
def test_the_largest_of_each_row_is_found_and_nan_where_there_is_one(shape, dtype):
    scores = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    scores[-1, -1] = np.nan
    scores[0, 0] = np.inf
    assert_same_bits(largest_in(scores), scores.max(axis=-1, keepdims=True))


class ExactBlocks(NumpyExact):
    """Whose short texts have several blocks of queries."""

    few_queries = 3
    query_block = 3


def settled(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """K or V, whose rows are of many sizes."""
    sizes = 2.0 ** rng.integers(-40, 40, (*shape[:-1], 1))
    return NumpyExact().settle((rng.standard_normal(shape) * sizes).astype(np.float32))


@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(1, 30),
    held=st.integers(0, 30),
    first=st.integers(0, 1000),
    groups=st.integers(1, 3),
    share=st.integers(1, 5),
    window=st.one_of(st.none(), st.integers(1, 40)),
)
def test_exact_attention_in_place_has_the_bits_of_other_libraries(
    seed, tokens, held, first, groups, share, window
):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((tokens, groups * share, 6)).astype(np.float32)
    k = settled(rng, held + tokens, groups, 6) / np.float32(2.0**35)
    v = settled(rng, held + tokens, groups, 6)
    positions = np.arange(first, first + held + tokens)
    sight = Sight(positions[held:], positions, window)
    exact = ExactBlocks(128)
    expected_bits = Arithmetic.attention(exact, q, k, v, sight, 0.4)
    before = [x.copy() for x in (q, k, v)]
    assert_same_bits(exact.attention(q, k, v, sight, 0.4), expected_bits)
    for x, copy in zip((q, k, v), before, strict=True):
        assert_same_bits(x, copy)


@pytest.mark.parametrize("times", [1, 2, 3, 5, 7])
def test_weights_in_place_whose_grid_only_an_exact_sum_decides_get_that(times):
    """Of 513 equal weights 512 have a value of size 1: times 1 + 2**-9 they add up to 1."""
    totals: list[int] = []

    class Asked(ExactBlocks):
        def total(self, size: np.ndarray) -> np.ndarray:
            totals.append(size.shape[-1])
            return super().total(size)

    rng = np.random.default_rng(times)
    keys = 513 * times
    exact = Asked(4096)
    v = 1 + rng.random((keys + 4, 1, 4))
    v[rng.choice(keys, times, replace=False)] = 0
    v = exact.settle(v.astype(np.float32))
    q, k = np.ones((4, 1, 4), np.float32), np.ones((keys + 4, 1, 4), np.float32)
    sight = Sight(np.full(4, keys - 1), np.arange(keys + 4))
    expected_bits = Arithmetic.attention(exact, q, k, v, sight, 1.0)
    totals.clear()
    assert_same_bits(exact.attention(q, k, v, sight, 1.0), expected_bits)
    assert totals == [keys]


@pytest.mark.parametrize(
    ("changed", "in_place"),
    [
        ({}, True),
        ({"tokens": 3}, False),
        ({"observed": True}, False),
        ({"per_head": True}, False),
        ({"context": 11}, True),
        ({"context": 10, "window": 6}, False),
    ],
    ids=str,
)
def test_exact_attention_is_done_in_place_of_many_queries_that_nobody_watches(changed, in_place):
    asked: list[int] = []

    class Asked(ExactBlocks):
        def scores(self, q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
            asked.append(len(q))
            return super().scores(q, k, scale)

    tokens = changed.get("tokens", 4)
    keys = np.arange(11)
    if changed.get("per_head"):
        keys = np.stack([keys, keys], axis=1)
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((tokens, 2, 4)), settled(rng, 11, 2, 4), settled(rng, 11, 2, 4)
    q = q.astype(np.float32)
    k /= np.float32(2.0**40)
    sight = Sight(np.arange(11 - tokens, 11), keys, changed.get("window"))
    watch = Watch(observe=lambda *_: None) if changed.get("observed") else Watch()
    exact = Asked(changed.get("context", 64))
    got = exact.attention(q, k, v, sight, 0.5, watch)
    assert (not asked) == in_place
    assert_same_bits(got, Arithmetic.attention(exact, q, k, v, sight, 0.5))


@pytest.mark.parametrize(("tokens", "others"), [(32, 1), (33, 0)])
def test_32_queries_are_few(tokens, others):
    asked: list[int] = []

    class Asked(NumpyExact):
        def scores(self, q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
            asked.append(len(q))
            return super().scores(q, k, scale)

    text = np.ones((tokens, 1, 4), np.float32)
    sight = Sight(np.arange(tokens), np.arange(tokens))
    assert_same_bits(Asked().attention(text, text, text, sight, 1.0), text)
    assert asked == [tokens] * others


def test_many_queries_that_see_more_keys_than_the_context_are_refused():
    k = np.ones((11, 1, 4), np.float32)
    sight = Sight(np.arange(7, 11), np.arange(11))
    with pytest.raises(ArithmeticRangeError, match=r"^10 tokens to attend to, expected at most 9$"):
        ExactBlocks(9).attention(k[:4], k, k, sight, 0.5)


@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj"])
def test_scores_and_values_that_are_not_finite_are_refused_in_the_same_words(
    projection, monkeypatch
):
    config = minikv.tiny_config(model_type="qwen2", num_hidden_layers=1)  # which has biases
    tensors = minikv.random_tensors(config, 0)
    tensors[f"model.layers.0.self_attn.{projection}.bias"][:] = 3.4e38
    said = set()
    model = Model(minikv.build(config, tensors, "exact"))
    for attention in (NumpyExact.attention, Arithmetic.attention):
        monkeypatch.setattr(NumpyExact, "attention", attention)
        with np.errstate(all="ignore"), pytest.raises(ArithmeticRangeError) as caught:
            model.logits(range(40))
        said.add(str(caught.value))
    assert len(said) == 1


def test_no_sum_in_place_is_minus_zero():
    k = np.ones((4, 1, 2), np.float32)
    sight = Sight(np.arange(4), np.arange(4))
    out = ExactBlocks(8).attention(k, k, np.full((4, 1, 2), -0.0, np.float32), sight, 1.0)
    assert_same_bits(out, np.zeros((4, 1, 2), np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 4), (5, 1, 4), (7, 3, 8), (6, 5)])
def test_the_largest_of_heads_is_found_wherever_they_lie(shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    x[0, 0] = np.nan
    stored = np.repeat(x.swapaxes(0, -2), 2, axis=-2)[..., ::2, :].swapaxes(0, -2)
    for heads in (x, stored, np.repeat(x, 2, axis=-1)[..., ::2]):
        assert_same_bits(NumpyExact().tops(heads), Exact().tops(heads))


# Norms and gates of many rows


@pytest.mark.parametrize("rows", [1, 128, 129, 300])
def test_norms_and_gates_in_tiles_have_the_bits_of_all_rows_at_once(rows):
    rng = np.random.default_rng(rows)
    x, up = rng.standard_normal((2, rows, 40)).astype(np.float32)
    weight = rng.standard_normal(40).astype(np.float32)
    for whole, tiled in ((Float32(), NumpyFloat32()), (Exact(), NumpyExact())):
        for heads in ((rows, 40), (rows, 5, 8)):
            given, scales = x.reshape(heads), weight[: heads[-1]].astype(whole.wide)
            expected_bits = whole.rms_norm(given, scales, 1e-5)
            assert_same_bits(tiled.rms_norm(given, scales, 1e-5), expected_bits)
        for activation in ACTIVATIONS:
            expected_bits = whole.gated(x, up, activation)
            assert_same_bits(tiled.gated(x, up, activation), expected_bits)


def test_a_tile_has_128_rows_at_most():
    tiles: list[int] = []

    def made(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        tiles.append(len(x))
        return x + y

    x = np.arange(400.0).reshape(200, 2)
    for rows, expected_tiles in ((128, [128]), (129, [128, 1]), (200, [128, 72])):
        tiles.clear()
        assert_same_bits(in_tiles(made, x[:rows], x[:rows]), 2 * x[:rows])
        assert tiles == expected_tiles


def test_one_row_without_others_is_no_tiles():
    x = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    assert_same_bits(in_tiles(lambda row: row[::-1], x), x[::-1])
    weight = np.ones(300)
    assert_same_bits(NumpyExact().rms_norm(x, weight, 1e-5), Exact().rms_norm(x, weight, 1e-5))
