"""What a state holds, when it is made, loaded or cut off."""

from __future__ import annotations

import numpy as np
import pytest

import minikv
from minikv.caches import residual
from minikv.config import SLIDING
from minikv.errors import CacheError

EXACT = minikv.random_model(minikv.tiny_config(num_hidden_layers=3), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def failing_at(activation: str):
    def hook(name, value):
        if name == activation:
            raise RuntimeError(name)
        return value

    return hook


@pytest.mark.parametrize("name", ["h2o", "tova"])
def test_truncation_keeps_scores(name):
    cache = EXACT.new_cache(name, budget=8)
    EXACT.forward([TEXT[:12]], [cache])
    before = cache.state()[0]["scores.0"]
    cache.truncate(10)
    after = cache.state()[0]["scores.0"]
    assert 0 < len(after) < len(before)
    assert (after == before[: len(after)]).all()


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
