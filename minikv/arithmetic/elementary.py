"""exp, sin and cos from correctly rounded IEEE operations only.

Mathematical libraries differ in the last bits of these functions, and NumPy's own depend on which
SIMD instructions the CPU has. What IEEE 754 fixes to the bit is ``+ - * / sqrt``, rounding to an
integer, comparison and conversion, so the functions here use nothing else, each in a call of its
own, never fused: the same bits on every CPU, device and array library.

Arguments and results are float64. The errors are in units in the last place of the true result
(ulp, a subnormal's being 2**-1074), roundings included. ``proofs/rocq/Elementary.v`` proves what
the polynomials add to them, ``tests/arithmetic/test_elementary_bounds.py`` adds up the rest, the
table of `exp` entry by entry. The largest found, beside mpmath, are 1.63, 1.96 and 1.86 ulp.

=======  ====================  ============================================================
`exp`    all x                 1.7 ulp; inf above 709.78, 0 below -745.13
`sin`    \\|x| <= 2**20         3.01 ulp
`cos`    \\|x| <= 2**20         3.01 ulp
=======  ====================  ============================================================
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import cache
from types import ModuleType

import numpy as np

from ..arrays import Array

BLOCK = 2**14  # elements; exp's scratch memory stays in the level-2 cache
SHIFT = 1.5 * 2.0**52
SHIFT_BITS = int(np.float64(SHIFT).view(np.int64))

# exp(x) = exp(n / 256) * exp(f / 256) with n an integer and |f| <= 1/2, both exact.
STEPS = 256
LOWEST = -746  # exp is 0 below it
HIGHEST = 709.783  # and inf above; n/256 itself never overflows
# exp(r) - 1 for |r| <= a = 1/512: Taylor's polynomial to r**4, with r**5/120 replaced by the cubic
# nearest to it, (20 a**2 r**3 - 5 a**4 r) / 16. What remains is at most a**5 / 1920 < 2**-55.
HALF_STEP = 0.5 / STEPS
EXP = (
    (1 - 5 * HALF_STEP**4 / 1920) / STEPS,
    1 / 2 / STEPS**2,
    (1 / 6 + 20 * HALF_STEP**2 / 1920) / STEPS**3,
    1 / 24 / STEPS**4,
)


@cache
def exp_table() -> np.ndarray:
    """exp(n / 256) for n from 256 * LOWEST to round(256 * HIGHEST).

    The normal ones are rounded correctly, as the tests find of each; the subnormal ones, which are
    rounded twice, are within 0.744 ulp.

    With n = 256 i + j it is e**i * exp(j / 256), where each factor is a head of 26 bits times
    (1 + tail), tail below 2**-25, so that the product of two heads is exact.
    """

    def heads_and_tails(values: list[Decimal]) -> tuple[np.ndarray, np.ndarray]:
        rounded = np.array([float(value) for value in values])
        shifted = rounded * (2.0**27 + 1)  # Veltkamp's splitting
        heads = shifted - (shifted - rounded)
        tails = [float(v / Decimal(h) - 1) for v, h in zip(values, heads.tolist(), strict=True)]
        return heads, np.array(tails)

    with localcontext() as context:
        context.prec = 60
        e = Decimal(1).exp()
        step = (1 / Decimal(STEPS)).exp()
        powers = range(LOWEST, math.floor(HIGHEST) + 1)
        exponents = [round(i / math.log(2)) for i in powers]  # keeps e**i * 2**-exponent near 1
        whole, whole_tail = heads_and_tails(
            [e**i / Decimal(2) ** k for i, k in zip(powers, exponents, strict=True)]
        )
        part, part_tail = heads_and_tails([step**j for j in range(STEPS)])
    table = whole[:, None] * part
    table += table * (whole_tail[:, None] + part_tail + whole_tail[:, None] * part_tail)
    with np.errstate(over="ignore", under="ignore"):
        table = np.ldexp(table, np.array(exponents)[:, None]).reshape(-1)
    return table[: round(HIGHEST * STEPS) - LOWEST * STEPS + 1]


def clip(x: Array, low: float, high: float, xp: ModuleType) -> Array:
    """x between two bounds. A library's own `clip` may ask a device where x is NaN, and wait."""
    x = xp.where(x < low, low, x)
    return xp.where(x > high, high, x)


@cache
def _table_in(xp: ModuleType) -> Array:
    return xp.asarray(exp_table())


