"""What the policies that drop tokens share, and what their priority may be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from feeding import (
    EVICTING,
    EXACT,
    FULL,
    KV_BYTES,
    LAYERS,
    TEXT,
    callings,
    feed,
    interrupt,
)
from hypothesis import given
from hypothesis import strategies as st

from minikv.caches import Evicting, evicting, examples
from minikv.errors import CacheError
from minikv.verify.memories import Watching


@given(st.sampled_from(examples(Evicting, budget=24)), callings)
def test_a_policy_that_need_not_evict_is_full(example, sizes):
    assert_same_bits(feed(EXACT, example.new(EXACT.weights), TEXT, *sizes), FULL)


@pytest.mark.parametrize("example", EVICTING, ids=str)
def test_a_policy_below_full_budget_is_not_full(example):
    got = feed(EXACT, example.new(EXACT.weights), TEXT, 8, 1, 1)
    assert_same_bits(got[:8], FULL[:8])  # nothing was evicted before the first call
    assert not same_bits(got, FULL)


@given(st.data(), st.integers(3, 9), callings)
def test_what_is_kept_are_rows_of_full(data, budget, sizes):
    """Bit for bit: at layer 0 always; above it, rows made while every token before was still held.

    A later row at a higher layer is another row, since its stream passed through an attention
    that missed something.
    """
    cache = data.draw(st.sampled_from(examples(Evicting, budget))).new(EXACT.weights)
    full = EXACT.new_cache()
    feed(EXACT, full, TEXT)
    made_from_all = 0
    start = 0
    for size in sizes:
        if cache.stored == cache.seen:
            made_from_all = start + size
        EXACT.forward([TEXT[start : start + size]], [cache])
        start += size
    held = cache.state()[0]
    rows = full.state()[0]
    turns_keys = getattr(cache, "reposition", False)  # later keys are made at another position
    for layer, kind in itertools.product(range(LAYERS), "kv"):
        always = layer == 0 and not (kind == "k" and turns_keys)
        for head, positions in enumerate(held[f"positions.{layer}"].T):
            there = (positions >= 0) if always else positions < made_from_all
            got = held[f"{kind}.{layer}"][there, head]
            assert_same_bits(got, rows[f"{kind}.{layer}"][positions[there], head])


def test_a_row_made_after_an_eviction_is_not_fulls():
    cache = EXACT.new_cache("window", budget=5)
    full = EXACT.new_cache()
    for fed in (cache, full):
        feed(EXACT, fed, TEXT, 8, 8)
    held = cache.state()[0]
    positions = held["positions.2"][:, 0]
    assert not same_bits(held["k.2"], full.state()[0]["k.2"][positions])


@pytest.mark.parametrize("example", EVICTING, ids=str)
def test_bytes_are_those_of_the_rows_that_are_kept(example):
    cache = example.new(EXACT.weights)
    for seen in range(1, 20):
        EXACT.forward([[seen]], [cache])
        rows = seen if cache.grows else min(seen, cache.budget)
        assert (cache.seen, cache.stored) == (seen, rows)
        assert cache.nbytes == rows * KV_BYTES


@pytest.mark.parametrize("example", EVICTING, ids=str)
def test_an_interrupted_cache_says_so(example, tmp_path):
    start = example.new(EXACT.weights)
    feed(EXACT, start, TEXT[:9], 5)
    before = start.state()[0]
    count = 0
    refused = 0
    while interrupt(cache := start.fork(), TEXT[9:12], count):
        count += 7
        try:
            cache.fork()
        except CacheError:
            refused += 1
            assert_every_use_is_refused(cache, tmp_path)
            cache.reset()
            assert_same_bits(feed(EXACT, cache, TEXT[:5]), FULL[:5])
        else:  # the call had not come to the cache yet
            after = cache.state()[0]
            for name, array in before.items():
                assert_same_bits(after[name], array)
    assert refused >= 5  # of 8: the first cache.update comes after ten activations


def assert_every_use_is_refused(cache, tmp_path):
    uses = (
        cache.state,
        lambda: cache.save(tmp_path / "x"),
        lambda: cache.truncate(2),
        lambda: feed(EXACT, cache, [1]),
    )
    for use in uses:
        with pytest.raises(CacheError, match=r"was interrupted .*call reset\(\)"):
            use()


@pytest.mark.parametrize("name", [n for n, policy in evicting().items() if policy.per_head])
def test_truncation_leaves_heads_that_keep_different_tokens_equally_long(name):
    cache = EXACT.new_cache(name, budget=8)
    feed(EXACT, cache, TEXT, 20)
    before = cache.state()[0]
    differ = 0
    for length in range(24):
        twin = cache.fork()
        twin.truncate(length)
        after = twin.state()[0]
        for layer in range(LAYERS):
            earlier = (before[f"positions.{layer}"] < length).sum(axis=0)
            differ += len(set(earlier.tolist())) > 1
            for kind in ("positions", "scores", "k", "v"):
                rows = before[f"{kind}.{layer}"][: earlier.min()]
                assert_same_bits(after[f"{kind}.{layer}"], rows)
    assert differ


@pytest.mark.parametrize("name", evicting())
def test_a_policy_without_its_budget_says_what_it_needs(name):
    with pytest.raises(CacheError, match=f"'{name}' needs budget=N"):
        EXACT.new_cache(name)


@pytest.mark.parametrize("name", evicting())
def test_a_budget_may_be_the_whole_context_and_no_more(name):
    context = EXACT.config.max_position_embeddings
    assert EXACT.new_cache(name, budget=context).budget == context
    with pytest.raises(CacheError, match=f"budget is {context + 1}, expected at most the context"):
        EXACT.new_cache(name, budget=context + 1)


# What a priority may be


def with_priority(priority, heads_differ: bool = False) -> Evicting:
    """A cache of budget 4 whose policy is this function of the rows that a layer holds."""

    class Given(Evicting):
        policy = "given"
        per_head = heads_differ

        def priority(self, rows):
            return priority(rows)

    return Given(EXACT.weights, budget=4)


def test_the_newer_of_equals_stays():
    cache = with_priority(lambda rows: np.zeros(rows.positions.shape))
    feed(EXACT, cache, TEXT, 9, 1, 1)
    assert_same_bits(cache.rows[1].positions, np.arange(20, 24)[:, None].repeat(2, axis=1))


def test_the_newer_of_equals_stays_among_many():
    """Where a sort that is not stable would mix them."""
    cache = with_priority(lambda rows: rows.positions % 3)
    feed(EXACT, cache, [*TEXT] * 5)
    assert cache.rows[1].positions[:, 0].tolist() == [110, 113, 116, 119]


def test_a_priority_sees_the_layer_and_all_that_it_holds():
    seen = []

    def look(rows):
        full = EXACT.new_cache()
        EXACT.forward([TEXT[:9]], [full])
        held = full.state()[0]
        index = rows.layer.index
        assert rows.layer is EXACT.layers[index]
        assert_same_bits(rows.positions, np.arange(9)[:, None].repeat(2, axis=1))
        assert_same_bits(rows.keys, held[f"k.{index}"])
        assert_same_bits(rows.values, held[f"v.{index}"])
        assert_same_bits(rows.scores, np.zeros((9, 2)))
        seen.append(index)
        return rows.positions

    feed(EXACT, with_priority(look), TEXT[:9])
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("priority", "message"),
    [
        (lambda rows: rows.positions[:, 0], r"has shape \(9,\), expected \(9, 2\)"),
        (lambda rows: rows.positions.T, r"has shape \(2, 9\), expected \(9, 2\)"),
        (lambda rows: rows.keys, r"has shape \(9, 2, 6\), expected \(9, 2\)"),
        (lambda rows: 0.0, r"has shape \(\), expected \(9, 2\)"),
        (lambda rows: None, r"has shape \(\), expected \(9, 2\)|is None, expected \(9, 2\)"),
        (lambda rows: [[1], [2, 3]], r"is \[\[1\], \[2, 3\]\], expected \(9, 2\) numbers"),
        (lambda rows: "high", r"is 'high', expected \(9, 2\) numbers"),
        (
            lambda rows: np.where(rows.positions == 3, np.nan, 1.0),
            "is NaN for row 3 of head 0, expected numbers",
        ),
        (
            lambda rows: rows.positions * [1, -1],
            "differs from head to head, expected the same .* or set per_head = True",
        ),
    ],
)
def test_a_wrong_priority_is_named(priority, message):
    cache = with_priority(priority)
    with pytest.raises(CacheError, match=f"^the priority of Given {message}") as caught:
        feed(EXACT, cache, TEXT[:9])
    assert "\n" not in str(caught.value)


def test_heads_may_keep_tokens_of_their_own():
    cache = with_priority(lambda rows: rows.positions * [1, -1], heads_differ=True)
    feed(EXACT, cache, TEXT[:9])
    assert cache.rows[0].positions.T.tolist() == [[5, 6, 7, 8], [0, 1, 2, 3]]


def test_infinity_is_a_priority():
    cache = with_priority(lambda rows: np.where(rows.positions < 2, np.inf, -np.inf))
    feed(EXACT, cache, TEXT[:9])
    assert cache.rows[0].positions[:, 0].tolist() == [0, 1, 7, 8]


def test_scores_are_kept_with_their_rows():
    class Alternate(Evicting):
        watches = True

        def observe(self, layer, positions, pattern):
            rows = self.rows[layer.index]
            rows.scores[:] = rows.positions % 2

        def priority(self, rows):
            return rows.scores

    cache = Alternate(EXACT.weights, budget=4)
    feed(EXACT, cache, TEXT[:9])
    assert cache.rows[2].positions[:, 0].tolist() == [1, 3, 5, 7]
    assert_same_bits(cache.rows[2].scores, np.ones((4, 2)))


@pytest.mark.parametrize("name", [n for n, policy in evicting().items() if policy.watches])
def test_weights_of_float32_are_added_in_float64(name):
    """Here 1 and numbers of 2**-30, whose sum in float32 is 1."""
    cache = EXACT.new_cache(name, budget=8)
    rows = cache.rows[0]
    groups = rows.positions.shape[1]
    rows.append(np.arange(6), np.zeros((6, groups, 6)), np.zeros((6, groups, 6)))
    pattern = np.full((4, 6, 6), 2.0**-30, dtype=np.float32)
    pattern[0, -1, :] = 1
    cache.observe(EXACT.layers[0], np.arange(6), pattern)
    scores = rows.scores[:, 0]
    assert (scores != scores.astype(np.float32)).all()


def test_where_layers_keep_different_numbers_of_tokens_the_first_is_told():
    cache = EXACT.new_cache("h2o", budget=8)
    feed(EXACT, cache, TEXT, 20)
    stored = []
    for length in range(24):
        twin = cache.fork()
        twin.truncate(length)
        stored.append([len(rows) for rows in twin.rows])
        assert twin.stored == stored[-1][0]
    assert any(numbers[0] != numbers[-1] for numbers in stored)


@pytest.mark.parametrize("name", [n for n, policy in evicting().items() if policy.watches])
def test_truncation_keeps_scores(name):
    cache = EXACT.new_cache(name, budget=8)
    EXACT.forward([TEXT[:12]], [cache])
    before = cache.state()[0]["scores.0"]
    cache.truncate(10)
    after = cache.state()[0]["scores.0"]
    assert 0 < len(after) < len(before)
    assert_same_bits(after, before[: len(after)])


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_one_row_too_many_goes_as_one_of_many_would(seed, alike):
    """Of equals the oldest; -0.0 and 0.0 are equal."""
    rng = np.random.default_rng(seed)
    priority = rng.choice([-np.inf, -1.0, -0.0, 0.0, 2.0, np.inf], (5, 2))
    if alike:
        priority[:] = priority[:, :1]
    cache = with_priority(lambda rows: priority, heads_differ=not alike)
    rows = cache.rows[0]
    rows.append(np.arange(5), np.zeros((5, 2, 6)), np.zeros((5, 2, 6)))
    cache.evict(EXACT.layers[0])
    kept = np.sort(np.argsort(priority, axis=0, kind="stable")[1:], axis=0)
    assert_same_bits(rows.positions, kept)


@pytest.mark.parametrize("name", evicting())
def test_the_positions_that_a_call_attended_to_stay_what_they_were(name):
    """For a memory that looks on, and tells of them when rows have gone."""
    cache = EXACT.new_cache(name, budget=6)
    watching = Watching(cache)
    told = []
    for token in TEXT[:12]:
        EXACT.forward([[token]], [watching])
        now = watching.attended[0]
        told.append((now, now.copy()))
    for kept, before in told:
        assert_same_bits(kept, before)


def test_a_row_that_goes_alone_is_that_of_all_heads_unless_they_may_differ():
    cache = with_priority(lambda rows: rows.positions * [1, -1])
    with pytest.raises(CacheError, match="differs from head to head, expected the same"):
        feed(EXACT, cache, TEXT[:5])
