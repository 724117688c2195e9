"""bfloat16 and float16: each operation is rounded correctly, and rows keep their bits."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.arithmetic import Bfloat16, Float16, get_arithmetic
from minikv.arithmetic.rounded import GRID, Bfloat16Numbers, Float16Numbers, Numbers, Rounded
from minikv.backends import get_backend
from minikv.errors import InputError
from minikv.verify import THEOREMS, Refuted
from minikv.verify.cases import random_case

ARITHMETICS = (Bfloat16(), Float16())
BITS = {Bfloat16Numbers: (8, -133, 2.0**128), Float16Numbers: (11, -24, 2.0**16)}
"""Of each format: bits of a number, exponent of the smallest one, and what no number reaches."""
HELD = [id for id in THEOREMS if id not in ("T7", "T12")]  # of order, both


def nearest(x: Fraction, bits: int, smallest: int, limit: float) -> float:
    """The number of a format nearest to a true one, ties to even; the oracle, in whole numbers."""
    if not x:
        return 0.0
    top = math.floor(math.log2(abs(x)))  # within one of the exponent, which the next line mends
    top += (abs(x) >= Fraction(2) ** (top + 1)) - (abs(x) < Fraction(2) ** top)
    grid = Fraction(2) ** max(top - bits + 1, smallest)
    rounded = round(x / grid) * grid  # Python rounds a tie to even
    return math.copysign(math.inf, x) if abs(rounded) >= limit else float(rounded)


def every_number(numbers) -> np.ndarray:
    """All finite numbers of a format, as float32."""
    codes = np.arange(2**16, dtype=np.uint32)
    if numbers is Float16Numbers:
        every = codes.astype(np.uint16).view(np.float16).astype(np.float32)
    else:
        every = (codes << np.uint32(16)).view(np.float32)
    return every[np.isfinite(every)]


EVERY = {numbers: every_number(numbers) for numbers in BITS}


@pytest.mark.parametrize("numbers", BITS)
def test_a_number_of_the_format_is_rounded_to_itself(numbers):
    every = EVERY[numbers]
    assert len(every) > 60_000
    assert_same_bits(numbers.of(every), every)


@pytest.mark.parametrize("numbers", BITS)
def test_halfway_between_two_numbers_goes_to_the_even_one_and_more_to_the_nearer(numbers):
    every = np.unique(np.abs(EVERY[numbers]))
    middle = ((every[1:].astype(np.float64) + every[:-1]) / 2).astype(np.float32)
    even = np.where(np.arange(len(middle)) % 2, every[1:], every[:-1])  # zero is the first
    assert_same_bits(numbers.of(middle), even)
    assert_same_bits(numbers.of(np.nextafter(middle, np.float32(np.inf))), every[1:])
    assert_same_bits(numbers.of(np.nextafter(middle, np.float32(0))), every[:-1])


@pytest.mark.parametrize("numbers", BITS)
def test_what_is_no_number_or_too_large_stays_so(numbers):
    rounded = np.asarray(numbers.of([np.nan, np.inf, -np.inf, 3.4e38, -0.0]))
    assert np.isnan(rounded[0])
    assert rounded[1:].tolist() == [np.inf, -np.inf, np.inf, 0.0]
    assert np.signbit(rounded[-1])


def test_float16_is_rounded_as_numpy_does():
    rng = np.random.default_rng(0)
    scales = 2.0 ** rng.integers(-28, 18, 2**16)
    x = (rng.normal(size=2**16) * scales).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    assert_same_bits(Float16Numbers.of(x), expected)
    assert_same_bits(Float16Numbers.of(x[abs(x) < 1e4]), expected[abs(x) < 1e4])
    assert_same_bits(Float16Numbers.of(x[abs(x) > 1e-4]), expected[abs(x) > 1e-4])


def test_float16_ends_halfway_between_its_largest_number_and_the_next():
    ends = np.float32([65504, 65519.996, 65520, 65520.004, 65536])
    for x in (ends, -ends):
        with np.errstate(over="ignore"):
            expected = x.astype(np.float16).astype(np.float32)
        assert_same_bits(Float16Numbers.of(x), expected)
        for one in range(len(x)):
            assert_same_bits(Float16Numbers.of(x[one : one + 1]), expected[one : one + 1])


OPERATIONS = {
    "+": (np.add, lambda x, y: x + y),
    "-": (np.subtract, lambda x, y: x - y),
    "*": (np.multiply, lambda x, y: x * y),
    "/": (np.divide, lambda x, y: x / y),
}


@given(st.sampled_from([*BITS]), st.sampled_from([*OPERATIONS]), st.integers(0, 2**32 - 1))
def test_each_operation_gives_the_nearest_number_of_the_format(numbers, operation, seed):
    """Rounding float32's result once more is enough: the docstring says why."""
    rng = np.random.default_rng(seed)
    every = EVERY[numbers]
    places = np.log2(np.abs(every), where=every != 0, out=np.full(len(every), 999.0))
    smallest = BITS[numbers][1]
    around_one = every[np.abs(places) < 12]
    its_root = every[np.abs(places - smallest / 2) < 8]  # products are about the smallest
    tiny = every[places < smallest + 16]
    pairs = [(every, every), (around_one, around_one), (its_root, its_root), (tiny, around_one)]
    x, y = (rng.choice(some, 50) for some in pairs[rng.integers(len(pairs))])
    ufunc, true = OPERATIONS[operation]
    x, y = x[y != 0], y[y != 0]
    got = np.asarray(ufunc(numbers.of(x), numbers.of(y)))
    exact = [true(Fraction(float(a)), Fraction(float(b))) for a, b in zip(x, y, strict=True)]
    assert got.tolist() == [nearest(value, *BITS[numbers]) for value in exact]


