"""`Exact` on NumPy, where looking at a number costs nothing: the same bits, faster and stricter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from ..arrays import Array, Outputs, Scores
from ..errors import ArithmeticRangeError
from .exact import FLOAT32_MAX, Exact, Weight, keeps_subnormals, power_below
from .masking import masked_in_place
from .room import Room

SUBNORMALS = (
    "this processor makes float32 numbers below 2**-126 zero, in sums, products and the largest of "
    "a row: exact arithmetic keeps its bits only where the stream holds none of them"
)


def scalar(array: np.ndarray) -> np.ndarray | float:
    """An array of one element as a Python float, whose arithmetic is the same and faster."""
    return float(array.item()) if array.size == 1 else array


def largest_of(row_sum: np.ndarray | float) -> float:
    """The largest sum; NaN where any is."""
    return row_sum if isinstance(row_sum, float) else float(row_sum.max())


def any_of(condition: np.ndarray | bool) -> bool:
    """Whether it holds for any row."""
    return condition if isinstance(condition, bool) else bool(condition.any())


class NumpyExact(Exact):
    """`Exact` with a fast guess of each row's sum, and refusals of what is not finite.

    Parameters
    ----------
    context : int
        The longest sum over tokens; it fixes the softmax denominator's grid.

    Raises
    ------
    ArithmeticRangeError
        From `weight` and `linear`, naming the weight, if a value is NaN, infinite or too large.
    """

    def __init__(self, context: int = 2**17) -> None:
        super().__init__(context, np)
        self._room = Room()
        if not keeps_subnormals(np):
            warnings.warn(SUBNORMALS, stacklevel=2)

    def room_for(self, matrix: np.ndarray) -> np.ndarray:
        return self._room.empty(matrix.shape, np.float64)

    def widen(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64, copy=False)

    def narrow(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32)

    def largest(self, size: np.ndarray) -> np.ndarray | float:
        return scalar(size.max(axis=-1, keepdims=True))

    def row_sum(self, size: np.ndarray) -> np.ndarray | float:
        """Sums in whatever order NumPy takes them; `grid` knows when their rounding matters."""
        return scalar(size.sum(axis=-1, keepdims=True))

    def grid(self, size: np.ndarray, row_sum: np.ndarray | float, bits: int) -> Array:
        """`Exact.grid`, from sums that may have been rounded.

        All orders of addition agree on the power of two below a sum, unless one lies within the
        rounding error of the sum, 2**20 * 2**-53 relative. Then `total` decides, which knows no
        order and, where no sum is in doubt, agrees with them.
        """
        target = row_sum * ((1 + 2.0**-9) * 2.0**-bits)
        power = power_below(target)
        if any_of(abs(target - 1.5 * power) > (0.5 - 2.0**-30) * power):
            return super().grid(size, self.total(size), bits)
        return 2.0 * power

    def masked(self, scores: Scores, hidden: np.ndarray | None) -> Scores:
        return masked_in_place(scores, hidden)

    def expect_finite(self, row_sum: np.ndarray | float, weights: Sequence[Weight]) -> None:
        largest = largest_of(row_sum)
        if not largest < math.inf:
            found = "infinity" if largest > 0 else "NaN"
            names = " and ".join(weight.name for weight in weights)
            raise ArithmeticRangeError(
                f"input of {names} holds {found}, expected finite activations"
            )

    def expect_float32(self, out: Outputs, row_sum: np.ndarray | float, weight: Weight) -> None:
        if largest_of(row_sum) * weight.largest < FLOAT32_MAX:
            return  # no product can be larger
        if not (np.abs(out) <= FLOAT32_MAX).all():
            raise ArithmeticRangeError(f"output of {weight.name} overflows float32")
