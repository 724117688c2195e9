"""Numba's kernels against NumPy's `Exact`, bit for bit, and what they rest on."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba", reason="needs the extra `numba`, not installed here")

import numba

import minikv
from minikv.arithmetic import ACTIVATIONS, NumpyExact, Sight, Watch
from minikv.arithmetic.exact import LONGEST
from minikv.backends import get_backend, numba_announce, numba_tile
from minikv.backends import numba_exact as kernels
from minikv.caches import Full
from minikv.errors import ArithmeticRangeError
from minikv.model import Model
from minikv.verify import THEOREMS, Case

pytestmark = pytest.mark.backends

EXACT, COMPILED = NumpyExact(1024), get_backend("numba", "exact", 1024)
SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1.0, -1.0, 1e15, 3.0, 0.1]
seeds = st.integers(0, 2**32 - 1)
few = st.integers(1, 12)


def floats(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers of many magnitudes, with special ones and equal ones strewn in."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 8, (*shape[:-1], 1))
    strewn = rng.random(shape) < 0.1 * rng.integers(0, 2)
    return np.where(strewn, rng.choice(SPECIAL, shape), x).astype(np.float32)


FORK = """
import os, minikv
model = minikv.random_model(minikv.tiny_config(), 0, arithmetic="exact", backend="numba")
model.logits([1, 2, 3])
if child := os.fork():
    print(os.waitpid(child, 0)[1])
else:
    model.logits([1, 2, 3])
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is the OpenMP of Linux")
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_process_may_fork_and_decode_in_the_child_on_workqueue_alone(layer):
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FORK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ended_well = int(done.stdout) == 0
    assert ended_well == (layer == "workqueue")


@pytest.mark.parametrize("rows", [kernels._ROWS, kernels._ROWS + 1, 3 * kernels._ROWS + 4])
def test_a_gate_of_many_rows_has_the_bits_of_one(rows):
    """One block, for one thread; a block and a row; several blocks."""
    gate, up = floats(rows, 2, rows, 7)
    expected = EXACT.gated(gate, up, "silu")
    assert_same_bits(COMPILED.gated(gate, up, "silu"), expected)
    assert_same_bits(COMPILED.gated(gate[-1:], up[-1:], "silu"), expected[-1:])


def test_the_backend_is_compiled():
    assert type(COMPILED) is kernels.NumbaExact