@pytest.mark.parametrize("numbers", BITS)
def test_a_root_is_the_nearest_number_of_the_format(numbers):
    """Its square lies between those of the halves of the way to its neighbours, which are exact."""
    every = np.unique(np.abs(EVERY[numbers]))
    squares = every[1:]
    root = np.asarray(np.sqrt(numbers.of(squares)))
    place = np.searchsorted(every, root)
    assert (every[place] == root).all()
    wide = every.astype(np.float64)
    scale = np.where(wide[place] < 2.0**-40, 2.0**80, 1.0)  # so that squares are no subnormals
    below, above = ((wide[place] + wide[place + side]) / 2 * scale for side in (-1, 1))
    true = squares.astype(np.float64) * scale**2
    assert (below**2 <= true).all()  # at most 2 * 12 bits, which float64 holds
    assert (true <= above**2).all()


def test_float32_is_too_narrow_for_a_format_of_thirteen_bits():
    """The control of double rounding: 2 * 13 + 2 > 24, and a sum comes out on the wrong side."""
    x, y = np.float32(1), np.float32(2.0**-13 * (1 + 2.0**-12))  # both have thirteen bits
    true = Fraction(1) + Fraction(float(y))
    thirteen = (13, -149, math.inf)
    assert nearest(true, *thirteen) == 1 + 2.0**-12
    assert nearest(Fraction(float(x + y)), *thirteen) == 1.0


def test_the_last_place_of_a_float16_is_that_of_the_float32_which_is_added_to_it():
    for e in range(-14, 16):
        added = (np.float32(2.0**e).view(np.uint32) + GRID).view(np.float32)
        assert added == 1.5 * 2.0 ** (e + 13)
        assert np.spacing(np.float16(2.0**e)) == np.spacing(added) == 2.0 ** (e - 10)
    below = np.float16([2.0**-15, 2.0**-24])
    assert np.spacing(below).tolist() == [np.spacing(np.float16(2.0**-14))] * 2


@pytest.mark.parametrize(("numbers", "large"), [(Bfloat16Numbers, 3e38), (Float16Numbers, 6e4)])
def test_what_leaves_a_format_is_infinite_or_nan_and_no_warning_says_so(numbers, large):
    x, y = numbers.of([large, -large, 0, 1e-30]), numbers.of([large, 0, 0, 1e-30])
    found = set()
    for ufunc, _ in OPERATIONS.values():
        with np.errstate(all="ignore"):
            wide = ufunc(np.asarray(x, np.float64), np.asarray(y, np.float64))
            expected = np.asarray(numbers.of(wide))
        with np.errstate(all="raise"):
            got = np.asarray(ufunc(x, y))
        assert np.array_equal(got, expected, equal_nan=True)
        found |= set(map(str, got))
    assert {"inf", "-inf", "nan"} <= found


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda a: a.name)
def test_products_that_are_rounded_once_at_the_end_are_nearer_and_have_other_bits(arithmetic):
    rng = np.random.default_rng(0)
    x, weight = (arithmetic.numbers.of(rng.normal(size=(20, 60))) for _ in range(2))
    true = np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T
    once = np.asarray(arithmetic.numbers.of(np.asarray(x) @ np.asarray(weight).T))
    ours = np.asarray(arithmetic.linear(x, arithmetic.weight(weight, "w")))
    assert not np.array_equal(once, ours)
    assert np.abs(once - true).mean() < np.abs(ours - true).mean()


@pytest.mark.parametrize("numbers", BITS)
def test_what_adds_across_elements_is_refused(numbers):
    x = numbers.of(np.ones((3, 3)))
    for adds in (np.sum, lambda x: x @ x, np.mean, lambda x: np.vecdot(x, x), np.prod):
        with pytest.raises(TypeError, match="says how sums are taken"):
            adds(x)
    assert float(np.max(x)) == 1.0


