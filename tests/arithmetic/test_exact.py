"""The exact arithmetic, operation by operation: same bits in any shape, and how close it is.

What orders of addition can do to it is in ``proofs/test_t07_order.py``, row by row in
``proofs/test_t06_rows.py``; here are the parts, the error bounds, and bad values.
"""

from __future__ import annotations

import math
import types
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest
from bits import assert_same_bits
from threadpoolctl import threadpool_limits

from minikv.arithmetic import Exact, NumpyExact, exact
from minikv.errors import ArithmeticRangeError

ARITHMETIC = NumpyExact(context=1024)
STRICT = Exact(context=1024, xp=array_api_strict)
T, D, N, H, G, d, S = 37, 576, 192, 9, 3, 64, 300  # heads and widths of SmolLM-135M
SCALE = 1 / math.sqrt(d)


def draw(*shape: int, seed: int = 0, heavy: bool = False) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    values = rng.standard_t(2, shape) if heavy else rng.normal(size=shape)
    return values.astype(np.float32)


def attend(arithmetic, q, k, v, visible):
    """Scores, pattern and result, with the keys that are not visible masked."""
    xp = arithmetic.xp
    scores = arithmetic.scores(q, k, 1 / math.sqrt(q.shape[-1]))
    scores = xp.where(visible, scores, xp.asarray(-math.inf, dtype=scores.dtype))
    pattern = arithmetic.softmax(scores)
    return scores, pattern, arithmetic.weighted_sum(pattern, v)


def causal(tokens: int, length: int) -> np.ndarray:
    return np.tri(tokens, length, length - tokens, dtype=bool)


X, W = draw(T, D, heavy=True), draw(N, D, seed=1)
WEIGHT = ARITHMETIC.weight(W, "model.layers.3.self_attn.q_proj")
Q, K, V = draw(T, H, d), ARITHMETIC.settle(draw(S, G, d, seed=2)), draw(S, G, d, seed=3)
V = ARITHMETIC.settle(V * 2.0 ** np.random.default_rng(4).integers(-9, 9, (S, G, 1)).astype("f4"))


# --- the two steps everything is built from


def test_power_below_is_the_leading_bit():
    powers = 2.0 ** np.arange(-900.0, 900)
    mantissas = np.random.default_rng(0).uniform(1, 2, powers.size)
    for y in (powers, powers * mantissas, np.nextafter(powers, 0), np.nextafter(powers, np.inf)):
        assert (exact.power_below(y) == np.ldexp(0.5, np.frexp(y)[1])).all()
    assert exact.power_below(0.0) == 0.0
    assert exact.power_below(float(powers[3] * 1.7)) == powers[3]  # Python floats do the same


def test_float64_holds_every_integer_up_to_2_to_the_53_and_not_the_next():
    assert [int(float(n)) for n in range(2**53 - 4, 2**53 + 1)] == list(range(2**53 - 4, 2**53 + 1))
    assert int(float(2**53 + 1)) == 2**53


def test_round_is_rint_on_the_grid():
    x = np.concatenate([draw(500).astype(float) * 1e3, np.arange(-20, 20) / 2, [0.0, -0.0]])
    for grid in (2.0**-20, 1.0, 4.0):
        expected = np.rint(x / grid) * grid + 0.0
        assert_same_bits(exact.round_to(x.copy(), grid), expected)


# --- same bits


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 36])
def test_linear_does_not_depend_on_chunking(size, threads):
    whole = ARITHMETIC.linear(X, WEIGHT)
    with threadpool_limits(threads):
        parts = [ARITHMETIC.linear(X[i : i + size], WEIGHT) for i in range(0, T, size)]
    assert_same_bits(np.concatenate(parts), whole)


def test_linear_does_not_depend_on_batch_layout_or_neighbours():
    order = np.random.default_rng(1).permutation(T)
    whole = ARITHMETIC.linear(X, WEIGHT)
    assert_same_bits(ARITHMETIC.linear(X[order], WEIGHT), whole[order])
    assert_same_bits(ARITHMETIC.linear(np.asfortranarray(X), WEIGHT), whole)
    assert_same_bits(ARITHMETIC.linear(np.concatenate([X * 1e6, X]), WEIGHT)[T:], whole)


def test_linear_does_not_depend_on_the_order_of_features_or_on_zero_features():
    order = np.random.default_rng(2).permutation(D)
    whole = ARITHMETIC.linear(X, WEIGHT)
    assert_same_bits(ARITHMETIC.linear(X[:, order], ARITHMETIC.weight(W[:, order], "w")), whole)
    x, w = (np.pad(a, ((0, 0), (3, 500))) for a in (X, W))
    assert_same_bits(ARITHMETIC.linear(x, ARITHMETIC.weight(w, "w")), whole)


