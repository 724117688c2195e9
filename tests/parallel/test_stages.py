"""Layers on several ranks: the bits of one process, in any arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.arrays import to_numpy
from minikv.caches import make_cache
from minikv.errors import InputError
from minikv.parallel import Comm, run_threads
from minikv.parallel.stages import make_stage

CONFIG = minikv.tiny_config(num_hidden_layers=4)
TENSORS = minikv.random_tensors(CONFIG, 5)
CALLS = ([[1, 2, 3], [4]], [[5], [6, 7]], [[8], [9]])


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_stages_decode_a_ragged_batch_with_the_bits_of_one_process(arithmetic, size):
    model = minikv.random_model(CONFIG, 5, arithmetic)
    caches = [model.new_cache(), model.new_cache()]
    expected = [to_numpy(model.forward(new, caches)) for new in CALLS]

    def work(comm: Comm) -> list[np.ndarray]:
        stage = make_stage(CONFIG, TENSORS, comm, arithmetic)
        caches = [make_cache("full", stage.weights) for _ in range(2)]
        return [to_numpy(stage.forward(new, caches)) for new in CALLS]

    for rank in run_threads(size, work):
        for got, wanted in zip(rank, expected, strict=True):
            assert_same_bits(got, wanted)


@pytest.mark.parametrize("policy", ["none", "window"])
def test_stages_decode_with_a_cache_that_runs_all_again_or_drops_tokens(policy):
    parameters = {"budget": 2} if policy == "window" else {}
    model = minikv.random_model(CONFIG, 5, "exact")
    caches = [model.new_cache(policy, **parameters) for _ in range(2)]
    expected = [to_numpy(model.forward(new, caches)) for new in CALLS]

    def work(comm: Comm) -> list[np.ndarray]:
        stage = make_stage(CONFIG, TENSORS, comm)
        caches = [make_cache(policy, stage.weights, **parameters) for _ in range(2)]
        logits = [to_numpy(stage.forward(new, caches)) for new in CALLS]
        assert [cache.seen for cache in caches] == [5, 4]
        return logits

    for rank in run_threads(3, work):
        for got, wanted in zip(rank, expected, strict=True):
            assert_same_bits(got, wanted)


def test_a_stage_has_the_weights_and_the_cache_of_its_own_layers_alone():
    def work(comm: Comm) -> tuple[list[int], list[int]]:
        stage = make_stage(CONFIG, TENSORS, comm)
        cache = make_cache("full", stage.weights)
        stage.forward([[1, 2]], [cache])
        layers = [layer.index for layer in stage.weights.layers if layer.q_proj is not None]
        return layers, [index for index, k in enumerate(cache._k) if k.size]

    assert run_threads(2, work) == [([0, 1], [0, 1]), ([2, 3], [2, 3])]


def test_a_layer_left_out_gives_other_logits():
    """The control."""

    def work(comm: Comm) -> np.ndarray:
        stage = make_stage(CONFIG, TENSORS, comm)
        short = range(stage.mine.start, stage.mine.stop - comm.rank)
        return to_numpy(type(stage)(stage.weights, short, comm).forward([[1, 2]]))

    whole = to_numpy(minikv.random_model(CONFIG, 5, "exact").forward([[1, 2]]))
    assert not np.array_equal(run_threads(2, work)[0], whole)


def test_more_stages_than_layers_are_refused():
    with pytest.raises(InputError, match="5 stages for 4 layers"):
        run_threads(5, lambda comm: make_stage(CONFIG, TENSORS, comm))
