"""A model split over ranks that are threads: its bits, what each rank holds, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits, same_bits

import minikv
from minikv.arithmetic import Float32, NumpyExact
from minikv.arrays import to_numpy
from minikv.build import random_tensors
from minikv.caches.saving import read_state
from minikv.config import ModelConfig
from minikv.errors import ArithmeticRangeError, CacheError, InputError, RankError, WeightsError
from minikv.fingerprint import hash_logits
from minikv.parallel import Comm, even_shares, load_rank, run_threads, split_model, split_sums
from minikv.parallel.cost import said_per_token
from minikv.parallel.share import Share, pieces
from minikv.parallel.state import load_cache, save_cache
from minikv.weights import load_tensors

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "fingerprints.json").read_text(encoding="utf-8")
)["tiny"]


def fingerprints(
    tiny: Path, size: int, arithmetic: str = "exact", backend: str = "numpy", seed: int = 0
) -> set[str]:
    """What the ranks make of the golden text; `seed` is of the orders in which they reduce."""

    def work(comm: Comm) -> str:
        model = load_rank(tiny, comm, arithmetic, backend)
        return hash_logits(model.logits(GOLDEN["ids"]))

    return set(run_threads(size, work, seed))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_ranks_has_the_golden_fingerprint(tiny, size):
    assert fingerprints(tiny, size) == {GOLDEN["fingerprint"]}


def test_in_float32_ranks_and_orders_change_it(tiny):
    found = [fingerprints(tiny, size, "float32", seed=seed) for size in (3, 4) for seed in (0, 1)]
    assert len(set.union(*found)) > 2


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["numba", "array_api_strict", "torch"])
def test_every_backend_has_the_golden_fingerprint_on_two_ranks(tiny, backend):
    module = {"torch": "array_api_compat.torch"}.get(backend, backend)
    pytest.importorskip(module, reason=f"needs {backend}, not installed here")
    if backend == "torch":
        pytest.importorskip("torch", reason="needs torch, not installed here")
    assert fingerprints(tiny, 2, backend=backend) == {GOLDEN["fingerprint"]}


# Rows whose sum lies next to a power of two, where estimates disagree


def doubtful_rows(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Rows whose sum, times 1 + 2**-9, is as near to a power of two as float32 lets it come."""
    x = rng.standard_normal((count, width)) * 2.0 ** -rng.integers(0, 16, (count, width))
    x = x.astype(np.float32)  # 24 bits, from far apart: what a grid of 32 bits cuts off
    for row in x:
        total = np.abs(row.astype(np.float64)).sum()
        target = 2.0 ** np.ceil(np.log2(total)) / (1 + 2.0**-9)
        row *= np.float32(target / total)
        order = np.argsort(-np.abs(row))
        for place in (order[0], order[-1]):
            rest = np.abs(row.astype(np.float64)).sum() - abs(float(row[place]))
            row[place] = np.float32(max(target - rest, 0.0))
    return x


def split_product(
    x: np.ndarray, weight: np.ndarray, size: int, change: Callable[[object], None] | None = None
) -> list[np.ndarray]:
    """The product of rows and a matrix whose columns lie on ranks, as each rank has it."""

    def work(comm: Comm) -> np.ndarray:
        arithmetic = split_sums(NumpyExact(64), comm)
        mine = pieces(x.shape[1], size)[comm.rank]
        columns = slice(mine.start, mine.stop)
        part = arithmetic.columns(weight[:, columns], "w", x.shape[1])
        if change is not None:
            change(arithmetic)
        return arithmetic.linear(x[:, columns], part)

    return run_threads(size, work, seed=size)


@pytest.mark.parametrize("size", [2, 3])
def test_rows_in_doubt_have_one_grid_on_all_ranks(size):
    rng = np.random.default_rng(size)
    x = doubtful_rows(rng, 400, 30)
    weight = rng.standard_normal((3, 30)).astype(np.float32)
    alone = NumpyExact(64)
    expected = alone.linear(x, alone.weight(weight, "w"))
    for product in split_product(x, weight, size):
        assert_same_bits(product, expected)


