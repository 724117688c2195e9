"""exp, sin, cos: the stated bounds in ulp against mpmath, and only IEEE operations used."""

from __future__ import annotations

import math
import re
import tracemalloc
import types
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import array_api_strict
import mpmath
import numpy as np
import pytest
from bits import assert_same_bits

from minikv.arithmetic import elementary

ROOT = Path(__file__).parents[2]
BOUNDS = {"exp": 1.7, "sin": 3.01, "cos": 3.01}  # as elementary's docstring states
FOUND = {"exp": 1.63, "sin": 1.96, "cos": 1.86}  # the largest errors
LAST_FINITE = 709.782712893383973  # the largest float64 whose exp is finite
RNG = np.random.default_rng(20260319)


def largest_error(function: Callable, name: str, x: np.ndarray) -> tuple[float, float]:
    """The largest error of `function` in ulp of the true result of `name`, and where."""
    with mpmath.workprec(200):
        worst, where = mpmath.mpf(0), 0.0
        reference = getattr(mpmath, name)
        for argument, got in zip(x.tolist(), function(x).tolist(), strict=True):
            true = reference(mpmath.mpf(argument))
            exponent = max(mpmath.frexp(true)[1] - 53, -1074)
            error = abs(mpmath.mpf(got) - true) / mpmath.mpf(2) ** exponent
            if error > worst:
                worst, where = error, argument
    return float(worst), where


def around(points: np.ndarray) -> np.ndarray:
    """The points and their two neighbours."""
    return np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)])


steps = RNG.integers(-745 * 256, 709 * 256, 1000) / 256
POINTS = {
    "exp, whole range": ("exp", RNG.uniform(-745.2, LAST_FINITE, 8000)),
    "exp, near 0": ("exp", np.concatenate([RNG.uniform(-1, 1, 4000), RNG.normal(size=500) * 1e-9])),
    "exp, table entries": ("exp", around(steps)),
    "exp, between two entries": ("exp", around(steps + 1 / 512)),
    "exp, subnormal results": ("exp", RNG.uniform(-745.2, -708.3, 3000)),
    "exp, largest results": ("exp", np.append(np.linspace(709.77, LAST_FINITE, 2000), LAST_FINITE)),
    "sin, whole range": ("sin", RNG.uniform(-(2**20), 2**20, 6000)),
    "cos, whole range": ("cos", RNG.uniform(-(2**20), 2**20, 6000)),
    "sin, first turns": ("sin", RNG.uniform(-10, 10, 4000)),
    "cos, first turns": ("cos", RNG.uniform(-10, 10, 4000)),
    "sin, next to multiples of pi/2": ("sin", around(np.arange(1, 667543, 467) * (np.pi / 2))),
    "cos, next to multiples of pi/2": ("cos", around(np.arange(1, 667543, 467) * (np.pi / 2))),
    "sin, small": ("sin", RNG.normal(size=1000) * 2.0 ** RNG.integers(-60, 0, 1000)),
}


@pytest.mark.parametrize("case", POINTS)
def test_error_is_within_the_stated_bound(case):
    name, x = POINTS[case]
    error, where = largest_error(getattr(elementary, name), name, x)
    assert error <= BOUNDS[name], f"{name}({where!r}) is off by {error} ulp"
    assert round(error, 2) <= FOUND[name]


def test_the_largest_errors_found_are_those_of_the_docstring():
    """Where they are, of the points here and, for exp, of those of test_elementary_bounds."""
    there = {"exp": 603.0374934483622, "sin": 131290.79985028133, "cos": -203234.8501049918}
    for name, x in there.items():
        error, _ = largest_error(getattr(elementary, name), name, np.array([x]))
        assert round(error, 2) == FOUND[name]
    assert "are {}, {} and {} ulp.".format(*FOUND.values()) in elementary.__doc__


