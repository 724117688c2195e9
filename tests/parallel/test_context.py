"""Keys of one text on several ranks: the bits of one process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bits import assert_same_bits, same_bits

from minikv.arithmetic import NumpyExact
from minikv.backends import get_backend
from minikv.build import build, random_tensors
from minikv.errors import InputError
from minikv.layers import no_hook
from minikv.model import Model
from minikv.parallel import Comm, run_threads
from minikv.parallel.context import ContextExact, Dealt, over_context
from minikv.verify import random_case
from minikv.verify.cases import Case


def decoded(case: Case, comm: Comm, backend: str = "numpy") -> list[np.ndarray]:
    """Logits of two texts, in one ragged batch, call by call, with keys dealt to the ranks."""
    sums = over_context(get_backend(backend, "exact", case.config.max_position_embeddings), comm)
    tensors = random_tensors(case.config, case.seed, case.scale)
    model = Model(build(case.config, tensors, sums))
    caches = [Dealt(model.weights, comm), Dealt(model.weights, comm)]
    return in_calls(case, model, caches)


def in_calls(case: Case, model: Model, caches: list) -> list[np.ndarray]:
    found = []
    start = 0
    for count in case.chunks:
        new = [case.ids[start : start + count], case.other[start : start + count]]
        found.append(model.forward(new, caches, "all"))
        start += count
    return found


@pytest.mark.parametrize("seed", range(12))
def test_dealt_keys_give_the_bits_of_one_process(seed):
    case = random_case(seed)
    expected = in_calls(case, case.model, [case.model.new_cache(), case.model.new_cache()])
    for rank in run_threads(2 + seed % 3, lambda comm: decoded(case, comm), seed):
        for got, wanted in zip(rank, expected, strict=True):
            assert_same_bits(got, wanted)


def test_an_interrupted_call_has_not_been():
    """Some layers hold its keys already; then the text goes on otherwise."""
    case = random_case(3)
    ids = (case.ids * 3)[:6]
    expected = case.model.logits(ids)

    def work(comm: Comm) -> np.ndarray:
        sums = over_context(NumpyExact(case.config.max_position_embeddings), comm)
        weights = build(case.config, random_tensors(case.config, case.seed, case.scale), sums)
        model = Model(weights)
        cache = Dealt(weights, comm)
        model.forward([ids[:2]], [cache], "none")
        stopped = replace(weights, layers=weights.layers[:1])  # as if the second were not reached
        interrupted(stopped, cache, [ids[5], ids[4]])
        return model.forward([ids[2:]], [cache], "all")

    for got in run_threads(2, work):
        assert_same_bits(got, expected[2:])


def interrupted(weights, cache: Dealt, ids: list[int]) -> None:
    """A call that updates the memory of some layers, and never advances it."""
    rows, positions = cache.begin(np.array(ids))
    shape = (len(rows), weights.config.num_key_value_heads, weights.config.head_dim)
    for layer in weights.layers:
        cache.update(layer, positions, None, np.ones(shape, np.float32), np.ones(shape, np.float32))


@pytest.mark.backends
def test_numba_has_them_too():
    pytest.importorskip("numba", reason="needs numba, not installed here")
    case = random_case(3)
    expected = in_calls(case, case.model, [case.model.new_cache(), case.model.new_cache()])
    for got, wanted in zip(
        run_threads(2, lambda comm: decoded(case, comm, "numba"))[1], expected, strict=True
    ):
        assert_same_bits(got, wanted)


def test_parts_weighed_on_grids_of_their_own_give_other_bits(monkeypatch):
    """The control: each rank finds the grid of its own keys, and rounds its part to float32."""

    def weighed(sums: ContextExact, pattern: np.ndarray, v: np.ndarray) -> np.ndarray:
        tokens = pattern.shape[1]
        own = np.zeros((tokens, pattern.shape[0], v.shape[2]), np.float32)
        if v.shape[0]:
            own = sums.whole.weighted_sum(pattern, v)
        return sums.comm.sum(own)

    monkeypatch.setattr(ContextExact, "weighed", weighed)
    case = random_case(3)
    expected = in_calls(case, case.model, [case.model.new_cache(), case.model.new_cache()])
    found = run_threads(2, lambda comm: decoded(case, comm))[0]
    assert not all(same_bits(got, wanted) for got, wanted in zip(found, expected, strict=True))


def test_each_rank_holds_its_share_of_the_tokens():
    case = replace(random_case(3), chunks=(len(random_case(3).ids),))

    def work(comm: Comm) -> int:
        cache = Dealt(case.model.weights, comm)
        _, positions = cache.begin(np.array(case.ids))
        config = case.config
        rows = np.zeros((len(positions), config.num_key_value_heads, config.head_dim), np.float32)
        for layer in case.model.layers:
            cache.update(layer, positions, None, rows, rows)
        return cache.nbytes

    whole = len(case.ids) * case.config.kv_bytes_per_token()
    assert sum(run_threads(3, work)) == whole


def test_what_looks_at_all_weights_or_is_no_exact_numpy_is_refused():
    case = random_case(3)

    def work(comm: Comm) -> None:
        sums = over_context(NumpyExact(64), comm)
        assert isinstance(sums, ContextExact)
        weights = build(case.config, random_tensors(case.config, 1), sums)
        hook = lambda name, value: value  # noqa: E731
        assert hook is not no_hook
        Model(weights).forward([case.ids], [Dealt(weights, comm)], "all", hook)

    with pytest.raises(InputError, match="see one rank's keys alone"):
        run_threads(2, work)
    with pytest.raises(InputError, match="under arithmetic 'exact', on numpy or numba"):
        over_context(get_backend("numpy", "float32"), None)
