"""What every cache policy does: lossless ones give Full's bits; forks, resets and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits
from feeding import ALL, EXACT, FULL, LOSSLESS, TEXT, feed, interrupt, random_model

from minikv.caches import make_cache
from minikv.errors import CacheError, InputError


@pytest.mark.parametrize("example", LOSSLESS, ids=str)
def test_a_lossless_cache_gives_the_bits_of_the_full_one(example):
    for sizes in ((), (7, 1, 9, 1), (1,) * 23):
        assert_same_bits(feed(EXACT, example.new(EXACT.weights), TEXT, *sizes), FULL)


@pytest.mark.parametrize("example", ALL, ids=str)
def test_what_an_empty_cache_holds_is_nothing(example):
    cache = example.new(EXACT.weights)
    assert (cache.seen, cache.stored, cache.nbytes, cache.next_position) == (0, 0, 0, 0)


@pytest.mark.parametrize("example", ALL, ids=str)
def test_bytes_are_those_of_the_keys_values_rows_and_ids_that_a_state_holds(example):
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:9], 6)
    held = {"k", "v", "residual", "checkpoint", "ids"}
    taken = 0
    for name, tensor in cache.state()[0].items():
        kind, _, layer = name.partition(".")
        if kind not in held:
            continue
        flags = {"k": "has_kv", "v": "has_kv", "residual": "has_residual"}.get(kind)
        there = cache.state()[0].get(f"{flags}.{layer}", np.ones(len(tensor), bool))
        taken += tensor[there].nbytes
    assert cache.nbytes == taken > 0


@pytest.mark.parametrize("example", ALL, ids=str)
def test_a_fork_and_its_original_do_not_touch_each_other(example):
    cache = example.new(EXACT.weights)
    alone = example.new(EXACT.weights)
    for fed in (cache, alone):
        feed(EXACT, fed, TEXT[:9], 6)
    for ids in (TEXT[15:17], TEXT[15:]):  # over the rows that were there, and beyond them
        twin = cache.fork()
        twin.truncate(3)
        feed(EXACT, twin, ids)
    assert_same_bits(feed(EXACT, cache, TEXT[9:], 1), feed(EXACT, alone, TEXT[9:], 1))


@pytest.mark.parametrize("example", ALL, ids=str)
def test_whatever_was_truncated_goes_on_alike_itself_forked_and_saved(example):
    """To nothing, within the budget and beyond it, and again after that."""
    start = example.new(EXACT.weights)
    feed(EXACT, start, TEXT[:12], 7, 1, 1)
    for lengths in ((0,), (11,), (9, 6)):
        cache = start.fork()
        for length in lengths:
            cache.truncate(length)
        loaded = example.new(EXACT.weights)
        loaded.load_state(*cache.state())
        forked = cache.fork()
        end = lengths[-1]
        text = TEXT[end : end + 6]
        expected = feed(EXACT, cache, text, 2, 1)
        for twin in (forked, loaded):
            assert_same_bits(feed(EXACT, twin, text, 2, 1), expected)
            assert (twin.seen, twin.stored, twin.nbytes) == (end + 6, cache.stored, cache.nbytes)
            assert_same_state(twin, cache)
        if example in LOSSLESS:
            assert_same_bits(expected, FULL[end : end + 6])


def assert_same_state(one, other):
    for name, array in other.state()[0].items():
        assert_same_bits(one.state()[0][name], array, name)


@pytest.mark.parametrize("example", ALL, ids=str)
def test_reset_forgets_everything(example):
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[10:], 4)
    cache.reset()
    assert (cache.seen, cache.stored, cache.nbytes) == (0, 0, 0)
    fresh = example.new(EXACT.weights)
    assert_same_bits(feed(EXACT, cache, TEXT, 9, 1), feed(EXACT, fresh, TEXT, 9, 1))


@pytest.mark.parametrize("example", ALL, ids=str)
def test_a_call_refused_at_the_door_leaves_every_cache_as_it_was(example):
    model = random_model(max_position_embeddings=16)
    cache = example.new(model.weights)
    alone = example.new(model.weights)
    for fed in (cache, alone):
        feed(model, fed, TEXT[:6])
    with pytest.raises(InputError, match="expected at most 16"):
        model.forward([TEXT[:2], TEXT[:17]], [cache, None])
    assert_same_bits(feed(model, cache, TEXT[6:16], 1), feed(model, alone, TEXT[6:16], 1))


@pytest.mark.parametrize("example", LOSSLESS, ids=str)
def test_an_interrupted_call_loses_nothing_that_is_lossless(example):
    start = example.new(EXACT.weights)
    feed(EXACT, start, TEXT[:9], 5)
    count = 0
    while interrupt(cache := start.fork(), TEXT[3:12], count):
        twin = cache.fork()
        assert cache.seen == 9
        assert_same_bits(feed(EXACT, cache, TEXT[9:], 1), FULL[9:])
        twin.truncate(4)
        assert_same_bits(feed(EXACT, twin, TEXT[4:], 2), FULL[4:])
        count += 7  # passes all layers at all places, since 7 does not divide the 18 of a block
    assert count > 40


@pytest.mark.parametrize("length", [-1, 10, 2**70, 1.5, "1", True])
@pytest.mark.parametrize("example", ALL, ids=str)
def test_a_cache_cannot_be_truncated_to_what_it_never_saw(example, length):
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:9])
    with pytest.raises(CacheError, match=r"the cache has seen 9|expected a whole number from 0 up"):
        cache.truncate(length)
    assert cache.seen == 9


@pytest.mark.parametrize("example", ALL, ids=str)
def test_truncated_to_what_it_has_seen_a_cache_is_what_it_was(example):
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:9], 6)
    before = cache.state()
    cache.truncate(9)
    after = cache.state()
    assert after[1] == before[1]
    for name, tensor in before[0].items():
        assert_same_bits(after[0][name], tensor, name)


WRONG = [
    ("window", {"budget": 0}, "budget is 0, expected a whole number from 1 up"),
    ("window", {"budget": 2.0}, "budget is 2.0, expected a whole number"),
    ("window", {"budget": True}, "budget is True"),
    ("window", {"budget": None}, "budget is None"),
    ("window", {"budget": 129}, "budget is 129, expected at most the context of 128"),
    ("h2o", {"budget": 129}, "expected at most the context of 128"),
    ("window", {}, "budget"),
    ("window", {"budget": 3, "sinks": 2}, "sinks"),
    ("streaming_llm", {"budget": 4}, "budget is 4, expected more than the 4 sinks"),
    ("streaming_llm", {"budget": 4, "sinks": -1}, "sinks is -1, expected a whole number from 0"),
    ("h2o", {"budget": 4, "recent": 5}, "recent is 5, expected at most the budget of 4"),
    ("h2o", {"budget": 4, "recent": "all"}, "recent is 'all', expected a whole number from 0"),
    ("snapkv", {"budget": 4, "window": 5}, "window is 5, expected at most the budget of 4"),
    ("snapkv", {"budget": 4, "window": 0}, "window is 0"),
    ("snapkv", {"budget": 4, "kernel": 2}, "kernel is 2, expected an odd width"),
    ("tova", {"budget": -1}, "budget is -1"),
    ("residual", {"budget": -1}, "budget is -1, expected a whole number from 0 up"),
    ("residual", {"chunk": 0}, "chunk is 0, expected a whole number from 1 up"),
    ("residual", {"checkpoints": 0}, "checkpoints is 0"),
    ("residual", {"checkpoints": True}, "checkpoints is True"),
    ("residual", {"checkpoints": "some"}, "checkpoints is 'some', expected 'embedding'"),
    ("residual", {"checkpoints": [0, 3]}, "checkpoint layer 3 does not exist: the model has 3"),
    ("residual", {"checkpoints": [1, 2]}, "lack layer 0"),
    ("residual", {"checkpoints": []}, "lack layer 0"),
    ("residual", {"checkpoints": [0, -1]}, "a checkpoint layer is -1"),
    ("residual", {"checkpoints": [0, "x"]}, "a checkpoint layer is 'x'"),
    ("residual", {"checkpoints": 2.5}, "checkpoints is 2.5, expected a set"),
    ("residual", {"checkpoints": None}, "checkpoints is None, expected a set"),
    ("full", {"budget": 3}, "budget"),
    ("kv", {}, "cache policy 'kv' is unknown; choose from full, h2o, none"),
    ([], {}, "cache policy [] is unknown; choose from full"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), WRONG)
def test_wrong_parameters_are_named(name, parameters, message):
    with pytest.raises(CacheError) as caught:
        make_cache(name, EXACT.weights, **parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_float64_rows_count_twice():
    model = random_model(arithmetic="float64", num_hidden_layers=2)
    cache = model.new_cache("residual", budget=2)
    feed(model, cache, TEXT)
    assert cache.nbytes == 2 * 2 * 2 * 2 * 6 * 8 + len(TEXT) * 24 * 8


@pytest.mark.parametrize("example", LOSSLESS, ids=str)
def test_a_call_that_fails_in_the_last_norm_was_not(example):
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:5])

    def failing(name, value):
        if name == "ln_final.hook_normalized":
            raise RuntimeError(name)
        return value

    with pytest.raises(RuntimeError):
        EXACT.forward([TEXT[5:8]], [cache], hook=failing)
    assert cache.seen == 5
    assert_same_bits(feed(EXACT, cache, np.array(TEXT[5:])), FULL[5:])