@given(
    seed=seeds,
    tokens=st.integers(1, 20),
    n=st.integers(1, 70),
    k=st.integers(1, 70),
    halves=st.booleans(),
)
def test_linear(seed, tokens, n, k, halves):
    x, matrix = floats(seed, tokens, k), floats(seed + 1, n, k)
    if halves:
        matrix = (matrix.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    before = matrix.copy()
    expected = EXACT.linear(x, EXACT.weight(matrix, "w"))
    for tied in (False, True):
        weight = COMPILED.weight(matrix, "w", tied)
        assert not halves or weight.values.dtype == (np.float32 if k % 2 else np.uint16)
        assert_same_bits(COMPILED.linear(x, weight), expected)
        other = COMPILED.weight(matrix[::-1], "w")
        both = COMPILED.linears(x, weight, other)
        assert_same_bits(both[0], expected)
        assert_same_bits(both[1], expected[:, ::-1])
    assert_same_bits(matrix, before)


def test_a_tied_embedding_is_held_once_and_a_user_s_matrix_stays_as_it_is():
    matrix = floats(0, 30, 40)
    matrix.flags.writeable = False
    assert COMPILED.weight(matrix, "w", tied=True).values is matrix
    assert not np.shares_memory(COMPILED.weight(matrix, "w").values, matrix)
    model = minikv.random_model(minikv.tiny_config(), 1, "exact", backend="numba")
    assert isinstance(model.weights.lm_head, kernels.TiedWeight)


@pytest.mark.parametrize("length", [0, LONGEST + 1])
def test_rows_of_no_length_and_too_long_ones_are_refused_as_by_numpy(length):
    matrix = np.zeros((1, length), np.float32)
    said = f"w sums over {length} numbers, expected 1 to {LONGEST}"
    for arithmetic in (EXACT, COMPILED):
        with pytest.raises(ArithmeticRangeError, match=said):
            arithmetic.weight(matrix, "w")


@pytest.mark.parametrize("rows", [1, kernels._FEW, kernels._FEW + 1])
def test_weights_in_two_bytes_meet_few_rows_and_many(rows):
    matrix = (floats(0, 7, 6).view(np.uint32) & 0xFFFF0000).view(np.float32)  # bfloat16
    x = floats(1, rows, 6)
    weight = COMPILED.weight(matrix, "w")
    assert weight.values.dtype == np.uint16
    assert_same_bits(COMPILED.linear(x, weight), EXACT.linear(x, EXACT.weight(matrix, "w")))


def test_bfloat16_weights_take_two_bytes_and_others_four():
    matrix = floats(0, 30, 40)
    short = (matrix.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert COMPILED.weight(short, "w").values.nbytes == short.size * 2
    assert COMPILED.weight(matrix, "w").values.nbytes == matrix.nbytes


def test_a_tied_embedding_of_bfloat16_is_rounded_into_two_bytes_and_itself_kept():
    matrix = np.array([[1.0, 2.0**-40]], np.float32)  # the second is below the grid
    assert COMPILED.weight(matrix, "w", tied=True).values.tolist() == [[0x3F80, 0]]
    assert matrix.tolist() == [[1.0, 2.0**-40]]


@pytest.mark.parametrize(
    ("x", "w"),
    [
        (np.nan, 1.0),
        (np.inf, 1.0),
        (1e30, 1e30),
        (3.0e38, 3.0e38),
        (1.0, 1e-30),
    ],
)
@pytest.mark.parametrize("rows", [1, 12])
def test_linear_refuses_what_exact_refuses(x, w, rows):
    def outcome(arithmetic):
        row, matrix = np.full((rows, 9), x, np.float32), np.full((3, 9), w, np.float32)
        try:
            return arithmetic.linear(row, arithmetic.weight(matrix, "w")).tobytes()
        except ArithmeticRangeError as error:
            return str(error)

    assert outcome(COMPILED) == outcome(EXACT)


@pytest.mark.parametrize("off", [-(2.0**-32), 0.0, 2.0**-31, 2.0**-28])
def test_a_row_whose_grid_only_an_exact_sum_decides_is_left_to_exact(off):
    # Exact takes a power of two from sum |x| (1 + 2**-9): here that is 8, to within `off`.
    total = 8 / (1 + 2.0**-9) * (1 + off)
    first = np.float32(total * (1 - 2.0**-20))  # and the rest is positive
    x = np.array([[first, total - np.float64(first), 0.0]], np.float32)
    matrix, out = floats(1, 4, 3), np.empty((1, 4), np.float32)
    exact = EXACT.weight(matrix, "w")
    weight = COMPILED.weight(matrix, "w")
    given = (x, weight.values, weight.values[:0], 32, weight.largest, out, out[:, :0])
    assert kernels._linear(*given) == (abs(off) > 2.0**-30)
    for rows in (x, np.repeat(x, 12, axis=0)):
        assert_same_bits(COMPILED.linear(rows, weight), EXACT.linear(rows, exact))


def in_doubt(rng: np.random.Generator, size: int, dtype: type) -> np.ndarray:
    """Positive numbers for which sum x (1 + 2**-9) is a power of two, to within a rounding."""
    x = (rng.random(size) * 2.0 ** rng.integers(-32, -28, size)).astype(dtype)
    x[0] = 1.5 * rng.random()
    total = 2.0 ** math.ceil(math.log2(math.fsum(x))) / (1 + 2.0**-9)
    for index in (1, 2):  # what is missing, and then what that lost in rounding
        x[index] = 0
        x[index] = Fraction(total) - sum(map(Fraction, x.tolist()))
    return x


def test_rows_that_attention_cannot_decide_are_left_to_exact():
    """A query, and weights that `weighted_sum` is given, whose sums orders disagree about."""
    rng = np.random.default_rng(1)
    sight = Sight(np.array([5]), np.arange(6))
    many = Sight(np.full(12, 5), np.arange(6))
    for _ in range(300):
        q = in_doubt(rng, 64, np.float32)[None, None]
        k, v = (EXACT.settle(rng.standard_normal((6, 1, 64)).astype(np.float32)) for _ in "kv")
        expected = EXACT.attention(q, k, v, sight, 1.0)
        assert_same_bits(COMPILED.attention(q, k, v, sight, 1.0), expected)
        alike = np.repeat(q, 12, axis=0)
        assert_same_bits(COMPILED.attention(alike, k, v, many, 1.0), np.repeat(expected, 12, 0))
        pattern = in_doubt(rng, 64, np.float64)[None, None]
        v = EXACT.settle(1 + rng.random((64, 1, 8)).astype(np.float32))
        assert_same_bits(COMPILED.weighted_sum(pattern, v), EXACT.weighted_sum(pattern, v))


@pytest.mark.parametrize("times", [1, 2, 3, 5, 7])
def test_weights_of_attention_that_it_cannot_decide_are_left_to_exact(times):
    """Of 513 equal weights 512 have a value of size 1: times 1 + 2**-9 they add up to 1."""
    rng = np.random.default_rng(times)
    keys = 513 * times
    q, k = np.ones((1, 1, 4), np.float32), np.ones((keys, 1, 4), np.float32)
    exact, compiled = NumpyExact(4096), get_backend("numba", "exact", 4096)
    for _ in range(5):
        v = 1 + rng.random((keys, 1, 4))
        v[rng.choice(keys, times, replace=False)] = 0
        v = exact.settle(v.astype(np.float32))
        sight = Sight(np.array([keys - 1]), np.arange(keys))
        expected = exact.attention(q, k, v, sight, 1.0)
        assert_same_bits(compiled.attention(q, k, v, sight, 1.0), expected)
        many = Sight(np.full(9, keys - 1), np.arange(keys))
        got = compiled.attention(np.repeat(q, 9, axis=0), k, v, many, 1.0)
        assert_same_bits(got, np.repeat(expected, 9, axis=0))


def frozen(value: np.ndarray, name: str = "") -> np.ndarray:
    value = value.copy()
    value.flags.writeable = False
    return value


@pytest.mark.parametrize("tokens", [3, 12])
def test_activations_that_cannot_be_written_to_are_read(tokens):
    """As a donor from a mapped file, or what a cache of another policy returns."""

    class Frozen(Full):
        def update(self, *given):
            positions, k, v = super().update(*given)
            return positions, frozen(k), frozen(v)

    models = [
        minikv.random_model(minikv.tiny_config(), 0, "exact", backend=name)
        for name in ("numpy", "numba")
    ]
    ids = list(range(tokens))
    for name in models[0].run_with_cache(ids)[1]:
        expected, got = (model.run_with_hooks(ids, {name: frozen}) for model in models)
        assert_same_bits(got, expected)
    expected, got = (model.forward([ids], [Frozen(model.weights)]) for model in models)
    assert_same_bits(got, expected)


def test_matrices_that_are_stored_by_columns_are_read():
    config = minikv.tiny_config()
    tensors = {name: np.asfortranarray(t) for name, t in minikv.random_tensors(config, 0).items()}
    expected, got = (
        Model(minikv.build(config, tensors, "exact", name)).logits([1, 2, 3])
        for name in ("numpy", "numba")
    )
    assert_same_bits(got, expected)


@given(seed=seeds, tokens=few, heads=st.integers(1, 4), half=st.integers(1, 20))
def test_settle_rms_norm_and_rope(seed, tokens, heads, half):
    x = floats(seed, tokens, heads, 2 * half)
    assert_same_bits(COMPILED.settle(x), EXACT.settle(x))
    assert_same_bits(COMPILED.settle(x.swapaxes(0, 1)), EXACT.settle(x.swapaxes(0, 1)))
    rows, weight = x.reshape(tokens, -1), floats(seed + 1, heads * 2 * half).astype(np.float64)
    for norm, given_weight in ((rows, weight), (x, weight[: 2 * half])):
        expected = EXACT.rms_norm(norm, given_weight, 1e-5)
        assert_same_bits(COMPILED.rms_norm(norm, given_weight, 1e-5), expected)
    cos, sin = np.random.default_rng(seed).uniform(-1, 1, (2, tokens, 1, 2 * half))
    assert_same_bits(COMPILED.rope(x, cos, sin), EXACT.rope(x, cos, sin))
    assert_same_bits(COMPILED.rope(x[:, :1], cos, sin), EXACT.rope(x[:, :1], cos, sin))


@given(seed=seeds, tokens=few, width=st.integers(1, 60), activation=st.sampled_from([*ACTIVATIONS]))
def test_gated(seed, tokens, width, activation):
    both = floats(seed, tokens, 2 * width)
    both[0, 0] = np.random.default_rng(seed).choice([-1e4, 1e4, -87.5, -745.2, -709.8, 709.9])
    gate, up = both[:, :width], both[:, width:]
    expected = EXACT.gated(gate, up, activation)
    assert_same_bits(COMPILED.gated(gate, up, activation), expected)


@given(
    seed=seeds,
    tokens=few,
    length=st.integers(1, 90),
    groups=st.integers(1, 3),
    share=st.integers(1, 3),
    width=st.integers(1, 33),
    window=st.one_of(st.none(), st.integers(1, 40)),
)
def test_attention_and_softmax(seed, tokens, length, groups, share, width, window):
    length = max(length, tokens)
    q = floats(seed, tokens, groups * share, width)
    k, v = (EXACT.settle(floats(seed + i, length, groups, width)) for i in (1, 2))
    stored = [np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1) for x in (k, v)]
    apart = [np.repeat(x, 2, axis=-1)[..., ::2] for x in (k, v)]
    alike = [np.lib.stride_tricks.as_strided(x, strides=(0, *x.strides[1:])) for x in (k, v)]
    queries, keys = np.arange(length - tokens, length), np.arange(length)
    scale = 1 / math.sqrt(width)
    for keep in ((k, v), stored, apart, (k, apart[1]), alike):
        for rows in (slice(None), slice(-1, None), slice(0, 1)):
            sight = Sight(queries[rows], keys, window)
            expected = EXACT.attention(q[rows], *keep, sight, scale)
            assert_same_bits(COMPILED.attention(q[rows], *keep, sight, scale), expected)
            with mock.patch.object(COMPILED, "query_block", 2):  # so that there are several blocks
                assert_same_bits(COMPILED.attention(q[rows], *keep, sight, scale), expected)
    scores = floats(seed, groups, tokens, length).astype(np.float64)
    scores[..., 1:][np.random.default_rng(seed).random(scores[..., 1:].shape) < 0.2] = -np.inf
    assert_same_bits(COMPILED.softmax(scores), EXACT.softmax(scores))


@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("window", [None, kernels._RUN, kernels._RUN + 40])
@pytest.mark.parametrize(
    ("tokens", "share"), [(1, 3), (3, 1), (8, 4), (2, 5), (1, 7), (9, 3), (16, 2), (23, 1)]
)
def test_keys_may_be_cut_into_runs_for_any_number_of_heads(off, window, tokens, share):
    """Of one key more, one less, and as many as runs have; the window begins within one."""
    length = 3 * kernels._RUN + off
    q = floats(length, tokens, 2 * share, 6)
    k, v = (EXACT.settle(floats(seed, length, 2, 6)) for seed in (1, 2))
    sight = Sight(np.arange(length - tokens, length), np.arange(length), window)
    told: list[list[np.ndarray]] = []
    for arithmetic in (EXACT, COMPILED):
        seen: list[np.ndarray] = []
        watch = Watch(observe=lambda at, pattern, seen=seen: seen.append(pattern.copy()))
        told.append([arithmetic.attention(q, k, v, sight, 0.4, watch), *seen])
    for got, expected in zip(*told, strict=True):
        assert_same_bits(got, expected)
    assert_same_bits(COMPILED.attention(q, k, v, sight, 0.4), told[0][0])  # nobody watches


@pytest.mark.parametrize("held", [64, 256, 1024])
def test_a_tile_adds_up_all_its_products_however_many_registers_hold(monkeypatch, held):
    """Whole numbers, which float64 adds up without rounding; added to what is there, or not."""
    monkeypatch.setattr(numba_tile, "bytes_held", lambda context: held)
    tile = numba_tile.chains(8, 8, 2, carried=True, itemsize=8)

    @numba.njit
    def add(x, w, out, fresh):
        tile(x.ctypes.data, 57, 1, w.ctypes.data, 16, out.ctypes.data, 16, 50, fresh)

    rng = np.random.default_rng(held)
    x, w, before = (rng.integers(-99, 99, shape) for shape in [(8, 57), (50, 16), (8, 16)])
    for fresh in (False, True):
        out = before.astype(np.float64)
        add(x.astype(np.float64), w.astype(np.float64), out, fresh)
        assert (out == x[:, :50] @ w + (not fresh) * before).all()


@pytest.mark.parametrize("tokens", [kernels._FEW + 1, 16, 17])
@pytest.mark.parametrize("width", [kernels._PANEL - 1, kernels._PANEL, kernels._PANEL + 1])
@pytest.mark.parametrize("window", [None, 5, 40])
def test_tiles_of_attention_that_are_not_full_have_the_bits_of_exact(tokens, width, window):
    """Fewer tokens than the last task has room for, heads and keys that end within a panel."""
    length = 3 * kernels._PANEL + tokens
    q = floats(width, tokens, 6, width)
    k, v = (EXACT.settle(floats(seed, length, 2, width)) for seed in (1, 2))
    sight = Sight(np.arange(length - tokens, length), np.arange(length), window)
    expected = EXACT.attention(q, k, v, sight, 0.4)
    unused = mock.patch.object(NumpyExact, "attention", side_effect=AssertionError)
    with unused:  # the kernel itself
        assert_same_bits(COMPILED.attention(q, k, v, sight, 0.4), expected)


@pytest.mark.parametrize("rows", [1, kernels._FEW + 1])
def test_sums_below_float32_are_not_minus_zero(rows):
    x, matrix = np.full((rows, 2), 1e-30, np.float32), np.full((3, 2), -1e-30, np.float32)
    weight = COMPILED.weight(matrix, "w")
    assert_same_bits(COMPILED.linear(x, weight), np.zeros((rows, 3), np.float32))
    q, k = np.ones((rows, 1, 2), np.float32), np.ones((rows + 3, 1, 2), np.float32)
    v = np.zeros_like(k)
    v[0] = -1e-45  # the smallest, of which each query takes less than a half
    sight = Sight(np.arange(3, rows + 3), np.arange(rows + 3))
    assert_same_bits(COMPILED.attention(q, k, v, sight, 1.0), np.zeros_like(q))


@pytest.mark.parametrize("rows", [kernels._FEW + 1, 16, 17])
@pytest.mark.parametrize("outputs", [1, kernels._PANEL + 1, 2 * kernels._PANEL, 70])
@pytest.mark.parametrize("tied", [False, True])
def test_tiles_of_products_that_are_not_full_have_the_bits_of_exact(rows, outputs, tied):
    x, matrix = floats(0, rows, 30), floats(1, outputs, 30)
    expected = EXACT.linear(x, EXACT.weight(matrix, "w"))
    weight = COMPILED.weight(matrix, "w", tied)
    with mock.patch.object(COMPILED, "product", side_effect=AssertionError):  # the kernel itself
        assert_same_bits(COMPILED.linear(x, weight), expected)


@pytest.mark.parametrize("tokens", [1, 12])
@pytest.mark.parametrize("kernel", ["_attend", "_attend_many"])
def test_weights_whose_grid_only_an_exact_sum_decides_are_left_to_exact(kernel, tokens):
    q, k, v = floats(0, tokens, 4, 6), *(EXACT.settle(floats(i, 40, 2, 6)) for i in (1, 2))
    sight = Sight(np.arange(40 - tokens, 40), np.arange(40))
    expected = EXACT.attention(q, k, v, sight, 0.5)
    with mock.patch.object(kernels, kernel, return_value=False) as asked:
        assert_same_bits(COMPILED.attention(q, k, v, sight, 0.5), expected)
    assert asked.called == ((kernel == "_attend") == (tokens == 1))


@given(
    seed=seeds,
    tokens=st.integers(1, 10),
    held=st.integers(0, 60),
    window=st.one_of(st.none(), st.integers(1, 40)),
    per_head=st.booleans(),
)
def test_whoever_watches_sees_the_weights_of_exact(seed, tokens, held, window, per_head):
    length = held + tokens
    rng = np.random.default_rng(seed)
    q = floats(seed, tokens, 4, 8)
    k, v = (EXACT.settle(floats(seed + i, length, 2, 8)) for i in (1, 2))
    new = np.arange(100, 100 + tokens)
    old = [np.sort(rng.choice(100, held, replace=False)) for _ in range(2)]
    positions = np.stack([np.concatenate([old[g], new]) for g in range(2)], axis=1)
    sight = Sight(new, positions if per_head else positions[:, 0], window)
    told: list[list[np.ndarray]] = []
    outs = []
    for arithmetic in (EXACT, COMPILED):
        seen: list[np.ndarray] = []
        watch = Watch(observe=lambda at, pattern, seen=seen: seen.extend((at, pattern.copy())))
        outs.append(arithmetic.attention(q, k, v, sight, 0.3, watch))
        told.append(seen)
    assert_same_bits(outs[1], outs[0])
    assert len(told[0]) == len(told[1]) == 2
    assert_same_bits(told[1][0], told[0][0])
    assert_same_bits(told[1][1], told[0][1])


def test_watched_weights_whose_grid_only_an_exact_sum_decides_are_left_to_exact():
    q, k, v = floats(0, 12, 4, 6), *(EXACT.settle(floats(i, 40, 2, 6)) for i in (1, 2))
    sight = Sight(np.arange(28, 40), np.arange(40))
    watched = Watch(observe=lambda positions, pattern: None)
    expected = EXACT.attention(q, k, v, sight, 0.5)
    with mock.patch.object(kernels, "_place", return_value=False) as asked:
        assert_same_bits(COMPILED.attention(q, k, v, sight, 0.5, watched), expected)
    assert asked.called


def test_scores_and_weights_of_a_hook_may_be_float32():
    scores, v = floats(0, 4, 3, 20), EXACT.settle(floats(1, 20, 2, 6))
    assert_same_bits(COMPILED.softmax(scores), EXACT.softmax(scores))
    pattern = EXACT.softmax(scores).astype(np.float32)
    assert_same_bits(COMPILED.weighted_sum(pattern, v), EXACT.weighted_sum(pattern, v))


@pytest.mark.parametrize("tokens", [3, 12])
@pytest.mark.parametrize("projection", ["q_proj", "k_proj"])
def test_scores_that_are_not_finite_are_refused_alike(projection, tokens):
    config = minikv.tiny_config(model_type="qwen2")  # which has biases
    tensors = minikv.random_tensors(config, 0)
    tensors[f"model.layers.0.self_attn.{projection}.bias"][:] = 3.4e38
    said = set()
    for backend in ("numpy", "numba"):
        model = Model(minikv.build(config, tensors, "exact", backend))
        with np.errstate(all="ignore"), pytest.raises(ArithmeticRangeError) as caught:
            model.logits(range(tokens))
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_hook_that_leaves_no_score_is_refused_alike(value):
    hooks = {"blocks.0.attn.hook_attn_scores": lambda scores, name: np.full_like(scores, value)}
    for backend in ("numpy", "numba"):
        model = minikv.random_model(minikv.tiny_config(), 0, "exact", backend=backend)
        with np.errstate(all="ignore"), pytest.raises(ArithmeticRangeError, match="holds NaN"):
            model.run_with_hooks([1, 2, 3], hooks)


def test_attention_beyond_the_context_is_refused_alike():
    short = get_backend("numba", "exact", 4)
    q, k = floats(0, 1, 1, 4), floats(1, 5, 1, 4)
    with pytest.raises(ArithmeticRangeError, match="5 tokens to attend to, expected at most 4"):
        short.attention(q, k, k, Sight(np.array([4]), np.arange(5)), 0.5)


@pytest.mark.parametrize("theorem", list(THEOREMS))
def test_theorem_holds_under_numba(theorem):
    config = minikv.tiny_config()
    rng = np.random.default_rng(int(theorem[1:]))
    texts = (tuple(int(i) for i in rng.integers(0, 97, 14)) for _ in "ab")
    THEOREMS[theorem].check(Case(config, *texts, (3, 1, 5, 5), seed=1, backend="numba"))


def test_bfloat16_models_decode_to_the_same_bits():
    config = minikv.tiny_config()
    tensors = {
        name: (tensor.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        for name, tensor in minikv.random_tensors(config, 2).items()
    }
    rows = []
    for backend in ("numba", "numpy"):
        model = Model(minikv.build(config, tensors, "exact", backend))
        cache = model.new_cache()
        rows += [[model.forward([[token]], [cache]) for token in range(30)]]
    assert_same_bits(np.concatenate(rows[0]), np.concatenate(rows[1]))


# The sentence that the kernels rest on: exactness makes fastmath safe.


@given(seed=seeds, k=st.integers(40, 400))
def test_sums_on_a_grid_have_the_same_bits_with_and_without_fastmath(seed, k):
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**20), 2**20, k) * 2.0**-30
    w = (rng.integers(-(2**21), 2**21, k) * 2.0**-40).astype(np.float32)
    assert kernels._dot(x, w) == in_order(x, w) == math.fsum(x * w)
    out = np.empty((3, 2))
    kernels._three_dots(np.stack([x, 2 * x, -x]), np.stack([w, -w]), out)
    assert_same_bits(out, np.outer([1, 2, -1], [1, -1]) * in_order(x, w))
    shift = 1.5 * 2.0**52 * 2.0**-30
    rounded = (w.astype(np.float64) + shift - shift).astype(np.float32)
    assert kernels._dot_rounded(x, w, shift) == in_order(x, rounded)