def test_linear_on_more_rows_than_it_takes_at_a_time():
    x = draw(2 * exact.MOST_ROWS + 1, D, heavy=True)
    whole = ARITHMETIC.linear(x, WEIGHT)
    for rows in (slice(0, 1), slice(100, 200), slice(2 * exact.MOST_ROWS, None)):
        assert_same_bits(ARITHMETIC.linear(x[rows], WEIGHT), whole[rows])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 36])
def test_attention_does_not_depend_on_chunking(size, threads):
    visible = causal(T, S)
    whole = attend(ARITHMETIC, Q, K, V, visible)[2]
    with threadpool_limits(threads):
        for start in range(0, T, size):
            rows = slice(start, start + size)
            seen = S - T + min(start + size, T)  # a chunk has no later keys to mask
            part = attend(ARITHMETIC, Q[rows], K[:seen], V[:seen], visible[rows, :seen])[2]
            assert_same_bits(part, whole[rows])


def test_attention_does_not_depend_on_hidden_keys_whatever_they_hold():
    whole = attend(ARITHMETIC, Q, K, V, np.ones((T, S), bool))[2]
    kept = np.sort(np.random.default_rng(3).permutation(2 * S)[:S])
    k, v = ARITHMETIC.settle(1e30 * draw(2 * S, G, d)), ARITHMETIC.settle(1e30 * draw(2 * S, G, d))
    k[kept], v[kept] = K, V
    visible = np.zeros((T, 2 * S), bool)
    visible[:, kept] = True
    assert_same_bits(attend(ARITHMETIC, Q, k, v, visible)[2], whole)


def test_attention_does_not_depend_on_the_order_of_keys():
    order = np.random.default_rng(5).permutation(S)
    visible = causal(T, S)
    _, pattern, z = attend(ARITHMETIC, Q, K, V, visible)
    shuffled = attend(ARITHMETIC, Q, K[order], V[order], visible[:, order])
    assert_same_bits(shuffled[1], pattern[..., order])
    assert_same_bits(shuffled[2], z)


def test_another_array_library_gives_the_same_bits():
    strict = array_api_strict.asarray
    weight = STRICT.weight(W, "w")
    assert_same_bits(STRICT.linear(strict(X), weight), ARITHMETIC.linear(X, WEIGHT))
    assert_same_bits(STRICT.linear(strict(X[:1]), weight), ARITHMETIC.linear(X[:1], WEIGHT))
    assert_same_bits(STRICT.mean_square(strict(X)), ARITHMETIC.mean_square(X))
    assert_same_bits(STRICT.settle(strict(V / 3)), ARITHMETIC.settle(V / 3))
    visible = causal(T, S)
    theirs = attend(STRICT, strict(Q), strict(K), strict(V), strict(visible))
    for ours, other in zip(attend(ARITHMETIC, Q, K, V, visible), theirs, strict=True):
        assert_same_bits(other, ours)
    angles = draw(50).astype(np.float64) * 1000
    for name in ("exp", "sin", "cos"):
        assert_same_bits(getattr(STRICT, name)(strict(angles)), getattr(ARITHMETIC, name)(angles))


# --- the grid, where orders of addition could disagree about it


def rounded_rows(rows: np.ndarray, bits: int) -> np.ndarray:
    size = np.abs(rows)
    grid = ARITHMETIC.grid(size, np.sum(size, axis=-1, keepdims=True), bits)
    return exact.round_to(rows.copy(), grid) / grid


@pytest.mark.parametrize("bits", [29, 32])
@pytest.mark.parametrize("terms", [1, 2, 3, 64, 2**12])
def test_grid_is_the_finest_within_a_factor_of_four(terms, bits):
    rows = draw(20, terms, heavy=True).astype(np.float64)
    norms = np.abs(rounded_rows(rows, bits)).sum(axis=1)
    assert (norms <= 2.0**bits).all()
    assert (norms > 2.0 ** (bits - 2)).all()


@pytest.mark.parametrize("terms", [2**20, 2**18 + 1])
def test_grid_holds_its_bound_when_the_longest_sum_rounds_up_everywhere(terms):
    # On a grid of 32, 16.5 rounds up by nearly half a step; the first number brings the sum as
    # close to the next grid as it can be.
    rows = np.full((1, terms), 16.5)
    rows[0, 0] += 32 * 2.0**29 / (1 + 2.0**-9) * (1 - 2.0**-28) - rows.sum()
    integers = rounded_rows(rows, 29)
    assert (integers[0, 1:] == 1).all()
    assert 2.0**29 * (1 - 2.0**-9) <= integers.sum() <= 2.0**29


