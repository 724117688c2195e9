"""exp, sin and cos: the errors that elementary's docstring states, roundings included, for all x.

The errors of the polynomials are theorems (``proofs/rocq/Elementary.v``). Here the rest is added
up: the table of `exp` entry by entry, and of every operation half a unit in the last place of the
largest number that it may return. The sums are float64, a relative 1e-13 off: `SLACK` is more.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from test_elementary import BOUNDS, POINTS, largest_error

from minikv.arithmetic import elementary

PROOF = Path(__file__).parents[2] / "proofs" / "rocq" / "Elementary.v"
UNIT = 2.0**-53
SLACK = 1e-9
TINIEST = 2.0**-1074
QUARTER = 0.7855  # |r| is at most pi/4 and what the reduction's roundings add


def method_error(name: str) -> float:
    """What ``Elementary.v`` proves of a polynomial."""
    text = PROOF.read_text(encoding="utf-8")
    stated = re.search(rf"Theorem {name}_method .*?<= ([\d/ ^]+)\.\n", text, re.DOTALL).group(1)
    factor, power = re.fullmatch(r"(\d+(?: / \d+)?) / 2 \^ (\d+)", stated).groups()
    above, _, below = factor.partition(" / ")
    return int(above) / int(below or 1) * 2.0 ** -int(power)


def half_ulp(size: np.ndarray) -> np.ndarray:
    """How far rounding moves a number of at most this size."""
    return np.spacing(size) / 2


def table_errors() -> np.ndarray:
    """Of each entry of the table of exp, in ulp of the entry."""
    table = elementary.exp_table().tolist()
    spacings = np.spacing(table).tolist()
    errors = []
    with localcontext() as context:
        context.prec = 40
        step = (1 / Decimal(elementary.STEPS)).exp()
        steps = [step**j for j in range(elementary.STEPS)]
        for first in range(0, len(table), elementary.STEPS):
            power = Decimal(elementary.LOWEST + first // elementary.STEPS).exp()
            for index in range(first, min(first + elementary.STEPS, len(table))):
                off = abs(Decimal(table[index]) - power * steps[index - first])
                errors.append(float(off / Decimal(spacings[index])))
    return np.array(errors)


def exp_bounds(errors: np.ndarray) -> np.ndarray:
    """Of each entry, the largest error of exp(x) in ulp of it, for the x nearest to the entry.

    The result is the entry, T, plus T times the polynomial, p, which is within 1/511 of 0; and e**r
    is within that of 1. Where a power of two is that close below T, the result may lie below it,
    where an ulp is half of T's. There the sum may also round across the power: then it errs by more
    than these bounds only if it was a whole ulp of T beyond, so that x is next to a multiple of
    log 2, and those are tried one by one in the test.
    """
    table = elementary.exp_table()
    spacing = np.spacing(table)
    nearest = 1 / 511
    power = np.ldexp(1.0, np.frexp(table)[1] - 1)
    below = (table * (1 - nearest) < power) & (table >= 2.0**-1021)
    ulp = np.where(below, spacing / 2, spacing)
    of_table = errors * (spacing / ulp) * (1 + nearest)
    # Horner: two roundings of p's size, and the earlier ones 2**-8 of these
    of_polynomial = table / ulp * (method_error("exp") + (2 + 2.0**-6) * UNIT * nearest)
    of_product = np.spacing(table * nearest) / ulp / 2
    of_sum = np.where(ulp > TINIEST, 0.5, 0.0)  # sums of subnormal numbers are exact
    return of_table + of_polynomial + of_product + of_sum


@pytest.mark.slow
def test_the_table_of_exp_is_rounded_correctly_where_it_is_normal():
    errors = table_errors()
    normal = elementary.exp_table() >= 2.0**-1022
    assert errors.size > 370_000
    assert errors[normal].max() <= 0.5
    assert 0.74 < errors[~normal].max() <= 0.744  # ldexp rounds these a second time


@pytest.mark.slow
def test_exp_is_within_its_bound_for_all_arguments():
    bounds = exp_bounds(table_errors())
    assert bounds.max() + SLACK <= BOUNDS["exp"]
    x = np.arange(-1073, 1024) * np.log(2.0)
    beside = [x]
    for _ in range(3):
        beside = [np.nextafter(beside[0], -800), *beside, np.nextafter(beside[-1], 800)]
    error, where = largest_error(elementary.exp, "exp", np.concatenate(beside))
    assert error <= BOUNDS["exp"], f"exp({where!r}) is off by {error} ulp"


@pytest.mark.slow
def test_control_the_bound_of_exp_is_not_far_from_what_is_found():
    """Next to 603.039, a table entry just above a power of two is almost half an ulp off."""
    x = np.linspace(603.0374, 603.0375, 4000)
    assert largest_error(elementary.exp, "exp", x)[0] > 1.6
    assert exp_bounds(table_errors() + 0.05).max() > BOUNDS["exp"], "a worse table is noticed"


def horner(coefficients: list[float], square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How large ``(... + c) * square`` gets, and how far off, for squares up to these.

    `square` is itself rounded. The coefficients' signs alternate, so that no partial sum is larger
    than its last coefficient.
    """
    size = np.zeros_like(square)
    error = np.zeros_like(square)
    for coefficient in coefficients:
        size = np.full_like(square, abs(coefficient))
        error = error + half_ulp(size)
        error = error * square + size * half_ulp(square)
        size = size * square
        error = error + half_ulp(size)
    return size, error


