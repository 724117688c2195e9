"""bfloat16 and float16 by the letter: the result of each single operation is rounded.

Numbers are held in float32, which holds every number of either format. An operation takes
float32's own ``+ - * /`` or root and rounds its result once more. That is the correctly rounded
result in the format: with p bits in the format and at least 2 p + 2 in the wider one, rounding
twice is rounding once (Figueroa 1995, "When is double rounding innocuous?"), and float32 has 24
bits, bfloat16 8 and float16 11. Below its normal numbers a format has fewer bits, and a result lies
either further from what is halfway between two of them than float32's last place, or on it.

A sum of many terms is many operations, and depends on their order. Here the order is fixed, and a
row's does not depend on the rows beside it:

* products with matrices, means and scores: terms that lie half of the sum apart are added, and so
  on until one is left;
* sums over keys (softmax, values): from the first key to the last, so that keys that weigh 0,
  before or behind, change nothing.

Products that are added in float32 and rounded to the format once, at the end, as a matrix unit may
add them, are more accurate and have other bits.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ..arrays import (
    Array,
    HeadOutputs,
    Inputs,
    Keys,
    NewKeys,
    Outputs,
    Pattern,
    Queries,
    Scores,
    Values,
)
from ..errors import InputError
from .base import Arithmetic, Matrix, Prepared

TERMS_AT_A_TIME = 2**18  # of products: fewer calls, against what the processor's cache holds
EXPONENT = np.uint32(0x7F800000)  # of a float32, where it stands
SIGN = np.uint32(0x80000000)
FLOAT16_NORMAL = np.uint32((127 - 14) << 23)  # 2**-14: below it float16 is a grid of 2**-24
FLOAT16_TOP = np.uint32((127 + 15) << 23)  # 2**15, the exponent of its largest numbers
FLOAT16_END = np.float32(65520)  # from here up the nearest float16 is infinite
GRID = np.uint32((13 << 23) + (1 << 22))  # makes 2**e of its bits 1.5 * 2**(e + 13)


def round_to_bfloat16(x: np.ndarray) -> None:
    """Float32 numbers, in place, to the nearest bfloat16, ties to even.

    bfloat16 is the upper half of float32. Half of the last place that stays, less one and plus that
    place's bit, carries into it where what is dropped is above a half, or is a half and the bit
    odd. NaN, as operations make it, stays NaN.
    """
    bits = x.view(np.uint32)
    carry = bits >> np.uint32(16)
    carry &= np.uint32(1)
    carry += np.uint32(0x7FFF)
    bits += carry
    bits &= np.uint32(0xFFFF0000)


def round_to_float16(x: np.ndarray) -> None:
    """Float32 numbers, in place, to the nearest float16, ties to even.

    As ``x.astype(float16).astype(float32)`` does, by float32's own sums. A number of 2**e and more,
    below twice that, has its last place of float16 at 2**(e - 10), which is where 1.5 * 2**(e + 13)
    has its own of float32: the sum of both is rounded to it, and their difference is exact. Below
    2**-14 places stay where they are there. NaN stays NaN.
    """
    x = np.atleast_1d(x)
    bits = x.view(np.uint32)
    exponent = bits & EXPONENT
    if exponent.max(initial=0) >= FLOAT16_TOP:
        large = ~(np.abs(x) < FLOAT16_END)  # NaN too
        if large.any():
            kept = np.where(np.isnan(x), x, np.copysign(np.float32(np.inf), x))[large]
            x[large] = 0
            round_to_float16(x)
            x[large] = kept
            return
    sign = bits & SIGN
    np.maximum(exponent, FLOAT16_NORMAL, out=exponent)
    exponent += GRID
    grid = exponent.view(np.float32)
    x += grid
    x -= grid
    bits |= sign  # of a zero, which the difference has lost


class Numbers(np.ndarray):
    """Float32 numbers of which each belongs to a format: so does whatever is computed with them.

    Operations on single numbers are rounded. Those that add across elements are refused: in which
    order is for the arithmetic to say. With float64 beside them they are numbers like any other.
    """

    @classmethod
    def fit(cls, x: np.ndarray) -> None:
        """Round float32 numbers to the format, in place."""
        raise NotImplementedError

    @classmethod
    def of(cls, x: Array | float) -> Numbers:
        """Numbers of the format nearest to `x`; `x` itself if it is of them already."""
        if isinstance(x, cls):
            return x
        rounded = np.array(x, dtype=np.float32)
        cls.fit(rounded)
        return rounded.view(cls)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **options: Any
    ) -> Any:
        if out:
            options["out"] = tuple(_plain(x) for x in out)
        if any(isinstance(x, np.ndarray) and x.dtype == np.float64 for x in inputs):
            return getattr(ufunc, method)(*map(_plain, inputs), **options)
        single = method == "__call__" and ufunc.signature is None
        if not single and ufunc is not np.maximum:
            raise TypeError(f"{ufunc.__name__}.{method}: the arithmetic says how sums are taken")
        operands = [_plain(type(self).of(x)) for x in inputs]
        with _silent():
            result = np.asarray(getattr(ufunc, method)(*operands, **options))
        if result.dtype != np.float32:  # a comparison
            return result
        type(self).fit(result)
        return out[0] if out else result.view(type(self))


def _silent() -> np.errstate:
    """What leaves a format is infinite or NaN, as in the format itself, and says no more."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, np.ndarray) else x


class Bfloat16Numbers(Numbers):
    """Of bfloat16: 8 bits, and float32's range."""

    @classmethod
    def fit(cls, x: np.ndarray) -> None:
        round_to_bfloat16(x)


class Float16Numbers(Numbers):
    """Of float16: 11 bits, up to 65,504."""

    @classmethod
    def fit(cls, x: np.ndarray) -> None:
        round_to_float16(x)