@pytest.mark.parametrize("distance", range(9, 30, 2))
def test_grid_holds_its_bound_however_close_the_longest_sum_comes_to_the_next(distance):
    """Whatever is taken for what roundings add, a sum can lie just within it."""
    rows = np.full((1, 2**20), 16.5)
    rows[0, 0] += 32 * 2.0**29 * (1 - 2.0**-distance) - rows.sum()
    whole = Exact.grid(ARITHMETIC, rows, ARITHMETIC.total(rows), 29)
    for grid in (whole, ARITHMETIC.grid(rows, ARITHMETIC.row_sum(rows), 29)):
        integers = exact.round_to(rows.copy(), grid) / grid
        assert integers.sum() <= 2.0**29


def close_call(bits: int = 32) -> np.ndarray:
    """A row whose sum, added forwards and backwards, lies on both sides of a change of grid."""
    rng = np.random.default_rng(6)
    scale = (1 + 2.0**-9) * 2.0**-bits
    while True:
        row = rng.uniform(0.5, 1.5, 40)
        row[20] += 64 / (1 + 2.0**-9) - math.fsum(row)  # sum * scale is about a power of two
        sums = [np.add.accumulate(x)[-1] * scale for x in (row, row[::-1])]
        if exact.power_below(sums[0]) != exact.power_below(sums[1]):
            return row


def test_orders_that_disagree_about_the_grid_are_overruled_by_the_true_sum():
    row = close_call()
    grids = set()
    for x in (row, row[::-1]):
        norm = np.add.accumulate(x)[-1:].reshape(1, 1)  # strictly one after the other
        grids.add(float(ARITHMETIC.grid(x[None], norm, 32)[0, 0]))
        grids.add(float(ARITHMETIC.grid(x[None], float(norm[0, 0]), 32)[0, 0]))
        pair = ARITHMETIC.grid(np.stack([x, x]), np.repeat(norm, 2, 0), 32)
        grids |= set(pair[:, 0].tolist())
    assert len(grids) == 1
    bits = math.fsum(row) * (1 + 2.0**-9)
    assert grids == {2 * exact.power_below(bits) * 2.0**-32}


def test_a_row_in_doubt_beside_one_that_is_not_gets_its_grid():
    row, grids = close_call(), set()
    for x in (row, row[::-1]):
        sums = np.array([[np.add.accumulate(x)[-1]], [float(len(x))]])
        grids.add(float(ARITHMETIC.grid(np.stack([x, np.ones_like(x)]), sums, 32)[0, 0]))
    assert len(grids) == 1


@pytest.mark.parametrize("terms", [1, 2, 3, 64, 4097, 2**20])
def test_total_knows_no_order_and_is_next_to_the_true_sum(terms):
    rng = np.random.default_rng(terms)
    wide = np.abs(rng.normal(size=terms)) * 2.0 ** rng.integers(-60, 60, terms)
    for row in (wide, rng.uniform(1, 2, terms)):
        orders = (row, row[::-1], np.sort(row), *(rng.permutation(row) for _ in range(10)))
        totals = {float(ARITHMETIC.total(x[None])[0, 0]) for x in orders}
        totals.add(float(STRICT.total(array_api_strict.asarray(row[None]))[0, 0]))
        assert len(totals) == 1
        assert abs(totals.pop() - math.fsum(row)) <= 2.0**-41 * math.fsum(row)
    assert ARITHMETIC.total(np.zeros((1, terms)))[0, 0] == 0.0


def test_a_total_has_the_grids_of_the_specification():
    """Of a row whose power is 1: coarse 2**-30, fine 2**-61, ties to even on both."""
    for library in (ARITHMETIC, STRICT):
        for number, high, low in (
            (1.5 * 2.0**-30, 2.0**-29, -(2.0**-31)),
            (2.5 * 2.0**-30, 2.0**-29, 2.0**-31),
            (1.5 * 2.0**-61, 0.0, 2.0**-60),
            (2.5 * 2.0**-61, 0.0, 2.0**-60),
            (1.25 * 2.0**-61, 0.0, 2.0**-61),
        ):
            row = library.xp.asarray([[1.0, number]], dtype=library.xp.float64)
            top = library.xp.asarray([[1.0]], dtype=library.xp.float64)
            sums = library.coarse_and_fine(row, top)
            assert [float(one[0, 0]) for one in sums] == [1.0 + high, low]


def test_a_total_on_a_grid_too_fine_would_know_the_order(monkeypatch):
    rng = np.random.default_rng(9)
    row = rng.uniform(size=4097)
    monkeypatch.setattr(exact, "ROUND", exact.ROUND * 2.0**-24)
    totals = {float(ARITHMETIC.total(rng.permutation(row)[None])[0, 0]) for _ in range(100)}
    assert len(totals) > 1