def test_a_ranks_own_grid_gives_other_bits():
    """The control of the test above."""
    rng = np.random.default_rng(2)
    x = doubtful_rows(rng, 400, 30)
    weight = rng.standard_normal((3, 30)).astype(np.float32)
    alone = NumpyExact(64)
    expected = alone.linear(x, alone.weight(weight, "w"))

    def own_estimate(arithmetic) -> None:
        arithmetic.sum_of_all = lambda size, top: arithmetic.total(size)

    assert not same_bits(split_product(x, weight, 2, own_estimate)[0], expected)


def test_more_rows_than_a_block_are_summed_block_by_block(monkeypatch):
    monkeypatch.setattr("minikv.parallel.sums.MOST_ROWS", 3)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 5)).astype(np.float32)
    weight = rng.standard_normal((2, 5)).astype(np.float32)
    alone = NumpyExact(64)
    assert_same_bits(split_product(x, weight, 2)[1], alone.linear(x, alone.weight(weight, "w")))


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_what_one_rank_alone_holds_all_ranks_refuse(value, word):
    x = np.ones((2, 4), np.float32)
    x[0, 3] = value  # of the last rank
    refusals = []

    def work(comm: Comm) -> None:
        arithmetic = split_sums(NumpyExact(64), comm)
        mine = slice(2 * comm.rank, 2 * comm.rank + 2)
        part = arithmetic.columns(np.ones((1, 2), np.float32), "w", 4)
        try:
            arithmetic.linear(x[:, mine], part)
        except ArithmeticRangeError as error:
            refusals.append(str(error))

    run_threads(2, work)
    assert refusals == [f"input of w holds {word}, expected finite activations"] * 2


# What a rank has


def test_heads_are_cut_between_keys_while_there_are_keys_enough():
    config = minikv.tiny_config(num_attention_heads=9, num_key_value_heads=3)
    two = even_shares(config, 2)
    assert [list(share.heads) for share in two] == [[0, 1, 2], [3, 4, 5, 6, 7, 8]]
    assert [share.groups for share in two] == [(0,), (1, 2)]
    four = even_shares(config, 4)
    assert [list(share.heads) for share in four] == [[0, 1], [2, 3], [4, 5], [6, 7, 8]]
    assert [share.groups for share in four] == [(0,), (0, 1), (1,), (2,)]


def test_every_number_of_the_checkpoint_is_on_some_rank_and_split_ones_on_one():
    config = minikv.tiny_config(tie_word_embeddings=False)
    tensors = random_tensors(config, 1)
    for name, tensor in tensors.items():
        counted = np.zeros(tensor.shape, int)
        for share in even_shares(config, 2):
            counted[share.part(name)] += 1
        split = tensor.ndim == 2
        assert (counted == (1 if split else 2)).all(), name


def held(weights) -> int:
    """Bytes of the matrices and the embedding."""
    arrays = [weights.embed_tokens, weights.lm_head]
    for layer in weights.layers:
        arrays += [layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj]
        arrays += [layer.gate_proj, layer.up_proj, layer.down_proj]
    total = 0
    for array in arrays:
        while not isinstance(array, np.ndarray):  # what was made of it
            array = array.part if hasattr(array, "part") else array.values
        total += array.nbytes
    return total


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
def test_two_ranks_together_hold_the_model_once(arithmetic):
    config = minikv.tiny_config(tie_word_embeddings=False)
    tensors = random_tensors(config, 1)
    whole = minikv.random_model(config, 1, arithmetic).weights
    ranks = run_threads(2, lambda comm: split_model(config, tensors, comm, arithmetic).weights)
    assert sum(map(held, ranks)) == held(whole)
    assert max(map(held, ranks)) < 0.6 * held(whole)