def exp(x: Array, xp: ModuleType = np) -> Array:
    """e**x, float64, any shape. Silent: inf above 709.78, 0 below -745.13, NaN for NaN.

    Examples
    --------
    >>> exp(np.array([0.0, 1.0, -np.inf, 800.0]))
    array([1.        , 2.71828183, 0.        ,        inf])
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _exp_numpy(x) if xp is np else _exp(x, xp)


def _exp(x: Array, xp: ModuleType) -> Array:
    f = xp.astype(x, xp.float64, copy=False) * float(STEPS)
    f = clip(f, float(LOWEST * STEPS), HIGHEST * STEPS, xp)
    n = xp.round(f)
    f -= n  # exact: both are multiples of ulp(x), and the difference is at most 1/2
    n -= LOWEST * STEPS
    index = xp.astype(n, xp.int64)  # anything where x is NaN: the result is NaN for any index
    table = _table_in(xp)
    index = xp.reshape(clip(index, 0, table.shape[0] - 1, xp), (-1,))
    power = xp.reshape(xp.take(table, index, axis=0), x.shape)
    result = f * EXP[3]
    result += EXP[2]
    result *= f
    result += EXP[1]
    result *= f
    result += EXP[0]
    result *= f
    result *= power
    result += power
    return result


def _exp_numpy(x: np.ndarray) -> np.ndarray:
    """`_exp` in NumPy."""
    out = np.empty_like(x, dtype=np.float64, order="C")
    np.multiply(x, float(STEPS), out=out)
    exp_of_steps(out)
    return out


def exp_of_steps(x: np.ndarray) -> None:
    """`exp` of x / 256, of float64 numbers that lie one behind the other; written over them.

    What lies between stays in scratch memory, and that in the processor's cache.

    Adding 1.5 * 2**52 rounds to an integer and leaves it in the low bits of the sum.
    """
    table = exp_table()
    numbers = x.reshape(-1)  # a view
    scratch = np.empty((3, min(numbers.size, BLOCK)))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, numbers.size, BLOCK):
            result = numbers[start : start + BLOCK]
            f, n, power = scratch[:, : result.size]
            result.clip(LOWEST * STEPS, HIGHEST * STEPS, out=f)
            np.add(f, SHIFT, out=n)
            f -= np.subtract(n, SHIFT, out=power)
            index = n.view(np.int64)
            index -= SHIFT_BITS + LOWEST * STEPS
            table.take(index, mode="clip", out=power)
            np.multiply(f, EXP[3], out=result)
            for coefficient in EXP[2::-1]:
                result += coefficient
                result *= f
            result *= power
            result += power


# pi/2 in three parts of 33 bits and a rest: n * part is exact for |n| < 2**20.
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


@cache
def _half_pi() -> tuple[float, ...]:
    parts = []
    with localcontext() as context:
        context.prec = 80
        rest = _PI / 2
        for bits in (32, 65, 98):
            part = math.ldexp(math.floor(rest * 2**bits), -bits)
            parts.append(part)
            rest -= Decimal(part)
        return (*parts, float(rest))


def _quarter_turns(x: Array, xp: ModuleType) -> tuple[Array, Array, Array]:
    """n mod 4, sin(r) and cos(r) where x = n pi/2 + r, |r| <= pi/4 (Cody and Waite)."""
    n = xp.round(x * (2 / math.pi))
    r = x
    for part in _half_pi():
        r = r - n * part
    square = r * r
    sin = 0.0 * square
    for k in (17, 15, 13, 11, 9, 7, 5, 3):  # Taylor; the next terms are below 2**-60
        sin = (sin + (-1) ** (k // 2) / math.factorial(k)) * square
    sin = sin * r + r
    cos = 0.0 * square
    for k in (18, 16, 14, 12, 10, 8, 6, 4):
        cos = (cos + (-1) ** (k // 2) / math.factorial(k)) * square
    cos = (cos - 0.5) * square + 1.0
    return n - 4.0 * xp.floor(n * 0.25), sin, cos


def sin(x: Array, xp: ModuleType = np) -> Array:
    """Sine, float64, any shape, for x from -2**20 to 2**20."""
    turn, sine, cosine = _quarter_turns(x, xp)
    value = xp.where((turn == 1) | (turn == 3), cosine, sine)
    return xp.where(turn >= 2, -value, value)


def cos(x: Array, xp: ModuleType = np) -> Array:
    """Cosine, float64, any shape, for x from -2**20 to 2**20."""
    turn, sine, cosine = _quarter_turns(x, xp)
    value = xp.where((turn == 1) | (turn == 3), sine, cosine)
    return xp.where((turn == 1) | (turn == 2), -value, value)