@pytest.mark.parametrize("numbers", BITS)
def test_in_place_operations_round_and_comparisons_and_float64_do_not(numbers):
    x = numbers.of([1.0, 2.0])
    held = x
    x *= 1.1
    assert x is held
    assert_same_bits(x, numbers.of(np.float32([1, 2]) * float(np.asarray(numbers.of(1.1)))))
    assert (x > 1.5).tolist() == [False, True]
    assert float(np.sum(x - np.array([1 / 3, 0.0]))) == float(x[0]) - 1 / 3 + float(x[1])


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda a: a.name)
def test_every_activation_is_of_the_format(arithmetic):
    for seed in range(3):
        case = replace(random_case(seed, scale=1.0), arithmetic=arithmetic)
        embedding = {"hook_embed", "blocks.0.hook_resid_pre"}  # given in float32, rounded when read
        for name, value in case.activations.items():
            finite = np.asarray(value)
            assert name in embedding or np.array_equal(finite, arithmetic.numbers.of(finite)), name


@pytest.mark.parametrize("id", HELD)
@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda a: a.name)
def test_a_fixed_order_obeys_every_theorem_but_the_one_about_order(arithmetic, id):
    drawn = (random_case(seed, 0.4, 1.0) for seed in range(40))
    cases = (replace(case, arithmetic=arithmetic) for case in drawn)
    some = list(islice(filter(THEOREMS[id].applies, cases), 3))
    for case in some:
        THEOREMS[id].check(case)
    assert len(some) == 3


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda a: a.name)
def test_another_order_gives_other_sums(arithmetic):
    for seed in range(2):
        with pytest.raises(Refuted, match="permuted"):
            THEOREMS["T7"].check(replace(random_case(seed, 0.6, 1.0), arithmetic=arithmetic))


class ByCompany(Bfloat16):
    """Rows in company are summed in another order than a row alone, as BLAS does."""

    def linear(self, x, weight):
        if len(x) == 1:
            return super().linear(x, weight)
        return super().linear(np.roll(x, 1, axis=1), np.roll(weight, 1, axis=1))


@pytest.mark.parametrize("id", ["T1", "T3", "T6", "T8"])
def test_an_order_that_depends_on_the_company_obeys_them_not(id):
    for seed in range(20):
        try:
            THEOREMS[id].check(replace(random_case(seed, 0.6, 1.0), arithmetic=ByCompany()))
        except Refuted:
            return
    raise AssertionError("no case refutes it")


def test_a_product_has_the_bits_of_the_sum_that_the_docstring_describes():
    rng = np.random.default_rng(0)
    arithmetic = Float16()
    x, weight = rng.normal(size=(3, 7)), rng.normal(size=(5, 7))
    terms = np.float16(x)[:, None, :] * np.float16(weight)[None]  # NumPy rounds each to float16
    halves = terms[..., :3] + terms[..., 3:6]  # the seventh waits
    left = np.concatenate([halves, terms[..., 6:]], axis=-1)
    expected = (left[..., 0] + left[..., 2]) + (left[..., 1] + left[..., 3])
    got = arithmetic.linear(x, arithmetic.weight(weight, "w"))
    assert_same_bits(got, expected.astype(np.float32))


def test_sums_overwrite_what_they_are_of():
    arithmetic = Float16()
    terms = np.ones((5, 3), np.float32)
    total = arithmetic.halved(terms)
    assert np.shares_memory(total, terms)
    assert total.tolist() == [5, 5, 5]
    arithmetic.in_turn(np.ones((2, 3), np.float32), total)
    assert total.tolist() == [7, 7, 7]


def test_a_large_product_is_cut_into_blocks_without_a_change(monkeypatch):
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(4, 30)), rng.normal(size=(9, 30))
    whole = Bfloat16().linear(x, Bfloat16().weight(weight, "w"))
    for limit in (1, 40, 100, 300):
        monkeypatch.setattr("minikv.arithmetic.rounded.TERMS_AT_A_TIME", limit)
        assert_same_bits(Bfloat16().linear(x, Bfloat16().weight(weight, "w")), whole)


@pytest.mark.parametrize("limit", [1, 100, 2**18])
def test_sums_over_keys_go_from_the_first_to_the_last(monkeypatch, limit):
    monkeypatch.setattr("minikv.arithmetic.rounded.TERMS_AT_A_TIME", limit)
    rng = np.random.default_rng(2)
    arithmetic = Float16()
    scores = np.float16(rng.normal(size=(4, 3, 9)))  # (H, T, S)
    v = np.float16(rng.normal(size=(9, 2, 5)))  # (S, G, d)
    pattern = arithmetic.softmax(scores)
    total = np.zeros((4, 3), np.float16)
    z = np.zeros((3, 4, 5), np.float16)
    weights = np.exp((scores - scores.max(axis=-1, keepdims=True)).astype(float)).astype(np.float16)
    for key in range(9):
        total += weights[..., key]
        held = v[key, [0, 0, 1, 1]]  # two heads share one of K and V
        z += np.float16(pattern[..., key].T[..., None]) * held
    assert_same_bits(pattern, (weights / total[..., None]).astype(np.float32))
    assert_same_bits(arithmetic.weighted_sum(pattern, arithmetic.values(v)), z.astype(np.float32))


