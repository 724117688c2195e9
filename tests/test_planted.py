"""Faults that were once planted and that no other test noticed: each is noticed by one of these."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from test_exact import ARITHMETIC, close_call

import minikv
from minikv.arithmetic import Exact
from minikv.caches import Scheduled, residual
from minikv.config import SLIDING
from minikv.decoder import embed
from minikv.errors import ArithmeticRangeError, CacheError, ConfigError, InputError
from minikv.generation import sampler
from minikv.layers import attention
from minikv.projection import kv_from_residual

EXACT = minikv.random_model(minikv.tiny_config(num_hidden_layers=3), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def same(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def failing_at(activation: str):
    def hook(name, value):
        if name == activation:
            raise RuntimeError(name)
        return value

    return hook


# Attention and sums


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
        assert same(both[:, heads], alone)


def test_a_row_in_doubt_beside_one_that_is_not_gets_its_grid():
    row, grids = close_call(), set()
    for x in (row, row[::-1]):
        sums = np.array([[np.add.accumulate(x)[-1]], [float(len(x))]])
        grids.add(float(ARITHMETIC._grid(np.stack([x, np.ones_like(x)]), sums, 32)[0, 0]))
    assert len(grids) == 1


def test_overflow_of_any_row_of_a_long_matrix_is_named():
    matrix = np.ones((300, 4), np.float32)
    matrix[0] = 1e30
    weight = ARITHMETIC.weight(matrix, "w")
    with pytest.raises(ArithmeticRangeError, match="overflows"):
        ARITHMETIC.linear(np.full((1, 4), 1e20, np.float32), weight)


def test_kl_divergence_does_not_follow_the_layout():
    logits = np.random.default_rng(0).normal(size=(20, 97)).astype(np.float32)
    assert (minikv.kl_divergence(np.asfortranarray(logits), logits) == 0).all()


def test_top_p_that_is_reached_exactly_takes_no_token_more():
    choose = sampler(1.0, None, 0.5, 0)
    assert {choose(np.zeros(4)) for _ in range(300)} == {0, 1}


# Caches


@pytest.mark.parametrize("name", ["full", "none", "residual"])
def test_a_call_that_fails_in_the_last_norm_was_not(name):
    cache = EXACT.new_cache(name)
    EXACT.forward([TEXT[:5]], [cache])
    with pytest.raises(RuntimeError):
        EXACT.forward([TEXT[5:8]], [cache], hook=failing_at("ln_final.hook_normalized"))
    assert cache.seen == 5


def test_a_schedule_is_asked_step_by_step_also_after_saving():
    asked = []

    def schedule(step: int, layer: int, at: int) -> str:
        asked.append(step)
        return ("kv", "residual", "both")[(step + layer + at) % 3]

    cache = Scheduled(EXACT.weights, schedule)
    for step, part in enumerate((TEXT[:5], TEXT[5:6], TEXT[6:9])):
        if step == 2:
            saved, cache = cache, Scheduled(EXACT.weights, schedule)
            cache.load_state(*saved.state())
        asked.clear()
        EXACT.forward([part], [cache])
        assert set(asked) == {step}


@pytest.mark.parametrize(
    ("steps", "kv", "rows"),
    [
        (["residual"], False, True),
        (["kv"], True, False),
        (["residual", "both"], True, True),
    ],
)
def test_a_schedule_is_obeyed(steps, kv, rows):
    """Else T4, whose answers are the same whatever is kept, would test nothing."""
    cache = Scheduled(EXACT.weights, lambda step, layer, at: steps[step])
    for step in range(len(steps)):
        EXACT.forward([TEXT[5 * step : 5 * step + 5]], [cache])
    state = cache.state()[0]
    for names, there in ((("k.1", "v.1"), kv), (("residual.1",), rows)):
        for name in names:
            assert np.isnan(state[name]).all() != there
    assert (state["has_kv.1"] == kv).all()
    assert (state["has_residual.1"] == rows).all()


@pytest.mark.parametrize("name", ["h2o", "tova"])
def test_truncation_keeps_scores(name):
    cache = EXACT.new_cache(name, budget=8)
    EXACT.forward([TEXT[:12]], [cache])
    before = cache.state()[0]["scores.0"]
    cache.truncate(10)
    after = cache.state()[0]["scores.0"]
    assert 0 < len(after) < len(before)
    assert (after == before[: len(after)]).all()


def test_truncation_keeps_where_keys_were_made():
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=2)
    EXACT.forward([TEXT[:10]], [cache])
    cache.truncate(9)
    assert cache.state()[0]["scores.0"][:, 0].tolist() == [0, 1, 6, 7, 8]


def test_streaming_llm_keeps_keys_as_they_were_made():
    """However many steps they have moved: turned again and again they would pile up rounding."""
    cache = EXACT.new_cache("streaming_llm", budget=6, sinks=1)
    for part in (TEXT[:6], *([token] for token in TEXT[6:])):
        EXACT.forward([part], [cache])
    state = cache.state()[0]
    at, made = state["positions.0"][:, 0], state["scores.0"][:, 0].astype(int)
    assert (made <= 6).all()
    assert (made != np.arange(6)).any()
    rows = embed(EXACT.weights, np.array(TEXT)[at])
    assert same(kv_from_residual(rows, made, EXACT.layers[0])[0], state["k.0"])


def test_keys_that_streaming_llm_has_turned_lie_on_a_grid():
    cache, attended = EXACT.new_cache("streaming_llm", budget=6, sinks=2), []
    update = cache.update

    def spy(layer, *given):
        out = update(layer, *given)
        attended.append(out[1])
        return out

    cache.update = spy
    for part in (TEXT[:10], TEXT[10:11], TEXT[11:12]):
        EXACT.forward([part], [cache])
    assert len(attended) == 3 * EXACT.config.num_hidden_layers
    for keys in attended:
        assert same(ARITHMETIC.settle(keys), keys)


def test_a_state_of_a_single_key_head_is_a_copy():
    model = minikv.random_model(minikv.tiny_config(num_key_value_heads=1), 0, "exact")
    cache = model.new_cache()
    model.forward([TEXT[:10]], [cache])
    tensors = cache.state()[0]
    before = {name: tensor.copy() for name, tensor in tensors.items()}
    cache.truncate(3)
    model.forward([TEXT[15:18]], [cache])
    assert all((tensors[name] == before[name]).all() for name in tensors)


@pytest.mark.parametrize("name", ["2.mlp.up_proj", "1.self_attn.o_proj"])
def test_a_state_of_a_model_that_differs_in_a_later_layer_is_refused(name):
    tensors = minikv.random_tensors(EXACT.config, 1)
    tensors[f"model.layers.{name}.weight"] *= -1
    other = minikv.Model(minikv.build(EXACT.config, tensors, "exact"))
    with pytest.raises(CacheError, match="saved cache has model"):
        EXACT.new_cache().load_state(*other.new_cache().state())


def test_a_state_loaded_into_an_interrupted_residual_cache_is_whole():
    good, broken = (EXACT.new_cache("residual", budget=4) for _ in range(2))
    EXACT.forward([TEXT[:9]], [good])
    EXACT.forward([TEXT[:5]], [broken])
    with pytest.raises(RuntimeError):
        EXACT.forward([TEXT[:3]], [broken], hook=failing_at("blocks.1.hook_resid_mid"))
    broken.load_state(*good.state())
    assert (broken.stored, broken.nbytes) == (good.stored, good.nbytes)


def test_truncation_to_the_least_length_is_allowed(monkeypatch):
    monkeypatch.setattr(residual, "_CHUNK", 4)
    config = minikv.tiny_config(
        model_type="mistral", num_hidden_layers=1, sliding_window=3, layer_types=(SLIDING,)
    )
    model = minikv.random_model(config, 0, "exact")
    cache = model.new_cache("residual", budget=0, forget=True)
    model.forward([TEXT[:15]], [cache])
    assert cache._rows[0].first == 12
    cache.truncate(14)


# What is given


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
def test_a_pipe_is_neither_replaced_nor_waited_for(tmp_path):
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    cache = EXACT.new_cache()
    with pytest.raises(CacheError, match="no plain file"):
        cache.save(pipe)
    with pytest.raises(CacheError, match="there is no such file"):
        cache.load(pipe)
    with pytest.raises(ConfigError, match="no plain file"):
        minikv.ModelConfig.from_file(pipe)
    assert pipe.is_fifo()


def test_a_cache_of_another_model_is_refused_before_the_first_token():
    other = minikv.random_model(EXACT.config, 2, "exact")
    with pytest.raises(InputError, match="a cache is not of this model"):
        EXACT.generate([1], 3, cache=other.new_cache())


def test_a_cache_takes_no_parameters_of_a_policy():
    with pytest.raises(CacheError, match="is unknown"):
        EXACT.new_cache(EXACT.new_cache(), budget=3)


@pytest.mark.parametrize("seed", [None, 1.5, "a", True, -1])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match="seed is"):
        minikv.random_model(EXACT.config, seed)


def test_numpys_whole_numbers_are_numbers_of_a_configuration():
    config = replace(EXACT.config, num_hidden_layers=np.int64(2))
    assert type(config.num_hidden_layers) is int


def test_no_tensor_of_a_checkpoint_is_made_to_learn_that_it_is_there():
    class Counted(dict):
        made = 0

        def __getitem__(self, name):
            self.made += 1
            return super().__getitem__(name)

        def __contains__(self, name):
            self[name]
            return True

    tensors = Counted(minikv.random_tensors(EXACT.config, 1))
    minikv.build(EXACT.config, tensors, "exact")
    assert tensors.made == len(tensors) + 1  # the embedding, tied, for its output matrix once more
