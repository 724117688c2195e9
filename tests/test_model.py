"""A model made from tensors: what is refused, what is rounded, what is shown."""

from __future__ import annotations

import pickle
from collections import UserDict

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.arithmetic import get_arithmetic
from minikv.arrays import to_numpy
from minikv.errors import ArithmeticRangeError, CacheError, InputError, WeightsError

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
FLOAT64 = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="float64")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def test_wrong_models_are_named():
    config = minikv.tiny_config()
    tensors = minikv.random_tensors(config, 0)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(WeightsError, match=r"model.layers.1.mlp.up_proj.weight is missing"):
        minikv.build(config, tensors)
    with pytest.raises(InputError, match="seed is -1, expected a whole number from 0 up"):
        minikv.random_model(config, -1)
    with pytest.raises(InputError, match="arithmetic 'float8' is unknown; choose one of 'float32'"):
        get_arithmetic("float8")
    tensors = minikv.random_tensors(config, 0)
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = np.nan
    with pytest.raises(ArithmeticRangeError, match=r"mlp.up_proj holds nan"):
        minikv.build(config, tensors, "exact")


@pytest.mark.parametrize("seed", [None, 1.5, "a", True, -1])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match="seed is"):
        minikv.random_model(EXACT.config, seed)


def test_no_tensor_of_a_checkpoint_is_made_to_learn_that_it_is_there():
    made = []

    class Checkpoint(UserDict):
        def __getitem__(self, name):
            made.append(name)
            return super().__getitem__(name)

        def __contains__(self, name):
            return self[name] is not None

    tensors = Checkpoint(minikv.random_tensors(EXACT.config, 1))
    made.clear()
    minikv.build(EXACT.config, tensors, "exact")
    embedding = "model.embed_tokens.weight"  # tied: it is the output matrix too
    assert sorted(made) == sorted([*tensors, embedding])


def test_a_cache_takes_no_parameters_of_a_policy():
    with pytest.raises(CacheError, match="is unknown"):
        EXACT.new_cache(EXACT.new_cache(), budget=3)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_float64_tensors_are_rounded_to_float32_before_any_backend_rounds_them(backend):
    """Else 0.5 and a little more of a grid step would be rounded once here and twice there."""
    if backend != "numpy":
        pytest.importorskip(backend)
    config = minikv.tiny_config()
    tensors = {
        name: value.astype(np.float64) for name, value in minikv.random_tensors(config, 0).items()
    }
    tensors["model.embed_tokens.weight"][5, :2] = 1.0, 2.0**-21 + 2.0**-46
    rounded = {name: value.astype(np.float32) for name, value in tensors.items()}
    one, other = (
        to_numpy(minikv.Model(minikv.build(config, stored, "exact", backend)).logits(range(60)))
        for stored in (tensors, rounded)
    )
    assert_same_bits(one, other)


def test_what_is_shown_of_a_model_fits_in_a_line():
    cache = EXACT.new_cache("residual", budget=3)
    EXACT.forward([TEXT], [cache])
    assert repr(cache) == "<Residual: 24 tokens seen, 3 kept as K and V>"
    assert repr(EXACT) == "<Model: made here, llama, 2 layers, 11,664 parameters, exact>"
    for shown in (EXACT.weights, EXACT.layers[0]):
        assert len(repr(shown)) < 80
    assert len({EXACT, FLOAT64, EXACT}) == 2  # and it can be a key


def test_a_model_cannot_be_pickled():
    """As the manual says: a process loads its own."""
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(minikv.random_model(minikv.tiny_config()))