class Rounded(Arithmetic):
    """Each operation rounded to a format of 16 bits, on NumPy: for experiments, not for speed.

    What is kept takes four bytes a number, as in float32. exp, sin and cos are float64's, rounded.
    """

    numbers: ClassVar[type[Numbers]]

    def __init__(self, xp: ModuleType = np) -> None:
        if xp is not np:
            raise InputError(f"arithmetic {self.name!r} is built on NumPy alone: backend 'numpy'")
        self.xp = xp
        self.dtype = np.float32
        self.wide = np.float32

    def widen(self, x: Array) -> Array:
        return self.numbers.of(x)

    def narrow(self, x: Array) -> Array:
        return self.numbers.of(x)

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        """The matrix rounded, in memory column by column: like terms of sums lie together."""
        return np.asfortranarray(self.numbers.of(matrix))

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        rows = _plain(self.numbers.of(x)).T[:, :, None]  # (K, T, 1)
        matrix = _plain(weight).T[:, None, :]  # (K, 1, N)
        terms, tokens = rows.shape[:2]
        outputs = matrix.shape[2]
        columns = max(1, min(outputs, TERMS_AT_A_TIME // terms))
        at_once = max(1, TERMS_AT_A_TIME // (terms * columns))
        out = np.empty((tokens, outputs), dtype=np.float32)
        for left in range(0, outputs, columns):
            some = matrix[:, :, left : left + columns]
            for top in range(0, tokens, at_once):
                with _silent():
                    products = rows[:, top : top + at_once] * some
                out[top : top + at_once, left : left + columns] = self.halved(products)
        return out.view(self.numbers)

    def halved(self, terms: np.ndarray) -> np.ndarray:
        """Sums over the first axis of terms not yet rounded, which it overwrites."""
        self.numbers.fit(terms)
        with _silent():
            while len(terms) > 1:
                half = len(terms) // 2
                sums = terms[:half]
                sums += terms[half : 2 * half]
                self.numbers.fit(sums)
                if len(terms) % 2:
                    terms[half] = terms[-1]
                terms = terms[: half + len(terms) % 2]
        return terms[0]

    def in_turn(self, terms: np.ndarray, total: np.ndarray) -> None:
        """Add terms, one of the first axis after the other, to a total, in place."""
        with _silent():
            for term in terms:
                total += term
                self.numbers.fit(total)

    def mean_square(self, x: Array) -> Array:
        squares = _plain(self.numbers.of(x)) ** 2
        sums = self.halved(np.moveaxis(squares, -1, 0).copy())
        return sums.view(self.numbers)[..., None] / x.shape[-1]

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """As everywhere, of rows that are divided by a power of two first, and `eps` by its square.

        That changes no bit but where squares would leave the format: float16 ends at 65,504.
        """
        x = self.numbers.of(x)
        largest = np.abs(_plain(x)).max(axis=-1, keepdims=True)
        power = np.ldexp(np.float32(1), np.frexp(largest)[1])
        return super().rms_norm(x / power, weight, _plain(self.numbers.of(eps)) / power / power)

    def settle(self, x: NewKeys) -> NewKeys:
        return self.numbers.of(x)

    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        tokens, heads, _ = q.shape
        length, groups, _ = k.shape
        q = _plain(self.numbers.of(q) * scale)
        k = _plain(self.numbers.of(k))
        out = np.empty((heads, tokens, length), dtype=np.float32)
        for head in range(heads):
            keys = k[:, head * groups // heads]  # (S, d)
            products = q[:, head].T[:, :, None] * keys.T[:, None, :]  # (d, T, S)
            out[head] = self.halved(products)
        return out.view(self.numbers)

    def softmax(self, scores: Scores) -> Pattern:
        scores = self.numbers.of(scores)
        weights = self.exp(scores - np.max(scores, axis=-1, keepdims=True))
        total = np.zeros(weights.shape[:-1], dtype=np.float32)
        self.in_turn(np.moveaxis(_plain(weights), -1, 0), total)
        return weights / total[..., None].view(self.numbers)

    def values(self, v: Values) -> Prepared:
        return self.numbers.of(v)

    def weighted_sum(self, pattern: Pattern, v: Prepared) -> HeadOutputs:
        heads, tokens, length = pattern.shape
        groups, head_dim = v.shape[1:]
        pattern = self.numbers.of(pattern).reshape(groups, -1, tokens, length)
        pattern = np.moveaxis(pattern, -1, 0)[..., None]  # (S, G, R, T, 1)
        v = v[:, :, None, None, :]  # (S, G, 1, 1, d)
        z = np.zeros((groups, heads // groups, tokens, head_dim), dtype=np.float32)
        at_once = max(1, TERMS_AT_A_TIME // z.size)
        for first in range(0, length, at_once):
            keys = slice(first, first + at_once)
            self.in_turn(_plain(pattern[keys] * v[keys]), z)
        return z.reshape(heads, tokens, head_dim).transpose(1, 0, 2).view(self.numbers)

    def exp(self, x: Array) -> Array:
        with np.errstate(over="ignore", under="ignore"):
            return self.numbers.of(np.exp(_plain(np.asarray(x)).astype(np.float64)))

    def sin(self, x: Array) -> Array:
        return self.numbers.of(np.sin(x))

    def cos(self, x: Array) -> Array:
        return self.numbers.of(np.cos(x))


class Bfloat16(Rounded):
    """Every operation rounded to bfloat16."""

    name = "bfloat16"
    numbers = Bfloat16Numbers


class Float16(Rounded):
    """Every operation rounded to float16; what is too large becomes infinite."""

    name = "float16"
    numbers = Float16Numbers