def coefficients(powers: range) -> list[float]:
    """As `elementary` has them."""
    return [(-1) ** (k // 2) / float(np.prod(np.arange(1.0, k + 1))) for k in powers]


def cells() -> tuple[np.ndarray, np.ndarray]:
    """The lower and upper ends of cells that cover 2**-12 <= |r| <= pi/4."""
    edges = np.exp(np.linspace(np.log(2.0**-12.001), np.log(QUARTER), 40_000))
    edges[-1] = QUARTER
    return edges[:-1], edges[1:] * (1 + 2.0**-30)


def reduction_error(upper: np.ndarray) -> np.ndarray:
    """How far r is off.

    ``n * part`` is exact for the first three parts, and the first difference is exact: both of its
    operands are multiples of 2**-53, and it is below 1. The second is a multiple of 2**-65 and
    exact below 2**-12, the third a multiple of 2**-98. Of the second, third and fourth, two at most
    round by half an ulp: above 2**-12 the fourth takes away less than 2**-83, below it the second
    is exact.
    """
    return 2 * half_ulp(upper) + 2.0**-83


def sin_bounds() -> np.ndarray:
    """Largest errors of the sine of r, in ulp, in each cell.

    Half an ulp is the last rounding's, or one where it crosses a power of two: then the ulp above
    is two. Below 2**-12, the cosine being below 1 - r**2 / 2.1, the sum is below the bound too.
    """
    lower, upper = cells()
    size, error = horner(coefficients(range(17, 1, -2)), upper * upper)
    error = error * upper + half_ulp(size * upper)
    error += np.cos(lower) * reduction_error(upper) + method_error_of_sin(upper)
    ulp = np.spacing(np.sin(lower))
    crosses = np.frexp(np.sin(lower))[1] < np.frexp(np.sin(upper) + 4 * ulp)[1]
    return error / ulp + np.where(crosses, 1.0, 0.5)


def method_error_of_sin(upper: np.ndarray) -> np.ndarray:
    """By Taylor, with coefficients off by half an ulp; `method_error` where that is less."""
    powers = range(17, 1, -2)
    rounded = sum(
        half_ulp(np.abs(c)) * upper**k for c, k in zip(coefficients(powers), powers, strict=True)
    )
    return np.minimum(rounded + upper**19 / 1.2e17, method_error("sin"))


def cos_bounds() -> np.ndarray:
    """Largest errors of the cosine of r, which is from 0.7 to 1, in ulp, in each cell."""
    _, upper = cells()
    square = upper * upper
    _, error = horner(coefficients(range(18, 2, -2)), square)
    error = error + half_ulp(np.full_like(upper, 0.4999))  # what is added to 1 / 2 is negative
    error = error * square + 0.5 * half_ulp(square)
    error = error + half_ulp(0.5 * square)
    error += np.sin(upper) * reduction_error(upper) + method_error("cos")
    return error / UNIT + 0.5


@pytest.mark.parametrize(("name", "bounds"), [("sin", sin_bounds), ("cos", cos_bounds)])
def test_sin_and_cos_are_within_their_bounds_for_all_arguments(name, bounds):
    """A sine or cosine of x is, up to its sign, a sine or cosine of r: the larger bound counts."""
    assert bounds().max() + SLACK <= BOUNDS[name]


def test_control_the_bounds_of_sin_and_cos_are_above_what_is_found():
    name, x = POINTS["sin, whole range"]
    error, _ = largest_error(elementary.sin, name, x)
    bound = max(sin_bounds().max(), cos_bounds().max())
    assert error < bound < 2 * error


def test_control_what_rocq_proves_of_the_polynomials_is_read():
    assert method_error("exp") == 9 / 16 * 2.0**-55
    assert method_error("sin") == 2.0**-57
    assert method_error("cos") == 2.0**-58
