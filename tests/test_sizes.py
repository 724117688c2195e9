"""More of everything than other tests have: layers, heads, sequences, tokens of a call."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.caches import Evicting, examples
from minikv.config import FAMILIES, SLIDING
from minikv.errors import ArithmeticRangeError, InputError

LAYERS = 12
DEEP = minikv.random_model(minikv.tiny_config(num_hidden_layers=LAYERS), 2, "exact")
WIDE = minikv.random_model(
    minikv.tiny_config(num_attention_heads=15, num_key_value_heads=3), 5, "exact", scale=3.0
)
TEXT = np.random.default_rng(4).integers(0, 97, 20).tolist()


def fed(model, cache, text, step=3):
    """Logits of a text that is fed a few tokens at a time."""
    calls = [text[start : start + step] for start in range(0, len(text), step)]
    return np.concatenate([model.forward([call], [cache], logits="all") for call in calls])


@pytest.mark.parametrize("model", [DEEP, WIDE], ids=["12 layers", "15 heads, 3 of K and V"])
@pytest.mark.parametrize("example", examples(budget=7), ids=str)
def test_a_cache_is_kept_forked_and_saved_in_all_layers_and_heads(model, example, tmp_path):
    """A lossless one has the bits of one pass; one that evicts holds its budget in each layer."""
    cache = example.new(model.weights)
    logits = fed(model, cache, TEXT)
    if isinstance(cache, Evicting):
        assert cache.grows or {len(rows) for rows in cache.rows} == {7}
    else:
        assert_same_bits(logits, model.logits(TEXT))
    cache.save(tmp_path / "cache")
    loaded = example.new(model.weights)
    loaded.load(tmp_path / "cache")
    expected = model.forward([[5, 6]], [cache.fork()], logits="all")
    assert_same_bits(model.forward([[5, 6]], [loaded], logits="all"), expected)
    assert_same_bits(model.forward([[5, 6]], [cache], logits="all"), expected)


def test_each_of_twelve_layers_has_its_name():
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(LAYERS)]
    streams = DEEP.run_with_cache(TEXT)[1]
    assert [name for name in streams if name.endswith("resid_pre")] == names
    for layer, name in enumerate(names):
        infinite = {name: lambda value, _: value * np.inf}
        with np.errstate(all="ignore"), pytest.raises(ArithmeticRangeError) as caught:
            DEEP.run_with_hooks(TEXT, infinite)
        assert str(caught.value).startswith(f"blocks.{layer}: ")


def test_a_batch_of_70_sequences_is_its_sequences_one_by_one():
    texts = [[number, *TEXT[: number % 3]] for number in range(70)]
    caches = [WIDE.new_cache() for _ in texts]
    alone = np.concatenate([WIDE.forward([text]) for text in texts])
    assert_same_bits(WIDE.forward(texts, caches), alone)
    assert [cache.seen for cache in caches] == [len(text) for text in texts]


@pytest.mark.parametrize("policy", ["full", "none", "residual"])
def test_a_vocabulary_of_70000_tokens_is_remembered_whole(policy):
    """Where token ids are kept, they take more than 16 bits."""
    config = minikv.tiny_config(vocab_size=70_000, num_hidden_layers=1)
    model = minikv.random_model(config, 1, "exact")
    text = [69_999, 65_536, 65_535, 4_463, 0]  # 4,463 is 69,999 less 2**16
    parameters = {"budget": 0, "checkpoints": "tokens"} if policy == "residual" else {}
    cache = model.new_cache(policy, **parameters)
    model.forward([text[:4]], [cache], logits="none")
    again = model.new_cache(policy, **parameters)
    again.load_state(*cache.state())
    expected = model.forward([text])
    assert_same_bits(model.forward([text[4:]], [cache]), expected)
    assert_same_bits(model.forward([text[4:]], [again]), expected)


def test_recomputing_takes_the_memory_of_one_layer_however_many_there_are():
    """K and V of the whole text are made, read and dropped layer by layer."""
    peaks = {}
    text = np.random.default_rng(5).integers(0, 97, 120)
    for layers in (2, 12):
        config = minikv.tiny_config(num_hidden_layers=layers)
        model = minikv.random_model(config, 2, "exact")
        cache = model.new_cache("residual", budget=0)
        model.forward([text], [cache], logits="none")
        model.forward([[5]], [cache])  # what is made once is made
        tracemalloc.start()
        model.forward([[6]], [cache])
        peaks[layers] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    of_a_layer = len(text) * config.kv_bytes_per_token() // layers
    # keeping those of ten more layers would take ten; small objects of each take less than half
    assert of_a_layer < peaks[12] < peaks[2] + 5 * of_a_layer


@pytest.mark.parametrize("policy", ["full", "h2o", "tova"])
def test_a_window_ends_where_it_does_for_whoever_looks(policy):
    """One token at a time, past the window: a hook and a policy that watches see all keys."""
    config = minikv.tiny_config(
        model_type="mistral", num_hidden_layers=2, sliding_window=5, layer_types=(SLIDING, SLIDING)
    )
    model = minikv.random_model(config, 3, "exact", scale=3.0)
    parameters = {} if policy == "full" else {"budget": 20}  # nothing goes

    def looking(name, value):
        return value

    for hook in ({}, {"hook": looking}):
        cache = model.new_cache(policy, **parameters)
        alone = [model.forward([[token]], [cache], **hook) for token in TEXT]
        assert_same_bits(np.concatenate(alone), model.logits(TEXT))


def test_15_heads_are_cut_and_merged_in_their_order():
    rows = np.random.default_rng(0).normal(size=(4, 90)).astype(np.float32)
    for layer in WIDE.layers:
        heads = layer.heads(rows)
        assert_same_bits(heads[:, 14], rows[:, 84:])
        assert_same_bits(layer.merged(heads), rows)


def test_each_of_three_caches_is_of_this_model_and_given_once():
    ours = [DEEP.new_cache() for _ in range(3)]
    for place in range(3):
        caches = list(ours)
        caches[place] = WIDE.new_cache()
        with pytest.raises(InputError, match="not of this model"):
            DEEP.forward([[1], [2], [3]], caches)
        caches[place] = caches[place - 1]
        with pytest.raises(InputError, match="one cache is given for two"):
            DEEP.forward([[1], [2], [3]], caches)
    assert [cache.seen for cache in ours] == [0, 0, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [None, 50])
def test_a_call_of_1100_tokens_is_its_parts_in_every_family(family, window):
    """35 blocks of queries; the parts are of any size, and begin anywhere in a block."""
    config = minikv.tiny_config(
        model_type=family, num_hidden_layers=1, max_position_embeddings=1100
    )
    if window:
        config = dataclasses.replace(config, sliding_window=window, layer_types=(SLIDING,))
    model = minikv.random_model(config, 3, "exact", scale=3.0)
    assert 32 * model.arithmetic.query_block < 1100
    text = np.random.default_rng(1).integers(0, 97, 1100)
    cache = model.new_cache()
    parts = np.split(text, [1, 32, 65, 565])
    logits = [model.forward([part], [cache], logits="all") for part in parts]
    assert_same_bits(np.concatenate(logits), model.logits(text))