@pytest.mark.parametrize(
    "distance", [0.0, *(sign * 2.0**-k for k in (20, 29, 30, 31, 33, 40, 52) for sign in (-1, 1))]
)
def test_where_sums_are_in_doubt_and_where_not_every_library_has_the_same_grid(distance):
    # NumPy asks `total` within 2**-30 of a change of grid; others, who do not ask, have no other.
    row = np.random.default_rng(8).uniform(0.5, 1.5, 40)
    row[20] += 64 / (1 + 2.0**-9) * (1 + distance) - math.fsum(row)
    grids = set()
    for x in (row, row[::-1]):
        for arithmetic in (ARITHMETIC, STRICT):
            size = arithmetic.xp.asarray(np.ascontiguousarray(x)[None])
            grids.add(float(np.asarray(arithmetic.grid(size, arithmetic.row_sum(size), 32)).item()))
    assert len(grids) == 1


@pytest.mark.parametrize("terms", [2**14, 2**20])
def test_long_rows_added_one_after_the_other_have_the_same_grid_as_elsewhere(terms):
    # NumPy adds along the first axis in memory, here number after number, and the sum is wrong by
    # many last places: half of them before a change of grid, half behind it.
    rest = np.full(terms - 1, 1.3)
    wrong = float(np.add.accumulate(rest)[-1]) - math.fsum(rest)
    change = 2.0 * terms / (1 + 2.0**-9)
    assert abs(wrong) > 2.0**-43 * change
    row = np.append(rest, change - wrong / 2 - math.fsum(rest))
    rows = np.asfortranarray(np.stack([row, row]))
    assert (np.sum(rows, axis=1)[0] > change) != (math.fsum(row) > change)
    other = array_api_strict.asarray(row[None])
    grid = ARITHMETIC.grid(rows, ARITHMETIC.row_sum(rows), 32)[0, 0]
    assert grid == float(STRICT.grid(other, STRICT.row_sum(other), 32)[0, 0])


def test_weights_have_the_bits_that_their_bound_allows():
    matrix = np.concatenate([W, np.nextafter(np.float32([[2.0] * D]), np.float32(0))])
    values = ARITHMETIC.weight(matrix, "w").values
    power = 2.0 ** np.frexp(np.abs(matrix).max(axis=1, keepdims=True))[1].astype(np.float64)
    integers = values / power * 2.0**21
    assert (integers == np.rint(integers)).all()
    assert np.abs(integers).max() == 2.0**21


def test_the_longest_mean_of_the_worst_squares_is_exact():
    # All squares next to the largest, just below a power of two: the sum is next to its bound.
    x = np.random.default_rng(7).uniform(1.41, 1.4142135, (1, 2**20)).astype(np.float32)
    square = x.astype(np.float64) ** 2
    rounded = np.rint(square * 2.0**32) * 2.0**-32
    assert ARITHMETIC.mean_square(x)[0, 0] == math.fsum(rounded[0]) * 2.0**-20


def test_weights_of_either_sign_are_summed_exactly():
    # Not what softmax makes, but what a hook may: the bound is on absolute values.
    pattern = np.random.default_rng(8).random((H, T, S))
    order = np.random.default_rng(9).permutation(2 * S)
    pattern, v = np.concatenate([pattern, -pattern], axis=-1), np.concatenate([V, V])
    assert (ARITHMETIC.weighted_sum(pattern[..., order], v[order]) == 0).all()


@pytest.mark.parametrize("power", [-80, 60])
def test_powers_of_two_go_straight_through(power):
    factor = np.float32(2.0**power)
    whole = ARITHMETIC.linear(X, WEIGHT)
    assert_same_bits(ARITHMETIC.linear(X * factor, WEIGHT), whole * factor)
    assert_same_bits(ARITHMETIC.linear(X, ARITHMETIC.weight(W * factor, "w")), whole * factor)
    assert_same_bits(ARITHMETIC.settle(V / 3 * factor), ARITHMETIC.settle(V / 3) * factor)
    pattern = attend(ARITHMETIC, Q, K, V, causal(T, S))[1]
    z = ARITHMETIC.weighted_sum(pattern, V)
    assert_same_bits(ARITHMETIC.weighted_sum(pattern, V * factor), z * factor)
    assert_same_bits(
        ARITHMETIC.scores(Q * factor, K, SCALE), ARITHMETIC.scores(Q, K * factor, SCALE)
    )


# --- lengths and contexts past every threshold, rows at their bound

CONTEXTS = [1, 2, 3, 5, 2**13 - 1, 2**13, 2**13 + 1, 3 * 2**13, 40_960, 2**17, 2**20 - 1, 2**20]


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_denominators_grid_is_the_finest_that_the_context_allows(context):
    for arithmetic in (NumpyExact(context), Exact(context, array_api_strict)):
        bits = arithmetic.denominator_bits
        assert context * 2**bits <= 2**53
        assert bits == 40 or context * 2 ** (bits + 1) > 2**53


