"""Exact: sums of integers held in float64, whose value no order of addition can change.

A float64 holds every integer up to 2**53. If the absolute values of the terms of a sum add up to at
most that, then every partial sum, in any order, blocking or thread count, with or without fused
multiply-add, is exactly representable: nothing is ever rounded, and all orders agree to the bit
(``proofs/rocq/Exactness.v``). The same holds for multiples of one power of two, the *grid*. So
numbers are rounded to a grid before they are added, one as fine as the sum of their absolute
values allows. In the comments, x_int is x / grid(x), and what makes a sum of x * w exact is ::

    sum |x_int| * max |w_int| <= 2**53
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import ArithmeticRangeError
from . import elementary

_LONGEST = 2**20  # terms of a sum, over features or over tokens
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_HUGE = 2.0**128 - 2.0**106  # what 21 bits round to 2**128, too large for float32
_TINY = 2.0**-149  # the smallest positive float32
_ROUND = 1.5 * 2.0**52
_ROWS = 512  # of a product at a time, which bounds the memory that float64 operands take


def _power_below(y: Any) -> Any:
    """The largest power of two <= y, elementwise, for y from 0 to 2**970; 0 for 0.

    Three correctly rounded operations (Rump, Ogita and Oishi, "Accurate floating-point summation
    part I", 2008, algorithm 3.5); no bits are inspected, so every array library can run it.
    """
    q = y * (2.0**52 + 1)
    return q - q * (1 - 2.0**-53)


def _round(x: Any, shift: Any) -> Any:
    """x, in place, to the nearest multiple of the grid ``shift / _ROUND``; a zero becomes +0.0.

    For |x| <= 2**51 * grid: x + 1.5 * 2**52 * grid lies where float64 numbers are `grid` apart, so
    that the addition rounds, ties to even, and the subtraction is exact.
    """
    x += shift
    x -= shift
    return x


def _scalar(array: Any) -> Any:
    """NumPy's array of one element as a Python float, whose arithmetic is the same and faster."""
    return float(array.item()) if isinstance(array, np.ndarray) and array.size == 1 else array


@dataclass(frozen=True)
class Weight:
    """A matrix with a grid to each row; no ``|w_int|`` exceeds 2**weight_bits."""

    values: Any  # (N, K) float64
    largest: float  # no |value| exceeds it
    name: str

    def __getitem__(self, at: Any) -> Weight:
        return Weight(self.values[at], self.largest, self.name)


@dataclass(frozen=True)
class Values:
    """V, and each row's power of two: v = v_int * power * 2**-23, ``|v_int| < 2**kv_bits``."""

    rows: Any  # (S, G, d) float64
    powers: Any  # (S, G, 1)

    def __getitem__(self, at: Any) -> Values:
        return Values(self.rows[at], self.powers[at])


class Exact:
    """Order-free arithmetic. See `minikv.arithmetic.Arithmetic` for the methods.

    Keys and values must have been through `settle` since anything last touched them; `scores` and
    `weighted_sum` do not look. Everything else may hold any finite float32 values.

    Parameters
    ----------
    context : int
        The longest sum over tokens; it fixes the softmax denominator's grid.
    xp : module
        Array namespace with IEEE float64; NumPy by default.

    Raises
    ------
    ArithmeticRangeError
        From `weight` and, on NumPy, `linear`, naming the weight, if a value is NaN, infinite or
        too large. Other libraries may compute on a device, which is not asked: such values stay in
        the stream, also of tokens that attention computes with theirs, and logits are not finite.
    """

    name = "exact"
    significand = 53  # of float64; a larger number breaks every bound (tests do so on purpose)
    weight_bits = 21
    kv_bits = 24  # what a float32 holds, so that caches store K and V in float32

    def __init__(self, context: int = 2**17, xp: ModuleType = np) -> None:
        if not 1 <= context <= _LONGEST:
            raise ArithmeticRangeError(f"context is {context} tokens, expected 1 to {_LONGEST}")
        if float((xp.ones((1,), dtype=xp.float64) + 2.0**-52)[0]) == 1.0:
            raise ArithmeticRangeError(
                f"{xp.__name__} computes float64 in fewer than 53 bits; in JAX, set jax_enable_x64"
            )
        self.xp = xp
        self.dtype = xp.float32
        self.wide = xp.float64
        self.context = context
        # exp(score - max) <= 1, and `context` integers of so many bits add up to 2**53 at most
        self.denominator_bits = min(40, self.significand - (context - 1).bit_length())

    def widen(self, x: Any) -> Any:
        return self.xp.astype(x, self.xp.float64, copy=False)

    def narrow(self, x: Any) -> Any:
        return self.xp.astype(x, self.xp.float32)

    def weight(self, matrix: np.ndarray, name: str) -> Weight:
        if not 1 <= matrix.shape[1] <= _LONGEST:
            raise ArithmeticRangeError(
                f"{name} sums over {matrix.shape[1]} numbers, expected 1 to {_LONGEST}"
            )
        values = np.empty(matrix.shape)
        largest = 0.0
        for start in range(0, len(matrix), 256):  # blocks bound the memory of the temporaries
            rows = np.array(matrix[start : start + 256], dtype=np.float64)
            top = np.max(np.abs(rows), axis=1, keepdims=True)
            if not float(top.max()) < _HUGE:
                raise ArithmeticRangeError(f"{name} holds {top.max()}, expected less than {_HUGE}")
            # |w| <= top < 2 * power, so |w_int| <= 2**weight_bits
            grid = _power_below(top) * 2.0 ** (1 - self.weight_bits)
            values[start : start + 256] = _round(rows, grid * _ROUND)
            largest = max(largest, 2.0 * float(top.max()))
        return Weight(self.xp.asarray(values), largest, name)

    def _estimate(self, size: Any) -> Any:
        """``(..., K) -> (..., 1)``: sums for `_grid`."""
        if self.xp is not np:  # `_grid` would have to wait for a device to know if it may doubt
            return self._total(size)
        return _scalar(np.sum(size, axis=-1, keepdims=True))  # in any order: it may round

    def _total(self, size: Any) -> Any:
        """``(..., K) -> (..., 1)``: sums that no order and no added zero can change; see `_grid`.

        Each number is cut into a multiple of a coarse and one of a fine grid, such that 2**20 of
        either add up exactly. The grids do not know K: keys that are not seen weigh 0, and must
        not count. Below the fine grid is at most half of it for each number, together 2**20 / 2 *
        power * 2**(1 - bits) * 2**-bits = 2**-42 * power, and the largest number is at least
        `power`; so the sum is within 2**-41 of the true one.
        """
        xp, bits = self.xp, 51 - (_LONGEST - 1).bit_length()
        # no number is twice the row's power, so both are integers up to 2**bits, times their grid
        shift = _power_below(xp.max(size, axis=-1, keepdims=True)) * (2.0 ** (1 - bits) * _ROUND)
        high = size + shift - shift
        low = _round(size - high, shift * 2.0**-bits)
        return xp.sum(high, axis=-1, keepdims=True) + xp.sum(low, axis=-1, keepdims=True)

    def _grid(self, size: Any, norm: Any, bits: int) -> Any:
        """The finest grid for rows of absolute values x that ensures sum x_int <= 2**bits.

        Parameters
        ----------
        size : (..., K)
            The rows.
        norm : float or (..., 1)
            Their sums by `_estimate`.
        bits : int
            29 or more.

        Notes
        -----
        K roundings add at most grid / 2 each: sum x_int <= sum x / grid + 2**19, where 2**19 is at
        most 2**-10 * 2**bits. So any grid >= sum x * (1 + 2**-9) * 2**-bits will do, and twice the
        power of two below that is one. All orders agree on it, unless a power of two lies within
        the rounding error of a sum, 2**20 * 2**-53 relative, as in one row in 2**29. Then
        `_total` decides, which knows no order and, where no sum is in doubt, agrees with them.
        """
        scale = (1 + 2.0**-9) * 2.0**-bits
        target = norm * scale
        power = _power_below(target)
        if self.xp is np:
            close = abs(target - 1.5 * power) > (0.5 - 2.0**-30) * power
            if close if isinstance(norm, float) else close.any():
                power = _power_below(self._total(size) * scale)
        return power * 2.0

    def linear(self, x: Any, weight: Weight) -> Any:
        xp = self.xp
        if x.shape[0] > _ROWS:
            blocks = range(0, x.shape[0], _ROWS)
            return xp.concat([self.linear(x[i : i + _ROWS, :], weight) for i in blocks], axis=0)
        wide = xp.astype(x, xp.float64)
        size = xp.abs(wide)
        norm = self._estimate(size)
        # NaN where any x is. A device is not asked, which would take time: there NaN stays NaN.
        largest = norm if isinstance(norm, float) else float(norm.max()) if xp is np else 0.0
        safe = largest * weight.largest < _FLOAT32_MAX
        if not safe and not largest < math.inf:
            found = f"input of {weight.name} holds {'infinity' if largest > 0 else 'NaN'}"
            raise ArithmeticRangeError(found + ", expected finite activations")
        # sum |x_int| |w_int| <= 2**(significand - weight_bits) * 2**weight_bits
        grid = self._grid(size, norm, self.significand - self.weight_bits)
        out = self.product(_round(wide, grid * _ROUND), weight)
        if not safe and not (np.abs(out) <= _FLOAT32_MAX).all():
            raise ArithmeticRangeError(f"output of {weight.name} overflows float32")
        # The one rounding. A product of its own may be -0.0 where a sum is +0.0: make it +0.0.
        out = self.narrow(out)
        out += 0.0
        return out

    def product(self, x: Any, weight: Weight) -> Any:
        """``(T, K) -> (T, N)``, float64: the sums, exact in any order, of rows on a grid."""
        return x @ weight.values.T

    def mean_square(self, x: Any) -> Any:
        xp = self.xp
        square = self.widen(x)
        square = square * square  # exact: 24 + 24 bits
        top = _scalar(xp.max(square, axis=-1, keepdims=True))
        # square < 2 * power, so 2**20 integers of at most 2**33 add up to at most 2**53
        grid = _power_below(top) * 2.0 ** (self.significand - 85)
        square = _round(square, grid * _ROUND)
        return xp.sum(square, axis=-1, keepdims=True) / float(x.shape[-1])

    def settle(self, x: Any) -> Any:
        xp = self.xp
        # |x| <= top < 2 * power, so |x_int| < 2**kv_bits. The grid is the last place of the row's
        # largest number, which therefore stays, and the grid with it: settling is idempotent.
        top = xp.astype(xp.max(xp.abs(x), axis=-1, keepdims=True), xp.float64)
        grid = _power_below(top) * 2.0 ** (1 - self.kv_bits)
        return self.narrow(_round(xp.astype(x, xp.float64), grid * _ROUND))

    def scores(self, q: Any, k: Any, scale: float) -> Any:
        xp = self.xp
        tokens, heads, head_dim = q.shape
        length, groups, _ = k.shape
        q = self.widen(q) * scale
        size = xp.abs(q)
        # sum |q_int| |k_int| <= 2**(significand - kv_bits) * 2**kv_bits, with k settled
        grid = self._grid(size, self._estimate(size), self.significand - self.kv_bits)
        q = xp.reshape(_round(q, grid * _ROUND), (tokens, groups, -1, head_dim))
        q = xp.reshape(xp.permute_dims(q, (1, 2, 0, 3)), (groups, -1, head_dim))
        scores = q @ xp.permute_dims(self.widen(k), (1, 2, 0))  # (G, R*T, S)
        return xp.reshape(scores, (heads, tokens, length))

    def softmax(self, scores: Any) -> Any:
        xp = self.xp
        if scores.shape[-1] > self.context:
            raise ArithmeticRangeError(
                f"{scores.shape[-1]} tokens to attend to, expected at most {self.context}"
            )
        pattern = self.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        # integers up to 2**denominator_bits, at most `context` of them; a masked one is 0
        pattern = _round(pattern, 2.0**-self.denominator_bits * _ROUND)
        pattern /= xp.sum(pattern, axis=-1, keepdims=True)
        return pattern

    def values(self, v: Any) -> Values:
        if isinstance(v, Values):
            return v
        top = self.widen(self.xp.max(self.xp.abs(v), axis=-1, keepdims=True))
        top = elementary.clip(top, _TINY, _FLOAT32_MAX, self.xp)
        return Values(self.widen(v), _power_below(top))

    def weighted_sum(self, pattern: Any, v: Any) -> Any:
        xp, v = self.xp, self.values(v)
        heads, tokens, length = pattern.shape
        groups, head_dim = v.rows.shape[1:]
        # v is settled, on the grid power * 2**(1 - kv_bits) of its token. With the weight of each
        # token on its own grid, g / power, all products share one grid, and
        # sum |p_int| |v_int| <= 2**(significand - kv_bits) * 2**kv_bits.
        powers = xp.permute_dims(v.powers, (1, 2, 0))
        pattern = xp.reshape(pattern, (groups, -1, length)) * powers  # exact, as what undoes it
        size = xp.abs(pattern)
        grid = self._grid(size, self._estimate(size), self.significand - self.kv_bits)
        pattern = _round(pattern, grid * _ROUND)
        pattern *= 1.0 / powers
        z = pattern @ xp.permute_dims(v.rows, (1, 0, 2))
        z = xp.permute_dims(xp.reshape(z, (heads, tokens, head_dim)), (1, 0, 2))
        return self.narrow(z) + 0.0

    def exp(self, x: Any) -> Any:
        return elementary.exp(x, self.xp)

    def sin(self, x: Any) -> Any:
        return elementary.sin(self.widen(x), self.xp)

    def cos(self, x: Any) -> Any:
        return elementary.cos(self.widen(x), self.xp)
