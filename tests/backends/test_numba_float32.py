"""Row-invariant float32 on Numba: every sum in one order, whoever shares the call."""

from __future__ import annotations

import functools
import math
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fingerprint import TINY

pytest.importorskip("numba", reason="needs the extra `numba`, not installed here")
sys.path.append(str(TINY.parents[2] / "proofs"))
import numba
from strategies import cases

import minikv
from minikv.arithmetic import ACTIVATIONS, Arithmetic, Float32, NumpyFloat32, Sight, Watch
from minikv.backends import get_backend, numba_tile
from minikv.backends.numba_float32 import (
    BLOCK,
    FEW,
    KEYS,
    LANES,
    PANEL,
    TILE,
    NumbaFloat32,
    Packed,
    _fma,
)
from minikv.backends.numba_tile import bytes_held, chains, in_registers
from minikv.caches import POLICIES
from minikv.cli import main
from minikv.verify import THEOREMS, Case, Refuted

pytestmark = pytest.mark.backends

PLAIN, OURS = Float32(), get_backend("numba", "float32")
BROKEN = ("T1", "T3", "T4", "T6", "T8")  # by plain float32, on the fixture
HELD = [theorem for theorem in THEOREMS if theorem not in ("T7", "T12")]  # of order, both
ROWS = (1, 2, 7, 64, 300)
SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-30, -1e-38, 3.0, 0.1]
seeds = st.integers(0, 2**32 - 1)