def test_a_norm_of_large_rows_stays_within_float16():
    row = np.float32([[300, -400, 0, 1000]])  # squares beyond 65,504
    got = Float16().rms_norm(row, np.ones(4, np.float32), 1e-5)
    true = row / np.sqrt((row**2).mean())
    # four roundings of the mean, the root's, the quotient's and the product's: 7 halves of 2**-10
    assert np.abs(np.asarray(got) / np.where(true, true, 1) - (true != 0)).max() <= 7 * 2.0**-11


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda one: one.name)
def test_a_norm_has_the_bits_of_rows_that_are_not_divided_where_squares_stay(arithmetic):
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.5, 8, (30, 6)).astype(np.float32)
    weight = arithmetic.numbers.of(rng.uniform(0.5, 2, 6))
    eps = arithmetic.numbers.of(2.0**-10)
    undivided = super(Rounded, arithmetic).rms_norm
    plain = undivided(arithmetic.numbers.of(rows), weight, eps)
    assert_same_bits(arithmetic.rms_norm(rows, weight, 2.0**-10), plain)
    large = arithmetic.numbers.of(1000 * rows)  # the control: squares leave float16 alone
    same = same_bits(arithmetic.rms_norm(large, weight, 0.0), undivided(large, weight, 0.0))
    assert same == (arithmetic.name == "bfloat16")


def test_a_norm_of_small_rows_adds_eps_as_float16_has_it():
    """Of 1e-7 it has 2 * 2**-24, however much the row and eps are scaled."""
    row = np.float32([[1, -1, 1, 1]]) * np.float32(2.0**-12)
    got = Float16().rms_norm(row, np.ones(4, np.float32), 1e-7)
    true = row / np.sqrt((row.astype(np.float64) ** 2).mean() + 2.0**-23)
    assert np.abs(np.asarray(got) / true - 1).max() <= 7 * 2.0**-11


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda one: one.name)
def test_the_mean_square_of_heads_is_that_of_rows(arithmetic):
    heads = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    rows = arithmetic.mean_square(heads.reshape(6, 5))
    assert_same_bits(arithmetic.mean_square(heads).reshape(6, 1), rows)


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda one: one.name)
@pytest.mark.parametrize("power", range(-8, 9, 2))
def test_a_norm_adds_eps_to_the_mean_whatever_the_rows_size(arithmetic, power):
    row = np.float32([[0.75, -1, 0.5, 0.875]]) * 2.0**power
    eps = 2.0**-10
    got = np.asarray(arithmetic.rms_norm(row, np.ones(4, np.float32), eps))
    true = row / np.sqrt((row.astype(np.float64) ** 2).mean() + eps)
    # squares, two additions, the mean and eps: five roundings under the root; then three more
    bits = BITS[arithmetic.numbers][0]
    assert np.abs(got / true - 1).max() <= 6 * 2.0**-bits


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda one: one.name)
def test_elementary_functions_are_those_of_float64_rounded(arithmetic):
    x = arithmetic.numbers.of(np.linspace(-9, 9, 99))
    for name in ("exp", "sin", "cos"):
        expected = arithmetic.numbers.of(getattr(np, name)(np.asarray(x, np.float64)))
        got = getattr(arithmetic, name)(x)
        assert_same_bits(np.asarray(got), np.asarray(expected))
        assert got.dtype == np.float32


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=lambda one: one.name)
def test_a_matrix_lies_column_by_column(arithmetic):
    matrix = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    kept = arithmetic.weight(matrix, "w")
    assert kept.flags.f_contiguous
    assert_same_bits(np.ascontiguousarray(kept), np.asarray(arithmetic.numbers.of(matrix)))


def test_numbers_of_no_format_are_asked_for_one():
    with pytest.raises(NotImplementedError):
        Numbers.of(1.0)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_other_array_libraries_are_refused(name):
    assert isinstance(get_arithmetic(name), Rounded)
    with pytest.raises(InputError, match="is built on NumPy alone"):
        get_backend("array_api_strict", name)


def test_logits_can_be_drawn_from_and_compared():
    model = minikv.random_model(minikv.tiny_config(), 0, "bfloat16")
    logits = model.logits([1, 2, 3])
    assert minikv.kl_divergence(logits, logits).tolist() == [0.0] * 3
    assert len(list(model.generate([1, 2, 3], 4, temperature=1.0, top_p=0.9, seed=0))) == 4