def unit(x: np.ndarray) -> float:
    """The largest power of two of which all numbers are multiples."""
    mantissa, exponent = np.frexp(x[x != 0])
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    return float(np.ldexp((whole & -whole).astype(np.float64), exponent - 53).min())


@pytest.mark.parametrize("terms", [1, 2, 3, 511, 513, 2047, 2049, 4096, 2**14 + 1, 2**16 + 3])
def test_a_product_of_a_row_at_its_bound_has_partial_sums_that_53_bits_hold(terms, monkeypatch):
    # The sum lies just below a change of grid, where it is of as many integers as ever, or just
    # above; all weights are odd and next to the largest.
    x = np.random.default_rng(terms).uniform(1, 1.9, (5, terms)).astype(np.float32)
    change = 2.0 ** math.ceil(math.log2(2 * terms)) / (1 + 2.0**-9)
    for row, distance in zip(x, (0.0, 2.0**-20, -(2.0**-20), 2.0**-8, -(2.0**-8)), strict=True):
        row[-1] = change * (1 + distance) - math.fsum(row[:-1])
    weight = ARITHMETIC.weight(np.full((1, terms), 2 - 2.0**-20, np.float32), "w")
    given = []

    def product(self, x, weight):
        given.append(x.copy())
        return x @ weight.values.T

    monkeypatch.setattr(NumpyExact, "product", product)
    ARITHMETIC.linear(x, weight)
    weights = Fraction(weight.values.max()) / Fraction(unit(weight.values))
    assert weights == 2**21 - 1
    for row in given[0]:
        integers = Fraction(math.fsum(np.abs(row))) / Fraction(unit(row))
        assert integers * weights <= 2**53
    most = max(math.fsum(np.abs(row)) / unit(row) for row in given[0])
    assert most > 2.0**32 * (1 - 2.0**-7) or terms <= 3  # the bound is nearly attained


@pytest.mark.parametrize("power", [-149, -140, -127, -126, -110, -101, -100, 0, 60, 96])
def test_whole_numbers_of_any_size_come_out_as_they_are(power):
    """Rows below 2**-100, subnormal ones, and ones next to the largest."""
    rng = np.random.default_rng(10)
    integers = rng.integers(-1000, 1000, (5, 64))
    x = np.ldexp(integers.astype(np.float64), power)
    w = rng.integers(-1000, 1000, (6, 64))
    single, weight = x.astype(np.float32), ARITHMETIC.weight(w.astype(np.float32), "w")
    assert (single == x).all()
    true = np.ldexp((integers @ w.T).astype(np.float64), power)
    strict = array_api_strict.asarray
    for arithmetic, given in ((ARITHMETIC, single), (STRICT, strict(single))):
        xp = arithmetic.xp
        linear = arithmetic.linear(given, arithmetic.weight(w.astype(np.float32), "w"))
        assert_same_bits(linear, true.astype(np.float32))
        squares = np.ldexp((integers**2).sum(axis=1, keepdims=True) / 64, 2 * power)
        assert_same_bits(arithmetic.mean_square(given), squares)
        q, k = given[:, None, :], xp.asarray(w[:, None, :].astype(np.float32))
        assert_same_bits(np.asarray(arithmetic.scores(q, k, 1.0))[0], true + 0.0)
        pattern = xp.asarray(rng.integers(0, 100, (1, 3, 5)) / 512.0)
        v = arithmetic.settle(given[:, None, :])
        assert_same_bits(np.asarray(v)[:, 0], single)
        z = np.asarray(arithmetic.weighted_sum(pattern, v))[:, 0]
        assert_same_bits(z, (np.asarray(pattern)[0] @ x).astype(np.float32))
    assert_same_bits(weight.values, w.astype(np.float64))


def test_rows_are_taken_512_at_a_time_and_those_of_a_matrix_256(monkeypatch):
    """Which bounds the float64 that they take; no bit depends on it."""
    taken = []

    class Watched(NumpyExact):
        def product(self, x, weight):
            taken.append(len(x))
            return super().product(x, weight)

        def row_tops(self, rows, name):
            taken.append(len(rows))
            return super().row_tops(rows, name)

    arithmetic = Watched(64)
    weight = arithmetic.weight(draw(513, 2), "w")
    assert taken == [256, 256, 1]
    for rows, expected in ((511, [511]), (512, [512]), (513, [512, 1]), (1025, [512, 512, 1])):
        taken.clear()
        arithmetic.linear(draw(rows, 2), weight)
        assert taken == expected