def test_sums_off_the_grid_differ_with_fastmath():
    # The control. Both are right to within rounding, and neither is the other.
    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal(400), floats(seed, 400)) for seed in range(20)]
    assert sum(kernels._dot(x, w) != in_order(x, w) for x, w in pairs) > 10


@numba.njit
def in_order(x, w):
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * np.float64(w[j])
    return total


@numba.njit(fastmath=True)
def rounded_under_fastmath(x, shift):
    return (x + shift) - shift


def test_rounding_to_a_grid_would_not_survive_fastmath():
    # Why the flags are given function by function.
    x, shift = 1.0 + 2.0**-30, 1.5 * 2.0**52 * 2.0**-20
    assert rounded_under_fastmath(x, shift) == x
    row = np.array([x])
    kernels._round_row(row, 20)
    assert row[0] == 1.0


def test_only_functions_that_add_are_compiled_with_fastmath():
    source = Path(kernels.__file__).read_text(encoding="utf-8")
    marked = [part.split("def ", 1)[1] for part in source.split("@njit(fastmath=_SUMS)")[1:]]
    assert [part.split("(")[0] for part in marked] == [
        "_norm",
        "_total",
        "_dot",
        "_dot_pairs",
        "_weigh",
        "_three_dots",
        "_weigh_three",
        "_dot_rounded",
    ]
    assert source.count("fastmath=") == len(marked)
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
    told = "in eight functions: seven do nothing but add, and one also calls the rounding"
    assert told in " ".join(page.split())
    bodies = [part.split("\n\n\n")[0] for part in marked]
    assert [body.count("_to_grid(") for body in bodies] == [0] * 7 + [1]
    assert not [body for body in bodies if re.search(r"[-+] shift|ROUND", body)]