def test_caches_hold_the_heads_of_their_rank(tiny):
    def work(comm: Comm) -> int:
        model = load_rank(tiny, comm)
        cache = model.new_cache()
        model.forward([GOLDEN["ids"]], [cache])
        return cache.nbytes

    alone = minikv.load(tiny, "exact")
    cache = alone.new_cache()
    alone.forward([GOLDEN["ids"]], [cache])
    assert sum(run_threads(2, work)) == cache.nbytes


def test_a_rank_reads_no_number_of_another_ranks_part(tiny, tmp_path):
    """A NaN in the last head: the rank that has that head finds it, the other does not."""
    config = ModelConfig.from_folder(tiny)
    tensors = {name: np.array(tensor) for name, tensor in load_tensors(tiny, config).items()}
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name][-1, -1] = np.nan
    folder = minikv.weights.save_folder(tmp_path / "model", config, tensors)
    first, last = even_shares(config, 2)
    part = load_tensors(folder, config, first.part)[name]
    assert part.shape[0] == tensors[name].shape[0] // 2
    with pytest.raises(WeightsError, match=r"q_proj\.weight holds nan"):
        load_tensors(folder, config, last.part)


def test_the_identity_is_that_of_the_whole_model(tiny):
    found = run_threads(2, lambda comm: load_rank(tiny, comm).weights.identity)
    assert set(found) == {minikv.load(tiny, "exact").weights.identity}


# Refusals


def test_more_ranks_than_heads_are_refused(tiny):
    heads = ModelConfig.from_folder(tiny).num_attention_heads
    refusal = f"{heads + 1} ranks for a model of {heads} query heads, expected 1 to {heads}"
    with pytest.raises(InputError, match=refusal):
        run_threads(heads + 1, lambda comm: load_rank(tiny, comm))


def test_ranks_with_other_weights_are_refused(tiny, tmp_path):
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    config = ModelConfig.from_folder(tiny)
    tensors = {name: np.array(tensor) for name, tensor in load_tensors(tiny, config).items()}
    tensors["model.norm.weight"][0] += 1
    shutil.rmtree(other)
    minikv.weights.save_folder(other, config, tensors)
    with pytest.raises(RankError, match=r"rank 1 has weights .*, rank 0 has .*; all ranks must"):
        run_threads(2, lambda comm: load_rank([tiny, other][comm.rank], comm))


def test_ranks_with_another_version_are_refused(tiny, monkeypatch):
    digests = iter(["aaaa", "bbbb"])
    monkeypatch.setattr("minikv.parallel.build.code_digest", lambda: next(digests))
    with pytest.raises(RankError, match=r"has minikv's code .*, rank 0 has"):
        run_threads(2, lambda comm: load_rank(tiny, comm))


def test_ranks_that_run_other_tokens_are_told_so(tiny):
    with pytest.raises(RankError, match=r"rank 1 runs the tokens \[1\], rank 0 runs \[0\]"):
        run_threads(2, lambda comm: load_rank(tiny, comm).logits([comm.rank]))


def test_an_arithmetic_that_knows_no_split_is_refused():
    class Odd(Float32):
        name = "odd"

    class Lone:
        name = "lone"

    assert split_sums(Odd(), None).name == "odd"
    with pytest.raises(InputError, match="'lone' cannot be split over ranks"):
        split_sums(Lone(), None)


def test_an_error_on_one_rank_ends_all():
    told = []

    def work(comm: Comm) -> None:
        if comm.rank == 1:
            raise ValueError("a fault")
        try:
            comm.sum(np.zeros(1))
        except RankError as error:
            told.append(str(error))

    with pytest.raises(ValueError, match="a fault"):
        run_threads(3, work)
    assert told == ["rank 1: a fault"] * 2


# Saved states


def fed(model, cache, ids) -> np.ndarray:
    return to_numpy(model.forward([ids], [cache], "all"))