def test_the_specification_and_the_docstring_state_these_bounds():
    exp, sin, cos = BOUNDS.values()
    assert sin == cos
    spec = (ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    said = f"(up to {exp} units in the last place of `exp`, and {sin} of `sin` and `cos`)"
    assert said in " ".join(spec.split())
    for bound in (f"{exp} ulp; inf above", f"{sin} ulp"):
        assert bound in elementary.__doc__


def test_the_constants_of_exp_are_those_of_the_specification():
    section = (ROOT / "docs" / "exact.md").read_text(encoding="utf-8").partition("### 5.2")[2]
    written = re.findall(r"-?0x[0-9a-f.]+p[+-]\d+|-?\b\d{6}\b", section.partition("###")[0])
    lowest, highest, *coefficients = written
    assert int(lowest) == elementary.LOWEST * elementary.STEPS
    assert float.fromhex(highest) == elementary.HIGHEST * elementary.STEPS
    assert [float.fromhex(one) for one in coefficients] == list(elementary.EXP[::-1])


def test_three_parts_of_half_pi_have_33_bits():
    """And their products with whole numbers below 2**20 are exact; all four are pi / 2."""
    *exact, rest = elementary._half_pi()
    for part, bits in zip(exact, (32, 65, 98), strict=True):
        whole = Fraction(part) * 2**bits
        assert whole.denominator == 1
        assert whole < 2**33
        assert all(Fraction(n * part) == n * Fraction(part) for n in (2**20 - 1, 667_543))
    assert Fraction(667_543 * rest) != 667_543 * Fraction(rest)  # which is rounded
    with mpmath.workprec(200):
        parts = sum(map(mpmath.mpf, (*exact, rest)), mpmath.mpf(0))
        assert abs(parts - mpmath.pi / 2) < mpmath.mpf(2) ** -150


def test_bound_check_notices_a_wrong_result():
    def two_ulp_more(x: np.ndarray) -> np.ndarray:
        return np.nextafter(np.nextafter(elementary.exp(x), 9), 9)

    assert largest_error(two_ulp_more, "exp", np.linspace(0.1, 0.6, 50))[0] > BOUNDS["exp"]


def test_exp_at_the_ends_of_its_range():
    x = np.array(
        [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            1e300,
            -1e300,
            np.nextafter(LAST_FINITE, 710),
            -745.2,
            -800,
            800,
            5e-324,
        ]
    )
    inf = np.inf
    expected = np.array([1, 1, inf, 0, inf, 0, inf, 0, 0, inf, 1], dtype=np.float64)
    assert_same_bits(elementary.exp(x), expected)
    assert np.isfinite(elementary.exp(np.array([LAST_FINITE])))[0]
    assert elementary.exp(np.array([-745.1]))[0] == 5e-324


def test_exp_takes_scratch_memory_for_2_to_the_14_numbers_at_most():
    """Three arrays of them, beside the result."""
    x = np.zeros(2**18)
    elementary.exp(x[:1])  # whose table is kept
    tracemalloc.start()
    result = elementary.exp(x)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.nbytes <= most < result.nbytes + 4 * 2**14 * 8


@pytest.mark.parametrize("name", BOUNDS)
def test_nan_stays_nan(name):
    assert np.isnan(getattr(elementary, name)(np.array([np.nan, 1.0]))).tolist() == [True, False]


def test_clip_keeps_what_is_between_and_nan():
    x = np.array([-np.inf, -2.5, -2.0, 0.0, 3.0, 3.5, np.inf, np.nan])
    clipped = elementary.clip(x, -2.0, 3.0, np)
    assert_same_bits(clipped[:-1], np.array([-2.0, -2.0, -2.0, 0.0, 3.0, 3.0, 3.0]))
    assert np.isnan(clipped[-1])


def test_a_sum_with_1_5_times_2_to_the_52_holds_the_nearest_integer_in_its_low_bits():
    x = np.array([0.0, 0.5, 1.5, -0.5, -1.5, 2.4999, -190976.0, 181704.4, 2.0**40 + 0.5])
    total = x + elementary.SHIFT
    assert (total.view(np.int64) - elementary.SHIFT_BITS == np.rint(x).astype(np.int64)).all()
    assert_same_bits(total - elementary.SHIFT, np.rint(x) + 0.0)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "array_api_strict"])
def test_results_are_float64(name, xp):
    x = xp.asarray(RNG.normal(size=9))
    assert getattr(elementary, name)(x, xp).dtype == xp.float64


def test_exp_of_float32_is_exp_of_the_same_float64():
    x = RNG.normal(size=2 * elementary.BLOCK + 5).astype(np.float32)
    assert_same_bits(elementary.exp(x), elementary.exp(x.astype(np.float64)))


def test_blocks_do_not_change_bits():
    x = RNG.normal(size=2 * elementary.BLOCK + 3) * 10
    one_by_one = np.concatenate([elementary.exp(x[i : i + 1]) for i in range(0, len(x), 97)])
    assert_same_bits(elementary.exp(x)[::97], one_by_one)
    grid = x[:-3].reshape(4, -1)
    assert_same_bits(elementary.exp(grid.T), elementary.exp(grid).T)


@pytest.mark.parametrize("size", [1, 1000, 2 * elementary.BLOCK + 3])
def test_exp_of_steps_is_exp_of_a_256th_and_written_over_what_was_given(size):
    x = RNG.normal(size=size) * 100
    x[: min(size, 5)] = [-np.inf, 800.0, np.nan, -745.0, 0.0][: min(size, 5)]
    steps = x * 256
    elementary.exp_of_steps(steps)
    with np.errstate(all="ignore"):
        assert_same_bits(steps, elementary._exp(x, np))