# Without Numba, or where it fails.


def test_a_failed_import_falls_back_to_numpy_with_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "numba", None)
    arithmetic = get_backend("numba", "exact", 64)
    assert type(arithmetic) is NumpyExact
    assert arithmetic.context == 64
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "(the extra minikv[numba])" in err
    assert "NumPy takes its place" in err


def test_a_failed_compilation_falls_back_to_numpy_with_one_line(monkeypatch, capsys):
    def broken(context):
        raise RuntimeError("LLVM\nis out of order")

    monkeypatch.setattr(kernels, "NumbaExact", broken)
    config = minikv.tiny_config()
    model = minikv.random_model(config, 1, "exact", backend="numba")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "RuntimeError: LLVM is out of order; NumPy takes its place" in err
    assert_same_bits(model.logits([1, 2]), minikv.random_model(config, 1, "exact").logits([1, 2]))


@pytest.mark.parametrize(("rows", "dtype"), [(513, np.float32), (3, np.float64)])
def test_more_rows_than_exact_takes_at_a_time_and_wider_ones_are_left_to_it(rows, dtype):
    matrix, x = floats(1, 5, 7), floats(2, rows, 7).astype(dtype)
    expected = EXACT.linear(x, EXACT.weight(matrix, "w"))
    assert_same_bits(COMPILED.linear(x, COMPILED.weight(matrix, "w")), expected)


def test_a_compilation_is_announced_once(capsys):
    listener = numba_announce.Announced()
    for _ in range(2):
        listener.on_start(None)
        listener.on_end(None)
    assert capsys.readouterr().err.count("compiling Numba's kernels, once") == 1


def test_the_first_compilation_says_so_and_later_ones_are_silent(tmp_path):
    code = (
        "import minikv; print(minikv.random_model(minikv.tiny_config(), arithmetic='exact', "
        "backend='numba').logits([1, 2]).tobytes().hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )
        for _ in range(2)
    ]
    assert [run.stderr for run in runs] == [
        "minikv: compiling Numba's kernels, once: they are kept on disk\n",
        "",
    ]
    logits = minikv.random_model(minikv.tiny_config(), arithmetic="exact").logits([1, 2])
    assert {run.stdout.strip() for run in runs} == {logits.tobytes().hex()}