def test_two_float32_numbers_added_in_float64_and_rounded_are_their_float32_sum():
    """53 bits are 2 * 24 + 2 and more, so that the second rounding changes nothing."""
    a, b = draw(20_000, heavy=True, seed=1), draw(20_000, heavy=True, seed=2)
    b *= np.float32(2.0) ** np.random.default_rng(3).integers(-30, 30, 20_000).astype(np.float32)
    assert_same_bits((a.astype(np.float64) + b).astype(np.float32), a + b)


def test_prepared_values_are_integers_of_24_bits_times_their_power():
    prepared = ARITHMETIC.values(V)
    integers = prepared.rows / prepared.powers * 2.0**23
    assert (integers == np.rint(integers)).all()
    assert 2.0**23 <= np.abs(integers).max() < 2.0**24


def test_values_at_the_ends_of_float32_are_weighed():
    """Whose power of two is next to where it is clipped: and a row of zeros, which has none."""
    largest, smallest = np.finfo(np.float32).max, np.float32(2.0**-149)
    one = np.ones((1, 1, 1))
    for arithmetic in (ARITHMETIC, STRICT):
        for value in (largest, -largest, smallest, -smallest, np.float32(2.0**-126)):
            v = arithmetic.xp.asarray(np.full((1, 1, 2), value))
            z = arithmetic.weighted_sum(arithmetic.xp.asarray(one), v)
            assert_same_bits(z, np.full((1, 1, 2), value))
        rows = arithmetic.xp.asarray(np.array([[[0.0, 0.0]], [[largest, smallest]]], np.float32))
        weights = arithmetic.xp.asarray(np.array([[[0.5, 0.5]]]))
        z = arithmetic.weighted_sum(weights, rows)
        assert_same_bits(z, np.array([[[largest / 2, 0.0]]], np.float32))


# --- distance to the true value: inequalities that follow from the grids

HALF = 2.0**-24  # a float32 rounding, relative


def test_linear_error():
    # A grid is at most twice what it rounds to, so x is off by at most L1(x) * 1.01 * 2**-32 and
    # w by max|w| * 2**-21; they meet L1(w) and L1(x) * 1.01. Then one rounding to float32.
    x, w = X.astype(np.float64), W.astype(np.float64)
    true = np.array([[math.fsum(row * column) for column in w] for row in x])
    norm = np.abs(x).sum(1)[:, None]
    bound = norm * 1.01 * (2.0**-32 * np.abs(w).sum(1) + 2.0**-21 * np.abs(w).max(1))
    assert (np.abs(ARITHMETIC.linear(X, WEIGHT) - true) <= bound + HALF * np.abs(true)).all()


def test_mean_square_error():
    # The grid is at most 2**-32 of the largest square; each square is off by at most half of it.
    x = X.astype(np.float64)
    true = np.array([[math.fsum(row * row) / D] for row in x])
    bound = 2.0**-33 * (x * x).max(1, keepdims=True) + 2.0**-52 * true
    assert (np.abs(ARITHMETIC.mean_square(X) - true) <= bound).all()


def test_settle_error():
    # The grid is the last place of the largest number: half of it is at most 2**-24 of that.
    x = draw(50, G, d, heavy=True)
    bound = 2.0**-24 * np.abs(x).max(-1, keepdims=True)
    assert (np.abs(ARITHMETIC.settle(x).astype(np.float64) - x) <= bound).all()


