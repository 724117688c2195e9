"""What every arithmetic makes of its sums: attention, whose queries see only what they may."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from bits import assert_same_bits

from minikv.arithmetic import Bfloat16, Exact, Float16, Float32, NumpyExact, Sight, Watch


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("exact", [NumpyExact(64), Exact(64)], ids=["NumpyExact", "Exact"])
def test_heads_with_tokens_of_their_own_are_masked_by_their_own_positions(exact, window):
    rng = np.random.default_rng(0)
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


def drawn(exact: NumpyExact, tokens: int, keys: int) -> tuple[np.ndarray, ...]:
    """Queries of 4 heads, and keys and values of 2, of width 6."""
    rng = np.random.default_rng(1)
    q = rng.normal(size=(tokens, 4, 6)).astype(np.float32)
    return q, *(exact.settle(rng.normal(size=(keys, 2, 6)).astype(np.float32)) for _ in "kv")


@pytest.mark.parametrize(
    "arithmetic",
    [NumpyExact(64), Exact(64), Float32(), Bfloat16(), Float16()],
    ids=lambda arithmetic: type(arithmetic).__name__,
)
def test_prepared_values_are_cut_by_tokens_and_prepared_once(arithmetic):
    rng = np.random.default_rng(2)
    pattern = rng.uniform(size=(4, 3, 5)).astype(arithmetic.wide)
    v = arithmetic.settle(rng.normal(size=(9, 2, 6)).astype(np.float32))
    prepared = arithmetic.values(v)
    assert arithmetic.values(prepared) is prepared
    expected = arithmetic.weighted_sum(pattern, v[2:7])
    assert_same_bits(arithmetic.weighted_sum(pattern, prepared[2:7, ...]), expected)


@pytest.mark.parametrize("window", [None, 5])
def test_hooks_see_all_queries_at_once_and_every_key(window):
    exact = NumpyExact(128)
    q, k, v = drawn(exact, 70, 80)
    seen = {}

    def keep(name):
        return lambda value: seen.setdefault(name, value)

    sight = Sight(np.arange(10, 80), np.arange(80), window)
    watch = Watch(keep("scores"), keep("pattern"))
    hooked = exact.attention(q, k, v, sight, 0.4, watch)
    assert seen["scores"].shape == seen["pattern"].shape == (4, 70, 80)
    distance = np.arange(10, 80)[:, None] - np.arange(80)
    hidden = (distance < 0) | (distance >= (window or 80))
    assert ((seen["scores"] == -np.inf) == hidden).all()
    assert not seen["pattern"][:, hidden].any()
    assert_same_bits(hooked, exact.attention(q, k, v, sight, 0.4))
    zeroed = exact.attention(q, k, v, sight, 0.4, Watch(pattern=lambda pattern: 0 * pattern))
    assert not zeroed.any()  # what a hook returns takes its place


@pytest.mark.parametrize("window", [None, 5])
def test_whoever_observes_sees_each_run_of_queries_and_key_s_in_column_s(window):
    exact = NumpyExact(128)
    q, k, v = drawn(exact, 70, 80)
    runs, whole = [], []
    sight = Sight(np.arange(10, 80), np.arange(80), window)
    exact.attention(q, k, v, sight, 0.4, Watch(observe=lambda *run: runs.append(run)))
    exact.attention(q, k, v, sight, 0.4, Watch(pattern=lambda p: whole.append(p) or p))
    assert [len(positions) for positions, _ in runs] == [32, 32, 6]
    assert_same_bits(np.concatenate([positions for positions, _ in runs]), np.arange(10, 80))
    start = 0
    for positions, pattern in runs:
        stop = start + len(positions)
        keys = pattern.shape[2]
        assert keys == positions[-1] + 1  # later ones are not seen by anybody
        assert_same_bits(pattern, whole[0][:, start:stop, :keys])
        start = stop


@pytest.mark.parametrize("window", [None, 1, 4, 9])
@pytest.mark.parametrize("held", [np.arange(20), np.array([0, 1, 5, 6, 12, 13, 14, 15])])
def test_the_keys_that_are_taken_are_those_that_a_query_sees_and_no_mask_hides_none(window, held):
    for first, count in ((0, 1), (3, 4), (12, 3), (15, 1), (12, 4)):
        positions = np.arange(first, first + count)
        sight = Sight(positions, held, window)
        keys = sight.keys_for(slice(0, count))
        distance = positions[:, None] - held
        seen = (distance >= 0) & (distance < (window or 99))
        needed = np.flatnonzero(seen.any(axis=0))
        if len(needed) == 0:
            continue
        assert (keys.start, keys.stop) == (needed[0], needed[-1] + 1)
        hidden = sight.hidden(slice(0, count), keys)
        expected = ~seen[:, keys]
        if hidden is None:
            assert not expected.any()
        else:
            assert expected.any()
            assert (hidden == expected).all()


def test_attention_by_blocks_needs_no_memory_for_all_scores_at_once():
    exact = NumpyExact(1024)
    q, k, v = drawn(exact, 600, 600)
    sight = Sight(np.arange(600), np.arange(600))

    def peak(watch: Watch) -> int:
        tracemalloc.start()
        exact.attention(q, k, v, sight, 0.4, watch)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    exact.exp(np.zeros(1))  # whose table is kept
    all_scores = 4 * 600 * 600 * 8
    assert peak(Watch()) < all_scores / 2
    assert peak(Watch(scores=lambda scores: scores)) > all_scores


def test_who_looks_is_said_for_each_that_may():
    """Kernels take attention whole where nobody looks; hooks want all queries at once."""

    def look(*_):
        raise AssertionError("nothing is computed")

    assert Watch().nobody
    assert not Watch().hooked
    for watch, hooked in (
        (Watch(scores=look), True),
        (Watch(pattern=look), True),
        (Watch(observe=look), False),
        (Watch(look, look, look), True),
    ):
        assert not watch.nobody
        assert watch.hooked == hooked