@pytest.mark.parametrize(
    ("policy", "parameters"),
    [("full", {}), ("residual", {"budget": 4}), ("window", {"budget": 4}), ("none", {})],
)
def test_a_cache_goes_on_with_another_number_of_ranks(tiny, tmp_path, policy, parameters):
    ids, more = GOLDEN["ids"][:9], GOLDEN["ids"][9:14]
    alone = minikv.load(tiny, "exact")
    cache = alone.new_cache(policy, **parameters)
    fed(alone, cache, ids)
    cache.save(tmp_path / "alone")
    expected = fed(alone, cache, more)

    def begin(comm: Comm) -> None:
        model = load_rank(tiny, comm)
        cache = model.new_cache(policy, **parameters)
        fed(model, cache, ids)
        save_cache(model, cache, tmp_path / "split")

    def end(comm: Comm) -> np.ndarray:
        model = load_rank(tiny, comm)
        cache = model.new_cache(policy, **parameters)
        load_cache(model, cache, tmp_path / "split")
        return fed(model, cache, more)

    run_threads(3, begin)
    (split, said), (whole, told) = map(read_state, (tmp_path / "split", tmp_path / "alone"))
    assert said == told
    assert split.keys() == whole.keys()
    for name, tensor in whole.items():
        assert_same_bits(split[name], tensor)
    for logits in run_threads(2, end):
        assert_same_bits(logits, expected)


def test_a_damaged_or_foreign_cache_is_refused_on_all_ranks(tiny, tmp_path):
    alone = minikv.load(tiny, "exact")
    cache = alone.new_cache()
    fed(alone, cache, [1, 2, 3])
    cache.save(tmp_path / "kept")

    def load(policy: str) -> Callable[[Comm], None]:
        def work(comm: Comm) -> None:
            model = load_rank(tiny, comm)
            load_cache(model, model.new_cache(policy), tmp_path / "kept")

        return work

    run_threads(2, load("full"))
    with pytest.raises(CacheError, match="the saved cache has policy 'full', expected 'none'"):
        run_threads(2, load("none"))
    data = bytearray((tmp_path / "kept").read_bytes())
    data[-1] ^= 1
    (tmp_path / "kept").write_bytes(data)
    with pytest.raises(CacheError, match="damaged"):
        run_threads(2, load("full"))
    (tmp_path / "kept").unlink()
    with pytest.raises(CacheError, match="no such file"):
        run_threads(2, load("full"))


def test_a_share_is_what_it_says():
    config = minikv.tiny_config()
    share = Share(config, range(1, 3), range(0, 7), range(10, 20))
    assert share.groups == (0, 1)
    assert share.config.num_attention_heads == share.config.num_key_value_heads == 2
    assert share.part("model.layers.0.input_layernorm.weight") == ()


@pytest.mark.parametrize("size", [2, 3])
def test_what_is_said_for_a_token_is_what_the_cost_model_counts(tiny, size):
    def work(comm: Comm) -> tuple[int, int]:
        model = load_rank(tiny, comm)
        cache = model.new_cache()
        model.forward([GOLDEN["ids"]], [cache])
        calls, wire = comm.calls, comm.wire
        model.forward([[7]], [cache])
        return comm.calls - calls, comm.wire - wire

    said = said_per_token(ModelConfig.from_folder(tiny), size)
    found = run_threads(size, work)
    assert {calls for calls, _ in found} == {said.calls}
    # a thread counts a sum twice, in and out, and of what is gathered its own part for each rank
    total = sum(wire for _, wire in found)
    assert total == size * (2 * said.sums) + size * said.gathered


def test_pieces_are_as_even_as_can_be():
    for count in range(1, 60):
        for size in range(1, count + 1):
            parts = pieces(count, size)
            assert [number for part in parts for number in part] == list(range(count))
            sizes = list(map(len, parts))
            assert max(sizes) - min(sizes) <= 1
