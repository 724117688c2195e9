"""Exact: sums of integers held in float64, whose value no order of addition can change.

A float64 holds every integer up to 2**53. If the absolute values of the terms of a sum add up to at
most that, then every partial sum, in any order, blocking or thread count, with or without fused
multiply-add, is exactly representable: nothing is ever rounded, and all orders agree to the bit
(``proofs/rocq/Exactness.v``). The same holds for integer multiples of one power of two, the *grid*.
So numbers are rounded to a grid before they are added, and how fine it may be follows from the sum
of absolute values:

    sum |x| |w| <= 2**53 * grid(x) * grid(w)

Letters of the comments: a row on a grid g has the integers x / g, written x_int.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArithmeticRangeError
from . import elementary

_LONGEST = 2**20  # terms of a sum, over features or over tokens
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_TINY = 2.0**-149  # the smallest positive float32


def _power_below(y: Any) -> Any:
    """The largest power of two <= y, elementwise, for y >= 0; 0 for 0.

    Four correctly rounded operations (Rump, Ogita and Oishi, "Accurate floating-point summation
    part I", 2008, algorithm 3.5); no bits are inspected, so every array library can run it.
    """
    q = y * (2.0**52 + 1)
    return q - q * (1 - 2.0**-53)


def _round_to(x: Any, grid: Any) -> Any:
    """x to the nearest multiple of `grid`, ties to even; for |x| <= 2**51 * grid.

    1.5 * 2**52 * grid + x lies where float64 numbers are `grid` apart, so the addition rounds and
    the subtraction is exact. A zero comes out as +0.0; a grid of 0 leaves a row of zeros.
    """
    shift = grid * (1.5 * 2.0**52)
    rounded = x + shift
    rounded -= shift
    return rounded


def _number(array: Any) -> float:
    """The one element of an array."""
    return float(array[(0,) * array.ndim])


class Weight(NamedTuple):
    """A matrix whose rows lie each on a grid of their own, at most 2**weight_bits steps wide."""

    values: Any  # (N, K) float64
    largest: float  # of |values|
    name: str


class Rows(NamedTuple):
    """Rows of an activation on grids of their own, ready to be multiplied by any `Weight`."""

    values: Any  # (T, K) float64; the raw rows where `bound` is not finite
    bound: float  # no row's absolute values add up to more


class Exact:
    """Order-free arithmetic. See `minikv.arithmetic.Arithmetic` for the methods.

    Parameters
    ----------
    context : int
        The longest sum over tokens; it fixes the softmax denominator's grid.
    xp : module
        Array namespace with float64; NumPy by default.

    Raises
    ------
    ArithmeticRangeError
        From any method, if a value is NaN, infinite or too large; the message names the weight.
    """

    name = "exact"
    significand = 53  # bits of the sums; more would break the bound (tests do that on purpose)
    weight_bits = 21
    kv_bits = 24  # as many as a float32 has, so that the cache stores K and V in float32

    def __init__(self, context: int = 2**17, xp: ModuleType = np) -> None:
        if not 1 <= context <= _LONGEST:
            raise ArithmeticRangeError(f"context is {context}, expected 1 to {_LONGEST} tokens")
        one = xp.ones((1,), dtype=xp.float64)
        if float((one + 2.0**-52)[0]) == 1.0:
            raise ArithmeticRangeError(
                f"{xp.__name__} has no float64 (in JAX, set jax_enable_x64), which Exact needs"
            )
        self.xp = xp
        self.dtype = xp.float32
        self.wide = xp.float64
        self.context = context
        # exp(score - max) <= 1, so `context` integers of so many bits stay below 2**53
        self.denominator_bits = min(40, self.significand - (context - 1).bit_length())

    def weight(self, matrix: np.ndarray, name: str) -> Weight:
        if not 1 <= matrix.shape[1] <= _LONGEST:
            raise ArithmeticRangeError(
                f"{name} sums over {matrix.shape[1]} numbers, expected 1 to {_LONGEST}"
            )
        top = np.max(np.abs(matrix), axis=1, keepdims=True).astype(np.float64)
        if not float(top.max()) <= _FLOAT32_MAX:
            raise ArithmeticRangeError(f"{name} holds NaN or infinity, expected finite weights")
        # |w| <= top < 2 * power, so that |w_int| <= 2**weight_bits
        grid = _power_below(top) * 2.0 ** (1 - self.weight_bits)
        values = np.empty(matrix.shape)
        for start in range(0, len(matrix), 256):  # blocks bound the memory of the temporaries
            rows = slice(start, start + 256)
            values[rows] = _round_to(matrix[rows].astype(np.float64), grid[rows])
        largest = float(max(values.max(), -values.min()))
        return Weight(self.xp.asarray(values), largest, name)

    def _bounded(self, x: Any, bits: int) -> tuple[Any, Any]:
        """Round rows to the finest grid with sum |x_int| <= 2**bits by construction.

        ``(..., K) -> (..., K), (..., 1)``: float64 rows and their grids. 30 <= bits <= 50.
        """
        xp = self.xp
        size = xp.abs(x)
        top = xp.max(size, axis=-1, keepdims=True)
        if math.prod(top.shape) == 1:  # decoding: Python's floats do the same, faster
            top = _number(top)
        # First grid, from the maximum: |x_int| <= 2**30, and 2**20 of them add up below 2**53,
        # so this sum is exact, hence the same in any order.
        first = _power_below(top) * 2.0**-29
        norm = xp.sum(_round_to(size, first), axis=-1, keepdims=True)
        if isinstance(top, float):
            norm = _number(norm)
        # K roundings by at most first / 2 <= 2**-30 * norm each: sum |x| <= norm * (1 + 2**-10).
        # K more by at most grid / 2: sum |x_int| <= sum |x| / grid + 2**19, and 2**19 is at most
        # 2**-11 * 2**bits. So any grid >= norm * (1 + 2**-9) * 2**-bits will do, rounding errors
        # of this line included; twice the power of two below is one.
        grid = _power_below(norm * ((1 + 2.0**-9) * 2.0**-bits)) * 2.0
        return _round_to(x, grid), grid

    def rows(self, x: Any) -> Rows:
        """Put the rows of an activation on their grids: once, for all weights they meet."""
        xp = self.xp
        wide = xp.astype(x, xp.float64)
        bits = self.significand - self.weight_bits
        values, grid = self._bounded(wide, bits)
        largest = grid if isinstance(grid, float) else float(xp.max(grid))
        return Rows(values, largest * 2.0**bits)

    def linear(self, x: Any, weight: Weight) -> Any:
        xp = self.xp
        if not isinstance(x, Rows):
            x = self.rows(x)
        # sum |x_int| |w_int| <= 2**(significand - weight_bits) * 2**weight_bits
        out = x.values @ weight.values.T
        if not x.bound * weight.largest <= _FLOAT32_MAX:  # some result might overflow, or is NaN
            if not bool(xp.all(xp.isfinite(x.values))):
                raise ArithmeticRangeError(
                    f"input of {weight.name} holds NaN or infinity, expected finite activations"
                )
            if not bool(xp.all(xp.abs(out) <= _FLOAT32_MAX)):
                raise ArithmeticRangeError(f"output of {weight.name} overflows float32")
        # The one rounding. A product alone may be -0.0, in a sum it is +0.0: make it +0.0.
        return xp.astype(out, xp.float32) + 0.0

    def mean_square(self, x: Any) -> Any:
        xp = self.xp
        square = xp.astype(x, xp.float64)
        square = square * square  # exact: 24 + 24 bits
        top = xp.max(square, axis=-1, keepdims=True)
        if math.prod(top.shape) == 1:
            top = _number(top)
        # 2**20 integers of at most 2**33 add up to at most 2**53
        grid = _power_below(top) * 2.0 ** (self.significand - 85)
        return xp.sum(_round_to(square, grid), axis=-1, keepdims=True) / float(x.shape[-1])

    def settle(self, x: Any) -> Any:
        xp = self.xp
        # |x| <= top < 2 * power: integers below 2**kv_bits. The grid is the last bit of the row's
        # largest number, which therefore stays, and with it the grid: settling again does nothing.
        top = xp.astype(xp.max(xp.abs(x), axis=-1, keepdims=True), xp.float64)
        grid = _power_below(top) * 2.0 ** (1 - self.kv_bits)
        return xp.astype(_round_to(xp.astype(x, xp.float64), grid), xp.float32)

    def scores(self, q: Any, k: Any) -> Any:
        xp = self.xp
        tokens, heads, head_dim = q.shape
        length, groups, _ = k.shape
        q = xp.astype(q, xp.float64) * (1 / math.sqrt(head_dim))
        # k_int < 2**kv_bits, settled
        q, _ = self._bounded(q, self.significand - self.kv_bits)
        q = xp.reshape(q, (tokens, groups, -1, head_dim))
        q = xp.reshape(xp.permute_dims(q, (1, 2, 0, 3)), (groups, -1, head_dim))
        scores = q @ xp.permute_dims(xp.astype(k, xp.float64), (1, 2, 0))
        return xp.reshape(scores, (heads, tokens, length))

    def softmax(self, scores: Any) -> Any:
        xp = self.xp
        if scores.shape[-1] > self.context:
            raise ArithmeticRangeError(
                f"{scores.shape[-1]} tokens to attend to, expected at most {self.context}"
            )
        pattern = self.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        # pattern_int <= 2**denominator_bits, and a masked one is 0
        pattern = _round_to(pattern, 2.0**-self.denominator_bits)
        pattern /= xp.sum(pattern, axis=-1, keepdims=True)
        return pattern

    def weighted_sum(self, pattern: Any, v: Any) -> Any:
        xp = self.xp
        heads, tokens, length = pattern.shape
        groups, head_dim = v.shape[1:]
        # v = v_scaled * power with |v_scaled| < 2 on a grid of 2**(1 - kv_bits), settled;
        # the power of token s goes into its weight, so that all products share one grid.
        top = xp.astype(xp.max(xp.abs(v), axis=-1, keepdims=True), xp.float64)
        power = _power_below(xp.clip(top, _TINY, _FLOAT32_MAX))
        v = xp.permute_dims(xp.astype(v, xp.float64) / power, (1, 0, 2))
        pattern = xp.reshape(pattern, (groups, -1, length)) * xp.permute_dims(power, (1, 2, 0))
        pattern, _ = self._bounded(pattern, self.significand - self.kv_bits)
        z = xp.reshape(pattern @ v, (heads, tokens, head_dim))
        return xp.astype(xp.permute_dims(z, (1, 0, 2)), xp.float32) + 0.0

    def exp(self, x: Any) -> Any:
        return elementary.exp(self.xp.astype(x, self.xp.float64), self.xp)

    def sin(self, x: Any) -> Any:
        return elementary.sin(self.xp.astype(x, self.xp.float64), self.xp)

    def cos(self, x: Any) -> Any:
        return elementary.cos(self.xp.astype(x, self.xp.float64), self.xp)
