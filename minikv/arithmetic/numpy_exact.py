"""`Exact` on NumPy, where looking at a number costs nothing: the same bits, faster and stricter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ..arrays import Array, Features, HeadOutputs, Heads, Keys, Outputs, Queries, Scores, Values
from ..errors import ArithmeticRangeError
from . import elementary
from .exact import FLOAT32_MAX, Exact, Weight, keeps_subnormals, power_below, round_to
from .in_place import largest_in, scores_in
from .masking import masked_in_place
from .room import Room
from .sight import UNWATCHED, Sight, Watch
from .tiles import in_tiles

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

    few_queries = 32  # so many at most are taken as by other libraries

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

    def tops(self, x: Heads) -> Array:
        """`Exact.tops`, one head behind the other, as caches hold them: twice as fast."""
        heads = np.abs(x.swapaxes(0, -2))  # (G, T, d)
        tops = self.widen(largest_in(heads.reshape(-1, heads.shape[-1])))
        return tops.reshape(*heads.shape[:-1], 1).swapaxes(0, -2)

    def grid(self, size: np.ndarray, row_sum: np.ndarray | float, bits: int) -> Array:
        """`Exact.grid`, from sums that may have been rounded.

        All orders of addition agree on the power of two below a sum, unless one lies within the
        rounding error of the sum, 2**20 * 2**-53 relative. Then `total` decides, which knows no
        order and, where no sum is in doubt, agrees with them.
        """
        return self.grid_for(row_sum, bits, lambda: size)

    def grid_for(
        self, row_sum: np.ndarray | float, bits: int, made: Callable[[], np.ndarray]
    ) -> Array:
        """`grid`, of rows that need only be made where a sum is in doubt."""
        target = row_sum * ((1 + 2.0**-9) * 2.0**-bits)
        power = power_below(target)
        if any_of(abs(target - 1.5 * power) > (0.5 - 2.0**-30) * power):
            size = made()
            return super().grid(size, self.total(size), bits)
        return 2.0 * power

    def masked(self, scores: Scores, hidden: np.ndarray | None) -> Scores:
        return masked_in_place(scores, hidden)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        norm = super().rms_norm
        return in_tiles(lambda rows: norm(rows, weight, eps), x)

    def gated(self, gate: Features, up: Features, activation: str) -> Features:
        product = super().gated
        return in_tiles(lambda x, y: product(x, y, activation), gate, up)

    def attention(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        sight: Sight,
        scale: float,
        watch: Watch = UNWATCHED,
    ) -> HeadOutputs:
        """`Arithmetic.attention`; of many queries one K/V head at a time, and in place.

        Weights times powers meet values divided by them, in units of a grid that multiplies their
        sum: the terms are those of `weighted_sum` but for powers of two, and exact as they are.
        """
        tokens, heads, head_dim = q.shape
        length, groups, _ = k.shape
        few = tokens <= self.few_queries
        if few or not watch.nobody or sight.per_head or length > self.context:
            return super().attention(q, k, v, sight, scale, watch)
        share = heads // groups
        keys = np.ascontiguousarray(k.transpose(1, 2, 0), self.wide)  # (G, d, S)
        prepared = self.values(v)
        values = (prepared.rows / prepared.powers).swapaxes(0, 1)  # (G, S, d)
        powers = np.ascontiguousarray(prepared.powers[..., 0].T)  # (G, S)
        factors = np.stack([np.ones_like(powers), powers], axis=-1)  # (G, S, 2)
        step = 2 * self.query_block  # of one K/V head, whose scores alone are held
        room = np.empty(step * share * length)
        out = np.empty((tokens, groups, share, head_dim), self.dtype)
        for start in range(0, tokens, step):
            queries = slice(start, min(start + step, tokens))
            seen = sight.keys_for(queries)
            hidden = sight.hidden(queries, seen)
            rows = self.placed_queries(q[queries], scale * elementary.STEPS)
            rows = rows.reshape(-1, groups, share, head_dim)
            for g in range(groups):
                pattern, by_head = scores_in(room, rows[:, g], keys[g, :, seen])
                self.masked(by_head, hidden)
                grid = self.weigh(pattern, powers[g, seen], factors[g, seen])
                z = pattern @ values[g, seen]
                z *= grid
                out[queries, g] = z.reshape(-1, share, head_dim)
        out += 0.0  # -0.0, which a product of its own may be, becomes +0.0
        return out.reshape(tokens, heads, head_dim)

    def weigh(self, pattern: np.ndarray, powers: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Scores, 256 times, become weights times powers, in units of a grid that is returned.

        Sums are products: that of a softmax is exact in any order, and `grid` knows when the
        rounding of the other matters. A power of two moves no rounding, so that one division does
        for the total and the grid, and the integers that it is rounded to are those of
        `weighted_sum`.

        Parameters
        ----------
        pattern : ``(rows, S)``
        powers : ``(S,)``
        factors : ``(S, 2)``
            1, and the powers.

        Returns
        -------
        grid : ``(rows, 1)``
        """
        pattern -= largest_in(pattern)
        elementary.exp_of_steps(pattern)
        round_to(pattern, 2.0**-self.denominator_bits)
        sums = pattern @ factors
        total = sums[:, :1]
        pattern *= powers
        bits = self.significand - self.kv_bits
        grid = self.grid_for(sums[:, 1:] / total, bits, lambda: pattern / total)
        pattern /= total * grid
        round_to(pattern, 1.0)
        return grid

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
