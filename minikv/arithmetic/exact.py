"""Exact: sums of integers held in float64, whose value no order of addition can change.

A float64 holds every integer up to 2**53. If the absolute values of the terms of a sum add up to at
most that, then every partial sum, in any order, blocking or thread count, with or without fused
multiply-add, is exactly representable: nothing is ever rounded, and all orders agree to the bit
(``proofs/rocq/Exactness.v``). The same holds for multiples of one power of two, the *grid*. So
numbers are rounded to a grid before they are added, one as fine as the sum of their absolute
values allows. In the code, `size` is ``|x|`` and `row_sum` the sum of each of its rows. In the
comments, x_int is x / grid(x), and what makes a sum of x * w exact is ::

    sum |x_int| * max |w_int| <= 2**53
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..arrays import (
    Array,
    HeadOutputs,
    Heads,
    Inputs,
    Keys,
    NewKeys,
    Outputs,
    Pattern,
    Queries,
    Scores,
    Values,
)
from ..errors import ArithmeticRangeError
from . import elementary
from .base import Arithmetic

LONGEST = 2**20  # terms of a sum, over features or over tokens
FLOAT32_MAX = float(np.finfo(np.float32).max)
HUGE = 2.0**128 - 2.0**106  # what 21 bits round to 2**128, too large for float32
TINY = 2.0**-149  # the smallest positive float32
ROUND = 1.5 * 2.0**52  # see `round_to`
MOST_ROWS = 512  # of a product at a time, which bounds the memory that float64 operands take
WEIGHT_ROWS = 256  # of a matrix that are prepared at a time, which bounds the temporaries


def power_below(y: Array) -> Array:
    """The largest power of two <= y, elementwise, for y from 0 to 2**970; 0 for 0.

    Three correctly rounded operations (Rump, Ogita and Oishi, "Accurate floating-point summation
    part I", 2008, algorithm 3.5); no bits are inspected, so every array library can run it.
    """
    q = y * (2.0**52 + 1)
    return q - q * (1 - 2.0**-53)


def round_to(x: Array, grid: Array) -> Array:
    """x, in place, to the nearest multiple of its grid, a power of two; a zero becomes +0.0.

    For ``|x| <= 2**51 * grid``: x + 1.5 * 2**52 * grid lies where float64 numbers are `grid` apart,
    so that the addition rounds, ties to even, and the subtraction is exact.
    """
    shift = grid * ROUND
    x += shift
    x -= shift
    return x


def expect_ieee_float64(xp: ModuleType) -> None:
    """Refuse float64 that is narrower than 53 bits, or rounded twice.

    The x87 of 32-bit x86 rounds to 64 bits before it rounds to 53: there 1e16 + 2.99999 is 1e16 + 4
    for an array of one element, where the nearest float64 is 1e16 + 2.
    """
    if float((xp.ones((1,), dtype=xp.float64) + 2.0**-52)[0]) == 1.0:
        raise ArithmeticRangeError(
            f"{xp.__name__} computes float64 in fewer than 53 bits; in JAX, set jax_enable_x64"
        )
    if float((xp.asarray([1e16], dtype=xp.float64) + 2.99999)[0]) != 1e16 + 2:
        raise ArithmeticRangeError(
            f"{xp.__name__} rounds float64 twice on this processor (x87), so that exp, sin and "
            "quotients of a few numbers have other last bits: use a 64-bit Python"
        )


def keeps_subnormals(xp: ModuleType) -> bool:
    """Whether float32 sums below 2**-126 are what IEEE 754 says, and not 0.

    ARMv7's NEON makes them 0, in arrays long enough for it; so do JAX on a CPU, and CuPy. Such
    numbers are also equal to 0 there, so that sums are compared as float64.
    """
    smallest = xp.full((64,), TINY, dtype=xp.float32)
    return bool(xp.all(xp.astype(smallest + smallest, xp.float64) == 2 * TINY))


@dataclass(frozen=True)
class Weight:
    """A matrix with a grid to each row; no ``|w_int|`` exceeds 2**weight_bits."""

    values: Array  # (N, K) float64
    largest: float  # no |value| exceeds it
    name: str


@dataclass(frozen=True)
class PreparedValues:
    """V, and each row's power of two: v = v_int * power * 2**-23, ``|v_int| < 2**kv_bits``."""

    rows: Array  # (S, G, d) float64
    powers: Array  # (S, G, 1)

    def __getitem__(self, tokens: tuple[slice, ...]) -> PreparedValues:
        return PreparedValues(self.rows[tokens], self.powers[tokens])


class Exact(Arithmetic):
    """Order-free arithmetic on any array library.

    Keys and values must have been through `settle` since anything last touched them; `scores` and
    `weighted_sum` do not look. Everything else may hold any finite float32 values.

    Libraries may compute on a device, which is never asked for a number, since that would mean
    waiting for it: NaN and infinity stay in the stream, also of tokens that attention computes with
    theirs, and logits are not finite. On NumPy, `NumpyExact` has the same bits and does look.

    Parameters
    ----------
    context : int
        The longest sum over tokens; it fixes the softmax denominator's grid.
    xp : module
        Array namespace with IEEE float64; NumPy by default.

    Raises
    ------
    ArithmeticRangeError
        From `weight`, naming it, if a value is NaN, infinite or too large.
    """

    name = "exact"
    significand = 53  # of float64; a larger number breaks every bound (tests do so on purpose)
    weight_bits = 21
    kv_bits = 24  # what a float32 holds, so that caches store K and V in float32

    def __init__(self, context: int = 2**17, xp: ModuleType = np) -> None:
        if not 1 <= context <= LONGEST:
            raise ArithmeticRangeError(f"context is {context} tokens, expected 1 to {LONGEST}")
        expect_ieee_float64(xp)
        self.xp = xp
        self.dtype = xp.float32
        self.wide = xp.float64
        self.context = context
        # exp(score - max) <= 1, and `context` integers of so many bits add up to 2**53 at most
        self.denominator_bits = min(40, self.significand - (context - 1).bit_length())

    def widen(self, x: Array) -> Array:
        return self.xp.astype(x, self.xp.float64, copy=False)

    def narrow(self, x: Array) -> Array:
        return self.xp.astype(x, self.xp.float32)

    # Grids

    def largest(self, size: Array) -> Array:
        """The largest number of each row, ``(..., K) -> (..., 1)``."""
        return self.xp.max(size, axis=-1, keepdims=True)

    def row_sum(self, size: Array) -> Array:
        """The sum of each row of absolute values that `grid` takes, ``(..., K) -> (..., 1)``."""
        return self.total(size)

    def total(self, size: Array) -> Array:
        """Sums that no order and no added zero can change, ``(..., K) -> (..., 1)``.

        Each number is cut into a multiple of a coarse and one of a fine grid, such that 2**20 of
        either add up exactly. The grids do not know K: keys that are not seen weigh 0, and must
        not count. Below the fine grid is at most half of it for each number, together 2**20 / 2 *
        power * 2**(1 - bits) * 2**-bits = 2**-42 * power, and the largest number is at least
        `power`; so the sum is within 2**-41 of the true one.
        """
        high, low = self.coarse_and_fine(size, self.xp.max(size, axis=-1, keepdims=True))
        return high + low

    def coarse_and_fine(self, size: Array, top: Array) -> tuple[Array, Array]:
        """The two exact sums that make `total`, where `top` is the largest number of each row."""
        bits = 51 - (LONGEST - 1).bit_length()
        # no number is twice the row's power, so both are integers up to 2**bits, times their grid
        power = power_below(top)
        # as `round_to` does, but `size` is still needed
        shift = power * (2.0 ** (1 - bits) * ROUND)
        high = size + shift - shift
        low = round_to(size - high, power * (2.0 ** (1 - bits) * 2.0**-bits))
        xp = self.xp
        return xp.sum(high, axis=-1, keepdims=True), xp.sum(low, axis=-1, keepdims=True)

    def grid(self, size: Array, row_sum: Array, bits: int) -> Array:
        """The finest grid for rows of absolute values x that ensures sum x_int <= 2**bits.

        K roundings add at most grid / 2 each: sum x_int <= sum x / grid + 2**19, where 2**19 is at
        most 2**-10 * 2**bits. So any grid >= sum x * (1 + 2**-9) * 2**-bits will do, and twice the
        power of two below that is one.

        Parameters
        ----------
        size : (..., K)
            The rows, absolute values.
        row_sum : (..., 1)
            Their sums by `row_sum`.
        bits : int
            29 or more.
        """
        return 2.0 * power_below(row_sum * ((1 + 2.0**-9) * 2.0**-bits))

    # Products

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Weight:
        if not 1 <= matrix.shape[1] <= LONGEST:
            raise ArithmeticRangeError(
                f"{name} sums over {matrix.shape[1]} numbers, expected 1 to {LONGEST}"
            )
        values = self.room_for(matrix)
        largest = 0.0
        for start in range(0, len(matrix), WEIGHT_ROWS):
            block = slice(start, start + WEIGHT_ROWS)
            rows = np.array(matrix[block], dtype=np.float64)
            top = self.row_tops(rows, name)
            values[block] = round_to(rows, self.weight_grid(top))
            largest = max(largest, 2.0 * float(top.max()))
        return Weight(self.xp.asarray(values), largest, name)

    def room_for(self, matrix: np.ndarray) -> np.ndarray:
        """Where the prepared numbers of a matrix go, float64."""
        return np.empty(matrix.shape)

    def row_tops(self, rows: np.ndarray, name: str) -> np.ndarray:
        """The largest absolute value of each row of a matrix, ``(N, K) -> (N, 1)``."""
        top = np.max(np.abs(rows), axis=1, keepdims=True)
        if not float(top.max()) < HUGE:  # nor for NaN
            raise ArithmeticRangeError(f"{name} holds {top.max()}, expected less than {HUGE}")
        return top

    def weight_grid(self, top: np.ndarray) -> np.ndarray:
        """The grid of each row of a matrix: ``|w| <= top < 2 * power``, ``|w_int| <= 2**21``."""
        return power_below(top) * 2.0 ** (1 - self.weight_bits)

    def linear(self, x: Inputs, weight: Weight) -> Outputs:
        return self.linears(x, weight)[0]

    def linears(self, x: Inputs, *weights: Weight) -> tuple[Outputs, ...]:
        if x.shape[0] > MOST_ROWS:
            starts = range(0, x.shape[0], MOST_ROWS)
            blocks = [self.linears(x[start : start + MOST_ROWS, :], *weights) for start in starts]
            return tuple(self.xp.concat(parts, axis=0) for parts in zip(*blocks, strict=True))
        wide = self.xp.astype(x, self.xp.float64)
        size = self.xp.abs(wide)
        row_sum = self.row_sum(size)
        self.expect_finite(row_sum, weights)
        # sum |x_int| |w_int| <= 2**(significand - weight_bits) * 2**weight_bits
        grid = self.grid(size, row_sum, self.significand - self.weight_bits)
        rows = round_to(wide, grid)
        return tuple(self.rounded_product(rows, weight, row_sum) for weight in weights)

    def rounded_product(self, rows: Inputs, weight: Weight, row_sum: Array) -> Outputs:
        """The product of rows on their grid, in float32."""
        out = self.product(rows, weight)
        self.expect_float32(out, row_sum, weight)
        # The one rounding. A product of its own may be -0.0 where a sum is +0.0: make it +0.0.
        out = self.narrow(out)
        out += 0.0
        return out

    def product(self, x: Inputs, weight: Weight) -> Outputs:
        """The sums, exact in any order, of rows on a grid: ``(T, K) -> (T, N)``, float64."""
        return x @ weight.values.T

    def expect_finite(self, row_sum: Array, weights: Sequence[Weight]) -> None:
        """Refuse rows that hold NaN or infinity, where numbers can be looked at: not here."""

    def expect_float32(self, out: Outputs, row_sum: Array, weight: Weight) -> None:
        """Refuse products that float32 cannot hold, where numbers can be looked at: not here."""

    def mean_square(self, x: Array) -> Array:
        square = self.widen(x)
        square = square * square  # exact: 24 + 24 bits
        # The grid is power * 2**-32 (with the 53 bits of `significand`), and square < 2 * power: so
        # 2**20 integers of at most 2**33 add up to at most 2**53.
        grid = power_below(self.largest(square)) * 2.0 ** (self.significand - 85)
        square = round_to(square, grid)
        return self.xp.sum(square, axis=-1, keepdims=True) / float(x.shape[-1])

    # Attention

    def tops(self, x: Heads) -> Array:
        """The largest absolute value of each head, float64: ``(T, G, d) -> (T, G, 1)``."""
        return self.widen(self.xp.max(self.xp.abs(x), axis=-1, keepdims=True))

    def settle(self, x: NewKeys) -> NewKeys:
        # |x| <= top < 2 * power, so |x_int| < 2**kv_bits. The grid is the last place of the row's
        # largest number, which therefore stays, and the grid with it: settling is idempotent.
        grid = power_below(self.tops(x)) * 2.0 ** (1 - self.kv_bits)
        return self.narrow(round_to(self.xp.astype(x, self.xp.float64), grid))

    def placed_queries(self, q: Queries, scale: float) -> Queries:
        """q * scale, float64, on the grids on which products with settled keys are exact."""
        q = self.widen(q) * scale
        size = self.xp.abs(q)
        # sum |q_int| |k_int| <= 2**(significand - kv_bits) * 2**kv_bits, with k settled
        grid = self.grid(size, self.row_sum(size), self.significand - self.kv_bits)
        return round_to(q, grid)

    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        xp = self.xp
        tokens, heads, head_dim = q.shape
        length, groups, _ = k.shape
        q = xp.reshape(self.placed_queries(q, scale), (tokens, groups, -1, head_dim))
        q = xp.reshape(xp.permute_dims(q, (1, 2, 0, 3)), (groups, -1, head_dim))  # (G, R*T, d)
        scores = q @ xp.permute_dims(self.widen(k), (1, 2, 0))  # (G, R*T, S)
        return xp.reshape(scores, (heads, tokens, length))

    def softmax(self, scores: Scores) -> Pattern:
        if scores.shape[-1] > self.context:
            raise ArithmeticRangeError(
                f"{scores.shape[-1]} tokens to attend to, expected at most {self.context}"
            )
        pattern = self.exp(scores - self.xp.max(scores, axis=-1, keepdims=True))
        # integers up to 2**denominator_bits, at most `context` of them; a masked one is 0
        pattern = round_to(pattern, 2.0**-self.denominator_bits)
        pattern /= self.xp.sum(pattern, axis=-1, keepdims=True)
        return pattern

    def values(self, v: Values | PreparedValues) -> PreparedValues:
        if isinstance(v, PreparedValues):
            return v
        top = elementary.clip(self.tops(v), TINY, FLOAT32_MAX, self.xp)
        return PreparedValues(self.widen(v), power_below(top))

    def weighted_sum(self, pattern: Pattern, v: Values | PreparedValues) -> HeadOutputs:
        xp = self.xp
        v = self.values(v)
        heads, tokens, length = pattern.shape
        groups, head_dim = v.rows.shape[1:]
        # v is settled, on the grid power * 2**(1 - kv_bits) of its token. With the weight of each
        # token on its own grid, g / power, all products share one grid, and
        # sum |p_int| |v_int| <= 2**(significand - kv_bits) * 2**kv_bits.
        powers = xp.permute_dims(v.powers, (1, 2, 0))
        pattern = xp.reshape(pattern, (groups, -1, length)) * powers  # exact, as what undoes it
        size = xp.abs(pattern)
        grid = self.grid(size, self.row_sum(size), self.significand - self.kv_bits)
        pattern = round_to(pattern, grid)
        pattern *= 1.0 / powers
        z = pattern @ xp.permute_dims(v.rows, (1, 0, 2))  # (G, R*T, d)
        z = xp.permute_dims(xp.reshape(z, (heads, tokens, head_dim)), (1, 0, 2))
        return self.narrow(z) + 0.0  # and -0.0, of a product of its own, becomes +0.0

    # Elementary functions

    def exp(self, x: Array) -> Array:
        return elementary.exp(x, self.xp)

    def sin(self, x: Array) -> Array:
        return elementary.sin(self.widen(x), self.xp)

    def cos(self, x: Array) -> Array:
        return elementary.cos(self.widen(x), self.xp)
