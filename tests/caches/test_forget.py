"""Residual(forget=True): through sliding windows, what nothing can read any more is dropped."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.caches import Residual
from minikv.config import FULL, SLIDING
from minikv.errors import CacheError

TYPES = {"all slide": (SLIDING,) * 4, "one sees all": (SLIDING, FULL, SLIDING, SLIDING)}
MODELS = {
    name: minikv.random_model(
        minikv.tiny_config(
            model_type=family, num_hidden_layers=4, layer_types=types, sliding_window=3
        ),
        5,
        "exact",
    )
    for family, (name, types) in zip(("mistral", "gemma3_text"), TYPES.items(), strict=True)
}
TEXT = np.random.default_rng(0).integers(0, 97, 60).tolist()


def forgetting(model: minikv.Model, **parameters) -> Residual:
    """An empty cache that forgets, in chunks that short texts fill several of."""
    return model.new_cache("residual", **({"forget": True, "chunk": 4} | parameters))


def decoded(model: minikv.Model, cache, calls) -> np.ndarray:
    rows = []
    start = cache.seen
    for count in calls:
        rows.append(model.forward([TEXT[start : start + count]], [cache], "all"))
        start += count
    return np.concatenate(rows)


def expected(model: minikv.Model, length: int) -> np.ndarray:
    return model.logits(TEXT[:length])


@given(
    name=st.sampled_from(sorted(MODELS)),
    budget=st.integers(0, 20),
    checkpoints=st.sampled_from(["embedding", "tokens", "every", 2, (0, 2), (0, 3)]),
    calls=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_every_bit_is_the_full_cache_s(name, budget, checkpoints, calls):
    model = MODELS[name]
    cache = forgetting(model, budget=budget, checkpoints=checkpoints)
    assert_same_bits(decoded(model, cache, calls), expected(model, sum(calls)))


@pytest.mark.slow
def test_each_checkpoint_keeps_its_reach_and_less_than_a_chunk_more():
    for model in MODELS.values():
        for checkpoints in ("embedding", "every", 2):
            cache = forgetting(model, budget=2, checkpoints=checkpoints)
            whole = forgetting(model, budget=2, checkpoints=checkpoints, forget=False)
            ends = (*cache.layers_kept[1:], 4)
            for _ in TEXT[:32]:
                decoded(model, cache, [1])
                decoded(model, whole, [1])
                tensors = cache.state()[0]
                rows = 0
                for layer, end in zip(cache.layers_kept, ends, strict=True):
                    held = len(tensors[f"checkpoint.{layer}"])
                    rows += held
                    reach = model.config.reach(layer, end)
                    if reach is None:
                        assert held == cache.seen
                    else:
                        assert min(reach, cache.seen) <= held < reach + 4
                bytes_a_row = model.config.residual_bytes_per_token()
                dropped = len(cache.layers_kept) * cache.seen - rows
                assert cache.nbytes == whole.nbytes - dropped * bytes_a_row


def test_memory_that_nobody_wrote_weighs_nothing():
    """Replay begins with rows that nobody reads, and theirs see K and V of what is forgotten."""

    class Dirty(Residual):
        def _empty(self, *shape):
            return np.full_like(super()._empty(*shape), np.nan)

    model = MODELS["all slide"]
    cache = Dirty(model.weights, budget=2, checkpoints="embedding", forget=True, chunk=4)
    assert_same_bits(decoded(model, cache, [30, 1, 1, 8]), expected(model, 40))


def test_truncation_is_right_at_every_length_or_refused():
    refused = 0
    for layers, window in ((1, 1), (1, 3), (2, 3)):
        types = (SLIDING,) * layers
        config = minikv.tiny_config(
            model_type="mistral", num_hidden_layers=layers, sliding_window=window, layer_types=types
        )
        model = minikv.random_model(config, 0, "exact")
        logits = expected(model, 30)
        for seen in range(8, 24, 3):
            for length in range(seen + 1):
                cache = forgetting(model, budget=0)
                decoded(model, cache, [seen])
                try:
                    cache.truncate(length)
                except CacheError:
                    refused += 1
                else:
                    assert_same_bits(decoded(model, cache, [3]), logits[length : length + 3])
    assert refused


def test_what_is_all_seen_is_never_forgotten():
    model = MODELS["one sees all"]
    cache = forgetting(model, budget=2, checkpoints="embedding")
    decoded(model, cache, [40])
    assert len(cache.state()[0]["checkpoint.0"]) == 40


@pytest.mark.parametrize("name", sorted(MODELS))
def test_one_window_less_is_too_little(name):
    class Greedy(Residual):
        """Keeps no row of a checkpoint that need not hold all."""

        def rows_needed(self):
            return dict.fromkeys(super().rows_needed(), 0)

    model = MODELS[name]
    cache = Greedy(model.weights, budget=0, checkpoints="every", forget=True, chunk=4)
    assert not same_bits(decoded(model, cache, [7, 1, 1, 8]), expected(model, 17))


def test_a_saved_cache_goes_on_and_going_back_too_far_is_refused(tmp_path):
    model = MODELS["all slide"]
    cache = forgetting(model, budget=3, checkpoints=2)
    decoded(model, cache, [30])
    cache.save(tmp_path / "cache.safetensors")
    loaded = forgetting(model, budget=3, checkpoints=2)
    loaded.load(tmp_path / "cache.safetensors")
    for some in (loaded, cache.fork()):
        assert some.nbytes == cache.nbytes
        assert_same_bits(decoded(model, some, [1, 5]), expected(model, 36)[30:])
    cache.truncate(29)
    assert_same_bits(decoded(model, cache, [3]), expected(model, 32)[29:])
    with pytest.raises(CacheError, match="forget=False"):
        cache.truncate(20)
    assert_same_bits(decoded(model, cache, [4]), expected(model, 36)[32:])