def floats(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers, some of them special: products of the small ones underflow to 0 and -0."""
    rng = np.random.default_rng(seed)
    strewn = rng.random(shape) < 0.3 * rng.integers(0, 2)
    x = np.where(strewn, rng.choice(SPECIAL, shape), rng.standard_normal(shape))
    return x.astype(np.float32)


def parts(arithmetic, seed: int, rows: int, size: int, length: int):
    """Results of every method for the first `rows` of 300, ``(rows, ...)``."""
    x, matrix = floats(seed, 300, size)[:rows], floats(seed + 1, 37, size)
    q, heads = floats(seed + 2, 300, 6, size)[:rows], (length, 2, size)
    k, v = floats(seed + 3, *heads), floats(seed + 4, *heads)
    scores = arithmetic.scores(q, k, 1 / math.sqrt(size))
    pattern = arithmetic.softmax(scores)
    weight = arithmetic.weight(matrix, "w")
    return {
        "linear": arithmetic.linear(x, weight),
        "mean_square": arithmetic.mean_square(x),
        "scores": scores.swapaxes(0, 1),
        "softmax": pattern.swapaxes(0, 1),
        "weighted_sum": arithmetic.weighted_sum(pattern, v),
        "exp": arithmetic.exp(x),
        "sin": arithmetic.sin(x.astype(np.float64)),
    }


def changing(arithmetic, seed: int, size: int, length: int) -> set[str]:
    """Methods that give a row other bits among some rows than among all."""
    whole = parts(arithmetic, seed, max(ROWS), size, length)
    found = set()
    for rows in ROWS:
        for name, value in parts(arithmetic, seed, rows, size, length).items():
            if not same_bits(value, whole[name][:rows]):
                found.add(name)
    return found


def test_the_backend_is_compiled():
    assert type(OURS) is NumbaFloat32
    assert OURS.name == "float32"


@settings(max_examples=15)
@given(seed=seeds, size=st.integers(1, 2 * BLOCK + 9), length=st.integers(1, 70))
def test_a_row_has_the_same_bits_among_any_rows(seed, size, length):
    assert changing(OURS, seed, size, length) == set()


def test_rows_differ_under_plain_float32():
    found = set.union(*(changing(PLAIN, seed, 173, 65) for seed in range(3)))
    assert {"linear", "scores", "weighted_sum"} & found


@given(
    seed=seeds,
    rows=st.integers(1, 9),
    size=st.integers(1, 40),
    before=st.integers(0, BLOCK),
    seen=st.integers(1, 2 * BLOCK),
    after=st.integers(0, 40),
)
def test_hidden_keys_change_no_bit(seed, rows, size, before, seen, after):
    q, length = floats(seed, rows, 4, size), before + seen + after
    k, v = floats(seed + 1, length, 2, size), floats(seed + 2, length, 2, size)
    part = slice(before, before + seen)
    alone = OURS.scores(q, k[part], 0.3)
    scores = OURS.scores(q, k, 0.3)
    assert_same_bits(scores[..., part], alone)
    scores[..., :before] = scores[..., before + seen :] = -np.inf
    pattern = OURS.softmax(scores)
    assert_same_bits(pattern[..., part], OURS.softmax(alone))
    assert not pattern[..., :before].any()
    assert not pattern[..., before + seen :].any()
    assert_same_bits(OURS.weighted_sum(pattern, v), OURS.weighted_sum(pattern[..., part], v[part]))


@given(seed=seeds, window=st.none() | st.integers(1, 30), cut=st.integers(1, 79))
def test_attention_in_parts_has_the_bits_of_attention_at_once(seed, window, cut):
    q, positions = floats(seed, 80, 4, 12), np.arange(80)
    k, v = floats(seed + 1, 80, 2, 12), floats(seed + 2, 80, 2, 12)

    def attended(rows: slice, keys: slice) -> np.ndarray:
        sight = Sight(positions[rows], positions[keys], window)
        return OURS.attention(q[rows], k[keys], v[keys], sight, 0.3)

    every, head, tail, one = slice(80), slice(cut), slice(cut, 80), slice(cut, cut + 1)
    whole = attended(every, every)
    assert_same_bits(attended(head, head), whole[head])
    assert_same_bits(attended(tail, every), whole[tail])
    assert_same_bits(attended(one, every), whole[one])


def cached(rows: np.ndarray) -> np.ndarray:
    """``(S, G, d)`` as the full cache has it: head by head, with room behind each."""
    buffer = np.full((rows.shape[1], len(rows) + 3, rows.shape[2]), np.nan, np.float32)
    buffer[:, : len(rows)] = rows.swapaxes(0, 1)
    return buffer[:, : len(rows)].swapaxes(0, 1)


@settings(max_examples=40)
@given(
    seed=seeds,
    tokens=st.integers(1, 40),
    before=st.integers(0, 2 * KEYS),
    groups=st.integers(1, 2),
    share=st.integers(1, 5),
    width=st.sampled_from([1, 12, 32, 64]),
    window=st.none() | st.integers(1, 30),
    watched=st.booleans(),
)
def test_attention_in_one_kernel_has_the_bits_of_its_parts(
    seed, tokens, before, groups, share, width, window, watched
):
    length = before + tokens
    q = floats(seed, tokens, groups * share, width)
    k, v = (cached(floats(seed + i, length, groups, width)) for i in (1, 2))
    sight = Sight(np.arange(before, length), np.arange(length), window)
    seen: list[tuple] = []
    watch = Watch(observe=lambda *given: seen.append(given)) if watched else Watch()
    got = OURS.attention(q, k, v, sight, 0.3, watch)
    from_kernel = seen
    seen = []
    assert_same_bits(got, Arithmetic.attention(OURS, q, k, v, sight, 0.3, watch))
    assert len(from_kernel) == len(seen) == watched * -(-tokens // OURS.query_block)
    for (positions, pattern), (expected_positions, expected) in zip(from_kernel, seen, strict=True):
        assert np.array_equal(positions, expected_positions)
        assert_same_bits(pattern, expected)


def test_heads_of_unlike_sight_are_left_to_the_parts():
    """The second K/V head holds other tokens than the first: its query sees one key fewer."""
    q, k, v = floats(1, 1, 4, 32), floats(2, 5, 2, 32), floats(3, 5, 2, 32)
    positions = np.array([[0, 0], [1, 1], [2, 2], [3, 3], [4, 9]])
    sight = Sight(np.array([4]), positions)
    got = OURS.attention(q, k, v, sight, 0.3)
    for heads, group, length in ((slice(2), 0, 5), (slice(2, 4), 1, 4)):
        part = slice(group, group + 1)
        alone = Sight(np.array([4]), np.arange(length))
        expected = OURS.attention(q[:, heads], k[:length, part], v[:length, part], alone, 0.3)
        assert_same_bits(got[:, heads], expected)


@given(seed=seeds, length=st.integers(1, 3000))
def test_a_softmax_has_the_same_bits_in_any_order(seed, length):
    scores = floats(seed, 1, 2, length) * np.float32(5)
    order = np.random.default_rng(seed).permutation(length)
    assert_same_bits(OURS.softmax(scores[..., order]), OURS.softmax(scores)[..., order])


def test_order_changes_a_softmax_of_plain_float32():
    scores = floats(0, 1, 50, 3000) * np.float32(5)
    order = np.random.default_rng(0).permutation(3000)
    assert not same_bits(PLAIN.softmax(scores[..., order]), PLAIN.softmax(scores)[..., order])


def test_a_softmax_s_total_keeps_its_digits_and_its_room():
    """Of 2**20 equal keys each weighs 2**-20; 2**-42 counts, less than half of it does not."""
    assert (OURS.softmax(np.zeros((1, 1, 2**20), np.float32)) == 2.0**-20).all()
    scores = np.zeros((1, 1, 2**19 + 1), np.float32)
    for weight, total in ((2.0**-42, 1 + 2.0**-23), (2.0**-42 / 2.5, 1.0)):
        scores[..., 1:] = math.log(weight)
        assert OURS.softmax(scores)[0, 0, 0] == np.float32(1 / total)


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 70])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_parts_of_a_block_have_the_bits_of_their_operations(rows, activation):
    for seed, width in ((1, 1), (2, 30), (3, 64), (4, 577)):
        x, other = floats(seed, rows, width), floats(seed + 1, rows, width)
        weight = floats(seed + 2, width)
        weight.flags.writeable = False  # as those of a file
        got = OURS.rms_norm(x, weight, 1e-5)
        assert_same_bits(got, Arithmetic.rms_norm(OURS, x, weight, 1e-5))
        got = OURS.gated(x * 9, other, activation)
        assert_same_bits(got, Arithmetic.gated(OURS, x * 9, other, activation))
        heads = floats(seed + 3, rows, 3, 2 * width)
        cos, sin = floats(seed + 4, rows, 1, 2 * width), floats(seed + 5, rows, 1, 2 * width)
        got = OURS.rope(heads, cos, sin)
        assert_same_bits(got, Arithmetic.rope(OURS, heads, cos, sin))


@given(seed=seeds, size=st.integers(1, 700))
def test_a_mean_of_squares_is_rounded_once(seed, size):
    x = floats(seed, 2, size)
    true = np.mean(x.astype(np.float64) ** 2, axis=-1, keepdims=True)
    assert_same_bits(OURS.mean_square(x), true.astype(np.float32))


@given(seed=seeds, length=st.integers(1, 100), cut=st.integers(0, 99))
def test_exp_does_not_depend_on_the_place_in_an_array(seed, length, cut):
    x = np.clip(floats(seed, length) * np.float32(30), -80, 80)
    assert_same_bits(OURS.exp(x)[cut:], OURS.exp(x[cut:]))
    assert_same_bits(OURS.exp(x)[::2], OURS.exp(x[::2]))
    true = np.exp(x.astype(np.float64))
    assert (abs(OURS.exp(x) - true) <= np.spacing(true.astype(np.float32))).all()


def test_exp_at_the_edges():
    got = OURS.exp(np.array([np.nan, np.inf, -np.inf, 0.0, 100.0, -1000.0], np.float32))
    assert np.array_equal(got, np.array([np.nan, np.inf, 0, 1, np.inf, 0], np.float32), True)
    smallest = np.float32(2.0**-149)
    got = OURS.exp(np.array([-104.0, -103.9, 88.7, 88.75], np.float32))
    assert np.array_equal(got[[0, 1, 3]], [0.0, smallest, np.inf])
    assert abs(got[2] / math.exp(np.float32(88.7)) - 1) < 2.0**-23
    gate, up = np.float32([[[-200.0]], [[3.0]]])
    assert OURS.gated(gate, up, "silu") == 0  # exp overflows silently


@given(seed=seeds, rows=st.integers(1, 20), size=st.integers(1, 500), length=st.integers(1, 60))
def test_errors_obey_highams_bound(seed, rows, size, length):
    """gamma_n (|x| @ |w|.T), gamma_n = n u / (1 - n u), u = 2**-24, as for `Float32`; products that
    underflow add the smallest number each."""

    def within(got, x, w):
        n = x.shape[-1]
        gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
        x, w = x.astype(np.float64), w.astype(np.float64)
        bound = gamma * (abs(x) @ abs(w).swapaxes(-1, -2)) + n * 2.0**-149
        assert (abs(got - x @ w.swapaxes(-1, -2)) <= bound).all()

    x, w = floats(seed, rows, size), floats(seed + 1, 33, size)
    within(OURS.linear(x, OURS.weight(w, "w")), x, w)
    q, k = floats(seed, rows, 2, size), floats(seed + 1, length, 2, size)
    scores = OURS.scores(q, k, 1.0)
    within(scores, q.swapaxes(0, 1), k.swapaxes(0, 1))
    pattern = OURS.softmax(scores)
    within(OURS.weighted_sum(pattern, k).swapaxes(0, 1), pattern, k.transpose(1, 2, 0))
    true = scores.astype(np.float64)
    true = np.exp(true - true.max(-1, keepdims=True))
    true /= true.sum(-1, keepdims=True)
    # score - max is rounded (relative u, so |score - max| u of exp), exp and quotient too
    spread = np.ptp(scores.astype(np.float64), axis=-1, keepdims=True)
    bound = (2 * spread + 6) * 2.0**-24 * true + 2.0**-148
    assert (abs(pattern - true) <= bound).all()


@pytest.mark.parametrize("theorem", HELD)
def test_theorem_holds(theorem):
    check, windowed = THEOREMS[theorem].check, THEOREMS[theorem].windowed

    @settings(max_examples=20)
    @given(case=cases(max_layers=3, windowed=windowed))
    def holds(case):
        check(replace(case, arithmetic="float32", backend="numba"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumbaFloat32, "query_block", 8)  # so that short texts have several blocks
        holds()


def real_text(backend: str) -> Case:
    """The tiny fixture, 100 tokens, in calls of several lengths."""
    rng = np.random.default_rng(0)
    vocab = minikv.load(TINY).config.vocab_size
    texts = (tuple(rng.integers(0, vocab, 100).tolist()) for _ in "ab")
    return Case(str(TINY), *texts, (1, 31, 7, 1, 1, 19, 40), 5, 1.0, "float32", backend)


@functools.cache
def refuted(theorem: str, backend: str) -> bool:
    try:
        THEOREMS[theorem].check(real_text(backend))
    except Refuted:
        return True
    return False


@pytest.mark.parametrize("theorem", BROKEN)
def test_theorems_on_the_fixture_fail_for_plain_float32_alone(theorem):
    assert refuted(theorem, "numpy")
    assert not refuted(theorem, "numba")


def test_order_does_matter():
    # T7 is not promised: the order is fixed, and another one gives other bits.
    with pytest.raises(Refuted, match="columns permuted"):
        THEOREMS["T7"].check(real_text("numba"))


@pytest.mark.parametrize("policy", ["full", "none", "residual"])
def test_chunks_batches_and_caches_give_the_same_bits(policy):
    assert policy in POLICIES
    case = real_text("numba")
    for chunks in ((100,), (1,) * 100, (33, 1, 1, 32, 33)):
        assert_same_bits(
            replace(case, chunks=chunks).decoded(case.model.new_cache(policy)), case.logits
        )
    batch = case.model.forward([case.other[:9], case.ids, case.other], logits="all")
    assert_same_bits(batch[9:109], case.logits)


def test_threads_change_no_bit():
    case, threads = real_text("numba"), numba.get_num_threads()
    numba.set_num_threads(1)
    alone = case.model.logits(case.ids)
    numba.set_num_threads(threads)
    assert_same_bits(alone, case.logits)


def test_weights_are_packed_and_their_last_panel_is_filled_up():
    weight = OURS.weight(floats(3, 100, 20), "w")
    assert isinstance(weight, Packed)
    assert OURS.linear(floats(4, 5, 20), weight).shape == (5, 100)


def test_a_tied_embedding_is_held_once_and_looked_up_in_its_panels():
    config = minikv.tiny_config(vocab_size=97, tie_word_embeddings=True)
    tied = minikv.random_model(config, 1, "float32", backend="numba").weights
    assert tied.embed_tokens is tied.lm_head
    assert tied.embed_tokens.shape == (97, config.hidden_size)
    rows = minikv.random_tensors(config, 1)["model.embed_tokens.weight"]
    ids = np.array([96, 0, 31, 32, 96])
    assert_same_bits(OURS.lookup(tied.embed_tokens, ids), rows[ids])
    assert_same_bits(OURS.lookup(rows, ids), rows[ids])


def test_the_command_line_uses_it(capsys):
    texts = []
    for backend in ("numba", "numpy"):
        command = ["generate", "Hello", "--model", str(TINY), "--max-new-tokens", "6"]
        assert main([*command, "--backend", backend]) == 0
        texts.append(capsys.readouterr())
    assert texts[0].out == texts[1].out
    assert "NumPy takes its place" not in texts[0].err


def test_a_failed_import_falls_back_to_plain_float32_and_says_what_is_lost(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert type(get_backend("numba", "float32", 64)) is NumpyFloat32
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "(the extra minikv[numba])" in err
    assert "NumPy takes its place, whose bits vary by batch" in err


def test_an_infinite_value_makes_nan_of_a_row_that_does_not_see_it():
    """As 0 times infinity: everywhere in float32."""
    q, k, v = (floats(seed, 4, 2, 8) for seed in (5, 6, 7))
    v[3] = np.inf
    sight = Sight(np.arange(4), np.arange(4))
    for arithmetic in (OURS, PLAIN):
        assert np.isnan(arithmetic.attention(q, k, v, sight, 0.3)[:3]).all()


def test_a_saved_cache_is_loaded_by_numpys_float32(tmp_path):
    ours, plain = (minikv.load(TINY, "float32", backend=name) for name in ("numba", "numpy"))
    assert isinstance(ours.weights.arithmetic, NumbaFloat32)
    assert not isinstance(plain.weights.arithmetic, NumbaFloat32)
    cache, loaded = ours.new_cache(), plain.new_cache()
    ours.forward([[1, 2, 3]], [cache])
    cache.save(tmp_path / "a.cache")
    loaded.load(tmp_path / "a.cache")
    assert loaded.seen == 3


def test_the_benchmark_of_rows_names_each_matrix_its_distance_and_its_clock(capsys, monkeypatch):
    from benchmarks import row_invariant

    shapes = {"q": (64, 576, 2), "logits": (80, 576, 1)}
    monkeypatch.setattr(row_invariant, "SHAPES", shapes)
    clocks = []

    def turns(pairs, x, rounds, clock, rest):
        clocks.append(clock)
        return {name: [(1.0, 2.0)] * 3 for name in pairs}

    monkeypatch.setattr(row_invariant, "turns", turns)
    assert row_invariant.main(["--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert "rows that change, ours | BLAS | error, ours | BLAS" in said
    assert all(f"\n| {name} | none |" in said for name in shapes)
    assert clocks == [time.process_time] * 2 + [time.perf_counter] * 2


@pytest.mark.parametrize(("rows", "columns"), [(8, 2), (8, 1), (4, 2), (1, 2), (3, 5)])
@pytest.mark.parametrize("vectors", [1, 2, 4, 8, 16])
def test_tiles_in_registers_are_all_cells_once_and_fit(rows, columns, vectors):
    tiles = list(in_registers(rows, columns, vectors))
    cells = [cell for tile in tiles for cell in tile]
    assert sorted(cells) == [(r, c) for r in range(rows) for c in range(columns)]
    assert all(len(tile) <= vectors for tile in tiles)


def test_registers_hold_a_tile_with_avx_512_and_a_quarter_of_it_without():
    def tiles(features):
        codegen = SimpleNamespace(magic_tuple=lambda: ("", "", features))
        held = bytes_held(SimpleNamespace(codegen=lambda: codegen))
        return [
            len(tile) * LANES for tile in in_registers(TILE, PANEL // LANES, held // (4 * LANES))
        ]

    assert tiles("+avx2,+avx512f,+fma") == [256]
    assert tiles("+avx2,-avx512f,+fma") == tiles("") == [64] * 4


@pytest.mark.parametrize("carried", [False, True])
def test_no_sum_depends_on_how_many_registers_hold(monkeypatch, carried):
    """The product's tile, and attention's, whose chains start from what is there."""
    x, w, before = floats(0, TILE, 50), floats(1, 50, PANEL), floats(2, TILE, PANEL)

    @numba.njit
    def one_by_one(x, w, out):
        for r in range(TILE):
            for c in range(PANEL):
                total = out[r, c] if carried else np.float32(0)
                for i in range(50):
                    total = _fma(x[r, i], w[i, c], total)
                out[r, c] = total if carried else out[r, c] + total

    expected = before.copy()
    one_by_one(x, w, expected)
    for held in (64, 256, 1024):
        monkeypatch.setattr(numba_tile, "bytes_held", lambda context, held=held: held)
        added = chains(TILE, LANES, PANEL // LANES, carried)

        @numba.njit
        def add(x, w, out, added=added):
            added(x.ctypes.data, 50, 1, w.ctypes.data, PANEL, out.ctypes.data, PANEL, 50, 0)

        out = before.copy()
        add(x, w, out)
        assert_same_bits(out, expected)


def test_a_fused_multiply_add_is_rounded_once():
    @numba.njit
    def fused(a, b, c):
        return _fma(a, b, c)

    a = np.float32(1 + 2**-12)
    c = np.float32(-1 - 2**-11)
    assert a * a + c == 0  # the square, rounded before
    assert fused(a, a, c) == 2.0**-24