@pytest.mark.parametrize("index", [-(2**63), -1, 0, 2**31, 2**63 - 1])
def test_whatever_integer_a_library_makes_of_nan_the_table_is_read_within(index):
    class Library(types.ModuleType):
        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def astype(x, dtype, copy=True):
            if dtype is not np.int64:
                return x.astype(dtype, copy=copy)
            return np.where(np.isnan(x), index, np.nan_to_num(x).astype(dtype))

        @staticmethod
        def take(table, indices, axis):
            assert 0 <= indices.min() <= indices.max() < len(table)
            return table[indices]

    result = elementary.exp(np.array([np.nan, 1.0, 800.0, -800.0]), Library("library"))
    assert np.isnan(result[0])
    assert_same_bits(result[1:], elementary.exp(np.array([1.0, 800.0, -800.0])))


# What IEEE 754 fixes to the bit, and moving data about. Operators are always allowed.
ALLOWED = {
    "abs",
    "asarray",
    "astype",
    "floor",
    "int64",
    "float64",
    "ones_like",
    "reshape",
    "round",
    "take",
    "where",
}


class OnlyIeee(types.ModuleType):
    """array-api-strict without any function whose result IEEE 754 leaves open."""

    def __getattr__(self, name):
        if name not in ALLOWED:
            raise AttributeError(f"{name} is not correctly rounded everywhere")
        return getattr(array_api_strict, name)


@pytest.mark.parametrize("name", BOUNDS)
def test_only_correctly_rounded_operations_are_used(name):
    x = np.concatenate([RNG.normal(size=3000) * 20, [0.0, -0.0, 1e-300, 1e5]])
    if name == "exp":
        x = np.append(x, [np.inf, -np.inf, np.nan, 710.0, -750.0])
    function, xp = getattr(elementary, name), OnlyIeee("only_ieee")
    strict = function(array_api_strict.asarray(x), xp)
    assert_same_bits(np.asarray(strict), function(x))


def test_a_library_exp_is_not_let_in():
    with pytest.raises(AttributeError, match="not correctly rounded"):
        OnlyIeee("only_ieee").exp  # noqa: B018  (asking for it is the test)


def kept_bits(value: Decimal, bits: int) -> Fraction:
    """A number of so many leading bits, the nearest one."""
    exact = Fraction(value)
    grid = Fraction(2) ** (math.floor(math.log2(value)) + 1 - bits)
    return round(exact / grid) * grid


def head_and_tail(value: Fraction) -> tuple[float, float]:
    """`parts` of the specification."""
    near = float(value)
    shifted = near * float.fromhex("0x1.0000002p+27")
    head = shifted - (shifted - near)
    return head, float(value / Fraction(head) - 1)


def factors() -> list[Decimal]:
    """Those of the table of exp: powers of e near 1, then the steps between two of them."""
    with localcontext() as context:
        context.prec = 60
        e = Decimal(1).exp()
        powers = range(elementary.LOWEST, math.floor(elementary.HIGHEST) + 1)
        values = [e**i / Decimal(2) ** round(i / math.log(2)) for i in powers]
        values += [(j / Decimal(elementary.STEPS)).exp() for j in range(elementary.STEPS)]
    return values


def test_a_factor_of_the_table_of_exp_is_a_head_of_26_bits_and_a_tail():
    """And the table is made of them: a product of two heads has 52 bits at most."""
    heads, tails = np.array([head_and_tail(Fraction(value)) for value in factors()]).T
    mantissas = np.frexp(heads)[0] * 2.0**26
    assert (mantissas == np.rint(mantissas)).all()
    assert 2.0**-27 < np.abs(tails).max() < 2.0**-25
    table = elementary.exp_table()
    whole = heads[: -elementary.STEPS]
    step = heads[-elementary.STEPS :]
    whole_tail = tails[: -elementary.STEPS, None]
    step_tail = tails[-elementary.STEPS :]
    made = whole[:, None] * step
    made += made * (whole_tail + step_tail + whole_tail * step_tail)
    for i in range(-700, 701, 100):
        row = i - elementary.LOWEST
        expected = np.ldexp(made[row], round(i / math.log(2)))
        start = row * elementary.STEPS
        assert_same_bits(table[start : start + elementary.STEPS], expected)


def test_the_parts_of_the_table_of_exp_need_more_than_80_bits_and_120_are_enough():
    values = factors()
    parts = [head_and_tail(Fraction(value)) for value in values]
    assert [head_and_tail(kept_bits(value, 120)) for value in values] == parts
    assert [head_and_tail(kept_bits(value, 80)) for value in values[:99]] != parts[:99]