def test_scores_error():
    # q / sqrt(d) is off by at most 2**-52 of itself and L1(q) / sqrt(d) * 1.01 * 2**-29; k by 0.
    got = ARITHMETIC.scores(Q, K, SCALE)
    q, k = Q.astype(np.float64), np.repeat(K, H // G, axis=1).astype(np.float64)
    for h in range(H):
        true = np.array([[math.fsum(a * b) for b in k[:, h]] for a in q[:, h]]) / math.sqrt(d)
        size = np.abs(q[:, h]).sum(1)[:, None] / math.sqrt(d)
        largest, norm = np.abs(k[:, h]).max(1), np.abs(k[:, h]).sum(1)
        bound = size * (1.01 * 2.0**-29 * norm + 2.0**-51 * largest)
        assert (np.abs(got[h] - true) <= bound).all()


def test_softmax_error():
    # A weight before division is off by at most delta: 1.7 ulp of exp, half a step of 2**-40, and
    # the rounding of its argument. Their sum is at least 1 and off by at most S * delta.
    scores = ARITHMETIC.scores(Q, K, SCALE) * 3
    with np.errstate(under="ignore"):
        true = np.exp((scores - scores.max(-1, keepdims=True)).astype(np.longdouble))
    true /= true.sum(-1, keepdims=True)
    delta = 2.0**-41 + 1.7 * 2.0**-53 + 2.0**-52 * np.ptp(scores, axis=-1).max()
    got = ARITHMETIC.softmax(scores)
    assert (np.abs(got - true) <= 1.01 * delta * (1 + S * true) + 2.0**-52 * true).all()


def test_weighted_sum_error():
    # With M = sum p max|v|, the common grid moves each of the S products p max|v| by at most
    # M * 1.01 * 2**-29; v is exact. Then one rounding to float32.
    pattern = attend(ARITHMETIC, Q, K, V, causal(T, S))[1]
    got = ARITHMETIC.weighted_sum(pattern, V)
    v = np.repeat(V, H // G, axis=1).astype(np.float64)
    for h in range(H):
        true = np.array([[math.fsum(p * v[:, h, i]) for i in range(d)] for p in pattern[h]])
        size = pattern[h] @ np.abs(v[:, h]).max(1)[:, None]
        bound = S * 1.01 * 2.0**-29 * size + HALF * np.abs(true)
        assert (np.abs(got[:, h] - true) <= bound).all()


def test_integers_come_out_as_they_are():
    x, w = np.round(draw(5, 64) * 100), np.round(draw(7, 64, seed=9) * 100)
    true = x.astype(np.int64) @ w.astype(np.int64).T
    got = ARITHMETIC.linear(x.astype(np.float32), ARITHMETIC.weight(w.astype(np.float32), "w"))
    assert (got == true).all()


# --- values at the edges


def test_settled_rows_stay_and_are_settled_one_by_one():
    x = np.ldexp(draw(60, G, d, heavy=True), np.arange(-30, 30)[:, None, None])
    x[0], x[1, 0, 0], x[2, 1, :2] = 0, -0.0, (1e-30, 1e30)
    x[3] = x[3] * np.float32(1e-40)  # subnormal
    once = ARITHMETIC.settle(x)
    assert once.dtype == np.float32
    assert_same_bits(ARITHMETIC.settle(once), once)
    assert_same_bits(ARITHMETIC.settle(x[7:8, 1:2]), once[7:8, 1:2])
    assert not (np.signbit(once) & (once == 0)).any()
    for row in once.reshape(-1, d)[:30]:
        step = 2.0 ** (math.frexp(float(np.abs(row).max()))[1] - 24) if row.any() else 1.0
        assert all((Fraction(float(value)) / Fraction(step)).denominator == 1 for value in row)


def test_tiny_beside_huge_zeros_and_subnormals():
    x = np.zeros((4, D), np.float32)
    x[0, :2], x[1, :2], x[2, 0] = (1e30, 1e-30), (-0.0, 1e-45), -1e-42
    w = np.zeros((3, D), np.float32)
    w[0, :2], w[1, 0] = (0.5, 0.25), -1
    expected = np.zeros((4, 3), np.float32)
    expected[:, 0] = x[:, 0] * 0.5 + x[:, 1] * np.float32(0.25)
    expected[:, 1] = 0.0 - x[:, 0]
    got = ARITHMETIC.linear(x, ARITHMETIC.weight(w, "w"))
    assert_same_bits(got, expected)
    assert ARITHMETIC.mean_square(x)[:, 0].tolist()[3] == 0.0


def test_no_result_is_minus_zero():
    weight = ARITHMETIC.weight(np.array([[0.1], [-0.1]], np.float32), "w")
    for x in (0.0, -0.0, 1e-45, -1e-45):  # a tenth of the last underflows
        assert not np.signbit(ARITHMETIC.linear(np.full((2, 1), x, np.float32), weight)).any()
        v = ARITHMETIC.settle(np.full((1, 1, 2), x, np.float32))
        assert not np.signbit(ARITHMETIC.weighted_sum(np.full((1, 1, 1), 0.1), v)).any()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_input_that_is_not_finite_is_named(bad, word, rows):
    x = draw(rows, D)
    x[-1, 5] = -bad
    with pytest.raises(
        ArithmeticRangeError, match=rf"^input of model.layers.3.*q_proj holds {word}"
    ):
        ARITHMETIC.linear(x, WEIGHT)


def test_overflow_of_float32_is_named_and_the_largest_results_are_not_refused():
    w = ARITHMETIC.weight(np.ones((1, 2), np.float32), "lm_head")
    largest = np.finfo(np.float32).max
    assert ARITHMETIC.linear(np.array([[largest, 0]], np.float32), w)[0, 0] == largest
    with pytest.raises(ArithmeticRangeError, match="output of lm_head overflows float32"):
        ARITHMETIC.linear(np.array([[largest, largest]], np.float32), w)


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.5, 1.9999])
def test_overflow_is_named_in_whatever_row_and_column_it_is(factor):
    """Whatever the weight's leading bits: and a product of two float32 that just fits is given."""
    matrix = np.full((3, 2), 0.5, np.float32)
    matrix[1] = factor
    weight = ARITHMETIC.weight(matrix, "w")
    kept = float(weight.values[1, 0])
    assert weight.largest >= kept
    rows = np.ones((4, 2), np.float32)
    for place in range(4):
        large = rows.copy()
        large[place, 0] = np.float32(exact.FLOAT32_MAX / kept * (1 - 2.0**-20))
        assert np.isfinite(ARITHMETIC.linear(large, weight)).all()
        large[place, 0] = np.float32(
            min(exact.FLOAT32_MAX / kept * (1 + 2.0**-20), exact.FLOAT32_MAX)
        )
        large[place, 1] = np.float32(2.0**110)
        with pytest.raises(ArithmeticRangeError, match="output of w overflows float32"):
            ARITHMETIC.linear(large, weight)


