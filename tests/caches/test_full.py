"""Full: every K and V, in buffers that grow."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits
from feeding import EXACT, FULL, KV_BYTES, TEXT, feed, random_model

from minikv.caches.full import FIRST_CAPACITY


def test_bytes_are_those_of_every_token():
    cache = EXACT.new_cache()
    for seen in range(1, 20):
        EXACT.forward([[seen]], [cache])
        assert (cache.seen, cache.stored, cache.nbytes) == (seen, seen, seen * KV_BYTES)


def test_growing_loses_nothing():
    assert len(TEXT) > FIRST_CAPACITY
    assert_same_bits(feed(EXACT, EXACT.new_cache(), TEXT, *[1] * 23), FULL)


@pytest.mark.parametrize("held", [15, 16, 17, 31, 32, 33, 63, 64, 65])
def test_a_buffer_that_doubles_or_just_does_not_loses_nothing(held):
    """Also one that is exactly as long as what a fork or a file has in it."""
    text = [*TEXT, *TEXT[::-1], *TEXT]
    expected = EXACT.logits(text[: held + 4])[held:]
    grown = EXACT.new_cache()
    feed(EXACT, grown, text[:held])
    loaded = EXACT.new_cache()
    loaded.load_state(*grown.state())
    for cache in (grown.fork(), loaded, grown):
        assert_same_bits(feed(EXACT, cache, text[held : held + 4], 1, 1), expected)
        cache.truncate(held - 1)
        assert_same_bits(feed(EXACT, cache, text[held - 1 : held + 4], 2)[1:], expected)


def test_a_buffer_holds_16_tokens_at_first_and_then_twice_as_many():
    """So that a text of n tokens, fed one by one, is copied less than once over."""
    model = random_model(0, num_hidden_layers=1)
    cache = model.new_cache()
    capacities = []
    for token in range(66):
        model.forward([[token]], [cache], logits="none")
        capacities.append(cache._k[0].shape[1])
    assert capacities == [16] * 16 + [32] * 16 + [64] * 32 + [128] * 2


def test_what_one_head_reads_lies_together_also_after_a_fork_and_a_load():
    cache = EXACT.new_cache()
    feed(EXACT, cache, TEXT[:10])
    loaded = EXACT.new_cache()
    loaded.load_state(*cache.state())
    twin = cache.fork()
    for buffers in (cache._k, cache._v, twin._k, twin._v, loaded._k, loaded._v):
        assert all(buffer.flags.c_contiguous for buffer in buffers)
        assert {buffer.shape[0] for buffer in buffers} == {EXACT.config.num_key_value_heads}


def test_what_attention_reads_is_a_view_of_the_buffer():
    cache = EXACT.new_cache()
    feed(EXACT, cache, TEXT[:3])
    layer = EXACT.layers[0]
    rows = np.ones((2, 2, 6), np.float32)
    positions, keys, values = cache.update(layer, np.arange(3, 5), np.ones((2, 24)), rows, rows)
    assert positions.tolist() == [0, 1, 2, 3, 4]
    assert np.shares_memory(keys, cache._k[0])
    assert np.shares_memory(values, cache._v[0])


def test_a_fork_of_a_single_key_head_is_a_copy():
    """With one head, rows of the cache lie side by side, and a view of them would pass as well."""
    model = random_model(0, num_key_value_heads=1)
    cache = model.new_cache()
    feed(model, cache, TEXT[:10])
    twin = cache.fork()
    twin.truncate(3)
    feed(model, twin, TEXT[15:18])
    assert_same_bits(feed(model, cache, TEXT[10:12]), model.logits(TEXT[:12])[10:])