def test_overflow_of_any_row_of_a_long_matrix_is_named():
    matrix = np.ones((300, 4), np.float32)
    matrix[0] = 1e30
    weight = ARITHMETIC.weight(matrix, "w")
    with pytest.raises(ArithmeticRangeError, match="overflows"):
        ARITHMETIC.linear(np.full((1, 4), 1e20, np.float32), weight)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(bad):
    matrix = W.copy()
    matrix[-1, -1] = bad
    with pytest.raises(ArithmeticRangeError, match=r"^lm_head holds (nan|inf), expected less"):
        ARITHMETIC.weight(matrix, "lm_head")


def test_weights_that_21_bits_round_beyond_float32_are_refused():
    """Every backend keeps the rounded weights, and some keep them as float32."""
    largest = np.float32(2.0**128 - 2.0**104)
    below = np.nextafter(np.float32(2.0**128 - 2.0**106), np.float32(0))
    kept = ARITHMETIC.weight(np.array([[below]]), "lm_head").values
    assert np.isfinite(kept.astype(np.float32)).all()
    for weight in (largest, -largest, np.nextafter(below, np.float32(np.inf))):
        with pytest.raises(
            ArithmeticRangeError, match=r"lm_head holds 3\.4\d*e\+38, expected less"
        ):
            ARITHMETIC.weight(np.array([[weight]]), "lm_head")


def test_sums_longer_than_the_bound_covers_are_refused():
    with pytest.raises(ArithmeticRangeError, match="lm_head sums over 1048577 numbers"):
        ARITHMETIC.weight(np.zeros((1, 2**20 + 1), np.float32), "lm_head")
    with pytest.raises(ArithmeticRangeError, match="context is 1048577 tokens"):
        Exact(context=2**20 + 1)
    with pytest.raises(ArithmeticRangeError, match="5 tokens to attend to, expected at most 4"):
        NumpyExact(context=4).softmax(np.zeros((1, 1, 5)))


def test_the_longest_sum_still_works():
    x = np.full((1, 2**20), 3.0, np.float32)
    w = ARITHMETIC.weight(np.full((1, 2**20), 5.0, np.float32), "w")
    assert ARITHMETIC.linear(x, w)[0, 0] == 15 * 2**20
    assert ARITHMETIC.mean_square(x)[0, 0] == 9.0
    pattern = NumpyExact(context=2**20).softmax(np.zeros((1, 1, 2**20)))
    assert (pattern == 2.0**-20).all()
    assert (
        NumpyExact(context=2**20).weighted_sum(pattern, np.ones((2**20, 1, 1), np.float32)) == 1.0
    )


def test_an_array_library_without_float64_is_refused():
    narrow = types.ModuleType("narrow")
    narrow.float64 = narrow.float32 = np.float32
    narrow.ones = np.ones
    with pytest.raises(ArithmeticRangeError, match="narrow computes float64 in fewer than 53 bits"):
        Exact(xp=narrow)


@pytest.mark.parametrize("bit", [31, 29, 25, 22, 12])
def test_a_flipped_weight_bit_changes_the_result(bit):
    damaged = W.copy()
    damaged.view(np.uint32)[11, 7] ^= np.uint32(1 << bit)
    row = X[:1].copy()
    row[0, 7] = 100.0
    before = ARITHMETIC.linear(row, WEIGHT)
    after = ARITHMETIC.linear(row, ARITHMETIC.weight(damaged, "w"))
    assert (np.flatnonzero((before != after)[0]) == [11]).all()
    assert before[0, 11] != after[0, 11]


@pytest.mark.parametrize("arithmetic", [NumpyExact(), Exact()], ids=["NumpyExact", "Exact"])
def test_where_nothing_is_said_sums_are_over_2_to_the_17_tokens_at_most(arithmetic):
    assert arithmetic.denominator_bits == 53 - 17
    with pytest.raises(ArithmeticRangeError, match="131073 tokens to attend to, expected at most"):
        arithmetic.softmax(np.zeros((1, 1, 2**17 + 1)))
